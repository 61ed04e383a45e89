"""Timing lines of worker logs, read and joined: what ran where, for how long, and how often.

    SIM_TIMING: param_id= seed= duration_ms= worker=
    AGG_TIMING: run_id= param_id= target= n_sim_returns= n_outputs= total_inline_mb= max_single_kb= duration_ms= worker=

with whatever stands before them (a time, a level, the pod that `kubectl logs --prefix` names). `read` finds them,
`history` lays them out as a run's ledger would be: with times of day they have a place in time; without, the tasks of a
worker are laid end to end. Parts that such lines cannot tell are listed as unknown. See `rules.pattern` for what is
found in them.
"""

from __future__ import annotations

import datetime
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from millrace.diagnose.words import percent
from millrace.run.errors import WrongQuestion
from millrace.run.ledger import COLUMNS, STATES, UNUSUAL, History
from millrace.run.task import Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARK = re.compile(r"\b(SIM|AGG)_TIMING:\s*(.*)")
FIELD = re.compile(r"\b([a-z_]+)=([^\s,\"\\]+)")
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?")
POD = re.compile(r"\[?(?:pod/)?([\w.-]+)/[\w.-]+\]?\s")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHOWN_LINES, SHOWN_CHARACTERS = 5, 160
COARSE_S = 5.0
"""Times of day in whole seconds say where a task was only when it took longer than this."""

UNKNOWN = (
    "off_cpu", "collector", "throttled", "read", "write", "load", "start", "transfer", "engine", "driver", "starved",
    "host", "stopped", "lost",
)  # fmt: skip
"""Parts of PARTS that timing lines do not tell."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One line. `at_s`: when it was written (seconds since 1970), None without a time; `inline_bytes`: of what an
    aggregation was handed, 0 where it is not said."""

    kind: Literal["SIM", "AGG"]
    param_id: str
    seed: str
    target: str
    run_id: str
    duration_s: float
    worker: str
    at_s: float | None
    whole_seconds: bool
    inline_bytes: int


@dataclass(frozen=True, slots=True)
class TimingLog:
    """What was found among `lines` lines. `first`: the first ones that are no timing lines; `broken`: those with the mark of
    one and without what it must have."""

    timings: tuple[Timing, ...]
    lines: int
    first: tuple[str, ...]
    broken: tuple[str, ...]


def read(lines: Iterable[str]) -> TimingLog:
    """All timing lines. `WrongQuestion` when there is none, with the first lines that were there instead."""
    found: list[Timing] = []
    first: list[str] = []
    broken: list[str] = []
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007 - how many there were
        marked = MARK.search(line) if "_TIMING:" in line else None
        timing = _timing(line, marked) if marked else None
        if timing is not None:
            found.append(timing)
        elif len(kept := broken if marked else first) < SHOWN_LINES:
            kept.append(COLOUR.sub("", line).strip()[:SHOWN_CHARACTERS])
    if not found:
        raise WrongQuestion(_none(count, first, broken))
    return TimingLog(tuple(found), count, tuple(first), tuple(broken))


def _none(count: int, first: list[str], broken: list[str]) -> str:
    if not count:
        return "There is no line at all to read: is it the right pod and container, and did it log anything yet?"
    what = "a SIM_TIMING or AGG_TIMING line that is whole" if broken else "a SIM_TIMING or AGG_TIMING line"
    shown = " | ".join(broken or first)
    return (
        f"None of {count:,} lines is {what}. Is it the right pod (a worker's, not the scheduler's), the right level (such "
        f"lines are often INFO), the right format (SIM_TIMING: param_id= seed= duration_ms= worker=)? The first were: {shown}"
    )


def _timing(line: str, marked: re.Match[str]) -> Timing | None:
    fields = dict(FIELD.findall(COLOUR.sub("", marked[2])))
    kind: Literal["SIM", "AGG"] = "SIM" if marked[1] == "SIM" else "AGG"
    try:
        duration_s = float(fields["duration_ms"]) / 1e3
        param_id = fields["param_id"]
        which = fields["seed"] if kind == "SIM" else fields["target"]
    except (KeyError, ValueError):
        return None
    before = line[: marked.start()]
    pod = POD.match(COLOUR.sub("", before))
    at_s, whole = _time(before) if TIME.search(before) else _time(line[marked.end(1) :])
    return Timing(
        kind, param_id, which if kind == "SIM" else "", which if kind == "AGG" else "", fields.get("run_id", ""),
        max(0.0, duration_s), fields.get("worker") or (pod[1] if pod else "unknown"), at_s, whole,
        round(_number(fields.get("total_inline_mb")) * (1 << 20)),
    )  # fmt: skip


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _time(text: str) -> tuple[float | None, bool]:
    found = TIME.search(text)
    if found is None:
        return None, False
    zone = (found[4] or "Z").replace("Z", "+00:00")
    try:
        when = datetime.datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp()
    except ValueError:
        return None, False
    return when + (float(f"0.{found[3]}") if found[3] else 0.0), found[3] is None


# -- as a ledger ---------------------------------------------------------------------------------------------------
def history(log: TimingLog, path: Path) -> History:
    """The lines as the history of a run; `path` is where they came from."""
    timed = is_timed(log)
    slots, begins, ends = _placed(log.timings, timed)
    made = History(path)
    names: dict[str, int] = {}
    groups: dict[str, int] = {}
    workers = sorted({t.worker for t in log.timings})
    columns = {name: array("q") for name in COLUMNS}
    for timing, slot, begin, end in zip(log.timings, slots.tolist(), begins.tolist(), ends.tolist(), strict=True):
        name = "simulate" if timing.kind == "SIM" else f"aggregate {timing.target}"
        row = dict.fromkeys(COLUMNS, 0) | UNUSUAL | {
            "name": names.setdefault(name, len(names)), "state": STATES.index("done"), "item": len(made.keys),
            "worker": slot, "pid": workers.index(timing.worker), "attempt": 1, "queued_ns": begin, "sent_ns": begin,
            "started_ns": begin, "ended_ns": end, "cpu_ns": end - begin, "in_bytes": timing.inline_bytes,
            "group": groups.setdefault(timing.param_id, len(groups)),
        }  # fmt: skip
        for column, value in row.items():
            columns[column].append(value)
        made.keys.append(f"{timing.run_id}/{timing.param_id}/{timing.seed or timing.target}")
    made.names, made.columns = list(names), columns
    first, last, count = int(begins.min()), int(ends.max()), int(slots.max()) + 1
    made.header = {
        "run_id": path.name or "-", "analysis": "timing lines", "engine": "logs", "slots": count, "from_ns": first,
        "unknown": UNKNOWN if timed else (*UNKNOWN, "tail"), "untimed": not timed, "budget": {"cores": count},
    }  # fmt: skip
    made.end = {"state": "done", "to_ns": last, "parts": {}, "throttled_ns": None}
    if timed:
        overs = [int(ends[slots == slot].max()) for slot in range(count)]
        made.spans = [Span(slot, "tail", over, last) for slot, over in enumerate(overs) if over < last]
    made.notes = _notes(log, timed)
    return made


def is_timed(log: TimingLog) -> bool:
    """Whether every line has a time of day that is fine enough to tell where its task was."""
    if any(t.at_s is None for t in log.timings):
        return False
    coarse = all(t.whole_seconds for t in log.timings)
    return not coarse or float(np.median([t.duration_s for t in log.timings])) >= COARSE_S


def _placed(timings: tuple[Timing, ...], timed: bool) -> tuple[NDArray[np.int64], ...]:
    """Slot, begin and end (ns) of each line. A worker that had several tasks at a time has several slots."""
    takes = np.array([round(t.duration_s * 1e9) for t in timings], dtype=np.int64)
    slots = np.zeros(len(timings), dtype=np.int64)
    begins, ends = np.zeros_like(takes), np.zeros_like(takes)
    rows = defaultdict(list)
    for row, timing in enumerate(timings):
        rows[timing.worker].append(row)
    if timed:
        earliest = min(t.at_s or 0.0 for t in timings)
        ends[:] = [round(((t.at_s or 0.0) - earliest) * 1e9) for t in timings]
        begins = ends - takes
        shift = 1 - int(begins.min())
        begins, ends = begins + shift, ends + shift
    count = 0
    for worker in sorted(rows):
        own = np.array(rows[worker])
        if not timed:
            ends[own] = 1 + np.cumsum(takes[own])
            begins[own] = ends[own] - takes[own]
        free: list[int] = []
        for row in own[np.argsort(begins[own], kind="stable")].tolist():
            slack = int(takes[row]) // 20 + 5_000_000  # a line is written some time after its task's end
            lane = next((i for i, over in enumerate(free) if over <= begins[row] + slack), len(free))
            free[lane : lane + 1] = [int(ends[row])]
            slots[row] = count + lane
        count += len(free)
    return slots, begins, ends


def _notes(log: TimingLog, timed: bool) -> list[str]:
    notes = []
    if not timed:
        notes.append(
            "The lines carry no time of day that tells where a task was (`kubectl logs --timestamps` adds one): tasks of a "
            "worker are laid end to end, and what was between them, the tail and the trials open at a time are unknown."
        )
    if log.broken:
        notes.append(f"Lines with the mark of a timing and without its fields, such as: {log.broken[0]}")
    return notes


# -- joined --------------------------------------------------------------------------------------------------------
def joined(log: TimingLog) -> list[tuple[str, str]]:
    """What the lines say together: (what, text), by param_id and worker."""
    sims = [t for t in log.timings if t.kind == "SIM"]
    aggs = [t for t in log.timings if t.kind == "AGG"]
    distinct = {(t.run_id, t.param_id, t.seed) for t in sims}
    trials = {t.param_id for t in log.timings}
    targets = sorted({t.target for t in aggs})
    lines = [
        ("lines", f"{len(sims):,} simulations and {len(aggs):,} aggregations among {log.lines:,} lines"),
        ("trials", f"{len(trials):,} by param_id, {len(log.timings) / len(trials):.3g} tasks each"),
    ]
    if sims:
        lines.append(
            ("simulations", f"{len(distinct):,} distinct (param_id, seed), {len(sims) - len(distinct):,} repeated")
        )
    if aggs:
        lines.append(("targets", f"{len(targets)}: {', '.join(targets[:8])}"))
        elsewhere, known = _moved(sims, aggs)
        told = (
            f"{percent(elsewhere / known)} had been simulated on another worker" if known else "unknown where simulated"
        )
        lines.append(("aggregated", f"{sum(t.inline_bytes for t in aggs) / (1 << 20):,.1f} MiB inline; {told}"))
    workers = Counter(t.worker for t in log.timings)
    busy = {w: sum(t.duration_s for t in log.timings if t.worker == w) for w in workers}
    most, least = max(busy.values()), min(busy.values())
    lines.append(("workers", f"{len(workers):,}; the busiest {most:,.1f} s, the least busy {least:,.1f} s"))
    return lines


def _moved(sims: list[Timing], aggs: list[Timing]) -> tuple[int, int]:
    """Of (aggregation, simulation of its param_id): how many were on two workers, of how many."""
    where = defaultdict(Counter)  # type: defaultdict[tuple[str, str], Counter[str]]
    runs = {t.run_id for t in sims}
    for sim in sims:
        where[(sim.run_id, sim.param_id)][sim.worker] += 1
    elsewhere = known = 0
    for agg in aggs:
        at = where[(agg.run_id if agg.run_id in runs else "", agg.param_id)]
        known += at.total()
        elsewhere += at.total() - at[agg.worker]
    return elsewhere, known
