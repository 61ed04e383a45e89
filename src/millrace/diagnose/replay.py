"""What a run would have taken under a change: its attempts replayed on its slots, event by event.

`scenario(history, timeline)` takes a run apart into jobs (attempts in the order in which they began), each with what its
slot did before it began and, where the slot had nothing to start, the outcome that the source was waiting for.
`wall_ns(scenario)` plays them back: the next job goes to the slot that is free first. The functions beside it return a
changed scenario; a gain is the change in replayed time, so what the replay itself gets wrong is in both.

Deterministic and pure. Does not know what is worth changing: see `rules`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.diagnose.timeline import KINDS, Lane, Timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millrace.run.ledger import History

    Ints = NDArray[np.int64]

CARRIED = ("start", "lost", "stopped", "transfer", "driver", "engine", "unexplained", "cut", "host")
"""What a slot did before a job and would do again. Starved and tail are not among them: the replay finds those anew."""

SENDING_NS = 1_000_000
"""How much later than its sending a slot's time without a task may end, and still be ended by it."""

MOST_JOBS = 6_000
"""Above this many, neighbours on a slot are replayed as one job: the picture is the same, the cost is bounded."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Jobs in order of start, as arrays of one length; times in ns.

    `took`: on the slot; `before`: by kind of CARRIED, what the slot does first; `after`: the job (its place here) that
    must be over, plus `lag`, before this one is there to be started, -1: it was there. `name`: into the history's names;
    `rows`: how many attempts a job stands for; `first`: the row of its first attempt. `ready`: by kind, what each slot
    does before its first job; `closing`: from the last job to the end of the run.
    """

    slots: int
    took: Ints
    before: Mapping[str, Ints]
    after: Ints
    lag: Ints
    name: Ints
    rows: Ints
    first: Ints
    ready: Mapping[str, Ints]
    closing: int

    @property
    def jobs(self) -> int:
        return len(self.took)


def scenario(history: History, timeline: Timeline) -> Scenario:
    """The run as it was, ready to be replayed."""
    names = np.asarray(history.columns["name"])
    together = max(1, -(-sum(len(lane.attempts) for lane in timeline.lanes) // MOST_JOBS))
    lanes = [_of_lane(lane, names, together) for lane in timeline.lanes]
    given = _given(timeline, np.asarray(history.columns["sent_ns"]))
    parts = {k: np.concatenate([lane[k] for lane in lanes]) for k in lanes[0] if k != "ready"}
    order = np.argsort(parts["begin"], kind="stable")
    parts = {k: v[order] for k, v in parts.items()}
    after, lag = _waits(parts["end"], given[parts["first"]])
    last = int(parts["end"].max(initial=timeline.from_ns))
    return Scenario(
        slots=len(timeline.lanes),
        took=parts["end"] - parts["begin"] - parts["inside"],
        before={kind: parts[kind] for kind in CARRIED},
        after=after,
        lag=lag,
        name=parts["name"],
        rows=parts["rows"],
        first=parts["first"],
        ready={kind: np.array([lane["ready"][kind] for lane in lanes], dtype=np.int64) for kind in CARRIED},
        closing=max(0, timeline.to_ns - last),
    )


def _of_lane(lane: Lane, names: Ints, together: int) -> dict[str, Any]:
    """Jobs of one slot: begin, end, and what came before each, by kind."""
    cuts = np.arange(0, len(lane.attempts), together)
    lasts = np.minimum(cuts + together, len(lane.attempts)) - 1
    begin, end = lane.begins[cuts], lane.ends[lasts]
    of: dict[str, Any] = {kind: np.zeros(len(cuts), dtype=np.int64) for kind in CARRIED}
    ready = dict.fromkeys(CARRIED, 0)
    inside = np.zeros(len(cuts), dtype=np.int64)  # gaps between the attempts of one job are told apart as well
    job = np.searchsorted(end, lane.edges[:-1], side="right")
    sizes = np.diff(lane.edges)
    for code, kind in enumerate(KINDS):
        pieces = np.flatnonzero(lane.labels == code)
        if kind == "task" or not len(pieces):
            continue
        within = job[pieces] < len(cuts)
        pieces, at = pieces[within], job[pieces][within]
        if kind in CARRIED:
            np.add.at(of[kind], at, sizes[pieces])
        held = lane.edges[pieces] >= begin[at]
        np.add.at(inside, at[held], sizes[pieces[held]])
    if len(cuts):
        for kind in CARRIED:
            ready[kind], of[kind][0] = int(of[kind][0]), 0
    else:
        ready["start"] = lane.total_ns("start")
    rows = lasts - cuts + 1
    first = lane.attempts[cuts]
    return {"begin": begin, "end": end, "inside": inside, "name": names[first] if len(first) else first,
            "rows": rows, "first": first, "ready": ready, **of}  # fmt: skip


def _given(timeline: Timeline, sent: Ints) -> Ints:
    """Of each attempt: the end of the last time without a task, on any slot, before it was sent; -1 for none.

    While one slot had nothing to start there was nothing for the others either, so whatever was sent later was not there.
    """
    starved = KINDS.index("starved")
    ends = np.unique(np.concatenate([lane.edges[1:][lane.labels == starved] for lane in timeline.lanes]))
    given = np.full(len(sent), -1, dtype=np.int64)
    for lane in timeline.lanes if len(ends) else ():
        told = sent[lane.attempts]
        when = np.where(told > 0, np.minimum(told, lane.begins), lane.begins) + SENDING_NS
        place = np.searchsorted(ends, when, side="right") - 1
        given[lane.attempts] = np.where(place >= 0, np.minimum(ends[place], lane.begins), -1)
    return given


def _waits(end: Ints, given: Ints) -> tuple[Ints, Ints]:
    """Which job's end each job waited for: the last one before it was given; and how long after that it was."""
    after = np.full(len(end), -1, dtype=np.int64)
    lag = np.zeros(len(end), dtype=np.int64)
    by_end = np.argsort(end, kind="stable")
    place = np.searchsorted(end[by_end], given, side="right") - 1
    waited = np.flatnonzero((given >= 0) & (place >= 0))
    after[waited] = by_end[place[waited]]
    lag[waited] = given[waited] - end[after[waited]]
    return after, lag


def wall_ns(played: Scenario) -> int:
    """How long the scenario takes when it is played back."""
    return int(ends_ns(played).max(initial=0)) + played.closing


def ends_ns(played: Scenario) -> Ints:
    """When each job is over. A job that waits for one further back in the order waits for none."""
    ready = sum((played.ready[kind] for kind in CARRIED), np.zeros(played.slots, dtype=np.int64))
    free = [int(r) for r in ready]
    heapq.heapify(free)
    first = sum((played.before[kind] for kind in CARRIED), np.zeros(played.jobs, dtype=np.int64))
    ends: list[int] = []
    for job, (took, before, after, lag) in enumerate(
        zip(played.took.tolist(), first.tolist(), played.after.tolist(), played.lag.tolist(), strict=True)
    ):
        begin = free[0]
        if 0 <= after < job:
            begin = max(begin, ends[after] + lag)
        ends.append(begin + before + took)
        heapq.heapreplace(free, ends[-1])
    return np.array(ends, dtype=np.int64)


def gain(played: Scenario, changed: Scenario) -> float:
    """What part of the wall time the change saves, -1 to 1; negative when it costs."""
    was = wall_ns(played)
    return max(-1.0, 1 - wall_ns(changed) / was) if was else 0.0


# -- changes -------------------------------------------------------------------------------------------------------
def without(played: Scenario, *kinds: str) -> Scenario:
    """Slots never do these kinds of CARRIED."""
    none, nothing = np.zeros(played.jobs, dtype=np.int64), np.zeros(played.slots, dtype=np.int64)
    before = {kind: none if kind in kinds else ns for kind, ns in played.before.items()}
    ready = {kind: nothing if kind in kinds else ns for kind, ns in played.ready.items()}
    return replace(played, before=before, ready=ready, closing=0 if "driver" in kinds else played.closing)


def shortened(played: Scenario, less: Ints) -> Scenario:
    """Each job takes so much less on its slot."""
    return replace(played, took=np.maximum(played.took - less, 0))


def unstarved(played: Scenario) -> Scenario:
    """Every job is there when a slot is free for it."""
    return replace(played, after=np.full(played.jobs, -1, dtype=np.int64))


def longest_first(played: Scenario) -> Scenario:
    """The longest job first: what a tail costs when the order may be chosen."""
    return taken(unstarved(played), np.argsort(-played.took, kind="stable"))


def on_slots(played: Scenario, slots: int) -> Scenario:
    """More or fewer slots; new ones start as the usual one did."""
    have = min(slots, played.slots)
    ready = {k: np.concatenate((v[:have], np.full(slots - have, int(np.median(v))))) for k, v in played.ready.items()}
    return replace(played, slots=slots, ready=ready)


def cut(played: Scenario, name: int, pieces: int) -> Scenario:
    """Every job of that name in so many equal pieces, each with the usual latency of its kind before it."""
    counts = np.where(played.name == name, pieces, 1)
    at = np.repeat(np.arange(played.jobs), counts)
    head = np.concatenate((np.zeros(1, dtype=bool), at[1:] == at[:-1])) if len(at) else np.zeros(0, dtype=bool)
    lasts = np.cumsum(counts) - 1
    changed = taken(replace(played, took=played.took // counts), at)
    ours = played.name == name
    usual = {k: int(np.median(v[ours])) if ours.any() and k in ("transfer", "engine") else 0
             for k, v in played.before.items()}  # fmt: skip
    before = {k: np.where(head, usual[k], v) for k, v in changed.before.items()}
    after = played.after[at]
    return replace(changed, before=before, after=np.where(after >= 0, lasts[after], -1), lag=played.lag[at])


def merged(played: Scenario, name: int, together: int) -> Scenario:
    """So many neighbours of that name as one job: what came before the first of them comes once."""
    ours = played.name == name
    number = np.cumsum(ours) - 1
    lead = ~ours | (number % together == 0)
    keep = np.flatnonzero(lead)
    target = np.cumsum(lead) - 1  # of jobs of other names: themselves
    leaders = np.flatnonzero(ours & lead)
    target[ours] = (np.cumsum(lead) - 1)[leaders[number[ours] // together]]
    took = np.zeros(len(keep), dtype=np.int64)
    np.add.at(took, target, played.took)
    changed = taken(played, keep)
    after = played.after[keep]
    return replace(changed, took=took, after=np.where(after >= 0, target[after], -1), lag=played.lag[keep])


def dropped(played: Scenario, gone: NDArray[np.bool_]) -> Scenario:
    """Without those jobs; who waited for one of them waits for what that one waited for."""
    after = played.after.copy()
    for job in np.flatnonzero(after >= 0).tolist():  # in order, so what a job waits for is settled already
        waits = int(after[job])
        after[job] = after[waits] if gone[waits] else waits
    return taken(replace(played, after=after), np.flatnonzero(~gone))


def taken(played: Scenario, order: NDArray[np.intp]) -> Scenario:
    """These jobs, in this order."""
    place = np.full(played.jobs + 1, -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    return replace(
        played,
        took=played.took[order],
        before={kind: ns[order] for kind, ns in played.before.items()},
        after=place[played.after[order]],
        lag=played.lag[order],
        name=played.name[order],
        rows=played.rows[order],
        first=played.first[order],
    )
