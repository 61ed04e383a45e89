"""How many a real experiment needs, how surely it would see an effect, and how long it would take.

Two samples with variances of their own (Welch 1938), so that t is asked with Satterthwaite's degrees of freedom; those who drop
out are made up for. Pure arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from millrace.run.errors import WrongQuestion

MOST = 10**9
"""Units of a sample: beyond, no experiment sees the effect."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """n_treated, n_control: to be enrolled, those who drop out included. power: the chance that an effect of `effect` is seen at
    `alpha`, two-sided. days: from the first enrolment to the last result, None when nobody asked."""

    effect: float
    alpha: float
    power: float
    n_treated: int
    n_control: int
    days: float | None = None

    @property
    def n(self) -> int:
        return self.n_treated + self.n_control


def power(
    effect: float, n_treated: float, n_control: float, sd_treated: float, sd_control: float, alpha: float = 0.05
) -> float:
    """The chance that a two-sided Welch test at `alpha` sees a difference of `effect`; by the noncentral t law."""
    from scipy import stats

    _check(sd_treated, sd_control, alpha)
    if n_treated < 2 or n_control < 2:
        return 0.0
    a, b = sd_treated**2 / n_treated, sd_control**2 / n_control
    se = math.sqrt(a + b)
    df = (a + b) ** 2 / (a**2 / (n_treated - 1) + b**2 / (n_control - 1))
    shift, point = abs(effect) / se, float(stats.t.ppf(1 - alpha / 2, df))
    if shift > 35:  # the noncentral law is 1 there, and scipy's is not always a number
        return 1.0
    found = float(stats.nct.sf(point, df, shift) + stats.nct.cdf(-point, df, shift))
    if math.isfinite(found):
        return min(1.0, max(0.0, found))
    return float(stats.norm.sf(point - shift) + stats.norm.cdf(-point - shift))


def sample_size(
    effect: float,
    sd_treated: float,
    sd_control: float,
    *,
    alpha: float = 0.05,
    wanted: float = 0.8,
    ratio: float = 1.0,
    attrition: float = 0.0,
) -> Experiment | None:
    """The smallest experiment whose power is `wanted`. ratio: control units for each treated one. attrition: the share that drops
    out of either arm. None when an effect of 0 (or nearly) could be seen by no sample."""
    _check(sd_treated, sd_control, alpha)
    if not 0 < wanted < 1 or not ratio > 0 or not 0 <= attrition < 1:
        raise WrongQuestion(
            f"Power {wanted}, ratio {ratio} and attrition {attrition}: power and attrition lie in 0 to 1, ratio above 0."
        )

    def enough(n: int) -> bool:
        return power(effect, n, max(2, math.ceil(ratio * n)), sd_treated, sd_control, alpha) >= wanted

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    staying = max(2, math.ceil(ratio * high))
    reached = power(effect, high, staying, sd_treated, sd_control, alpha)
    return Experiment(effect, alpha, reached, math.ceil(high / (1 - attrition)), math.ceil(staying / (1 - attrition)))


def duration_days(n: int, duration: float, starts_per_day: float | None) -> float:
    """From the first enrolment to the last result: `duration` after the last one has started."""
    return duration if starts_per_day is None else (math.ceil(n / starts_per_day) - 1) + duration


def _check(sd_treated: float, sd_control: float, alpha: float) -> None:
    if not (sd_treated > 0 and sd_control > 0) or not 0 < alpha < 1:
        raise WrongQuestion(
            f"Standard deviations {sd_treated} and {sd_control} and alpha {alpha}: both are above 0, and alpha between 0 and 1."
        )
