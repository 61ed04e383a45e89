"""Where a host keeps what its runs taught: one line a run, and how fast one of its cores is.

Lies beside the settings' cache, in a folder a host, so that a home on several hosts keeps them apart. A file that cannot
be read or written costs the lessons, never a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from millrace.diagnose.forecast import Lesson, lesson
from millrace.folder import Report, history

if TYPE_CHECKING:
    from millrace.run.ledger import History

KEPT, MOST_BYTES = 200, 1 << 20
SAMPLE_KEYS = 64
SPEED_DAYS = 7


def place(cache: Path, described: Mapping[str, Any] | None = None) -> Path:
    """The folder of this host's lessons, beside the `cache` of the settings. `described`: of `host.describe`, where it is
    known."""
    from millrace import host

    known = described or {"processor": host.processor(), "slots": host.slots(host.cores())}
    name = re.sub(r"[^\w.-]+", "-", f"{platform.node()}-{known['processor']}-{known['slots']}")
    return cache.parent / "learnt" / name


def learn(folder: Path, taught: Lesson) -> None:
    """Keep one lesson."""
    with contextlib.suppress(OSError):  # a home that is full or read-only
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lessons.jsonl"
        line = msgspec.json.encode(asdict(taught)) + b"\n"
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, line)
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
        if size > MOST_BYTES:
            _shorten(path)


def _shorten(path: Path) -> None:
    """The last ones only, as a whole file in one step; a line that another process adds meanwhile may be lost."""
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[-KEPT:]))
    os.replace(draft, path)


def method_of(fn: Any) -> str:
    """A user's function as lessons know it: its name, and its file, since many a project has a `simulate:run`."""
    code = getattr(fn, "__code__", None)
    place = f" in {os.path.abspath(code.co_filename)}" if code is not None else ""
    return f"{getattr(fn, '__module__', '')}:{getattr(fn, '__qualname__', fn)}{place}"


def learn_from(folder: Path, report: Report, question: str, function: str) -> None:
    """Keep what a run took beside its plan, for the next plan.

    `question`: its digest, "" where inputs were in memory. `function`: of the user's, "" for an analysis.
    """
    past = history(report.folder)
    plan = report.plan
    if not plan and function:  # an item is the unit
        plan = {"core_s": report.accounting.finished, "method": function}
    taught = lesson(report.accounting, plan, question, sample_of(past) if question else ())
    if taught is not None:
        learn(folder, taught)


def lessons(folder: Path, analysis: str, method: str | None = None) -> list[Lesson]:
    """Those of an analysis (and method), the oldest first; damaged lines are passed over."""
    try:
        lines = (folder / "lessons.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            taught = Lesson.of(msgspec.json.decode(line))
        except (msgspec.DecodeError, TypeError, AttributeError):
            continue  # torn, or of another version
        if taught.analysis == analysis and method in (None, taught.method):
            found.append(taught)
    return found


def speed(folder: Path) -> dict[str, Any]:
    """One core of this host, measured at most once a week: {"index": of the reference, "reference": what that is}."""
    path = folder / "speed.json"
    with contextlib.suppress(OSError, msgspec.DecodeError, KeyError, TypeError):  # measured anew
        known: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        if time.time() - known["at"] < SPEED_DAYS * 86400:
            return known
    from millrace.host.speed import single_core_reference

    measured = single_core_reference()
    told = {"index": measured.index, "reference": measured.reference, "at": time.time()}
    with contextlib.suppress(OSError):  # measured again next time
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(told))
        os.replace(draft, path)
    return told


def question_key(analysis: str, spec: Any, seed: int) -> str:
    """Digest of a question whose inputs are files (with their size and time); "" when one of them is only in memory."""
    said: dict[str, Any] = {}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if not _plain(value):
            return ""
        said[name] = _file(value) if isinstance(value, str | os.PathLike) else value
    text = msgspec.json.encode([analysis, said, seed], enc_hook=str, order="deterministic")
    return hashlib.sha256(text).hexdigest()


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_plain(v) for v in value.values())
    if isinstance(value, tuple | list):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str | os.PathLike)


def _file(value: Any) -> Any:
    try:
        known = os.stat(value)
    except (OSError, ValueError):
        return str(value)
    return [os.path.abspath(value), known.st_size, known.st_mtime_ns]


def sample_of(history: History) -> tuple[str, ...]:
    """Keys of some tasks of a run, evenly taken; those that never reach a store are left out."""
    keys: Sequence[str] = [key for key in dict.fromkeys(history.keys) if key[:1] != "~"]
    step = max(1, len(keys) // SAMPLE_KEYS)
    return tuple(keys[::step][:SAMPLE_KEYS])
