"""The judge of one case: what a program's call came to, as a verdict. Runs in a worker, beside its warm cell.

It never runs what a program gave it: results are compared as JSON text of bounded size, and checks and scorers, which are the
user's own code but may choke on what a program returns, run in a child of the cell, with limits of their own.

Values that a task returns are plain and may be kept; what no repetition would repeat (`inconclusive`) is raised instead, so
that it is never kept.
"""

from __future__ import annotations

import ast
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from millrace.analyses.validate.kernels import canonical, plain
from millrace.analyses.validate.kernels.cell import Cell, Child, Lane, Limits, Names, Said
from millrace.run.errors import AnalysisFailed, WrongQuestion

Result = dict[str, Any]
"""verdict: pass, wrong, error, cpu_limit, memory, crash; detail: what a person is told; score in [0, 1]; cpu_s; metrics."""
Job = tuple[str, str, Lane, tuple[str, ...]]
"""Source, entry, whose child it may have, modules to load before."""


class Inconclusive(AnalysisFailed):
    """Neither an answer nor a limit: it says nothing about the program."""


def cell(library: tuple[str, ...], path: tuple[str, ...], layers: tuple[str, ...], limits: tuple[Any, ...]) -> Cell:
    """The warm resource of a worker: one zygote."""
    return Cell(library, path, layers, Limits(*limits))


def read_block(block: Sequence[tuple[str | bytes, str]], names: Names) -> list[dict[str, Any]]:
    """The canonical forms of (source, entry) pairs: {"rejected": reason}, or the fields of a `canonical.Program`."""
    library = canonical.Library(*map(frozenset, names))
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
    source, entry, lane, modules = job
    said = cell.call(source, entry, text, frozen=frozen, lane=lane, modules=modules)
    if said.end != "value":
        return _verdict(said)
    right = plain.equal(said.text, expected)
    return _result("pass" if right else "wrong", "", float(right), said.cpu_s)


def check(cell: Cell, job: Job, source: str) -> Result:
    """Run the user's check, which calls the program in its jail and asserts."""
    try:
        modules = canonical.modules_of(ast.parse(source), everything=True)
    except SyntaxError as e:
        raise WrongQuestion(f"A check is no Python: {e.msg} (line {e.lineno}).") from None
    said, own, spent_s = _refereed(cell, job, cell.referee(modules), ("check", source))
    if not own:
        return _verdict(said, spent_s)
    if said.end == "value":
        return _result("pass", "", 1.0, spent_s)
    if said.end != "raised":
        return _choked(said, "check", spent_s)
    name, message, by_program = _exception(said.text)
    if by_program:
        return _result("error", f"{name}: {message}".rstrip(": "), 0.0, spent_s)
    return _result("wrong", f"{name}: {message}"[:200].rstrip(": "), 0.0, spent_s)


def score(cell: Cell, job: Job, scorer: str) -> Result:
    """Ask the user's scorer, which calls the program in its jail; a number in [0, 1], or a mapping with "score" among its
    metrics."""
    child = cell.score()
    said, own, spent_s = _refereed(cell, job, child, ("score", scorer))
    if not own:
        return _verdict(said, spent_s)
    if said.end == "raised":
        name, message, by_program = _exception(said.text)
        if by_program:
            return _result("error", f"{name}: {message}".rstrip(": "), 0.0, spent_s)
        raise AnalysisFailed(f"The scorer {scorer} raised {name}: {message}")
    if said.end != "value":
        return _choked(said, "scorer", spent_s)
    told = plain.unpack(said.text)
    metrics = {str(k): float(v) for k, v in told.items()} if isinstance(told, Mapping) else {}
    value = float(metrics.get("score", math.nan) if metrics else told)
    if not 0.0 <= value <= 1.0:
        raise WrongQuestion(f"The scorer {scorer} gave {value:g}, and a score lies in [0, 1].")
    result = _result("pass" if value == 1.0 else "wrong", "", value, spent_s)
    return {**result, "metrics": metrics}


def verify(cell: Cell, job: Job, cases: Sequence[tuple[str, str, str, bool]], repeats: int) -> Result:
    """A winner once more: every case `repeats` times, each in a fresh process of its own. {"verdicts": of each case, "cpu_s":
    median over repeats of the sum over cases}."""
    source, entry, _lane, modules = job
    times: list[float] = []
    verdicts: list[str] = []
    for _ in range(repeats):
        results = [judged(cell, (source, entry, "candidate", modules), *case) for case in cases]
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
    name, message, _ = _exception(said.text)
    if name == "MemoryError":
        return _result("memory", "", 0.0, used_s)
    return _result("error", f"{name}: {message}".rstrip(": "), 0.0, used_s)


def _choked(said: Said, who: str, spent_s: float) -> Result:
    """The user's own code broke its limits on what the program gave it."""
    if said.end == "inconclusive":
        raise Inconclusive(f"No verdict: the {who}, and not the program, {said.text.removeprefix('it ')}.")
    return _result(said.end, f"in the {who}, on what it returned", 0.0, spent_s)


def _exception(text: str) -> tuple[str, str, bool]:
    """Type and message, as a child that may lie tells them; and whether a check raised what the program had."""
    try:
        name, message, by_program = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return "unknown", "", False
    name = str(name)
    return (name if name.isidentifier() else "unknown"), " ".join(str(message).split())[:200], by_program is True


# -- a referee and a program --------------------------------------------------------------------------------------------
def _refereed(cell: Cell, job: Job, referee: Child, what: tuple[str, str]) -> tuple[Said, bool, float]:
    """Let the user's own code ask the program as often as it likes: values pass between the two children as text. What it came
    to, whether that is the referee's word (else the program gave no value), and the program's processor time."""
    kind, source = what
    limit_s = cell.referee_s
    used_s, lives, own = 0.0, True, True
    with _Asked(cell, job) as program:
        request: tuple[Any, ...] = (kind, source, "check", "", limit_s, False)
        while True:
            said, lives = cell.ask(referee, request, max(1e-3, limit_s - used_s))
            used_s += said.cpu_s
            if said.end != "call":
                break
            told = program.call(said.text)
            if told.end not in ("value", "raised") or program.failed:
                said, own = told, False
                break
            request = (told.end, told.text)
    if lives and (kind == "check" or not own):
        lives = _dismissed(cell, referee, kept=kind == "score")
    if lives:
        cell.scorer = referee
    return said, own, program.spent_s


def _dismissed(cell: Cell, referee: Child, *, kept: bool) -> bool:
    """End a referee, or tell one that is kept that its program is gone; whether it lives on."""
    if not kept:
        cell.end(referee)
        return False
    said, lives = cell.ask(referee, ("over", ""), cell.referee_s)
    if lives and said.end == "call":  # it swallowed even that
        cell.end(referee)
        return False
    return lives


class _Asked:
    """A program in its own jailed child, made at its first call. failed: it could not be loaded. A context manager."""

    def __init__(self, cell: Cell, job: Job) -> None:
        self.cell, self.job = cell, job
        self.child: Child | None = None
        self.spent_s = 0.0
        self.failed = False

    def __enter__(self) -> _Asked:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None:
            self.cell.end(self.child)
            self.child = None

    def call(self, text: str) -> Said:
        if self.child is None:
            self.child = self.cell.fork(self.job[3])
            said = self._ask("load", "")
            if said.end != "value":
                self.failed = True
                return said
        return self._ask("call", text)

    def _ask(self, kind: str, text: str) -> Said:
        assert self.child is not None
        left_s = self.cell.limits.cpu_s - self.spent_s
        if left_s <= 0:
            return Said("cpu_limit", "", self.spent_s)
        said, lives = self.cell.ask(self.child, (kind, self.job[0], self.job[1], text, left_s, False))
        self.spent_s += said.cpu_s
        if not lives:
            self.child = None
        if said.end == "value" and not plain.is_packed(said.text):
            return Said("crash", "it wrote to the judge what is no answer", self.spent_s)
        return said
