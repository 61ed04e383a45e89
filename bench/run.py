"""What a Run costs beside the work: CPU a task, efficiency, a shared input, workers killed all the time.

`python -m bench.run`. CPU is of driver and workers together, with keys, look-ups, puts and the ledger on.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Bench
from millrace import compose, folder
from millrace.host import private_bytes
from millrace.run.run import Run

NOOPS = 50_000


def noop(x: int) -> int:
    return x


def spin(s: float, i: int = 0) -> int:
    end = time.process_time_ns() + int(s * 1e9)
    while time.process_time_ns() < end:
        pass
    return i


def spin_10ms(i: int) -> int:
    return spin(0.01, i)


def opened(store: Path | None = None, cores: int = 2) -> Run:
    return compose.open_run("bench", compose.Machine(engine="processes", cores=cores, store=store))


def cpu_s() -> float:
    """Of this process and all of its children that have ended."""
    own, children = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def overhead(bench: Bench) -> None:
    """The difference of two runs, so that starting and ending the pool falls out."""
    for name, durable, hold in (("memory store", False, 25), ("directory store", True, 60)):
        costs = []
        for _ in range(3):
            took = []
            for count in (1, 2):
                with tempfile.TemporaryDirectory() as folder:
                    start = cpu_s()
                    with opened(Path(folder) if durable else None) as run:
                        for _value in run.map(noop, range(count * NOOPS)):
                            pass
                    took.append(cpu_s() - start)
            costs.append((took[1] - took[0]) / NOOPS * 1e6)
        bench.figure(f"CPU of a no-op task, {name}, ledger on", sorted(costs)[1], "us", hold)


def efficiency(bench: Bench) -> None:
    shares = []
    with opened() as run:
        list(run.map(noop, range(10)))
        for turn in range(3):
            start = time.perf_counter()
            n = sum(1 for _ in run.map(spin_10ms, range(1000 * turn, 1000 * turn + 600)))
            shares.append(n * 0.01 / 2 / (time.perf_counter() - start) * 100)
    bench.figure("2 workers on 10 ms tasks, share of ideal", sorted(shares)[1], "%", 97, at_most=False)

    def ours() -> None:
        with opened() as run:
            for _ in run.map(noop, range(20_000)):
                pass

    def pool() -> None:
        with ProcessPoolExecutor(2) as executor:
            for _ in [executor.submit(noop, i) for i in range(20_000)]:
                _.result()

    bench.against("20,000 no-op tasks with start and end", ours, {"ProcessPoolExecutor": (pool, 1, None)})


def look(i: int, a: Any) -> tuple[float, int, int]:
    """Time to see the whole array's first and last rows, and the worker's private bytes after a full read."""
    start = time.perf_counter()
    float(a[0, 0] + a[-1, -1])
    took = time.perf_counter() - start
    float(a.sum())
    return took, private_bytes(), os.getpid()


def shared(bench: Bench) -> None:
    a = np.random.default_rng(0).standard_normal((100_000, 200))
    with opened(cores=4) as run:
        before = {pid: held for _, held, pid in run.map(look, range(64), shared=np.zeros((2, 2)))}
        start = time.perf_counter()
        ref = run.share(a)
        bench.figure("160 MB shared: put once", time.perf_counter() - start, "s")
        told = list(run.map(look, range(100, 140), shared=ref))
    past = folder.report_of(run.ledger.path.parent).accounting
    reads = [t.median_s for t in past.tasks]
    assert reads
    after: dict[int, int] = {}
    for _, held, pid in told:
        after[pid] = max(after.get(pid, 0), held)
    bench.figure("160 MB shared: a later task sees it within", sorted(t for t, _, _ in told)[-2] * 1e3, "ms", 10)
    growth = max(after[p] - before.get(p, min(before.values())) for p in after) / 1e6
    bench.figure(f"160 MB shared: a worker grows by at most ({len(after)} workers)", growth, "MB", 20)


def killed(bench: Bench) -> None:
    """1,000 tasks of 4 ms with a random worker killed every 200 ms."""
    over = threading.Event()
    kills = [0]

    def killer() -> None:
        while not over.wait(0.2):
            mine = [p for p in _descendants(os.getpid()) if _is_worker(p)]
            if mine:
                os.kill(random.choice(mine), signal.SIGKILL)
                kills[0] += 1

    with opened() as run:
        list(run.map(noop, range(4)))
        thread = threading.Thread(target=killer)
        thread.start()
        values = list(run.map(spin_4ms, range(1000)))
        over.set()
        thread.join()
    right = sum(v == i for i, v in enumerate(values))
    bench.figure(f"1,000 tasks, {kills[0]} workers killed: right and once", right, "tasks", 1000, at_most=False)


def spin_4ms(i: int) -> int:
    return spin(0.004, i)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _is_worker(pid: int) -> bool:
    """The fork server is this process's child; workers are the server's."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) != os.getpid()
    except (OSError, IndexError):
        return False


def main() -> None:
    bench = Bench("run")
    overhead(bench)
    efficiency(bench)
    shared(bench)
    killed(bench)
    bench.write()


if __name__ == "__main__":
    main()
