"""When a test has run often enough: after each fixed round of simulations, is its verdict certain?

Decisions are made at whole rounds of `BATCH` simulations in item order, never by a clock or by what came first, so they are
the same on every engine. The bounds hold at all rounds at once: round r spends wrong / (r (r + 1)) of the error `wrong`, which
adds up to `wrong` however many rounds there are. The verdict itself is made by `rules` from the simulations that ran.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.laws import beta_point, normal_point
from millrace.analyses.refute.study import BATCH, Fit
from millrace.analyses.refute.verdicts import DEFAULTS, NOTHING, Thresholds, noise_bounds
from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]

WRONG = 1e-3
"""How likely an early stop may be to give another verdict than endless simulations would, for each test."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """certain: no further round is needed. low, high: bounds on the figure that decides (`of`); nan where there is none.
    p_error: Monte-Carlo error of the p-value, None where the test has none."""

    certain: bool
    simulations: int
    of: str
    low: float
    high: float
    p_error: float | None
    why: str


def p_error(p: float, simulations: int) -> float:
    """Monte-Carlo standard error of a p-value (1 + #) / (B + 1)."""
    return float(np.sqrt(p * (1 - p) / (simulations + 1)))


def sd_error(effects: Array) -> float:
    """Monte-Carlo standard error of log sd: sqrt((kurtosis - 1) / (4 B)), with the kurtosis of a normal at least."""
    known = effects[np.isfinite(effects)]
    centred = known - known.mean()
    variance = float((centred**2).mean())
    kurtosis = float((centred**4).mean()) / variance**2 if variance > 0 else 3.0
    return float(np.sqrt((max(kurtosis, 3.0) - 1) / (4 * len(known))))


def until(
    test: str, effects: Array, fit: Fit, thresholds: Thresholds = DEFAULTS, *, errors: Array | None = None,
    fraction: float = 0.8, wrong: float = WRONG, p_error_below: float | None = None,
) -> Certainty:  # fmt: skip
    """After the round that `effects` ends with: is the verdict of `test` certain, and (with p_error_below) is the p-value
    known that well?

    test: placebo, random_common_cause, subset or bootstrap. effects, errors: (B,) from the first simulation on, B a
    multiple of BATCH. Without randomness (a test of another name) there is nothing to wait for.
    """
    b = len(effects)
    if b == 0 or b % BATCH:
        raise WrongQuestion(f"Whether to stop is decided after whole rounds of {BATCH} simulations, not after {b}.")
    effects = np.asarray(effects, dtype=np.float64)
    turn = b // BATCH
    share = wrong / (turn * (turn + 1))
    failed = b - int(np.isfinite(effects).sum())
    if failed:
        low, high = proportion_bounds(failed, b, share / 2)
        if low > thresholds.failed_share:
            return Certainty(True, b, "failed share", low, high, None, "too many simulations fail")
        if high > thresholds.failed_share:
            return Certainty(False, b, "failed share", low, high, None, "too many simulations may fail")
    known = effects[np.isfinite(effects)]
    if len(known) < max(2, thresholds.least_simulations):
        return Certainty(False, b, "simulations", np.nan, np.nan, None, "too few simulations")
    if test == "placebo":
        return _placebo(effects, errors, fit, thresholds, share / 2, p_error_below)
    if test in ("subset", "bootstrap"):
        return _spread(test, known, b, fit, thresholds, share / 2, fraction)
    if test == "random_common_cause":
        return _noise(known, b, fit, thresholds, share / 2)
    raise WrongQuestion(f"The test {test!r} is not made of simulations: there is nothing to stop.")


def stop_at(
    test: str, effects: Array, fit: Fit, thresholds: Thresholds = DEFAULTS, *, errors: Array | None = None,
    fraction: float = 0.8, wrong: float = WRONG, p_error_below: float | None = None,
) -> int | None:  # fmt: skip
    """The first round's end at which `until` says certain, of all whole rounds in `effects`; None when none does."""
    for end in range(BATCH, len(effects) + 1, BATCH):
        its = None if errors is None else errors[:end]
        options = {"errors": its, "fraction": fraction, "wrong": wrong, "p_error_below": p_error_below}
        if until(test, effects[:end], fit, thresholds, **options).certain:  # type: ignore[arg-type]
            return end
    return None


def proportion_bounds(hits: int, of: int, wrong: float) -> tuple[float, float]:
    """Clopper and Pearson's exact bounds, each side wrong with probability `wrong` / 2."""
    low = beta_point(wrong / 2, hits, of - hits + 1) if hits else 0.0
    high = beta_point(1 - wrong / 2, hits + 1, of - hits) if hits < of else 1.0
    return low, high


def _placebo(
    effects: Array, errors: Array | None, fit: Fit, thresholds: Thresholds, share: float, p_error_below: float | None
) -> Certainty:
    """Certain when the shift is on one side of `placebo_sd`, a suspicious mean is not a matter of chance any more, and the
    p-value is on one side of `placebo_p`."""
    b, known = len(effects), effects[np.isfinite(effects)]
    mean, sd = float(known.mean()), float(known.std(ddof=1))
    if sd <= NOTHING * max(abs(fit.effect), abs(mean)):
        return Certainty(True, b, "spread", 0.0, 0.0, None, "the placebo effects do not differ")
    reach = -normal_point(share / 4) * float(np.sqrt((1 + (mean / sd) ** 2 / 2) / len(known)))
    low, high = max(0.0, abs(mean) / sd - reach), abs(mean) / sd + reach
    suspicious = abs(mean) / sd * np.sqrt(len(known)) > thresholds.placebo_errors
    found: float | None = None
    settled = True
    if errors is not None and np.isfinite(fit.se) and fit.se > 0:
        its = np.asarray(errors, dtype=np.float64)
        usable = np.isfinite(effects) & np.isfinite(its) & (its > 0)
        if usable.sum() == len(known):
            hits = int((np.abs(effects[usable] / its[usable]) >= abs(fit.effect) / fit.se * (1 - 1e-9)).sum())
            p_low, p_high = proportion_bounds(hits, len(known), share / 2)
            settled = p_high <= thresholds.placebo_p or p_low > thresholds.placebo_p
            found = p_error((1 + hits) / (len(known) + 1), len(known))
    if low > thresholds.placebo_sd:
        return Certainty(True, b, "shift in sd", low, high, found, "the placebo effects do not centre on 0")
    if p_error_below is not None and found is not None and found > p_error_below:
        return Certainty(
            False, b, "Monte-Carlo error of p", found, found, found, "the p-value is not known well enough"
        )
    if suspicious or high > thresholds.placebo_sd:
        return Certainty(False, b, "shift in sd", low, high, found, "where the placebo effects centre is not clear yet")
    if not settled:
        return Certainty(False, b, "p", p_low, p_high, found, "whether the estimate stands out is not clear yet")
    return Certainty(True, b, "shift in sd", low, high, found, "the placebo effects centre on 0")


def _spread(
    test: str, known: Array, b: int, fit: Fit, thresholds: Thresholds, share: float, fraction: float
) -> Certainty:
    """Certain when the bounds of the ratio lie in one zone: far below, below, right, above, far above."""
    expected = fit.se * (np.sqrt((1 - fraction) / fraction) if test == "subset" else 1.0)
    if not (np.isfinite(expected) and expected > 0):
        return Certainty(True, b, "sd ratio", np.nan, np.nan, None, "there is no standard error to compare with")
    ratio = float(known.std(ddof=1)) / expected
    reach = -normal_point(share / 2) * sd_error(known)
    low, high = ratio * np.exp(-reach), ratio * np.exp(reach)
    outer, inner = getattr(thresholds, f"{test}_warning"), getattr(thresholds, f"{test}_pass")
    edges = [outer[0], inner[0], inner[1], outer[1]]
    certain = bool(np.searchsorted(edges, low) == np.searchsorted(edges, high)) or ratio <= NOTHING
    why = "the spread is clear" if certain else "the spread is not clear yet"
    return Certainty(certain, b, "sd ratio", float(low), float(high), None, why)


def _noise(known: Array, b: int, fit: Fit, thresholds: Thresholds, share: float) -> Certainty:
    """The rms change against the thresholds in standard errors (the law of least squares needs no rounds)."""
    if not (np.isfinite(fit.se) and fit.se > 0):
        return Certainty(True, b, "rms change", np.nan, np.nan, None, "there is no standard error to compare with")
    squares = ((known - fit.effect) / fit.se) ** 2
    reach = -normal_point(share / 2) * float(squares.std(ddof=1)) / np.sqrt(len(known))
    low, high = (float(np.sqrt(max(0.0, squares.mean() + sign * reach))) for sign in (-1, 1))
    edges = list(noise_bounds(fit, thresholds))
    certain = bool(np.searchsorted(edges, low) == np.searchsorted(edges, high))
    why = "the change is clear" if certain else "the change is not clear yet"
    return Certainty(certain, b, "rms change in errors", low, high, None, why)
