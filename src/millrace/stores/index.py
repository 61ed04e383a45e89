"""Where each key's record lies: a hash table in a file that all processes read and write in place.

A bucket is 16 slots of 16 bytes and is read with one `pread`, so a miss costs one or two system calls whatever the
size of the store, a process needs no memory for it, and opening reads nothing. The table is only a hint: a slot
names a place, and the record that lies there says by its key and checksum whether it is the right one. So a torn or
damaged slot is a miss, and a lost table is made again from the segments.

Rejected: reading all segments into a dict at the start (150 bytes a key in every process, seconds at a million keys,
and polling for what others wrote); SQLite (one damaged page takes the database, and a stopped writer stops all for
longer than a batch); a memory map in place of `pread` (a truncated file would kill the reader by SIGBUS).

Writers hold the store's lock; readers none. A table that grows or shrinks is written anew and renamed over the old
one, whose header then says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from millrace.stores.segments import Place

SLOTS = 16
_SLOT = struct.Struct("<QQ")
_BUCKET_BYTES = SLOTS * _SLOT.size
_HEADER = struct.Struct("<8sQI")
_MAGIC = b"mrindex1"
_DATA_AT = 4_096
_MOVED_AT, _COUNT_AT = 64, 72
_WORD = struct.Struct("<Q")
_TAG_HEAD = struct.Struct("<I")
_LEAST_BUCKETS = 64
_MOST_LOAD = 0.65
_SCAN_BYTES = 1 << 20
_EMPTY = bytes(8)


def tag_of(raw_key: bytes) -> bytes:
    """8 bytes that stand for a key in a slot: its CRC-32, which also chooses the bucket, and its last four bytes."""
    return _TAG_HEAD.pack(zlib.crc32(raw_key)) + raw_key[-4:].ljust(4, b"\0")


def extra_bytes(count: int) -> int:
    """What a table for so many keys takes beyond that of an empty store."""
    return (_buckets_for(count) - _LEAST_BUCKETS) * _BUCKET_BYTES


def _buckets_for(count: int) -> int:
    buckets = _LEAST_BUCKETS
    while count > buckets * SLOTS * _MOST_LOAD:
        buckets *= 2
    return buckets


def _matches(at: int, data: bytes, tag: bytes) -> list[tuple[int, Place]]:
    found = []
    i = data.find(tag)
    while i >= 0:
        if not i % _SLOT.size and i + _SLOT.size <= len(data):
            word = _WORD.unpack_from(data, i + 8)[0]
            if word:
                found.append((at + i, word))
        i = data.find(tag, i + 1)
    return found


class Index:
    """An open table. `find` is for everybody; `set` only under the store's lock."""

    def __init__(self, fd: int, buckets: int) -> None:
        self._fd = fd
        self._buckets = buckets

    @classmethod
    def open(cls, path: Path) -> Index | None:
        """None when there is no table, or what is there is none."""
        fd = -1
        for flags in (os.O_RDWR, os.O_RDONLY):
            try:
                fd = os.open(path, flags | os.O_CLOEXEC)
                break
            except FileNotFoundError:
                return None
            except PermissionError:
                continue
            except OSError as e:
                if e.errno != errno.EROFS:  # a store on a read-only disk can still be read
                    raise
        if fd < 0:
            return None
        head = os.pread(fd, _HEADER.size, 0)
        if len(head) == _HEADER.size:
            magic, buckets, crc = _HEADER.unpack(head)
            sound = magic == _MAGIC and crc == zlib.crc32(head[:16]) and buckets >= 1 and buckets & (buckets - 1) == 0
            if sound:
                return cls(fd, buckets)
        os.close(fd)
        return None

    def close(self) -> None:
        os.close(self._fd)

    def inode(self) -> int:
        return os.fstat(self._fd).st_ino

    def moved(self) -> bool:
        """A newer table has taken the place of this one."""
        return os.pread(self._fd, 8, _MOVED_AT) not in (_EMPTY, b"")

    def find(self, raw_key: bytes) -> list[Place]:
        """Where the key's record may lie; usually nowhere or in one place."""
        tag = tag_of(raw_key)
        at = _DATA_AT + (_TAG_HEAD.unpack_from(tag)[0] & (self._buckets - 1)) * _BUCKET_BYTES
        data = os.pread(self._fd, _BUCKET_BYTES, at)
        if len(data) < _BUCKET_BYTES or data.endswith(_EMPTY):  # nearly always: what a miss costs is in these lines
            return [place for _, place in _matches(at, data, tag)] if tag in data else []
        return [place for at, data in self._buckets_of(tag) for _, place in _matches(at, data, tag)]

    def look(self, tag: bytes) -> tuple[list[tuple[int, Place]], int]:
        """The slots of a tag as (position in the file, place), and the position where a new one of it goes; 0 when the
        table is full."""
        found: list[tuple[int, Place]] = []
        for at, data in self._buckets_of(tag):
            if tag in data:
                found += _matches(at, data, tag)
            used = (len(data.rstrip(b"\0")) + 15) >> 4  # slots are filled from the front
            if used < SLOTS:
                return found, at + (used << 4)
        return found, 0

    def _buckets_of(self, tag: bytes) -> Iterator[tuple[int, bytes]]:
        """The bucket of a tag, and the following ones as long as they are full."""
        bucket = _TAG_HEAD.unpack_from(tag)[0] & (self._buckets - 1)
        for _ in range(self._buckets):
            at = _DATA_AT + bucket * _BUCKET_BYTES
            data = os.pread(self._fd, _BUCKET_BYTES, at)
            yield at, data
            if len(data) < _BUCKET_BYTES or data.endswith(_EMPTY):
                return
            bucket = (bucket + 1) & (self._buckets - 1)

    def set(self, position: int, tag: bytes, place: Place) -> None:
        os.pwrite(self._fd, tag + _WORD.pack(place), position)

    def count(self) -> int:
        data = os.pread(self._fd, 8, _COUNT_AT)
        return int.from_bytes(data, "little") if len(data) == 8 else 0

    def grow_count(self, by: int) -> None:
        os.pwrite(self._fd, _WORD.pack(self.count() + by), _COUNT_AT)

    def extra_bytes(self) -> int:
        """What this table takes beyond that of an empty store."""
        return (self._buckets - _LEAST_BUCKETS) * _BUCKET_BYTES

    def is_full(self, more: int) -> bool:
        return self.count() + more > self._buckets * SLOTS * _MOST_LOAD

    def slots(self) -> Iterator[tuple[bytes, Place]]:
        """All used slots as (tag, place)."""
        at, end = _DATA_AT, _DATA_AT + self._buckets * _BUCKET_BYTES
        while at < end:
            data = os.pread(self._fd, min(_SCAN_BYTES, end - at), at)
            for i in range(0, len(data) - 15, _SLOT.size):
                word = _WORD.unpack_from(data, i + 8)[0]
                if word:
                    yield data[i : i + 8], word
            if len(data) < _SCAN_BYTES:
                return
            at += len(data)

    def supersede(self) -> None:
        """Readers of this table look for a newer one from now on."""
        os.pwrite(self._fd, _WORD.pack(1), _MOVED_AT)


def write_table(path: Path, slots: Callable[[], Iterator[tuple[bytes, Place]]], room_for: int = 0) -> None:
    """A whole new table in place of the one at `path`, with room for at least `room_for` keys. Under the lock.

    `slots` is called twice: once to count them, so that they are never all in memory.
    """
    count = sum(1 for _ in slots())
    buckets = _buckets_for(max(count, room_for))
    draft = path.with_suffix(".new")
    try:
        with open(draft, "wb", buffering=0) as file:
            head = _HEADER.pack(_MAGIC, buckets, zlib.crc32(_MAGIC + _WORD.pack(buckets)))
            head = head.ljust(_COUNT_AT, b"\0") + _WORD.pack(count)
            for piece in (head.ljust(_DATA_AT, b"\0"), _laid_out(slots(), buckets)):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
        old = Index.open(path)
        if old is not None:
            # Said before the new one is there: a process that dies in between leaves readers who look twice, and the
            # next writer makes the table again; the other order could leave readers on a table that nobody writes.
            old.supersede()
            old.close()
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def _laid_out(slots: Iterator[tuple[bytes, Place]], buckets: int) -> bytearray:
    data = bytearray(buckets * _BUCKET_BYTES)
    filled = bytearray(buckets)
    for tag, word in slots:
        bucket = _TAG_HEAD.unpack_from(tag)[0] & (buckets - 1)
        while filled[bucket] == SLOTS:
            bucket = (bucket + 1) & (buckets - 1)
        at = bucket * _BUCKET_BYTES + filled[bucket] * _SLOT.size
        data[at : at + 8] = tag
        _WORD.pack_into(data, at + 8, word)
        filled[bucket] += 1
    return data
