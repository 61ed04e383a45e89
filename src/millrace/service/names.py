"""Data and models by name: registered by the operator, lying under the roots of the settings, or sent by the client.

Who is asked, in this order: what the caller sent or was given, what the operator registered, the roots. No path of a
client's choosing is opened: a name has no dots in front, and what it leads to lies inside a root when all links are followed.
What a client sends is of a form that cannot execute; it is opened once in a process of its own before it gets its name.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Semaphore
from typing import Any

from millrace.host import child_environment
from millrace.jobs import inputs
from millrace.jobs.desk import Desk
from millrace.jobs.states import Job
from millrace.run.errors import WrongQuestion
from millrace.service.access import Caller
from millrace.service.problems import Refused
from millrace.service.quota import Room

MODELS = {
    "lightgbm": ".txt", "xgboost-json": ".json", "xgboost-ubj": ".ubj", "catboost": ".cbm", "onnx": ".onnx", "skops": ".skops",
}  # fmt: skip
DATA = {
    "csv": ".csv", "parquet": ".parquet", "arrow": ".arrow", "npy": ".npy", "jsonl": ".jsonl", "json": ".json", "py": ".py",
    "gml": ".gml", "dot": ".dot", "toml": ".toml",
}  # fmt: skip
"""`py`: candidates of validate, which run in its jail alone."""
SUFFIXES = {"model": MODELS, "data": DATA}
MODEL_ENDINGS = {*MODELS.values(), ".joblib", ".pkl", ".pickle"} - {".json"}
CHECK_S, CHECK_BYTES = 120.0, 4 << 30


@dataclass(frozen=True, slots=True)
class Named:
    """One name. `of`: "operator", "root", or the user."""

    kind: str
    name: str
    of: str
    input: str = ""


@dataclass(frozen=True, slots=True)
class Roots:
    """The directories, and which input each of their files became: one that has not changed is not read again."""

    places: tuple[Path, ...]
    put: dict[tuple[str, int, int], str]


def find(desk: Desk, roots: Roots, caller: Caller, kind: str, name: str) -> str:
    """The input of that name, as the caller may see it. What lies under a root is put by as it is now."""
    for owner in _owners(caller):
        known = desk.table.named(kind, _full(owner, name))
        if known is not None:
            inputs.find(desk.inputs, known)
            return known
    place = under(roots.places, name)
    if place is not None:
        return _put(desk, roots, place)
    where = "models" if kind == "model" else "data"
    raise WrongQuestion(
        f"There is no {kind} called {name!r}. Send it with PUT /v1/{where}/NAME, or let the operator `millrace register {kind} "
        "NAME FILE`; GET /v1/names tells what there is."
    )


def _put(desk: Desk, roots: Roots, place: Path) -> str:
    if place.is_dir():
        return inputs.put(desk.inputs, place)
    stat = place.stat()
    stamp = (str(place), stat.st_mtime_ns, stat.st_size)
    known = roots.put.get(stamp)
    if known is None or not (desk.inputs / known).exists():
        known = roots.put[stamp] = inputs.put(desk.inputs, place)
    return known


def fitted(desk: Desk, roots: Roots, job: Job) -> str:
    """The input that is the model which a job of `twin fit` made."""
    stamp = (f"job-{job.id}", job.attempt, 0)
    known = roots.put.get(stamp)
    if known is None or not (desk.inputs / known).exists():
        found = [path.parent for path in desk.answer(job).glob("twin-*/model.json")]
        if len(found) != 1:
            raise WrongQuestion(f"Job {job.id} is of {job.analysis} and left no model: name a job of twin fit.")
        known = roots.put[stamp] = inputs.put(desk.inputs, found[0])
    return known


def still_there(desk: Desk, question: Any) -> None:
    """Every input of a question as the table has it: `WrongQuestion` for one that was taken away meanwhile."""
    if isinstance(question, dict):
        if set(question) == {"input"}:
            inputs.find(desk.inputs, str(question["input"]))
        for value in question.values():
            still_there(desk, value)
    elif isinstance(question, list):
        for value in question:
            still_there(desk, value)


def under(roots: tuple[Path, ...], name: str) -> Path | None:
    """The file or folder of that name under the first root that has it, with no link that leads out."""
    for root in roots:
        real = root.resolve()
        try:
            place = (real / name).resolve()
        except (OSError, ValueError, RuntimeError):  # a link in a circle is a RuntimeError before Python 3.13
            continue
        if place.is_relative_to(real) and place != real and place.exists():
            return place
    return None


def listed(desk: Desk, roots: tuple[Path, ...], caller: Caller) -> list[Named]:
    """All names that the caller may use, those of roots by their first level."""
    found = []
    for kind, full, given in desk.table.names():
        owner, _, name = full.rpartition(":")
        if kind in SUFFIXES and owner in _owners(caller):
            found.append(Named(kind, name, owner or "operator", given))
    for root in roots:
        inside = sorted(p for p in root.iterdir() if not p.name.startswith(".")) if root.is_dir() else []
        found += [
            Named("model" if p.suffix in MODEL_ENDINGS else "data", p.name, "root")
            for p in inside
            if under(roots, p.name)
        ]
    return found


def keep(
    desk: Desk, caller: Caller, kind: str, name: str, form: str, draft: Path, checks: Semaphore, room: Room
) -> str:
    """Give what was sent its name, when it is what it says. The draft lies in the inputs' folder; its input's name.

    `checks`: how many readers there may be at once; `room`: what the caller may keep."""
    suffix = SUFFIXES[kind].get(form)
    if suffix is None:
        raise WrongQuestion(f"There is no form {form!r} of {kind}; there are {', '.join(SUFFIXES[kind])}.")
    whole = draft.with_suffix(suffix)
    draft.rename(whole)
    try:
        with checks:
            check(kind, form, whole)
        given = inputs.name_of(whole)
        with room.of(caller.user, given, whole.stat().st_size):
            inputs.put(desk.inputs, whole, given)
            desk.table.name(kind, _full(caller.user, name), given)
    finally:
        whole.unlink(missing_ok=True)
    return given


def drop(desk: Desk, caller: Caller, kind: str, name: str) -> None:
    """Take a name of the caller's own away. Jobs that were asked with it are not touched."""
    full = _full(caller.user, name)
    if desk.table.named(kind, full) is None:
        raise Refused(404, f"You have no {kind} called {name!r}; GET /v1/names tells what there is, and of whom.")
    desk.table.unname(kind, full)


def check(kind: str, form: str, path: Path) -> None:
    """Open it in a process of its own, with bounds of memory and time: readers in C may crash on what is made to."""
    command = [sys.executable, "-m", "millrace.service.checking", kind, form, str(path), str(CHECK_BYTES)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=CHECK_S, env=child_environment(),
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WrongQuestion(f"The {kind} could not be read as {form} within {CHECK_S:.0f} s.") from None
    if done.returncode == 2:
        raise WrongQuestion(done.stdout.strip().replace(str(path), f"that was sent as {form}"))
    if done.returncode:
        raise WrongQuestion(f"What was sent is not readable as {form}: its reader ended with {done.returncode}.")


def _owners(caller: Caller) -> tuple[str, ...]:
    return (caller.user, "") if caller.user else ("",)


def _full(owner: str, name: str) -> str:
    return f"{owner}:{name}" if owner else name
