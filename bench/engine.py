"""The engine of worker processes beside the pools that people use: two workers each, warm, in turns.

`python -m bench.engine [--quick]`. Chunk sizes are the peers' own way to pack tasks; they have to be guessed, so they
are shown without one and with a good guess. joblib's loky backend packs by measured time, as this engine does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from joblib import Parallel, delayed

from bench.harness import Bench
from millrace.engines.processes import ProcessEngine, kernel
from millrace.run.task import Limits, Task

WORKERS = 2


def noop(x: int) -> int:
    return x


def spin(seconds: float) -> None:
    end = time.process_time_ns() + int(seconds * 1e9)
    while time.process_time_ns() < end:
        pass


def burn() -> None:
    while True:
        pass


@contextmanager
def opened(**options: Any) -> Iterator[ProcessEngine]:
    engine = ProcessEngine(WORKERS, **options)
    try:
        list(engine.stream(Task(time.sleep, (0.01,), str(i)) for i in range(4 * WORKERS)))
        yield engine
    finally:
        engine.close()


def against_peers(bench: Bench, turns: int) -> None:
    """Wall time of the same work on warm pools of two."""
    with ExitStack() as owned:
        engine = owned.enter_context(opened())
        context = multiprocessing.get_context("fork")
        pool = owned.enter_context(context.Pool(WORKERS))
        executor = owned.enter_context(ProcessPoolExecutor(WORKERS, mp_context=context))
        parallel = owned.enter_context(Parallel(n_jobs=WORKERS, return_as="generator_unordered"))
        drain(parallel(delayed(noop)(i) for i in range(8)))
        works: list[tuple[str, Callable[[Any], Any], list[Any], int]] = [
            ("no-op tasks", noop, list(range(10_000)), 256),
            ("1 ms tasks", spin, [0.001] * 500, 32),
            ("10 ms tasks", spin, [0.01] * 100, 4),
            ("99 tasks of 1 ms, one of 0.3 s, twice", spin, ([0.001] * 99 + [0.3]) * 2, 32),
            ("1 MB there and back", noop, [bytes(1_000_000)] * 40, 4),
        ]
        for name, fn, items, chunk in works:
            peers: dict[str, tuple[Callable[[], object], float, float | None]] = {
                "ProcessPoolExecutor": (lambda f=fn, v=items: drain(executor.map(f, v)), 1, None),
                "ProcessPoolExecutor, chunks": (lambda f=fn, v=items, c=chunk: drain(executor.map(f, v, chunksize=c)), 1, None),
                "multiprocessing.Pool": (lambda f=fn, v=items: drain(pool.imap_unordered(f, v)), 1, None),
                "multiprocessing.Pool, chunks": (lambda f=fn, v=items, c=chunk: drain(pool.imap_unordered(f, v, c)), 1, None),
                "joblib (loky)": (lambda f=fn, v=items: drain(parallel(delayed(f)(x) for x in v)), 1, None),
            }  # fmt: skip
            bench.against(f"{name} ({len(items):,})", lambda f=fn, v=items: drain(stream(engine, f, v)), peers, turns)


def stream(engine: ProcessEngine, fn: Callable[[Any], Any], items: list[Any]) -> Iterator[Any]:
    return engine.stream(Task(fn, (item,), "k") for item in items)


def drain(values: Any) -> None:
    for _ in values:
        pass


def costs(bench: Bench, count: int) -> None:
    """Processor time beside the task itself, driver and workers together."""
    for name, options, limits, tasks, hold in (
        ("packed", {}, None, count, 9.0),
        ("packed, with ceilings", {}, Limits(cpu_s=9.0, wall_s=9.0, private_bytes=1 << 40), count, None),
        ("one task a message", {"max_tasks": 1}, None, count // 10, None),
    ):
        said = []
        for _ in range(3):
            with opened(**options) as engine:
                pids = engine.worker_pids()
                before = time.process_time_ns() + sum(map(kernel.cpu_ns, pids))
                drain(engine.stream(Task(noop, (i,), "k", limits=limits) for i in range(tasks)))
                said.append((time.process_time_ns() + sum(map(kernel.cpu_ns, pids)) - before) / tasks / 1e3)
        bench.figure(f"CPU of a no-op task, {name}", statistics.median(said), "us", hold)


def times(bench: Bench) -> None:
    for name, preload in (("bare", ()), ("with numpy and numba", ("numpy", "numba"))):
        said = []
        for _ in range(3):
            start = time.perf_counter()
            engine = ProcessEngine(WORKERS, preload=preload)
            drain(engine.stream(Task(noop, (i,), "k") for i in range(2 * WORKERS)))
            said.append(time.perf_counter() - start)
            engine.close()
        bench.figure(f"start of {WORKERS} workers to the first results, {name}", 1e3 * statistics.median(said), "ms")
    with opened() as engine:
        said = []
        for _ in range(10):
            os.kill(engine.worker_pids()[0], signal.SIGKILL)
            start = time.perf_counter()
            drain(engine.stream(Task(noop, (i,), "k") for i in range(4 * WORKERS)))
            said.append(time.perf_counter() - start)
        bench.figure("eight tasks after a worker was killed", 1e3 * statistics.median(said), "ms")
        for name, limits in (("processor time", Limits(cpu_s=0.1)), ("wall time", Limits(wall_s=0.1))):
            over = []
            for _ in range(8):
                (outcome,) = engine.stream(iter([Task(burn, (), "k", limits=limits)]))
                assert outcome.failure is not None
                over.append(1e3 * (outcome.failure.figure - 0.1))
            bench.figure(f"over a ceiling of {name} when killed, worst of 8", max(over), "ms", 10.0)


def main() -> int:
    quick = "--quick" in sys.argv
    bench = Bench("engine")
    costs(bench, 20_000 if quick else 100_000)
    times(bench)
    against_peers(bench, 1 if quick else 3)
    bench.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
