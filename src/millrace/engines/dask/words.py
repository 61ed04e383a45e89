"""What passes between the driver and the Dask workers. Plain data; light, so that a task's process may import it.

See `engine` for the driver's side and `host` for the worker's.
"""

from __future__ import annotations

import functools
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.engines.processes.losses import Traces

if TYPE_CHECKING:
    from millrace.run.ports import Opener, Store

SCHEME = "dask:"
"""Urls of values that stay on the workers: `Ref(key, "dask:ENGINE", size)`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a Dask worker must know before it carries messages of an engine.

    `machine`, `prefix`: of the driver; a worker that has the same takes over its working directory and module path
    (they come with each message), any other has its own. `modules`: folders of a bundle, in front of the module path.
    """

    engine: str
    preload: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    opener: bytes | None
    meter: bytes | None
    hand_back_ns: int
    machine: str
    prefix: str
    modules: tuple[tuple[str, bytes], ...] = ()
    memory_bytes: tuple[tuple[str, int], ...] = ()
    """By machine: no task's ceiling is above what its machine has, whatever the whole cluster has."""


@dataclass(frozen=True, slots=True)
class Death:
    """A task's process died: what the status page told of it, and what the fork server did."""

    traces: Traces
    pid: int
    status: int
    at_ns: int
    cpu_ns: int


@dataclass(frozen=True, slots=True)
class Reply:
    """How a message went: the frames of its results, and the death that ended it, if one did.

    `address`, `seat`: the Dask worker and the place in it, which make a slot. Times are of the worker's clock.
    `ready_ns`: since when the seat's process was up.
    """

    number: int
    address: str
    seat: int
    pid: int
    began_ns: int
    ended_ns: int
    ready_ns: int
    frames: tuple[bytes, ...]
    death: Death | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A message that is not over: what came of it so far, the task that runs, since when."""

    number: int
    address: str
    seat: int
    frames: tuple[bytes, ...]
    running: int
    since_ns: int


class Held:
    """The reply to a message some of whose values stay here: it is Dask's value of the message, and stays too."""

    def __init__(self, reply: Reply, kept: dict[str, Kept]) -> None:
        self.reply, self.kept = reply, kept


class Kept:
    """A value that lies in the arena of its host, as Dask knows it: Dask weighs it by its true size, and moves the value
    itself when another worker needs it. `value` is there only between its arrival and the first message that needs it."""

    def __init__(self, key: str, size_bytes: int, load: Any = None, value: Any = None) -> None:
        self.key, self.size_bytes, self._load, self.value = key, size_bytes, load, value

    def __sizeof__(self) -> int:
        return self.size_bytes

    def whole(self) -> Any:
        return self.value if self._load is None else self._load(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self.key, self.size_bytes, None, self.whole())

    def land(self, arena: Store) -> None:
        """Into the arena of this host, if it is not there."""
        if self._load is None:
            if arena.get(self.key) is None:
                arena.put(self.key, self.value)
                arena.flush()
            self._load, self.value = arena.attach, None


def receipt(held: Held) -> tuple[Reply, dict[str, int]]:
    """The small part, for the driver, and the sizes of what stays."""
    return held.reply, {key: kept.size_bytes for key, kept in held.kept.items()}


def pick(held: Held, key: str) -> Kept:
    """One kept value as a future of its own."""
    return held.kept[key]


def whole(kept: Kept) -> Any:
    """The value itself, for the driver."""
    return kept.whole()


def opener_at(arena: str, opener: bytes | None) -> bytes:
    """The pickled opener of a task's process on a Dask worker: kept values are in that host's arena."""
    return pickle.dumps(functools.partial(_open, arena, opener), 5)


def open_with(opener: bytes | None, url: str) -> Store:
    if opener is None:
        from millrace.run.errors import WrongQuestion

        raise WrongQuestion(
            f"A task refers to the store {url!r}, and its engine was made without an opener of stores: make it with "
            "opener=millrace.compose.open_store, or give the value itself."
        )
    found: Opener = pickle.loads(opener)
    return found(url)


def _open(arena: str, opener: bytes | None, url: str) -> Store:
    return open_with(opener, f"dir:{arena}" if url.startswith(SCHEME) else url)
