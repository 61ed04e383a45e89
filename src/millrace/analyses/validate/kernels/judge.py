"""The judge of one case: what a program's call came to, as a verdict. Runs in a worker, beside its warm cell.

Values that a task returns are plain and may be kept; what no repetition would repeat (`inconclusive`) is raised instead, so
that it is never kept.
"""

from __future__ import annotations

import builtins
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from millrace.analyses.validate.kernels import canonical, plain
from millrace.analyses.validate.kernels.cell import Cell, Child, Limits, Said
from millrace.run.errors import AnalysisFailed, WrongQuestion

Result = dict[str, Any]
"""verdict: pass, wrong, error, cpu_limit, memory, crash; detail: what a person is told; score in [0, 1]; cpu_s; metrics."""
Job = tuple[str, str, bool, tuple[str, ...]]
"""Source, entry, whether it may share a child, modules to load before."""


class Inconclusive(AnalysisFailed):
    """Neither an answer nor a limit: it says nothing about the program."""


def cell(library: tuple[str, ...], path: tuple[str, ...], layers: tuple[str, ...], limits: tuple[Any, ...]) -> Cell:
    """The warm resource of a worker: one zygote."""
    return Cell(library, path, layers, Limits(*limits))


def read_block(block: Sequence[tuple[str | bytes, str]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The canonical forms of (source, entry) pairs: {"rejected": reason}, or the fields of a `canonical.Program`."""
    library = frozenset(names)
    found: list[dict[str, Any]] = []
    for source, entry in block:
        program = canonical.read(source, entry, library)
        if isinstance(program, canonical.Rejected):
            found.append({"rejected": program.reason})
        else:
            found.append({name: getattr(program, name) for name in program.__slots__})
    return found


def compare(cell: Cell, job: Job, text: str, expected: str, frozen: bool) -> Result:
    """Call a program and compare its result with the one that is right."""
    source, entry, batch, modules = job
    said = cell.call(source, entry, text, frozen=frozen, batch=batch, modules=modules)
    if said.end != "value":
        return _verdict(said)
    right = plain.equal(said.text, expected)
    return _result("pass" if right else "wrong", "", float(right), said.cpu_s)


def check(cell: Cell, job: Job, source: str) -> Result:
    """Run the user's check, which calls the program in its jail and asserts."""
    names: dict[str, Any] = {"__name__": "check"}
    with _Jailed(cell, job) as candidate:
        try:
            exec(compile(source, "<check>", "exec"), names)
            names["check"](candidate)
        except _Over as over:
            return _verdict(over.said, candidate.spent_s)
        except Exception as e:  # noqa: BLE001 - an assertion that fails, or what follows from a wrong result
            if e is candidate.raised:
                return _result("error", type(e).__name__, 0.0, candidate.spent_s)
            return _result("wrong", f"{type(e).__name__}: {e}"[:200].rstrip(": "), 0.0, candidate.spent_s)
        return _result("pass", "", 1.0, candidate.spent_s)


def score(cell: Cell, job: Job, scorer: str) -> Result:
    """Ask the user's scorer, which calls the program in its jail; a number in [0, 1], or a mapping with "score" among its
    metrics."""
    from millrace.run.function import find_function

    function = find_function(scorer)
    with _Jailed(cell, job) as candidate:
        try:
            told = function(candidate)
        except _Over as over:
            return _verdict(over.said, candidate.spent_s)
        except Exception as e:
            if e is candidate.raised:
                return _result("error", type(e).__name__, 0.0, candidate.spent_s)
            raise
    metrics = {k: float(v) for k, v in told.items()} if isinstance(told, Mapping) else {}
    value = float(metrics.get("score", 0.0) if metrics else told)
    if not 0.0 <= value <= 1.0:
        raise WrongQuestion(f"The scorer {scorer} gave {value:g}, and a score lies in [0, 1].")
    result = _result("pass" if value == 1.0 else "wrong", "", value, candidate.spent_s)
    return {**result, "metrics": metrics}


def verify(cell: Cell, job: Job, cases: Sequence[tuple[str, str, str, bool]], repeats: int) -> Result:
    """A winner once more: every case `repeats` times, each in a fresh process of its own. {"verdicts": of each case, "cpu_s":
    median over repeats of the sum over cases}."""
    source, entry, _batch, modules = job
    times: list[float] = []
    verdicts: list[str] = []
    for _ in range(repeats):
        results = [judged(cell, (source, entry, False, modules), *case) for case in cases]
        times.append(sum(r["cpu_s"] for r in results))
        verdicts = [r["verdict"] for r in results]
    return {"verdicts": verdicts, "cpu_s": statistics.median(times)}


def judged(cell: Cell, job: Job, kind: str, text: str, expected: str, frozen: bool) -> Result:
    """One case of any kind: the task of a run."""
    if kind == "compare":
        return compare(cell, job, text, expected, frozen)
    return check(cell, job, text) if kind == "check" else score(cell, job, text)


def _result(verdict: str, detail: str, score: float, cpu_s: float) -> Result:
    return {"verdict": verdict, "detail": detail, "score": score, "cpu_s": cpu_s}


def _verdict(said: Said, spent_s: float = 0.0) -> Result:
    """Of a call that gave no value."""
    used_s = max(spent_s, said.cpu_s)
    if said.end == "inconclusive":
        raise Inconclusive(f"No verdict: {said.text}.")
    if said.end != "raised":
        return _result(said.end, said.text, 0.0, used_s)
    name, message = _exception(said.text)
    if name == "MemoryError":
        return _result("memory", "", 0.0, used_s)
    return _result("error", f"{name}: {message}".rstrip(": "), 0.0, used_s)


def _exception(text: str) -> tuple[str, str]:
    """Type and message, as a child that may lie tells them."""
    try:
        name, message = json.loads(text)
    except (ValueError, TypeError):
        return "unknown", ""
    name = str(name)
    return (name if name.isidentifier() else "unknown"), " ".join(str(message).split())[:200]


class _Over(BaseException):
    """The program gave no value: the check is over. No `except Exception` of a check stops it."""

    def __init__(self, said: Said) -> None:
        super().__init__(said.end)
        self.said = said


class _Jailed:
    """A program as a function: each call goes to its own jailed child, values only. A context manager."""

    def __init__(self, cell: Cell, job: Job) -> None:
        self.cell, self.job = cell, job
        self.child: Child | None = None
        self.spent_s = 0.0
        self.raised: BaseException | None = None

    def __enter__(self) -> _Jailed:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None:
            self.cell.end(self.child)
            self.child = None

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.child is None:
            self.child = self.cell.fork(self.job[3], 1)
            self._ask("load", "")
        told = self._ask("call", plain.pack([list(args), named]))
        try:
            return plain.unpack(told)
        except (ValueError, RecursionError):
            raise _Over(Said("crash", "it wrote to the judge what is no answer", self.spent_s)) from None

    def _ask(self, kind: str, text: str) -> str:
        assert self.child is not None
        left_s = self.cell.limits.cpu_s - self.spent_s
        if left_s <= 0:
            raise _Over(Said("cpu_limit", "", self.spent_s))
        said, lives = self.cell.ask(self.child, (kind, self.job[0], self.job[1], text, left_s, False))
        self.spent_s += said.cpu_s
        if not lives:
            self.child = None
        if said.end == "value":
            return said.text
        if said.end != "raised" or kind == "load":
            raise _Over(said)
        self.raised = _same(*_exception(said.text))
        raise self.raised


def _same(name: str, message: str) -> BaseException:
    """The built-in exception of that name, so that a check may expect it; of any other kind, one that says its name."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError and its like want more
            pass
    return RuntimeError(f"{name}: {message}")
