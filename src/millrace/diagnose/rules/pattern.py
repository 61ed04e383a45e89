"""How the work was laid out: the same work twice, tasks that only gather, groups that are scattered.

The usual pattern of a calibration on a cluster has all of them at once: replicates are submitted once per target, each
target is aggregated in a task of its own, and a thread per trial waits for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from millrace.diagnose import replay
from millrace.diagnose.case import Case, Finding
from millrace.diagnose.words import duration, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

DUPLICATES, AGGREGATION, SPLIT, READ = 0.02, 2, 0.5, 0.05
TRIALS = 4
REPLICATES = 3


def duplicates(case: Case) -> Finding | None:
    """The same call was computed more than once."""
    again = _again(case)
    jobs = np.isin(case.scenario.first, again)
    share = float(case.scenario.took[jobs].sum()) / max(1, case.accounting.core_ns)
    if share < DUPLICATES:
        return None
    targets = _targets(case)
    why = f", once for each of {targets} targets" if targets > 1 else ""
    core_s = case.scenario.took[jobs].sum() / 1e9
    cost = f"{duration(core_s)}, {percent(share)} of the core-seconds"
    evidence = f"{len(again):,} of {len(case.ran):,} tasks computed what another had computed{why} ({cost})"
    advice = (
        "simulate once and evaluate all targets on the same outputs"
        if why
        else "key tasks by their content, and look before computing"
    )
    gain = case.gain(replay.dropped(case.scenario, jobs))
    named = "duplicate simulations" if targets > 1 else "duplicate tasks"
    return Finding(named, evidence, advice, share, gain, {"share": share, "duplicates": len(again), "targets": targets})


def _again(case: Case) -> NDArray[np.int64]:
    """Rows that ran with a key that an earlier row had."""
    seen: set[str] = set()
    found = []
    for row in case.ran.tolist():
        key = case.history.keys[row]
        if key in seen:
            found.append(row)
        seen.add(key)
    return np.array(found, dtype=np.int64)


def _targets(case: Case) -> int:
    return sum(name.startswith("aggregate") for name in case.history.names)


def aggregation(case: Case) -> Finding | None:
    """Tasks of their own that only gather what others computed, one a target."""
    gathers = [i for i, name in enumerate(case.history.names) if name.startswith("aggregate")]
    ours = np.isin(case.columns["name"][case.ran], gathers)
    groups = len(np.unique(case.columns["group"][case.ran][ours]))
    if len(gathers) < AGGREGATION or groups < 2:
        return None
    each = ours.sum() / groups
    tasks = len(case.ran) / max(1, len(np.unique(case.columns["group"][case.ran])))
    share = float(case.took[ours].sum()) / max(1, case.accounting.core_ns)
    jobs = np.isin(case.scenario.name, gathers)
    spent = case.took[ours].sum() / 1e9
    evidence = (
        f"{len(gathers)} targets are aggregated in {each:.0f} tasks of a trial, which has {tasks:.0f} tasks in all "
        f"({int(ours.sum()):,} aggregations, {duration(spent)})"
    )
    advice = "evaluate all targets of a trial where its outcomes arrive, in one pass and without tasks"
    gain = case.gain(replay.dropped(case.scenario, jobs))
    figures = {"per_trial": float(each), "tasks_per_trial": float(tasks), "targets": len(gathers)}
    return Finding("aggregation tasks", evidence, advice, share, gain, figures)


def fixed_replicates(case: Case) -> Finding | None:
    """Every trial of a calibration ran the same number of replicates, whatever they told."""
    if _targets(case) == 0 and case.history.header.get("analysis") != "calibrate":
        return None
    kinds = [i for i, name in enumerate(case.history.names) if name.startswith(("simulate", "simulation"))]
    groups = case.columns["group"][case.ran]
    rows = case.ran[np.isin(case.columns["name"][case.ran], kinds) & (groups >= 0)]  # those of a finish have no group
    keys = {(int(case.columns["group"][row]), case.history.keys[row]) for row in rows.tolist()}
    if not keys:
        return None
    counts = np.bincount(np.unique([group for group, _ in keys], return_inverse=True)[1])
    if len(counts) < TRIALS or counts.min() != counts.max() or counts[0] < REPLICATES:
        return None
    evidence = f"all {len(counts):,} trials ran {int(counts[0])} replicates each, whether they were promising or not"
    advice = (
        "stop the replicates of a trial that has lost already (stop_early of calibrate does, with replicates of 1 to "
        f"{int(counts[0])})"
    )
    return Finding(
        "fixed replicates", evidence, advice, 0.0, None, {"replicates": int(counts[0]), "trials": len(counts)}
    )


def open_trials(case: Case) -> Finding | None:
    """Every trial ends in gathering tasks of its own: somebody outside waits for each trial, as a rule in a thread."""
    gathers = [i for i, name in enumerate(case.history.names) if name.startswith("aggregate")]
    rows = case.ran[np.isin(case.columns["name"][case.ran], gathers)]
    trials = np.unique(case.columns["group"][rows])
    if len(trials) < TRIALS:
        return None
    untimed = bool(case.history.header.get("untimed"))
    together = 0.0 if untimed else _open(case)
    seen = "how many were open at a time is unknown" if untimed else f"{together:.3g} were open at a time"
    evidence = (
        f"each of {len(trials):,} trials ends in {len(rows) / len(trials):.0f} gathering tasks of its own, which a thread (or a "
        f"blocking gather) waits for; {seen} on {case.accounting.slots} workers"
    )
    advice = "one loop that takes outcomes as they come and asks for the next trial when a slot is free"
    ready = replay.unstarved(replay.without(case.scenario, "driver", "engine", "unexplained"))
    gain = None if untimed else case.gain(ready)
    return Finding("a thread per trial", evidence, advice, 0.0, gain, {"open": together, "trials": len(trials)})


def _open(case: Case) -> float:
    """How many groups were between their first start and their last end, on average over the run."""
    kept = case.ran[case.columns["group"][case.ran] >= 0]
    numbers, place = np.unique(case.columns["group"][kept], return_inverse=True)
    first, last = np.full(len(numbers), np.iinfo(np.int64).max), np.zeros(len(numbers), dtype=np.int64)
    np.minimum.at(first, place, case.columns["started_ns"][kept])
    np.maximum.at(last, place, case.columns["ended_ns"][kept])
    return float((last - first).sum()) / max(1, case.accounting.wall_ns)


def split_groups(case: Case) -> Finding | None:
    """Tasks of one group read the same things on several workers."""
    a = case.accounting
    parts = sum(np.maximum(case.columns[part][case.ran], 0) for part in ("read_ns", "unpack_ns"))
    reading = float(parts.sum()) / max(1, a.core_ns)  # a warm resource is entered once a worker, whatever runs where
    if case.log or a.groups < 4 or a.split_groups < SPLIT * a.groups or reading < READ:
        return None
    seen: set[tuple[int, ...]] = set()
    repeated = np.zeros(len(case.columns["state"]), dtype=bool)
    for row in case.ran.tolist():
        group = int(case.columns["group"][row])
        repeated[row] = group >= 0 and (group,) in seen
        seen.add((group,))
    less = np.where(repeated[case.scenario.first], case.per_job("read_ns", "unpack_ns"), 0)
    evidence = (
        f"{a.split_groups:,} of {a.groups:,} groups ran on several workers, and {percent(reading)} of the core-seconds went "
        "into reading and loading for them"
    )
    advice = "give what belongs together to one task, or keep values where they are made (keep=True) so that tasks follow them"
    gain = case.gain(replay.shortened(case.scenario, less))
    return Finding(
        "groups split over workers", evidence, advice, reading, gain, {"split": a.split_groups, "groups": a.groups}
    )
