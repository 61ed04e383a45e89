"""The copies that one host keeps of values in a store elsewhere: a directory store, with a bound of its own.

A large value is fetched once per host and mapped by every process from there. Small values land here only when their
store could not be reached to the end: so nothing that was finished is lost. Does not know where values come from; see
`redis` and `remote`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from millrace.run.ports import Stored
from millrace.run.task import Key
from millrace.run.urls import spoken
from millrace.stores import segments, staging
from millrace.stores.codecs import Damaged, Encoded, decode
from millrace.stores.directory import PACKED_BYTES, DirectoryStore
from millrace.stores.images import Draft
from millrace.stores.layout import FileNote

FAR = 3
"""The kind of a record that notes a large value elsewhere."""
LIMIT_BYTES = 10 << 30
_LOOK_EVERY = 8


@dataclass(frozen=True, slots=True)
class FarNote:
    """A large value elsewhere: the `name` it has there, its digest, and how the local store notes it."""

    name: str
    sha256: bytes
    note: FileNote

    def sealed(self, raw: bytes) -> bytes:
        return segments.sealed(FAR, raw, _encode(self))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FarNote).decode


def opened(raw: bytes, record: bytes) -> Stored | FarNote | None:
    """What a record of this key holds: a small value, or the note of a large one; None when it is damaged or alien."""
    found = segments.opened(record)
    if found is None or found[0].raw_key != raw:
        return None
    kind, payload = found[0].kind, found[0].payload
    try:
        if kind == segments.VALUE:
            return Stored(raw.hex(), decode(payload), len(payload))
        if kind == FAR:
            far = _decode(payload)
            FileNote.of(segments.FILE, far.note.packed())  # checks its name and size
            return far
    except (Damaged, msgspec.DecodeError):
        pass
    return None


def is_small(encoded: Encoded) -> bool:
    return encoded.layout == "tree" and len(encoded.tree) <= PACKED_BYTES


def folder_of(cache: Path, url: str) -> Path:
    """Where a host keeps the copies of that store: a folder by its name, the same with and without a password."""
    return cache / hashlib.sha256(spoken(url).encode()).hexdigest()[:16]


class Nearby:
    """Local copies of the values of one store elsewhere."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.store = DirectoryStore(folder)
        self._limit_bytes = limit_bytes
        self._admitted_bytes = 0

    def get(self, key: Key) -> Stored | None:
        return self.store.get(key)

    def stage(self, encoded: Encoded, name: str) -> tuple[Draft, FarNote]:
        """The value as a local draft, with the note under which it will be known elsewhere."""
        draft, note = staging.stage(self.store.home, encoded)
        return draft, FarNote(name, staging.summed(draft.path)[2], note)

    def admit(self, key: Key, draft: Draft, far: FarNote) -> Stored:
        stored = self.store.admit(key, draft, far.note)
        self._admitted_bytes += draft.size_bytes
        if self._admitted_bytes > self._limit_bytes // _LOOK_EVERY:
            self._admitted_bytes = 0
            self.store.evict(self._limit_bytes)
        return stored

    def fetched(self, key: Key, far: FarNote, fetch: Callable[[str], bool]) -> Stored | None:
        """The large value, from here when it is here; otherwise fetched, compared with its digest, and kept."""
        stored = self.store.get(key)
        if stored is not None:
            return stored
        with staging.received(self.store.home, far.note, far.sha256, fetch) as draft:
            return self.admit(key, draft, far) if draft is not None else None

    def spill(self, small: dict[bytes, bytes]) -> None:
        """Keep small values (raw key: tree) that their store could not be told."""
        for raw, tree in small.items():
            self.store.put(raw.hex(), decode(tree))
        self.store.flush()

    def keep_bytes(self, key: Key, data: bytes | memoryview) -> None:
        """Keep bytes so that they can be mapped (an array is; a value of bytes would be read whole)."""
        import numpy

        self.store.put(key, numpy.frombuffer(data, dtype="u1"))

    def kept_bytes(self, key: Key) -> memoryview | None:
        stored = self.store.get(key)
        return None if stored is None else memoryview(stored.value)

    def pin(self, key: Key) -> None:
        self.store.pin(key)

    def close(self) -> None:
        self.store.close()
