"""What every slot did at every moment of a run: the ledger laid out on one time axis per slot.

The window of the run is cut at every edge that the ledger knows, and each piece gets one label, so nothing is counted
twice though spans and attempts may overlap by some microseconds of measuring. Where two things claim a piece, the more
certain one has it: an attempt was measured in the worker, a span of the slot was seen by the engine, a message has two
time stamps, a span of all slots comes next, and what is concluded comes last.

Does not add up (`accounting`) or draw (`charts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.run.ledger import STATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millrace.run.ledger import History

    Times = NDArray[np.int64]
    Intervals = tuple[Times, Times]

KINDS = (
    "task", "lost", "stopped", "start", "tail", "starved", "transfer", "driver", "cut", "engine", "unexplained", "host",
)  # fmt: skip
"""Labels of a piece of time.

`task`: an attempt that ran to its end; `lost`: one that was killed by a ceiling or with its worker; `stopped`: one that
was cancelled or stolen; `start`, `tail`, `starved`: spans of that name; `transfer`: a message was on its way to a
worker that waited for it; `driver`: a span of that name, or nothing was in flight on any slot, so that only the driver
can have been at work; `cut`: after the last thing that a killed driver wrote of this slot; `host`: a span of that
name; `engine`: a gap up to `LATENCY_NS` that nothing explains; `unexplained`: the rest of it.
"""

LATENCY_NS = 20_000_000
"""A gap that no span explains counts as the engine's latency up to this: results go back every 20 ms."""

KILLED_STATES = ("cpu", "wall", "memory", "lost")
_CODE = {kind: code for code, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Lane:
    """One slot: pieces `edges[i]..edges[i+1]` with `labels[i]` (into KINDS), and its attempts in order of start.

    `attempts` are rows of the history, `begins`, `ends` their times clipped to the window and to each other. All
    times in ns of the host's monotonic clock.
    """

    slot: int
    edges: Times
    labels: NDArray[np.int8]
    attempts: NDArray[np.intp]
    begins: Times
    ends: Times

    def total_ns(self, kind: str) -> int:
        return int(np.diff(self.edges)[self.labels == _CODE[kind]].sum())


@dataclass(frozen=True, slots=True)
class Timeline:
    """All lanes of a run between `from_ns` and `to_ns`; `whole` is False when the driver was killed."""

    from_ns: int
    to_ns: int
    whole: bool
    lanes: tuple[Lane, ...]

    @property
    def wall_ns(self) -> int:
        return self.to_ns - self.from_ns


def lay_out(history: History) -> Timeline:
    """The timeline of a run, from what its ledger holds; without an `end` record, up to the last thing written.

    A run that needed no engine (all was in the store) has the driver as its one slot.
    """
    columns = {
        name: np.asarray(history.columns[name]) for name in ("state", "worker", "sent_ns", "started_ns", "ended_ns")
    }
    measured = (columns["worker"] >= 0) & (columns["started_ns"] > 0) & (columns["ended_ns"] > 0)
    begin = int(history.header["from_ns"])
    whole = "to_ns" in history.end
    last = max((s.to_ns for s in history.spans), default=begin)
    end = int(history.end["to_ns"]) if whole else max(last, int(columns["ended_ns"].max(initial=begin)))
    end = max(begin, end)
    slots = max(1, int(history.header.get("slots") or 1), int(columns["worker"].max(initial=-1)) + 1)
    spans = _spans(history, slots, begin, end)
    quiet = _quiet(columns, measured, spans, begin, end)
    rows = [np.flatnonzero(measured & (columns["worker"] == slot)) for slot in range(slots)]
    lanes = tuple(
        _lane(
            slot,
            rows[slot],
            columns,
            spans[slot],
            spans[-1],
            quiet,
            (begin, end, end if whole else last, whole),
        )
        for slot in range(slots)
    )
    return Timeline(begin, end, whole, lanes)


def _spans(history: History, slots: int, begin: int, end: int) -> dict[int, dict[str, Intervals]]:
    """Spans by slot (-1: all of them) and kind, merged and inside the window."""
    found: dict[int, dict[str, list[tuple[int, int]]]] = {slot: {} for slot in range(-1, slots)}
    for span in history.spans:
        low, high = max(begin, span.from_ns), min(end, span.to_ns)
        if low < high and span.slot in found:
            found[span.slot].setdefault(span.kind, []).append((low, high))
    return {
        slot: {kind: _merged(*np.array(pairs, dtype=np.int64).T) for kind, pairs in kinds.items()}
        for slot, kinds in found.items()
    }


def _quiet(
    columns: dict[str, Any],
    measured: NDArray[np.bool_],
    spans: dict[int, dict[str, Intervals]],
    begin: int,
    end: int,
) -> Intervals:
    """When nothing was in flight, being started or being lost on any slot: only the driver can have been at work."""
    started, sent = columns["started_ns"][measured], columns["sent_ns"][measured]
    froms = [np.where(sent > 0, np.minimum(sent, started), started)]
    tos = [columns["ended_ns"][measured]]
    for kinds in spans.values():
        for kind in ("start", "lost", "stopped"):
            if kind in kinds:
                froms.append(kinds[kind][0])
                tos.append(kinds[kind][1])
    low, high = _merged(np.concatenate(froms).clip(begin, end), np.concatenate(tos).clip(begin, end))
    return np.concatenate(([begin], high)), np.concatenate((low, [end]))


def _lane(
    slot: int,
    rows: NDArray[np.intp],
    columns: dict[str, Any],
    own: dict[str, Intervals],
    common: dict[str, Intervals],
    quiet: Intervals,
    window: tuple[int, int, int, bool],
) -> Lane:
    """Layers are painted over one another, the least certain first.

    A killed driver has not written its last second of spans (all slots: from `spanned`), nor what was still in flight
    (a slot after its last record); what nothing else explains there is `cut`.
    """
    begin, end, spanned, whole = window
    rows = rows[np.argsort(columns["started_ns"][rows], kind="stable")]
    begins, ends = _clipped(columns["started_ns"][rows], columns["ended_ns"][rows], begin, end)
    states = columns["state"][rows]
    killed = np.isin(states, [STATES.index(s) for s in KILLED_STATES])
    stopped = states == STATES.index("cancelled")
    idle_from = np.concatenate(([begin], ends[:-1])) if len(rows) else ends
    sent = np.maximum(columns["sent_ns"][rows], idle_from)
    waited = (columns["sent_ns"][rows] > idle_from) & (sent < begins)
    last = max([begin, *ends[-1:].tolist(), *(int(tos[-1]) for _, tos in own.values())])
    layers: list[tuple[str, Intervals]] = [
        ("cut", _one(spanned, end)),
        ("driver", quiet),
        ("cut", _one(end if whole else last, end)),
        *[("driver", of["driver"]) for of in (common, own) if "driver" in of],
        *[(kind, of) for kind, of in common.items() if kind == "host"],
        ("transfer", (sent[waited], begins[waited])),
        *[
            (kind, own[kind])
            for kind in ("starved", "tail", "start", "host", "engine", "stopped", "lost")
            if kind in own
        ],
        ("stopped", (begins[stopped], ends[stopped])),
        ("lost", (begins[killed], ends[killed])),
        ("task", (begins[~killed & ~stopped], ends[~killed & ~stopped])),
    ]
    edges = np.unique(np.concatenate([[begin, end], *(side for _, pair in layers for side in pair)]))
    labels = np.full(len(edges) - 1, _CODE["unexplained"], dtype=np.int8)
    for kind, (froms, tos) in layers:
        labels[_covered(froms, tos, edges[:-1])] = _CODE[kind]
    edges, labels = _with_latency(edges, labels)
    return Lane(slot, edges, labels, rows, begins, ends)


def _with_latency(edges: Times, labels: NDArray[np.int8]) -> tuple[Times, NDArray[np.int8]]:
    """Neighbours of one label joined (tasks kept apart), and the first LATENCY_NS of each gap given to the engine."""
    joins = (labels[1:] == labels[:-1]) & (labels[1:] != _CODE["task"])
    keep = np.concatenate(([True], ~joins)) if len(labels) else np.zeros(0, dtype=bool)
    edges, labels = np.concatenate((edges[:-1][keep], edges[-1:])), labels[keep]
    gap = labels == _CODE["unexplained"]
    cuts = (edges[:-1] + LATENCY_NS)[gap & (np.diff(edges) > LATENCY_NS)]
    all_edges = np.union1d(edges, cuts)
    at = np.searchsorted(edges, all_edges[:-1], side="right") - 1
    new = labels[at]
    new[gap[at] & (all_edges[:-1] < edges[at] + LATENCY_NS)] = _CODE["engine"]
    return all_edges, new


def _clipped(started: Times, ended: Times, begin: int, end: int) -> Intervals:
    """Attempts of one slot, in order of start, inside the window and none before the end of those before it."""
    ends = np.maximum.accumulate(ended.clip(begin, end)) if len(ended) else ended
    before = np.concatenate(([begin], ends[:-1])) if len(ended) else ended
    begins = np.minimum(np.maximum(started.clip(begin, end), before), ends)
    return begins, ends


def _merged(froms: Times, tos: Times) -> Intervals:
    """The union of intervals, as sorted intervals that do not touch."""
    order = np.argsort(froms, kind="stable")
    froms, tos = froms[order], np.maximum.accumulate(tos[order]) if len(tos) else tos
    first = np.concatenate(([True], froms[1:] > tos[:-1])) if len(froms) else np.zeros(0, dtype=bool)
    return froms[first], tos[np.concatenate((first[1:], [True]))] if len(froms) else tos


def _covered(froms: Times, tos: Times, at: Times) -> NDArray[np.bool_]:
    """Which of `at` lie in one of the sorted, disjoint intervals [from, to)."""
    if not len(froms):
        return np.zeros(len(at), dtype=bool)
    index = np.searchsorted(froms, at, side="right") - 1
    return (index >= 0) & (at < tos[index])


def _one(begin: int, end: int) -> Intervals:
    return np.array([begin], dtype=np.int64), np.array([end], dtype=np.int64)


def shares(timeline: Timeline, bins: int) -> NDArray[np.float64]:
    """What part of each of `bins` equal steps of the run each lane spent on each kind: (lanes, KINDS, bins).

    The sum over kinds is 1. Exact however many pieces a step holds: the cumulative time of a kind is linear between
    edges, so its differences at the steps' ends are taken; nothing is sampled.
    """
    steps = np.linspace(timeline.from_ns, timeline.to_ns, bins + 1)
    found = np.zeros((len(timeline.lanes), len(KINDS), bins))
    if not timeline.wall_ns:
        return found
    for row, lane in enumerate(timeline.lanes):
        lengths = np.diff(lane.edges)
        for code in np.unique(lane.labels).tolist():
            so_far = np.concatenate(([0], np.cumsum(np.where(lane.labels == code, lengths, 0))))
            found[row, code] = np.diff(np.interp(steps, lane.edges, so_far))
    return found * (bins / timeline.wall_ns)
