"""A bell of the kernel's: who has put a job into a table opens a file, and workers that watch it look at the table at once.

Opening leaves nothing on the disk. A ring may be lost or too many, as any message; what is not heard is found by looking now
and then. Linux only; elsewhere, and where the kernel has no watch left, there is no bell.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_IN_OPEN = 0x20


def hung_at(file: Path) -> int | None:
    """A descriptor that is readable once somebody has rung at that file; None: there is none to be had. Close it."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    bell = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if bell < 0:
        return None
    if libc.inotify_add_watch(bell, os.fsencode(file), _IN_OPEN) < 0:
        os.close(bell)
        return None
    return bell


def ring(file: Path) -> None:
    """Wake all who hang a bell at that file."""
    with suppress(OSError):  # they look now and then anyway
        os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))


def hush(bell: int) -> None:
    """Take what it rang for."""
    with suppress(BlockingIOError):
        while os.read(bell, 1 << 16):
            pass
