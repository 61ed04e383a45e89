"""Worlds of the example's epidemic, with fewer people, to fit it to: a truth drawn for each, and a survey of it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, os.fspath(Path(__file__).parents[2] / "examples" / "calibrate_sir"))
import epidemic

from millrace.analyses.calibrate.question import read
from millrace.analyses.calibrate.spec import Spec

PEOPLE, TESTED, HELD_OUT = 1_000, 500, 20
BOUNDS = {"beta": ("log", 0.02, 0.30), "initial": ("log", 0.002, 0.05)}


def simulate(params: dict[str, Any], seed: int) -> dict[str, Any]:
    return epidemic.summarise(epidemic.simulate(params, seed, PEOPLE))


@dataclass(frozen=True)
class World:
    """What a survey saw of an epidemic whose parameters lie within the middle half of the bounds, on their scale."""

    question: dict[str, Any]

    def held_out(self, params: dict[str, Any]) -> float:
        """The mean loss on seeds that no study sees."""
        asked = read(Spec(**self.question, trials=1))
        losses = []
        for seed in range(900_000, 900_000 + HELD_OUT):
            aligned = asked.aligned({"outputs": simulate(params, seed)})
            losses.append(sum(o.target.weight * o.loss(aligned[o.name]) for o in asked.observed))
        return float(np.mean(losses))


def world(number: int) -> World:
    draws = np.random.default_rng([8_000, number])
    for _ in range(20):
        truth = {n: float(low * (high / low) ** draws.uniform(0.25, 0.75)) for n, (_, low, high) in BOUNDS.items()}
        made = simulate(truth, 10_000 + 100 * number + int(draws.integers(100)))
        if made["infections"]["infections"][-1] > 0.1:  # one that did not die out
            break
    targets = {}
    for name, table in made.items():
        at = np.searchsorted(table["day"], np.arange(10.0, 81.0, 10.0))
        seen = draws.binomial(TESTED, np.clip(table[name][at], 0, 1)) / TESTED
        data = {"day": table["day"][at].tolist(), name: seen.tolist()}
        targets[name] = {"data": data, "on": ("day",), "loss": "binomial", "of": TESTED}
    return World({"simulate": simulate, "parameters": BOUNDS, "targets": targets})
