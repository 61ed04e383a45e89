"""`install(app)`: in a team's own Celery application, a task for each analysis that makes a durable job.

    from millrace.jobs.celery import install
    install(app, aliases={"src.tasks.shap_explain": "explain"})

    app.send_task("millrace.explain", kwargs={"model": "/data/model.txt", "data": "/data/rows.parquet"})

Such a task submits a job under its own id, so that a message that comes twice makes one job, and ends without a result.
When the job has ended, the task is sent once more by whoever ended it, and then has one: a small reference. So `.get()`,
chains, groups and chords wait for the job while no worker does. Does not carry jobs out: `millrace worker` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore
from kombu.utils.json import dumps

from millrace.analyses import catalogue
from millrace.jobs.celery.names import RUN_JOB
from millrace.jobs.database import DatabaseAway
from millrace.jobs.states import ASKED_BY_TASK, Job
from millrace.run.errors import AnalysisFailed, WrongQuestion

if TYPE_CHECKING:
    from celery import Celery

    from millrace.jobs.desk import Desk

WAITING = "WAITING"
"""The state of a task whose job has not ended; its information is {"job": number}."""
ABOUT_THE_JOB = ("queue", "priority", "seed", "owner", "label", "max_total_s")
_AGAIN = {"max_retries": 20, "retry_backoff": 1, "retry_backoff_max": 60, "retry_jitter": True}


class JobFailed(AnalysisFailed):
    """The job that a task asked for failed, or was cancelled; the message says why."""


def analyses() -> dict[str, str]:
    """Tasks by name, and the analysis that each asks for."""
    named = {f"millrace.{e.name.replace(' ', '_')}": e.name for e in catalogue.ENTRIES if e.plan}
    return {**named, "millrace.run": "run"}


def install(
    app: Celery,
    *,
    jobs: str | None = None,
    database: str | None = None,
    broker: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Add millrace's tasks to `app`. `jobs`, `database`: as in the settings, which hold where they are not given; `broker`:
    not given, the application's own. `aliases`: more names, and the analysis of each ("explain", "run", ...).

    A task takes the fields of the analysis as keywords, files by path, and beside them what is about the job: queue,
    priority, seed, owner, label, max_total_s. A queue of a tier to which the task was routed is the job's queue, too.
    """
    known = analyses()
    for alias, analysis in (aliases or {}).items():
        if analysis not in known.values():
            raise WrongQuestion(
                f"The alias {alias!r} is for {analysis!r}; there are {', '.join(sorted(known.values()))}."
            )
        known[alias] = analysis
    places = {"jobs": jobs, "database": database, "broker": broker}
    for name, analysis in known.items():
        if name not in app._tasks or name in (aliases or {}):
            app.task(
                _asking(analysis, places), name=name, bind=True, acks_late=False, ignore_result=False, shared=False, lazy=False,
                autoretry_for=(DatabaseAway,), **_AGAIN,
            )  # fmt: skip
    if RUN_JOB not in app._tasks:
        app.task(
            _run_job, name=RUN_JOB, acks_late=False, ignore_result=True, send_events=False, shared=False, lazy=False
        )


def _run_job(number: int) -> None:
    """A wake-up: a worker of millrace never runs it, but claims the best job of its tier."""
    raise WrongQuestion(
        f"A wake-up (job {number}) was taken by a worker that is not millrace's: start workers of the queues named millrace.* "
        "with `millrace worker --tier TIER --app MODULE:APP`. The job itself is safe."
    )


def _asking(analysis: str, places: Mapping[str, str | None]) -> Any:
    def ask(self: Any, **question: Any) -> dict[str, Any]:
        from millrace.compose import load_settings, open_jobs

        given = {**places, "broker": places["broker"] or self.app.conf.broker_url}
        desk = open_jobs(load_settings(given))
        try:
            return _answer(self, desk, analysis, question)
        finally:
            desk.table.close()

    return ask


def _answer(task: Any, desk: Desk, analysis: str, question: dict[str, Any]) -> dict[str, Any]:
    """The reference of the job, when it has ended; else the task ends here, to be sent again."""
    from millrace.ordering import order

    request = task.request
    waits = not request.called_directly and not request.is_eager
    key = f"{ASKED_BY_TASK}{request.id}" if waits else None
    job = desk.table.of_key(key) if key else None
    if job is None:
        about = {name: question.pop(name) for name in ABOUT_THE_JOB if name in question}
        routed = (request.delivery_info or {}).get("routing_key")
        if routed != task.app.conf.task_default_queue and any(routed in t.queues for t in desk.tiers.tiers.values()):
            about.setdefault("queue", routed)
        caller = _caller(task, routed) if waits else None
        job = order(desk, analysis, question, key=key, caller=caller, **about)
    if waits and job.ended_at is None:
        task.update_state(state=WAITING, meta={"job": job.id})
        job = desk.table.get(job.id)
        if job.published_at is None or job.ended_at is None:
            raise Ignore
        # It ended, and its reply has come and gone already: what was written over is written again.
    return reference(desk, job)


def _caller(task: Any, queue: str | None) -> dict[str, Any]:
    """The message of this very task, with its id, its callbacks and its place in a canvas."""
    again = task.signature_from_request(queue=queue, expires=None)
    return json.loads(dumps(again))  # type: ignore[no-any-return]


def reference(desk: Desk, job: Job) -> dict[str, Any]:
    """What a task's result is: where the answer lies, and its digest. `JobFailed` when there is none."""
    if job.state in ("failed", "cancelled"):
        raise JobFailed(f"Job {job.id} ({job.label}) was {job.state}: {job.why}")
    told: dict[str, Any] = {"job": job.id, "state": job.state}
    if job.result is not None:
        told |= {"digest": job.digest, "folder": str(desk.home / job.result)}
    return told
