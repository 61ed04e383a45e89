"""The engine on a Dask cluster: the driver's loop, from the source's first task to the last outcome.

As the engine of worker processes, and made of the same parts (packing, the rules of the source, who is blamed), but that
messages are Dask tasks: the scheduler says where each goes, next to the values that it needs. One thread: pull, pack,
send; wait for replies and wakes; deliver. Dask's client has a loop of its own, which `courier` talks to.
"""

from __future__ import annotations

import os
import queue
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import cloudpickle

from millrace.engines.attempt import failure_of
from millrace.engines.dask.accounts import Accounts
from millrace.engines.dask.courier import Courier, Event
from millrace.engines.dask.flights import Flight, Seat, report_to, shifted, terms_for
from millrace.engines.dask.host import machine
from millrace.engines.dask.words import SCHEME, Death, Progress, Reply
from millrace.engines.processes import losses, results
from millrace.engines.processes.client import module_path
from millrace.engines.processes.flow import UNDELIVERED, Flow
from millrace.engines.processes.packing import Entry, Message, Packer, Past
from millrace.run.errors import EngineLost, MillraceError, SourceStalled, WrongQuestion
from millrace.run.task import Failure, Measures, Outcome, Ref, Span

if TYPE_CHECKING:
    from millrace.engines.dask.arena import FutureArena
    from millrace.engines.dask.cluster import Cluster
    from millrace.run.ports import Opener, Source

BETWEEN_NS = 2_000_000
"""A consumer that takes longer than this for outcomes that have come does not keep the workers waiting."""
LONG_NS = 50_000_000
"""A message with tasks that wait is asked to hand them back when others have nothing, this long after it was sent."""
LOOK_S = 0.05


class DaskEngine:
    """Tasks on the workers of `cluster`; a slot for each of their threads.

    `opener`: opens a store by its url, on the worker; it must be picklable. `arena`: the values that stay on the cluster.
    `preload`, `environment`, `target_s`, `window`, `max_tasks`: as in `ProcessEngine`. `modules`: a bundle, (name, tar
    archive). `owns`: close the cluster with the engine. `report`: Dask's own performance report of the streams goes there.
    """

    isolates = True

    def __init__(
        self,
        cluster: Cluster,
        *,
        opener: Opener | None = None,
        arena: FutureArena | None = None,
        preload: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        modules: tuple[tuple[str, bytes], ...] = (),
        target_s: float = 0.1,
        window: int = 2,
        max_tasks: int = 1024,
        owns: bool = False,
        report: Path | None = None,
    ) -> None:
        self.cluster, self.window, self._owns, self._arena = cluster, window, owns, arena
        self._opener = None if opener is None else cloudpickle.dumps(opener, 5)
        self._parts = preload, dict(environment or {}), modules, round(3e9 * target_s)
        self._packer = Packer(target_s, max_tasks)
        self._accounts = Accounts()
        self._flow: Flow | None = None
        self._flights: dict[int, Flight] = {}
        self._alone: Message | None = None
        self._drops: list[int] = []
        self._last_number = 0
        self._pid = os.getpid()
        self._pids: dict[int, int] = {}
        self._closed = self._woken = False
        self._report, self._reporting = report, ExitStack()
        self._slots: dict[tuple[str, int], int] = {}
        self._owner: list[str] = []
        self._courier = Courier(cluster.client, cluster.name, self._terms, cluster.check)
        try:
            for address, seats in self._courier.enlist():
                self._seat(address, seats, set())
            self._start_report()
        except BaseException:
            self.close()
            raise

    # -- the waist ---------------------------------------------------------------------------------------------
    @property
    def slots(self) -> int:
        """Threads of the cluster's workers; more when workers have joined."""
        return len(self._owner)

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
        return min(len(self._flights), self.slots), list(self._pids.values())

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
        return terms_for(self.cluster, preload, environment, modules, hand_back_ns, self._opener)

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
        self._flow, self._alone = None, None
        flights, self._flights = self._flights, {}
        self._accounts.close(monotonic_ns(), len(flights))
        self._drops.clear()
        if flights and not self._closed:
            self._courier.drop(list(flights), [-number for number in flights])
            self._courier.forget(flights)

    # -- from the source to the workers ------------------------------------------------------------------------
    def _fill(self, flow: Flow) -> None:
        """Messages as long as the window is open and there is work for them; then the one look-ahead that is due."""
        woken, self._woken = self._woken, False
        if woken:
            flow.woke()
        while len(flow.out) < UNDELIVERED and self._alone is None and len(self._flights) < self.window * self.slots:
            entry = flow.next()
            if entry is None:
                break
            if entry.limits.alone and self._flights:
                flow.ready.appendleft(entry)  # first let all others end
                break
            most = self._packer.max_tasks
            if flow.ready and (flow.exhausted or flow.waiting):
                most = -(-(len(flow.ready) + 1) // max(1, self.slots - len(self._flights)))
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
        if batch[0].limits.alone:
            self._alone = message
        message.sent_ns = monotonic_ns()
        self._flights[message.number] = Flight(message, message.sent_ns, tuple(needs))
        keys = tuple(e.task.key for e in batch if e.task.keep is not None and e.task.keep.url.startswith(SCHEME))
        self._courier.send(message.number, frame, keys, tuple(needs.values()))

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
        for entry in batch:
            self._send(flow, [entry], True)

    def _is_idle(self) -> bool:
        return len(self._flights) < self.slots

    def _is_uneven(self) -> bool:
        """Slots have nothing, and messages go on that may hold what these could do."""
        return self._is_idle() and any(not f.asked for f in self._flights.values())

    def _steal(self) -> None:
        """Ask messages that take long to hand back what they have not come to."""
        now_ns = monotonic_ns()
        for number, flight in self._flights.items():
            if not flight.asked and now_ns - flight.sent_ns > LONG_NS:
                flight.asked = True
                self._courier.hand_back(number)

    # -- from the workers to outcomes --------------------------------------------------------------------------
    def _wait(self, flow: Flow) -> None:
        idle = self._is_idle() and self._alone is None
        why = "engine" if not idle else "tail" if flow.exhausted else "starved"
        self._accounts.does(why, monotonic_ns())  # type: ignore[arg-type]
        uneven = idle and self._is_uneven()
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
            self._on(flow, event)
            try:
                event = events.get_nowait()
            except queue.Empty:
                break
        if self._woken:
            flow.woke()

    def _on(self, flow: Flow, event: Event) -> None:
        flight = self._flights.get(event.number)
        if event.kind == "woken":
            self._woken = True
        elif event.kind == "joined":
            self._seat(*event.said)
        elif event.kind == "failed":
            if flight is not None:
                raise self._wrong(event.said)
        elif flight is None:
            return  # of a stream that has ended
        elif event.kind == "progress":
            self._progress(flow, flight, event.said)
        elif event.kind == "lost":
            self._lost(flow, flight, event.said)
        else:
            if event.kept and self._arena is not None:
                self._arena.take(event.kept)
            self._reply(flow, flight, event.said)

    def _wrong(self, error: Exception) -> Exception:
        if isinstance(error, MillraceError):
            return error
        return EngineLost(
            f"The Dask cluster could not carry a message: {type(error).__name__}: {error}. Finished tasks are in the store: "
            "run the same again to go on. The workers' logs tell more."
        )

    def _reply(self, flow: Flow, flight: Flight, reply: Reply) -> None:
        del self._flights[flight.message.number]
        message, slot = flight.message, self._slots.get((reply.address, reply.seat))
        if slot is None:  # it ended before it began
            self._over(flow, message)
            return
        if self.cluster.offsets_ns.get(reply.address) == 0 and self.cluster.machines.get(reply.address) == machine():
            self._pids[slot] = reply.pid
        offset_ns = self.cluster.offsets_ns.get(reply.address, 0)
        sent_ns = message.sent_ns
        if reply.ready_ns > reply.began_ns:  # its process was being made
            self._accounts.was(slot, "start", reply.began_ns - offset_ns, reply.ready_ns - offset_ns, sent_ns)
        self._frames(flow, flight, slot, reply.frames, offset_ns)
        if reply.death is not None:
            self._died(flow, message, slot, reply.death, offset_ns)
        else:
            self._over(flow, message)

    def _over(self, flow: Flow, message: Message) -> None:
        """A worker has let go of a message; what it did not come to goes first again."""
        message.over = True
        if message is self._alone:
            self._alone = None
        flow.put_back(message.left())

    def _frames(self, flow: Flow, flight: Flight, slot: int, frames: tuple[bytes, ...], offset_ns: int) -> None:
        for frame in frames[flight.taken :]:
            seat: Any = Seat(slot, deque([flight.message]))
            accounts: Any = self._accounts
            results.take(shifted(frame, offset_ns), seat, flow, accounts)
        flight.taken = max(flight.taken, len(frames))

    def _died(self, flow: Flow, message: Message, slot: int, death: Death, offset_ns: int) -> None:
        """As with worker processes of one host: the status page tells who is to blame."""
        traces, at_ns = death.traces, death.at_ns - offset_ns
        started_ns = traces.started_ns - offset_ns if traces.started_ns else 0
        traces = replace(traces, started_ns=started_ns)
        judged = losses.judge(traces, [message], slot, death.pid, death.status, at_ns, death.cpu_ns)
        self._pids.pop(slot, None)
        message.over = True
        if message is self._alone:
            self._alone = None
        if judged.failure is not None and judged.measures is not None and judged.running is not None:
            self._accounts.ran(slot, judged.measures.started_ns, at_ns, message.sent_ns)
            flow.fail(judged.running, judged.failure, judged.measures)
        elif started_ns:
            key = judged.running.task.key if judged.running else ""
            kind: Any = "stopped" if judged.unwanted else "lost"
            self._accounts.was(slot, kind, started_ns, at_ns, message.sent_ns, key)
        flow.put_back(judged.back)

    def _progress(self, flow: Flow, flight: Flight, told: list[Progress]) -> None:
        """What a message that goes on has done; the rest of it goes elsewhere. Tasks are pure: one may run twice when its
        worker comes to it in this very moment, and is delivered once."""
        message = flight.message
        if not told:  # it waits behind another: Dask forgets it
            del self._flights[message.number]
            self._courier.forget([message.number])
            self._over(flow, message)
            return
        progress = told[0]
        slot = self._slots.get((progress.address, progress.seat))
        if slot is None or not progress.running:  # its reply is on the way, or will be at once
            return
        self._frames(flow, flight, slot, progress.frames, self.cluster.offsets_ns.get(progress.address, 0))
        waiting = [e for e in message.left() if e.seq != progress.running]
        for entry in waiting:
            entry.home = None
        flow.put_back(waiting)

    def _lost(self, flow: Flow, flight: Flight, why: Any) -> None:
        """Its Dask worker is gone, or what it needs. Nobody can tell which task ran: each counts a loss from outside."""
        message = flight.message
        del self._flights[message.number]
        if self.cluster.client.status != "running":
            raise EngineLost(
                f"The Dask scheduler at {self.cluster.client.scheduler.address} is gone. Finished tasks are in the store: run "
                "the same again on another cluster to go on."
            )
        if flight.needs and self._arena is not None:
            self._arena.mend(flight.needs)
        message.over = True
        if message is self._alone:
            self._alone = None
        back = message.left()
        for entry in back:
            past = entry.past = entry.past or Past()
            past.others += 1
            if past.others >= losses.OTHERS:
                said = f"Its Dask worker was lost under it {past.others} times, last: {why}. It is not tried again."
                measures = Measures(attempt=past.others, sent_ns=message.sent_ns)
                flow.fail(entry, Failure("lost", said), measures)
        flow.put_back(back)

    # -- slots -------------------------------------------------------------------------------------------------
    def _seat(self, address: str, seats: int, alive: set[str]) -> None:
        """Slots of a worker: first those of workers that are gone."""
        free = [slot for slot, owner in enumerate(self._owner) if alive and owner not in alive]
        for seat in range(seats):
            if free:
                slot = free.pop(0)
                self._owner[slot] = address
                self._pids.pop(slot, None)
                self._accounts.lost(slot)
            else:
                slot = len(self._owner)
                self._owner.append(address)
                self._accounts.grow(slot + 1)
            self._slots[address, seat] = slot

    def _number(self, count: int = 1) -> int:
        """Numbers of tasks, messages and groups: one line of them, none twice in the life of an engine."""
        first = self._last_number + 1
        self._last_number += count
        return first
