"""How far simulated values are from observed ones: the built-in losses, each 0 at a perfect fit and never below.

    squared        mean of (y - s)^2
    absolute       mean of |y - s|
    normal         mean of ((y - s) / sd)^2 / 2
    poisson        mean of the half deviance y log(y / s) - (y - s); a rate below .1 counts as .1
    binomial       mean of n [q log(q / p) + (1 - q) log((1 - q) / (1 - p))], q observed of n, p simulated
                   (both kept 1 / (2 n) off 0 and 1)
    beta-binomial  the same with p unknown but for s of N people: p ~ Beta(N s + 1, N (1 - s) + 1), against its own maximum

A likelihood enters as its distance from the saturated model (McCullagh and Nelder, Generalized Linear Models, 2nd ed., 2.3):
the constant changes no optimum, and without it the loss is positive, which the early stop of replicates needs. A simulated
count of 0 is a draw and not a rate of 0; an infinite loss would say so.

Every function takes simulated values (..., n) and observed ones (n,), and gives losses (...,): of one simulation or of many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST_RATE = 0.1


def squared(simulated: Array, observed: Array) -> Any:
    return np.mean((observed - simulated) ** 2, axis=-1)


def absolute(simulated: Array, observed: Array) -> Any:
    return np.mean(np.abs(observed - simulated), axis=-1)


def normal(simulated: Array, observed: Array, sd: Array | float) -> Any:
    """sd: standard deviation of an observation, (n,) or one for all."""
    return np.mean(((observed - simulated) / sd) ** 2, axis=-1) / 2


def poisson(simulated: Array, observed: Array) -> Any:
    """observed: counts; simulated: rates."""
    rate = np.maximum(simulated, LEAST_RATE)  # NaN stays NaN
    ratio = np.where(observed > 0, np.maximum(observed, 1e-300) / rate, 1.0)
    return _floor(np.mean(observed * np.log(ratio) - (observed - rate), axis=-1))


def binomial(simulated: Array, observed: Array, of: Array | float) -> Any:
    """simulated, observed: shares; of: trials behind an observed share, (n,) or one for all."""
    edge = 0.5 / np.asarray(of, np.float64)
    p = np.clip(simulated, edge, 1 - edge)
    q = np.clip(observed, edge, 1 - edge)
    return _floor(np.mean(of * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))), axis=-1))


def beta_binomial(simulated: Array, observed: Array, of: Array | float, simulated_of: Array | float) -> Any:
    """As `binomial`, where the simulated share is itself `simulated_of` people's, (n,) or one for all."""
    n = np.asarray(of, np.float64)
    k, people = np.round(n * observed), np.asarray(simulated_of, np.float64)
    # The likelihood has its mode at a = mean share: s = (k/n (N + 2) - 1) / N, where N is large enough for it to lie inside.
    mode = np.clip((k / n * (people + 2) - 1) / people, 0.0, 1.0)
    best = np.maximum.reduce([_betabinomial(n, k, people, share) for share in (mode, k / n)])
    return _floor(np.mean(np.maximum(best - _betabinomial(n, k, people, np.clip(simulated, 0, 1)), 0.0), axis=-1))


def _betabinomial(n: Any, k: Any, people: Any, share: Any) -> Any:
    """log P(k of n) when p ~ Beta(people share + 1, people (1 - share) + 1), without the binomial coefficient."""
    from scipy.special import betaln

    a, b = people * share + 1, people * (1 - share) + 1
    return betaln(k + a, n - k + b) - betaln(a, b)


def _floor(loss: Any) -> Any:
    """Rounding may leave -1e-17 where 0 is meant; what is not a number stays so."""
    return np.where(loss < 0, 0.0, loss)
