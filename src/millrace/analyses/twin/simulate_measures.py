"""Arithmetic of a simulation: effects with all that makes them unsure, groups corrected for their number, whom to treat first.

An effect is unsure for four reasons, which add up as variances:

    effect     how well the effect itself is known: the error of its estimate, or the doubt of whoever assumed it
    model      how far two ways of modelling the same effect are apart
    sampling   the population is known from a sample of real rows
    twins      finitely many twins were drawn; the only one that more twins make smaller

All scenarios are told from the same draws, so that their differences are sharper than they are. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from millrace.analyses.twin.intervention import Intervention

Array = numpy.ndarray[Any, Any]

DRAWS = 20_000
POINTS = 101
LEAST_GROUP = 30
"""Twins of a group of which an effect is told."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """effect: mean over the twins. low, high: the interval. parts: standard deviation that each reason for doubt adds."""

    effect: float
    low: float
    high: float
    se: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Group:
    """name: "region=west". of: how many twins. low, high: corrected for the number of groups; p: by Holm's step-down (1979)."""

    name: str
    of: int
    effect: float
    low: float
    high: float
    plain_low: float
    plain_high: float
    p: float


@dataclass(frozen=True, slots=True)
class Doubts:
    """Standard deviations, of the effect on those who take it up. noise: draws of the effect's own doubt, (DRAWS,)."""

    noise: Array
    model: float
    sampling: float
    twins: float


@dataclass(frozen=True)
class Draws:
    """Standard normal draws, (DRAWS,) each, the same for all scenarios: evenly spread quantiles in an order of their own."""

    effect: Array
    model: Array
    sampling: Array
    twins: Array
    adoption: Array


def draws(rng: Any) -> Draws:
    from scipy.special import ndtri

    even = ndtri((numpy.arange(DRAWS) + 0.5) / DRAWS)
    return Draws(*(even[rng.permutation(DRAWS)] for _ in range(5)))


def noise_of(intervention: Intervention, se: float, found: Draws) -> Array:
    """(DRAWS,) what the effect may be beside its mean."""
    e = intervention.effect
    if e.source == "assumed" and e.low is not None:
        from scipy.special import ndtr

        return (ndtr(found.effect) - 0.5) * (e.high - e.low)  # type: ignore[operator]
    return (e.doubt if e.source == "assumed" else se) * found.effect


def told(effect: float, doubts: Doubts, intervention: Intervention, found: Draws, offered: bool = True) -> Array:
    """(DRAWS,) what the effect may be: a unit that is offered it, or one that takes it up."""
    a = intervention.adoption
    share = numpy.clip(a.mean + a.sd * found.adoption, 1e-3, 1.0) if offered else 1.0
    rest = doubts.model * found.model + doubts.sampling * found.sampling + doubts.twins * found.twins
    return intervention.intensity * share * (effect + doubts.noise + rest)


def estimate(
    effect: float, doubts: Doubts, intervention: Intervention, found: Draws, level: float, offered: bool = True
) -> Estimate:
    """The effect with its interval at `level`."""
    several = told(effect, doubts, intervention, found, offered)
    low, high = numpy.quantile(several, [(1 - level) / 2, (1 + level) / 2])
    times = intervention.intensity * (intervention.adoption.mean if offered else 1.0)
    parts = {
        "effect": times * float(doubts.noise.std()), "model": times * doubts.model, "sampling": times * doubts.sampling,
        "twins": times * doubts.twins,
        "adoption": abs(effect) * intervention.intensity * intervention.adoption.sd if offered else 0.0,
    }  # fmt: skip
    return Estimate(times * effect, float(low), float(high), float(several.std()), parts)


def corrected(
    names: Sequence[str], counts: Sequence[int], effects: Sequence[float], several: Sequence[Array], level: float
) -> list[Group]:
    """Groups with intervals that hold all at once with probability `level` (Bonferroni) and p-values by Holm."""
    from scipy.special import ndtr

    many = max(1, len(names))
    alpha = 1 - level
    sds = [float(s.std()) for s in several]
    p = [2 * float(ndtr(-abs(e) / sd)) if sd > 0 else float(e == 0) for e, sd in zip(effects, sds, strict=True)]
    adjusted = holm(p)
    made = []
    for i, name in enumerate(names):
        plain = numpy.quantile(several[i], [alpha / 2, 1 - alpha / 2])
        wide = numpy.quantile(several[i], [alpha / 2 / many, 1 - alpha / 2 / many])
        made.append(
            Group(
                name,
                counts[i],
                effects[i],
                float(wide[0]),
                float(wide[1]),
                float(plain[0]),
                float(plain[1]),
                adjusted[i],
            )
        )
    return made


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of the step-down procedure (Holm 1979): monotone in p, at most 1, no smaller than p."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        out[i] = largest
    return out


# -- whom to treat first -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Targeting:
    """share, gain, cost, net: (POINTS,) of treating the first share of the eligible by their effect: outcome units and money a
    unit of all eligible; net None without a value. best: how many twins to treat, of how many eligible; units: that they stand
    for; gain_total, spent, net_total: of these. threshold: effect (offered) of the last one that is treated."""

    share: Array
    gain: Array
    cost: Array
    net: Array | None
    best: int
    eligible: int
    units: float
    gain_total: float
    spent: float
    net_total: float | None
    threshold: float
    rows: Array


def target(
    effect: Array, rows: Array, cost: float, value: float | None, budget: float | None, units_a_twin: float
) -> Targeting:
    """effect (m,): of offering it, the better the larger; rows (m,): numbers of these twins. Treated are the best, as far as the
    budget goes and as long as one more gains: more than it costs where a value is given, more than nothing where not."""
    order = numpy.argsort(-effect, kind="stable")
    best_first = effect[order]
    m = len(effect)
    worth = best_first * value > cost if value is not None else best_first > 0
    most = int(worth.sum())  # the order is by effect, so that all that are worth it come first
    if budget is not None and cost * units_a_twin * most > budget:
        most = int(budget / (cost * units_a_twin) + 1e-9)
    gains = numpy.concatenate([[0.0], numpy.cumsum(best_first)])
    k = numpy.round(numpy.linspace(0, 1, POINTS) * m).astype(int)
    gain, spent = gains[k] / m, cost * k / m
    total, paid = float(gains[most]) * units_a_twin, cost * most * units_a_twin
    return Targeting(
        numpy.linspace(0, 1, POINTS), gain, spent, None if value is None else gain * value - spent, most, m, most * units_a_twin,
        total, paid, None if value is None else total * value - paid, float(best_first[most - 1]) if most else float("nan"),
        rows[order[:most]],
    )  # fmt: skip


def jackknife(by_fold: Array) -> float:
    """Standard error from estimates that each leave a fold out: the delete-a-group jackknife (Kott 2001)."""
    k = len(by_fold)
    return float(numpy.sqrt((k - 1) / k * ((by_fold - by_fold.mean()) ** 2).sum())) if k > 1 else 0.0
