"""The one event loop: ask, simulate, compare, stop early, tell. One thread, over `run.stream`; it counts for itself and never
reads the study's trials.

In reproducible order what is decided about trial n sees exactly the trials up to n - k (k in flight): a tell is followed at
once by the ask that it allows, and outcomes that come early are withheld until their turn. Simulates nothing itself, chooses
no parameters (`sampling`), decides no stop (`kernels.racing`), and keeps no budget (`budgets`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millrace.analyses.calibrate import targets
from millrace.analyses.calibrate.aligning import WrongOutputs
from millrace.analyses.calibrate.answer import Verdict
from millrace.analyses.calibrate.budgets import WAIT, Allowance
from millrace.analyses.calibrate.kernels import racing
from millrace.analyses.calibrate.kernels.racing import TrialLosses
from millrace.analyses.calibrate.mirror import Mirror
from millrace.analyses.calibrate.order import AsTheyEnd, InOrder
from millrace.analyses.calibrate.question import Asked
from millrace.analyses.calibrate.records import Spent, write_trial
from millrace.analyses.calibrate.sampling import Sampler
from millrace.analyses.calibrate.simulating import PRINTED
from millrace.analyses.calibrate.trials import Trial, verdict_of
from millrace.run.errors import AnalysisFailed
from millrace.run.task import Cancel, Outcome, Task

if TYPE_CHECKING:
    from millrace.run.ports import Source
    from millrace.run.run import Run

WHAT = {
    "raised": "raised",
    "wall": "took longer than its limit",
    "cpu": "used more processor time than its limit",
    "memory": "needed more memory than there is",
    "lost": "took its process with it, twice",
    "cancelled": "was cancelled",
}
RECENT = 60
"""Told trials from which the noise of a loss is known."""


@dataclass(slots=True)
class Clock:
    """Seconds of the driver by what they were for."""

    ask_s: float = 0.0
    tell_s: float = 0.0
    loss_s: float = 0.0
    storage_s: float = 0.0


@dataclass(slots=True)
class Search:
    """The state of a search. trials: all that were asked for; history: losses of those that were told, in that order (what
    races are judged by); incumbent: the best of them with all replicates; durations: seconds of every simulation, as it came
    (total_s: their sum; simulated_s: of those that were not in the store). told: how many trials were told."""

    asked: Asked
    run: Run
    sampler: Sampler
    allowance: Allowance
    order: InOrder | AsTheyEnd
    in_flight: int
    run_id: str
    mirror: Mirror | None = None
    spent: Spent | None = None
    clock: Clock = field(default_factory=Clock)
    trials: list[Trial] = field(default_factory=list)
    history: list[TrialLosses] = field(default_factory=list)
    incumbent: Trial | None = None
    told: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    total_s: float = 0.0
    simulated_s: float = 0.0
    ready: deque[Task | Cancel] = field(default_factory=deque)
    places: dict[str, deque[tuple[Trial, int]]] = field(default_factory=dict)

    # -- the loop ----------------------------------------------------------------------------------------------------
    def go(self) -> None:
        """Search until the budget is spent (or the run is ending: then with what there is)."""
        self._pump()
        for outcome in self.run.stream(self._source()):
            self.take(outcome)
        if self.mirror is not None:
            self._timed("storage_s", self.mirror.flush)

    def _source(self) -> Source:
        while True:
            if self.ready:
                yield self.ready.popleft()
            elif self.told == len(self.trials):
                return  # none is in flight, and no other could be started
            else:
                yield None

    def take(self, outcome: Outcome) -> None:
        """A replicate has ended: its losses, what follows for its trial, and what may start now.

        What it gave is written first: after a kill at any moment only simulations that were in flight run again.
        """
        self._timed("storage_s", self.run.store.flush)
        places = self.places[outcome.key]
        trial, number = places.popleft()
        if not places:
            del self.places[outcome.key]
        if trial.state != "running":
            return  # of a trial that failed meanwhile
        begun = time.perf_counter()
        self.measure(trial, number, outcome)
        self.clock.loss_s += time.perf_counter() - begun
        self._go_on(trial)
        self._pump()

    # -- one replicate -----------------------------------------------------------------------------------------------
    def measure(self, trial: Trial, number: int, outcome: Outcome) -> None:
        """The losses of one replicate, or why there are none."""
        if outcome.failure is not None:
            f = outcome.failure
            said, _, printed = f.traceback.partition(PRINTED)
            message = f"{WHAT[f.kind]}: {f.message}" if f.message else WHAT[f.kind]
            self._failed(trial, number, f.kind, message, said, printed)
            return
        value = outcome.value
        self._printed(trial, number, value["log"])
        seconds = float(value["seconds"])
        trial.seconds += seconds
        if not outcome.cached:
            self.simulated_s += seconds
        self.durations.append(seconds)
        self.total_s += seconds
        try:
            aligned = self.asked.aligned(value)
        except WrongOutputs as e:
            self._failed(trial, number, "outputs", str(e))
            return
        by_target = targets.measured(self.asked.observed, aligned)
        bad = [name for name, loss in by_target.items() if not math.isfinite(loss)]
        if bad:
            self._failed(trial, number, "nan", f"gave no finite loss of the target {bad[0]!r} ({by_target[bad[0]]})")
            return
        trial.aligned[number], trial.by_target[number] = aligned, by_target
        trial.losses[number] = targets.combined(self.asked.observed, by_target)

    def _failed(self, trial: Trial, number: int, kind: str, message: str, trace: str = "", printed: str = "") -> None:
        trial.failed.append(number)
        seed = trial.seeds[number]
        verdict = verdict_of(trial.number, seed, trial.params, kind, message, self.run_id, trace)
        self.verdicts.append(verdict)
        self.run.ledger.write(
            "verdict", trial=trial.number, seed=seed, kind=kind, message=message, params=dict(trial.params)
        )
        self._printed(trial, number, printed.strip("\n"))
        if self.asked.spec.on_error == "stop":
            raise AnalysisFailed(f"{said_of(verdict)}\n\n{trace}".rstrip())

    def _printed(self, trial: Trial, number: int, text: str) -> None:
        if text:
            self.run.ledger.write("printed", trial=trial.number, seed=trial.seeds[number], text=text)

    # -- one trial ---------------------------------------------------------------------------------------------------
    def _go_on(self, trial: Trial) -> None:
        """Start another replicate of a trial, or end it."""
        if trial.out:
            if not self._hopeless(trial) or isinstance(self.order, InOrder):
                return
            self.ready.append(Cancel(trial.number))  # by their order the seeds that ran must not depend on the clock
            self._end(trial, "failed")
        elif self._hopeless(trial):
            self._end(trial, "failed")
        elif len(trial.seeds) >= trial.cap:
            self._end(trial, "complete")
        elif self._is_beaten(trial) or (self.allowance.late() and len(trial.losses) >= self.allowance.least):
            self._end(trial, "stopped")
        else:
            self._start(trial)

    def _hopeless(self, trial: Trial) -> bool:
        """It cannot have the replicates with which it would count, or two of two failed: more would only cost time."""
        return trial.cap - len(trial.failed) < self.allowance.least or (not trial.losses and len(trial.failed) >= 2)

    def _is_beaten(self, trial: Trial) -> bool:
        many = self.order.replicates_of(trial.number)
        if many is not None:  # an earlier run saw it, and what it saw is not known any more
            return len(trial.seeds) >= many
        incumbent, seen = trial.incumbent, trial.seen
        if isinstance(self.order, AsTheyEnd):
            incumbent, seen = self.incumbent, len(self.history)
        if not self.asked.racing or trial.failed or incumbent is None or len(trial.losses) < self.allowance.least:
            return False
        recent = self.history[max(0, seen - RECENT) : seen]
        return racing.stop(recent, trial.paired, incumbent.paired, positive=self.asked.positive)

    def _start(self, trial: Trial) -> None:
        number = len(trial.seeds)
        seed = self.asked.seed_of(trial.number, number)
        task = self.asked.task(self.run, trial.params, seed, trial.number)
        trial.seeds.append(seed)
        trial.keys.append(task.key)
        self.places.setdefault(task.key, deque()).append((trial, number))
        self.ready.append(task)

    def _end(self, trial: Trial, state: Any) -> None:
        trial.settle(state, self.asked.observed)
        self.order.close(trial.number)

    # -- asking and telling ------------------------------------------------------------------------------------------
    def _pump(self) -> None:
        """Ask as long as the order and the budget allow; tell what is next; ask again."""
        while True:
            if self._may_ask():
                continue
            number = self.order.next_told()
            if number is None:
                return
            self._tell(self.trials[number])

    def _may_ask(self) -> bool:
        """Ask for a trial when one may be asked for now; whether one was."""
        if len(self.trials) - self.told >= self.in_flight or not self.order.may_ask():
            return False
        cap = self.allowance.next_cap()
        if cap in (0, WAIT):
            return False
        begun = time.perf_counter()
        free = self.sampler.ask()
        self.clock.ask_s += time.perf_counter() - begun
        if free is None:
            return False
        params = {name: free.get(name, self.asked.fixed.get(name)) for name in self.asked.spec.parameters}
        trial = Trial(len(self.trials), params, cap, len(self.history), self.incumbent)
        self.allowance.start(cap)
        self.order.asked(trial.number)
        self.trials.append(trial)
        for _ in range(min(cap, self.asked.first_round)):
            self._start(trial)
        return True

    def _tell(self, trial: Trial) -> None:
        begun = time.perf_counter()
        self.sampler.tell(trial)
        told = time.perf_counter()
        self.clock.tell_s += told - begun
        if self.mirror is not None:
            self.mirror.tell(trial)
        write_trial(self.run, trial)
        if self.spent is not None:
            self.spent.mark()
        self.clock.storage_s += time.perf_counter() - told
        self.told += 1
        self.allowance.told(trial.cap, len(trial.seeds))
        if trial.failed or trial.state == "failed":
            return
        self.history.append(trial.paired)
        if len(trial.losses) >= self.asked.most and (self.incumbent is None or trial.loss < self.incumbent.loss):
            self.incumbent = trial

    def _timed(self, part: str, work: Callable[[], Any]) -> None:
        begun = time.perf_counter()
        work()
        setattr(self.clock, part, getattr(self.clock, part) + time.perf_counter() - begun)


def said_of(verdict: Verdict) -> str:
    """A verdict in words: which trial, which seed, which parameters, what happened, how to see it again."""
    params = ", ".join(f"{n}={v:.6g}" if isinstance(v, float) else f"{n}={v}" for n, v in verdict.params.items())
    return (
        f"Trial {verdict.trial}, seed {verdict.seed} {verdict.message.rstrip('.')}. Its parameters: {params}. See it again with "
        f"`{verdict.again}`."
    )
