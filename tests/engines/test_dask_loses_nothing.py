"""On a Dask cluster: values stay where they were made, workers may die, and a driver that is killed leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import local_dask
import numpy as np
import pytest

from millrace.compose import open_store
from millrace.engines.dask import DaskEngine
from millrace.engines.dask.arena import FutureArena
from millrace.engines.dask.cluster import by_value
from millrace.engines.dask.host import lease_key
from millrace.run.keys import content_key
from millrace.run.task import Keep, Outcome, Ref, Task
from millrace.testing import toys


@contextmanager
def on_futures(folder: Path) -> Iterator[tuple[DaskEngine, FutureArena]]:
    """An engine whose large values stay on the workers."""
    cluster = local_dask.connected()
    arena = FutureArena(cluster, open_store(f"dir:{folder}"))
    engine = DaskEngine(cluster, opener=open_store, arena=arena, owns=True)
    try:
        yield engine, arena
    finally:
        arena.close()
        engine.close()


def make(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=50_000)


def total(values: np.ndarray, shared: np.ndarray) -> float:
    return float(values @ shared)


def poll(until: Callable[[], object], timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def kept(engine: DaskEngine, arena: FutureArena, seeds: range) -> dict[int, Outcome]:
    tasks = (
        Task(make, (seed,), content_key(f"make {seed}"), keep=Keep(arena.url, 0), name=str(seed)) for seed in seeds
    )
    found = {o.key: o for o in engine.stream(tasks)}
    return {seed: found[content_key(f"make {seed}")] for seed in seeds}


def expected(seed: int) -> float:
    return float(make(seed) @ make(99))


def totals(engine: DaskEngine, arena: FutureArena, made: dict[int, Outcome], tag: str) -> dict[int, float]:
    key = content_key(make(99))
    arena.put(key, make(99))
    shared = Ref(key, arena.url, 400_000)
    tasks = (Task(total, (o.value, shared), f"{tag}-{seed}") for seed, o in made.items())
    return {int(o.key.rpartition("-")[2]): o.value for o in engine.stream(tasks)}


def test_values_stay_on_the_workers_and_the_next_tasks_find_them_there(tmp_path: Path) -> None:
    with on_futures(tmp_path) as (engine, arena):
        made = kept(engine, arena, range(6))
        assert all(type(o.value) is Ref and o.value.url == arena.url for o in made.values()), made
        assert all(o.measures.out_bytes < 10_000 for o in made.values()), "the values passed through the driver"
        assert totals(engine, arena, made, "a") == {seed: expected(seed) for seed in made}
        fetched = arena.attach(made[3].key)
        assert np.array_equal(fetched, make(3))


@pytest.mark.slow
def test_values_on_a_worker_that_is_lost_are_computed_again(tmp_path: Path) -> None:
    with on_futures(tmp_path) as (engine, arena):
        made = kept(engine, arena, range(6))
        assert totals(engine, arena, made, "a") == {seed: expected(seed) for seed in made}
        workers = arena._cluster.ask(os.getpid)
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        assert totals(engine, arena, made, "b") == {seed: expected(seed) for seed in made}
        poll(lambda: len(arena._cluster.ask(os.getpid)) == 2)


@pytest.mark.slow
def test_dask_workers_may_be_killed(tmp_path: Path) -> None:
    with on_futures(tmp_path) as (engine, arena):
        before = set(arena._cluster.ask(os.getpid).values())
        found: dict[str, Outcome] = {}
        for outcome in engine.stream(Task(toys.nap, (0.05, i), str(i)) for i in range(100)):
            assert outcome.key not in found
            found[outcome.key] = outcome
            if len(found) == 20:
                os.kill(min(before), signal.SIGKILL)
        assert {int(k): o.value for k, o in found.items()} == {i: i for i in range(100)}
        poll(lambda: len(set(arena._cluster.ask(os.getpid).values()) - {min(before)}) == 2)


DRIVER = """
import sys
from millrace.engines.dask import DaskEngine, connect
from millrace.run.task import Task
from millrace.testing import toys

engine = DaskEngine(connect(sys.argv[1]), owns=True)
tasks = (Task(toys.nap, (0.0 if i < 2 else 600.0, i), str(i)) for i in range(20))
outcomes = engine.stream(tasks)
for _ in range(2):
    next(outcomes)
print(engine.name, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_task_no_process_and_no_file() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, local_dask.address()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert driver.stdout is not None
    with driver:
        name = driver.stdout.readline().strip()
        assert name
        cluster = local_dask.connected()
        try:
            places = list(cluster.ask(by_value(folders)).values())
            poll(lambda: all(Path(p, f"millrace-{name}").exists() for p in places))
            poll(lambda: len(held(cluster, name)) > 2)  # leases, and tasks that nap
            processes = [pid for pids in cluster.ask(by_value(children)).values() for pid in pids]
            assert processes
            driver.kill()
            driver.wait()
            poll(lambda: not held(cluster, name))
            poll(lambda: not any(Path(p, f"millrace-{name}").exists() for p in places))
            poll(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
        finally:
            driver.kill()
            cluster.close()


def folders(dask_worker: object) -> str:
    import os

    return os.path.dirname(dask_worker.local_directory)  # type: ignore[attr-defined]


def children() -> list[int]:
    """Fork servers of the engines on this worker."""
    from pathlib import Path

    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def held(cluster: object, name: str) -> list[str]:
    found = cluster.client.run_on_scheduler(lambda dask_scheduler: [str(k) for k in dask_scheduler.tasks])  # type: ignore[attr-defined]
    return [key for key in found if name in key]


def test_a_lease_is_named_so_that_its_worker_knows_it() -> None:
    cluster = local_dask.connected()
    engine = DaskEngine(cluster, owns=True)
    try:
        addresses = list(cluster.ask(os.getpid))
        assert {lease_key(engine.name, address) for address in addresses} <= set(held(cluster, engine.name))
    finally:
        engine.close()
