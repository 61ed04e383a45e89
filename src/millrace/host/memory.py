"""How much memory there really is, how much of it is free to take, and what a process holds.

Memory here is what cannot be taken back without writing it out: anonymous pages and shared memory. Mapped files
are not: the kernel drops them when it needs room, and RSS counts them, which is why RSS is nowhere used. Does not
decide how a run spends its memory (see `run.budget`).
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.host.cgroups import Group, Root, groups, read, read_table, read_text
from millrace.run.errors import MillraceError

SHARE = 0.75
"""The part of the free memory that a run takes when nobody says more. The rest is for what others start in the
meantime, the page tables, and the file cache: mapped inputs are fast only while they stay in it."""

_RSS = re.compile(rb"^Rss(Anon|Shmem):\s*(\d+) kB$", re.MULTILINE)
_NO_LIMIT = 1 << 60  # version 1 writes "no limit" as the largest page-aligned number


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of this machine and of this process's groups.

    `limit_bytes`: the most that may be held, the least of all limits above this process and of `total_bytes`;
    `where`: the file that sets it. `used_bytes`: what is held under that limit now and cannot be taken back, None
    when the group does not tell.
    `available_bytes`: what can still be taken everywhere up the tree. `swap_bytes` is told and never counted.
    """

    total_bytes: int
    limit_bytes: int
    available_bytes: int
    used_bytes: int | None
    swap_bytes: int
    where: str


@dataclass(frozen=True, slots=True)
class _Bound:
    limit_bytes: int
    used_bytes: int | None
    where: str


def memory(root: Root = "/") -> Memory:
    """What there is and what is free. `MillraceError` when the machine does not say how much memory it has."""
    machine, swap_bytes = _machine(root)
    bounds = [machine, *_bounds(root)]
    least = min(bounds, key=lambda bound: bound.limit_bytes)
    available = min(bound.limit_bytes - (bound.used_bytes or 0) for bound in bounds)
    return Memory(machine.limit_bytes, least.limit_bytes, max(0, available), least.used_bytes, swap_bytes, least.where)


def budget_bytes(found: Memory) -> int:
    """What a run may take when nobody says otherwise: `SHARE` of what is free, in whole MiB."""
    return int(found.available_bytes * SHARE) >> 20 << 20


def default_budget_bytes(root: Root = "/") -> int:
    """`budget_bytes` of this machine as it is now."""
    return budget_bytes(memory(root))


def private_bytes(pid: int | None = None, *, tree: bool = False, root: Root = "/") -> int:
    """What a process (this one by default) holds: RssAnon + RssShmem; on macOS its unique set size.

    `tree` adds all its descendants that live. Pages that a forked child still shares with its parent are counted
    in both: the true figure (Pss) takes milliseconds a process to find out, and too much is the safe side.
    Raises `ProcessLookupError` when the process is gone and `MillraceError` when its memory cannot be read;
    never 0 for either.
    """
    own = os.getpid() if pid is None else pid
    total = _private_of(own, root)
    for child in _descendants(own, root) if tree else ():
        try:
            total += _private_of(child, root)
        except ProcessLookupError:
            continue  # it ended between the two looks, and holds nothing now
    return total


def _machine(root: Root) -> tuple[_Bound, int]:
    table = read_table(read_text(Path(root, "proc/meminfo")))
    if "MemTotal" in table and "MemAvailable" in table:
        total, available = table["MemTotal"] * 1024, table["MemAvailable"] * 1024
        return _Bound(total, total - available, "/proc/meminfo"), table.get("SwapTotal", 0) * 1024
    if Path(root) != Path("/") or sys.platform == "linux":
        raise MillraceError(
            f"{Path(root, 'proc/meminfo')} does not tell MemTotal and MemAvailable, so the memory of this machine is "
            "not known: mount /proc, or give the memory yourself with --memory."
        )
    import psutil

    told = psutil.virtual_memory()
    return _Bound(told.total, told.total - told.available, "psutil.virtual_memory"), psutil.swap_memory().total


def _bounds(root: Root) -> list[_Bound]:
    """Limits of all groups, each with what is held under it; where a group does not tell, its limit binds alone."""
    found = []
    for group in groups("memory", root):
        used = _used(group)
        names = ("memory.max", "memory.high") if group.version == 2 else ("memory.limit_in_bytes",)
        for name in names:
            text = read(group, name) or ""
            if text.isdecimal() and int(text) < _NO_LIMIT:
                found.append(_Bound(int(text), used, f"{group.shown}/{name}"))
        # Ancestors that are outside of the mount show only here (their use does not: a bound, and no more).
        hierarchical = read_table(read(group, "memory.stat")).get("hierarchical_memory_limit", _NO_LIMIT)
        if group.version == 1 and hierarchical < _NO_LIMIT:
            found.append(_Bound(hierarchical, used, f"{group.shown}/memory.stat"))
    return found


def _used(group: Group) -> int | None:
    """What a group holds and cannot give back; None when it does not tell.

    All that is charged to it, less the file pages on the reclaim lists and reclaimable slab. Shared memory is on
    the anonymous lists and locked files on the unevictable one, so both stay counted. Never less than anonymous
    plus shared: the two files are read one after the other.
    """
    stat = read_table(read(group, "memory.stat"))
    if group.version == 2:
        charged = read(group, "memory.current") or ""
        floor = stat.get("anon", 0) + stat.get("shmem", 0)
        kept = stat.get("inactive_file", 0) + stat.get("active_file", 0) + stat.get("slab_reclaimable", 0)
    else:
        charged = read(group, "memory.usage_in_bytes") or ""
        floor = stat.get("total_rss", 0) + stat.get("total_shmem", 0)
        kept = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    if not charged.isdecimal():
        return floor if stat else None
    return max(floor, int(charged) - kept)


def _private_of(pid: int, root: Root) -> int:
    if sys.platform != "linux":
        return _unique_set_size(pid)
    try:
        with open(f"{root}/proc/{pid}/status", "rb") as file:  # asked often, and Path takes longer than the kernel
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    found = dict(_RSS.findall(text))
    if b"Anon" in found:
        return (int(found[b"Anon"]) + int(found.get(b"Shmem", 0))) * 1024
    if b"VmRSS:" not in text:
        return 0  # a process without memory of its own: it has ended and waits to be collected
    raise MillraceError(
        f"/proc/{pid}/status tells VmRSS and no RssAnon, so the private memory of process {pid} is not known (the "
        "kernel is older than 4.5, or stands in for Linux as gVisor does): give each worker a memory limit of the "
        "operating system instead."
    )


def _unique_set_size(pid: int) -> int:
    import psutil

    try:
        full: Any = psutil.Process(pid).memory_full_info()
        return int(full.uss)
    except psutil.ZombieProcess:
        return 0
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"there is no process {pid}") from None
    except psutil.AccessDenied as refused:
        raise MillraceError(f"the memory of process {pid} may not be read by this user: {refused}.") from refused


def _descendants(pid: int, root: Root) -> list[int]:
    """All living descendants, from one look at every process's parent (not every kernel lists children)."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents(root):
        children.setdefault(parent, []).append(child)
    found, ahead = [], [pid]
    while ahead:
        ahead = [child for parent in ahead for child in children.get(parent, ())]
        found += ahead
    return found


def _parents(root: Root) -> list[tuple[int, int]]:
    if sys.platform != "linux":
        import psutil

        return [(process.info["pid"], process.info["ppid"]) for process in psutil.process_iter(["pid", "ppid"])]
    found = []
    for place in Path(root, "proc").iterdir():
        if place.name.isdecimal():
            # The command's name is in parentheses and may hold any character; the parent is the second field after.
            fields = (read_text(place / "stat") or "").rpartition(")")[2].split()
            if len(fields) > 1:
                found.append((int(place.name), int(fields[1])))
    return found
