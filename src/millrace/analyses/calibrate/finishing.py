"""The finish: the best trials run again on fresh seeds, and the answer is chosen on those.

The loss by which a trial was chosen is too good (the winner's curse: .2 to .7 of what it is on other seeds). So the answer, and
its interval, come from seeds on which nothing was chosen. Replicates go seed by seed over all finalists, so that a search that
runs out of time compares them on the same seeds.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from millrace.analyses.calibrate.answer import Best, Verdict
from millrace.analyses.calibrate.kernels import racing
from millrace.analyses.calibrate.loop import Search, said_of
from millrace.analyses.calibrate.records import write_trial
from millrace.analyses.calibrate.trials import Trial
from millrace.run.errors import AnalysisFailed
from millrace.run.task import Outcome

if TYPE_CHECKING:
    from millrace.analyses.calibrate.question import Asked
    from millrace.run.ports import Source
    from millrace.run.run import Run


class Ran(Protocol):
    """A search that is over, or a new look at one."""

    asked: Asked
    run: Run
    trials: list[Trial]
    verdicts: list[Verdict]


@dataclass(slots=True)
class Finalist:
    """trial: the one that it was (of an emulator's optimum, one that was never simulated before). fresh: replicates on fresh
    seeds, kept like those of a trial."""

    trial: Trial
    fresh: Trial

    @property
    def loss(self) -> float:
        return self.fresh.loss

    def interval(self, level: float, positive: bool) -> tuple[float, float]:
        """Of the mean loss on fresh seeds, by Student's t over its replicates (from 0 on when no loss is below it); of one
        replicate, nothing is known."""
        values = [self.fresh.losses[r] for r in self.fresh.ran]
        n, mean = len(values), self.loss
        if n < 2:
            return -math.inf, math.inf
        centre = sum(values) / n
        sd = math.sqrt(sum((v - centre) ** 2 for v in values) / (n - 1))
        reach = student_point((1 + level) / 2, n - 1) * sd / math.sqrt(n)
        return max(0.0, mean - reach) if positive else mean - reach, mean + reach


def student_point(p: float, df: float) -> float:
    """t with P(T <= t) = p."""
    from scipy import special

    return float(special.stdtrit(df, p))


@dataclass(slots=True)
class Finish:
    """Runs finalists on fresh seeds within a search that is over."""

    search: Search
    finalists: Sequence[Finalist]
    until_s: float | None
    places: dict[str, deque[tuple[Finalist, int]]] = field(default_factory=dict)

    def go(self) -> None:
        """All replicates, or those that the time allows."""
        search, spec = self.search, self.search.asked.spec
        search.run.progress("finish on fresh seeds", len(self.finalists) * spec.fresh)
        outcomes = search.run.stream(self._source())
        for outcome in outcomes:
            self._take(outcome)
            if self._late():
                outcomes.close()  # type: ignore[attr-defined]
                break
        for finalist in self.finalists:
            if finalist.fresh.losses:
                finalist.fresh.settle("complete", search.asked.observed)
                write_trial(search.run, finalist.fresh, "fresh")

    def _late(self) -> bool:
        return self.until_s is not None and time.monotonic() >= self.until_s

    def _source(self) -> Source:
        search, asked = self.search, self.search.asked
        for number in range(asked.spec.fresh):
            seed = asked.fresh_seed(number)
            for finalist in self.finalists:
                if self._late():
                    return
                finalist.fresh.seeds.append(seed)
                task = asked.task(search.run, finalist.trial.params, seed, None)
                finalist.fresh.keys.append(task.key)
                self.places.setdefault(task.key, deque()).append((finalist, number))
                yield task

    def _take(self, outcome: Outcome) -> None:
        finalist, number = self.places[outcome.key].popleft()
        begun = time.perf_counter()
        self.search.measure(finalist.fresh, number, outcome)
        self.search.clock.loss_s += time.perf_counter() - begun


def chosen(search: Ran, finalists: Sequence[Finalist]) -> Best:
    """The best on fresh seeds; without a finish, the best trial by its own."""
    spec = search.asked.spec
    ran = [f for f in finalists if math.isfinite(f.loss)]
    if ran:
        best = min(ran, key=lambda f: (f.loss, f.trial.number))
        n = len(best.fresh.losses)
        interval = best.interval(spec.level, search.asked.positive) if n > 1 else None
        return Best(best.trial.number, best.trial.params, best.loss, interval, best.trial.loss, n)
    if finalists:
        search.run.note("No simulation of the finish ended well: the answer is the best trial by its own seeds.")
    trial = _by_number(search)[ranked(search, 1)[0]]
    return Best(trial.number, trial.params, trial.loss, None, trial.loss, 0)


def _by_number(search: Ran) -> dict[int, Trial]:
    return {trial.number: trial for trial in search.trials}


def ranked(search: Ran, most: int | None = None) -> list[int]:
    """Numbers of trials, the best first by `racing.finalists`; `AnalysisFailed` when none counts."""
    counted = [t for t in search.trials if t.state in ("complete", "stopped") and t.losses]
    if not counted:
        first = search.verdicts[0] if search.verdicts else None
        why = f" The first: {said_of(first)}\n\n{first.traceback}" if first else ""
        raise AnalysisFailed(f"None of {len(search.trials)} trials gave a loss.{why}".rstrip())
    return racing.finalists([t.paired for t in counted], most or len(counted), positive=search.asked.positive)


def finalists(search: Search, emulated: Sequence[Mapping[str, Any]] | None) -> list[Finalist]:
    """Who runs again: the best trials, or the optima of an emulator, which are new trials."""
    spec = search.asked.spec
    if not spec.finish:
        return []
    if emulated is None:
        known = _by_number(search)
        best = [known[number] for number in ranked(search, spec.finish)]
        return [Finalist(trial, Trial(trial.number, trial.params, spec.fresh)) for trial in best]
    ranked(search)  # says so when none counts
    found = []
    for free in emulated:
        params = {name: free.get(name, search.asked.fixed.get(name)) for name in spec.parameters}
        trial = Trial(len(search.trials) + len(found), params, spec.fresh)
        found.append(Finalist(trial, Trial(trial.number, params, spec.fresh)))
    return found


def as_trials(search: Search, found: Sequence[Finalist]) -> None:
    """Finalists that were never simulated before are trials by their fresh replicates."""
    for finalist in found:
        if finalist.trial.number >= len(search.trials) and finalist.fresh.losses:
            finalist.fresh.number = len(search.trials)
            search.trials.append(finalist.fresh)


def table(found: Sequence[Finalist], parameters: Sequence[str], level: float, positive: bool) -> dict[str, list[Any]]:
    """Columns by name, one row a finalist, the best on fresh seeds first."""
    rows = sorted((f for f in found if f.fresh.losses), key=lambda f: (f.loss, f.trial.number))
    intervals = [f.interval(level, positive) for f in rows]
    said: dict[str, list[Any]] = {
        "trial": [f.trial.number for f in rows],
        "replicates": [len(f.trial.losses) for f in rows],
        "loss": [f.trial.loss for f in rows],
        "fresh_loss": [f.loss for f in rows],
        "fresh_low": [low for low, _ in intervals],
        "fresh_high": [high for _, high in intervals],
        "fresh_replicates": [len(f.fresh.losses) for f in rows],
    }
    for name in parameters:
        said[f"param_{name}"] = [f.trial.params[name] for f in rows]
    said["seeds"] = [[f.fresh.seeds[r] for r in f.fresh.ran] for f in rows]
    return said
