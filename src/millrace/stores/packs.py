"""Small values in object storage: packed by the hundreds, in objects that are numbered without gaps.

A request costs as much for a byte as for a megabyte, so a batch of values is one object. Whoever makes number n first
has written it; whoever finds it taken reads it, leaves out what it holds, and tries n + 1. So all agree on the order,
and the first value of a key stays. News is one request: is there a number n + 1? A pack that was evicted leaves a few
bytes, so that no number is ever given twice.

    <url>/v1/store                what tells this store from one that was at the url before
    <url>/v1/packs/0000000017     MAGIC, SHA-256 of the rest, length of the head, head (MessagePack), values one by one

Each process holds the places of all small values that it knows of, some 150 bytes a value; packs themselves are copied
to the local store and mapped. See `remote` for large values.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from millrace.stores.nearby import Nearby
from millrace.stores.objects import Listed, Objects

FOLDER = "v1/packs"
_IDENTITY = "v1/store"
MAGIC = b"millpak1"
GONE = b"millgone"
"""What is left of an evicted pack."""
_SHA_BYTES = 32
_LENGTH = struct.Struct("<I")
_LOOK_AGAIN_S = 60.0
_MOST_MAPPED = 32
Place = tuple[int, int, int]
"""Number of the pack, offset and length of the value in it."""


def packed(values: Mapping[bytes, bytes]) -> bytes:
    """Trees by raw key as one object. No two are alike (so a writer knows its own)."""
    head = msgspec.msgpack.encode([secrets.token_bytes(8), list(values), list(map(len, values.values()))])
    body = b"".join([_LENGTH.pack(len(head)), head, *values.values()])
    return MAGIC + hashlib.sha256(body).digest() + body


def places(data: Any, number: int) -> dict[bytes, Place] | None:
    """Where each value lies in this pack; None when it is damaged or something else."""
    view = memoryview(data)
    start = len(MAGIC) + _SHA_BYTES
    if view[: len(MAGIC)] != MAGIC or hashlib.sha256(view[start:]).digest() != view[len(MAGIC) : start]:
        return None
    try:
        (length,) = _LENGTH.unpack_from(view, start)
        at = start + _LENGTH.size + length
        _, keys, sizes = msgspec.msgpack.decode(
            view[start + _LENGTH.size : at], type=tuple[bytes, list[bytes], list[int]]
        )
    except (struct.error, msgspec.DecodeError, msgspec.ValidationError):
        return None
    found = {}
    for key, size in zip(keys, sizes, strict=True):
        found[key] = (number, at, size)
        at += size
    return found


def name_of(number: int) -> str:
    return f"{FOLDER}/{number:010d}"


class Packs:
    """The small values below one url, in the order of their packs. `renew_s`: how old an answer may be. Thread-safe."""

    def __init__(self, objects: Objects, near: Nearby, renew_s: float) -> None:
        self._objects, self._near, self._renew_s = objects, near, renew_s
        self._index: dict[bytes, Place] = {}
        self._later: dict[bytes, Place] = {}  # of keys that have an earlier place: where they lie when that pack goes
        self._next = 0
        self._identity = b""
        self._seen: set[int] = set()
        self._looked_s = self._listed_s = float("-inf")
        self._mapped: OrderedDict[int, memoryview] = OrderedDict()
        self._guard = threading.RLock()

    def identify(self) -> None:
        """Learn which store this is; the first who comes gives it a name. `WrongQuestion` when there is no such place, or
        none where this user may do so."""
        while not self._identity:
            self._identity = self._objects.read(_IDENTITY) or b""
            if not self._identity:  # missing, or emptied by somebody
                self._objects.replace(_IDENTITY, secrets.token_hex(16).encode())

    def find(self, raw: bytes, renew_s: float | None = None) -> memoryview | None:
        """The tree of this key, of those that were there `renew_s` ago (not given: as this object was told)."""
        with self._guard:
            if raw not in self._index:
                self.catch_up(self._renew_s if renew_s is None else renew_s)
            place = self._index.get(raw)
            if place is None:
                return None
            number, offset, length = place
            pack = self._pack(number)
            if pack is None or len(pack) < offset + length:  # it was evicted meanwhile
                self._forget(number)
                return None
            return pack[offset : offset + length]

    def append(self, values: Mapping[bytes, bytes], again: bool = False) -> None:
        """Write what is not there yet as one pack; with `again` also what is there (to move it)."""
        with self._guard:
            while True:
                self.catch_up()
                left = values if again else {raw: tree for raw, tree in values.items() if raw not in self._index}
                if not left:
                    return
                self.identify()
                number, data = self._next, packed(left)
                if self._objects.create(name_of(number), data):
                    self._take(number, data, again)
                    return

    def catch_up(self, renew_s: float = 0.0) -> None:
        """Learn of new packs, unless that was done `renew_s` ago.

        Now and then by a list, which shows what a request by number cannot: a gap that somebody made by deleting objects.
        """
        with self._guard:
            asked_s = time.monotonic()
            if asked_s - self._looked_s < renew_s:
                return
            if asked_s - self._listed_s > _LOOK_AGAIN_S:
                self._listed_s = asked_s
                self._identity = b""
                self.identify()
                self.take_listed(self._objects.listed(FOLDER))
            while (data := self._objects.read(name_of(self._next))) is not None:
                self._take(self._next, data)
            self._looked_s = time.monotonic()

    def take_listed(self, listed: Mapping[str, Listed]) -> dict[int, Listed]:
        """Read those packs of a list that are not known yet; the packs in it that hold something."""
        with self._guard:
            there = {int(n): one for name, one in listed.items() if (n := name.rpartition("/")[2]).isdecimal()}
            for number in sorted(there):
                if number not in self._seen and there[number].size_bytes > len(GONE):
                    data = self._pack(number)
                    if data is not None and len(data) == there[number].size_bytes:
                        self._take(number, data)
            self._next = max(self._next, *(n + 1 for n in there), 0) if there else self._next
            return {n: one for n, one in there.items() if one.size_bytes > len(GONE)}

    def contents(self) -> dict[int, dict[bytes, Place]]:
        """Keys that count, by pack."""
        found: dict[int, dict[bytes, Place]] = {}
        for raw, place in self._index.items():
            found.setdefault(place[0], {})[raw] = place
        return found

    def move(self, raws: Iterable[bytes]) -> None:
        """Write these values once more, in a new pack: their old ones are to go."""
        with self._guard:
            moved = {raw: bytes(tree) for raw in raws if (tree := self.find(raw)) is not None}
            if moved:
                self.append(moved, again=True)

    def drop(self, number: int) -> None:
        """Evict a pack."""
        with self._guard:
            self._objects.replace(name_of(number), GONE)
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._mapped.pop(number, None)
        for raw in [raw for raw, place in self._index.items() if place[0] == number]:
            del self._index[raw]
            if raw in self._later:
                self._index[raw] = self._later.pop(raw)

    def _take(self, number: int, data: Any, again: bool = False) -> None:
        self._seen.add(number)
        self._next = max(self._next, number + 1)
        found = places(data, number)
        if found is None:
            return
        for raw, place in found.items():
            if raw not in self._index or again:
                self._index[raw] = place
            elif self._index[raw] != place:
                self._later[raw] = place
        self._near.keep_bytes(self._copy_key(number), data)
        self._map(number, memoryview(data))

    def _pack(self, number: int) -> memoryview | None:
        """From this process, this host, or the storage."""
        pack = self._mapped.get(number)
        if pack is None:
            pack = self._near.kept_bytes(self._copy_key(number))
        if pack is None:
            data = self._objects.read(name_of(number))
            if data is None or places(data, number) is None:
                return None
            self._near.keep_bytes(self._copy_key(number), data)
            pack = memoryview(data)
        self._map(number, pack)
        return pack

    def _map(self, number: int, pack: memoryview) -> None:
        self._mapped[number] = pack
        self._mapped.move_to_end(number)
        if len(self._mapped) > _MOST_MAPPED:
            self._mapped.popitem(last=False)

    def _copy_key(self, number: int) -> str:
        return hashlib.sha1(b"%b %d" % (self._identity, number)).hexdigest()
