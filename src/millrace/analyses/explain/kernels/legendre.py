"""Gauss-Legendre rules on [0, 1], correctly rounded: the same bits on every host.

numpy's `leggauss` goes through LAPACK, whose last bits move with the processor; a rule that differs by one bit
moves every SHAP value and so the digest of an answer. Newton's iteration in 40-digit decimals costs a few
milliseconds for all rules up to 20 points. Does not integrate anything itself (see `quadrature`, `tables`).
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from math import cos, pi

_DIGITS = 40


def legendre_rule(points: int) -> tuple[list[float], list[float], list[float]]:
    """(t, 1 - t, weight) of the rule that integrates polynomials of degree 2 points - 1 over [0, 1] exactly."""
    near, weight = [], []
    with localcontext() as context:
        context.prec = _DIGITS
        for k in range((points + 1) // 2):
            root, slope = _root(points, Decimal(cos(pi * (k + 0.75) / (points + 0.5))))
            near.append((1 - root) / 2)
            weight.append(1 / ((1 - root * root) * slope * slope))
        mirror = slice(points // 2)
        at = near + [1 - t for t in near[mirror][::-1]]
        weights = weight + weight[mirror][::-1]
        return [float(t) for t in at], [float(1 - t) for t in at], [float(w) for w in weights]


def _root(n: int, x: Decimal) -> tuple[Decimal, Decimal]:
    """The root of the Legendre polynomial P_n next to x, and the slope of P_n there."""
    # The cosine is good to 1e-2; each step doubles the digits, so ten are more than enough for 40.
    for _ in range(10):
        below, here = Decimal(1), x
        for k in range(2, n + 1):
            below, here = here, ((2 * k - 1) * x * here - (k - 1) * below) / k
        slope = n * (x * here - below) / (x * x - 1)
        step = here / slope
        x -= step
        if abs(step) < Decimal(10) ** (4 - _DIGITS):
            break
    return x, slope
