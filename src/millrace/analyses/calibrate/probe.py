"""`calibrate probe`: the same small study three times, so that one sees what each part costs.

Simulations only, then with one target, then with all; the same parameters and seeds each time, nothing taken from the store and
nothing put there. A pool that has started already is what is measured.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.analyses.calibrate.analysis import prepared
from millrace.analyses.calibrate.facts import facts_of
from millrace.analyses.calibrate.plan import plan
from millrace.analyses.calibrate.question import Asked, read
from millrace.analyses.calibrate.simulating import Simulator
from millrace.analyses.calibrate.spec import Spec
from millrace.run.answer import Saved
from millrace.run.keys import content_key
from millrace.run.run import Run

__all__ = ["Probe", "Spec", "probe"]

TRIALS_A_SLOT = 4
LEAST_TRIALS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One pass. wall_s: of all; simulation_s: in the simulator, over all workers; ask_s, tell_s, loss_s: of the driver;
    simulation_ms: mean of one; own_ms: processor time of the driver per simulation."""

    name: str
    trials: int
    simulations: int
    wall_s: float
    simulation_s: float
    ask_s: float
    tell_s: float
    loss_s: float
    simulation_ms: float
    own_ms: float
    utilisation: float


@dataclass(frozen=True, slots=True)
class Probe(Saved):
    """What each part of a study costs."""

    parts: tuple[Part, ...]
    slots: int
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def table(self) -> dict[str, list[Any]]:
        return {name: [getattr(p, name) for p in self.parts] for name in Part.__slots__}

    @property
    def digest(self) -> str:
        """Of what was run; times are no part of an answer."""
        return content_key([(p.name, p.trials, p.simulations) for p in self.parts])

    def summary(self) -> str:
        head = f"{'':<18}{'simulations':>12}{'wall s':>9}{'of one, ms':>12}{'driver, ms each':>17}{'slots busy':>12}"
        rows = [
            f"{p.name:<18}{p.simulations:>12,}{p.wall_s:>9.2f}{p.simulation_ms:>12.2f}{p.own_ms:>17.3f}{p.utilisation:>12.0%}"
            for p in self.parts
        ]
        return "\n".join([head, *rows])

    def findings(self) -> list[str]:
        return [
            f"{p.name[0].upper()}{p.name[1:]}: {p.simulations:,} simulations in {p.wall_s:.2f} s on {self.slots} slots, "
            f"{p.simulation_ms:.2f} ms each, {p.own_ms:.3f} ms of the driver each."
            for p in self.parts
        ]

    def as_dict(self) -> dict[str, Any]:
        return {"slots": self.slots, "parts": [dataclasses.asdict(p) for p in self.parts]}

    def write_tables(self, folder: Path) -> list[Path]:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(self.table), folder / "probe.parquet")
        return [folder / "probe.parquet"]

    def charts(self) -> dict[str, dict[str, Any]]:
        return {}


def probe(spec: Spec, run: Run) -> Probe:
    """Run the three passes and tell their costs."""
    many = min(spec.trials or 1 << 30, max(LEAST_TRIALS, TRIALS_A_SLOT * run.budget.cores))
    small = {"sampler": "random", "trials": many, "simulations": None, "seconds": None, "finish": 0, "storage": "memory",
             "warm_start": None, "stop_early": False, "replicates": {"min": 1, "max": 1}, "order": "reproducible"}  # fmt: skip
    asked = read(Spec(**{**{name: getattr(spec, name) for name in Spec.model_fields}, **small}), run)
    in_flight = max(LEAST_TRIALS, 3 * run.budget.cores)
    run.follow(plan(facts_of(asked, in_flight), run.budget))
    passes = [("simulations only", ())]
    passes += [("one target", asked.observed[:1])] if len(asked.observed) > 1 else []
    passes += [("all targets", asked.observed)]
    warm = _with(asked, (), "warm")
    _pass(
        dataclasses.replace(warm, spec=warm.spec.model_copy(update={"trials": run.engine.slots})),
        run,
        in_flight,
        "warm",
    )
    parts = [_pass(_with(asked, observed, name), run, in_flight, name) for name, observed in passes]
    return Probe(tuple(parts), run.engine.slots, tuple(run.notes))


def _with(asked: Asked, observed: Any, name: str) -> Asked:
    """The same question with these targets only, its simulations of this pass alone."""
    factory = asked.factory
    assert isinstance(factory, functools.partial)  # as question.read makes it
    simulate, summarise, alignments, warm = factory.args
    taken = alignments if alignments is None else tuple(o.alignment for o in observed)
    made = functools.partial(Simulator, simulate, summarise, taken, warm)
    return dataclasses.replace(asked, observed=tuple(observed), factory=made, private=name)


def _pass(asked: Asked, run: Run, in_flight: int, name: str) -> Part:
    search = prepared(asked, run, in_flight)
    run.progress(name, asked.spec.trials)
    begun, used = time.monotonic(), time.process_time()
    search.go()
    wall, own = time.monotonic() - begun, time.process_time() - used
    n = max(1, len(search.durations))
    if not run.engine.isolates:  # the simulations are the driver's own time, too
        own = max(0.0, own - search.simulated_s)
    busy = search.simulated_s / max(1e-9, wall * run.engine.slots)
    return Part(
        name, len(search.trials), len(search.durations), wall, search.simulated_s, search.clock.ask_s, search.clock.tell_s,
        search.clock.loss_s, 1000 * search.simulated_s / n, 1000 * own / n, busy,
    )  # fmt: skip
