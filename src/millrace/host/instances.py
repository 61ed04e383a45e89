"""Other runs on this host, by the lock files that they hold: the kernel tells who holds which.

Reads /proc/locks and takes no lock itself. What the files are for is for the caller to know.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, read_text


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that holds `locks` of the files."""

    pid: int
    locks: int


def instances(folders: Iterable[Path], root: Root = "/") -> tuple[Instance, ...] | None:
    """Processes, but for this one, that hold locks on files directly in `folders`; None where nobody can tell."""
    if read_text(Path(root, "proc/locks")) is None:
        return None
    held: dict[int, int] = {}
    for pid, _ in holders([path for folder in folders for path in _in(folder)], root):
        held[pid] = held.get(pid, 0) + 1
    return tuple(Instance(pid, count) for pid, count in sorted(held.items()) if pid != os.getpid())


def holders(files: Iterable[Path], root: Root = "/") -> list[tuple[int, Path]]:
    """(process, file) of every flock that is held on one of the files; nothing where the kernel does not tell."""
    ours = {known: path for path in files if (known := _known(path)) is not None}
    found = []
    for line in (read_text(Path(root, "proc/locks")) or "").splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[4].isdecimal():
            continue  # those who wait for one have an arrow in the place of its kind
        device, _, number = fields[5].rpartition(":")
        path = ours.get((device, int(number))) if number.isdecimal() else None
        if path is not None:
            found.append((int(fields[4]), path))
    return found


def _in(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except OSError:
        return []


def _known(path: Path) -> tuple[str, int] | None:
    """(device as the kernel writes it, inode); None when it is gone."""
    try:
        known = path.lstat()
    except OSError:
        return None
    return f"{os.major(known.st_dev):02x}:{os.minor(known.st_dev):02x}", known.st_ino
