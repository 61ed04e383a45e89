"""Tails and points of the laws that verdicts use. By scipy.special: importing scipy.stats costs as much as a small question.

See also: `verdicts` and `rules`, which use them.
"""

from __future__ import annotations


def normal_above(z: float) -> float:
    """P(Z > z) of a standard normal Z."""
    from scipy import special

    return float(special.ndtr(-z))


def normal_point(p: float) -> float:
    """z with P(Z <= z) = p."""
    from scipy import special

    return float(special.ndtri(p))


def student_above(t: float, df: float) -> float:
    """P(T > t) of Student's T with df degrees of freedom."""
    from scipy import special

    return float(special.stdtr(df, -t))


def student_point(p: float, df: float) -> float:
    """t with P(T <= t) = p."""
    from scipy import special

    return float(special.stdtrit(df, p))


def beta_point(p: float, a: float, b: float) -> float:
    """x with P(X <= x) = p of X ~ Beta(a, b)."""
    from scipy import special

    return float(special.betaincinv(a, b, p))


def chi2_above(x: float, df: float) -> float:
    """P(X > x) of chi-squared X with df degrees of freedom."""
    from scipy import special

    return float(special.chdtrc(df, x))
