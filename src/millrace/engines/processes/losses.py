"""Who is to blame when a worker has died: read from the status page, which outlives it.

The task that ran is the one; its neighbours in the message are innocent and go back. Where several may be the cause (a
crash while a whole message is read or its results are packed) nobody is blamed: all of them run again alone, and then
there is no doubt. A task is given up after `OWN` deaths of its own making (a crash signal, an abort, an exit), after
`OTHERS` by signals that come from outside, or at once when a ceiling was broken.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

from millrace.engines.processes import page
from millrace.engines.processes.packing import Entry, Message, Past
from millrace.run.task import Failure, Measures

OWN, OTHERS = 2, 8
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})


@dataclass(frozen=True, slots=True)
class Traces:
    """What the page tells of a worker that died."""

    seq: int
    phase: int
    started_ns: int
    started_cpu_ns: int
    verdict: int
    verdict_seq: int
    figure: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """`guilty` has failed with `failure`; without one it is `running` that was lost. `back` is to run again."""

    running: Entry | None
    failure: Failure | None = None
    measures: Measures | None = None
    back: list[Entry] = field(default_factory=list)
    unwanted: bool = False


def read_traces(pages: page.Page, slot: int) -> Traces:
    cells, at = pages.cells, page.base(slot)
    seq = cells[at + page.SEQ]
    return Traces(
        seq=seq,
        phase=cells[at + page.PHASE],
        started_ns=cells[at + page.START_NS] if seq else 0,
        started_cpu_ns=cells[at + page.START_CPU_NS],
        verdict=cells[at + page.VERDICT],
        verdict_seq=cells[at + page.VERDICT_SEQ],
        figure=cells[at + page.FIGURE],
        peak_bytes=cells[at + page.PEAK_BYTES] if cells[at + page.PEAK_SEQ] == seq else 0,
    )


def judge(
    traces: Traces, messages: list[Message], slot: int, pid: int, status: int, at_ns: int, cpu_ns: int
) -> Judgement:
    """`messages`: what was in flight to the worker, oldest first, with all results that it sent taken off."""
    back = [entry for message in messages for entry in message.left()]
    head = messages[0] if messages else None
    running = _running(traces, head)
    if traces.verdict == page.UNWANTED:
        return Judgement(running, back=back, unwanted=True)
    suspects = _suspects(traces, head, running)
    if traces.verdict and traces.verdict_seq != traces.seq:
        suspects = []  # it broke its ceiling and ended before the signal came: it runs again, and nobody is blamed
    if len(suspects) > 1:
        for entry in suspects:
            entry.past = entry.past or Past()
        suspects = []
    if not suspects:
        return Judgement(running, back=back)
    guilty = suspects[0]
    attempt = attempts(guilty)
    failure = _ceiling(traces, guilty) if traces.verdict else _loss(guilty, status)
    if failure is None:
        return Judgement(guilty, back=back)
    measures = Measures(
        worker=slot,
        pid=pid,
        attempt=attempt,
        sent_ns=head.sent_ns if head else 0,
        started_ns=traces.started_ns or at_ns,
        ended_ns=at_ns,
        cpu_ns=max(0, cpu_ns - traces.started_cpu_ns) if traces.seq else 0,
        in_bytes=head.task_bytes if head else 0,
        peak_bytes=traces.peak_bytes,
    )
    return Judgement(guilty, failure, measures, [e for e in back if e is not guilty])


def attempts(entry: Entry) -> int:
    """Which attempt the one in flight is: 1 is the first."""
    return 1 if entry.past is None else 1 + entry.past.own + entry.past.others


def _running(traces: Traces, head: Message | None) -> Entry | None:
    place = traces.seq - head.number if head and traces.seq else -1
    return head.entries[place] if head and 0 <= place < len(head.entries) else None


def _suspects(traces: Traces, head: Message | None, running: Entry | None) -> list[Entry]:
    """Who may be the cause. Between two tasks nothing of a task runs, but what one left behind may."""
    if head is None:
        return []
    left = head.left()
    if traces.seq and traces.phase == page.RUNNING:
        return [running] if running in left else []
    if traces.seq and traces.phase == page.PACKING:
        return [e for e in left if e.seq <= traces.seq]
    return left


def _ceiling(traces: Traces, entry: Entry) -> Failure:
    limits, figure = entry.limits, traces.figure
    if traces.verdict == page.CPU:
        said = f"It used {figure / 1e9:.3f} s of processor time, and its ceiling is {limits.cpu_s:g} s."
        return Failure("cpu", said, figure=figure / 1e9)
    if traces.verdict == page.WALL:
        said = f"It ran for {figure / 1e9:.3f} s, and its ceiling is {limits.wall_s:g} s."
        return Failure("wall", said, figure=figure / 1e9)
    said = (
        f"Its worker held {figure / (1 << 20):,.1f} MiB of private memory, and the ceiling is "
        f"{limits.private_bytes / (1 << 20):,.1f} MiB."
    )
    return Failure("memory", said, figure=float(figure))


def _loss(entry: Entry, status: int) -> Failure | None:
    """Count it; the failure when it is one too many."""
    past = entry.past = entry.past or Past()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in FROM_OUTSIDE:
        past.others += 1
    else:
        past.own += 1
    if past.own < OWN and past.others < OTHERS:
        return None
    times = past.own + past.others
    how = f"signal {_signal_name(number)}" if number else f"exit code {os.WEXITSTATUS(status)}"
    advice = "; the kernel's log tells whether it was for lack of memory" if number == signal.SIGKILL else ""
    return Failure("lost", f"Its worker died under it {times} times, last by {how}{advice}. It is not tried again.")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
