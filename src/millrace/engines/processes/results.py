"""From a worker's frame to outcomes: the one place of the driver that costs something per result."""

from __future__ import annotations

import pickle
from itertools import islice
from typing import TYPE_CHECKING, Any

from millrace.engines.attempt import Extra, failure_of
from millrace.engines.processes.frames import LAST, UNREAD, Results, parse_results
from millrace.engines.processes.losses import attempts
from millrace.engines.processes.packing import Message, Past
from millrace.run.errors import EngineLost
from millrace.run.task import Failure, Measures, Outcome

if TYPE_CHECKING:
    from millrace.engines.processes.accounts import Accounts
    from millrace.engines.processes.client import WorkerEnd
    from millrace.engines.processes.flow import Flow

PLAIN = Extra()
_new, _tuple = object.__new__, tuple.__new__
_key, _value, _failure, _measures, _cached = (getattr(Outcome, name).__set__ for name in Outcome.__slots__)


def take(frame: bytes | bytearray, worker: WorkerEnd, flow: Flow, accounts: Accounts) -> Message | None:
    """Deliver what a frame holds; returns the message when the worker is done with it (what is left of it goes back)."""
    results, message = parse_results(frame), worker.messages[0]
    if results.message != message.number:
        raise EngineLost(
            f"Worker {worker.slot} answered for message {results.message}, and {message.number} was its turn: its pipe is "
            "out of step, and no result can be trusted any more. Finished tasks are in the store: run the same again."
        )
    count = results.size
    try:
        values, extras = pickle.loads(results.body)
    except Exception as e:  # noqa: BLE001 - recorded as a typed failure, of the one task that it belongs to
        values, extras = _unreadable(message, results, e, flow)
    if count:
        message.taken = results.first + count
        accounts.ran(worker.slot, results.began_ns, results.ends_ns[-1], message.sent_ns, results.wait_ns)
        _deliver(results, values, extras, worker, message, flow, accounts)
    if results.flags & UNREAD:
        _unread(values[0], worker, results.pid, message, flow)
    if not results.flags & LAST:
        return None
    worker.messages.popleft()
    message.over = True
    return message


def _deliver(
    results: Results,
    values: list[Any],
    extras: dict[int, tuple[Any, ...]] | None,
    worker: WorkerEnd,
    message: Message,
    flow: Flow,
    accounts: Accounts,
) -> None:
    """A tuple by its own `__new__`, and the slots of a frozen class set one by one: half the price of their constructors.

    What a quota took of a frame is taken for the waiting of its attempts, the first first: no clock tells it of each.
    """
    slot, pid, sent, count, host = worker.slot, results.pid, message.sent_ns, results.size, worker.host
    left_ns = results.throttled_ns
    in_bytes, out_bytes = message.task_bytes, len(results.body) // count
    start, cpu_before, last, out, finished = results.began_ns, results.began_cpu_ns, count - 1, flow.out, 0
    uniform = message.entries[0].kind if message.uniform else None
    entries = islice(message.entries, results.first, results.first + count)
    for i, (entry, value, end, cpu) in enumerate(zip(entries, values, results.ends_ns, results.cpus_ns, strict=True)):
        if entry.done or value is _ABSENT:
            if end > start:
                accounts.stopped(slot, start, end, entry.task.key)
        else:
            extra = Extra._make(extras[i]) if extras and i in extras else PLAIN
            throttled = min(left_ns, max(0, end - start - cpu + cpu_before)) if left_ns else 0
            left_ns -= throttled
            measures = _tuple(
                Measures,
                (
                    slot, pid, 1 if entry.past is None else attempts(entry), sent, start, end,
                    cpu - cpu_before + extra.aside_ns, extra.unpack_ns if i else extra.unpack_ns + results.unpack_ns,
                    extra.enter_ns, extra.read_ns, extra.write_ns if i != last else extra.write_ns + results.pack_ns,
                    in_bytes, out_bytes, extra.peak_bytes, extra.gc_ns, throttled, extra.gpu, extra.gpu_ns, host,
                ),
            )  # fmt: skip
            outcome = _new(Outcome)
            _key(outcome, entry.task.key)
            _value(outcome, value)
            _failure(outcome, None if extra.failure is None else Failure(*extra.failure))
            _measures(outcome, measures)
            _cached(outcome, False)
            if entry.group is None:
                entry.done = True
                finished += 1
                out.append(outcome)
            else:
                flow.finish(entry, outcome)
        if uniform is None:
            entry.kind.cost.learn((end - start) / 1e9, 1)
        start, cpu_before = end, cpu
    flow.open -= finished
    if uniform is not None:
        uniform.cost.learn((start - results.began_ns) / count / 1e9, count)


_ABSENT: Any = object()


def _unreadable(
    message: Message, results: Results, error: Exception, flow: Flow
) -> tuple[list[Any], dict[int, tuple[Any, ...]]]:
    """Values that cannot be unpickled here. Of one task it is its failure; of several, each runs again alone."""
    count = results.size
    if count == 1:
        kind, said, trace = failure_of(error)
        failure = kind, f"The value that it returned cannot be read back: {said}", trace
        return [None], {0: tuple(Extra(failure))}
    entries = message.entries[results.first : results.first + count]
    again = [e for e in entries if not e.done and e.home is message]
    for entry in again:
        entry.past = entry.past or Past()
    flow.put_back(again)
    return [_ABSENT] * count, {}


def _unread(failure: Any, worker: WorkerEnd, pid: int, message: Message, flow: Flow) -> None:
    """The worker could not unpickle the tasks. One alone has failed; of several, each is sent again alone."""
    left = message.left()
    if len(message.entries) > 1:  # however few are left: the one to blame may have been taken to another worker since
        for entry in left:
            entry.past = entry.past or Past()
    elif left:
        kind, said, trace = failure
        said = f"Its arguments cannot be read in the worker: {said}"
        measures = Measures(worker.slot, pid, attempts(left[0]), message.sent_ns, in_bytes=message.task_bytes)
        flow.fail(left[0], Failure(kind, said, trace), measures)
