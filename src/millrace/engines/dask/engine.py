"""The engine on a Dask cluster: the driver's loop, from the source's first task to the last outcome.

As the engine of worker processes, and made of the same parts (packing, the rules of the source, who is blamed), but that
messages are Dask tasks: the scheduler says where each goes, next to the values that it needs. One thread: pull, pack,
send; wait for replies and wakes; deliver. Dask's client has a loop of its own, which `courier` talks to; what comes back
is read by `replies`.
"""

from __future__ import annotations

import os
import queue
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import cloudpickle

from millrace.engines.attempt import failure_of
from millrace.engines.dask.accounts import Accounts
from millrace.engines.dask.courier import Courier, Event
from millrace.engines.dask.flights import Board, report_to, terms_for
from millrace.engines.dask.replies import Replies
from millrace.engines.dask.slots import Slots
from millrace.engines.dask.words import SCHEME
from millrace.engines.processes.client import module_path
from millrace.engines.processes.flow import UNDELIVERED, Flow
from millrace.engines.processes.packing import Entry, Message, Packer
from millrace.run.code import packages
from millrace.run.errors import SourceStalled, WrongQuestion
from millrace.run.task import Failure, Outcome, Ref, Span

if TYPE_CHECKING:
    from millrace.engines.dask.arena import FutureArena
    from millrace.engines.dask.cluster import Cluster
    from millrace.run.ports import Meters, Opener, Source

TARGET_S = 0.3
"""Work of a message. The scheduler and its clients spend milliseconds of processor time on each, on the same cores when the
cluster is this machine: of tasks of 50 ms, messages of 0.1 s leave .82 of the cores to the tasks, these .95."""
BETWEEN_NS = 2_000_000
"""A consumer that takes longer than this for outcomes that have come does not keep the workers waiting."""
LONG_NS = 50_000_000
"""A message with tasks that wait is asked to hand them back when others have nothing, this long after it was sent."""
LOOK_S = 0.05


class DaskEngine:
    """Tasks on the workers of `cluster`; a slot for each of their threads, at most `most`.

    `opener`: opens a store by its url, on the worker; it must be picklable. `meter`: as in `ProcessEngine`, as are `preload`,
    `environment`, `target_s`, `window` and `max_tasks`. `arena`: the values that stay on the cluster. `modules`: a bundle,
    (name, tar archive). `owns`: close the cluster with the engine. `report`: Dask's own performance report of the streams
    goes there.
    """

    isolates = True

    def __init__(
        self,
        cluster: Cluster,
        *,
        opener: Opener | None = None,
        meter: Meters | None = None,
        arena: FutureArena | None = None,
        preload: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        modules: tuple[tuple[str, bytes], ...] = (),
        target_s: float = TARGET_S,
        window: int = 2,
        max_tasks: int = 1024,
        most: int | None = None,
        owns: bool = False,
        report: Path | None = None,
    ) -> None:
        self.cluster, self.window, self._owns, self._arena = cluster, window, owns, arena
        self.name = secrets.token_hex(6)
        self._opener, self._meter = (None if x is None else cloudpickle.dumps(x, 5) for x in (opener, meter))
        self._parts = preload, dict(environment or {}), modules, round(3e9 * target_s)
        self._packer = Packer(target_s, max_tasks)
        self._accounts = Accounts()
        self._flow: Flow | None = None
        self._drops: list[int] = []
        self._last_number = 0
        self._pid = os.getpid()
        self._closed = self._woken = False
        self._report, self._reporting = report, ExitStack()
        self._met: set[tuple[int, ...]] = set()
        self._single: set[Entry] = set()
        """Tasks of a message that could not be pickled: one of them is why, so that each is sent by itself."""
        self._courier = Courier(cluster.client, self.name, self._terms, cluster.check)
        self._slots = Slots(self._accounts, most)
        self._board = Board(self._slots, window)
        self._replies = Replies(self._board, cluster, self._courier, self._accounts, arena)
        try:
            for address, seats in self._courier.enlist():
                self._slots.seat(address, seats, set())
            self._start_report()
        except BaseException:
            self.close()
            raise

    # -- the waist ---------------------------------------------------------------------------------------------
    @property
    def slots(self) -> int:
        """Threads of the cluster's workers, more when workers have joined; or as many as were asked for."""
        return len(self._slots)

    def stream(self, source: Source) -> Iterator[Outcome]:
        """Outcomes as they come. Closing the iterator cancels what is in flight."""
        self._check()
        flow = self._open(source)
        try:
            while True:
                self._fill(flow)
                if not flow.out:
                    if not flow.open and flow.exhausted:
                        return
                    if not flow.open and flow.waiting:
                        self._stalled(flow)
                        continue
                    self._wait(flow)
                    if self._slots.most is not None:  # a lane has one message only, and is not to wait for the consumer
                        self._fill(flow)
                looked_ns = monotonic_ns()
                while flow.out:
                    yield flow.out.popleft()
                    flow.delivered()
                    if (now_ns := monotonic_ns()) - looked_ns > BETWEEN_NS:
                        looked_ns = now_ns
                        self._happened(flow, 0)
                        self._fill(flow)
        finally:
            self._end_stream()

    def wake(self) -> None:
        """A `SimpleQueue` may be put to in a signal handler, whatever the thread was doing."""
        self._courier.events.put(Event("woken"))

    def spans(self) -> list[Span]:
        return self._accounts.take()

    def at_work(self) -> tuple[int, list[int]]:
        """Pids are of this machine only: what others hold is not of this budget."""
        return min(len(self._board.flights), self.slots), list(self._slots.pids.values())

    def close(self) -> None:
        """Workers leave their resources and let go of their pools; a cluster of our own ends. Idempotent."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        try:
            if self.cluster.client.status == "running":
                self._reporting.close()
                self._courier.leave()
        finally:
            if self._owns:
                self.cluster.close()

    # -- a stream's two ends -----------------------------------------------------------------------------------
    def _terms(self) -> bytes:
        preload, environment, modules, hand_back_ns = self._parts
        return terms_for(
            self.name, self.cluster, preload, environment, modules, hand_back_ns, self._opener, self._meter
        )

    def _start_report(self) -> None:
        """Dask's own report of all that happens until `close`, as one HTML file."""
        if self._report is not None:
            report_to(self._report, self.cluster, self._reporting)

    def _check(self) -> None:
        if self._closed:
            raise WrongQuestion("This engine was closed: make a new one.")
        if self._pid != os.getpid():
            raise WrongQuestion("This engine belongs to the process that was forked from: make a new one here.")
        if self._flow is not None:
            raise WrongQuestion("An engine serves one stream at a time: finish or close the open one first.")

    def _open(self, source: Source) -> Flow:
        self._flow = Flow(source, self._packer, self._number, self._drops.append)
        self._packer.forget_kinds()
        try:
            folder: str | None = os.getcwd()
        except FileNotFoundError:
            folder = None
        self._place = folder, module_path(), None
        self._accounts.open(monotonic_ns())
        return self._flow

    def _stalled(self, flow: Flow) -> None:
        """The source waits and nothing is in flight: an error, unless somebody has just called `wake`."""
        self._happened(flow, 0)
        if flow.waiting and not flow.out:
            raise SourceStalled(
                "The source waits for an outcome, and nothing is in flight: nobody can ever bring it one."
            )

    def _end_stream(self) -> None:
        """Nothing stays in flight: short tasks may finish, long ones are killed, what Dask has not begun it forgets."""
        self._flow = None
        flights = self._board.clear()
        self._accounts.close(monotonic_ns(), len(flights))
        self._drops.clear()
        self._single.clear()
        if flights and not self._closed:
            self._courier.drop(flights, [-number for number in flights])
            self._courier.forget(flights)

    # -- from the source to the workers ------------------------------------------------------------------------
    def _fill(self, flow: Flow) -> None:
        """Messages as long as the window is open and there is work for them; then the one look-ahead that is due."""
        woken, self._woken = self._woken, False
        if woken:
            flow.woke()
        while len(flow.out) < UNDELIVERED and self._board.has_room():
            entry = flow.next()
            if entry is None:
                break
            if entry.limits.alone and self._board.flights:
                flow.ready.appendleft(entry)  # first let all others end
                break
            most = self._packer.max_tasks
            if entry in self._single:
                most = 1
            elif flow.ready and (flow.exhausted or flow.waiting):
                most = -(-(len(flow.ready) + 1) // max(1, self.slots - len(self._board.flights)))
            self._send(flow, *self._packer.batch(entry, flow.next, flow.ready.appendleft, most))
        flow.look_ahead(woken)
        if self._drops or flow.unwanted:
            self._courier.drop(self._drops.copy(), [e.seq for e in flow.unwanted if e.seq])
            self._drops.clear()
            flow.unwanted.clear()

    def _send(self, flow: Flow, batch: list[Entry], uniform: bool) -> None:
        message = Message(self._number(len(batch)), batch, uniform)
        try:
            frame = self._packer.encode(message, set(), self._place)
            needs = self._needs(batch)
        except Exception as e:  # noqa: BLE001 - recorded as a typed failure, of the one task that it belongs to
            self._unsendable(flow, batch, e)
            return
        for seq, entry in enumerate(batch, message.number):
            entry.seq, entry.home = seq, message
        self._meet(batch)
        message.sent_ns = monotonic_ns()
        where = self._board.add(message, tuple(needs))
        keys = tuple(e.task.key for e in batch if e.task.keep is not None and e.task.keep.url.startswith(SCHEME))
        self._courier.send(message.number, frame, keys, tuple(needs.values()), where)

    def _meet(self, batch: list[Entry]) -> None:
        """Packages that a function reaches are compared before it runs anywhere. `WrongQuestion` lists what differs."""
        for kind in {id(e.kind): e.kind for e in batch}.values():
            known = kind.function, *kind.resource_numbers
            if known not in self._met:
                self.cluster.compare(packages((kind.fn, *kind.resources)))
                self._met.add(known)

    def _needs(self, batch: list[Entry]) -> dict[str, Any]:
        """Futures of the values on the cluster that these tasks refer to."""
        refs = {a.key for e in batch for a in e.task.args if type(a) is Ref and a.url.startswith(SCHEME)}
        if refs and self._arena is None:
            raise WrongQuestion("A task refers to a value on a Dask cluster, and its engine was made without an arena.")
        return {key: self._arena.future(key) for key in sorted(refs)} if self._arena is not None else {}

    def _unsendable(self, flow: Flow, batch: list[Entry], error: Exception) -> None:
        """Something in these tasks cannot be pickled. One alone has failed; several are sent one by one."""
        if len(batch) == 1:
            kind, said, trace = failure_of(error)
            flow.fail(batch[0], Failure(kind, f"It cannot be sent to a worker process: {said}", trace))
            return
        self._single.update(batch)
        flow.put_back(batch)

    def _steal(self) -> None:
        """Ask messages that take long to hand back what they have not come to."""
        now_ns = monotonic_ns()
        for number, flight in self._board.flights.items():
            if not flight.asked and now_ns - flight.sent_ns > LONG_NS:
                flight.asked = True
                self._courier.hand_back(number)

    # -- from the workers to outcomes --------------------------------------------------------------------------
    def _wait(self, flow: Flow) -> None:
        idle = self._board.is_idle() and self._board.alone is None
        why = "engine" if not idle else "tail" if flow.exhausted else "starved"
        self._accounts.does(why, monotonic_ns())  # type: ignore[arg-type]
        uneven = idle and self._board.is_uneven()
        if uneven:
            self._steal()
        self._happened(flow, LOOK_S if uneven else None)

    def _happened(self, flow: Flow, timeout_s: float | None) -> None:
        events = self._courier.events
        try:
            event = events.get(timeout=timeout_s) if timeout_s != 0 else events.get_nowait()
        except queue.Empty:
            event = None
        self._accounts.does("driver", monotonic_ns())
        while event is not None:
            if event.kind == "woken":
                self._woken = True
            elif event.kind == "joined":
                self._slots.seat(*event.said)
            else:
                self._replies.take(flow, event)
            try:
                event = events.get_nowait()
            except queue.Empty:
                break
        if self._woken:
            flow.woke()

    def _number(self, count: int = 1) -> int:
        """Numbers of tasks, messages and groups: one line of them, none twice in the life of an engine."""
        first = self._last_number + 1
        self._last_number += count
        return first
