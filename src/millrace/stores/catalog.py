"""The index that all processes use, with its lock: finding without it, changing under it, growing and making it again.

Sits between `index` (one table) and `directory` (values). The lock is a file's (`flock`): the kernel lets it go when a
process dies, and a batch of writes holds it for a millisecond. A process that is stopped while it holds it stops the
writers, not the readers; those who only wanted to empty their buffer try again later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from millrace.run.errors import AnalysisFailed
from millrace.stores import images, segments
from millrace.stores.index import Index, tag_of, write_table
from millrace.stores.layout import Home
from millrace.stores.segments import Place, Record

Lies = Literal["whole", "damaged", "another's"]
"""What is at a place: this key's value, nothing that can be read, or a record of a key with the same tag."""
PATIENCE_S = 120.0
_POLL_S = 0.0005


class Busy(Exception):
    """Another process holds the lock, and the caller did not want to wait for it."""


class Catalog:
    """Where records lie. `find`, `renewed` and `records` are for everybody, the rest under `locked`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock_fd = -1
        self._index = Index.open(home.index)
        self._entered = 0
        self.forked()

    def forked(self) -> None:
        """In a child: a lock of its own (an inherited one would be the parent's too)."""
        self.guard = threading.RLock()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = -1

    def close(self) -> None:
        self.forked()
        if self._index is not None:
            self._index.close()
        self._index = None

    # -- for everybody -------------------------------------------------------------------------------------------
    @property
    def index(self) -> Index | None:
        """None only while there is no table and this process may not make one."""
        return self._index

    @property
    def table(self) -> Index:
        assert self._index is not None, "under the lock there is a table"
        return self._index

    def find(self, raw: bytes) -> list[Place]:
        """Places where the key's record may lie; usually none or one."""
        return self._index.find(raw) if self._index is not None else []

    def renewed(self) -> bool:
        """True when there is a newer table than the one that was asked."""
        if self._index is not None and not self._index.moved():
            return False
        newer = Index.open(self._home.index)
        if newer is None:
            return False
        if self._index is not None:
            self._index.close()
        self._index = newer
        return True

    def records(self) -> Iterator[tuple[Place, Record]]:
        """All whole records of all segments, pointed to or not."""
        for name in sorted(os.listdir(self._home.segments)):
            number = segments.number_of(name)
            if number is not None:
                for offset, length, record in segments.scan(self._home.segments / name):
                    if length <= segments.MOST_RECORD_BYTES:
                        yield segments.place(number, offset, length), record

    # -- under the lock --------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def locked(self, patience_s: float = PATIENCE_S) -> Iterator[None]:
        """Alone among all processes, with the table that everybody uses. `Busy` when it is held for so long and
        `patience_s` is 0, AnalysisFailed when it is more. Not to be nested."""
        with self.guard:
            if self._lock_fd < 0:
                self._lock_fd = os.open(self._home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._take(patience_s)
            try:
                self.settle()
                yield
                self._count()
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _take(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not patience_s:
                    raise Busy from None
                if time.monotonic() > until:
                    raise AnalysisFailed(
                        f"Another process has held the lock of the store at {self._home.root.parent} for "
                        f"{patience_s:.0f} s. It is stopped or stuck: `fuser {self._home.lock}` names it. End it and "
                        "run again; what was finished is kept."
                    ) from None
                time.sleep(_POLL_S)

    def settle(self) -> None:
        """Open the table that lies there now; make it again when it is missing, damaged or half replaced."""
        try:
            lies = os.stat(self._home.index).st_ino
        except FileNotFoundError:
            lies = 0
        if self._index is not None and self._index.inode() == lies and not self._index.moved():
            return
        if self._index is not None:
            self._index.close()
        self._index = Index.open(self._home.index)
        if self._index is None or self._index.moved():
            self._make(0)

    def _count(self) -> None:
        if self._entered:
            self.table.grow_count(self._entered)
            self._entered = 0

    def make_room(self, more: int) -> None:
        if self.table.is_full(more):
            self._make(2 * (self.table.count() + more))

    def enter(self, raw: bytes, place: Place, lies: Callable[[bytes, Place], Lies]) -> None:
        """Point to the record at `place`, unless the key has one that is whole; in place of one that is not. `lies`
        looks at what a slot leads to."""
        tag = tag_of(raw)
        found, free = self.table.look(tag)
        damaged = 0
        for position, other in found:
            found_there = lies(raw, other)
            if found_there == "whole":
                return
            if found_there == "damaged":
                damaged = damaged or position
        if not damaged and not free:  # only a table whose count was damaged comes to be full
            self._make(2 * self.table.count() + 1)
            self.enter(raw, place, lies)
            return
        self.table.set(damaged or free, tag, place)
        self._entered += not damaged

    def _make(self, room_for: int) -> None:
        """Write the table anew: from the old one, or from the segments when there is none."""
        old, self._entered = self._index, 0
        try:
            write_table(self._home.index, old.slots if old is not None else self._scanned, room_for)
        except OSError as e:
            raise images.no_room(self._home.segments, e, 32 * room_for) from e
        self._index = Index.open(self._home.index)
        if old is not None:
            old.close()

    def _scanned(self) -> Iterator[tuple[bytes, int]]:
        for place, record in self.records():
            yield tag_of(record.raw_key), place
