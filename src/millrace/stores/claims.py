"""Claims on keys that are being computed, so that runs that share a store do not compute the same thing at once.

A claim is a lock on one byte of a sparse file, at a place that the key chooses: one system call, nothing on the disk,
and the kernel lets it go when the process ends, however it ends. Two keys of one place would wait for each other: with
60 bits, never. Spread over `FILES` files, since the kernel walks all locks of a file. A claim is advice: a value that
is computed twice is the same value.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path

from millrace.run.task import Key

FILES = 16
_FLOCK = struct.Struct("hhqqi0q")
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""


class FileClaims:
    """Of one run. Locks belong to its open files, so two runs of one process are two. Linux only."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._fds = [os.open(folder / f"{i:x}", flags, 0o666) for i in range(FILES)]

    def claim(self, key: Key) -> bool:
        """Ours from now on; False when another has it."""
        try:
            self._set(key, fcntl.F_WRLCK)
            return True
        except (BlockingIOError, PermissionError):
            return False

    def release(self, key: Key) -> None:
        """After `close` there is nothing to let go."""
        if not self._fds:
            return
        self._set(key, fcntl.F_UNLCK)

    def close(self) -> None:
        """Lets all of them go."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def _set(self, key: Key, kind: int) -> None:
        number = int(key[:16], 16)
        fcntl.fcntl(self._fds[number % FILES], fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, number // FILES, 1, 0))


def claims_of(url: str) -> FileClaims | None:
    """Of the store at `url`; None where it can have none: not in a directory, only to be read, not on Linux."""
    top = url.rpartition(",dir:")[2] if url.startswith("layered:") else url.removeprefix("dir:")
    if sys.platform != "linux" or "://" in top or not os.path.isdir(top):
        return None
    try:
        return FileClaims(Path(top, "v1", "claims"))
    except OSError:
        return None
