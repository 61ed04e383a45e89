"""What the driver's loop is made of besides: messages at Dask, terms for the workers, times of other clocks."""

from __future__ import annotations

import struct
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle

from millrace.engines.dask.host import machine
from millrace.engines.dask.words import Terms
from millrace.engines.processes.frames import LENGTH, RESULTS
from millrace.engines.processes.packing import Message
from millrace.run.errors import MissingExtra

if TYPE_CHECKING:
    from millrace.engines.dask.cluster import Cluster
    from millrace.engines.dask.slots import Slots
    from millrace.engines.processes.flow import Flow


@dataclass(slots=True, eq=False)
class Seat:
    """What `results.take` needs to know of a worker."""

    slot: int
    messages: deque[Message] = field(default_factory=deque)
    host: str = ""


@dataclass(slots=True, eq=False)
class Flight:
    """A message at Dask. `taken`: frames of it that came early; `asked`: it was told to hand back; `lane`: see `Slots`."""

    message: Message
    sent_ns: int
    needs: tuple[str, ...] = ()
    lane: int = -1
    taken: int = 0
    asked: bool = False


class Board:
    """All messages at Dask, and the one among them that must be alone."""

    def __init__(self, slots: Slots, window: int) -> None:
        self.slots, self.flights = slots, {}  # type: Slots, dict[int, Flight]
        self._window = window if slots.most is None else 1
        self.alone: Message | None = None

    def has_room(self) -> bool:
        return self.alone is None and len(self.flights) < self._window * len(self.slots)

    def is_idle(self) -> bool:
        """Slots have nothing."""
        return len(self.flights) < len(self.slots)

    def is_uneven(self) -> bool:
        """Slots have nothing, and messages go on that may hold what these could do."""
        return self.is_idle() and any(not f.asked for f in self.flights.values())

    def add(self, message: Message, needs: tuple[str, ...]) -> str:
        """Where it is to go (see `Slots.wanted`)."""
        if message.entries[0].limits.alone:
            self.alone = message
        lane = self.slots.take()
        self.flights[message.number] = Flight(message, message.sent_ns, needs, lane)
        return self.slots.wanted(lane)

    def take_off(self, number: int) -> None:
        """Its worker has let go of it, or Dask has."""
        self.slots.give(self.flights.pop(number).lane)

    def over(self, flow: Flow, message: Message) -> None:
        """Nobody works at a message any more; what it did not come to goes first again."""
        self.end(message)
        flow.put_back(message.left())

    def end(self, message: Message) -> None:
        message.over = True
        if message is self.alone:
            self.alone = None

    def clear(self) -> list[int]:
        """Numbers of all that were there."""
        self.alone, numbers = None, list(self.flights)
        for number in numbers:
            self.take_off(number)
        return numbers


def terms_for(
    engine: str,
    cluster: Cluster,
    preload: tuple[str, ...],
    environment: Mapping[str, str],
    modules: tuple[tuple[str, bytes], ...],
    hand_back_ns: int,
    opener: bytes | None,
    meter: bytes | None,
) -> bytes:
    """Pickled `Terms`: after the workers were compared, since what is pinned is among them."""
    terms = Terms(
        engine=engine,
        preload=preload,
        environment=tuple({**environment, **cluster.environment}.items()),
        opener=opener,
        meter=meter,
        hand_back_ns=hand_back_ns,
        machine=machine(),
        prefix=sys.prefix,
        modules=modules,
        memory_bytes=tuple(cluster.memory_bytes.items()),
    )
    return cloudpickle.dumps(terms, 5)  # type: ignore[no-any-return]


def report_to(file: Path, cluster: Cluster, owned: ExitStack) -> None:
    """Dask's own report of all that happens until `owned` closes, as one HTML file."""
    from distributed import performance_report

    try:
        import bokeh  # noqa: F401 - Dask draws with it
    except ModuleNotFoundError as e:
        raise MissingExtra("bokeh", "dask", "Dask's performance report (--dask-report)") from e
    owned.enter_context(cluster.client.as_current())
    owned.enter_context(performance_report(filename=str(file)))


_BEGAN = struct.Struct("<QIIII")
_HEAD_BYTES = RESULTS.size - LENGTH.size


def shifted(frame: bytes, offset_ns: int) -> bytes:
    """A frame of results with its times by the driver's clock."""
    if not offset_ns:
        return frame
    out = bytearray(frame)
    count = _BEGAN.unpack_from(out)[2]
    (began_ns,) = struct.unpack_from("<Q", out, _BEGAN.size)
    struct.pack_into("<Q", out, _BEGAN.size, began_ns - offset_ns)
    ends = struct.unpack_from(f"<{count}q", out, _HEAD_BYTES)
    struct.pack_into(f"<{count}q", out, _HEAD_BYTES, *(end - offset_ns for end in ends))
    return bytes(out)
