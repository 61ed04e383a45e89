"""The result of calibrate: what fits best, how surely, and every trial on the way there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.run.answer import Saved
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key


@dataclass(frozen=True, slots=True)
class Best:
    """The answer. loss: its mean on fresh seeds (`fresh` of them), with `interval` at the study's level; without a finish it
    is the trial's own loss, and interval is None. in_sample: the loss on the seeds by which it was chosen."""

    trial: int
    params: Mapping[str, Any]
    loss: float
    interval: tuple[float, float] | None
    in_sample: float
    fresh: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A replicate that gave nothing. kind: raised, wall, cpu, memory, lost, nan, outputs. again: the command that repeats it."""

    trial: int
    seed: int
    params: Mapping[str, Any]
    kind: str
    message: str
    again: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the driver's time went, and what came of it. Never part of the digest. *_s: seconds; utilisation: the share of
    slots x wall that simulations had; possible: the share that the spread of their times allows with so many trials at once."""

    ask_s: float
    tell_s: float
    loss_s: float
    storage_s: float
    wall_s: float
    simulation_s: float
    slots: int
    in_flight: int
    utilisation: float
    possible: float
    advice: str
    trials_per_minute: float
    trials_per_minute_worker: float
    trials_per_core_s: float


@dataclass(frozen=True)  # no slots: what is computed on demand is kept
class Calibration(Saved):
    """`table`: columns by name, one row a trial in the order of their numbers:

        trial      int          state     complete | stopped | failed
        replicates int          loss      float, NaN of a failed one
        loss_<target>  float    param_<name>  number or text
        seeds      list of int  seconds   float, of its simulations together

    finish: columns of the same kind, one row a finalist: trial, replicates, loss (in sample), fresh_loss, fresh_low,
    fresh_high, param_<name>, seeds. predictive: by target, {"x": (n_x,), "observed": (n_x,), "runs": (n_good, n_x)}, the
    ensemble of good trials. intervals: by continuous parameter, (low, high) at `level`; {} when there was too little for them.
    importance: by parameter, shares of the variance of the loss.
    """

    table: Mapping[str, Any]
    best: Best
    finish: Mapping[str, Any]
    predictive: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, tuple[float, float]]
    importance: Mapping[str, float]
    parameters: Mapping[str, Mapping[str, Any]]
    """By name: kind, low, high, choices, value."""
    targets: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    level: float
    simulations: int
    in_flight: int
    order: str
    timing: Timing | None = None
    study: Any = field(default=None, repr=False)
    """The live `optuna.Study`."""
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """Of the answer alone: equal on every engine and for every number of workers in reproducible order."""
        timeless = {name: list(column) for name, column in self.table.items() if name != "seconds"}
        return content_key((timeless, self.best, {n: list(c) for n, c in self.finish.items()}, dict(self.intervals)))

    def plot(self, kind: str = "history") -> Any:
        """A chart that notebooks show; its kinds are the names in `charts()`."""
        import altair

        made = self.charts()
        if kind not in made:
            raise WrongQuestion(f"There is no picture {kind!r} of this calibration; there are {', '.join(made)}.")
        return altair.Chart.from_dict(made[kind])

    def charts(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite specs: loss history, slices, contours, importance, bands of the targets."""
        from millrace.analyses.calibrate import views

        return views.charts(self)
