"""Which GPUs this machine has, and their memory, asked of the driver's own tool; nothing is imported or started on them.

Knows NVIDIA's. Does not measure them.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, read_text

_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory_bytes` is None where the driver's tool is not there to tell it."""

    name: str
    memory_bytes: int | None


def gpus(root: Root = "/") -> tuple[Gpu, ...]:
    """The GPUs of this machine; empty when there is none."""
    folders = sorted(Path(root, "proc/driver/nvidia/gpus").glob("*/information"))
    if not folders:
        return ()
    told = _asked() if Path(root) == Path("/") else ()
    return told or tuple(Gpu(_model(path), None) for path in folders)


def _model(path: Path) -> str:
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Model":
            return value.strip()
    return "unknown model"


def _asked() -> tuple[Gpu, ...]:
    """Name and memory by nvidia-smi; empty where it is missing, fails or hangs."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse(done.stdout) if done.returncode == 0 else ()


def parse(text: str) -> tuple[Gpu, ...]:
    """Lines of "name, MiB"."""
    found = []
    for line in text.splitlines():
        name, _, mib = line.rpartition(",")
        if name:
            found.append(Gpu(name.strip(), int(mib) << 20 if mib.strip().isdecimal() else None))
    return tuple(found)
