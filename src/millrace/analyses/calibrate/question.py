"""From what the user gave to what is computed: functions found, data read, seeds and tasks made, the study's identity.

Everything that can be wrong with the question is found here, before anything runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.calibrate import targets
from millrace.analyses.calibrate.simulating import Simulator, replicate
from millrace.analyses.calibrate.spec import Spec
from millrace.analyses.calibrate.targets import Observed
from millrace.run.canonical import Unkeyable
from millrace.run.errors import WrongQuestion
from millrace.run.function import find_function
from millrace.run.task import Keep, Limits, Task
from millrace.run.units import parse_bytes

if TYPE_CHECKING:
    from millrace.run.run import Run

COMMON, FRESH, OWN = 0, 1, 2
"""Streams of seeds: common to all trials, of the finish, of one trial."""
LARGE_BYTES = 512 << 10
"""Outputs that are larger stay in the store where they were made."""
DEFAULT_TRIALS = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """The question, ready. identity: of all that the search depends on, "" when a function has none."""

    spec: Spec
    simulate: Callable[..., Any]
    summarise: Callable[..., Any] | None
    observed: tuple[Observed, ...]
    factory: Callable[[], Simulator]
    limits: Limits
    seed: int
    identity: str
    private: str = ""
    """Not "": simulations are of this run alone, neither looked for in the store nor kept there."""

    @property
    def fixed(self) -> dict[str, Any]:
        return {name: p.value for name, p in self.spec.parameters.items() if p.kind == "fixed"}

    @property
    def positive(self) -> bool:
        """The loss of a replicate is never below 0."""
        return all(o.target.never_negative for o in self.observed)

    @property
    def common(self) -> bool:
        """Replicates of all trials run on the same seeds. What emulates outputs needs each on a seed of its own."""
        return self.spec.seeds == "common" and self.spec.sampler != "emulate"

    @property
    def racing(self) -> bool:
        """Trials that are clearly worse get no further replicates."""
        spec = self.spec
        return spec.stop_early and self.common and spec.replicates.max > spec.replicates.min

    @property
    def most(self) -> int:
        """Replicates of a trial at most."""
        return self.spec.replicates.min if self.spec.sampler == "emulate" else self.spec.replicates.max

    @property
    def first_round(self) -> int:
        """Replicates of a trial that start at once."""
        return self.spec.replicates.min if self.racing else self.most

    def seed_of(self, trial: int, number: int) -> int:
        """The seed of replicate `number` of a trial."""
        return derived(self.seed, COMMON, number) if self.common else derived(self.seed, OWN, trial, number)

    def fresh_seed(self, number: int) -> int:
        """Seed `number` of the finish, on which no trial was chosen."""
        return derived(self.seed, FRESH, number)

    def task(self, run: Run, params: Mapping[str, Any], seed: int, group: Any) -> Task:
        """One simulation."""
        task = run.task(
            replicate, dict(params), seed, group=group, limits=self.limits, resources=(self.factory,), name="simulation"
        )
        if self.private:
            return replace(task, key=f"~{self.private} {group} {seed}")
        if self.spec.persist and run.arena.url:
            return replace(task, keep=Keep(run.arena.url, LARGE_BYTES))
        return task

    def aligned(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """By target, the simulated values in the order of the observed ones."""
        if "aligned" in value:
            return value["aligned"]  # type: ignore[no-any-return]
        return {o.name: o.alignment.take(value["outputs"]) for o in self.observed}


def derived(seed: int, *index: int) -> int:
    """A seed below 2^31 that belongs to its index: neighbouring ones have nothing in common, whatever a simulator does."""
    return int(np.random.SeedSequence(seed, spawn_key=index).generate_state(1)[0] >> 1)


def read(spec: Spec, run: Run | None = None, seed: int = 0, simulates: bool = True) -> Asked:
    """The question with its functions found and its data read. simulates: False of a question about finished simulations, whose
    functions need not be there any more."""
    simulate = found(spec.simulate, "simulate") if simulates else _studied
    summarise = found(spec.summarise, "summarise") if spec.summarise is not None and simulates else None
    observed = tuple(targets.read_target(target) for target in spec.targets)
    limits = spec.limits
    ceilings = Limits(limits.cpu_s, limits.wall_s, parse_bytes(limits.memory) if limits.memory else 0)
    aligned_there = summarise is None and not spec.persist
    alignments = tuple(o.alignment for o in observed) if aligned_there else None
    warm = tuple(sorted(middle(spec).items())) if spec.warm_up else ()
    factory = functools.partial(Simulator, simulate, summarise, alignments, warm)
    return Asked(
        spec, simulate, summarise, observed, factory, ceilings, run.seed if run is not None else seed,
        _identity(spec, observed, factory, run),
    )  # fmt: skip


def found(given: Any, what: str) -> Callable[..., Any]:
    """The function that a question names or holds."""
    if isinstance(given, str):
        return find_function(given)
    if callable(given):
        return given  # type: ignore[no-any-return]
    raise WrongQuestion(f"{what} is a {type(given).__qualname__}: give a function, or its name as module:function.")


def middle(spec: Spec) -> dict[str, Any]:
    """Parameters in the middle of their ranges, for a simulation that only warms up."""
    said = {}
    for name, p in spec.parameters.items():
        if p.kind == "fixed":
            said[name] = p.value
        elif p.kind == "categorical":
            said[name] = p.choices[0]
        else:
            assert p.low is not None and p.high is not None  # the model says so
            said[name] = round((p.low + p.high) / 2) if p.kind == "int" else (p.low + p.high) / 2
            if p.kind == "log":
                said[name] = float(np.sqrt(p.low * p.high))
    return said


SEARCHED = (
    "parameters", "sampler", "replicates", "seeds", "stop_early", "trials", "simulations", "seconds", "order", "finish", "fresh",
)  # fmt: skip
"""Fields of the question that decide which trials there are, besides functions and data."""


def _identity(spec: Spec, observed: tuple[Observed, ...], factory: Any, run: Run | None) -> str:
    if run is None:
        return ""
    said = {name: getattr(spec, name) for name in SEARCHED}
    data = [
        (o.target.model_dump(exclude={"data", "loss"}), o.own or o.target.loss, o.values, o.sd, o.of) for o in observed
    ]
    try:
        return run.keys.of(_studied, (said, data, spec.in_flight), (factory,))
    except Unkeyable:
        return ""


def _studied() -> None:
    """Stands in the key of what is kept about a study as a whole."""
