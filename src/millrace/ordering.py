"""From a question to a durable job: inputs are put by, the question is checked and predicted, a queue is chosen.

The faces come here to submit. Nothing is run; see `jobs.worker` for who does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace import tracing
from millrace.analyses import catalogue
from millrace.jobs import inputs
from millrace.jobs.inputs import Input
from millrace.jobs.routing import Routed, route
from millrace.jobs.states import Job, Order
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.run.budget import Budget, Plan

KINDS = ("data", "model")
MOST_QUESTION_BYTES = 1 << 20
ABOUT = ("queue", "priority", "seed", "owner", "label", "key", "max_total_s")
"""What is about the job, and not of the question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that can be a job. `question`: plain values, inputs by their names; `plan`: of it under a budget, None when
    nobody can predict it; `kind`: the analysis' first word."""

    analysis: str
    question: Mapping[str, Any]
    plan: Callable[[Budget], Plan] | None
    kind: str

    def to(self, desk: Desk, label: str = "", queue: str | None = None) -> Routed:
        """Where it goes. `DoesNotFit` when no tier would do."""
        return route(desk.tiers, self.kind, label or self.analysis, self.plan, queue)


def asked(desk: Desk, analysis: str, question: Mapping[str, Any], *, files: bool = True) -> Asked:
    """The question checked and read. `files`: texts in it may be files and registered names, which become inputs; else an
    `Input` alone is one, and no text is looked at. Raises `WrongQuestion` for what cannot be asked."""
    import json

    if analysis == "run":
        said, plan = _function(desk, question, files), None
    else:
        said, plan = _analysis(desk, analysis, question, files)
    try:
        text = json.dumps(said)
    except TypeError as e:
        raise WrongQuestion(f"A job's question is plain values and files: {e}. Register it, or give a file.") from e
    if len(text) > MOST_QUESTION_BYTES:
        raise WrongQuestion(
            f"The question is {len(text):,} bytes long: give data as files or registered names, never inline."
        )
    return Asked(analysis, said, plan, "run" if analysis == "run" else catalogue.find(analysis).path[0])


def order(
    desk: Desk,
    analysis: str,
    question: Mapping[str, Any],
    *,
    queue: str | None = None,
    priority: int = 0,
    seed: int = 0,
    owner: str = "",
    label: str = "",
    key: str | None = None,
    max_total_s: float = 0.0,
    files: bool = True,
    caller: Mapping[str, Any] | None = None,
) -> Job:
    """Submit the question as a job. `key`: a second order with it is the same job; `files`: see `asked`; `caller`: who
    is to be told of the end, as `jobs.celery` writes it.

    Files and named inputs become digests; what else is in the question must be plain values. Raises `WrongQuestion` for
    what cannot be asked, `DoesNotFit` when no tier would do.
    """
    one = asked(desk, analysis, question, files=files)
    return place(
        desk, one, queue=queue, priority=priority, seed=seed, owner=owner, label=label, key=key, max_total_s=max_total_s,
        caller=caller,
    )  # fmt: skip


def place(
    desk: Desk,
    one: Asked,
    *,
    queue: str | None = None,
    priority: int = 0,
    seed: int = 0,
    owner: str = "",
    label: str = "",
    key: str | None = None,
    max_total_s: float = 0.0,
    caller: Mapping[str, Any] | None = None,
    trace: str = "",
) -> Job:
    """Submit what was `asked`, and wake somebody for it. `trace`: a traceparent that the job is a part of."""
    label = label or one.analysis
    to = one.to(desk, label, queue)
    question = {"question": one.question, "cwd": str(Path.cwd())}
    if caller is not None:
        question["caller"] = caller
    if trace := trace or os.environ.get(tracing.PARENT, ""):
        question["trace"] = trace
    made = Order(
        one.analysis, question, to.queue, to.tier, seed, priority, owner, label, key, to.prediction, max_total_s
    )  # fmt: skip
    return desk.publish(desk.table.submit(made))


def register(desk: Desk, kind: str, name: str, source: Path) -> str:
    """Keep a file or folder under a name; its digest."""
    if kind not in KINDS:
        raise WrongQuestion(f"What is registered is {' or '.join(KINDS)}, not {kind!r}.")
    given = inputs.put(desk.inputs, source)
    desk.table.name(kind, name, given)
    return given


def _analysis(
    desk: Desk, analysis: str, question: Mapping[str, Any], files: bool
) -> tuple[dict[str, Any], Callable[[Budget], Plan] | None]:
    """The question with digests for its inputs, checked by its spec; and its plan, a function of a budget."""
    entry = catalogue.find(analysis)
    model = entry.load("spec")
    said, opened = {}, {}
    for name, value in question.items():
        field = model.model_fields.get(name)
        takes_files = field is not None and _takes_files(field)
        given = _input(desk, value, files) if takes_files else None
        said[name] = {"input": given} if given is not None else value
        opened[name] = inputs.find(desk.inputs, given) if given is not None else value
    spec = model(**opened)
    facts = entry.load("facts")(spec)
    made: Callable[[Budget], Plan] = lambda budget: entry.load("plan")(facts, budget)  # noqa: E731 - named for its type
    return said, made


def _takes_files(field: Any) -> bool:
    """A field of any type is an object or a file; paths are files or folders; but one that is written some other way."""
    return field.annotation is Any or "Path" in str(field.annotation)


def _function(desk: Desk, question: Mapping[str, Any], files: bool) -> dict[str, Any]:
    from millrace.run.function import find_function

    find_function(question["function"])
    given = _input(desk, question["items"], files)
    if given is None:
        raise WrongQuestion(f"There is no file {question['items']} of items, and no data of that name is registered.")
    return {**question, "items": {"input": given}}


def _input(desk: Desk, value: Any, files: bool) -> str | None:
    """The digest of what a value of the question means; None when it is a plain value."""
    if isinstance(value, Input):
        return value.name
    if not files or value is None or isinstance(value, bool | int | float | list | tuple | dict):
        return None
    if isinstance(value, str | os.PathLike):
        path = Path(value)
        if path.exists():
            return inputs.put(desk.inputs, path)
        for kind in KINDS:
            known = desk.table.named(kind, str(value))
            if known is not None:
                return known
        if isinstance(value, os.PathLike) or path.suffix or os.sep in str(value):
            raise WrongQuestion(
                f"There is no file {value}, and nothing is registered under that name. Look for a typing error, or "
                "`millrace register data|model NAME FILE`."
            )
        return None
    return _object(desk, value)


def _object(desk: Desk, value: Any) -> str:
    """An object of Python's face as a file: tables as Arrow, arrays as npy, models in their library's own form."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=desk.home) as scratch:
        return inputs.put(desk.inputs, written(value, Path(scratch)))


def written(value: Any, folder: Path) -> Path:
    """The object as a file in that folder. `WrongQuestion` for what has no such form."""
    if hasattr(value, "__arrow_c_stream__"):
        import pyarrow
        from pyarrow import feather

        feather.write_feather(pyarrow.table(value), str(folder / "data.arrow"), compression="uncompressed")
        return folder / "data.arrow"
    if hasattr(value, "__array__"):
        import numpy

        numpy.save(folder / "data.npy", numpy.asarray(value), allow_pickle=False)
        return folder / "data.npy"
    booster = getattr(value, "booster_", value)
    if type(booster).__module__.startswith("lightgbm"):
        booster.save_model(str(folder / "model.txt"))
        return folder / "model.txt"
    if type(value).__module__.startswith("xgboost"):
        value.save_model(str(folder / "model.ubj"))
        return folder / "model.ubj"
    try:
        import joblib

        joblib.dump(value, folder / "model.joblib")
    except Exception as e:
        raise WrongQuestion(
            f"A {type(value).__qualname__} has no form in which a job could carry it ({type(e).__name__}: {e}). Save it to "
            "a file, and give that."
        ) from e
    return folder / "model.joblib"
