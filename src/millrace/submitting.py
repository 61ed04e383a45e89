"""`mr.submit`: the same questions as `mr.explain` and the others, as durable jobs of this machine's jobs' folder.

    job = mr.submit.explain(model, X)      at once: the job's number and state
    mr.submit.answer(job)                  the folder of its answer, once it has succeeded

Workers carry them out: `millrace up`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace import compose, ordering

if TYPE_CHECKING:
    from millrace.jobs.states import Job


def submit(analysis: str, question: dict[str, Any], *, jobs: str | Path | None = None) -> Job:
    """Any analysis of the catalogue by name, or "run" with function="module:name" and items=FILE.

    `jobs`: the jobs' folder, as the settings say when not given. In `question`, `queue`, `priority`, `seed`, `owner`,
    `label`, `key` (a second order with it is the same job) and `max_total_s` are about the job.
    """
    about = {name: question[name] for name in ordering.ABOUT if name in question}
    asked = {name: value for name, value in question.items() if name not in ordering.ABOUT}
    desk = compose.open_jobs(compose.load_settings({"jobs": jobs}))
    try:
        return ordering.order(desk, analysis, asked, **about)
    finally:
        desk.table.close()


def explain(model: Any, X: Any, *, jobs: str | Path | None = None, **question: Any) -> Job:
    """`mr.explain(model, X, ...)` as a job."""
    return submit("explain", {"model": model, "data": X, **question}, jobs=jobs)


def refute(data: Any, treatment: str, outcome: Any, *, jobs: str | Path | None = None, **question: Any) -> Job:
    """`mr.refute(data, treatment, outcome, ...)` as a job."""
    return submit("refute", {"data": data, "treatment": treatment, "outcome": outcome, **question}, jobs=jobs)


def run(function: str, items: str | Path, *, jobs: str | Path | None = None, **more: Any) -> Job:
    """`millrace run module:function --items FILE` as a job."""
    return submit("run", {"function": function, "items": items, **more}, jobs=jobs)


def look(job: Job | int, *, jobs: str | Path | None = None) -> Job:
    """The job as it is now."""
    desk = compose.open_jobs(compose.load_settings({"jobs": jobs}))
    try:
        return desk.table.get(job if isinstance(job, int) else job.id)
    finally:
        desk.table.close()


def answer(job: Job | int, *, jobs: str | Path | None = None) -> Path:
    """The folder of the answer; `WrongQuestion` says why there is none yet."""
    from millrace.folder import page_of

    desk = compose.open_jobs(compose.load_settings({"jobs": jobs}))
    try:
        return page_of(desk.answer(desk.table.get(job if isinstance(job, int) else job.id))).parent
    finally:
        desk.table.close()
