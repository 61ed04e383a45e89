"""The engine on Dask beside Dask's own ways: two workers of one thread each on this machine, in turns.

`python -m bench.dask [--quick]`. Short tasks: `client.map` + `gather`, and `as_completed` over a window that is kept
full, which is what people write for an unknown number of tasks. Longer ones: how much of cores x wall is in the tasks.
"""

from __future__ import annotations

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


def utilisation(bench: Bench, cluster: Cluster, engine: DaskEngine, turns: int) -> None:
    """Processor seconds in the tasks over what two busy loops without any engine get in the same wall time."""
    for milliseconds in (10, 50):
        seconds, tasks = milliseconds / 1000, 2000 // milliseconds
        shares = {"millrace": [], "client.map": [], "as_completed": []}  # type: dict[str, list[float]]
        for _ in range(turns):
            for name in shares:
                began = time.monotonic()
                if name == "millrace":
                    list(engine.stream(Task(spin, (seconds, i), str(i)) for i in range(tasks)))
                elif name == "client.map":
                    client = cluster.client
                    client.gather(client.map(spin, [seconds] * tasks, range(tasks), pure=False))
                else:
                    completed(cluster, spin, tasks, seconds)
                shares[name].append(seconds * tasks / WORKERS / (time.monotonic() - began))
        for name, found in shares.items():
            hold = 0.9 if name == "millrace" and milliseconds == 50 else None
            bench.figure(f"{milliseconds} ms a task: {name}", statistics.median(found), "of cores x wall", hold, False)


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
