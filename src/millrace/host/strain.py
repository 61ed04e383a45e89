"""What holds this process up from outside: time stolen by quotas, and pressure on processors, memory and disks.

Snapshots of the kernel's counters; the difference of two tells about the time between them. What the kernel does
not tell is None, never 0. See `cores` for the limits themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, groups, read, read_table, read_text
from millrace.host.cores import cores


@dataclass(frozen=True, slots=True)
class Throttling:
    """Counters since the groups were made, summed over this process's group and its ancestors.

    `throttled_s` is in core-seconds: the kernel adds up the time on every processor. Of `periods` (usually
    0.1 s) with something to run, `throttled_periods` ran out of quota. All stay 0 in groups without a quota.
    """

    throttled_s: float
    periods: int
    throttled_periods: int
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stall:
    """Share of time, in percent, in which some (or all: full) tasks waited for a resource, and the total of some."""

    some_10s_pct: float
    some_60s_pct: float
    full_60s_pct: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure stall information of the nearest group that tells it, or else of the whole machine."""

    cpu: Stall | None
    memory: Stall | None
    io: Stall | None


def waiting_since_now(root: Root = "/") -> Callable[[], float | None]:
    """What part of the time since this call some task here waited for a processor, when asked; None: not told here."""

    def total_s() -> float | None:
        told = pressure(root)
        return told.cpu.total_s if told and told.cpu else None

    before, begun = total_s(), time.monotonic()

    def since() -> float | None:
        now, took = total_s(), time.monotonic() - begun
        return None if before is None or now is None or not took else min(1.0, max(0.0, (now - before) / took))

    return since


def throttling(root: Root = "/") -> Throttling | None:
    """Time lost to processor quotas; None where no group counts it."""
    tables = []
    for group in groups("cpu", root):
        table = read_table(read(group, "cpu.stat"))
        if "nr_throttled" in table:
            tables.append((table, f"{group.shown}/cpu.stat"))
    if not tables:
        return None
    throttled_us = sum(table.get("throttled_usec", table.get("throttled_time", 0) / 1000) for table, _ in tables)
    return Throttling(
        throttled_us / 1e6,
        sum(table.get("nr_periods", 0) for table, _ in tables),
        sum(table["nr_throttled"] for table, _ in tables),
        tuple(where for _, where in tables),
    )


def quota_meter(root: Root = "/") -> Callable[[], int] | None:
    """What tells for how many ns quotas have held this process's groups back so far, summed over their processors.

    None where no group has a quota, or none counts it. The files stay open: a look costs some microseconds.
    """
    if cores(root).quota is None:
        return None
    files = []
    for group in groups("cpu", root):
        if "nr_throttled" in read_table(read(group, "cpu.stat")):
            files.append(os.open(group.path / "cpu.stat", os.O_RDONLY | os.O_CLOEXEC))

    def throttled_ns() -> int:
        return sum(_throttled_ns(os.pread(fd, 4096, 0)) for fd in files)

    return throttled_ns if files else None


def _throttled_ns(text: bytes) -> int:
    """Version 2 tells microseconds, version 1 nanoseconds."""
    for name, unit_ns in ((b"throttled_usec ", 1000), (b"throttled_time ", 1)):
        at = text.find(name)
        if at >= 0:
            return int(text[at + len(name) :].split(maxsplit=1)[0]) * unit_ns
    return 0


def pressure(root: Root = "/") -> Pressure | None:
    """How much the kernel says tasks wait; None where it does not (before 4.20, switched off, or no Linux)."""
    cpu, memory, io = (_stall(name, root) for name in ("cpu", "memory", "io"))
    return None if cpu is memory is io is None else Pressure(cpu, memory, io)


def stolen_share(root: Root = "/") -> float | None:
    """Share of processor time since boot that the hypervisor gave to others while this machine wanted it."""
    text = read_text(Path(root, "proc/stat")) or ""
    fields = text.partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]
    return ticks[7] / sum(ticks) if sum(ticks) else None


def _stall(name: str, root: Root) -> Stall | None:
    nearest = [read(group, f"{name}.pressure") for group in groups(name, root)]
    for text in [*nearest, read_text(Path(root, "proc/pressure", name))]:
        lines = {}
        for line in (text or "").splitlines():
            kind, *fields = line.split()
            lines[kind] = dict(field.split("=", 1) for field in fields)
        if "some" in lines:
            some, full = lines["some"], lines.get("full")
            return Stall(
                float(some["avg10"]),
                float(some["avg60"]),
                float(full["avg60"]) if full else None,
                int(some["total"]) / 1e6,
            )
    return None
