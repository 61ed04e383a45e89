"""Niceness of a process that leads a session of its own.

Linux shares processors among sessions first (autogroups), and niceness counts only within one: a nice process in a session of
its own gives way to nobody, unless its session is nice, too.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def be_nice(pid: int, nice: int) -> None:
    """Give the session of that process this niceness; nothing where the kernel has no such groups, or forbids it."""
    if nice > 0:
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
