"""Append-only segments: many small records in one file, each of which says whose it is and whether it is whole.

A record is a head (magic, CRC-32 of all that follows it, length, kind, length of the key), the key, the payload, and
zeros to a multiple of 8 bytes. A segment has one writer at a time (it holds the file's lock) and any number of
readers; what its writer left half-written when it was killed is never pointed to. A later process goes on with a
segment that is not full, so a store does not collect a file per process.

Segments of values hold small values; segments of files hold what is known of large ones (see `directory.FileNote`);
they are apart so that eviction can read the second kind without the first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VALUE, FILE = 1, 2
SEGMENT_BYTES = 8 << 20
"""A segment that has reached this size gets no more records; the unit in which small values are evicted."""
MOST_RECORD_BYTES = 32_760
_HEAD = struct.Struct("<4sIIBBH")
HEAD_BYTES = _HEAD.size
_MAGIC = b"mRc1"
_SUMMED_FROM = 8
_TOUCH_S = 60.0
_MOST_OPEN = 64
_MOST_TRIED = 16
_NOT_OURS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT}


@dataclass(frozen=True, slots=True)
class Record:
    kind: int
    raw_key: bytes
    payload: bytes


Place = int
"""Where a record lies, in 64 bits as the index keeps it: number of the segment, offset and length by 8 bytes."""


def place(segment: int, offset: int, length: int) -> Place:
    return segment << 40 | (offset >> 3) << 12 | length >> 3


def segment_of(place: Place) -> int:
    return place >> 40


def offset_of(place: Place) -> int:
    return (place >> 12 & 0xFFFFFFF) << 3


def length_of(place: Place) -> int:
    return (place & 0xFFF) << 3


def sealed(kind: int, raw_key: bytes, payload: bytes) -> bytes:
    """The record's bytes."""
    body = _HEAD.pack(_MAGIC, 0, len(payload), kind, len(raw_key), 0)[_SUMMED_FROM:] + raw_key + payload
    body += bytes(-len(body) & 7)
    return _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def opened(data: bytes, at: int = 0) -> tuple[Record, int] | None:
    """The record at `at` and its length; None when there is no whole one."""
    if len(data) - at < _HEAD.size:
        return None
    magic, crc, payload_bytes, kind, key_bytes, _ = _HEAD.unpack_from(data, at)
    length = -(-(_HEAD.size + key_bytes + payload_bytes) // 8) * 8
    if magic != _MAGIC or at + length > len(data):
        return None
    if zlib.crc32(memoryview(data)[at + _SUMMED_FROM : at + length]) != crc:
        return None
    key_at = at + _HEAD.size
    payload_at = key_at + key_bytes
    record = Record(kind, data[key_at:payload_at], data[payload_at : payload_at + payload_bytes])
    return record, length


def length_from(head: bytes) -> int:
    """Length of the record that starts with these HEAD_BYTES; 0 when none does."""
    if len(head) < HEAD_BYTES:
        return 0
    magic, _, payload_bytes, _, key_bytes, _ = _HEAD.unpack_from(head)
    return -(-(HEAD_BYTES + key_bytes + payload_bytes) // 8) * 8 if magic == _MAGIC else 0


def of_key(data: bytes, raw_key: bytes) -> tuple[int, bytes] | None:
    """Kind and payload when `data` is the whole record of this key (what `opened` tells, in half the time)."""
    if len(data) < HEAD_BYTES:
        return None
    magic, crc, payload_bytes, kind, key_bytes, _ = _HEAD.unpack_from(data)
    payload_at = HEAD_BYTES + key_bytes
    if data[HEAD_BYTES:payload_at] != raw_key or magic != _MAGIC:
        return None
    if len(data) - 8 >= payload_at + payload_bytes or zlib.crc32(data[_SUMMED_FROM:]) != crc:
        return None
    return kind, data[payload_at : payload_at + payload_bytes]


def scan(path: Path) -> Iterator[tuple[int, int, Record]]:
    """All whole records of a segment as (offset, length, record), past whatever is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    at = 0
    while at < len(data):
        found = opened(data, at)
        if found is not None:
            record, length = found
            yield at, length, record
            at += length
            continue
        at = data.find(_MAGIC, at + 1)
        if at < 0:
            return
        at = -(-at // 8) * 8


def number_of(name: str) -> int | None:
    """The number in a segment's file name; None for another file."""
    stem, _, kind = name.partition(".")
    if kind not in ("values", "files") or len(stem) != 6:
        return None
    try:
        number = int(stem, 16)
    except ValueError:
        return None
    return number if number and path_name(number) == name else None


def path_name(number: int) -> str:
    return f"{number:06x}.{'files' if number & 1 else 'values'}"


def fresh_number(kind: int) -> int:
    """A random number (a reader that knows an evicted segment must not meet another one under its name)."""
    return (secrets.randbelow((1 << 23) - 1) + 1) << 1 | (kind == FILE)


class Reader:
    """Reads records by place; holds a few segments open and notes when they were used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fds: dict[int, int] = {}
        self._touched_s: dict[int, float] = {}

    def read(self, place: Place) -> bytes:
        """The bytes; fewer, or none, when they are not there."""
        segment = place >> 40
        fd = self._fds.get(segment)
        if fd is None:
            fd = self._open(segment)
            if fd < 0:
                return b""
        now = time.monotonic()
        if now - self._touched_s.get(segment, 0.0) > _TOUCH_S:
            self._touched_s[segment] = now
            if os.fstat(fd).st_nlink == 0:  # evicted: a process that lives long must not keep its space
                self.forget(segment)
                return b""
            touch(fd)
        return os.pread(fd, (place & 0xFFF) << 3, (place >> 12 & 0xFFFFFFF) << 3)

    def _open(self, segment: int) -> int:
        if len(self._fds) >= _MOST_OPEN:
            self.forget(next(iter(self._fds)))
        try:
            fd = os.open(self._folder / path_name(segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        self._fds[segment] = fd
        return fd

    def forget(self, segment: int) -> None:
        fd = self._fds.pop(segment, -1)
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        for segment in list(self._fds):
            self.forget(segment)
        self._touched_s.clear()


def touch(file: int | str) -> None:
    """Note the use of a file: its access time, set by hand (what mounts do by themselves with it differs); the time
    of change stays, for it tells a file that was verified from one that was replaced."""
    try:
        os.utime(file, ns=(time.time_ns(), os.stat(file).st_mtime_ns))
    except OSError as e:
        if e.errno not in _NOT_OURS:  # a store of somebody else that we may only read keeps its own time
            raise


def last_use_ns(status: os.stat_result) -> int:
    return max(status.st_atime_ns, status.st_mtime_ns)


class Writer:
    """The one writer of a segment."""

    def __init__(self, folder: Path, kind: int) -> None:
        self._folder, self._kind = folder, kind
        self._fd = -1
        self.number = 0
        self._at = 0

    def append(self, data: bytes) -> int:
        """Write whole records; returns the offset of the first. After an error nothing of them is left.

        Under the store's lock. Goes to another segment when this one is full or was evicted under our hands.
        """
        if self._fd >= 0 and (self._at >= SEGMENT_BYTES or os.fstat(self._fd).st_nlink == 0):
            self.close()
        if self._fd < 0:
            self._open()
        start = self._at
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except BaseException:
            os.ftruncate(self._fd, start)
            raise
        self._at += len(data)
        return start

    def _open(self) -> None:
        self._fd, self.number = self._adopted()
        while self._fd < 0:
            number = fresh_number(self._kind)
            try:
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd = os.open(self._folder / path_name(number), flags, 0o666)
            except FileExistsError:
                continue
            self.number = number
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._at = os.fstat(self._fd).st_size
        odd = -self._at & 7
        if odd:  # its last writer was killed in a write
            self._at += os.write(self._fd, bytes(odd))

    def _adopted(self) -> tuple[int, int]:
        """A segment with room whose writer is gone, locked for us; (-1, 0) when there is none."""
        tried = 0
        for name in os.listdir(self._folder):
            number = number_of(name)
            if number is None or (number & 1) != (self._kind == FILE):
                continue
            if tried == _MOST_TRIED:
                break
            path = self._folder / name
            if os.stat(path).st_size >= SEGMENT_BYTES // 2:
                continue
            tried += 1
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd, number
            except BlockingIOError:
                os.close(fd)
        return -1, 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
