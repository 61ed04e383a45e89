"""A simulator's summaries as functions of its parameters: a locally weighted quadratic for each transformed summary.

Parameters live in the unit cube (`to_unit`, `to_native`; log and logit dimensions are even there). Each summary is modelled on
the scale (as it is, square root, logarithm, arcsine) on which a quadratic with even noise fits it best: the profile likelihood
of Box and Cox (1964), with the Jacobian. Residuals are kept as rows, so that the noise of all summaries together is drawn by
drawing rows, and the uncertainty of the surface by flipping their signs (the wild bootstrap of Wu 1986): neither needs a
covariance, whatever the number of summaries.

Does not choose weights or points. See also: `emulator` (where to simulate next), `posterior` (intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]

RIDGE = 1e-4  # of the weights' sum: keeps a quadratic through few points from swinging
ROOM = 0.5  # of the observed range: how far beyond it a prediction may go, on the transformed scale
SCALES = ("same", "root", "log", "arcsine")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A continuous parameter: `float` is even between its bounds, `log` and `logit` are even on those scales."""

    name: str
    kind: Literal["float", "log", "logit"]
    low: float
    high: float

    def __post_init__(self) -> None:
        least, most = {"float": (-np.inf, np.inf), "log": (0.0, np.inf), "logit": (0.0, 1.0)}[self.kind]
        inside = least <= self.low < self.high <= most if self.kind == "float" else least < self.low < self.high < most
        if not inside or not np.isfinite([self.low, self.high]).all():
            raise WrongQuestion(
                f"Parameter {self.name!r} ({self.kind}) has bounds {self.low:g} .. {self.high:g}: the lower one must be below "
                f"the upper one, and both finite{'' if self.kind == 'float' else f' and strictly inside {least:g} .. {most:g}'}."
            )


def to_unit(dimensions: Sequence[Dimension], native: Any) -> Array:
    """(n, d) native values -> (n, d) places in the unit cube."""
    given = np.asarray(native, dtype=np.float64).reshape(-1, len(dimensions))
    ends = [_bent(d.kind, np.array([d.low, d.high])) for d in dimensions]
    columns = [
        (_bent(d.kind, np.clip(given[:, j], d.low, d.high)) - e[0]) / (e[1] - e[0])
        for j, (d, e) in enumerate(zip(dimensions, ends, strict=True))
    ]
    return np.stack(columns, axis=1)


def to_native(dimensions: Sequence[Dimension], unit: Array) -> Array:
    """(n, d) places in the unit cube -> (n, d) native values, never outside the bounds."""
    columns = []
    for j, d in enumerate(dimensions):
        low, high = _bent(d.kind, np.array([d.low, d.high]))
        at = low + (high - low) * unit[:, j]
        made = {"float": lambda x: x, "log": np.exp, "logit": lambda x: 1 / (1 + np.exp(-x))}[d.kind](at)
        columns.append(np.clip(made, d.low, d.high))
    return np.stack(columns, axis=1)


def _bent(kind: str, x: Array) -> Array:
    return x if kind == "float" else np.log(x) if kind == "log" else np.log(x / (1 - x))


def terms(dimensions: int) -> int:
    """How many a full quadratic has."""
    return (dimensions + 1) * (dimensions + 2) // 2


def features(unit: Array) -> Array:
    """(n, d) -> (n, terms): 1, x, and all products, centred on the cube's middle so that they are nearly orthogonal."""
    x = 2 * unit - 1
    d = x.shape[1]
    products = [x[:, i] * x[:, j] for i in range(d) for j in range(i, d)]
    return np.stack([np.ones(len(x)), *x.T, *products], axis=1)


@dataclass(frozen=True, slots=True)
class Scales:
    """Of each summary: the scale, its shift away from the end, and the range that predictions keep to, on that scale."""

    kinds: NDArray[np.int64]
    shifts: Array
    low: Array
    high: Array

    def forward(self, y: Array) -> Array:
        """(n, m) summaries -> (n, m) transformed."""
        z = np.array(y, dtype=np.float64)
        for kind in range(1, len(SCALES)):
            columns = self.kinds == kind
            z[:, columns] = _forward(kind, z[:, columns], self.shifts[columns])
        return z

    def back(self, z: Array) -> Array:
        z = np.clip(z, self.low, self.high)
        for kind in range(1, len(SCALES)):
            columns = self.kinds == kind
            z[..., columns] = _back(kind, z[..., columns], self.shifts[columns])
        return z

    def slope(self, y: Array) -> Array:
        """(m,) how fast the transformed summary moves with the summary, at y (m,)."""
        y = np.asarray(y, dtype=np.float64)
        found = np.ones(len(y))
        for kind in range(1, len(SCALES)):
            columns = self.kinds == kind
            found[columns] = np.exp(_log_slope(kind, y[None, columns], self.shifts[columns]))[0]
        return found


def _forward(kind: int, y: Array, shift: Array) -> Array:
    if kind == 3:
        return np.arcsin(np.sqrt(np.clip(shift + (1 - 2 * shift) * y, 0, 1)))
    inside = np.maximum(y, 0) + shift
    return np.sqrt(inside) if kind == 1 else np.log(inside)


def _back(kind: int, z: Array, shift: Array) -> Array:
    if kind == 3:
        return np.clip((np.sin(np.clip(z, 0, np.pi / 2)) ** 2 - shift) / (1 - 2 * shift), 0, 1)
    return np.maximum((np.maximum(z, 0) ** 2 if kind == 1 else np.exp(z)) - shift, 0)


def _log_slope(kind: int, y: Array, shift: Array) -> Array:
    if kind == 3:
        inside = np.clip(shift + (1 - 2 * shift) * y, 1e-12, 1 - 1e-12)
        return np.log1p(-2 * shift) - np.log(2) - (np.log(inside) + np.log1p(-inside)) / 2
    inside = np.maximum(y, 0) + shift
    return -np.log(2) - np.log(inside) / 2 if kind == 1 else -np.log(inside)


@dataclass(frozen=True, slots=True)
class Likeness:
    """Which simulations shared a seed, (n,) numbers from 0, and how alike that made their noise: a correlation."""

    seeds: NDArray[np.int64]
    correlation: float

    def sums(self, rows: Array) -> Array:
        """(n, c) -> (seeds, c): rows of a seed added up."""
        found = np.zeros((int(self.seeds.max()) + 1, rows.shape[1]))
        np.add.at(found, self.seeds, rows)
        return found

    def solved(self, rows: Array) -> Array:
        """The inverse of the noise's correlations times rows (n, c)."""
        own = 1 - self.correlation
        counts = np.bincount(self.seeds)
        shared = (self.correlation / (own + self.correlation * counts))[:, None] * self.sums(rows)
        return (rows - shared[self.seeds]) / own


@dataclass(frozen=True, slots=True)
class Surface:
    """A fit of n simulations: coefficients (terms, m), residuals (n, m) on the transformed scale blown up to the noise that they
    estimate, and the weights (n,)."""

    scales: Scales
    coefficients: Array
    lifts: Array  # (terms, n): what each simulation's residual adds to the coefficients
    uncertainty: Array  # (terms, terms): covariance of the coefficients, in units of the noise of one simulation
    residuals: Array
    weights: Array
    alike: Likeness | None = None

    def mean(self, unit: Array) -> Array:
        """(k, m) on the transformed scale."""
        return features(unit) @ self.coefficients

    def spread(self, unit: Array) -> Array:
        """(k,) variance of the surface, in units of the noise of one simulation."""
        f = features(unit)
        return ((f @ self.uncertainty) * f).sum(axis=1)

    def redrawn(self, signs: Array) -> Array:
        """(terms, m): coefficients as they might as well have come out. signs: (n,), of mean 0 and variance 1."""
        return self.coefficients + self.lifts @ (self.residuals * signs[:, None])

    @property
    def size(self) -> float:
        """How many equally weighted simulations the weights amount to (Kish 1965)."""
        return float(self.weights.sum() ** 2 / np.square(self.weights).sum())

    @property
    def variances(self) -> Array:
        """(m,) of one simulation's transformed summaries."""
        return (self.weights / self.weights.sum()) @ np.square(self.residuals)


def fit(
    unit: Array, summaries: Array, weights: Array, scales: Scales | None = None, alike: Likeness | None = None
) -> Surface:
    """The surface through (n, d) places and (n, m) summaries, weights (n,) > 0; scales are chosen when they are not given.
    Generalised least squares when simulations that shared a seed are `alike`."""
    scales = choose(unit, summaries, weights) if scales is None else scales
    z = scales.forward(summaries)
    f = features(unit)
    lifts = _lifts(f, weights, alike)
    coefficients = lifts @ z
    size = weights.sum() ** 2 / np.square(weights).sum()
    left = max(size - f.shape[1], 2.0)
    residuals = (z - f @ coefficients) * np.sqrt(size / left)
    uncertainty = lifts @ lifts.T
    if alike is not None:
        together = alike.sums(lifts.T)
        uncertainty = (1 - alike.correlation) * uncertainty + alike.correlation * together.T @ together
    return Surface(scales, coefficients, lifts, uncertainty, residuals, weights, alike)


def _lifts(f: Array, weights: Array, alike: Likeness | None = None) -> Array:
    root = np.sqrt(weights)[:, None]
    solved = f * root if alike is None else alike.solved(f * root)
    ridge = RIDGE * weights.sum() * np.eye(f.shape[1])
    ridge[0, 0] = 0.0
    return np.linalg.solve((f * root).T @ solved + ridge, (solved * root).T)


def choose(unit: Array, summaries: Array, weights: Array) -> Scales:
    """The scale of each summary, by profile likelihood of the weighted quadratic."""
    y = np.asarray(summaries, dtype=np.float64)
    f, w = features(unit), weights / weights.sum()
    lifts = _lifts(f, weights)
    positive = np.where(y > 0, y, np.inf).min(axis=0)
    # Where zeros were seen, half of the smallest other value stands between them and the first count.
    shift = np.where(np.isfinite(positive), positive * np.where((y == 0).any(axis=0), 0.5, 1e-3), 0.5)
    shift = np.maximum(shift, 1e-9 * np.abs(y).max(axis=0))
    allowed = [np.ones(y.shape[1], bool), *[(y >= 0).all(axis=0) & (np.ptp(y, axis=0) > 0)] * 2]
    allowed.append(allowed[1] & (y <= 1).all(axis=0))
    shifts = [shift * 0, shift, shift, np.minimum(shift, 0.05)]
    found = np.full((len(SCALES), y.shape[1]), -np.inf)
    for kind, (may, its) in enumerate(zip(allowed, shifts, strict=True)):
        z = y[:, may] if kind == 0 else _forward(kind, y[:, may], its[may])
        error = w @ (z - f @ (lifts @ z)) ** 2
        jacobian = 0.0 if kind == 0 else w @ _log_slope(kind, y[:, may], its[may])
        found[kind, may] = jacobian - np.log(np.maximum(error, 1e-300)) / 2
    kinds = found.argmax(axis=0)
    taken = np.array(shifts)[kinds, np.arange(y.shape[1])]
    bare = Scales(kinds, taken, np.full(y.shape[1], -np.inf), np.full(y.shape[1], np.inf))
    z = bare.forward(y)
    low, high = z.min(axis=0), z.max(axis=0)
    return Scales(kinds, taken, low - ROOM * (high - low), high + ROOM * (high - low))


def nearness(distance: Array, dimensions: int, inside: float) -> Array:
    """(n,) weights of simulations by a distance >= 0 from what matters: a bell whose width leaves a share `inside` of the
    places, and never fewer than twice a quadratic's terms."""
    places = np.unique(distance)
    width = places[min(len(places) - 1, max(2 * terms(dimensions) + 4, int(len(places) * inside)))]
    return np.exp(-0.5 * (distance / (width or 1.0)) ** 2) + 1e-3
