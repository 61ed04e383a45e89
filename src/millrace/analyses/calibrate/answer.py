"""The result of calibrate: what fits best, how surely, and every trial on the way there."""

from __future__ import annotations

import json
import math
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

    def lines(self) -> list[str]:
        """Where the driver's time went, and how busy the slots were."""
        parts = f"ask {self.ask_s:.2f} s, tell {self.tell_s:.2f} s, loss {self.loss_s:.2f} s, storage {self.storage_s:.2f} s"
        return [
            f"Driver: {parts}, of {self.wall_s:.1f} s",
            f"{self.trials_per_minute:.1f} trials a minute, {self.trials_per_minute_worker:.1f} a worker, "
            f"{self.trials_per_core_s:.3g} a core-second; simulations had {self.utilisation:.0%} of {self.slots} slots "
            f"({self.in_flight} trials in flight; {self.possible:.0%} is what their times allow)",
        ]

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


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
        best = self.best
        chosen = (best.trial, dict(best.params), best.loss, best.interval, best.in_sample, best.fresh)
        found = (timeless, chosen, {n: list(c) for n, c in self.finish.items()}, dict(self.intervals))
        return content_key(_canonical_nan(found))

    @property
    def says_no(self) -> bool:
        """There is nothing in a calibration that could be refused: no target has a bound that must be kept."""
        return False

    def summary(self) -> str:
        best = self.best
        lines = [f"Best of {len(self.table['trial']):,} trials ({self.simulations:,} simulations): trial {best.trial}"]
        wide = max(len(name) for name in best.params)
        for name, value in best.params.items():
            lines.append(f"  {name:<{wide}}  {_figure(value)}{self._interval(name)}{self._share(name)}")
        lines.append(self._loss())
        states = [f"{self.table['state'].count(s):,} {s}" for s in ("complete", "stopped", "failed")]
        lines.append(f"Trials: {', '.join(states)}")
        if self.timing is not None:
            lines += self.timing.lines()
        return "\n".join(lines)

    def findings(self) -> list[str]:
        """What was found, a sentence each."""
        best = self.best
        params = ", ".join(f"{n} {_figure(v)}{self._interval(n)}" for n, v in best.params.items())
        said = [f"The parameters that fit best are {params}.", self._loss() + "."]
        if best.fresh and best.loss > 0 and math.isfinite(best.in_sample):
            said.append(
                f"On the seeds by which it was chosen its loss is {_figure(best.in_sample)}, {best.in_sample / best.loss:.2f} of "
                "that on fresh ones: the winner's curse, which is why the answer is chosen on fresh seeds."
            )
        many = self.table["state"]
        said.append(
            f"{len(many):,} trials took {self.simulations:,} simulations; {many.count('stopped'):,} were stopped early and "
            f"{many.count('failed'):,} failed."
        )
        return said + (self.timing.lines() if self.timing is not None else [])

    def as_dict(self) -> dict[str, Any]:
        best = self.best
        return {
            "best": {
                "trial": best.trial, "params": dict(best.params), "loss": best.loss, "fresh_seeds": best.fresh,
                "interval": None if best.interval is None else [_finite(v) for v in best.interval],
                "loss_in_sample": _finite(best.in_sample),
            },
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            "level": self.level,
            "importance": dict(self.importance),
            "targets": list(self.targets),
            "trials": len(self.table["trial"]),
            "states": {s: self.table["state"].count(s) for s in ("complete", "stopped", "failed")},
            "simulations": self.simulations,
            "in_flight": self.in_flight,
            "order": self.order,
            "verdicts": len(self.verdicts),
            "timing": None if self.timing is None else self.timing.as_dict(),
        }  # fmt: skip

    def write_tables(self, folder: Path) -> list[Path]:
        """trials.parquet; finish.parquet and verdicts.parquet where there is something in them."""
        import pyarrow
        from pyarrow import parquet

        verdicts = [
            {"trial": v.trial, "seed": v.seed, "kind": v.kind, "message": v.message, "again": v.again,
             "params": json.dumps(dict(v.params), default=str), "traceback": v.traceback}
            for v in self.verdicts
        ]  # fmt: skip
        made = {"trials": pyarrow.table(_arrow(self.table))}
        if self.finish["trial"]:
            made["finish"] = pyarrow.table(_arrow(self.finish))
        if verdicts:
            made["verdicts"] = pyarrow.Table.from_pylist(verdicts)
        for name, table in made.items():
            parquet.write_table(table, folder / f"{name}.parquet")
        return [folder / f"{name}.parquet" for name in made]

    def _loss(self) -> str:
        best = self.best
        if not best.fresh:
            return f"Its loss is {_figure(best.loss)} on the seeds by which it was chosen: without a finish this is too good"
        spread = ""
        if best.interval is not None:
            low, high = best.interval
            spread = f" ({self.level:.0%} interval {_figure(low)} to {_figure(high)})"
        return f"Its loss is {_figure(best.loss)} on {best.fresh} fresh seeds{spread}"

    def _interval(self, name: str) -> str:
        if name not in self.intervals:
            return ""
        low, high = self.intervals[name]
        return f" ({self.level:.0%} interval {_figure(low)} to {_figure(high)})"

    def _share(self, name: str) -> str:
        return f"  importance {self.importance[name]:.2f}" if name in self.importance else ""

    def plot(self, kind: str = "history") -> Any:
        """A chart that notebooks show; its kinds are the names in `charts()`."""
        from millrace.analyses.calibrate import pictures

        made = self.charts()
        if kind not in made:
            raise WrongQuestion(f"There is no picture {kind!r} of this calibration; there are {', '.join(made)}.")
        return pictures.chart(made[kind])

    def charts(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite specs: loss history, slices, contours, importance, bands of the targets."""
        from millrace.analyses.calibrate import views

        return views.charts(self)


def _canonical_nan(value: Any) -> Any:
    """Every NaN as None: there are many of them, and they mean the same."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, list | tuple):
        return [_canonical_nan(v) for v in value]
    if isinstance(value, dict):
        return {k: _canonical_nan(v) for k, v in value.items()}
    return value


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _arrow(table: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that Arrow takes: a parameter with values of several kinds as text."""
    said = {}
    for name, column in table.items():
        kinds = {type(v) for v in column}
        mixed = name.startswith("param_") and len(kinds - {int, float}) > (0 if kinds & {int, float} else 1)
        said[name] = [str(v) for v in column] if mixed else list(column)
    return said
