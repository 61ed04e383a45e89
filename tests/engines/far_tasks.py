"""What runs on a Dask worker that is elsewhere. Light: a key is made of all that a module imports."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any


def scaled(k: int, values: Any) -> Any:
    return values * k


def summed(values: Any) -> float:
    return float(values.sum())


def hold_the_lock(pipe: str) -> bytes:
    """Waits inside C code without letting go of the interpreter lock, until somebody else writes to the pipe."""
    fd, told = os.open(pipe, os.O_RDWR), ctypes.create_string_buffer(1)
    try:
        assert ctypes.PyDLL(None).read(fd, told, 1) == 1
    finally:
        os.close(fd)
    return told.raw


def write_to(pipe: str) -> None:
    with open(pipe, "wb", buffering=0) as file:
        file.write(b"x")


def interval(x: int) -> tuple[int, int]:
    began = time.monotonic_ns()
    time.sleep(0.02)
    return began, time.monotonic_ns()


def end_hard() -> None:
    os._exit(3)
