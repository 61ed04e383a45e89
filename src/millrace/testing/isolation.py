"""Laws of engines whose tasks run in processes of their own: they crash, exhaust and get killed, and the engine lives on.

Not for other engines: these laws would take the driver with them. See `engines`, which has them all.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from millrace.run.ports import Engine
from millrace.run.task import Cancel, Limits, Outcome, Task
from millrace.testing import toys

MakeEngine = Callable[..., Engine]
MIB = 1 << 20


def needs_isolation(law: Callable[[MakeEngine], None]) -> Callable[[MakeEngine], None]:
    law.needs_isolation = True  # type: ignore[attr-defined]
    return law


@contextmanager
def _opened(make_engine: MakeEngine) -> Iterator[Engine]:
    engine = make_engine()
    try:
        yield engine
    finally:
        engine.close()


def warm_up(engine: Engine) -> None:
    """Until all workers are up, so that what is timed afterwards is not their start."""
    list(engine.stream(Task(toys.nap, (0.02, i), str(i)) for i in range(6 * engine.slots)))


@contextmanager
def killer(every_s: float) -> Iterator[dict[int, int]]:
    """Kills a random worker every so often: of those that the yielded mapping (slot -> pid) tells. -1 counts kills."""
    done, alive, rng = threading.Event(), {-1: 0}, random.Random(5)

    def kill() -> None:
        while not done.wait(every_s):
            known = [pid for slot, pid in alive.copy().items() if slot >= 0 and pid > 0]
            if known:
                try:
                    os.kill(rng.choice(known), signal.SIGKILL)
                    alive[-1] += 1
                except ProcessLookupError:
                    pass

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield alive
    finally:
        done.set()
        thread.join()


def under_fire(engine: Engine, source: Iterator[Task], every_s: float) -> tuple[dict[str, Outcome], int]:
    """Outcomes of a stream whose workers are killed at random, and how many were."""
    found: dict[str, Outcome] = {}
    with killer(every_s) as alive:
        for outcome in engine.stream(source):
            assert outcome.key not in found, f"{outcome.key} was delivered twice"
            found[outcome.key] = outcome
            alive[outcome.measures.worker] = outcome.measures.pid
    return found, alive[-1]


def _with_a_bad_one(engine: Engine, bad: Task, limits: Limits | None, tasks: int = 100) -> Outcome:
    """Run it among good ones, all of which must be right, and the engine must live on."""
    good = [Task(toys.nap, (0.001, i), str(i), limits=limits) for i in range(tasks)]
    good.insert(tasks // 2, bad)
    found = toys.outcomes(engine, iter(good))
    assert len(found) == tasks + 1
    assert all(found[str(i)].value == i for i in range(tasks)), [
        found[str(i)] for i in range(tasks) if found[str(i)].failure
    ]
    assert [o.value for o in engine.stream(iter([Task(toys.square, (3,), "k")]))] == [9]
    return found[bad.key]


@needs_isolation
def a_worker_that_is_killed_costs_one_attempt(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine:
        found, kills = under_fire(engine, (Task(toys.busy, (0.003, i), str(i)) for i in range(200)), 0.07)
        assert all(o.failure is None and o.value == int(k) for k, o in found.items()), "a task was lost"
        assert len(found) == 200 and kills > 0


@needs_isolation
def kills_from_outside_have_a_wide_bound(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine, tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        outcome = _with_a_bad_one(engine, Task(toys.killed_at_first, (folder, 4, "done"), "bad"), None)
        assert outcome.value == "done", outcome
        assert outcome.measures.attempt == 5, outcome
        Path(folder, "more").mkdir()
        outcome = _with_a_bad_one(engine, Task(toys.killed_at_first, (f"{folder}/more", 99, "done"), "bad"), None, 20)
        assert outcome.failure is not None and outcome.failure.kind == "lost", outcome
        assert len(list(Path(folder, "more").iterdir())) == 8, outcome


@needs_isolation
def a_task_that_kills_its_worker_is_given_up_after_two(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine:
        for bad, word in (
            (Task(toys.crash, (int(signal.SIGSEGV),), "bad"), "SIGSEGV"),
            (Task(toys.crash, (int(signal.SIGABRT),), "bad"), "SIGABRT"),
            (Task(toys.exit_at_once, (7,), "bad"), "exit code 7"),
        ):
            outcome = _with_a_bad_one(engine, bad, None)
            assert outcome.failure is not None and outcome.failure.kind == "lost", outcome
            assert word in outcome.failure.message and "2 times" in outcome.failure.message, outcome.failure
            assert outcome.measures.attempt == 2, outcome.measures


@needs_isolation
def ceilings_of_time_kill_for_real(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine:
        # its neighbours have the ceiling too, and a busy machine must not push one of them over it
        for bad, kind, limits in ((toys.burn, "cpu", Limits(cpu_s=0.2)), (toys.hang, "wall", Limits(wall_s=1.5))):
            outcome = _with_a_bad_one(engine, Task(bad, (), "bad", limits=limits), limits)
            assert outcome.failure is not None and outcome.failure.kind == kind, outcome
            assert (limits.cpu_s or limits.wall_s) <= outcome.failure.figure < toys.PATIENCE_S, outcome.failure
            assert outcome.measures.ended_ns - outcome.measures.started_ns >= 0.19e9, outcome.measures


@needs_isolation
def a_ceiling_of_memory_kills_for_real(make_engine: MakeEngine) -> None:
    limits = Limits(private_bytes=150 * MIB)
    with _opened(make_engine) as engine:
        outcome = _with_a_bad_one(engine, Task(toys.hoard, (MIB,), "bad", limits=limits), limits)
        assert outcome.failure is not None and outcome.failure.kind == "memory", outcome
        outcome = _with_a_bad_one(engine, Task(_map_shared, (8 << 30,), "bad", limits=limits), limits)
        assert outcome.failure is not None and outcome.failure.kind == "memory", outcome
        assert 150 * MIB < outcome.failure.figure < 1024 * MIB, outcome.failure
        assert outcome.measures.peak_bytes == outcome.failure.figure


def _map_shared(size: int) -> None:
    """Shared memory, which no rlimit counts."""
    import mmap

    shared = mmap.mmap(-1, size)
    for at in range(0, size, 4096):
        shared[at] = 1


@needs_isolation
def room_that_is_only_reserved_is_not_memory(make_engine: MakeEngine) -> None:
    """Numeric libraries reserve room as they are loaded, touch little of it, and ask for ever when they are refused."""
    limits = Limits(private_bytes=150 * MIB, wall_s=toys.PATIENCE_S)
    with _opened(make_engine) as engine:
        outcome = _with_a_bad_one(engine, Task(toys.reserve, (20, 32 * MIB), "bad", limits=limits), limits)
        assert outcome.value == 20, outcome


@needs_isolation
def a_request_that_is_too_large_is_refused_in_place(make_engine: MakeEngine) -> None:
    limits = Limits(private_bytes=200 * MIB)
    with _opened(make_engine) as engine:
        tasks = [Task(_pid_and_room, (size,), str(size), limits=limits) for size in (MIB, 8 << 30, 2 * MIB)]
        found = toys.outcomes(engine, iter(tasks))
        assert found[str(MIB)].value == MIB
        assert found[str(2 * MIB)].value == 2 * MIB
        failure = found[str(8 << 30)].failure
        assert failure is not None and failure.kind == "memory" and "MemoryError" in failure.message, failure
        assert found[str(8 << 30)].measures.attempt == 1


def _pid_and_room(size: int) -> int:
    return len(bytearray(size))


@needs_isolation
def ceilings_hold_while_the_consumer_sleeps(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine, tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        told = Path(folder, "pid")
        bad = Task(toys.tell_and_hang, (str(told),), "bad", limits=Limits(wall_s=0.3))
        found = {}
        for outcome in engine.stream(iter([Task(toys.square, (1,), "quick"), bad])):
            found[outcome.key] = outcome
            if len(found) == 1:  # from here on nobody asks the engine, until the worker is gone
                toys.until(lambda: told.exists() and told.read_text().endswith("."))
                worker = Path("/proc", told.read_text()[:-1])
                toys.until(lambda place=worker: not place.exists())  # type: ignore[misc]
        failure = found["bad"].failure
        assert failure is not None and failure.kind == "wall", found["bad"]


@needs_isolation
def a_running_task_that_is_cancelled_is_stopped(make_engine: MakeEngine) -> None:
    cancelled = threading.Event()

    def source() -> Iterator[Any]:
        yield from (Task(toys.tell_and_hang, (f"{folder}/{i}",), f"a{i}", group="a") for i in range(3 * engine.slots))
        while len(os.listdir(folder)) < engine.slots:
            yield None
        cancelled.set()
        yield Cancel("a")
        yield from (Task(toys.square, (i,), f"b{i}", group="b") for i in range(5))

    def wake() -> None:
        while not cancelled.wait(0.02):  # a full engine asks for one thing at each wake, and holds it
            engine.wake()

    with _opened(make_engine) as engine, tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        waker = threading.Thread(target=wake)
        waker.start()
        began = time.monotonic()
        found = toys.outcomes(engine, source())
        waker.join()
        assert time.monotonic() - began < toys.PATIENCE_S, "nothing was stopped"
        assert all(found[f"b{i}"].value == i * i for i in range(5))
        kinds = {o.failure.kind for k, o in found.items() if k[0] == "a" and o.failure}
        assert kinds == {"cancelled"} and len(found) == 3 * engine.slots + 5


@needs_isolation
def what_waits_behind_a_long_task_is_done_elsewhere(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine, tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        if engine.slots == 1:
            return
        warm_up(engine)
        over = Path(folder, "the others are done")
        tasks = [Task(toys.nap_or_wait, (0.001, ""), str(i)) for i in range(400)]
        tasks.insert(300, Task(toys.nap_or_wait, (0.0, str(over)), "long"))  # of one kind, so that it has neighbours
        count, in_time = 0, False
        for outcome in engine.stream(iter(tasks)):
            count += 1
            if count == 400 and outcome.key != "long":
                in_time = True
                over.touch()
        assert count == 401 and in_time, "short tasks waited behind the long one"


@needs_isolation
def what_cannot_be_sent_or_read_fails_alone(make_engine: MakeEngine) -> None:
    with _opened(make_engine) as engine:
        bad = {
            "lock": Task(toys.unsendable, (), "lock"),
            "argument": Task(toys.nap, (0.0, threading.Lock()), "argument"),
            "function": Task(threading.Lock().acquire, (), "function"),
            "unreadable there": Task(toys.nap, (0.0, _Wicked("worker", os.getpid())), "unreadable there"),
            "unreadable here": Task(_wicked_for, (os.getpid(),), "unreadable here"),
            "interrupt": Task(_interrupt, (), "interrupt"),
        }
        bad = {key: replace(task, name="mixed") for key, task in bad.items()}  # so that they go in messages with others
        tasks = [Task(toys.nap, (0.0, i), str(i), name="mixed") for i in range(100)]
        list(engine.stream(iter(tasks)))
        for place, task in enumerate(bad.values()):
            tasks.insert(12 * (place + 1), task)
        found = toys.outcomes(engine, iter(tasks))
        assert all(found[str(i)].value == i for i in range(100))
        for name in bad:
            failure = found[name].failure
            assert failure is not None and failure.kind == "raised", found[name]


class _Wicked:
    """Unpickling it raises: in every process but one (`worker`), or only in that (`driver`)."""

    def __init__(self, where: str, driver: int) -> None:
        self.where, self.driver = where, driver

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (os.getpid() == state["driver"]) == (state["where"] == "driver"):
            raise RuntimeError("it does not want to be read here")
        self.__dict__ = state


def _wicked_for(driver: int) -> _Wicked:
    return _Wicked("driver", driver)


def _interrupt() -> None:
    raise KeyboardInterrupt


isolation_laws: tuple[Callable[[MakeEngine], None], ...] = (
    a_worker_that_is_killed_costs_one_attempt,
    kills_from_outside_have_a_wide_bound,
    a_task_that_kills_its_worker_is_given_up_after_two,
    ceilings_of_time_kill_for_real,
    a_ceiling_of_memory_kills_for_real,
    room_that_is_only_reserved_is_not_memory,
    a_request_that_is_too_large_is_refused_in_place,
    ceilings_hold_while_the_consumer_sleeps,
    a_running_task_that_is_cancelled_is_stopped,
    what_waits_behind_a_long_task_is_done_elsewhere,
    what_cannot_be_sent_or_read_fails_alone,
)
