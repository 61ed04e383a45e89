"""What a test says: its result, the thresholds it is held against, and how several results are judged together.

The tests themselves are in `rules`, what follows from all of them in `gate`. Thresholds are numbers without units: shares,
ratios and probabilities, so that no verdict depends on the units of the outcome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.laws import normal_above
from millrace.analyses.refute.study import Fit
from millrace.analyses.refute.words import counted, figure, percent, probability
from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]
NOTHING = 1e-12

# Shares of worlds whose estimate is right in which the test does not pass, with the default thresholds: measured on 4,000
# seeded worlds (least squares, 500 rows, 5 confounders, 200 simulations; half of them heteroscedastic), and measured again on
# fewer by tests/refute/test_rules.py, which fails when they are not so. Sensitivity and overlap describe, and have no such rate.
FALSE_ALARM_SHARES: Mapping[str, float] = {
    "placebo": 0.002, "subset": 0.0, "bootstrap": 0.0, "random_common_cause": 0.0, "blocks": 0.0535, "negative_control": 0.0495,
    "estimators": 0.0585,
}  # fmt: skip

Status = Literal["passed", "warning", "failed", "skipped", "shown"]
"""skipped: asked for, and could not be run. shown: something to look at that has no verdict."""

SEVERITY: Mapping[str, int] = {"passed": 0, "warning": 1, "failed": 2}


@dataclass(frozen=True, slots=True)
class TestResult:
    """Of one test. None is "there is no such figure here", never a default.

    statistic: what `threshold` is held against (for several conditions: the decisive one; all are in `details`).
    refuted_effect: what the test made of the estimate; delta_percent: 100 (refuted - estimate) / |estimate|.
    simulations: how many ran, failed ones included. direction: which way round the statistic and the p-value read.
    false_alarm: how often the test does not pass where the estimate is right. sentence: what was done, what came out, what
    it means. reason: the outcome as a clause, for the gate's reasons.
    """

    __test__: ClassVar[bool] = False

    name: str
    status: Status
    statistic: float | None
    p_value: float | None
    threshold: float | None
    refuted_effect: float | None
    delta_percent: float | None
    simulations: int
    failed_simulations: int
    direction: str
    false_alarm: str | None
    sentence: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Every bound that a verdict depends on; `of` overrides some by name.

    placebo_errors, placebo_sd: |mean of the placebo effects| in Monte-Carlo errors, and in their sd. placebo_p: below it the
    estimate stands out from the placebo. random_cause_*: rms change in standard errors, random_cause_matching for matching
    (passed, warning). subset_*, bootstrap_*: range of the
    sd of the effects over what the standard error promises. blocks_*: p of Cochran's Q. control_level: of the interval of
    a negative control. smd_*, outside_*, ess_*: overlap, with propensity_limits. q, alpha: of the robustness values.
    e_value_*. estimators_pass: difference in its standard errors. failed_share: of the simulations; above it the test is
    failed. least_simulations: with fewer a test of simulations is skipped.
    """

    placebo_errors: float = 3.0
    placebo_sd: float = 0.5
    placebo_p: float = 0.05
    random_cause_pass: float = 0.25
    random_cause_warning: float = 0.5
    random_cause_matching: tuple[float, float] = (1.75, 2.75)
    subset_pass: tuple[float, float] = (0.8, 1.25)
    subset_warning: tuple[float, float] = (0.67, 1.5)
    bootstrap_pass: tuple[float, float] = (0.8, 1.25)
    bootstrap_warning: tuple[float, float] = (0.67, 1.5)
    blocks_pass: float = 0.05
    blocks_warning: float = 0.01
    control_level: float = 0.95
    smd_pass: float = 0.1
    smd_warning: float = 0.2
    propensity_limits: tuple[float, float] = (0.05, 0.95)
    outside_pass: float = 0.05
    outside_warning: float = 0.10
    ess_pass: float = 0.5
    ess_warning: float = 0.2
    q: float = 1.0
    alpha: float = 0.05
    e_value_pass: float = 2.0
    e_value_warning: float = 1.5
    estimators_pass: float = 2.0
    failed_share: float = 0.05
    least_simulations: int = 20

    @classmethod
    def of(cls, given: Mapping[str, Any] | None = None) -> Thresholds:
        """The defaults with some overridden by name; WrongQuestion for a name or a value that makes no sense."""
        given = dict(given or {})
        known = {f.name: f.default for f in fields(cls)}
        for name, value in given.items():
            if name not in known:
                close = get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."
                raise WrongQuestion(f"There is no threshold {name!r}; {hint}")
            wanted = 2 if isinstance(known[name], tuple) else 1
            found = np.asarray(value, dtype=object).ravel()
            if len(found) != wanted or not all(_is_number(v) for v in found):
                shape = "two numbers, low and high" if wanted == 2 else "one number"
                raise WrongQuestion(f"The threshold {name!r} takes {shape}, above or at 0, not {value!r}.")
            given[name] = tuple(float(v) for v in found) if wanted == 2 else type(known[name])(value)
        made = cls(**given)
        made._check()
        return made

    def _check(self) -> None:
        """A pass that is easier than its warning, or a range the wrong way round, would make verdicts that nobody meant."""
        rising = ("random_cause_pass random_cause_warning", "smd_pass smd_warning", "outside_pass outside_warning",
                  "blocks_warning blocks_pass", "ess_warning ess_pass", "e_value_warning e_value_pass")  # fmt: skip
        for pair in rising:
            low, high = pair.split()
            if getattr(self, low) > getattr(self, high):
                raise WrongQuestion(
                    f"The threshold {low!r} ({getattr(self, low)}) must not be above {high!r} "
                    f"({getattr(self, high)}): passing "
                    f"would be easier than a warning. Give both."
                )
        if self.random_cause_matching[0] > self.random_cause_matching[1]:
            raise WrongQuestion(
                f"random_cause_matching is (passed, warning), the second above the first, not {self.random_cause_matching}."
            )
        for test in ("subset", "bootstrap"):
            inner, outer = getattr(self, f"{test}_pass"), getattr(self, f"{test}_warning")
            if not outer[0] <= inner[0] < inner[1] <= outer[1]:
                raise WrongQuestion(f"The range {test}_pass {inner} must lie inside {test}_warning {outer}. Give both.")
        if not self.propensity_limits[0] < self.propensity_limits[1] <= 1:
            raise WrongQuestion(f"propensity_limits must be a range inside 0 to 1, not {self.propensity_limits}.")
        for name in ("alpha", "control_level"):
            if not 0 < getattr(self, name) < 1:
                raise WrongQuestion(f"The threshold {name!r} must be above 0 and below 1, not {getattr(self, name)}.")


DEFAULTS = Thresholds()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(0 <= value < np.inf)


def false_alarm(name: str) -> str | None:
    """How often a test does not pass where the estimate is right, in words; None where there is no such rate."""
    share = FALSE_ALARM_SHARES.get(name)
    if share is None:
        return None
    how = "least squares, 500 rows, 5 confounders, 200 simulations"
    often = f"in {percent(share)} of" if share else "in none of 4,000"
    return f"does not pass {often} worlds in which the estimate is right ({how})"


def skipped(name: str, why: str) -> TestResult:
    """A test that was asked for and could not be run. It counts 0 in the gate."""
    why = why.strip().rstrip(".")
    short = re.split(r": |\. ", why, maxsplit=1)[0]
    sentence = f"The test {name} was not run: {why}. It says nothing for the estimate, and nothing against it."
    return TestResult(
        name, "skipped", None, None, None, None, None, 0, 0, "", None, sentence, f"{name} could not be run ({short})"
    )


def noise_bounds(fit: Fit, thresholds: Thresholds) -> tuple[float, float]:
    """How far a column of noise may move an estimate, in standard errors: (passed, warning). A matched estimate is one draw of
    many that are as good: any column changes who is nearest, which moves it by .4 to .6 of its error, up to 1.6 in 360 worlds."""
    if fit.how.startswith("Abadie-Imbens"):
        return thresholds.random_cause_matching
    return thresholds.random_cause_pass, thresholds.random_cause_warning


def worst(statuses: Sequence[Status]) -> Status:
    return max(statuses, key=lambda s: SEVERITY[s])


def graded(value: float, passes: float, warns: float, *, larger_is_better: bool = True) -> Status:
    if not larger_is_better:
        value, passes, warns = -value, -passes, -warns
    return "passed" if value >= passes else "warning" if value >= warns else "failed"


def in_range(value: float, passes: tuple[float, float], warns: tuple[float, float]) -> Status:
    if passes[0] <= value <= passes[1]:
        return "passed"
    return "warning" if warns[0] <= value <= warns[1] else "failed"


def delta_percent(refuted: float, effect: float) -> float | None:
    return 100 * (refuted - effect) / abs(effect) if effect and np.isfinite(refuted) else None


# -- what all tests share ------------------------------------------------------------------------------------------
def usable(name: str, effects: Array, fit: Fit, thresholds: Thresholds) -> tuple[Array, TestResult | None]:
    """The finite effects; and the verdict where there are too few of them to look further."""
    effects = np.asarray(effects, dtype=np.float64)
    known = effects[np.isfinite(effects)]
    failed, b = len(effects) - len(known), len(effects)
    if b < thresholds.least_simulations:
        why = f"{counted(b, 'simulation')} ran, and fewer than {thresholds.least_simulations} say nothing reliable"
        return known, skipped(name, why)
    if failed <= thresholds.failed_share * b:
        return known, None
    why = f"{failed:,} of {b:,} simulations of {name} failed"
    sentence = (
        f"{why[0].upper()}{why[1:]}, more than {percent(thresholds.failed_share)}: the others are no fair sample, so the "
        f"test is failed."
    )
    stop = result(
        name, "failed", fit, effects, statistic=failed / b, p=None, threshold=thresholds.failed_share, refuted=None,
        direction="the share of failed simulations should be small", sentence=sentence, reason=why,
        details={"too_many_failed": True},
    )  # fmt: skip
    return known, stop


def insensitive(name: str, effects: Array, mean: float, fit: Fit) -> TestResult:
    why = f"all {name} estimates are the same ({figure(mean)})"
    return result(
        name, "failed", fit, effects, statistic=0.0, p=None, threshold=None, refuted=mean, details={"sd": 0.0}, reason=why,
        direction="the estimates should differ",
        sentence=f"{why[0].upper()}{why[1:]}: the estimator does not look at what was changed.",
    )  # fmt: skip


def result(
    name: str, status: Status, fit: Fit, effects: Array, *, statistic: float | None, p: float | None,
    threshold: float | None, refuted: float | None, direction: str, sentence: str, reason: str, details: Mapping[str, Any],
) -> TestResult:  # fmt: skip
    effects = np.asarray(effects, dtype=np.float64)
    moved = None if refuted is None else delta_percent(refuted, fit.effect)
    return TestResult(
        name, status, None if statistic is None else float(statistic), p, threshold, refuted, moved, len(effects),
        int((~np.isfinite(effects)).sum()), direction, false_alarm(name), sentence, reason, details,
    )  # fmt: skip


# -- several at once -----------------------------------------------------------------------------------------------
def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    found = np.empty(len(p))
    found[order] = stepped
    return found.tolist()


def corrected(results: Sequence[TestResult], thresholds: Thresholds) -> list[TestResult]:
    """One test's results for several outcomes or estimates, their p-values Holm-corrected and, where the verdict is about p,
    judged anew. `details["p_uncorrected"]` keeps the old one. Results without a p-value stay as they are."""
    with_p = [i for i, r in enumerate(results) if r.p_value is not None]
    if len({r.name for r in results}) > 1:
        raise WrongQuestion("Holm's correction is over one test's results for several outcomes or estimates.")
    found = list(results)
    if len(with_p) < 2:
        return found
    for i, p in zip(with_p, holm([results[i].p_value or 0.0 for i in with_p]), strict=True):
        found[i] = _with_p(results[i], p, len(with_p), thresholds)
    return found


def corrected_over(estimates: Sequence[Sequence[TestResult]], thresholds: Thresholds) -> list[list[TestResult]]:
    """The results of several estimates in one question, each test `corrected` over all that have it."""
    judged = [list(results) for results in estimates]
    if len(judged) == 1:
        return judged
    for name in [r.name for r in judged[0]]:
        at = [next((k for k, r in enumerate(results) if r.name == name), None) for results in judged]
        if None in at:
            continue
        places = [(results, k) for results, k in zip(judged, at, strict=True) if k is not None]
        new = corrected([results[k] for results, k in places], thresholds)
        for (results, k), result in zip(places, new, strict=True):
            results[k] = result
    return judged


def by_p(name: str, p: float, thresholds: Thresholds) -> Status | None:
    """The verdict of the tests whose rule is about p alone; None for the others."""
    if name == "blocks":
        return graded(p, thresholds.blocks_pass, thresholds.blocks_warning)
    if name == "negative_control":
        return "passed" if p >= 1 - thresholds.control_level else "failed"
    if name == "estimators":
        return "passed" if p >= two_sided(thresholds.estimators_pass) else "failed"
    return None


def two_sided(z: float) -> float:
    return 2 * normal_above(abs(z))


def _with_p(result: TestResult, p: float, family: int, thresholds: Thresholds) -> TestResult:
    status: Status = result.status
    judged = by_p(result.name, p, thresholds)
    # Failed because too many simulations failed: no p-value makes that good.
    if judged is not None and not result.details.get("too_many_failed"):
        status = judged
    said = f" Holm-corrected over {counted(family, 'estimate')}, p {probability(p)}"
    said += f": {status}, not {result.status}." if status != result.status else "."
    return replace(
        result,
        status=status,
        p_value=p,
        sentence=result.sentence + said,
        reason=result.reason
        if status == result.status
        else f"{result.reason} by itself, but p {probability(p)} over {family} estimates (Holm): {status}",
        details={**result.details, "p_uncorrected": result.p_value, "family": family},
    )
