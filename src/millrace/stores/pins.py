"""Keys that eviction must leave alone: those of live processes, and those of results that are kept.

A process notes its pins in a file of its own, which it holds locked: the kernel lets the lock go however the process
ends, and whoever evicts next takes an unlocked file away. A key that is held for good is an empty file by its name.
All of it happens under the store's lock, so a pin never comes between an eviction's look and its deed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from millrace.stores.codecs import raw_key

_HELD = "held"


class Pins:
    """The pins of one store object, and a look at everybody's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._path = folder
        self._own: set[bytes] = set()

    def has(self, raw: bytes) -> bool:
        return raw in self._own

    def add(self, raw: bytes) -> None:
        """Until `close`, or until this process is dead."""
        if self._fd < 0:
            self._path = self._folder / secrets.token_hex(8)
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._fd, raw.hex().encode() + b"\n")
        self._own.add(raw)

    def hold(self, raw: bytes) -> None:
        """For good: until `release`."""
        folder = self._folder / _HELD
        folder.mkdir(exist_ok=True)
        (folder / raw.hex()).touch()

    def release(self, raw: bytes) -> None:
        (self._folder / _HELD / raw.hex()).unlink(missing_ok=True)

    def everybodys(self) -> set[bytes]:
        """All pinned keys. Files of dead processes are removed."""
        pinned = set(self._own)
        for name in os.listdir(self._folder):
            path = self._folder / name
            if name == _HELD:
                pinned.update(_keys(os.listdir(path)))
            elif path != self._path:
                pinned.update(self._others(path))
        return pinned

    def _others(self, path: Path) -> set[bytes]:
        try:
            file = open(path, encoding="ascii", errors="replace")  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            return set()
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _keys(line.rstrip("\n") for line in file if line.endswith("\n"))
            os.unlink(path)
            return set()

    def close(self, forget: bool = False) -> None:
        """Let the pins go; with `forget` only our end of the file (a forked child leaves its parent's pins)."""
        if self._fd >= 0:
            if not forget:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
            os.close(self._fd)
        self._fd, self._path = -1, self._folder
        self._own.clear()


def _keys(names: Iterable[str]) -> set[bytes]:
    found = set()
    for name in names:
        with contextlib.suppress(ValueError):  # a file that somebody put there is no pin
            found.add(raw_key(name))
    return found
