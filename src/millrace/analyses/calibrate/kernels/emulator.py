"""The sampler `emulate`: model what the simulator puts out, not the loss, and ask where the loss of that is low.

A third of the budget is a Sobol sequence. Then five waves: a surface of the summaries (see `surface`) is fitted, simulations
near the optimum weighing most, and each point of a wave is the optimum of one redrawn surface: half of them redrawn within the
surface's own uncertainty (where the optimum may be), half with the noise of one simulation too (how far the estimate itself
would move, which spreads points as wide as intervals need them). At the end `best` is the optimum of the expected loss and
`finalists` adds points for the run on fresh seeds.

Every simulation should have a seed of its own: on one common seed the surface would be that seed's, and its optimum too.
Everything follows from the seed and from what was told, in the order of asking and telling; nothing else is remembered.
Does not run anything. See also: `posterior` (intervals from the same simulations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import qmc

from millrace.analyses.calibrate.kernels.surface import (
    Array,
    Dimension,
    Surface,
    features,
    fit,
    nearness,
    terms,
    to_native,
    to_unit,
)
from millrace.run.errors import WrongQuestion
from millrace.run.streams import rng

__all__ = ["Dimension", "Emulator"]

WAVES = 5
DRAWS = 12  # of a simulation's noise, for the expected loss
EVERYWHERE, AROUND, NEAR, RIVALS = (
    1_000,
    8,
    120,
    300,
)  # candidates: uniform, good trials, points round each, kept for a wave
STEP, JITTER, MARGIN = 0.06, 0.02, 0.05  # of the unit cube
MOST_DIMENSIONS = 6
INSIDE = 0.5  # of the simulations: where the surface is to be right


class Emulator:
    """Ask for parameters, tell summaries.

    budget: simulations, the finish not counted. loss: (k, m) summaries -> (k,) losses of single simulations; the surface is
    searched with it, some tens of thousands of rows a wave. WrongQuestion: no dimension, more than six, or a budget that holds
    no wave (twice a quadratic's terms).
    """

    def __init__(self, dimensions: Sequence[Dimension], seed: int, budget: int, loss: Callable[[Array], Array]) -> None:
        if not 1 <= len(dimensions) <= MOST_DIMENSIONS:
            raise WrongQuestion(
                f"The sampler 'emulate' takes 1 to {MOST_DIMENSIONS} continuous parameters, not {len(dimensions)}: "
                f"fix some, or use 'tpe' or 'cmaes'."
            )
        least = 2 * terms(len(dimensions))
        if budget < least:
            raise WrongQuestion(
                f"The sampler 'emulate' needs at least {least} simulations before the finish for {len(dimensions)} parameters, "
                f"and has {budget}: raise the budget or use 'tpe'."
            )
        self.dimensions, self.seed, self.budget, self._loss = tuple(dimensions), seed, budget, loss
        self.first = max(budget // 3, terms(len(dimensions)) + 4)
        self.wave = max(1, -(-(budget - self.first) // WAVES))
        self._sobol = qmc.Sobol(len(dimensions), rng=rng(seed, 0)).random(1 << (budget - 1).bit_length())
        self._asked = self._even = self._told = 0
        self._queue: list[Array] = []
        self._rows: list[Array] = []
        self._summaries: list[Array] = []
        self._losses: list[float] = []
        self._failed: list[Array] = []

    def ask(self, k: int = 1) -> list[dict[str, float]]:
        """k parameter sets; asking beyond the budget goes on with more of the last wave."""
        unit = np.array([self._next() for _ in range(k)]).reshape(k, len(self.dimensions))
        return self._named(unit)

    def tell(self, params: Mapping[str, float], summaries: Any, loss: float) -> None:
        """summaries: (m,) of one simulation or (r, m) of r. A loss that is not finite, or summaries that are not (None: there
        are none), is a failure: it teaches to stay away."""
        self._told += 1
        at = to_unit(self.dimensions, [[params[d.name] for d in self.dimensions]])[0]
        rows = None if summaries is None else np.atleast_2d(np.asarray(summaries, dtype=np.float64))
        if rows is None or not np.isfinite(loss) or not np.isfinite(rows).all():
            self._failed.append(at)
            return
        for row in rows:
            self._rows.append(at)
            self._summaries.append(row)
            self._losses.append(float(loss))

    def best(self) -> dict[str, float]:
        """The optimum of the expected loss on the surface; of fewer simulations than a quadratic has terms, the best told."""
        return self.finalists(1)[0]

    def finalists(self, count: int = 5) -> list[dict[str, float]]:
        """For the finish, the best first: the optimum of the expected loss, the middle of where the optimum may be, and optima
        of redrawn surfaces. They need not have been simulated before."""
        if not self._losses:
            raise WrongQuestion("The emulator was told of no simulation that worked: there is no best.")
        if len(self._losses) <= terms(len(self.dimensions)):
            order = np.argsort(self._losses, kind="stable")[:count]
            return self._named(np.array([self._rows[i] for i in order]))
        draws = rng(self.seed, 2)
        surface, candidates = self._fitted(draws)
        optimum = self._refined(surface, candidates[0], draws)
        if count == 1:
            return self._named(optimum[None])
        cloud = self._optima(surface, candidates, 16 + count, draws, noise=0)
        return self._named(np.vstack([optimum, cloud.mean(axis=0), cloud])[:count])

    # -- points --------------------------------------------------------------------------------------------------
    def _next(self) -> Array:
        self._asked += 1
        # The budget counts simulations: a place that is run several times takes as much of it.
        each = max(1.0, len(self._losses) / max(1, self._told - len(self._failed)))
        waves = self._asked * each > self.first and len(self._losses) >= terms(len(self.dimensions)) + 4
        if not waves:
            self._even += 1
            return self._sobol[(self._even - 1) % len(self._sobol)]
        if not self._queue:
            self._queue = list(self._planned(rng(self.seed, 1, self._asked), max(1, round(self.wave / each))))
        return self._queue.pop(0)

    def _planned(self, draws: np.random.Generator, count: int) -> Array:
        """A wave, in a random order, because a wave may be cut short by the budget."""
        surface, candidates = self._fitted(draws)
        optima = self._optima(surface, candidates, count, draws, noise=count - count // 2)
        moved = optima + draws.normal(0, JITTER, optima.shape)
        return np.clip(moved, 0, 1)[draws.permutation(count)]

    def _fitted(self, draws: np.random.Generator) -> tuple[Surface, Array]:
        """The surface, and candidates that it can speak of, those of low expected loss first."""
        unit, summaries = np.array(self._rows), np.array(self._summaries)
        d = len(self.dimensions)
        losses = np.array(self._losses)
        weights = nearness(losses - losses.min(), d, INSIDE)
        surface = fit(unit, summaries, weights)
        # Weights from losses as they came out favour lucky noise; weights from predicted ones are a function of place alone.
        predicted = self._expected(surface, unit)
        weights = nearness(predicted - predicted.min(), d, INSIDE)
        surface = fit(unit, summaries, weights)
        predicted = self._expected(surface, unit)
        candidates = self._candidates(unit, predicted, weights, draws)
        return surface, candidates[np.argsort(self._expected(surface, candidates), kind="stable")]

    def _candidates(self, unit: Array, predicted: Array, weights: Array, draws: np.random.Generator) -> Array:
        """Inside the box of the simulations that weigh: a quadratic says nothing beyond."""
        d = unit.shape[1]
        near = unit[weights >= np.exp(-0.5)]
        low, high = np.clip(near.min(axis=0) - MARGIN, 0, 1), np.clip(near.max(axis=0) + MARGIN, 0, 1)
        good = unit[np.argsort(predicted, kind="stable")[:AROUND]]
        around = good.repeat(NEAR, axis=0) + draws.normal(0, STEP, (len(good) * NEAR, d))
        found = np.clip(np.vstack([good, low + (high - low) * draws.random((EVERYWHERE, d)), around]), low, high)
        if not self._failed:
            return found
        failed = np.array(self._failed)
        away = _nearest(found, unit) <= _nearest(found, failed)
        return found[away] if away.any() else found

    def _optima(self, surface: Surface, candidates: Array, count: int, draws: np.random.Generator, noise: int) -> Array:
        """(count, d): for each redrawn surface the best of the leading candidates; the last `noise` of them carry a
        simulation's noise."""
        rivals = candidates[:RIVALS]
        f = features(rivals)
        found = []
        for i in range(count):
            signs = draws.choice([-1.0, 1.0], len(surface.weights))
            z = f @ surface.redrawn(signs)
            row = draws.choice(len(surface.weights), p=surface.weights / surface.weights.sum())
            z = z + draws.choice([-1.0, 1.0]) * surface.residuals[row] * (i >= count - noise)
            found.append(rivals[int(np.argmin(self._loss(surface.scales.back(z))))])
        return np.array(found)

    def _refined(self, surface: Surface, start: Array, draws: np.random.Generator) -> Array:
        best = start
        for step in (STEP / 2, STEP / 6, STEP / 20):
            tried = np.vstack([best, np.clip(best + draws.normal(0, step, (200, len(best))), 0, 1)])
            best = tried[int(np.argmin(self._expected(surface, tried)))]
        return best

    def _expected(self, surface: Surface, unit: Array) -> Array:
        """(k,) mean loss over the same draws of noise everywhere: residuals of the heaviest simulations, with both signs, so
        that they add nothing to the mean."""
        heaviest = np.argsort(-surface.weights, kind="stable")[: DRAWS // 2]
        noise = surface.residuals[heaviest] * _evened(surface, heaviest)
        noise = np.vstack([noise, -noise])
        z = surface.mean(unit)[:, None, :] + noise[None]
        y = surface.scales.back(z.reshape(-1, z.shape[2]))
        return np.asarray(self._loss(y), dtype=np.float64).reshape(len(unit), len(noise)).mean(axis=1)

    def _named(self, unit: Array) -> list[dict[str, float]]:
        native = to_native(self.dimensions, unit)
        return [{d.name: float(v) for d, v in zip(self.dimensions, row, strict=True)} for row in native]


def _evened(surface: Surface, rows: Array) -> Array:
    """(m,) factors that give a few residuals the spread of all."""
    weights = surface.weights / surface.weights.sum()
    all_of_them = np.sqrt(weights @ np.square(surface.residuals))
    few = np.sqrt(np.square(surface.residuals[rows]).mean(axis=0))
    return np.where(few > 0, all_of_them / np.where(few > 0, few, 1.0), 0.0)


def _nearest(places: Array, among: Array) -> Array:
    return np.array([np.square(among - place).sum(axis=1).min() for place in places])
