"""Intervals of parameters from the simulations that a calibration ran anyway: synthetic likelihood on emulated summaries.

The observed summaries are taken as one more simulation at unknown parameters, plus the noise of observing (Wood 2010). Their
mean is a quadratic surface near the optimum (see `surface`); their covariance is that of the surface's residuals, correlations
shrunk (Schaefer and Strimmer 2005), plus the noise of observing. The surface is itself uncertain, which adds to the covariance
in proportion; the covariance is an estimate too, which turns the normal into a t with its degrees of freedom (Sellentin and
Heavens 2016). The prior is even over the bounds, on each parameter's scale.

A profile of the loss is not a substitute: it knows nothing of how much the simulator's own noise moves the optimum. Does not
simulate. See also: `emulator`, which puts simulations where intervals need them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.calibrate.kernels.surface import (
    Array,
    Dimension,
    Likeness,
    Surface,
    features,
    fit,
    nearness,
    terms,
    to_native,
    to_unit,
)
from millrace.run.streams import rng

PASSES = 2
INSIDE = 0.65  # of the places: intervals need the surface as far as they reach
MOST_ALIKE = 0.9
WALKERS, STEPS, BURNT, APART = 100, 200, 40, 4
STARTS = 2_000
STRETCH = 2.0  # Goodman and Weare 2010
LEAST_FREEDOM = 4.0


def intervals(
    params: Any,
    summaries: Sequence[Any],
    observed: Any,
    dimensions: Sequence[Dimension],
    at: Any,
    level: float = 0.90,
    *,
    noise: Any = None,
    seeds: Sequence[Sequence[int]] | None = None,
) -> dict[str, tuple[float, float]]:
    """Name -> (low, high), equal tails, of each parameter.

    params: (n, d) native. summaries: n arrays (m,) or (r_i, m), a row a simulation. observed: (m,). at: (d,) the best
    parameters, in whose neighbourhood the surface is to be right. noise: (m,) standard deviations of observing, beyond the
    simulator's own randomness; None: not known, and then the covariance is raised to what the misfit at the mode asks for.
    seeds: those of the rows; seeds that several trials share make rows alike, which counts as uncertainty of the surface (None:
    no two rows share one). {} when there are too few simulations for a surface, or all share one seed: nothing is known then.
    """  # fmt: skip
    gathered = _rows(params, summaries, seeds, dimensions)
    d = len(dimensions)
    if len(gathered.unit) < terms(d) + 4 or len(np.unique(gathered.unit, axis=0)) < terms(d) + 2:
        return {}
    if len(np.unique(gathered.seeds)) < 2:
        return {}
    centre = to_unit(dimensions, [at[x.name] for x in dimensions] if isinstance(at, Mapping) else at)[0]
    target = np.asarray(observed, dtype=np.float64)
    surface = _local(gathered, centre)
    density = _density(surface, gathered, target, None if noise is None else np.asarray(noise, dtype=np.float64), d)
    cloud = sample(density, centre, gathered.unit, rng(0, 3))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = to_native(dimensions, np.quantile(cloud, tails, axis=0))
    return {x.name: (float(a), float(b)) for x, a, b in zip(dimensions, low, high, strict=True)}


@dataclass(frozen=True, slots=True)
class Rows:
    """A row a simulation: (n, d) places, (n, m) summaries, (n,) numbers of the seeds."""

    unit: Array
    summaries: Array
    seeds: Array


def _rows(params: Any, summaries: Sequence[Any], seeds: Any, dimensions: Sequence[Dimension]) -> Rows:
    unit = to_unit(dimensions, params)
    blocks = [np.atleast_2d(np.asarray(s, dtype=np.float64)) for s in summaries]
    counts = [len(b) for b in blocks]
    rows = np.vstack(blocks)
    of_row = np.arange(len(rows)) if seeds is None else np.concatenate([np.asarray(s, dtype=object) for s in seeds])
    known = np.isfinite(rows).all(axis=1)
    numbers = np.unique(of_row[known].astype(str), return_inverse=True)[1]
    return Rows(unit.repeat(counts, axis=0)[known], rows[known], numbers)


def _local(rows: Rows, centre: Array) -> Surface:
    """The surface near the optimum. A simulation weighs by how far its predicted summaries are from those predicted for the
    optimum, in units of noise; not by its own summaries, since picking those that came out close would shrink the noise."""
    d = len(centre)
    weights = nearness(np.square(rows.unit - centre).sum(axis=1), d, INSIDE)
    surface = fit(rows.unit, rows.summaries, weights)
    for _ in range(PASSES):
        apart = surface.mean(rows.unit) - surface.mean(centre[None])
        known = surface.variances > 0
        distance = (np.square(apart[:, known]) / surface.variances[known]).mean(axis=1) if known.any() else weights * 0
        weights = nearness(distance, d, INSIDE)
        surface = fit(rows.unit, rows.summaries, weights, alike=_alike(surface, rows.seeds))
    return surface


def _alike(surface: Surface, seeds: NDArray[np.int64]) -> Likeness | None:
    """How alike residuals of one seed are: the mean product of two of them over the mean square."""
    if len(np.unique(seeds)) == len(seeds):
        return None
    w = surface.weights[:, None]
    z = surface.residuals / np.sqrt(np.where(surface.variances > 0, surface.variances, 1.0))
    whole = Likeness(seeds, 0.0)
    pairs = np.square(whole.sums(z * w)) - whole.sums(np.square(z * w))
    count = np.square(whole.sums(w)) - whole.sums(np.square(w))
    found = pairs.sum(axis=0) / max(float(count.sum()), 1e-12)
    return Likeness(seeds, float(np.clip(found[surface.variances > 0].mean(), 0.0, MOST_ALIKE)))


def covariance(surface: Surface) -> Array:
    """(m, m) of one simulation's summaries: correlations shrunk towards none by what their own sampling noise asks for."""
    share = surface.weights / surface.weights.sum()
    sd = np.sqrt(surface.variances)
    known = sd > 0
    z = surface.residuals / np.where(known, sd, 1.0)
    r = (z * share[:, None]).T @ z
    # Var(r_ij) = sum of squared weights x the weighted variance of z_i z_j.
    scatter = np.square(share).sum() * np.maximum((np.square(z) * share[:, None]).T @ np.square(z) - r**2, 0.0)
    off = ~np.eye(len(r), dtype=bool) & known & known[:, None]
    shrink = min(1.0, scatter[off].sum() / max(np.square(r[off]).sum(), 1e-12)) if off.any() else 0.0
    r = np.where(off, (1 - shrink) * r, 0.0) + np.eye(len(r))
    return r * sd * sd[:, None]


def _density(surface: Surface, rows: Rows, observed: Array, noise: Array | None, d: int) -> Callable[[Array], Array]:
    """(k, d) places -> (k,) log density, up to a constant."""
    inside = np.clip(observed, rows.summaries.min(axis=0), rows.summaries.max(axis=0))
    z = surface.scales.forward(np.where(surface.scales.kinds > 0, np.maximum(observed, 0), observed)[None])[0]
    # What all seeds have in common the surface takes for the mean: the residuals lack it.
    common = 0.0 if surface.alike is None else surface.alike.correlation * _share(surface)
    whole = covariance(surface) / (1 - common)
    if noise is not None:
        whole = whole + np.diag(np.square(noise * surface.scales.slope(inside)))
    # What never varies says nothing about parameters.
    told = np.diag(whole) > 1e-24
    whiten = np.linalg.inv(np.linalg.cholesky(whole[np.ix_(told, told)]))
    flat, goal = surface.coefficients[:, told] @ whiten.T, whiten @ z[told]
    p = int(told.sum())
    freedom = max(surface.size - terms(d), LEAST_FREEDOM)

    def squares(unit: Array) -> tuple[Array, Array]:
        more = 1 + surface.spread(unit)
        return np.square(features(unit) @ flat - goal).sum(axis=1) / more, more

    misfit = float(squares(rows.unit)[0].min()) / max(p - d, 1) if noise is None else 1.0
    # That C is an estimate raises the misfit as well, by f / (f - p - 1): to take that out narrows intervals by 2 % and changes
    # coverage in none of 70 worlds.
    scale = max(1.0, misfit)

    def density(unit: Array) -> Array:
        q, more = squares(unit)
        return -0.5 * (freedom + p) * np.log1p(q / scale / freedom) - 0.5 * p * np.log(more)

    return density


def _share(surface: Surface) -> float:
    """1 / (how many equally weighted seeds there are)."""
    by_seed = np.bincount(surface.alike.seeds, surface.weights) if surface.alike else surface.weights
    return float(np.square(by_seed).sum() / by_seed.sum() ** 2)


def sample(density: Callable[[Array], Array], centre: Array, unit: Array, draws: np.random.Generator) -> Array:
    """(k, d) draws inside the unit cube by stretch moves of an ensemble (Goodman and Weare 2010): ridges need no tuning."""
    d = len(centre)
    near = unit[draws.integers(len(unit), size=STARTS)] + draws.normal(0, 0.03, (STARTS, d))
    starts = np.clip(np.vstack([centre + draws.normal(0, 0.02, (STARTS, d)), near]), 1e-6, 1 - 1e-6)
    worth = density(starts)
    p = np.exp(worth - worth.max())
    chosen = draws.choice(len(starts), 2 * WALKERS, p=p / p.sum())
    walkers = np.clip(starts[chosen] + draws.normal(0, 1e-4, (2 * WALKERS, d)), 1e-6, 1 - 1e-6)
    worth = density(walkers)
    kept = []
    for step in range(STEPS):
        for mine, others in ((slice(0, WALKERS), slice(WALKERS, None)), (slice(WALKERS, None), slice(0, WALKERS))):
            stretch = (1 + (STRETCH - 1) * draws.random(WALKERS)) ** 2 / STRETCH
            partner = walkers[others][draws.integers(WALKERS, size=WALKERS)]
            tried = partner + stretch[:, None] * (walkers[mine] - partner)
            inside = ((tried > 0) & (tried < 1)).all(axis=1)
            told = np.where(inside, density(np.clip(tried, 0, 1)), -np.inf)
            goes = np.log(draws.random(WALKERS)) < (d - 1) * np.log(stretch) + told - worth[mine]
            walkers[mine] = np.where(goes[:, None], tried, walkers[mine])
            worth[mine] = np.where(goes, told, worth[mine])
        if step >= BURNT and step % APART == 0:
            kept.append(walkers.copy())
    return np.vstack(kept)
