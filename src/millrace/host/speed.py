"""How fast one core and one disk are: short measurements, for comparing machines and for choosing a scratch place.

Not benchmarks of an analysis: a run's ledger tells those. Figures are of this moment; what else runs here is in
them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.host.threads import one_thread

REFERENCE = "one core of an AMD EPYC (Zen 4) virtual machine at 2.6 GHz, NumPy 2.4 with OpenBLAS 0.3.31"
REFERENCE_GATHERS_PER_S = 650e6
REFERENCE_FLOPS = 50e9
"""What that core read on the two measurements below: by definition the index 1. They are kept when hardware moves
on, so that old figures stay comparable."""

_TABLE = 1 << 21  # 16 MiB of float64: past the caches of a core, as the tables of a large forest are
_SIDE = 192
_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class CoreSpeed:
    """One core, by processor time. `index` is the geometric mean of both figures over those of `reference`.

    `gathers_per_s`: random reads of a 16 MiB table of float64, which is what walking trees does. `flops`: float64
    multiplications and additions a second in a product of 192 x 192 matrices by BLAS.
    """

    index: float
    gathers_per_s: float
    flops: float
    reference: str


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """Bytes a second written through to the disk and read again; `size_bytes` is how much of it was timed.

    `read_bytes_per_s` may be the page cache where the kernel does not let go of clean pages on request.
    """

    write_bytes_per_s: float
    read_bytes_per_s: float
    size_bytes: int


def single_core_reference(limit_s: float = 0.06) -> CoreSpeed:
    """Measure one core for about `limit_s`; the best of several rounds, as whatever disturbs can only slow down."""
    import numpy as np

    rng = np.random.default_rng(0)
    table = rng.random(_TABLE)
    at = rng.integers(0, _TABLE, 1 << 17)
    into = np.empty(at.size)
    square = rng.random((_SIDE, _SIDE))
    product = np.empty_like(square)
    with one_thread():
        gather_s = _best_cpu_s(lambda: np.take(table, at, out=into, mode="clip"), limit_s / 2)
        multiply_s = _best_cpu_s(lambda: np.matmul(square, square, out=product), limit_s / 2)
    gathers, flops = at.size / gather_s, 2 * _SIDE**3 / multiply_s
    index = (gathers / REFERENCE_GATHERS_PER_S * flops / REFERENCE_FLOPS) ** 0.5
    return CoreSpeed(index, gathers, flops, REFERENCE)


def disk_speed(directory: str | Path, limit_s: float = 0.3, limit_bytes: int = 64 << 20) -> DiskSpeed:
    """Write and read a file of at most `limit_bytes` in `directory` for about `limit_s` each way; it leaves nothing.

    OSError when the directory cannot be written.
    """
    piece = os.urandom(_PIECE)  # disks and file systems that compress would make zeros look fast
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        number, written, started = file.fileno(), 0, time.perf_counter()
        while written < limit_bytes and (written == 0 or time.perf_counter() - started < limit_s):
            written += os.write(number, piece)
            _sync(number)
        write_s = time.perf_counter() - started
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(number, 0, os.SEEK_SET)
        got, started = 0, time.perf_counter()
        while got < written and (got == 0 or time.perf_counter() - started < limit_s):
            got += len(os.read(number, _PIECE))
        read_s = time.perf_counter() - started
    return DiskSpeed(written / write_s, got / read_s, written)


def _sync(number: int) -> None:
    getattr(os, "fdatasync", os.fsync)(number)  # macOS has no fdatasync


def _best_cpu_s(work: Callable[[], Any], limit_s: float) -> float:
    """Least processor time of one call of `work`, over as many calls as fit (two at least: the first one warms up)."""
    best, rounds, started = float("inf"), 0, time.perf_counter()
    while rounds < 2 or time.perf_counter() - started < limit_s:
        before = time.thread_time_ns()
        work()
        best, rounds = min(best, (time.thread_time_ns() - before) / 1e9), rounds + 1
    return best
