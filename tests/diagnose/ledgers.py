"""Ledgers of made-up runs, written by the real writer. Times are in ms on the run's own clock."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from millrace.run.ledger import History, Ledger, replay
from millrace.run.task import Failure, Measures, Outcome, Span

MS = 1_000_000
START = 5_000_000 * MS


def at(ms: float) -> int:
    return START + round(ms * MS)


def attempt(
    slot: int,
    sent: float,
    started: float,
    ended: float,
    *,
    key: str = "k",
    state: str = "done",
    name: str = "work",
    group: Any = None,
    sizes: tuple[int, int, int] = (0, 0, 0),
    host: str = "",
    **ms: float,
) -> dict[str, Any]:
    """One attempt; `ms`: cpu, unpack, enter, read, write, gc, throttled in ms; `sizes`: bytes in, out, peak."""
    times = {f"{part}_ns": round(value * MS) for part, value in ms.items()}
    measures = Measures(slot, 100 + slot, 1, at(sent), at(started), at(ended), **times,
                        in_bytes=sizes[0], out_bytes=sizes[1], peak_bytes=sizes[2], host=host)  # fmt: skip
    return {"key": key, "state": state, "name": name, "measures": measures, "group": group}


def span(slot: int, kind: Any, start: float, end: float, key: str = "") -> Span:
    return Span(slot, kind, at(start), at(end), key)


def written(
    path: Path,
    slots: int,
    attempts: Iterable[dict[str, Any]] = (),
    spans: Iterable[Span] = (),
    end: float | None = None,
    **said: Any,
) -> History:
    """The replayed ledger of a run from 0 to `end` ms; without `end` its driver was killed."""
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    budget = {"cores": slots, "private_bytes": said.pop("private_bytes", 2 << 30)}
    analysis = said.pop("analysis", "explain")
    ledger.write("run", schema=1, run_id="made-up", analysis=analysis, started_at="2025-01-01T00:00:00Z", from_ns=START,
                 budget=budget, host={"cores": slots}, versions={"millrace": "0"}, spec={"method": "auto"}, seed=0)  # fmt: skip
    if "plan" in said:
        ledger.write("plan", **said.pop("plan"))
    if slots:
        ledger.write("engine", engine="ProcessEngine", slots=slots)
    for item, a in enumerate(attempts):
        failure = None if a["state"] in ("done", "cached") else Failure(a["state"], "made up")
        outcome = Outcome(a["key"], None, failure, a["measures"], a["state"] == "cached")
        ledger.attempt(outcome, a["name"], item, START, a["group"])
    ledger.spans(spans)
    if "strain" in said:
        ledger.write("strain", cpu_waiting=said.pop("strain"))
    for text in said.pop("notes", ()):
        ledger.write("note", text=text)
    if end is not None:
        ledger.write("end", state="done", to_ns=at(end), **{"parts": {}, "throttled_ns": None, "peak_bytes": 0, **said})
    ledger.close()
    return replay(path)


def busy_run(path: Path, slots: int, tasks: int, task_ms: float = 50.0, seed: int = 0) -> History:
    """A run of two kinds of tasks with starts, a slow driver, losses and a tail, as an engine would tell it."""
    draw = random.Random(seed)
    free = [400.0 + 20 * slot for slot in range(slots)]
    spans = [span(slot, "start", 30, free[slot]) for slot in range(slots)]
    attempts = []
    for i in range(tasks):
        slot = min(range(slots), key=free.__getitem__)
        begin = free[slot] + draw.expovariate(4)
        if draw.random() < 0.02:
            spans += [span(slot, "lost", begin, begin + 30, f"k{i}"), span(slot, "start", begin + 30, begin + 80)]
            begin += 80.5
        took = task_ms * draw.lognormvariate(0, 0.5)
        parts = {"cpu": 0.93 * took, "unpack": 0.004 * took, "read": 0.01 * took, "write": 0.006 * took}
        name = "explain rows" if i % 7 else "build tables"
        attempts.append(attempt(slot, free[slot] - 20, begin, begin + took, key=f"k{i}", name=name, **parts))
        free[slot] = begin + took
        if i % 97 == 50:
            spans += [span(s, "driver", free[s], max(free) + 60) for s in range(slots)]
            free = [max(free) + 60] * slots
    over = max(free)
    spans += [span(slot, "tail", free[slot], over) for slot in range(slots) if free[slot] < over]
    parts = {"put_ns": 40 * MS, "keys_ns": 10 * MS}
    return written(path, slots, attempts, spans, over + 50, parts=parts, throttled_ns=50 * MS, peak_bytes=100 << 20)
