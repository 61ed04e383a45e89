"""How much of the slots simulations can have, when trials are told in order and k of them are in flight.

In reproducible order trial n + k waits for trial n, however long that takes; with run times that differ much, slots wait. This
replays the measured times of simulations through the loop's own rule (an event simulation, seconds for seconds), so the
estimate has no distribution to assume. Pure; does not run anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

ENOUGH = 0.9
SIMULATED = 600
"""Trials that are replayed."""


def utilisation(
    seconds: Sequence[float], replicates: Sequence[int], slots: int, in_flight: int, rng: np.random.Generator,
    *, in_order: bool = True, at_once: int = 1, trials: int = SIMULATED,
) -> float:  # fmt: skip
    """The share of slots x time that simulations have in the long run.

    seconds: of simulations, as measured; replicates: of trials, as they ended; both are drawn from. at_once: replicates of a
    trial that start together. in_order: trials are told by number, else as they end.
    """
    draws, counts = np.asarray(seconds, np.float64), np.asarray(replicates)
    many = counts[rng.integers(len(counts), size=trials)]
    spans = draws[rng.integers(len(draws), size=(trials, int(many.max())))]
    waiting: list[tuple[int, int]] = []  # (trial, replicate) that want a slot, the oldest trial first
    running: list[tuple[float, int, int]] = []
    left, begun = many.copy(), np.zeros(trials, np.int64)
    ended: list[int] = []
    asked = told = 0
    free, now, busy = slots, 0.0, 0.0
    marks: list[tuple[float, float]] = []
    while told < trials:
        while asked < trials and asked - told < in_flight:
            for r in range(min(at_once, int(many[asked]))):
                heapq.heappush(waiting, (asked, r))
            begun[asked] = min(at_once, int(many[asked]))
            asked += 1
        while free and waiting:
            n, r = heapq.heappop(waiting)
            heapq.heappush(running, (now + spans[n, r], n, r))
            busy += spans[n, r]
            free -= 1
        now, n, _ = heapq.heappop(running)
        free += 1
        left[n] -= 1
        if left[n]:
            if begun[n] < many[n]:
                heapq.heappush(waiting, (n, int(begun[n])))
                begun[n] += 1
            continue
        heapq.heappush(ended, n)
        while ended and (ended[0] == told or not in_order):
            heapq.heappop(ended)
            told += 1
        marks.append((now, busy - sum(t - now for t, *_ in running)))
    # The first and the last trials fill and drain the slots, which a long search does not notice.
    (from_s, from_busy), (to_s, to_busy) = marks[len(marks) // 10], marks[len(marks) - len(marks) // 10 - 1]
    return float((to_busy - from_busy) / (slots * (to_s - from_s))) if to_s > from_s else 1.0


def advised(
    seconds: Sequence[float], replicates: Sequence[int], slots: int, in_flight: int, seed: int, at_once: int = 1
) -> tuple[float, int]:
    """The share that is possible with so many in flight, and the least doubling of it from which on it is at least .9 (of 64
    doublings of nothing: as many as would do up to 64 times the slots)."""

    def at(k: int) -> float:
        return utilisation(seconds, replicates, slots, k, np.random.default_rng(seed), at_once=at_once)

    now = at(in_flight)
    k = in_flight
    while at(k) < ENOUGH and k < 64 * slots:
        k *= 2
    return now, k
