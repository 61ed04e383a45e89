"""The waist: what an engine and a store must be. Everything above is written once against these.

The laws that every implementation keeps are in `millrace.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from millrace.run.task import Cancel, Key, Outcome, Span, Task

Source = Iterator["Task | Outcome | Cancel | None"]
"""What an engine pulls from. A Task to run; an Outcome that is known already (delivered as it is); a Cancel; or
None: "nothing to start until you bring me an outcome". None with nothing in flight is `SourceStalled`."""


class Tokens(Protocol):
    """What an engine's worker holds while it computes, so that runs of a host share its cores; see `host.tokens`."""

    def take(self) -> int:
        """Wait for a core, and hold it; ns waited. Holding one already is fine."""
        ...

    def release(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Engine(Protocol):
    """Where tasks run.

    The engine pulls the next task when it has a free place; after each delivered outcome and each `wake` it asks
    the source once even when it is full, and holds a Task so obtained. Closing the iterator of `stream` cancels
    what is in flight. One open stream at a time.
    """

    slots: int
    isolates: bool
    """Tasks run in processes of their own: ceilings kill, a crash costs one attempt."""

    def stream(self, source: Source) -> Iterator[Outcome]: ...

    def wake(self) -> None:
        """Thread-safe and safe in a signal handler: ask the source again now."""

    def spans(self) -> list[Span]:
        """What the slots did besides delivered attempts since the last call (for the ledger)."""
        ...

    def at_work(self) -> tuple[int, list[int]]:
        """(slots that have something to run now, pids of all worker processes), for those who watch."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as the store holds it. `value` is read-only and may be a memory map."""

    key: Key
    value: Any
    size_bytes: int


@runtime_checkable
class Store(Protocol):
    """Values by key. A miss is None, never an exception; a damaged entry is a miss, never garbage.

    `url` names the store so that another process can open it ("" when no other process can). `put` is
    idempotent: the first whole value stays. `pin` keeps keys from `evict` until this store object is closed or
    its process has died.
    """

    url: str

    def get(self, key: Key) -> Stored | None:
        """The verified value."""
        ...

    def attach(self, key: Key) -> Any:
        """The value of a `Ref`, mapped without reading it whole; KeyError when it is gone."""
        ...

    def put(self, key: Key, value: Any) -> Stored:
        """Keep a storable value; `NotStorable` (a TypeError) when it is not one."""
        ...

    def flush(self) -> None:
        """Small values may be packed: after this, everything that was put outlives this process."""

    def pin(self, key: Key) -> None: ...

    def evict(self, limit_bytes: int) -> int:
        """Oldest use first until the size is at most `limit_bytes`; returns the bytes freed."""
        ...

    def size_bytes(self) -> int: ...

    def keys(self, prefix: str = "") -> Iterator[Key]: ...

    def close(self) -> None: ...


Opener = Callable[[str], Store]
"""Opens a store by its url; handed to engines by `compose`, so that workers can attach `Ref`s and keep values."""

Meters = Callable[[], Callable[[], int] | None]
"""Makes, in the process that it is called in, what tells for how many ns quotas have held that back so far; None where
there is no quota, or nobody tells. Handed to engines by `compose`."""
