"""A calibration as it is usually laid out on a cluster, as a small discrete-event world that writes timing lines.

A thread a trial submits its replicates once for each target, and an aggregation task for each target gathers them;
whichever worker is free first takes the next task.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    at_s: float
    text: str
    worker: str


def usual_pattern(
    trials: int = 12,
    targets: tuple[str, ...] = ("prevalence", "deaths"),
    replicates: int = 5,
    workers: int = 4,
    simulate_s: float = 0.4,
    aggregate_s: float = 0.05,
    once: bool = False,
    seed: int = 0,
) -> list[Line]:
    """Lines in the order in which tasks end. `once`: a simulation serves all targets, and nothing is aggregated in tasks."""
    draw = random.Random(seed)
    takes = {(t, s): simulate_s * draw.lognormvariate(0, 0.4) for t in range(trials) for s in range(replicates)}
    queue: list[tuple[float, int, str]] = []  # (when it may start, trial, line)
    for trial in range(trials):
        for _ in range(1 if once else len(targets)):
            for s in range(replicates):
                queue.append(
                    (
                        0.0,
                        trial,
                        f"SIM_TIMING: param_id=p{trial} seed={100 + s} duration_ms={1e3 * takes[trial, s]:.1f}",
                    )
                )
    free = [(0.0, f"worker-{w}") for w in range(workers)]
    heapq.heapify(free)
    order = draw.sample(range(len(queue)), len(queue)) if not once else range(len(queue))
    lines: list[Line] = []
    left = {trial: replicates * len(targets) for trial in range(trials)}
    waiting = [queue[i] for i in order]
    while waiting:
        begin, worker = heapq.heappop(free)
        ready, trial, text = waiting.pop(0)
        took = float(text.rsplit("duration_ms=")[1]) / 1e3
        end = max(begin, ready) + took
        heapq.heappush(free, (end, worker))
        lines.append(Line(end, f"{text} worker={worker}", worker))
        if text.startswith("SIM") and not once:
            left[trial] -= 1
            if not left[trial]:
                waiting += [(end, trial, _aggregate(trial, target, replicates, aggregate_s)) for target in targets]
    return sorted(lines, key=lambda line: line.at_s)


def _aggregate(trial: int, target: str, replicates: int, took_s: float) -> str:
    return (
        f"AGG_TIMING: run_id=r1 param_id=p{trial} target={target} n_sim_returns={replicates} n_outputs=3 "
        f"total_inline_mb=2.5 max_single_kb=512.0 duration_ms={1e3 * took_s:.1f}"
    )
