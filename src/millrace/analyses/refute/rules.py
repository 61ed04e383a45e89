"""A function for each test: what the simulations or fits say about the estimate, as a `TestResult`.

Pure functions of arrays. The tests made of simulations are here, those of the data and of other fits in `evidence` (and
found here too). Effects come in item order, NaN where a simulation failed: above `failed_share` the test is failed, whatever
the others say. Where the estimate is right a test still does not pass now and then: `FALSE_ALARM_SHARES`. What follows from all
results is in `gate`; when enough simulations were run in `rounds`; thresholds and Holm's correction in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.evidence import (
    blocks,
    e_value,
    estimators,
    negative_control,
    overlap,
    sensitivity,
    specification,
)  # fmt: skip
from millrace.analyses.refute.laws import normal_point
from millrace.analyses.refute.study import Fit
from millrace.analyses.refute.verdicts import (
    DEFAULTS,
    FALSE_ALARM_SHARES,
    NOTHING,
    Status,
    TestResult,
    Thresholds,
    corrected,
    graded,
    holm,
    in_range,
    insensitive,
    noise_bounds,
    result,
    skipped,
    usable,
)  # fmt: skip
from millrace.analyses.refute.words import figure, measured, percent, probability

__all__ = [
    "FALSE_ALARM_SHARES", "TestResult", "Thresholds", "blocks", "bootstrap", "corrected", "e_value", "estimators", "holm",
    "negative_control", "overlap", "placebo", "random_common_cause", "sensitivity", "skipped", "specification", "subset",
]  # fmt: skip

Array = NDArray[np.float64]


# -- simulations ---------------------------------------------------------------------------------------------------
def placebo(
    effects: Array, errors: Array | None, fit: Fit, thresholds: Thresholds = DEFAULTS, *, how: str = "shuffled"
) -> TestResult:
    """effects, errors: (B,) under a treatment that does nothing. Two questions. Do the effects centre on 0: failed where
    |mean| > placebo_errors sd / sqrt(B) and > placebo_sd sd, warning where only the first. And does the estimate stand out:
    p = (1 + #{|t_b| >= |t|}) / (B + 1), studentised, because raw effects against raw placebo effects alarm falsely
    in 5-45 % (the placebo treatment is free of the confounders, the real one is not). p is no part of the verdict."""
    name = "placebo"
    known, stop = usable(name, effects, fit, thresholds)
    if stop is not None:
        return stop
    mean, sd, b = float(known.mean()), float(known.std(ddof=1)), len(known)
    error = float(sd / np.sqrt(b))
    if sd <= NOTHING * max(abs(fit.effect), abs(mean)):
        return insensitive(name, effects, mean, fit)
    off, shift = abs(mean) / error, abs(mean) / sd
    status: Status = (
        "passed" if off <= thresholds.placebo_errors else "warning" if shift <= thresholds.placebo_sd else "failed"
    )
    p, p_error = _studentised(effects, errors, fit)
    did = f"The treatment was {how}, so that it cannot have an effect, and the effect was estimated {b:,} times."
    came = f" The placebo effects have mean {measured(mean, error)} (sd {figure(sd)})"
    means = {
        "passed": ", as they should: they centre on 0.",
        "warning": f", {figure(off)} Monte-Carlo errors from 0, where more than {figure(thresholds.placebo_errors)} "
        f"is more than chance; the "
        f"shift is small ({figure(shift)} sd).",
        "failed": f", {figure(off)} Monte-Carlo errors and {figure(shift)} sd from 0: the estimator finds an effect "
        f"where there is none.",
    }[status]
    if p is None:
        against = " There is no standard error, so the estimate was not compared with them."
    elif p <= thresholds.placebo_p:
        against = (
            f" The estimate of {figure(fit.effect)} stands out from them (p {probability(p)}; a small p speaks for an "
            f"effect)."
        )
    else:
        against = (
            f" The estimate of {figure(fit.effect)} does not stand out from them (p {probability(p)}; a small p "
            f"would speak for an "
            f"effect): an effect of nothing is as plausible."
        )
    centre = {"passed": "centre on 0", "warning": "lie a little off 0", "failed": "do not centre on 0"}[status]
    details = {"mean": mean, "sd": sd, "monte_carlo_error": error, "off_in_errors": off, "off_in_sd": shift,
               "p_monte_carlo_error": p_error, "stands_out": None if p is None else p <= thresholds.placebo_p}  # fmt: skip
    return result(
        name, status, fit, effects, statistic=off, p=p, threshold=thresholds.placebo_errors, refuted=mean, details=details,
        direction="the mean should be 0 within its Monte-Carlo error; a small p says that the estimate is more than placebo",
        sentence=did + came + means + against, reason=f"the placebo effects {centre} ({measured(mean, error)})",
    )  # fmt: skip


def _studentised(effects: Array, errors: Array | None, fit: Fit) -> tuple[float | None, float | None]:
    if errors is None or not (np.isfinite(fit.se) and fit.se > 0):
        return None, None
    usable = np.isfinite(effects) & np.isfinite(errors) & (np.asarray(errors) > 0)
    if usable.sum() < np.isfinite(effects).sum():
        return None, None
    t = np.abs(np.asarray(effects)[usable] / np.asarray(errors)[usable])
    # A t that differs in its last bits from the estimate's (a permutation that changes nothing) counts as reaching it.
    p = (1 + int((t >= abs(fit.effect) / fit.se * (1 - 1e-9)).sum())) / (len(t) + 1)
    return p, float(np.sqrt(p * (1 - p) / (len(t) + 1)))


def random_common_cause(
    effects: Array, fit: Fit, thresholds: Thresholds = DEFAULTS, *, law_sd: float | None = None
) -> TestResult:
    """effects: (B,) with one more independent normal column. law_sd: se_classic / sqrt(df) for plain least squares, where
    the change is a product of two independent normals over df and cannot be anything else; the rms change must follow it
    (6 Monte-Carlo errors), else the software is wrong. Other estimators: rms change in standard errors, with wider bounds for
    matching (see `verdicts.noise_bounds`)."""
    name = "random_common_cause"
    known, stop = usable(name, effects, fit, thresholds)
    if stop is not None:
        return stop
    b = len(known)
    change = known - fit.effect
    rms, mean = float(np.sqrt(np.mean(change**2))), float(known.mean())
    largest = float(np.abs(change).max())
    did = f"A column of pure noise was added to the confounders {b:,} times."
    came = f" The estimate moved by {figure(rms)} (root mean square) and {figure(largest)} at most"
    details = {"rms_change": rms, "largest_change": largest, "law_sd": law_sd, "law": law_sd is not None}
    if law_sd is not None and law_sd > 0:
        ratio = rms / law_sd
        # The square of a product of two normals has variance 8: the mean of b of them has relative error sqrt(8 / b).
        off = float(abs(ratio**2 - 1) / np.sqrt(8 / b))
        status: Status = "passed" if off <= 6 else "failed"
        means = (
            f", {figure(ratio)} times what arithmetic demands of least squares. That cannot fail, so it is a check "
            f"of the software "
            f"and no evidence for the estimate."
            if status == "passed"
            else f", {figure(ratio)} times what arithmetic demands of least squares: the computation is wrong. "
            f"Please report it."
        )
        return result(
            name, status, fit, effects, statistic=ratio, p=None, threshold=1.0, refuted=mean, sentence=did + came + means,
            direction="the change over its law should be 1; there is no p-value", details={**details, "off_in_errors": off},
            reason=f"a column of noise changes the estimate by {figure(ratio)} times what arithmetic demands",
        )  # fmt: skip
    if not (np.isfinite(fit.se) and fit.se > 0):
        return skipped(name, "the estimate has no standard error to hold the change against")
    ratio = rms / fit.se
    bounds = noise_bounds(fit, thresholds)
    status = graded(ratio, *bounds, larger_is_better=False)
    matched = bounds[0] != thresholds.random_cause_pass
    means = {
        "passed": f", {figure(ratio)} standard errors: "
        + (
            "any column makes matching choose other neighbours that are as near, and its error allows for that."
            if matched
            else "noise does not move it."
        ),
        "warning": f", {figure(ratio)} standard errors: the estimator is not quite stable.",
        "failed": f", {figure(ratio)} standard errors: a column that means nothing moves the estimate.",
    }[status]
    return result(
        name, status, fit, effects, statistic=ratio, p=None, threshold=bounds[0], refuted=mean,
        sentence=did + came + means, direction="the change in standard errors should be small; there is no p-value",
        details=details, reason=f"a column of noise changes the estimate by {figure(ratio)} standard errors",
    )  # fmt: skip


def subset(effects: Array, fit: Fit, fraction: float = 0.8, thresholds: Thresholds = DEFAULTS) -> TestResult:
    """effects: (B,) from the share `fraction` of the rows (clusters), drawn without replacement. Their sd over
    se sqrt((1 - f) / f), which is what the full sample's error promises. (That nearly all lie inside the full interval is no
    evidence: 99.99 % do whenever anything is right.)"""
    expected = fit.se * np.sqrt((1 - fraction) / fraction)
    what = f"{percent(fraction)} of the rows were drawn {{b}} times, without replacement, and the effect estimated from them."
    return _spread(
        "subset", effects, fit, expected, thresholds.subset_pass, thresholds.subset_warning, thresholds, what,
        {"fraction": fraction},
    )  # fmt: skip


def bootstrap(effects: Array, fit: Fit, thresholds: Thresholds = DEFAULTS, *, level: float = 0.95) -> TestResult:
    """effects: (B,) with multinomial weights. Their sd over the standard error; percentile, basic and normal intervals."""
    what = "The rows were drawn anew {b} times, with replacement, and the effect estimated each time."
    return _spread(
        "bootstrap", effects, fit, fit.se, thresholds.bootstrap_pass, thresholds.bootstrap_warning, thresholds, what,
        {"level": level}, level,
    )  # fmt: skip


def intervals(effects: Array, effect: float, level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Percentile: quantiles of the effects; basic: mirrored at the estimate; normal: estimate less bias -+ z sd (Davison and
    Hinkley, 1997, chapter 5)."""
    low, high = np.quantile(effects, [(1 - level) / 2, (1 + level) / 2]).tolist()
    reach = normal_point((1 + level) / 2) * float(np.std(effects, ddof=1))
    centre = 2 * effect - float(np.mean(effects))
    return {
        "percentile": (low, high),
        "basic": (2 * effect - high, 2 * effect - low),
        "normal": (centre - reach, centre + reach),
    }


def _spread(
    name: str, effects: Array, fit: Fit, expected: float, passes: tuple[float, float], warns: tuple[float, float],
    thresholds: Thresholds, what: str, more: Mapping[str, Any], level: float | None = None,
) -> TestResult:  # fmt: skip
    known, stop = usable(name, effects, fit, thresholds)
    if stop is not None:
        return stop
    if not (np.isfinite(expected) and expected > 0):
        return skipped(name, "the estimate has no standard error to hold the spread against")
    mean, sd, b = float(known.mean()), float(known.std(ddof=1)), len(known)
    if sd <= NOTHING * max(abs(fit.effect), expected):
        return insensitive(name, effects, mean, fit)
    ratio = float(sd / expected)
    error = float(ratio / np.sqrt(2 * (b - 1)))
    status = in_range(ratio, passes, warns)
    which = "wider" if ratio > 1 else "narrower"
    means = {
        "passed": "the standard error is right about how much the estimate depends on the rows.",
        "warning": f"the estimates lie {which} than the standard error promises.",
        "failed": f"the estimates lie much {which} than the standard error promises: its interval cannot be trusted.",
    }[status]
    sentence = (
        f"{what.format(b=f'{b:,}')} The sd of the estimates is {figure(sd)}, {measured(ratio, error)} times what the "
        f"standard error "
        f"({fit.how}) promises; {figure(passes[0])} to {figure(passes[1])} passes: {means}"
    )
    details = {
        **more,
        "sd": sd,
        "expected_sd": float(expected),
        "ratio_monte_carlo_error": error,
        "bias": mean - fit.effect,
    }
    if level is not None:
        details["intervals"] = intervals(known, fit.effect, level)
        low, high = details["intervals"]["percentile"]
        sentence += f" {percent(level)} percentile interval: {figure(low)} to {figure(high)}."
        sentence += _classical(details, sd, fit, passes)
    sentence += " This says nothing about hidden confounding: rows drawn anew are confounded as before."
    matches = "as the standard error says" if status == "passed" else f"{which} than the standard error says"
    return result(
        name, status, fit, effects, statistic=ratio, p=None, threshold=passes[1] if ratio > 1 else passes[0], refuted=mean,
        direction="the ratio should be 1, above: the standard error is too small; there is no p-value", details=details,
        sentence=sentence, reason=f"the {name} estimates spread {matches} ({measured(ratio, error)} times)",
    )  # fmt: skip


def _classical(details: dict[str, Any], sd: float, fit: Fit, passes: tuple[float, float]) -> str:
    if not (np.isfinite(fit.se_classic) and fit.se_classic > 0):
        return ""
    details["ratio_to_classical"] = sd / fit.se_classic
    if passes[0] <= details["ratio_to_classical"] <= passes[1]:
        return ""
    return f" They are {figure(details['ratio_to_classical'])} times as wide as the classical error: use robust errors."
