"""Ceilings of this process (ulimits), and what this platform does not have, each said in a sentence.

See `memory` and `cores` for the limits of groups.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, groups, read_text


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Soft limits of one process; None is no limit, or not told."""

    address_space_bytes: int | None
    data_bytes: int | None
    open_files: int | None
    processes: int | None


def ceilings(root: Root = "/") -> Ceilings:
    """From /proc/self/limits; all None where there is no such file."""
    found: dict[str, int] = {}
    for line in (read_text(Path(root, "proc/self/limits")) or "").splitlines():
        name, value = line[:26].strip(), line[26:].split()[:1]
        if value and value[0].isdecimal():
            found[name] = int(value[0])
    return Ceilings(
        address_space_bytes=found.get("Max address space"),
        data_bytes=found.get("Max data size"),
        open_files=found.get("Max open files"),
        processes=found.get("Max processes"),
    )


def absences(root: Root = "/", platform: str = sys.platform) -> tuple[str, ...]:
    """What millrace does without on this machine, and what it does instead."""
    if platform == "darwin":
        return (
            "macOS has no control groups: limits of containers are not seen, and all logical cores count.",
            "macOS tells no private memory per process cheaply: the unique set size stands for it.",
            "macOS has no layers for a jail but limits of resources: untrusted programs are not kept from files or the network.",
            "macOS tells no pressure and no throttling: reports leave both out.",
        )
    if platform != "linux":
        return (f"{platform} is not a platform that millrace is tested on: limits of this machine are not seen.",)
    found = []
    if not groups("memory", root) and not groups("cpu", root):
        found.append(
            "No control group can be read here (is /sys/fs/cgroup mounted?): limits of containers are not seen."
        )
    if read_text(Path(root, "proc/pressure/cpu")) is None:
        found.append("This kernel tells no pressure (PSI is off): reports leave it out.")
    return tuple(found)
