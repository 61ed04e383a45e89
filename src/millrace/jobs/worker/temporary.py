"""Folders for the temporary files of job processes: made, measured, emptied, and swept when their worker was killed."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

_NAME = "job-"


def fresh(base: Path) -> Path:
    """A folder for one job process of this worker. Below `base`, which is made."""
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = base / f"{_NAME}{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder


def size(folder: Path) -> int:
    """Bytes on disk of all files below; what goes away meanwhile does not count."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
    return total


def emptied(folder: Path) -> None:
    """What is in it goes, the folder stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(True)


def sweep(base: Path) -> None:
    """Take away the folders of workers of this host that are gone."""
    for folder in base.glob(f"{_NAME}*-*"):
        pid = folder.name.removeprefix(_NAME).partition("-")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            shutil.rmtree(folder, ignore_errors=True)
