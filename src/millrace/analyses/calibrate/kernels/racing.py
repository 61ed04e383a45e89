"""When a trial needs no more replicates: its losses against the incumbent's on the same seeds.

`stop` is asked after each replicate. It compares logarithms of losses, because the noise of a loss grows with the loss:
d_i = log(loss_i) - log(incumbent's loss_i), and stops when their mean exceeds 2 standard errors. The variance of d is pooled
with what earlier trials showed (`noise`), as a prior worth four replicates, so that one replicate is enough to see that a trial
is hopeless. A sign test cannot: five replicates that all lose have p = 1/32, so it cannot fire before the fourth.

Does not choose the incumbent, count simulations or tell the sampler. See also: `finalists`, who runs again on fresh seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PRIOR_REPLICATES = 4
PRIOR_NOISE = 0.8  # of a log loss, until five differences are known: the middle of what simulators showed
ERRORS_LOG, ERRORS_RAW = 2.0, 3.0
KEPT, NEEDED = 60, 5
MEDIAN_CHI2 = 0.454936  # of one degree of freedom: a squared normal's median over its variance
PENALTY = 0.5  # standard errors of a mean log loss that a finalist is charged: .5 x .8 = .4 / sqrt(n)


@dataclass(frozen=True, slots=True)
class TrialLosses:
    """A trial's losses in the order of the seeds that all trials share."""

    number: int
    losses: tuple[float, ...]


def stop(history: Sequence[TrialLosses], trial: TrialLosses, incumbent: TrialLosses, *, positive: bool) -> bool:
    """Whether the trial is worse than the incumbent beyond doubt, on the seeds that both have run.

    history: the trials that were told before, in order (for the noise). positive: no loss can be <= 0; otherwise differences
    are of the losses themselves, 3 errors are asked for, and two replicates. The variance of a difference is
    v = (4 s^2 + sum (d - mean d)^2) / (n + 3), s from `noise`; while that is unknown, the trial's own. A loss that is not
    finite stops the trial.
    """
    n = min(len(trial.losses), len(incumbent.losses))
    if not all(map(math.isfinite, trial.losses)):
        return True
    if n < (1 if positive else 2) or trial.number == incumbent.number:
        return False
    d = _differences(trial, incumbent, positive)
    mean = math.fsum(d) / n
    own = math.fsum((x - mean) ** 2 for x in d)
    s = noise((*history, trial), incumbent, positive=positive)
    v = own / (n - 1) if s is None else (PRIOR_REPLICATES * s * s + own) / (n + PRIOR_REPLICATES - 1)
    return mean > (ERRORS_LOG if positive else ERRORS_RAW) * math.sqrt(v / n)


def noise(
    history: Sequence[TrialLosses], incumbent: TrialLosses | None = None, *, positive: bool = True
) -> float | None:
    """The standard deviation s of a paired difference, from the last 60 pairs of neighbouring replicates.

    Half the squared step from one difference to the next estimates s^2 whatever the trial's own level is; the median (over
    that of a chi-square, .455) of the last 60 is not moved by a wild one. Without an incumbent the best of the trials with the
    most replicates is taken. Until five steps exist: .8 for logarithms, None for raw losses, whose unit nobody knows.
    """
    incumbent = incumbent or _incumbent(history)
    steps: list[float] = []
    for trial in reversed(history):
        if incumbent is None or trial.number == incumbent.number or len(steps) >= KEPT:
            continue
        d = _differences(trial, incumbent, positive)
        steps += [s for s in _steps(d) if math.isfinite(s)]
    if len(steps) < NEEDED:
        return PRIOR_NOISE if positive else None
    ordered = sorted(steps[:KEPT])
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return math.sqrt(middle / MEDIAN_CHI2)


def finalists(trials: Sequence[TrialLosses], count: int = 5, *, positive: bool) -> list[int]:
    """Numbers of the trials to run again on fresh seeds, the best first; partial trials compete too.

    Ranked by mean log loss + .4/sqrt(n): a trial that was lucky on its one replicate must not push out one that was good on
    five. Raw losses: the mean plus half of its standard error as `noise` has it (nothing while that is unknown).
    """
    s = PRIOR_NOISE if positive else noise(trials, positive=False) or 0.0
    ranked = []
    for trial in trials:
        if trial.losses and all(map(math.isfinite, trial.losses)):
            level = math.fsum(_scaled(loss, positive) for loss in trial.losses) / len(trial.losses)
            ranked.append((level + PENALTY * s / math.sqrt(len(trial.losses)), trial.number))
    return [number for _, number in sorted(ranked)[:count]]


def _incumbent(history: Sequence[TrialLosses]) -> TrialLosses | None:
    most = max((len(t.losses) for t in history), default=0)
    whole = [t for t in history if len(t.losses) == most > 0 and all(map(math.isfinite, t.losses))]
    return min(whole, key=lambda t: (math.fsum(t.losses), t.number), default=None)


def _scaled(loss: float, positive: bool) -> float:
    # A perfect fit has loss 0: it lies below all others, at a finite place.
    return math.log(max(loss, 1e-300)) if positive else loss


def _differences(trial: TrialLosses, incumbent: TrialLosses, positive: bool) -> list[float]:
    pairs = zip(trial.losses, incumbent.losses, strict=False)
    return [_scaled(a, positive) - _scaled(b, positive) for a, b in pairs]


def _steps(d: Sequence[float]) -> Iterator[float]:
    """The newest first."""
    for before, after in reversed(list(itertools.pairwise(d))):
        yield (after - before) ** 2 / 2
