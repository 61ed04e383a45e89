"""Measured studies of the numerics: early stopping, `emulate` beside TPE, coverage of intervals, over seeded worlds.

A small sequential loop, Optuna's real TPE beside ours, losses on seeds that no study saw. `python tests/calibrate/studies.py
stopping|emulate|intervals [WORLDS]` prints the tables of docs/calibrate-methods.md.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

sys.path.insert(0, os.fspath(Path(__file__).parent))
from epidemics import NAMES, World

from millrace.analyses.calibrate.kernels import emulator, posterior, racing

FINALISTS, FRESH = 5, 10
FRESH_SEED = 5_000
Rule = Callable[[list[racing.TrialLosses], racing.TrialLosses, racing.TrialLosses], bool]


@dataclass(frozen=True)
class Found:
    """Where a study ended: the parameters, simulations with and without the finish, loss in sample and on held-out seeds."""

    unit: np.ndarray
    simulations: int
    searched: int
    in_sample: float
    held_out: float


def finish(world: World, units: list[np.ndarray], in_sample: list[float], searched: int) -> Found:
    """The best on fresh seeds."""
    losses = [np.mean([world.loss(u, world.seed(FRESH_SEED + i)) for i in range(FRESH)]) for u in units]
    best = int(np.argmin(losses))
    return Found(units[best], world.simulations, searched, in_sample[best], world.held_out(units[best]))


def tpe(world: World, seed: int, simulations: int, replicates: int, stop: Rule | None, trials: int = 10**9) -> Found:
    """TPE on common seeds; `stop` is asked after each replicate but the last. Ends at `simulations` before the finish, or at
    `trials`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    history: list[racing.TrialLosses] = []
    places: list[np.ndarray] = []
    incumbent: racing.TrialLosses | None = None
    while len(history) < trials and world.simulations < simulations:
        asked = study.ask()
        unit = np.array([asked.suggest_float(f"x{i}", 0, 1) for i in range(world.dimensions)])
        losses: list[float] = []
        trial = racing.TrialLosses(len(history), ())
        while len(losses) < replicates and world.simulations < simulations:
            losses.append(world.loss(unit, world.seed(len(losses))))
            trial = racing.TrialLosses(len(history), tuple(losses))
            if stop and incumbent and len(losses) < replicates and stop(history, trial, incumbent):
                break
        study.tell(asked, float(np.mean(losses)))
        history.append(trial)
        places.append(unit)
        if len(losses) == replicates and (incumbent is None or np.mean(losses) < np.mean(incumbent.losses)):
            incumbent = trial
    chosen = racing.finalists(history, FINALISTS, positive=True)
    return finish(
        world, [places[i] for i in chosen], [float(np.mean(history[i].losses)) for i in chosen], world.simulations
    )


@dataclass(frozen=True)
class Emulated:
    """The simulations of a study with `emulate` and its finish, and where it ended."""

    params: np.ndarray
    summaries: list[np.ndarray]
    seeds: list[list[int]]
    best: np.ndarray


def emulated(world: World, seed: int, simulations: int) -> Emulated:
    """One simulation a point, each on a seed of its own; eight in flight. Then the finish."""
    made = emulator.Emulator(_dimensions(world), seed, simulations, world.losses)
    flight: list[dict[str, float]] = []
    units: list[np.ndarray] = []
    summaries: list[np.ndarray] = []

    def tell() -> None:
        params = flight.pop(0)
        units.append(np.array(list(params.values())))
        summaries.append(world.run(units[-1], world.seed(len(summaries))))
        made.tell(params, summaries[-1], float(world.losses(summaries[-1])[0]))

    for _ in range(simulations):
        if len(flight) >= 8:
            tell()
        flight += made.ask(1)
    while flight:
        tell()
    seeds = [[world.seed(i)] for i in range(simulations)]
    fresh = [world.seed(FRESH_SEED + i) for i in range(FRESH)]
    for params in made.finalists(FINALISTS):
        units.append(np.array(list(params.values())))
        summaries.append(np.array([world.run(units[-1], s) for s in fresh]))
        seeds.append(fresh)
    losses = [float(world.losses(s).mean()) for s in summaries[-FINALISTS:]]
    return Emulated(np.array(units), summaries, seeds, units[-FINALISTS:][int(np.argmin(losses))])


def emulate(world: World, seed: int, simulations: int) -> Found:
    best = emulated(world, seed, simulations).best
    return Found(best, world.simulations, simulations, math.nan, world.held_out(best))


def _dimensions(world: World) -> list[emulator.Dimension]:
    return [emulator.Dimension(name, "float", 0.0, 1.0) for name in NAMES[: world.dimensions]]


def by_rule(history: list[racing.TrialLosses], trial: racing.TrialLosses, incumbent: racing.TrialLosses) -> bool:
    return racing.stop(history, trial, incumbent, positive=True)


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Geometric mean of ours over theirs, and the upper end of its one-sided 95 % interval over the worlds."""
    logs = np.log(ours) - np.log(theirs)
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() + 1.645 * logs.std(ddof=1) / math.sqrt(len(logs))))


# -- early stopping ------------------------------------------------------------------------------------------------
ARMS: dict[str, tuple[int, Rule | None]] = {
    "five fixed": (5, None),
    "stopped early": (5, by_rule),
    "two fixed": (2, None),
}


def stopping(worlds: int, trials: int = 100, arms: tuple[str, ...] = tuple(ARMS)) -> dict[str, list[Found]]:
    """The same number of TPE trials with each rule, in the same worlds and with the same seeds."""
    return {name: [tpe(World(w), 100 + w, 10**9, *ARMS[name], trials=trials) for w in range(worlds)] for name in arms}


# -- emulate beside TPE --------------------------------------------------------------------------------------------
BUDGETS = {2: (30, 180), 4: (60, 600)}
"""Simulations before the finish (50 more) of emulate and of TPE, by dimensions."""


SAMPLERS: dict[str, Callable[[World, int, int], Found]] = {
    "emulate": emulate,
    "TPE, 3 replicates": lambda world, seed, simulations: tpe(world, seed, simulations, 3, None),
    "TPE, stopped early": lambda world, seed, simulations: tpe(world, seed, simulations, 5, by_rule),
}


def sampler(name: str, worlds: int, dimensions: int) -> list[Found]:
    """One sampler at its budget in all worlds."""
    simulations = BUDGETS[dimensions][name != "emulate"]
    return [SAMPLERS[name](World(w, dimensions), 300 + w, simulations) for w in range(worlds)]


# -- intervals -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Coverage:
    """Of each world and parameter: whether the interval holds the truth, and its width in the unit cube, (worlds, d)."""

    held: np.ndarray
    widths: np.ndarray


def coverage(worlds: int, dimensions: int, simulations: int, level: float = 0.90) -> dict[str, Coverage]:
    """emulate's simulations and those of its finish give the interval; the noise of observing is `known` or `not known`."""
    held: dict[str, list[np.ndarray]] = {"known": [], "not known": []}
    widths: dict[str, list[np.ndarray]] = {"known": [], "not known": []}
    for number in range(worlds):
        world = World(number, dimensions)
        rows = emulated(world, 900 + number, simulations)
        for how, noise in (("known", world.sd), ("not known", None)):
            found = posterior.intervals(
                rows.params, rows.summaries, world.observed, _dimensions(world), rows.best, level,
                noise=noise, seeds=rows.seeds,
            )  # fmt: skip
            low, high = np.array(list(found.values())).T
            held[how].append((low <= world.truth) & (world.truth <= high))
            widths[how].append(high - low)
    return {how: Coverage(np.array(held[how]), np.array(widths[how])) for how in held}


# -- tables --------------------------------------------------------------------------------------------------------
def told_stopping(worlds: int) -> str:
    found = stopping(worlds)
    full = found["five fixed"]
    lines = ["| rule | simulations a study | of five fixed | hold-out loss over five fixed (95 % bound) | in sample / hold-out |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, its in found.items():
        share = sum(f.searched for f in its) / sum(f.searched for f in full)
        middle, bound = ratio([f.held_out for f in its], [f.held_out for f in full])
        curse = np.exp(np.mean(np.log([f.in_sample / f.held_out for f in its])))
        searched = np.mean([f.searched for f in its])
        lines.append(f"| {name} | {searched:.0f} + 50 | {share:.2f} | {middle:.2f} ({bound:.2f}) | {curse:.2f} |")
    return "\n".join(lines)


def told_samplers(worlds: int, every: tuple[int, ...] = tuple(BUDGETS)) -> str:
    lines = ["| parameters | sampler | simulations | hold-out loss over that at the truth | emulate over it (95 % bound) |",
             "|---|---|---|---|---|"]  # fmt: skip
    for d in every:
        truth = [World(w, d).held_out(World(w, d).truth) for w in range(worlds)]
        ours: list[float] = []
        for name in SAMPLERS:
            its = sampler(name, worlds, d)
            losses = [f.held_out for f in its]
            ours = ours or losses
            beside = "" if name == "emulate" else "{:.2f} ({:.2f})".format(*ratio(ours, losses))
            used = np.mean([f.simulations for f in its])
            lines.append(f"| {d} | {name} | {used:.0f} | {ratio(losses, truth)[0]:.2f} | {beside} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def told_intervals(worlds: int) -> str:
    lines = ["| parameters | simulations | noise of observing | coverage at .90, all | of each parameter | width, of the range |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for d, simulations in ((2, 60), (4, 110)):
        for how, found in coverage(worlds, d, simulations).items():
            each = ", ".join(f"{x:.2f}" for x in found.held.mean(axis=0))
            widths = ", ".join(f"{x:.2f}" for x in found.widths.mean(axis=0))
            lines.append(f"| {d} | {simulations} + 50 | {how} | {found.held.mean():.2f} | {each} | {widths} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    told = {"stopping": told_stopping, "emulate": told_samplers, "intervals": told_intervals}
    print(told[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 40))
