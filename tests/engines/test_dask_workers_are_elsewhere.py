"""A worker with another disk, another package and two threads: what differs is refused, what it does not see stays with it,
its threads compute at once, and cores that were asked for bind."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import elsewhere
import far_tasks
import numpy as np
import pytest

import millrace as mr
from millrace import compose
from millrace.diagnose.accounting import account
from millrace.engines.dask import DaskEngine, connect
from millrace.engines.dask.arena import FutureArena
from millrace.run.errors import WrongQuestion
from millrace.run.ledger import replay
from millrace.run.task import Limits, Task
from millrace.testing import toys

pytestmark = pytest.mark.skipif(not elsewhere.is_possible(), reason="needs namespaces of users and mounts")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The engine's name, and a folder that the worker does not see. `tiny_queue` is 1.0 here and 2.0 there."""
    folder = tmp_path_factory.mktemp("elsewhere")
    unseen = folder / "unseen"
    unseen.mkdir()
    here, far = elsewhere.installed(folder, "1.0"), elsewhere.installed(folder, "2.0")
    sys.path.insert(0, str(here))
    try:
        with elsewhere.cluster(unseen, far, folder) as address:
            yield f"dask={address}", unseen
    finally:
        sys.path.remove(str(here))
        sys.modules.pop("tiny_queue", None)


REFUSED = r"tiny-queue is 1\.0 here and 2\.0 on tcp://"


def test_another_version_of_a_package_that_the_function_reaches_is_refused_on_connect(there: tuple[str, Path]) -> None:
    with pytest.raises(WrongQuestion, match=REFUSED):
        compose.map_function("tiny_office:served", [1, 2], compose.Machine(there[0]))


def test_a_run_that_is_open_refuses_a_function_before_it_runs_and_takes_others(there: tuple[str, Path]) -> None:
    office = importlib.import_module("tiny_office")  # not by `import`: all functions of this file would reach it
    with mr.Run(engine=there[0]) as run:
        assert list(run.map(toys.square, [1, 2])) == [1, 4]
        with pytest.raises(WrongQuestion, match=REFUSED):
            list(run.map(office.served, [1, 2]))
        with pytest.raises(WrongQuestion, match=REFUSED):
            list(run.stream(iter([run.task(toys.square, 1, resources=(office.open_office,))])))
        assert list(run.map(toys.square, [3])) == [9]


def test_values_stay_on_the_workers_when_those_do_not_reach_the_store(
    there: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_SCRATCH", str(there[1]))
    with mr.Run(engine=there[0]) as run:
        assert isinstance(run.arena, FutureArena)
        shared = np.arange(100_000.0)
        tasks = (run.task(far_tasks.scaled, k, run.share(shared), keep=True) for k in range(4))
        refs = [o.value for o in run.stream(tasks)]
        sums = list(run.map(far_tasks.summed, refs))
        assert sorted(sums) == [float((shared * k).sum()) for k in range(4)]
        fetched = run.value(refs[0])
        assert np.array_equal(fetched, shared * fetched[1])


def test_values_lie_in_the_store_when_the_workers_reach_it(there: tuple[str, Path], tmp_path: Path) -> None:
    with mr.Run(engine=there[0], store=tmp_path) as run:
        assert run.arena is run.store
        task = run.task(far_tasks.scaled, 3, run.share(np.ones(100_000)), keep=True)
        (ref,) = [o.value for o in run.stream(iter([task]))]
        assert float(run.value(ref).sum()) == 300_000


def test_both_threads_of_a_worker_compute_while_one_holds_the_interpreter_lock(
    there: tuple[str, Path], tmp_path: Path
) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    limits = Limits(wall_s=toys.PATIENCE_S)
    engine = DaskEngine(connect(there[0].partition("=")[2]), owns=True, max_tasks=1)
    try:
        assert engine.slots == 2
        holds = Task(far_tasks.hold_the_lock, (pipe,), "holds", limits=limits)
        found = toys.outcomes(engine, iter([holds, Task(far_tasks.write_to, (pipe,), "writes")]))
        assert found["holds"].value == b"x", found["holds"]
        assert found["holds"].measures.pid != found["writes"].measures.pid
        (told,) = [w for w in engine.cluster.warnings if "interpreter lock" in w]
        assert "2 threads" in told
    finally:
        engine.close()


def test_each_attempt_is_told_with_its_host_and_those_that_die_too(there: tuple[str, Path], tmp_path: Path) -> None:
    with mr.Run(engine=there[0], out=tmp_path) as run:
        assert sorted(run.map(toys.square, range(6))) == [0, 1, 4, 9, 16, 25]
        (dead,) = run.stream(iter([run.task(far_tasks.end_hard)]))
        assert dead.failure is not None and dead.failure.kind == "lost" and dead.measures.host == "elsewhere"
    history = replay(run.ledger.path)
    assert history.hosts == ["elsewhere"] and set(history.columns["host"]) == {0}
    told = account(history)
    assert told.hosts == {"elsewhere": 7}
    assert sum(told.parts_ns.values()) == told.core_ns


def test_cores_that_were_asked_for_bind_on_a_cluster_with_more(there: tuple[str, Path]) -> None:
    for cores, slots in ((1, 1), (2, 2), (50, 2)):
        with mr.Run(engine=there[0], cores=cores) as run:
            times = sorted(run.map(far_tasks.interval, range(30)))
            assert run.engine.slots == slots == run.budget.cores
            assert len(times) == 30
            apart = all(one[1] <= other[0] for one, other in itertools.pairwise(times))
            assert apart or slots > 1, "more ran at once than were asked for"
