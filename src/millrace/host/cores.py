"""How many cores this process may really use: the least of affinity, cpuset and every quota above it.

Does not know how many of them are busy (see `strain`) nor how instances of millrace share them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, groups, read, read_text

_ROUNDING = 0.01
"""Tools write a quota of two cores as 199900 of 100000 us; that is two, and not one."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores of this machine and of this process.

    `allowed` is the least of `affinity` (what the scheduler may use), `cpuset` and `quota` (cores' worth of time
    a second); the two last are None where nothing sets them. `logical` is what the kernel has online, and `where`
    the file that sets the least.
    """

    allowed: float
    logical: int
    affinity: int
    quota: float | None
    cpuset: int | None
    where: str


def cores(root: Root = "/") -> Cores:
    """What this process may use; takes well under a millisecond and starts nothing."""
    logical = _logical(root)
    affinity = _affinity(root, logical)
    quota, quota_where = _quota(root)
    cpuset, cpuset_where = _cpuset(root)
    bounds = [(float(affinity), "affinity")]
    if cpuset is not None:
        bounds.append((float(cpuset), cpuset_where))
    if quota is not None:
        bounds.append((quota, quota_where))
    allowed, where = min(bounds, key=lambda bound: bound[0])
    return Cores(allowed, logical, affinity, quota, cpuset, where)


def slots(found: Cores) -> int:
    """How many tasks of one thread run at once: whole cores, at least one.

    Rounded down: with 2.5 cores a third worker would make all three wait for their quota, and what is left is
    used by the driver. 1.99 is two, since tools round quotas.
    """
    return max(1, int(found.allowed + _ROUNDING))


def parse_cpu_list(text: str) -> frozenset[int]:
    """Numbers of the kernel's list format: "0-3,8" is {0, 1, 2, 3, 8}."""
    numbers: set[int] = set()
    for part in filter(None, text.replace("\n", ",").split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _logical(root: Root) -> int:
    online = read_text(Path(root, "sys/devices/system/cpu/online"))
    if online:
        return len(parse_cpu_list(online))
    described = read_text(Path(root, "proc/cpuinfo")) or ""
    counted = sum(line.startswith("processor") for line in described.splitlines())
    return counted or os.cpu_count() or 1


def _affinity(root: Root, logical: int) -> int:
    """From the status file and not from `sched_getaffinity`, so that another root is read alike; the two agree."""
    for line in (read_text(Path(root, "proc/self/status")) or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list" and value.strip():
            return len(parse_cpu_list(value.strip()))
    return logical


def _quota(root: Root) -> tuple[float | None, str]:
    found: list[tuple[float, str]] = []
    for group in groups("cpu", root):
        if group.version == 2:
            name = "cpu.max"
            quota, _, period = (read(group, name) or "max").partition(" ")
        else:
            name = "cpu.cfs_quota_us"
            quota, period = read(group, name) or "-1", read(group, "cpu.cfs_period_us") or ""
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            found.append((int(quota) / int(period), f"{group.shown}/{name}"))
    return min(found) if found else (None, "")


def _cpuset(root: Root) -> tuple[int | None, str]:
    """The least of all levels, by the effective list where there is one (version 1 before 3.17 has the plain one)."""
    found: list[tuple[int, str]] = []
    for group in groups("cpuset", root):
        effective = "cpuset.cpus.effective" if group.version == 2 else "cpuset.effective_cpus"
        for name in (effective, "cpuset.cpus"):
            text = read(group, name)
            if text:
                found.append((len(parse_cpu_list(text)), f"{group.shown}/{name}"))
                break
    return min(found) if found else (None, "")
