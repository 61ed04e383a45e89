"""From a worker's frame to outcomes: the one place in the driver that costs something per result."""

from __future__ import annotations

import pickle
from array import array
from typing import TYPE_CHECKING, Any

from millrace.engines.attempt import Extra
from millrace.engines.processes.frames import LAST, LENGTH, RESULTS, UNREAD
from millrace.engines.processes.losses import attempts
from millrace.engines.processes.packing import Entry, Message, Past
from millrace.run.task import Failure, Measures, Outcome

if TYPE_CHECKING:
    from millrace.engines.processes.accounts import Accounts
    from millrace.engines.processes.client import WorkerEnd
    from millrace.engines.processes.flow import Flow

_make = object.__new__
_SET = tuple(getattr(Measures, name).__set__ for name in Measures.__slots__)
PLAIN = Extra()


def take(frame: bytes | bytearray, worker: WorkerEnd, flow: Flow, accounts: Accounts) -> Message | None:
    """Deliver what a frame holds; returns the message when the worker is done with it (the rest of it goes back)."""
    view = memoryview(frame)
    head = LENGTH.pack(len(frame)) + view[: RESULTS.size - LENGTH.size]
    _, _, first, count, flags, _, began_ns, began_cpu_ns, pack_ns = RESULTS.unpack(head)
    message = worker.messages[0]
    at = RESULTS.size - LENGTH.size
    ends, cpus = array("q"), array("q")
    ends.frombytes(view[at : at + 8 * count])
    cpus.frombytes(view[at + 8 * count : at + 16 * count])
    body = view[at + 16 * count :]
    try:
        values, extras = pickle.loads(body)
    except Exception as e:  # noqa: BLE001 - recorded as a typed failure, of the one task that it is for
        values, extras = _unreadable(message.entries[first : first + count], e), {}
    if count:
        accounts.ran(worker.slot, began_ns, ends[-1], message.sent_ns)
        message.taken = first + count
        _deliver(worker, message, first, values, extras, (began_ns, began_cpu_ns, pack_ns), ends, cpus, len(body), flow, accounts)
        kind = message.entries[first].kind
        kind.cost.learn((ends[-1] - began_ns) / count / 1e9, count)
    if flags & UNREAD:
        _unread(worker, message, values[0], flow)
    if not flags & LAST:
        return None
    worker.messages.popleft()
    message.over = True
    return message
