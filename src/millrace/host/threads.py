"""One thread for the numeric libraries: before they are imported by the environment, afterwards by their own switch.

millrace runs many tasks of one thread each. A BLAS that starts a thread per core inside of each makes them slower
(up to four times) and lets the last bits of a result depend on the machine. Does not set threads of worker
processes (an engine does, before they import anything).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Blas:
    """A library with threads of its own that is loaded into this process. `kernels` is the processor that it picked
    its inner loops for: results may differ in the last bits where this differs."""

    kind: str
    name: str
    version: str | None
    threads: int
    kernels: str | None
    path: str


def one_thread_environment() -> dict[str, str]:
    """What the environment of a new process must hold before it imports numeric libraries: one thread each.

    Arrow's allocator gets no background thread either: threads that exist before a fork are lost in the child.
    """
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "BLIS_NUM_THREADS": "1",
        "VECLIB_MAXIMUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }


def child_environment() -> dict[str, str]:
    """The environment of this process, with one thread each, for a new one."""
    return {**os.environ, **one_thread_environment()}


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and OpenMP libraries that are loaded now use one thread inside the `with`, and what they had after it.

    Only what is loaded already: import first. Numba's own pool is not touched, since asking it starts its threads.
    """
    import threadpoolctl

    with threadpoolctl.threadpool_limits(limits=1):
        yield


def one_thread_of_known() -> Callable[[], AbstractContextManager[Any]]:
    """`one_thread`, for a process that was started with `one_thread_environment`: only libraries that are loaded at this call
    are looked at again, since those to come begin with one. Finding them takes most of a millisecond."""
    import threadpoolctl

    known = threadpoolctl.ThreadpoolController()
    return lambda: known.limit(limits=1)


def blas() -> tuple[Blas, ...]:
    """The threaded numeric libraries of this process. NumPy is imported, so that its BLAS is among them."""
    import threadpoolctl

    if "numpy" not in sys.modules:
        import numpy  # noqa: F401 - it loads its BLAS
    return tuple(
        Blas(
            kind=info["user_api"],
            name=info["internal_api"],
            version=info.get("version"),
            threads=info["num_threads"],
            kernels=info.get("architecture"),
            path=info["filepath"],
        )
        for info in threadpoolctl.threadpool_info()
    )
