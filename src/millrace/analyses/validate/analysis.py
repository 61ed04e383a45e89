"""validate: the order of work. Read candidates as they come, run each program on its cases until one decides, keep the best,
verify them once more.

Programs are tasks of one case each, so that what is known of a program on a case is never computed again: not in this run, not
in the next, not by another instance with the same store. Verdicts leave in candidate order, a round at a time.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from millrace.analyses.validate.answer import Validation, Winner
from millrace.analyses.validate.candidates import Candidate, read_candidates
from millrace.analyses.validate.cases import Cases, read_cases
from millrace.analyses.validate.entrants import ROUND, Entrant, Known, Tally, Turns
from millrace.analyses.validate.facts import facts
from millrace.analyses.validate.kernels import judge
from millrace.analyses.validate.kernels.cell import Lane, Names, survey
from millrace.analyses.validate.plan import plan
from millrace.analyses.validate.spec import Spec
from millrace.analyses.validate.winners import Podium
from millrace.analyses.validate.writing import Writer
from millrace.run.errors import TaskFailed, WrongQuestion
from millrace.run.flow import describe
from millrace.run.keys import content_key
from millrace.run.ports import Source
from millrace.run.run import Run
from millrace.run.task import Limits as TaskLimits
from millrace.run.task import Outcome, Task

BLOCK = 64
"""Candidates that one task reads."""
READING = TaskLimits(cpu_s=20.0)
"""Parsing is fast, but who writes a program may know how to make it slow."""
SCHEME = 1
"""Of verdicts: a change of what the judge says is a new one."""


def validate(spec: Spec, run: Run) -> Validation:
    """Which of `spec.candidates` pass `spec.cases`."""
    run.progress("reading")
    cases = read_cases(spec.cases)
    run.follow(plan(facts(spec), run.budget))
    path = search_path(spec.candidates)
    sys.path[:0] = [place for place in path if place not in sys.path]  # so that keys see the library's files, too
    names, lacking = survey(spec.library, path)
    missing = {layer: why for layer, why in lacking.items() if why}
    if missing and spec.require_isolation:
        raise WrongQuestion(
            "The jail is not whole on this machine: "
            + "; ".join(f"{layer} is missing ({why})" for layer, why in missing.items())
            + ". Run it where it is, or leave out require_isolation and trust the candidates that much more."
        )
    for layer, why in missing.items():
        run.note(f"The jail has no {layer} here ({why}): candidates are held by the other layers alone.")
    work = _Work(spec, cases, run, path, names, tuple(layer for layer, why in lacking.items() if not why))
    return work.answer()


def search_path(candidates: object) -> tuple[str, ...]:
    """Where a library is looked for: here, beside a module of candidates, and where this process finds its modules."""
    beside = Path(candidates) if isinstance(candidates, str | Path) else Path()
    return tuple(
        dict.fromkeys((os.getcwd(), *([str(beside.parent.resolve())] if beside.suffix == ".py" else ()), *sys.path))
    )


class _Work:
    """One question on its way."""

    def __init__(
        self, spec: Spec, cases: Cases, run: Run, path: tuple[str, ...], names: Names, layers: tuple[str, ...]
    ) -> None:
        self.spec, self.cases, self.run, self.names, self.layers = spec, cases, run, names, layers
        limits = (spec.case_cpu_s, spec.memory_bytes, spec.output_bytes, spec.recursion)
        self.opened = (spec.library, path, layers, limits)
        self.resources = (partial(judge.cell, *self.opened),)
        self.place = content_key(
            [
                SCHEME,
                [run.keys.code.module(m) for m in (*spec.library, *cases.scorers)],
                platform.python_version(),
                limits,
                spec.isolation,
                layers,
            ]
        )
        """What a verdict depends on besides program and case."""
        self.folder = Path(run.ledger.path.parent)
        self.known = Known(self.folder / "programs.db")
        self.writer, self.podium, self.tally = Writer(self.folder), Podium(spec.top), Tally()
        self.coming = read_candidates(spec.candidates, cases, spec.entry or "", spec.limit)
        self.turns = Turns(spec.stop == "first")
        self.read: dict[int, list[dict[str, Any] | None]] = {}  # canonical forms by block, as far as they have come
        self.single: list[tuple[int, int]] = []  # of blocks that could not be read as a whole
        self.blocks: dict[int, list[Candidate]] = {}
        self.entrants: dict[int, Entrant] = {}  # that are not written yet
        self.followers: dict[int, list[Entrant]] = {}
        self.places: dict[str, list[tuple[str, int, int]]] = {}
        self.asked_blocks = self.entered = self.settled = self.written = 0
        self.exhausted = False

    # -- what is asked -----------------------------------------------------------------------------------------------
    def source(self) -> Source:
        while True:
            self._enter()
            task = self._next()
            if task is not None:
                yield task
            elif self.exhausted and not self.blocks and not self.entrants:
                return
            else:
                yield None

    def _next(self) -> Task | None:
        """Cases first, then further candidates, then cases that may turn out not to be needed."""
        if self.single:
            return self._read_task(*self.single.pop(), 1)
        entrant = self.turns.next()
        if entrant is not None:
            return self._case(entrant)
        block = self._block() if self._may_read() else None
        if block is not None:
            return block
        entrant = self.turns.ahead()
        return None if entrant is None or self._is_answered(entrant) else self._case(entrant)

    def _is_answered(self, entrant: Entrant) -> bool:
        """Whether an answer that it waits for lies in the store: then it is on its way, and nothing is to be guessed."""
        awaited = (k for k, places in self.places.items() if any(p[:2] == ("case", entrant.number) for p in places))
        return any(self.run.look(key) is not None for key in awaited)

    def _may_read(self) -> bool:
        """At most two rounds are under way: a round's order needs the one before the last."""
        return not self.exhausted and self.asked_blocks * BLOCK < self.written + 2 * ROUND

    def _block(self) -> Task | None:
        """The next block of candidates, to be read."""
        candidates: list[Candidate] = []
        for candidate in self.coming:
            candidates.append(candidate)
            if len(candidates) == BLOCK:
                break
        else:
            self.exhausted = True
        if not candidates:
            return None
        number, self.asked_blocks = self.asked_blocks, self.asked_blocks + 1
        self.blocks[number], self.read[number] = candidates, [None] * len(candidates)
        return self._read_task(number, 0, len(candidates))

    def _read_task(self, number: int, first: int, count: int) -> Task:
        chosen = [(c.source, c.entry) for c in self.blocks[number][first : first + count]]
        task = self.run.task(judge.read_block, chosen, self.names, limits=READING, name="read programs")
        self.places.setdefault(task.key, []).append(("block", number, first))
        return task

    def _case(self, entrant: Entrant) -> Task:
        index = entrant.order[entrant.asked]
        entrant.asked += 1
        case, program = entrant.cases[index], entrant.program
        job = (program["source"], program["entry"], self._lane(program["lane"]), tuple(program["modules"]))
        key = content_key((self.place, program["digest"], program["entry"], case.digest))
        self.places.setdefault(key, []).append(("case", entrant.number, index))
        args = (job, case.kind, case.text, case.expected, case.frozen)
        return Task(judge.judged, args, key, entrant.number, resources=self.resources, name="judge")

    def _lane(self, proven: Lane) -> Lane:
        """Whose child a program may have. proven: "batch" when it calls nothing but the library."""
        if self.spec.isolation == "candidate":
            return "candidate"
        if proven == "batch" and self.spec.pure_library:
            return "shared"
        return "batch" if self.spec.isolation == "batch" else proven

    # -- what comes back ---------------------------------------------------------------------------------------------
    def take(self, outcome: Outcome) -> None:
        places = self.places[outcome.key]
        kind, number, index = places.pop(0)
        if not places:
            del self.places[outcome.key]
        if kind == "block":
            self._take_forms(number, index, outcome)
            return
        entrant = self.entrants[number]
        entrant.told += 1
        if not entrant.done:  # else it is beyond the case that decided
            entrant.results[index] = self._result(outcome)
            entrant.judge(self.spec.stop == "first", self.spec.candidate_cpu_s)
            if entrant.done:
                self._decided(entrant)
        self.turns.back(entrant)

    def _take_forms(self, number: int, first: int, outcome: Outcome) -> None:
        """Canonical forms of a block. One that ends its reader is found by reading each alone: then that is its verdict."""
        failure = outcome.failure
        if failure is None:
            self.read[number][first : first + len(outcome.value)] = outcome.value
        elif failure.kind in ("raised", "cancelled"):
            raise TaskFailed(describe(failure, "read programs", number), failure, outcome.key)
        elif len(self.blocks[number]) > 1 and self.read[number].count(None) == len(self.blocks[number]) and first == 0:
            self.single += [(number, i) for i in range(len(self.blocks[number]))]
        else:
            self.read[number][first] = {"rejected": f"it ended the process that read it: {failure.message}"}

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        failure = outcome.failure
        if failure is None:
            return outcome.value  # type: ignore[no-any-return]
        if _inconclusive(outcome):
            reason = failure.message.removeprefix("Inconclusive: ").removeprefix("No verdict: ").rstrip(".")
            return {"verdict": "inconclusive", "detail": reason, "score": 0.0, "cpu_s": 0.0}
        raise TaskFailed(describe(failure, "judge", self.entered), failure, outcome.key)

    def _decided(self, entrant: Entrant) -> None:
        """Tell those that are the same program, and keep it for those to come."""
        found = {
            "verdict": entrant.verdict, "detail": entrant.detail, "failed_at": entrant.failed_at,
            "results": list(entrant.results.items()),
        }  # fmt: skip
        self.known.keep(self._name(entrant), found)
        for follower in self.followers.pop(entrant.number, ()):
            follower.like(entrant.number, found)

    def _write(self) -> None:
        """Rounds that are over leave, in candidate order."""
        while (entrant := self.entrants.get(self.settled)) is not None and entrant.done and entrant.out == 0:
            self.settled += 1
        all_in = self.exhausted and not self.blocks
        while self.settled >= self.written + ROUND or (all_in and self.written < self.settled == self.entered):
            end = min(self.written + ROUND, self.settled)
            for number in range(self.written, end):
                self._leave(self.entrants.pop(number))
            self.tally.close(self.written // ROUND)
            self.written = end

    def _leave(self, entrant: Entrant) -> None:
        if entrant.same_as < 0 and "rejected" not in entrant.program:
            self.tally.add(entrant)
            self.podium.offer(entrant)
        self.writer.add(entrant)

    # -- who enters --------------------------------------------------------------------------------------------------
    def _enter(self) -> None:
        """Candidates whose canonical forms have come, in candidate order."""
        self._write()
        while self.blocks:
            number = self.entered // BLOCK
            forms = self.read.get(number)
            if forms is None or None in forms or self.entered // ROUND * ROUND > self.written + ROUND:
                return
            for candidate, form in zip(self.blocks.pop(number), self.read.pop(number), strict=True):
                self._admit(candidate, form)
        self._write()

    def _admit(self, candidate: Candidate, form: dict[str, Any]) -> None:
        entrant = Entrant(self.entered, candidate, form, self.cases.of(candidate.task))
        self.entered += 1
        self.entrants[entrant.number] = entrant
        if not entrant.cases:
            entrant.program = form = {"rejected": f"there is no case for its task {candidate.task!r}"}
        if "rejected" in form:
            entrant.verdict, entrant.detail = "rejected", form["rejected"]
            return
        first, found = self.known.first(self._name(entrant), entrant.number)
        if first == entrant.number:
            entrant.order = self.tally.order(entrant.number // ROUND, candidate.task, len(entrant.cases))
            self.turns.enter(entrant)
        elif found is not None:
            entrant.like(first, found)
        else:
            entrant.same_as = first
            self.followers.setdefault(first, []).append(entrant)

    def _name(self, entrant: Entrant) -> str:
        return f"{entrant.program['digest']} {entrant.candidate.task}"

    # -- the answer --------------------------------------------------------------------------------------------------
    def answer(self) -> Validation:
        self.run.progress("validating")
        try:
            for outcome in self.run.stream(self.source()):
                self.take(outcome)
            cut = bool(self.entrants or self.blocks) or not self.exhausted
            for number in sorted(self.entrants):  # of a run that a deadline cut: what was decided counts
                if self.entrants[number].done:
                    self._leave(self.entrants[number])
        finally:
            self.known.close()
            (self.folder / "programs.db").unlink(missing_ok=True)
        table = self.writer.close()
        winners = tuple(self._verified())
        return Validation(
            table=table, counts=self.writer.counts, programs=self.writer.programs, rows=self.writer.rows,
            rows_digest=self.writer.digest, winners=winners, layers=self.layers,
            cases={task: tuple(c.label for c in cases) for task, cases in self.cases.by_task.items()},
            stop=self.spec.stop, scale=self.spec.scale, whole=not cut, notes=tuple(self.run.notes),
        )  # fmt: skip

    def _verified(self) -> Iterator[Winner]:
        """The best once more, each alone in a fresh process."""
        best = self.podium.best()
        self.run.progress("verifying", len(best))
        tasks = [self._again(entrant) for entrant in best]
        outcomes = {outcome.key: outcome for outcome in self.run.stream(iter(tasks))}
        for task, entrant in zip(tasks, best, strict=True):
            outcome = outcomes.get(task.key)
            if outcome is None:  # the deadline came before
                yield Winner.of(entrant, None, None)
                continue
            if outcome.failure is not None and not _inconclusive(outcome):
                raise TaskFailed(describe(outcome.failure, "verify", entrant.number), outcome.failure, outcome.key)
            told = outcome.value or {"verdicts": [], "cpu_s": None}
            agreed = told["verdicts"] == [r["verdict"] for r in entrant.results.values()]
            if not agreed:
                self.run.note(
                    f"{entrant.candidate.id} got another verdict when it ran once more: it depends on something besides its "
                    "input, and is not counted as verified."
                )
            yield Winner.of(entrant, agreed, told["cpu_s"])

    def _again(self, entrant: Entrant) -> Task:
        program = entrant.program
        job = (program["source"], program["entry"], "candidate", tuple(program["modules"]))
        cases = [entrant.cases[i] for i in entrant.results]
        key = content_key(
            (self.place, program["digest"], program["entry"], [c.digest for c in cases], self.spec.repeats)
        )
        args = (job, [(c.kind, c.text, c.expected, c.frozen) for c in cases], self.spec.repeats)
        return Task(judge.verify, args, key, resources=self.resources, name="verify")


def _inconclusive(outcome: Outcome) -> bool:
    failure = outcome.failure
    return failure is not None and failure.kind == "raised" and failure.message.startswith("Inconclusive: ")
