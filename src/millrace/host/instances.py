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
    text = read_text(Path(root, "proc/locks"))
    if text is None:
        return None
    ours = {known for folder in folders for known in _files(folder)}
    held: dict[int, int] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[4].isdecimal():
            continue
        device, _, number = fields[5].rpartition(":")
        if number.isdecimal() and (device, int(number)) in ours:
            pid = int(fields[4])
            held[pid] = held.get(pid, 0) + 1
    return tuple(Instance(pid, count) for pid, count in sorted(held.items()) if pid != os.getpid())


def _files(folder: Path) -> list[tuple[str, int]]:
    """(device as the kernel writes it, inode) of the files of a folder."""
    found = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        try:
            known = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # gone since
        found.append((f"{os.major(known.st_dev):02x}:{os.minor(known.st_dev):02x}", known.st_ino))
    return found
