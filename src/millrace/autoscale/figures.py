"""What a replay comes to, and several seeds together with confidence intervals; the clairvoyant bound.

Percentiles are order statistics: element floor(n f) of the sorted values. Draws nothing (see `charts`).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from millrace.autoscale.simulate import Replay
from millrace.tiers import Prices

FLIP_S = 600.0
"""A change of direction within this time is a flip."""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """Waits of one queue's jobs in seconds, from arrival to first start; `missed`: share that waited longer than the tier's
    objective (a job that never started missed it)."""

    queue: str
    jobs: int
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    missed: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One replay. `delay_p95_s`: 95th percentile of turnaround - size; `slowdown`: mean of turnaround / size;
    `bound_hours`: replica-hours that who knows all arrivals needs at least for the same work at the same times;
    `over_hours`, `under_hours`: replica-hours above and below what queued and running jobs needed; `strikes`: jobs killed
    from outside."""

    jobs: int
    never: int
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    wait_max_s: float
    delay_p95_s: float
    delay_p99_s: float
    slowdown: float
    missed: float
    replica_hours: float
    bound_hours: float
    over_hours: float
    under_hours: float
    cost: float
    utilisation: float
    kills: int
    strikes: int
    redone_hours: float
    flips: int
    peak: int
    boots: int
    slices: int
    alerts: int
    days: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds, and half the width of its 95 % confidence interval (0 for one seed)."""

    mean: float
    half: float


def figures(replay: Replay, prices: Prices) -> Figures:
    """The figures of a replay that has run."""
    at = np.array([job.at_s for job in replay.trace])
    size, ended, first = np.array(replay.size), np.array(replay.ended), np.array(replay.first)
    over = ended >= 0
    waits = np.sort((first - at)[over])
    delays = np.sort(np.maximum(0.0, (ended - at - size)[over]))
    slow = (ended - at)[over] / np.maximum(size[over], 1e-9)
    books, hours = replay.books, replay.books.alive_s / 3600
    horizon_s = max(replay.end_s, replay._now)
    return Figures(
        len(at), int((~over).sum()), *_percentiles(waits), float(waits[-1]) if len(waits) else 0.0,
        _at(delays, 0.95), _at(delays, 0.99), float(slow.mean()) if len(slow) else 0.0,
        _missed(replay, first, at), hours, bound_hours(replay, horizon_s), books.over_s / 3600, books.under_s / 3600,
        hours * replay.tier.price_hour(prices), books.busy_s / max(1e-9, books.alive_s * replay.slots), books.kills,
        books.strikes, books.redone_s / 3600, flips(books.turns), books.peak, books.boots, books.slices, books.alerts,
        horizon_s / 86_400,
    )  # fmt: skip


def by_queue(replay: Replay) -> list[QueueFigures]:
    """The waits of each queue."""
    rows = defaultdict(list)
    for index, job in enumerate(replay.trace):
        rows[job.queue].append((replay.first[index] - job.at_s) if replay.first[index] >= 0 else math.inf)
    found = []
    for queue, waits in sorted(rows.items()):
        values = np.sort(np.array(waits))
        missed = float((values > replay.tier.slo_s).mean())
        found.append(QueueFigures(queue, len(values), *_percentiles(values), missed))
    return found


def bound_hours(replay: Replay, horizon_s: float) -> float:
    """Replica-hours of a clairvoyant: the same jobs at the same times. Replica k of a stack bridges a gap in which fewer than
    k are needed either by staying or by leaving and booting again, whichever is shorter, and boots once before its first.
    """
    boot_s, total = replay.tier.boot_s, 0.0
    left_at: list[float | None] = []
    levels = [*replay.books.levels, (horizon_s, 0)]
    level, began = 0, [0.0] * (max((n for _, n in levels), default=0) + 1)
    left_at = [None] * len(began)
    for at, now in levels:
        for k in range(level, now):  # a replica more
            last = left_at[k]
            total += boot_s if last is None else min(at - last, boot_s)
            began[k] = at
        for k in range(now, level):  # one less
            total += at - began[k]
            left_at[k] = at
        level = now
    return total / 3600


def flips(turns: Sequence[tuple[float, int]]) -> int:
    """Changes of direction within ten minutes."""
    return sum(a[1] != b[1] and b[0] - a[0] < FLIP_S for a, b in pairwise(turns))


def together(seeds: Sequence[Figures]) -> dict[str, Estimate]:
    """Mean and 95 % interval of every figure over the seeds, by Student's t."""
    found = {}
    for one in fields(Figures):
        values = [float(getattr(f, one.name)) for f in seeds]
        many = len(values)
        half = student(many - 1) * statistics.stdev(values) / math.sqrt(many) if many > 1 else 0.0
        found[one.name] = Estimate(statistics.fmean(values), half)
    return found


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t. Exact for 1 and 2, else by Hill's expansion around the normal one
    (Abramowitz and Stegun 26.7.5), right to three digits."""
    if freedom <= 2:
        return (12.7062, 4.30265)[freedom - 1]
    z, v = 1.959964, float(freedom)
    return (
        z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )  # fmt: skip


def _missed(replay: Replay, first: np.ndarray, at: np.ndarray) -> float:
    waited = np.where(first >= 0, first - at, math.inf)
    return float((waited > replay.tier.slo_s).mean()) if len(at) else 0.0


def _percentiles(values: np.ndarray) -> tuple[float, float, float]:
    return _at(values, 0.5), _at(values, 0.95), _at(values, 0.99)


def _at(values: np.ndarray, share: float) -> float:
    return float(values[min(len(values) - 1, int(len(values) * share))]) if len(values) else 0.0
