"""`calibrate replay`: one simulation of a run again, in this process, with all that it prints and raises.

For a debugger and for the eye: nothing is caught, no limit holds, nothing is kept.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.analyses.calibrate import records
from millrace.analyses.calibrate.aligning import WrongOutputs
from millrace.analyses.calibrate.looks import Replay as Spec
from millrace.analyses.calibrate.question import read
from millrace.analyses.calibrate.simulating import plain
from millrace.analyses.calibrate.targets import combined, measured
from millrace.run.answer import Saved
from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.run.keys import content_key
from millrace.run.run import Run


@dataclass(frozen=True, slots=True)
class Replay(Saved):
    """losses: by target; loss: combined; recorded: what the run had for the trial as a whole, None when it failed. outputs: by
    name, a word about each."""

    trial: int
    seed: int
    params: Mapping[str, Any]
    losses: Mapping[str, float]
    loss: float
    recorded: float | None
    seconds: float
    outputs: Mapping[str, str]
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        return content_key((self.trial, self.seed, dict(self.params), dict(self.losses)))

    def summary(self) -> str:
        losses = ", ".join(f"{name} {loss:.6g}" for name, loss in self.losses.items())
        params = ", ".join(f"{name}={value}" for name, value in self.params.items())
        recorded = "it failed" if self.recorded is None else f"over all of its seeds {self.recorded:.6g}"
        return "\n".join(
            [
                f"Trial {self.trial}, seed {self.seed}: {params}",
                *(f"  {name}: {said}" for name, said in self.outputs.items()),
                f"Loss {self.loss:.6g} ({losses}) in {self.seconds:.3f} s; in the run, {recorded}",
            ]
        )

    def findings(self) -> list[str]:
        return self.summary().splitlines()

    def as_dict(self) -> dict[str, Any]:
        return {
            "trial": self.trial, "seed": self.seed, "params": dict(self.params), "seconds": self.seconds,
            "losses": {n: v if math.isfinite(v) else None for n, v in self.losses.items()},
            "loss": self.loss if math.isfinite(self.loss) else None, "recorded": self.recorded,
        }  # fmt: skip

    def write_tables(self, folder: Path) -> list[Path]:
        return []

    def charts(self) -> dict[str, dict[str, Any]]:
        return {}


def replay(spec: Spec, run: Run) -> Replay:
    """Simulate once more; `AnalysisFailed` with the simulator's own traceback when it raises."""
    past = records.read_past(spec.run)
    said = past.trial(spec.trial)
    seeds = [*said["seeds"], *(s for one in past.fresh if one["trial"] == spec.trial for s in one["seeds"])]
    seed = seeds[0] if spec.seed is None else spec.seed
    if seed not in seeds:
        raise WrongQuestion(f"Trial {spec.trial} ran on the seeds {', '.join(map(str, seeds))}, and not on {seed}.")
    asked = read(records.respecified(past), seed=past.seed)
    begun = time.perf_counter()
    try:
        outputs = asked.simulate(dict(said["params"]), seed)
        if asked.summarise is not None:
            outputs = asked.summarise(outputs)
        aligned = asked.aligned({"outputs": plain(outputs)})
    except WrongOutputs as e:
        raise AnalysisFailed(f"Trial {spec.trial}, seed {seed}: {e}.") from e
    except Exception as e:
        trace = "".join(traceback.format_exception(e)).rstrip()
        raise AnalysisFailed(f"Trial {spec.trial}, seed {seed} raised {type(e).__name__}: {e}.\n\n{trace}") from e
    seconds = time.perf_counter() - begun
    losses = measured(asked.observed, aligned)
    return Replay(
        spec.trial, seed, said["params"], losses, combined(asked.observed, losses), said["loss"], seconds,
        {str(name): _word(value) for name, value in outputs.items()}, tuple(run.notes),
    )  # fmt: skip


def _word(value: Any) -> str:
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return (
        f"{kind} {'x'.join(map(str, shape))}"
        if shape
        else f"{kind} of {len(value)}"
        if hasattr(value, "__len__")
        else str(value)
    )
