"""Contenders side by side over seeds: the same arrivals, predictions and faults for each, and tables of what came out.

Each tier is replayed by itself. Draws no pictures (see `pictures`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from millrace.autoscale.conditions import Faults
from millrace.autoscale.contenders import DIES_AFTER, Contender
from millrace.autoscale.figures import Estimate, Figures, by_queue, figures, student, together
from millrace.autoscale.simulate import SLACK_S, Replay
from millrace.autoscale.traces import Arrival
from millrace.tiers import Prices, Tier, Tiers

DAYS_A_MONTH = 365.25 / 12


@dataclass(frozen=True, slots=True)
class QueueRow:
    """Means over seeds of one queue."""

    queue: str
    jobs: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    missed: float


@dataclass(frozen=True, slots=True)
class Row:
    """One contender on one tier over all seeds. `always_on`: its replica-hours over those of the largest number all the
    time."""

    tier: str
    contender: str
    seeds: int
    figures: dict[str, Estimate]
    queues: tuple[QueueRow, ...]
    always_on: Estimate
    cost_month: Estimate

    def mean(self, name: str) -> float:
        return self.figures[name].mean

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    tiers: Tiers, traces: Callable[[int], Sequence[Arrival]], seeds: Sequence[int], rules: Sequence[Contender],
    faults: Faults, told: Callable[[str], None] = lambda _: None,
) -> list[Row]:  # fmt: skip
    """A row for every tier that has arrivals and every contender. `traces`: arrivals of a seed, in order of time. `told` is
    called with what is replayed next. Raises `WrongQuestion` for a queue that no tier serves."""
    runs: dict[tuple[str, str], list[tuple[Figures, list[Any]]]] = {}
    for seed in seeds:
        trace = traces(seed)
        horizon_s = trace[-1].at_s + SLACK_S if trace else 0.0
        for tier, own in _by_tier(tiers, trace):
            for rule in rules:
                told(f"seed {seed}, {tier.name}, {rule.name}")
                found = _once(tier, own, rule, faults, seed, tiers.prices, horizon_s)
                runs.setdefault((tier.name, rule.name), []).append(found)
    return [_row(tiers.tier(tier), rule, found, tiers.prices) for (tier, rule), found in runs.items()]


def _once(
    tier: Tier, own: Sequence[Arrival], rule: Contender, faults: Faults, seed: int, prices: Prices, horizon_s: float
) -> tuple[Figures, list[Any]]:
    suffered = replace(faults, dies_after=DIES_AFTER) if rule.plain else faults
    replay = Replay(tier, own, rule.make(tier, prices), rule.service, suffered, seed, rule.tick_s, horizon_s).run()
    return figures(replay, prices), by_queue(replay)


def _by_tier(tiers: Tiers, trace: Sequence[Arrival]) -> Iterator[tuple[Tier, list[Arrival]]]:
    home = {queue: tiers.of_queue(queue).name for queue in dict.fromkeys(job.queue for job in trace)}
    for tier in tiers.tiers.values():
        own = [job for job in trace if home[job.queue] == tier.name]
        if own:
            yield tier, own


def _row(tier: Tier, rule: str, found: Sequence[tuple[Figures, list[Any]]], prices: Prices) -> Row:
    each = [one for one, _ in found]
    shares = [f.replica_hours / (f.days * 24 * max(1, tier.most)) for f in each]
    months = [f.cost / f.days * DAYS_A_MONTH for f in each]
    names = dict.fromkeys(q.queue for _, queues in found for q in queues)
    rows = tuple(_queue_row(name, [q for _, queues in found for q in queues if q.queue == name]) for name in names)
    return Row(tier.name, rule, len(each), together(each), rows, _estimate(shares), _estimate(months))


def _queue_row(name: str, seen: Sequence[Any]) -> QueueRow:
    def mean(field: str) -> float:
        return float(sum(getattr(q, field) for q in seen) / len(seen))

    return QueueRow(name, *(mean(f) for f in ("jobs", "wait_p50_s", "wait_p95_s", "wait_p99_s", "missed")))


def _estimate(values: Sequence[float]) -> Estimate:
    many = len(values)
    mean = sum(values) / many
    if many == 1:
        return Estimate(mean, 0.0)
    spread = (sum((v - mean) ** 2 for v in values) / (many - 1)) ** 0.5
    return Estimate(mean, student(many - 1) * spread / many**0.5)


WAITING = ("wait p50", "p95", "p99 s", "missed", "delay p95 s", "slowdown", "never", "kills", "redone h")
MACHINES = ("replica h", "of always on", "bound h", "over h", "under h", "used", "peak", "flips", "a month")


def waiting_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What jobs of a tier go through, a row a contender; means over seeds, with the interval where it matters most."""
    lines: list[tuple[str, ...]] = [("", *WAITING)]
    for row in rows:
        m, delay = row.mean, row.figures["delay_p95_s"]
        lines.append(
            (
                row.contender, f"{m('wait_p50_s'):,.0f}", f"{m('wait_p95_s'):,.0f}", f"{m('wait_p99_s'):,.0f}",
                f"{m('missed'):.2%}", _with_half(delay), f"{m('slowdown'):.2f}", f"{m('never'):.1f}",
                f"{m('kills'):.1f}", f"{m('redone_hours'):.1f}",
            )
        )  # fmt: skip
    return lines


def machines_table(rows: Sequence[Row], prices: Prices) -> list[tuple[str, ...]]:
    """What a tier's machines do and cost."""
    lines: list[tuple[str, ...]] = [("", *MACHINES[:-1], f"{prices.currency} a month")]
    for row in rows:
        m = row.mean
        lines.append(
            (
                row.contender, _with_half(row.figures["replica_hours"]), f"{row.always_on.mean:.1%}",
                f"{m('bound_hours'):,.1f}", f"{m('over_hours'):,.1f}", f"{m('under_hours'):,.1f}",
                f"{m('utilisation'):.0%}", f"{m('peak'):.1f}", f"{m('flips'):.0f}", f"{row.cost_month.mean:,.0f}",
            )
        )  # fmt: skip
    return lines


def queues_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Waits of each queue."""
    lines: list[tuple[str, ...]] = [("", "queue", "jobs", "wait p50", "p95", "p99 s", "missed")]
    for row in rows:
        for q in row.queues:
            lines.append(
                (
                    row.contender, q.queue, f"{q.jobs:,.0f}", f"{q.wait_p50_s:,.1f}", f"{q.wait_p95_s:,.1f}",
                    f"{q.wait_p99_s:,.1f}", f"{q.missed:.2%}",
                )
            )  # fmt: skip
    return lines


def _with_half(one: Estimate) -> str:
    return f"{one.mean:,.0f} ± {one.half:,.0f}" if one.half else f"{one.mean:,.0f}"
