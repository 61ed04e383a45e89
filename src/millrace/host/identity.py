"""What this machine is called and made of, small enough to stand at the head of every ledger.

Reads, and measures nothing; see `doctor` for all that can be found out.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from millrace.host.cgroups import Root, read_text
from millrace.host.cores import cores, slots
from millrace.host.memory import memory


def describe(root: Root = "/") -> dict[str, Any]:
    """Name, system, processor, and what of cores and memory this process may use; numbers and text only."""
    found_cores, found_memory = cores(root), memory(root)
    return {
        "name": platform.node(),
        "system": system(),
        "processor": processor(root),
        "logical_cores": found_cores.logical,
        "allowed_cores": found_cores.allowed,
        "slots": slots(found_cores),
        "memory_limit_bytes": found_memory.limit_bytes,
        "memory_available_bytes": found_memory.available_bytes,
    }


def system() -> str:
    """Such as "Linux 6.12.9 x86_64"."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def processor(root: Root = "/") -> str:
    """The model as the kernel calls it; the architecture where it gives none (most ARM machines)."""
    for line in (read_text(Path(root, "proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.machine()
