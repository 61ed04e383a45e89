"""Seeded worlds with a known effect, and everything that the rules want to know of them, by plain linear algebra.

An oracle beside the kernels: least squares by normal equations on really drawn counts; nothing of it is shared with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute import blocks, overlap, rules, sensitivity
from millrace.analyses.refute.study import Fit

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    treatment: Array
    outcome: Array
    confounders: Array
    control: Array


def world(
    seed: int, n: int = 500, p: int = 5, *, effect: float = 0.5, hidden: float = 0.0, uneven: bool | None = None,
    drift: float = 0.0, strength: float = 0.4,
) -> World:  # fmt: skip
    """hidden: how strongly something that is not measured moves treatment, outcome and negative control. uneven: errors
    grow with the treatment (every second seed when not given). drift: of the effect from the first row to the last."""
    rng = np.random.default_rng(seed)
    w, u = rng.normal(size=(n, p)), rng.normal(size=n)
    t = w @ np.full(p, strength) + hidden * u + rng.normal(size=n)
    uneven = bool(seed % 2) if uneven is None else uneven
    noise = rng.normal(size=n) * (np.sqrt(1 + 0.5 * t**2) if uneven else 1.0)
    own = effect + drift * (np.arange(n) / n - 0.5)
    y = own * t + w @ np.full(p, 0.5) + hidden * u + noise
    return World(t, y, w, w @ np.full(p, 0.3) + hidden * u + rng.normal(size=n))


def fit(t: Array, y: Array, w: Array) -> Fit:
    n, k = len(t), w.shape[1] + 2
    x = np.column_stack([np.ones(n), t, w])
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ (x.T @ y)
    residual = y - x @ b
    classic = float(np.sqrt(residual @ residual / (n - k) * inverse[1, 1]))
    return Fit(float(b[1]), blocks.least_squares(t, y, w)[1], classic, n - k, "HC3", {})


def weighted(t: Array, y: Array, w: Array, counts: Array) -> Array:
    """(B,) effects with the counts (B, n) as weights."""
    x = np.column_stack([np.ones(len(t)), t, w])
    k = x.shape[1]
    pairs = (x[:, :, None] * np.column_stack([x, y])[:, None, :]).reshape(len(t), -1)
    grams = (counts @ pairs).reshape(len(counts), k, k + 1)
    return np.linalg.solve(grams[:, :, :k], grams[:, :, k:])[:, 1, 0]


def drawn(seed: int, n: int, b: int, fraction: float | None = None) -> Array:
    rng = np.random.default_rng([seed, 7])
    if fraction is None:
        return rng.multinomial(n, np.full(n, 1 / n), size=b).astype(float)
    return (np.argsort(rng.random((b, n)), axis=1).argsort(axis=1) < round(fraction * n)).astype(float)


def permuted(seed: int, t: Array, y: Array, w: Array, b: int, constant: bool = True) -> tuple[Array, Array]:
    """Effects and classical errors of shuffled treatments; without the constant the estimator is wrong."""
    n = len(t)
    z = np.column_stack([np.ones(n), w]) if constant else w
    q = np.linalg.qr(z)[0]
    shuffled = np.random.default_rng([seed, 8]).permuted(np.tile(t, (b, 1)), axis=1)
    left, y_left = shuffled - (shuffled @ q) @ q.T, y - q @ (q.T @ y)
    square = (left**2).sum(axis=1)
    effects = left @ y_left / square
    variance = (y_left @ y_left - effects**2 * square) / (n - z.shape[1] - 1)
    return effects, np.sqrt(variance / square)


def with_noise(seed: int, t: Array, y: Array, w: Array, b: int) -> Array:
    """Effects with one more column of noise: two regressors, by hand, on what the confounders leave of all three."""
    q = np.linalg.qr(np.column_stack([np.ones(len(t)), w]))[0]
    noise = np.random.default_rng([seed, 9]).normal(size=(b, len(t)))
    u, t, y = noise - (noise @ q) @ q.T, t - q @ (q.T @ t), y - q @ (q.T @ y)
    uu, ut, uy = (u * u).sum(axis=1), u @ t, u @ y
    return (uu * (t @ y) - ut * uy) / (uu * (t @ t) - ut**2)


def all_results(
    its: World, seed: int, b: int = 200, thresholds: rules.Thresholds = rules.DEFAULTS, *, noise: bool = True
) -> list[rules.TestResult]:
    """Every test of one world, as an analysis would run them."""
    t, y, w = its.treatment, its.outcome, its.confounders
    n, p = w.shape
    found = fit(t, y, w)
    counts = drawn(seed, n, b)
    effects = weighted(t, y, w, counts)
    # Another right answer, which differs by more than rounding: rows count by a confounder.
    by = np.exp(0.5 * w[:, 0])
    other = replace(
        found, effect=float(weighted(t, y, w, by[None, :])[0]), se=blocks.least_squares(t, y, w, weights=by)[1]
    )
    joint = np.column_stack([effects, weighted(t, y, w, counts * by)])
    cut = blocks.cut(n)
    parts = [blocks.least_squares(t[cut.codes == k], y[cut.codes == k], w[cut.codes == k]) for k in range(5)]
    z = np.column_stack([w, t, y]) - np.column_stack([w, t, y]).mean(axis=0)
    with_t, with_y = sensitivity.partial_r2_of_all(z.T @ z, n)
    shares = {f"w{j}": (float(with_t[j]), float(with_y[j])) for j in range(p)}
    measured = sensitivity.measure(found.effect, found.se_classic, found.df, shares)
    e = sensitivity.e_value_of_effect(found.effect, found.se, float(y.std(ddof=1)), float(t.std(ddof=1)))
    balance = overlap.measure(w, t - fitted(t, w), [f"w{j}" for j in range(p)], binary=False)
    results = [
        rules.placebo(*permuted(seed, t, y, w, b), found, thresholds),
        rules.subset(weighted(t, y, w, drawn(seed, n, b, 0.8)), found, 0.8, thresholds),
        rules.bootstrap(effects, found, thresholds),
        rules.blocks(blocks.gather(cut, parts), found, thresholds),
        rules.negative_control({"control": fit(t, its.control, w)}, found, thresholds),
        rules.overlap(balance, found, thresholds),
        rules.sensitivity(measured, found, thresholds, e=e),
        rules.estimators(found, {"reweighted": other}, {"reweighted": joint}, thresholds),
        rules.e_value(e, found, thresholds),
    ]
    if noise:
        law = found.se_classic / np.sqrt(found.df)
        results.append(rules.random_common_cause(with_noise(seed, t, y, w, b), found, thresholds, law_sd=law))
    return results


def fitted(t: Array, w: Array) -> Array:
    z = np.column_stack([np.ones(len(t)), w])
    return z @ np.linalg.lstsq(z, t, rcond=None)[0]
