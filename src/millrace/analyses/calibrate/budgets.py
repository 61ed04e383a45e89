"""How many trials and replicates may still start: budgets of trials, simulations and seconds, kept exactly.

What is in flight counts with all that it may need, what was told with what it needed: so a budget of simulations is never
broken, is used to its end, and is spent alike on every engine. Simulations that the store had count too, else a resumed
study would be another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from millrace.analyses.calibrate.question import DEFAULT_TRIALS
from millrace.analyses.calibrate.spec import Spec
from millrace.run.errors import WrongQuestion

WAIT = -1
"""Nothing more can start before a trial is told."""


@dataclass(slots=True)
class Allowance:
    """least, most: replicates of a trial. trials: at most as many; simulations: for the search, without the finish; until_s:
    by `clock`, when the search ends (reserve_s() earlier, for the finish). spent: simulations of trials that were told; held:
    what those in flight may need."""

    least: int
    most: int
    trials: int | None
    simulations: int | None
    until_s: float | None
    reserve_s: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    started: int = 0
    spent: int = 0
    held: int = 0

    def next_cap(self) -> int:
        """Replicates that a next trial may have; 0: there is none any more; WAIT: not yet."""
        if self.trials is not None and self.started >= self.trials:
            return 0
        if self.late():
            return 0
        if self.simulations is None:
            return self.most
        left = self.simulations - self.spent - self.held
        if left >= self.most:
            return self.most
        if self.held:
            return WAIT
        return left if left >= self.least else 0

    def start(self, cap: int) -> None:
        self.started += 1
        self.held += cap

    def told(self, cap: int, used: int) -> None:
        self.held -= cap
        self.spent += used

    def late(self) -> bool:
        """The search is to end; never before a first trial has begun."""
        return self.started > 0 and self.until_s is not None and self.clock() >= self.until_s - self.reserve_s()


def finish_simulations(spec: Spec) -> int:
    return spec.finish * spec.fresh


def allowance(
    spec: Spec, most: int, proposals: int | None, until_s: float | None, reserve_s: Callable[[], float]
) -> Allowance:
    """The budget of the search; `WrongQuestion` when it has no room for one trial beside the finish."""
    trials = spec.trials
    if trials is None and spec.simulations is None and spec.seconds is None:
        trials = DEFAULT_TRIALS
    if proposals is not None:
        trials = min(trials or proposals, proposals)
    simulations = None
    least = min(spec.replicates.min, most)
    if spec.simulations is not None:
        simulations = spec.simulations - finish_simulations(spec)
        if simulations < most:
            raise WrongQuestion(
                f"{spec.simulations} simulations are {finish_simulations(spec)} of the finish ({spec.finish} trials on "
                f"{spec.fresh} fresh seeds) and {max(0, simulations)} for the search, which needs {most} for its first trial: "
                "give more, or a smaller finish."
            )
    return Allowance(least, most, trials, simulations, until_s, reserve_s)
