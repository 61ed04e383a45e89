"""Proposes settings of a tier: bounds and idle time, tried on the same arrivals by replay.

Tries a fixed grid and tells those that nothing beats in both cost and missed objectives; proposes the cheapest one that misses
no more than is allowed. Decides nothing by itself, and knows no cost but that of replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from millrace.autoscale.compare import Row, compare
from millrace.autoscale.conditions import Faults
from millrace.autoscale.contenders import Contender
from millrace.autoscale.traces import Arrival
from millrace.tiers import Tier, Tiers

MOST = (1, 2, 3, 4, 6, 8)
IDLE_BOOTS = (0.25, 1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Tried:
    """Settings and what they came to. `good`: nothing tried is at most as dear and misses less, or cheaper and misses no
    more."""

    tier: Tier
    row: Row
    good: bool
    proposed: bool

    @property
    def cost(self) -> float:
        return self.row.cost_month.mean

    @property
    def missed(self) -> float:
        return self.row.mean("missed")


def candidates(tier: Tier) -> list[Tier]:
    """The tier with other bounds and idle times; as it is comes first. The cost ceiling and the schedule stay."""
    idle_s = tier.boot_s if tier.idle_s is None else tier.idle_s
    found = [tier]
    for least, most, boots in product(sorted({0, 1, tier.least}), sorted({*MOST, tier.most}), IDLE_BOOTS):
        changed = {"least": least, "most": most, "idle_s": boots * tier.boot_s}
        if least <= most and changed != {"least": tier.least, "most": tier.most, "idle_s": idle_s}:
            found.append(tier.model_copy(update=changed))
    return found


def search(
    tiers: Tiers, name: str, traces: Callable[[int], Sequence[Arrival]], seeds: Sequence[int], rule: Contender,
    faults: Faults, allowed: float, told: Callable[[str], None] = lambda _: None,
) -> list[Tried]:  # fmt: skip
    """All candidates of the tier `name`, the cheapest first. `allowed`: the share of jobs that may wait longer than the tier's
    objective; nothing is proposed when every candidate misses more. `traces`: of this tier's queues alone."""
    tier = tiers.tier(name)
    rows: list[tuple[Tier, Row]] = []
    for one in candidates(tier):
        told(f"{name}: least {one.least}, most {one.most}, idle {one.idle_s or one.boot_s:g} s")
        alone = Tiers(tiers={name: one}, prices=tiers.prices)
        rows.append((one, compare(alone, traces, seeds, [rule], faults)[0]))
    rows.sort(key=lambda pair: (pair[1].cost_month.mean, pair[1].mean("missed")))
    found, fewest, proposed = [], float("inf"), False
    for one, row in rows:
        missed = row.mean("missed")
        good = missed < fewest
        fewest = min(fewest, missed)
        chosen = not proposed and missed <= allowed
        proposed = proposed or chosen
        found.append(Tried(one, row, good, chosen))
    return found


def table(tried: Sequence[Tried], currency: str) -> list[tuple[str, ...]]:
    """Those that nothing beats, the cheapest first."""
    lines: list[tuple[str, ...]] = [
        ("", "least", "most", "idle s", f"{currency} a month", "missed", "wait p95 s", "delay p95 s")
    ]
    for one in tried:
        if one.good or one.proposed:
            idle_s = one.tier.boot_s if one.tier.idle_s is None else one.tier.idle_s
            lines.append(
                (
                    "proposed" if one.proposed else "", str(one.tier.least), str(one.tier.most), f"{idle_s:g}",
                    f"{one.cost:,.0f}", f"{one.missed:.2%}", f"{one.row.mean('wait_p95_s'):,.0f}",
                    f"{one.row.mean('delay_p95_s'):,.0f}",
                )
            )  # fmt: skip
    return lines
