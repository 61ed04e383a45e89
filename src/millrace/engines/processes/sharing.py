"""Which worker gets work next, and what an idle one takes from another. Looks only; the engine acts."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.engines.processes import page
from millrace.engines.processes.client import WorkerEnd
from millrace.engines.processes.packing import Entry, Message

LONG_NS = 20_000_000
"""What would wait for longer than this is worth the message that moves it."""


def freest(workers: Sequence[WorkerEnd], window: int) -> WorkerEnd | None:
    """The worker with the fewest messages in flight, of those with a free place."""
    best, fewest = None, window
    for worker in workers:
        if len(worker.messages) < fewest and not worker.stale:
            best, fewest = worker, len(worker.messages)
            if not fewest:
                break
    return best


def fair_share(workers: Sequence[WorkerEnd], tasks: int) -> int:
    """What one worker may take of the last tasks there are: the rest is for the others that have nothing."""
    idle = sum(1 for w in workers if not w.messages and not w.stale)
    return -(-tasks // max(1, idle))


def is_uneven(workers: Sequence[WorkerEnd]) -> bool:
    """Some worker has nothing while tasks wait at another: worth another look soon."""
    return any(not w.messages for w in workers) and any(
        sum(len(m.entries) - m.taken for m in w.messages) > 1 for w in workers
    )


def stuck(
    workers: Sequence[WorkerEnd], idle: WorkerEnd, cells: memoryview, now_ns: int
) -> tuple[WorkerEnd, bool] | None:
    """A worker whose waiting tasks had better run elsewhere, and why: behind a long task (True), or simply many.

    A worker that is up and runs nothing has just finished something, and its results are on the way; unless nothing has
    come from it for long, since it may have been stopped right then.
    """
    for worker in workers:
        if worker is idle or worker.stale or not (messages := open_messages(worker, cells)):
            continue
        at = page.base(worker.slot)
        running = cells[at + page.SEQ]
        since_ns = cells[at + page.START_NS]  # of what it runs; when it runs nothing, of its last results
        if not running:
            since_ns = max(since_ns, worker.heard_ns, worker.messages[0].sent_ns)
        long = now_ns - since_ns > LONG_NS
        if not running and worker.pid and not long:
            continue
        waiting = waiting_at(messages, running, long)
        if waiting and (long or sum(e.kind.cost.task_s for e in waiting) * 1e9 > LONG_NS):
            return worker, long
    return None


def open_messages(worker: WorkerEnd, cells: memoryview) -> list[Message]:
    """Its messages, but for one with which it waits for a core of the host: it has its place in that line, and whoever
    took its tasks would stand at the end."""
    waits = cells[page.base(worker.slot) + page.WAITS]
    return list(worker.messages)[1 if waits else 0 :]


def waiting_at(messages: Sequence[Message], running: int, long: bool) -> list[Entry]:
    """What a worker has not come to. Results of what it has run before are on the way, or, behind a long task, wait in it
    with the rest: those few milliseconds of work are done again elsewhere, sooner."""
    return [e for m in messages for e in m.left() if e.seq > running or (long and e.seq < running)]
