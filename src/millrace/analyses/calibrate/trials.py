"""Trials: their replicates, what came of them, and the table of all.

Bookkeeping of the one event loop; decides nothing and runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from millrace.analyses.calibrate import targets
from millrace.analyses.calibrate.answer import Verdict
from millrace.analyses.calibrate.kernels.racing import TrialLosses
from millrace.analyses.calibrate.targets import Observed

State = Literal["running", "complete", "stopped", "failed"]


@dataclass(slots=True)
class Trial:
    """One set of parameters. cap: replicates that it may have; seeds, keys: of those that were started, in their order; losses,
    by_target, aligned: by the number of a replicate that ended well; failed: numbers of those that did not. seen: how many
    told trials its decisions may see (and the incumbent among them)."""

    number: int
    params: Mapping[str, Any]
    cap: int
    seen: int = 0
    incumbent: Trial | None = None
    state: State = "running"
    seeds: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)
    by_target: dict[int, Mapping[str, float]] = field(default_factory=dict)
    aligned: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    seconds: float = 0.0
    loss: float = math.nan
    target_losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def out(self) -> int:
        """Replicates in flight."""
        return len(self.seeds) - len(self.losses) - len(self.failed)

    @property
    def ran(self) -> list[int]:
        """Replicates that ended well, in the order of their seeds."""
        return sorted(self.losses)

    @property
    def paired(self) -> TrialLosses:
        """Losses in the order of the seeds, for comparisons on common seeds."""
        return TrialLosses(self.number, tuple(self.losses[r] for r in self.ran))

    def settle(self, state: State, observed: Sequence[Observed]) -> None:
        """The trial is over; its losses over its replicates."""
        self.state = state
        if not self.losses or state == "failed":
            return
        order = self.ran
        self.target_losses = targets.over_replicates(
            observed, [self.by_target[r] for r in order], [self.aligned[r] for r in order]
        )
        self.loss = targets.combined(observed, self.target_losses)

    def stacked(self, observed: Sequence[Observed]) -> Any:
        """(replicates, m): the simulated values of all targets, side by side, in the order of the seeds."""
        return np.array([np.concatenate([self.aligned[r][o.name][0] for o in observed]) for r in self.ran])


def table(trials: Iterable[Trial], parameters: Sequence[str], names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns by name, one row a trial."""
    rows = sorted(trials, key=lambda t: t.number)
    said: dict[str, list[Any]] = {
        "trial": [t.number for t in rows],
        "state": [t.state for t in rows],
        "replicates": [len(t.losses) for t in rows],
        "loss": [t.loss for t in rows],
    }
    for name in names:
        said[f"loss_{name}"] = [t.target_losses.get(name, math.nan) for t in rows]
    for name in parameters:
        said[f"param_{name}"] = [t.params[name] for t in rows]
    said["seconds"] = [t.seconds for t in rows]
    said["seeds"] = [[t.seeds[r] for r in sorted([*t.losses, *t.failed])] for t in rows]
    return said


def verdict_of(
    trial: int, seed: int, params: Mapping[str, Any], kind: str, message: str, run_id: str, trace: str = ""
) -> Verdict:
    """A replicate that gave nothing, with the command that repeats it."""
    return Verdict(
        trial,
        seed,
        dict(params),
        kind,
        message,
        f"millrace calibrate replay {run_id} --trial {trial} --seed {seed}",
        trace,
    )
