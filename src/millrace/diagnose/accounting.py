"""Where the core-seconds of a run went: a pure function of its ledger.

`account(history)` splits slots x wall into the parts of `PARTS`, which add up exactly (integers, in ns), and beside
them tells the driver's own time, the packing against an ideal one, and figures per kind of task. See `words` for all of
that in a few lines.

Does not read files, draw, or judge: see `timeline` (how time is labelled), `charts`, `report`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.diagnose.timeline import KILLED_STATES, Timeline, lay_out
from millrace.run.ledger import STATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millrace.run.ledger import History

PARTS: Mapping[str, str] = {
    "on_cpu": "analysis, on the processor",
    "collector": "analysis, collecting garbage",
    "off_cpu": "analysis, waiting",
    "throttled": "throttled by the CPU quota",
    "read": "reading input",
    "write": "writing results",
    "load": "imports and unpacking",
    "start": "starting workers",
    "transfer": "sending tasks",
    "engine": "engine latency",
    "driver": "waiting for the driver",
    "starved": "no task to start",
    "tail": "waiting for the last tasks",
    "host": "waiting for cores or memory of this host",
    "stopped": "cancelled or stolen attempts",
    "lost": "lost attempts",
    "cut": "after the ledger breaks off",
    "unexplained": "unexplained",
}
"""Every part of slots x wall and how people read it."""

ANALYSIS = ("on_cpu", "collector", "off_cpu")
"""The parts that are the analysis itself."""

UNEXPLAINED_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """Attempts of one name. Times in seconds of the whole attempt, medians and 95th percentiles over those that ran."""

    name: str
    done: int
    cached: int
    failed: int
    total_s: float
    cpu_s: float
    collector_s: float
    throttled_s: float
    median_s: float
    p95_s: float
    in_median_bytes: int
    out_median_bytes: int
    out_total_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Accounting:
    """What a run did with its slots. `parts_ns` has all names of PARTS and adds up to `slots * wall_ns`.

    `state`: of the `end` record, "killed" without one. `throttled_known`: the host could tell. `driver_ns`: the
    driver's own parts, of `wall_ns`. `ideal_ns`: the wall time of the attempts that ran to their end, packed
    greedily, in the order in which they started, onto the same slots. `memory_bytes`: at most this much at once
    (the driver's growth plus the largest attempt of each slot), 0 when nobody looked; `budget_bytes` 0: no limit.
    `unknown`: parts that the record cannot tell (of timing lines); what they may hold is in "unexplained".
    `hosts`: attempts by host; "" is the driver's. `gpu_ns`: how long tasks had each GPU, one at a time. `retried`:
    attempts that were not the first of their task. `groups`: those of which two tasks or more ran, and `split_groups`
    those of them that ran on several slots.
    """

    run_id: str
    analysis: str
    engine: str
    state: str
    slots: int
    wall_ns: int
    parts_ns: Mapping[str, int]
    throttled_known: bool
    driver_ns: Mapping[str, int]
    ideal_ns: int
    outcomes: Mapping[str, int]
    lost_attempts: int
    hosts: Mapping[str, int]
    gpu_ns: Mapping[str, int]
    retried: int
    groups: int
    split_groups: int
    tasks: tuple[TaskFigures, ...]
    driver_peak_bytes: int
    task_peak_bytes: int
    memory_bytes: int
    budget_bytes: int
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def core_ns(self) -> int:
        return self.slots * self.wall_ns

    @property
    def whole(self) -> bool:
        """The driver lived to write the end."""
        return self.state != "killed"

    @property
    def efficiency(self) -> float:
        """Ideal over real wall time, 0 to 1; 0 when nothing ran."""
        return self.ideal_ns / self.wall_ns if self.wall_ns else 0.0

    @property
    def finished(self) -> int:
        """Tasks that have a value: computed, or found in the store."""
        return self.outcomes.get("done", 0) + self.outcomes.get("cached", 0)

    def share(self, *parts: str) -> float:
        """These parts' share of slots x wall."""
        return sum(self.parts_ns[p] for p in parts) / self.core_ns if self.core_ns else 0.0

    def rates(self) -> dict[str, float]:
        """Finished tasks per minute, per slot and minute, and per core-second."""
        wall_s = self.wall_ns / 1e9
        minute = self.finished * 60 / wall_s if wall_s else 0.0
        return {
            "per_minute": minute,
            "per_slot_minute": minute / self.slots,
            "per_core_s": minute / 60 / self.slots,
        }

    def lines(self) -> list[str]:
        """What a run prints at its end; see `words.summary`."""
        from millrace.diagnose.words import summary

        return [f"{what:<12}{text}" for what, text in summary(self)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `result.json`: seconds, bytes, shares."""
        a = self
        return {
            "run_id": a.run_id,
            "analysis": a.analysis,
            "engine": a.engine,
            "state": a.state,
            "slots": a.slots,
            "wall_s": a.wall_ns / 1e9,
            "core_s": a.core_ns / 1e9,
            "parts_s": {part: None if part in a.unknown else ns / 1e9 for part, ns in a.parts_ns.items()},
            "shares": {part: None if part in a.unknown else a.share(part) for part in PARTS},
            "throttled_known": a.throttled_known,
            "driver_s": {part: ns / 1e9 for part, ns in a.driver_ns.items()},
            "ideal_wall_s": a.ideal_ns / 1e9,
            "efficiency": a.efficiency,
            "outcomes": dict(a.outcomes),
            "lost_attempts": a.lost_attempts,
            "hosts": dict(a.hosts),
            "gpus_s": {gpu: ns / 1e9 for gpu, ns in a.gpu_ns.items()},
            "retried": a.retried,
            "groups": {"of_several_tasks": a.groups, "on_several_slots": a.split_groups},
            "finished": a.finished,
            "rates": a.rates(),
            "tasks": [asdict(figures) for figures in a.tasks],
            "memory": {
                "driver_peak_bytes": a.driver_peak_bytes,
                "task_peak_bytes": a.task_peak_bytes,
                "at_most_bytes": a.memory_bytes,
                "budget_bytes": a.budget_bytes,
            },
            "notes": list(a.notes),
        }


def account(history: History, timeline: Timeline | None = None) -> Accounting:
    """Split a run's slots x wall into PARTS. `timeline`: of the same history, when it is there already."""
    timeline = timeline or lay_out(history)
    columns = {name: np.asarray(column) for name, column in history.columns.items()}
    header, end = history.header, history.end
    throttled_ns = end.get("throttled_ns")
    states = Counter(columns["state"].tolist())
    slot_peaks = [int(columns["peak_bytes"][lane.attempts].max(initial=0)) for lane in timeline.lanes]
    driver_peak = int(end.get("peak_bytes") or 0)
    groups, split = _groups(columns)
    return Accounting(
        run_id=str(header.get("run_id", "")),
        analysis=str(header.get("analysis", "")),
        engine=str(header.get("engine") or "none").removesuffix("Engine").lower(),
        state=str(end.get("state", "done")) if timeline.whole else "killed",
        slots=len(timeline.lanes),
        wall_ns=timeline.wall_ns,
        parts_ns=_parts(timeline, columns, int(throttled_ns or 0), header.get("unknown", ())),
        throttled_known=throttled_ns is not None,
        driver_ns={name.removesuffix("_ns"): int(ns) for name, ns in end.get("parts", {}).items()},
        ideal_ns=_ideal(timeline, columns["state"]),
        outcomes={STATES[state]: count for state, count in sorted(states.items())},
        lost_attempts=_lost(history, columns),
        hosts=_hosts(history.hosts, columns),
        gpu_ns=_gpus(history.hosts, columns),
        retried=int((columns["attempt"] > 1).sum()),
        groups=groups,
        split_groups=split,
        tasks=_figures(history.names, columns),
        driver_peak_bytes=driver_peak,
        task_peak_bytes=max(slot_peaks, default=0),
        memory_bytes=driver_peak + sum(slot_peaks) if any(slot_peaks) else driver_peak,
        budget_bytes=int((header.get("budget") or {}).get("private_bytes") or 0),
        notes=tuple(history.notes),
        unknown=tuple(header.get("unknown", ())),
    )


def _parts(
    timeline: Timeline, columns: Mapping[str, NDArray[np.int64]], throttled_ns: int, unknown: Sequence[str] = ()
) -> dict[str, int]:
    """Idle time by label, attempts by their own measures; integers, so that the sum is exact.

    What the worker says of the inside of an attempt is cut to the attempt. Processor time goes to unpacking, imports
    and writing first (they compute; reading waits), what is left of it to the analysis. Throttled time has no place
    on the time axis: a throttled task looks as one that waits, so it comes off that part and is never more than it. It is
    what attempts tell; where none tells of any, that of the run (of ledgers without such a column, say).
    """
    parts, told = dict.fromkeys(PARTS, 0), 0
    for lane in timeline.lanes:
        for name in (
            "start",
            "transfer",
            "engine",
            "driver",
            "starved",
            "tail",
            "host",
            "stopped",
            "lost",
            "cut",
            "unexplained",
        ):
            parts[name] += lane.total_ns(name)
        ran = _ran(columns["state"][lane.attempts])
        rows, left = lane.attempts[ran], (lane.ends - lane.begins)[ran]
        inside = {}
        for name, measures in (
            ("load", ("unpack_ns", "enter_ns")),
            ("read", ("read_ns",)),
            ("write", ("write_ns",)),
        ):
            said = sum(np.maximum(columns[m][rows], 0) for m in measures)
            inside[name] = np.minimum(said, left)
            left = left - inside[name]
            parts[name] += int(inside[name].sum())
        on_cpu = np.clip(columns["cpu_ns"][rows] - inside["load"] - inside["write"], 0, left)
        collector = np.clip(columns["gc_ns"][rows], 0, on_cpu)
        parts["collector"] += int(collector.sum())
        parts["on_cpu"] += int((on_cpu - collector).sum())
        parts["off_cpu"] += int((left - on_cpu).sum())
        told += int(np.clip(columns["throttled_ns"][rows], 0, left - on_cpu).sum())
    parts["throttled"] = told or max(0, min(throttled_ns, parts["off_cpu"]))
    parts["off_cpu"] -= parts["throttled"]
    for part in unknown:
        parts["unexplained"] += parts[part]
        parts[part] = 0
    return parts


def _ran(states: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Attempts that ran to their end, with a value or an exception."""
    return np.isin(states, (STATES.index("done"), STATES.index("raised")))


def _ideal(timeline: Timeline, states: NDArray[np.int64]) -> int:
    """List scheduling of what ran, in the order of start: each goes to the slot that is free first.

    In that order no attempt can start later than it really did (fewer than `slots` of those before it are still
    running at its real start), so the result is never above the real wall time.
    """
    ran = [_ran(states[lane.attempts]) for lane in timeline.lanes]
    begins = np.concatenate(
        [np.zeros(0, np.int64), *(lane.begins[r] for lane, r in zip(timeline.lanes, ran, strict=True))]
    )
    ends = np.concatenate([np.zeros(0, np.int64), *(lane.ends[r] for lane, r in zip(timeline.lanes, ran, strict=True))])
    durations = (ends - begins)[np.argsort(begins, kind="stable")]
    if len(timeline.lanes) == 1:
        return int(durations.sum())
    free = [0] * len(timeline.lanes)
    for duration in durations.tolist():
        heapq.heapreplace(free, free[0] + duration)
    return max(free, default=0)


def _lost(history: History, columns: Mapping[str, NDArray[np.int64]]) -> int:
    """Attempts that a death or a ceiling took; one that has both a span and an outcome counts once."""
    spans = Counter(span.key for span in history.spans if span.kind == "lost")
    killed = np.isin(columns["state"], [STATES.index(s) for s in KILLED_STATES]) & (columns["started_ns"] > 0)
    return spans.total() + sum(history.keys[row] not in spans for row in np.flatnonzero(killed).tolist())


def _hosts(names: Sequence[str], columns: Mapping[str, NDArray[np.int64]]) -> dict[str, int]:
    """How many attempts ran on each host."""
    counts = Counter(columns["host"][columns["started_ns"] > 0].tolist())
    return {"" if host < 0 else names[host]: count for host, count in sorted(counts.items())}


def _gpus(names: Sequence[str], columns: Mapping[str, NDArray[np.int64]]) -> dict[str, int]:
    """By number, and host where that is not the driver's."""
    used = np.flatnonzero(columns["gpu_ns"])
    total: Counter[str] = Counter()
    for host, gpu, ns in zip(*(columns[c][used].tolist() for c in ("host", "gpu", "gpu_ns")), strict=True):
        total[str(gpu) if host < 0 else f"{gpu} on {names[host]}"] += ns
    return dict(sorted(total.items()))


def _groups(columns: Mapping[str, NDArray[np.int64]]) -> tuple[int, int]:
    """Groups of two tasks or more that ran, and how many of those on more than one slot."""
    ran = (columns["group"] >= 0) & (columns["started_ns"] > 0) & (columns["worker"] >= 0)
    if not ran.any():
        return 0, 0
    group, worker = columns["group"][ran], columns["worker"][ran]
    sizes = np.bincount(group)
    pairs = np.unique(np.stack((group, worker)), axis=1)
    places = np.bincount(pairs[0], minlength=len(sizes))
    return int((sizes > 1).sum()), int(((sizes > 1) & (places > 1)).sum())


def _figures(names: list[str], columns: Mapping[str, NDArray[np.int64]]) -> tuple[TaskFigures, ...]:
    """Figures per name, the most core-seconds first."""
    order = np.argsort(columns["name"], kind="stable")
    cuts = np.flatnonzero(np.diff(columns["name"][order])) + 1
    groups = np.split(order, cuts) if len(order) else []
    figures = [_figures_of(names[int(columns["name"][rows[0]])], rows, columns) for rows in groups]
    return tuple(sorted(figures, key=lambda f: (-f.total_s, f.name)))


def _figures_of(name: str, rows: NDArray[np.intp], columns: Mapping[str, NDArray[np.int64]]) -> TaskFigures:
    states = columns["state"][rows]
    done, cached = states == STATES.index("done"), states == STATES.index("cached")
    ran = rows[_ran(states) & (columns["started_ns"][rows] > 0)]
    took = columns["ended_ns"][ran] - columns["started_ns"][ran]
    median, p95 = np.percentile(took, (50, 95)) / 1e9 if len(ran) else (0.0, 0.0)
    return TaskFigures(
        name=name,
        done=int(done.sum()),
        cached=int(cached.sum()),
        failed=int((~done & ~cached).sum()),
        total_s=float(took.sum()) / 1e9,
        cpu_s=float(columns["cpu_ns"][ran].sum()) / 1e9,
        collector_s=float(columns["gc_ns"][ran].sum()) / 1e9,
        throttled_s=float(columns["throttled_ns"][ran].sum()) / 1e9,
        median_s=float(median),
        p95_s=float(p95),
        in_median_bytes=_median(columns["in_bytes"][ran]),
        out_median_bytes=_median(columns["out_bytes"][ran]),
        out_total_bytes=int(columns["out_bytes"][ran].sum()),
        peak_bytes=int(columns["peak_bytes"][rows].max(initial=0)),
    )


def _median(values: NDArray[np.int64]) -> int:
    return int(np.median(values)) if len(values) else 0
