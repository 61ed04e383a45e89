"""How many NVIDIA GPUs this machine shows to its processes. Asks the kernel's device files, and no driver library."""

from __future__ import annotations

import re
from pathlib import Path

from millrace.host.cgroups import Root


def gpus(root: Root = "/") -> int:
    """Device files /dev/nvidia0, 1, ...; 0 where there is none."""
    devices = Path(root, "dev")
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in devices.iterdir()) if devices.is_dir() else 0
