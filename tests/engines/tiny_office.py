"""What a user's module looks like to the tests of Dask workers that have another version of a package."""

from __future__ import annotations

import contextlib

import tiny_queue


def served(hours: int) -> int:
    return int(tiny_queue.served(hours))


def open_office() -> contextlib.AbstractContextManager[int]:
    return contextlib.nullcontext(served(8))
