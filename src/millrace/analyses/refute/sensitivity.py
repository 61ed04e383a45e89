"""How strong a hidden confounder would have to be: closed forms from an estimate, its error and the Gram matrix.

Cinelli and Hazlett, Making sense of sensitivity, JRSS-B 82 (2020): partial R2, robustness values, bounds benchmarked on
observed confounders, contours, tipping points. VanderWeele and Ding, Annals of Internal Medicine 167 (2017): E-values.
No pass over the data: a Gram matrix at most. Bounds for matched pairs are in `rosenbaum`; verdicts in `rules`.

Throughout: t and se are the classical ones of least squares with `df` degrees of freedom (the formulas are identities in
the residual variances, which robust errors do not know); r2_treatment is R2 of treatment ~ hidden | confounders,
r2_outcome is R2 of outcome ~ hidden | treatment, confounders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.laws import student_point
from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]
TINY = 1e-12
"""A share of this size is rounding."""


def critical(df: float, alpha: float = 0.05) -> float:
    """The two-sided critical value of Student's t."""
    return student_point(1 - alpha / 2, df)


# -- Cinelli and Hazlett -------------------------------------------------------------------------------------------
def partial_r2(t: float | Array, df: float) -> Any:
    """Share of the residual variance that a coefficient explains: t^2 / (t^2 + df)."""
    return t * t / (t * t + df)


def robustness_value(t: float, df: float, q: float = 1.0, alpha: float | None = None) -> float:
    """RV_q, or RV_(q, alpha): the least R2 with both treatment and outcome that lowers the estimate by the share q
    (with alpha: so far that its 1 - alpha interval reaches that point).

    f = q |t| / sqrt(df), less t*_(df - 1) / sqrt(df - 1) with alpha; RV = (sqrt(f^4 + 4 f^2) - f^2) / 2, and 0 where
    nothing is left of f. Where f_q > 1 / f_critical an equal share in both is not the weakest confounder that does it:
    (f_q^2 - f_critical^2) / (1 + f_q^2).
    """
    whole = q * abs(t) / np.sqrt(df)
    least = critical(df - 1, alpha) / np.sqrt(df - 1) if alpha is not None else 0.0
    f = whole - least
    if f <= 0:
        return 0.0
    if least > 0 and whole > 1 / least:
        return float((whole**2 - least**2) / (1 + whole**2))
    return equal_strength(f * f)


def equal_strength(product: float) -> float:
    """The share x with x^2 / (1 - x) = product: a confounder with R2 of x on both sides does what one with
    r2_outcome * r2_treatment / (1 - r2_treatment) = product does."""
    if product > 1e12:  # the difference below would round to 0; its limit is 1 - 1 / product
        return 1.0
    return float((np.sqrt(product * product + 4 * product) - product) / 2)


def strength(r2_treatment: float, r2_outcome: float) -> float:
    """One figure for a confounder's two shares, on the scale of the robustness value: RV_q >= strength exactly when
    a hidden confounder with these two shares does not lower the estimate by the share q."""
    if r2_treatment >= 1:
        return 1.0
    return equal_strength(r2_outcome * r2_treatment / (1 - r2_treatment))


def bias(se: Any, df: float, r2_treatment: Any, r2_outcome: Any) -> Any:
    """|what leaving out such a confounder adds to the estimate|: se sqrt(df) sqrt(r2_outcome r2_t / (1 - r2_t))."""
    return se * np.sqrt(df * r2_outcome * r2_treatment / (1 - np.asarray(r2_treatment)))


def adjusted_estimate(effect: float, se: float, df: float, r2_treatment: Any, r2_outcome: Any) -> Any:
    """The estimate had such a confounder, working towards 0, been adjusted for; it may pass 0."""
    return np.sign(effect) * (abs(effect) - bias(se, df, r2_treatment, r2_outcome))


def adjusted_se(se: float, df: float, r2_treatment: Any, r2_outcome: Any) -> Any:
    """Its standard error: se sqrt((1 - r2_outcome) / (1 - r2_treatment)) sqrt(df / (df - 1))."""
    return se * np.sqrt((1 - np.asarray(r2_outcome)) / (1 - np.asarray(r2_treatment)) * df / (df - 1))


def benchmark_bound(r2_treatment: float, r2_outcome: float, kd: float = 1.0, ky: float = 1.0) -> tuple[float, float]:
    """The shares of a hidden confounder kd and ky times as strong as an observed one with these partial R2.

    Cinelli and Hazlett, section 4.4. (NaN, NaN) where no confounder can be that strong; r2_outcome is at most 1.
    """
    if not r2_treatment < 1 or not r2_outcome < 1:
        return float("nan"), float("nan")
    hidden = kd * r2_treatment / (1 - r2_treatment)
    if hidden >= 1 or kd * r2_treatment >= 1:
        return float("nan"), float("nan")
    between = kd * r2_treatment**2 / ((1 - kd * r2_treatment) * (1 - r2_treatment))
    if between >= 1:
        return float("nan"), float("nan")
    eta = (np.sqrt(ky) + np.sqrt(between)) / np.sqrt(1 - between)
    return float(hidden), float(min(1.0, eta**2 * r2_outcome / (1 - r2_outcome)))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A hidden confounder `kd` and `ky` times as strong as the observed `name`, and the estimate adjusted for it.

    r2_treatment, r2_outcome: of the observed one; bound_treatment, bound_outcome: of the hidden one; NaN (and so all
    that follows from them) where no confounder can be that strong.
    """

    name: str
    kd: float
    ky: float
    r2_treatment: float
    r2_outcome: float
    bound_treatment: float
    bound_outcome: float
    estimate: float
    se: float
    t: float
    low: float
    high: float


def benchmark(
    name: str, shares: tuple[float, float], effect: float, se: float, df: float, k: float = 1.0, ky: float | None = None,
    alpha: float = 0.05,
) -> Benchmark:  # fmt: skip
    """shares: partial R2 of the observed confounder with treatment and outcome (see `partial_r2_of_all`)."""
    ky = k if ky is None else ky
    with_treatment, with_outcome = benchmark_bound(*shares, k, ky)
    estimate = float(adjusted_estimate(effect, se, df, with_treatment, with_outcome))
    error = float(adjusted_se(se, df, with_treatment, with_outcome))
    t = estimate / error if error else float("nan")
    reach = critical(df - 1, alpha) * error
    return Benchmark(
        name, k, ky, *shares, with_treatment, with_outcome, estimate, error, t, estimate - reach, estimate + reach
    )


def tipping_multiple(
    shares: tuple[float, float], effect: float, se: float, df: float, alpha: float | None = None
) -> float | None:
    """How many times as strong as the observed confounder a hidden one must be to bring the estimate to 0 (with alpha:
    to bring 0 into its interval). None: one that strong is not possible, or the observed one is no confounder."""
    a, b = shares
    if not (TINY < a < 1 and TINY < b < 1):
        return None
    if alpha is not None and abs(effect) <= critical(df, alpha) * se:
        return 0.0

    def left(k: float) -> float:
        hidden, outcome = benchmark_bound(a, b, k, k)
        estimate = abs(effect) - float(bias(se, df, hidden, outcome))
        return estimate - (critical(df - 1, alpha) * float(adjusted_se(se, df, hidden, outcome)) if alpha else 0.0)

    most = (1 - a) / a * (1 - 1e-9)  # beyond it a hidden confounder would explain more than all of the treatment
    if not left(most) <= 0:
        return None
    low, high = 0.0, most
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > 0 else (low, middle)
    return high


def partial_r2_of_all(gram: Array, rows: int, groups: Sequence[Sequence[int]] | None = None) -> tuple[Array, Array]:
    """Partial R2 of every observed confounder with the treatment (given the others) and with the outcome (given the
    treatment and the others), from one matrix.

    gram: (p + 2, p + 2) cross products of the centred confounders, treatment, outcome, in that order (weighted: with the
    weights). groups: columns that stand for one confounder (a category's dummies); each column by itself when not given.
    Of a group: 1 - RSS / RSS without it = c / (1 + c), c = b' V^-1 b / RSS, V the group's part of the inverse Gram.
    """
    p = len(gram) - 2
    if rows < p + 3:
        raise WrongQuestion(f"{rows} rows are too few for benchmarks of {p} confounders: at least {p + 3} are needed.")
    groups = [[j] for j in range(p)] if groups is None else groups
    with_treatment = _shares_of(gram[:p, :p], gram[:p, p], gram[p, p], groups)
    with_outcome = _shares_of(gram[: p + 1, : p + 1], gram[: p + 1, p + 1], gram[p + 1, p + 1], groups)
    return with_treatment, with_outcome


def _shares_of(gram: Array, cross: Array, square: float, groups: Sequence[Sequence[int]]) -> Array:
    if not len(gram):
        return np.zeros(0)
    scale = np.sqrt(np.diag(gram))
    if not np.all(scale > 0):
        raise WrongQuestion("A confounder does not vary: leave it out before the sensitivity is asked for.")
    scaled = gram / np.outer(scale, scale)
    if np.linalg.eigvalsh(scaled)[0] < 1e-12:
        raise WrongQuestion("The confounders (with the treatment) are collinear: drop the columns that others make up.")
    inverse = np.linalg.inv(scaled)
    target = cross / scale
    b = inverse @ target
    left = max(float(square - target @ b), 1e-12 * float(square))
    found = np.empty(len(groups))
    for g, columns in enumerate(groups):
        at = np.asarray(columns, dtype=np.intp)
        ratio = float(b[at] @ np.linalg.solve(inverse[np.ix_(at, at)], b[at])) / left
        found[g] = ratio / (1 + ratio)
    return found


# -- contours and tipping points ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Contours:
    """r2_treatment (columns,), r2_outcome (rows,), and over them (rows, columns): adjusted estimate, t, interval's ends."""

    r2_treatment: Array
    r2_outcome: Array
    estimate: Array
    t: Array
    low: Array
    high: Array


def contours(
    effect: float, se: float, df: float, *, most: tuple[float, float] = (0.4, 0.4), size: int = 61, alpha: float = 0.05
) -> Contours:
    """The adjusted estimate over a grid from 0 to `most` (treatment, outcome)."""
    x, y = np.linspace(0, min(most[0], 0.999), size), np.linspace(0, min(most[1], 0.999), size)
    estimate = adjusted_estimate(effect, se, df, x[None, :], y[:, None])
    error = adjusted_se(se, df, x[None, :], y[:, None])
    reach = critical(df - 1, alpha) * error
    return Contours(x, y, estimate, estimate / error, estimate - reach, estimate + reach)


def tipping_line(
    r2_treatment: Array, effect: float, se: float, df: float, *, to: float = 0.0, alpha: float | None = None
) -> Array:
    """For every r2_treatment the r2_outcome that brings the estimate to `to`; NaN where more than 1 would be needed.

    With alpha: at which the interval first reaches 0 (`to` must be 0). With s = sqrt(r2_outcome) = sin(u) the condition
    |t| sqrt(1 - a) = sqrt(df a) sin(u) + c cos(u), c = t*_(df - 1) sqrt(df / (df - 1)), is solved in closed form.
    """
    a = np.asarray(r2_treatment, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if alpha is None:
            needed = (abs(effect) - np.sign(effect) * to) ** 2 / (se * se * df) * (1 - a) / a
            return np.where(needed <= 1, needed, np.nan)
        if to:
            raise WrongQuestion("A line of lost significance is about 0: `to` and `alpha` do not go together.")
        c = critical(df - 1, alpha) * np.sqrt(df / (df - 1))
        left, reach = abs(effect) / se * np.sqrt(1 - a), np.hypot(np.sqrt(df * a), c)
        angle = np.arcsin(left / reach) - np.arctan2(c, np.sqrt(df * a))
        needed = np.where(left <= c, 0.0, np.sin(angle) ** 2)
        return np.where((left <= reach) & (angle <= np.pi / 2) | (left <= c), needed, np.nan)


@dataclass(frozen=True, slots=True)
class TippingCurve:
    """(m,) each: R2 of a hidden confounder with treatment and outcome alike; the estimate adjusted for it; its interval.
    tips, tips_alpha: where the estimate is 0, and where its interval first holds 0 (0: it does already)."""

    strength: Array
    estimate: Array
    low: Array
    high: Array
    tips: float
    tips_alpha: float


def tipping_curve(
    effect: float, se: float, df: float, *, most: float | None = None, size: int = 101, alpha: float = 0.05
) -> TippingCurve:
    tips, tips_alpha = robustness_value(effect / se, df), robustness_value(effect / se, df, alpha=alpha)
    end = min(0.95, 1.6 * tips + 0.02) if most is None else most
    x = np.linspace(0, end, size)
    estimate = adjusted_estimate(effect, se, df, x, x)
    reach = critical(df - 1, alpha) * adjusted_se(se, df, x, x)
    return TippingCurve(x, estimate, estimate - reach, estimate + reach, tips, tips_alpha)


# -- E-values ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class EValue:
    """The risk ratio that a hidden confounder needs with both treatment and outcome to explain away `ratio` (point), and
    to bring 1 into its interval (limit; 1 where it holds 1 already, None without an interval). Ratios below 1 inverted."""

    point: float
    limit: float | None
    ratio: float
    low: float | None
    high: float | None
    how: str


def e_value(ratio: float, low: float | None = None, high: float | None = None, how: str = "risk ratio") -> EValue:
    """E = RR + sqrt(RR (RR - 1)), RR >= 1 (VanderWeele and Ding, 2017)."""
    if not ratio > 0:
        raise WrongQuestion(f"An E-value needs a positive ratio, not {ratio!r}.")
    limit = None
    if low is not None and high is not None:
        limit = 1.0 if low <= 1 <= high else _e(low if ratio > 1 else high)
    return EValue(_e(ratio), limit, ratio, low, high, how)


def e_value_of_effect(effect: float, se: float, sd_outcome: float, delta: float = 1.0) -> EValue:
    """Of an effect on a continuous outcome: d = effect delta / sd(outcome) is read as the risk ratio exp(.91 d) with
    limits exp(.91 d -+ 1.78 s_d) (Chinn's approximation). delta: the change of treatment that is meant."""
    if not sd_outcome > 0:
        raise WrongQuestion("An E-value needs an outcome that varies: its standard deviation is 0.")
    d, error = effect * delta / sd_outcome, se * abs(delta) / sd_outcome
    if not np.isfinite(error):
        return e_value(float(np.exp(0.91 * d)), how="exp(0.91 effect / sd of the outcome)")
    ends = np.exp([0.91 * d - 1.78 * error, 0.91 * d, 0.91 * d + 1.78 * error])
    return e_value(float(ends[1]), float(ends[0]), float(ends[2]), "exp(0.91 effect / sd of the outcome)")


def e_value_of_odds(odds: float, low: float | None = None, high: float | None = None, *, rare: bool = False) -> EValue:
    """Of an odds ratio: the risk ratio itself for outcomes rarer than 15 %, its square root otherwise."""
    if rare:
        return e_value(odds, low, high, "odds ratio of a rare outcome")
    root = [None if v is None else float(np.sqrt(v)) for v in (low, high)]
    return e_value(float(np.sqrt(odds)), *root, "square root of the odds ratio")


def _e(ratio: float) -> float:
    ratio = ratio if ratio >= 1 else 1 / ratio
    return float(ratio + np.sqrt(ratio * (ratio - 1)))


def tipping_ratios(ratio: float, with_treatment: Array) -> Array:
    """For every risk ratio of the hidden confounder with the treatment, the one with the outcome that explains `ratio`
    away: B (a - 1) / (a - B), B = ratio (Ding and VanderWeele's bounding factor); NaN where none does (a <= B)."""
    wanted = ratio if ratio >= 1 else 1 / ratio
    a = np.asarray(with_treatment, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a > wanted, wanted * (a - 1) / (a - wanted), np.nan)


# -- all of it ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What `rules.sensitivity` judges. shares: (r2_treatment, r2_outcome) by observed confounder; multiples: see
    `tipping_multiple`, by observed confounder; strongest: the one with the largest `strength`, "" when there is none."""

    effect: float
    se: float
    df: float
    t: float
    q: float
    alpha: float
    r2: float
    rv: float
    rv_alpha: float
    shares: Mapping[str, tuple[float, float]]
    multiples: Mapping[str, float | None]
    benchmarks: tuple[Benchmark, ...]
    strongest: str
    strongest_strength: float


def measure(
    effect: float, se: float, df: float, shares: Mapping[str, tuple[float, float]], *, q: float = 1.0,
    alpha: float = 0.05, multiples: Sequence[float] = (1.0, 2.0, 3.0),
) -> Sensitivity:  # fmt: skip
    """effect, se (classical), df: of the adjusted least squares fit; shares: see `partial_r2_of_all`."""
    if not (np.isfinite(effect) and se > 0 and df > 2):
        raise WrongQuestion(
            f"Sensitivity needs a finite effect, an error above 0 and more than 2 degrees of freedom; given "
            f"{effect!r}, {se!r}, {df!r}."
        )
    t = effect / se
    strengths = {name: strength(*pair) for name, pair in shares.items()}
    strongest = max(strengths, key=strengths.__getitem__, default="")
    tips = {name: tipping_multiple(pair, effect, se, df) for name, pair in shares.items()}
    made = tuple(benchmark(n, pair, effect, se, df, k, alpha=alpha) for n, pair in shares.items() for k in multiples)
    return Sensitivity(
        effect, se, df, t, q, alpha, float(partial_r2(t, df)), robustness_value(t, df, q),
        robustness_value(t, df, q, alpha), dict(shares), tips, made, strongest, strengths.get(strongest, 0.0),
    )  # fmt: skip
