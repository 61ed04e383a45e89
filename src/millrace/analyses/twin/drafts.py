"""A file that has its name when it is whole: written beside it under another, and renamed.

The draft is locked while its writer lives (the kernel lets the lock go, however it ends), so that the next writer of the same
name finds what a killed one left, and takes it away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

YOUNG_S = 60.0
"""Drafts that are younger are left alone: they may not be locked yet."""


@contextmanager
def draft(place: Path) -> Iterator[Path]:
    """The path to write to; it becomes `place` at the end, and is gone when anything is raised."""
    prefix = f".{place.name}-"
    _sweep(place.parent, prefix)
    handle, name = tempfile.mkstemp(prefix=prefix, dir=place.parent)
    making = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield making
        making.chmod(0o644)
        making.rename(place)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _sweep(folder: Path, prefix: str) -> None:
    for left in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), left.open("rb") as file:  # locked, or another swept it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(file.fileno()).st_mtime > YOUNG_S:
                left.unlink()
