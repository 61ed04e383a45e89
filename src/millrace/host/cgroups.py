"""Which control groups bind this process: its own and every ancestor, versions 1 and 2, as files that can be read.

Limits of every ancestor count, not only of the process's own group: a job of 64 cores inside a pod of 2 has 2.
That is where `os.cpu_count`, joblib, Dask and psutil are wrong. Knows where the groups lie and nothing of what is
in them; see `cores`, `memory` and `strain`. Every function takes the root of the file system, so that a directory
with the files of another machine can be read as if it were this one.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Root = str | Path


@dataclass(frozen=True, slots=True)
class Group:
    """A control group seen from here. `shown` is its path without the root; `level` 0 is the process's own."""

    version: Literal[1, 2]
    path: Path
    shown: str
    level: int


@dataclass(frozen=True, slots=True)
class _Mount:
    version: Literal[1, 2]
    controllers: frozenset[str]
    root: tuple[str, ...]
    point: str


def groups(controller: str, root: Root = "/") -> tuple[Group, ...]:
    """The groups of one controller ("cpu", "memory", "cpuset"), the process's own first, then its ancestors.

    On a hybrid machine both versions are walked: a controller lives in one of them, and the other has no file of
    it to read. Empty where the machine has no control groups (macOS) or hides them.
    """
    mounts = _mounts(read_text(Path(root, "proc/self/mountinfo")) or "")
    found: list[Group] = []
    for version, controllers, path in _memberships(read_text(Path(root, "proc/self/cgroup")) or ""):
        if version == 1 and controller not in controllers:
            continue
        fitting = [m for m in mounts if m.version == version and (version == 2 or controller in m.controllers)]
        found += _walk(fitting, path, Path(root))
    return tuple(dict.fromkeys(found))


def read(group: Group, name: str) -> str | None:
    """The text of one file of a group without its line end; None when there is none or it cannot be read."""
    return read_text(group.path / name)


def read_text(path: Path) -> str | None:
    """Text of a small kernel file; None when it is absent or unreadable (some exist and fail with EOPNOTSUPP)."""
    try:
        handle = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC
        )  # a run reads dozens of them: half the price of a file object
        try:
            parts = [*iter(lambda: os.read(handle, 1 << 16), b"")]
        finally:
            os.close(handle)
    except OSError:
        return None
    return b"".join(parts).decode("utf-8", "surrogateescape").strip()


def read_table(text: str | None) -> dict[str, int]:
    """The "name value" lines of cpu.stat, memory.stat or meminfo ("MemTotal: 24 kB" gives 24), others left out."""
    rows = (line.split() for line in (text or "").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}


def mount_lines(root: Root = "/") -> list[tuple[list[str], list[str]]]:
    """Lines of /proc/self/mountinfo in halves: (id parent dev root point options ...) and (type source options)."""
    return _mount_lines(read_text(Path(root, "proc/self/mountinfo")) or "")


def _mount_lines(text: str) -> list[tuple[list[str], list[str]]]:
    halves = [line.partition(" - ") for line in text.splitlines()]
    rows = [(left.split(" "), right.split(" ")) for left, _, right in halves]
    return [(left, right) for left, right in rows if len(left) >= 6 and len(right) >= 2]


def unescaped(path: str) -> str:
    r"""A path of mountinfo, where blanks and backslashes are written in octal ("\040")."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), path)


def under(root: Root, absolute: str) -> Path:
    """The place of an absolute path of the machine beneath `root`."""
    return Path(root, absolute.lstrip("/"))


@functools.lru_cache(maxsize=8)
def _mounts(text: str) -> tuple[_Mount, ...]:
    """Of mountinfo. Kept, since it is the same text all the time, and a run asks for it many times."""
    found = []
    for left, right in _mount_lines(text):
        if right[0] in ("cgroup", "cgroup2"):
            controllers = frozenset(right[2].split(",")) if len(right) > 2 else frozenset()
            version: Literal[1, 2] = 2 if right[0] == "cgroup2" else 1
            found.append(_Mount(version, controllers, _parts(unescaped(left[3])), unescaped(left[4])))
    return tuple(found)


@functools.lru_cache(maxsize=8)
def _memberships(text: str) -> tuple[tuple[Literal[1, 2], frozenset[str], tuple[str, ...]], ...]:
    """Of /proc/self/cgroup; kept as `_mounts` are."""
    found: list[tuple[Literal[1, 2], frozenset[str], tuple[str, ...]]] = []
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            number, controllers, path = fields
            version: Literal[1, 2] = 2 if number == "0" and not controllers else 1
            found.append((version, frozenset(controllers.split(",")), _parts(path.removesuffix(" (deleted)"))))
    return tuple(found)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _walk(mounts: Sequence[_Mount], path: tuple[str, ...], root: Path) -> list[Group]:
    """Own group and ancestors of `path` in every mount that shows them.

    A container without a cgroup namespace sees a path of the host, which may lie outside of what is mounted. Then
    the mount point stands for it: runtimes mount the container's own group there, and where that is wrong it is
    wrong towards too little, which costs time; too much would cost the run.
    """
    places = [(m, path[len(m.root) :]) for m in mounts if path[: len(m.root)] == m.root]
    places = [(m, below) for m, below in places if ".." not in below]
    if not places:
        places = [(m, below) for m in mounts if (below := _by_member(m, path, root)) is not None]
    found = []
    for mount, below in places or [(m, ()) for m in mounts]:
        for level in range(len(below) + 1):
            shown = "/".join([mount.point.rstrip("/"), *below[: len(below) - level]]) or "/"
            place = under(root, shown)
            if place.is_dir():
                found.append(Group(mount.version, place, shown, level))
    return found


def _by_member(mount: _Mount, path: tuple[str, ...], root: Path) -> tuple[str, ...] | None:
    """The path below a mount that was made outside of this process's cgroup namespace (bubblewrap, `unshare -C`).

    Its root is told as "/../..": the namespace begins two levels below it, in groups whose names are not told. The
    one of them that has this process as a member is its own.
    """
    if not mount.root or set(mount.root) != {".."} or ".." in path:
        return None
    pid = re.search(r"^Pid:\s*(\d+)", read_text(Path(root, "proc/self/status")) or "", re.MULTILINE)
    top = under(root, mount.point)
    for place in top.glob("/".join(["*"] * len(mount.root))):
        members = read_text(place.joinpath(*path, "cgroup.procs"))
        if pid and members and pid[1] in members.split():
            return (*place.relative_to(top).parts, *path)
    return None
