"""A store in this process: what a run uses when nobody gave it a directory.

Keeps the same values as the directory store in the same form (see `codecs`): `put` copies, so what the caller does to
its arrays later does not reach the store; `get` makes the lists and dicts anew each time, while arrays and Arrow data
are read-only views of the one copy. Over `limit_bytes` the least recently used go. Thread-safe.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from typing import Any

from millrace.run.ports import Stored
from millrace.run.task import Key
from millrace.stores.codecs import Encoded, decode, encode, raw_key

_Entry = bytes | tuple[bytes, memoryview]
"""The tree, with the image when there is something large. Small values are bytes alone, so that the garbage collector
need not walk hundreds of thousands of them, as it would in an OrderedDict."""


class MemoryStore:
    """Values by key until the process ends or `limit_bytes` is reached. No other process can open it."""

    url = ""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._entries: dict[Key, _Entry] = {}  # the least recently used first
        self._size_bytes = 0
        self._pinned: set[Key] = set()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Stored | None:
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                raw_key(key)  # only a key can be missing
                return None
            self._entries[key] = entry
        return _stored(key, entry)

    def attach(self, key: Key) -> Any:
        stored = self.get(key)
        if stored is None:
            raise KeyError(f"{key} is not in the store (any more): run again to compute it")
        return stored.value

    def put(self, key: Key, value: Any) -> Stored:
        """Keep a copy of the value, unless there is one; what is kept comes back. `NotStorable` for other values."""
        found = self.get(key)  # which says what is no key
        if found is not None:
            return found
        encoded = encode(value)
        entry = (encoded.tree, _copied(encoded)) if encoded.image_bytes else encoded.tree
        with self._lock:
            if key in self._entries:  # another thread was first
                entry = self._entries[key]
            else:
                self._entries[key] = entry
                self._size_bytes += _size(entry)
            if self._limit_bytes is not None and self._size_bytes > self._limit_bytes:
                self._evict(self._limit_bytes - self._limit_bytes // 8)  # by eighths: looking for the oldest costs
        return _stored(key, entry)

    def flush(self) -> None:
        """Nothing waits here; and nothing outlives the process."""

    def pin(self, key: Key) -> None:
        """Keep it from eviction until `close`."""
        raw_key(key)
        self._pinned.add(key)

    def evict(self, limit_bytes: int) -> int:
        """Least recently used first, never what is pinned; the bytes freed. Values that were handed out stay."""
        with self._lock:
            return self._evict(limit_bytes)

    def _evict(self, limit_bytes: int) -> int:
        before = self._size_bytes
        if before > limit_bytes:
            for key in [k for k in self._entries if k not in self._pinned]:
                if self._size_bytes <= limit_bytes:
                    break
                self._size_bytes -= _size(self._entries.pop(key))
        return before - self._size_bytes

    def size_bytes(self) -> int:
        return self._size_bytes

    def keys(self, prefix: str = "") -> Iterator[Key]:
        with self._lock:
            found = [key for key in self._entries if key.startswith(prefix)]
        return iter(found)

    def close(self) -> None:
        """Forget everything. Values that were handed out stay readable."""
        with self._lock:
            self._entries.clear()
            self._pinned.clear()
            self._size_bytes = 0


def _stored(key: Key, entry: _Entry) -> Stored:
    tree, image = (entry, None) if isinstance(entry, bytes) else entry
    return Stored(key, decode(tree, image), _size(entry))


def _size(entry: _Entry) -> int:
    return len(entry) if isinstance(entry, bytes) else len(entry[0]) + len(entry[1])


def _copied(encoded: Encoded) -> memoryview:
    """The image in memory of its own: private pages (shared ones would count otherwise), aligned as a file's are."""
    image = mmap.mmap(-1, encoded.image_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset, chunk in encoded.chunks():
        image[offset : offset + len(chunk)] = chunk
    return memoryview(image).toreadonly()
