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

from millrace.analyses.calibrate.kernels import emulator, racing

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


def emulate(world: World, seed: int, simulations: int) -> Found:
    """The emulator, one simulation a point, each on a seed of its own; eight in flight."""
    made = emulator.Emulator(dimensions(world), seed, simulations, world.losses)
    flight: list[tuple[dict[str, float], int]] = []
    for number in range(simulations):
        if len(flight) >= 8:
            _tell(made, world, flight.pop(0))
        flight.append((made.ask(1)[0], number))
    for one in flight:
        _tell(made, world, one)
    units = [np.array(list(p.values())) for p in made.finalists(FINALISTS)]
    return finish(world, units, [math.nan] * FINALISTS, world.simulations)


def dimensions(world: World) -> list[emulator.Dimension]:
    return [emulator.Dimension(name, "float", 0.0, 1.0) for name in NAMES[: world.dimensions]]


def _tell(made: emulator.Emulator, world: World, one: tuple[dict[str, float], int]) -> None:
    params, number = one
    summaries = world.run(np.array(list(params.values())), world.seed(number))
    made.tell(params, summaries, float(world.losses(summaries)[0]))


def by_rule(history: list[racing.TrialLosses], trial: racing.TrialLosses, incumbent: racing.TrialLosses) -> bool:
    return racing.stop(history, trial, incumbent, positive=True)


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Geometric mean of ours over theirs, and the upper end of its one-sided 95 % interval over the worlds."""
    logs = np.log(ours) - np.log(theirs)
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() + 1.645 * logs.std(ddof=1) / math.sqrt(len(logs))))
