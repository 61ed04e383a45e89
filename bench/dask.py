"""The engine on Dask beside Dask's own ways: two workers of one thread each on this machine, in turns.

`python -m bench.dask [--quick]`. Short tasks: `client.map` + `gather`, and `as_completed` over a window that is kept
full, which is what people write for an unknown number of tasks. Longer ones: how much of cores x wall is in the tasks,
beside busy loops without any engine.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Bench
from millrace.engines.dask import Cluster, DaskEngine, start
from millrace.run.task import Task

WORKERS = 2


def noop(x: int) -> int:
    return x


def spin(seconds: float, _: int) -> None:
    end = time.process_time_ns() + int(seconds * 1e9)
    while time.process_time_ns() < end:
        pass


@contextmanager
def opened() -> Iterator[tuple[Cluster, DaskEngine]]:
    cluster = start(WORKERS)
    try:
        engine = DaskEngine(cluster)
        try:
            list(engine.stream(Task(time.sleep, (0.01,), str(i)) for i in range(4 * WORKERS)))
            yield cluster, engine
        finally:
            engine.close()
    finally:
        cluster.close()


def overhead(bench: Bench, cluster: Cluster, engine: DaskEngine, turns: int, tasks: int) -> None:
    """Tasks that do nothing: what is left is the cost of moving them."""

    def ours() -> None:
        assert sum(1 for _ in engine.stream(Task(noop, (i,), str(i)) for i in range(tasks))) == tasks

    def mapped() -> None:
        client = cluster.client
        assert len(client.gather(client.map(noop, range(tasks), pure=False))) == tasks

    peers = {
        "client.map + gather": (mapped, 1.0, None),
        "as_completed, a full window": (lambda: completed(cluster, noop, tasks), 1.0, None),
    }
    ours_s = bench.against(f"{tasks:,} tasks that do nothing", ours, peers, turns)
    bench.figure("wall time a task", ours_s / tasks * 1e6, "us")


def completed(cluster: Cluster, fn: object, tasks: int, *args: object) -> None:
    """A window of four tasks a worker, kept full."""
    from distributed import as_completed

    client, rest = cluster.client, iter(range(tasks))
    first = [client.submit(fn, *args, i, pure=False) for i, _ in zip(rest, range(4 * WORKERS), strict=False)]
    with client.as_current():
        running = as_completed(first)
        for future in running:
            future.result()
            for i in rest:
                running.add(client.submit(fn, *args, i, pure=False))
                break


def plain(seconds: float, tasks: int) -> float:
    """Wall time of the same work without any engine: a busy loop in each of as many processes as there are workers."""
    began = time.monotonic()
    loops = [multiprocessing.Process(target=spin, args=(seconds * tasks / WORKERS, 0)) for _ in range(WORKERS)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return time.monotonic() - began


def utilisation(bench: Bench, cluster: Cluster, engine: DaskEngine, turns: int) -> None:
    """How much of cores x wall is in the tasks. On a machine that others use, too, the cores are not all there: the share is
    of what two busy loops without any engine get, before and after."""
    for milliseconds in (10, 50):
        seconds, tasks = milliseconds / 1000, 4000 // milliseconds
        shares = {"millrace": [], "client.map": [], "as_completed": []}  # type: dict[str, list[float]]
        for _ in range(turns):
            for name in shares:
                best = plain(seconds, tasks)
                began = time.monotonic()
                if name == "millrace":
                    list(engine.stream(Task(spin, (seconds, i), str(i)) for i in range(tasks)))
                elif name == "client.map":
                    client = cluster.client
                    client.gather(client.map(spin, [seconds] * tasks, range(tasks), pure=False))
                else:
                    completed(cluster, spin, tasks, seconds)
                took = time.monotonic() - began
                best = (best + plain(seconds, tasks)) / 2  # before and after: others come and go
                shares[name].append(best / took)
        for name, found in shares.items():
            hold = 0.9 if name == "millrace" and milliseconds == 50 else None
            bench.figure(
                f"{milliseconds} ms a task: {name}", statistics.median(found), "of two busy loops", hold, False
            )


def main() -> int:
    quick = "--quick" in sys.argv
    bench = Bench("dask")
    with opened() as (cluster, engine):
        overhead(bench, cluster, engine, 2 if quick else 5, 500 if quick else 2000)
        utilisation(bench, cluster, engine, 2 if quick else 5)
    bench.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
