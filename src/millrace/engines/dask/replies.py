"""What comes back from Dask, made into outcomes and accounts: results, deaths of tasks' processes, lost workers.

See `engine` for what is sent, and `courier` for the events that are read here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millrace.engines.dask.flights import Board, Flight, Seat, shifted
from millrace.engines.dask.host import machine
from millrace.engines.processes import losses, results
from millrace.engines.processes.packing import Message, Past
from millrace.run.errors import EngineLost, MillraceError
from millrace.run.task import Failure, Measures

if TYPE_CHECKING:
    from millrace.engines.dask.accounts import Accounts
    from millrace.engines.dask.arena import FutureArena
    from millrace.engines.dask.cluster import Cluster
    from millrace.engines.dask.courier import Courier, Event
    from millrace.engines.dask.words import Death, Progress, Reply
    from millrace.engines.processes.flow import Flow


class Replies:
    def __init__(
        self, board: Board, cluster: Cluster, courier: Courier, accounts: Accounts, arena: FutureArena | None
    ) -> None:
        self._board, self._slots, self._cluster, self._courier = board, board.slots, cluster, courier
        self._accounts, self._arena = accounts, arena

    def take(self, flow: Flow, event: Event) -> None:
        """One event about a message; what is about a stream that has ended is nobody's."""
        flight = self._board.flights.get(event.number)
        if flight is None:
            return
        if event.kind == "failed":
            raise _wrong(event.said)
        if event.kind == "progress":
            self._progress(flow, flight, event.said)
        elif event.kind == "lost":
            self._lost(flow, flight, event.said)
        else:
            if event.kept and self._arena is not None:
                self._arena.take(event.kept)
            self._reply(flow, flight, event.said)

    def _reply(self, flow: Flow, flight: Flight, reply: Reply) -> None:
        self._board.take_off(flight.message.number)
        message, slot = flight.message, self._slots.of(flight.lane, reply.address, reply.seat)
        if slot is None:  # it ended before it began
            self._board.over(flow, message)
            return
        offset_ns = self._cluster.offsets_ns.get(reply.address, 0)
        if self._cluster.machines.get(reply.address) == machine():
            self._slots.pids[slot] = reply.pid
        sent_ns = message.sent_ns
        if reply.ready_ns > reply.began_ns:  # its process was being made
            self._accounts.was(slot, "start", reply.began_ns - offset_ns, reply.ready_ns - offset_ns, sent_ns)
        self._frames(flow, flight, slot, reply.frames, reply.address)
        if reply.death is not None:
            self._died(flow, message, slot, reply.death, reply.address)
        else:
            self._board.over(flow, message)

    def _frames(self, flow: Flow, flight: Flight, slot: int, frames: tuple[bytes, ...], address: str) -> None:
        offset_ns, host = self._cluster.offsets_ns.get(address, 0), self._cluster.host(address)
        for frame in frames[flight.taken :]:
            seat: Any = Seat(slot, deque([flight.message]), host)
            accounts: Any = self._accounts
            results.take(shifted(frame, offset_ns), seat, flow, accounts)
        flight.taken = max(flight.taken, len(frames))

    def _died(self, flow: Flow, message: Message, slot: int, death: Death, address: str) -> None:
        """As with worker processes of one host: the status page tells who is to blame."""
        offset_ns = self._cluster.offsets_ns.get(address, 0)
        traces, at_ns = death.traces, death.at_ns - offset_ns
        started_ns = traces.started_ns - offset_ns if traces.started_ns else 0
        traces = replace(traces, started_ns=started_ns)
        judged = losses.judge(traces, [message], slot, death.pid, death.status, at_ns, death.cpu_ns)
        self._slots.pids.pop(slot, None)
        self._board.end(message)
        if judged.failure is not None and judged.measures is not None and judged.running is not None:
            self._accounts.ran(slot, judged.measures.started_ns, at_ns, message.sent_ns)
            measures = judged.measures._replace(host=self._cluster.host(address))
            flow.fail(judged.running, judged.failure, measures)
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
            self._board.take_off(message.number)
            self._courier.forget([message.number])
            self._board.over(flow, message)
            return
        progress = told[0]
        slot = self._slots.of(flight.lane, progress.address, progress.seat)
        if slot is None or not progress.running:  # its reply is on the way, or will be at once
            return
        self._frames(flow, flight, slot, progress.frames, progress.address)
        waiting = [e for e in message.left() if e.seq != progress.running]
        for entry in waiting:
            entry.home = None
        flow.put_back(waiting)

    def _lost(self, flow: Flow, flight: Flight, why: Any) -> None:
        """Its Dask worker is gone, or what it needs. Nobody can tell which task ran: each counts a loss from outside."""
        message, client = flight.message, self._cluster.client
        self._board.take_off(message.number)
        if client.status != "running":
            raise EngineLost(
                f"The Dask scheduler at {client.scheduler.address} is gone. Finished tasks are in the store: run the same "
                "again on another cluster to go on."
            )
        if flight.needs and self._arena is not None:
            self._arena.mend(flight.needs)
        self._board.end(message)
        back = message.left()
        for entry in back:
            past = entry.past = entry.past or Past()
            past.others += 1
            if past.others >= losses.OTHERS:
                said = f"Its Dask worker was lost under it {past.others} times, last: {why}. It is not tried again."
                measures = Measures(attempt=past.others, sent_ns=message.sent_ns)
                flow.fail(entry, Failure("lost", said), measures)
        flow.put_back(back)


def _wrong(error: Exception) -> Exception:
    if isinstance(error, MillraceError):
        return error
    return EngineLost(
        f"The Dask cluster could not carry a message: {type(error).__name__}: {error}. Finished tasks are in the store: "
        "run the same again to go on. The workers' logs tell more."
    )
