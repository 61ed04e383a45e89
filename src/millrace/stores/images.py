"""Large values as files: written in one pass with their checksum, verified once, then mapped.

The checksum is CRC-32 of zlib: measured 4.2 GB/s here, blake2b .95, sha256 1.8, sha1 1.9, adler32 3.6 (and weak);
it guards against damage, not against an enemy who can write to the store. Writing is not synced to the disk: a file
survives the death of any process, and what a power cut leaves half-written fails its checksum and is a miss.

A mapped file stays readable after it is unlinked. Does not know keys: see `directory`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from millrace.run.errors import AnalysisFailed
from millrace.stores.codecs import Encoded
from millrace.stores.segments import touch

SUFFIXES = {"npy": ".npy", "arrow": ".arrow", "container": ".mill"}
_CHUNK_BYTES = 256 << 10
"""Written and summed at a time: small enough that the second reads what the first left in the processor's cache."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABANDONED_S = 10.0
_TOUCH_S = 60.0
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Draft:
    """A whole image under a name that nobody reads yet."""

    path: str
    size_bytes: int
    crc: int


def write(folder: Path, encoded: Encoded) -> Draft:
    """The image as a new file in `folder`; nothing stays when it cannot be written whole."""
    with _drafted(folder, encoded.image_bytes) as summed:
        for offset, chunk in encoded.chunks():
            summed.pad(offset)
            summed.write(chunk)
    return summed.draft()


def copied(folder: Path, source: BinaryIO, size_bytes: int) -> Draft:
    """The next `size_bytes` of `source` as a new file in `folder` (fewer when it ends before)."""
    with _drafted(folder, size_bytes) as summed:
        while summed.size_bytes < size_bytes:
            chunk = source.read(min(_CHUNK_BYTES, size_bytes - summed.size_bytes))
            if not chunk:
                break
            summed.write(chunk)
    return summed.draft()


@contextlib.contextmanager
def _drafted(folder: Path, size_bytes: int) -> Iterator[Summed]:
    """A new file to be written in the block; it goes again when the block fails."""
    path = folder / secrets.token_hex(8)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # says "my writer lives" to `sweep`, however it ends
        yield Summed(fd, str(path))
    except OSError as e:
        os.unlink(path)
        raise no_room(folder, e, size_bytes) from e
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


class Summed:
    """Writes to a file and sums what it writes."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path
        self.size_bytes = 0
        self.crc = 0

    def write(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view[:_CHUNK_BYTES])
            self.crc = zlib.crc32(view[:written], self.crc)
            self.size_bytes += written
            view = view[written:]

    def pad(self, offset: int) -> None:
        if offset > self.size_bytes:
            self.write(bytes(offset - self.size_bytes))

    def draft(self) -> Draft:
        return Draft(self._path, self.size_bytes, self.crc)


def no_room(folder: Path, error: OSError, needed_bytes: int) -> Exception:
    """What to raise for a write that failed: a clear message when the disk is full, the error itself otherwise."""
    if error.errno not in _NO_ROOM:
        return error
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    return AnalysisFailed(
        f"The store at {folder.parent} has no room for {needed_bytes:,} bytes more ({error.strerror}; {free:,} bytes "
        "are free on its disk). Nothing half-written stays, and what was finished is kept. Make room "
        "(`millrace cache evict`), or point the store to a larger disk, and run again."
    )


Identity = tuple[int, int, int]
"""Inode, time of change and size: what is verified once stays verified while these are the same."""


def open_image(path: str, size_bytes: int) -> tuple[int, Identity] | None:
    """A file descriptor, and what the file is; None when it is gone or has another size."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    status = os.fstat(fd)
    if status.st_size != size_bytes:
        os.close(fd)
        return None
    return fd, (status.st_ino, status.st_mtime_ns, status.st_size)


def checksum(fd: int) -> int:
    """Of the whole file. By reading it: pages of a map would stay counted to this process while it sums."""
    buffer, crc, at = memoryview(bytearray(_CHUNK_BYTES)), 0, 0
    while count := os.preadv(fd, [buffer], at):
        crc = zlib.crc32(buffer[:count], crc)
        at += count
    return crc


class Mapper:
    """Maps files; remembers for this process which it has verified, and notes their use once a minute."""

    def __init__(self) -> None:
        self._verified: set[Identity] = set()
        self._touched_s: dict[str, float] = {}

    def mapped(self, path: str, size_bytes: int, crc: int | None) -> mmap.mmap | None:
        """The file as read-only shared memory; nothing of it is read unless it must be verified (`crc`), and then
        once. None when it is gone, has another size, or another checksum."""
        opened = open_image(path, size_bytes)
        if opened is None:
            return None
        fd, identity = opened
        try:
            if crc is not None and identity not in self._verified:
                if checksum(fd) != crc:
                    return None
                self._remember(identity)
            image = mmap.mmap(fd, size_bytes, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._touch(path)
        return image

    def trust(self, path: str) -> None:
        """This process has just written it."""
        status = os.stat(path)
        self._remember((status.st_ino, status.st_mtime_ns, status.st_size))

    def _remember(self, identity: Identity) -> None:
        if len(self._verified) >= _MOST_REMEMBERED:
            self._verified.clear()
        self._verified.add(identity)

    def _touch(self, path: str) -> None:
        now = time.monotonic()
        if now - self._touched_s.get(path, -_TOUCH_S) >= _TOUCH_S:
            if len(self._touched_s) >= _MOST_REMEMBERED:
                self._touched_s.clear()
            self._touched_s[path] = now
            touch(path)


def sweep(folder: Path) -> None:
    """Remove drafts whose writer died: older than ten seconds (a young one may not have its lock yet) and unlocked."""
    for name in os.listdir(folder):
        path = folder / name
        with contextlib.suppress(FileNotFoundError):  # another process swept it, or its writer is done
            if time.time() - os.stat(path).st_mtime < _ABANDONED_S:
                continue
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)
