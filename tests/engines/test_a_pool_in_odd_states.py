"""States that are rare and real: crashes while a message is read or packed, many workers, early ends, odd calls."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest

from millrace.engines.processes import ProcessEngine, client
from millrace.engines.processes.pool import STARTING
from millrace.run.errors import NotSupported, WrongQuestion
from millrace.run.task import Limits, Task
from millrace.testing import toys


@pytest.fixture
def engine() -> Any:
    made = ProcessEngine(2)
    yield made
    made.close()


class Deadly:
    """Kills the process that unpickles it, or the one that pickles it, unless that is the driver."""

    def __init__(self, when: str, driver: int) -> None:
        self.when, self.driver = when, driver

    def __getstate__(self) -> dict[str, Any]:
        if self.when == "packed" and os.getpid() != self.driver:
            toys.crash(int(signal.SIGSEGV))
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["when"] == "unpacked" and os.getpid() != state["driver"]:
            toys.crash(int(signal.SIGSEGV))
        self.__dict__ = state


def deadly(driver: int) -> Deadly:
    return Deadly("packed", driver)


@pytest.mark.parametrize("when", ["unpacked", "packed"])
def test_a_crash_around_the_call_costs_only_the_task_that_causes_it(engine: ProcessEngine, when: str) -> None:
    list(engine.stream(Task(toys.square, (i,), str(i)) for i in range(200)))  # so that messages are large
    list(engine.stream(Task(deadly, (0,), str(i)) for i in range(0)))
    tasks = [Task(toys.nap, (0.0, i), str(i), name="same") for i in range(300)]
    list(engine.stream(iter(tasks)))
    if when == "unpacked":
        bad = Task(toys.nap, (0.0, Deadly("unpacked", os.getpid())), "bad", name="same")
    else:
        bad = Task(deadly, (os.getpid(),), "bad", name="same")
    tasks.insert(150, bad)
    found = toys.outcomes(engine, iter(tasks))
    assert all(found[str(i)].value == i for i in range(300))
    assert found["bad"].failure is not None and found["bad"].failure.kind == "lost", found["bad"]


def test_short_tasks_may_finish_when_the_stream_is_closed_and_their_workers_stay_warm(engine: ProcessEngine) -> None:
    list(engine.stream(Task(toys.nap, (0.01, i), str(i)) for i in range(20)))
    before = engine.worker_pids()
    stream = engine.stream(Task(toys.nap, (0.001, i), str(i)) for i in range(1000))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert {o.measures.pid for o in engine.stream(Task(toys.nap, (0.005, i), str(i)) for i in range(20))} == set(before)


@pytest.mark.parametrize("workers", ["that start yet", "in the middle of a task"])
def test_what_a_closed_stream_leaves_does_not_come_back_in_the_next_one(engine: ProcessEngine, workers: str) -> None:
    if workers != "that start yet":
        toys.until(lambda: len({o.measures.pid for o in engine.stream(_naps(8))}) == 2)
    # Of a kind that nothing is known of yet, so that a message holds one task: in a larger one the first result would wait
    # for the long task behind it.
    stream = engine.stream(Task(toys.nap, (600.0 if i else 0.01, i), f"old {i}", name="old") for i in range(9))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    found = [o.key for o in engine.stream(Task(toys.nap, (0.3, i), f"new {i}") for i in range(4))]
    assert sorted(found) == [f"new {i}" for i in range(4)]


def _naps(count: int) -> Iterator[Task]:
    return (Task(toys.nap, (0.02, i), str(i)) for i in range(count))


def test_more_workers_than_the_servers_socket_holds_packets_for() -> None:
    engine = ProcessEngine(STARTING + 6)
    try:
        found = toys.outcomes(engine, (Task(toys.nap, (0.2, i), str(i)) for i in range(100)))
        assert len(found) == 100 and all(o.failure is None for o in found.values())
    finally:
        engine.close()


def test_large_arguments_and_results_both_ways_at_once(engine: ProcessEngine) -> None:
    blob = os.urandom(6 << 20)
    found = toys.outcomes(engine, (Task(toys.nap, (0.0, blob), str(i)) for i in range(8)))
    assert all(o.value == blob for o in found.values())
    assert all(o.measures.in_bytes > 6 << 20 and o.measures.out_bytes > 6 << 20 for o in found.values())


def test_a_worker_that_cannot_send_is_not_timed_out(engine: ProcessEngine) -> None:
    limits, count = Limits(wall_s=1.5), 0
    for outcome in engine.stream(Task(toys.nap, (0.0, bytes(1 << 20)), str(i), limits=limits) for i in range(12)):
        if not count:
            time.sleep(3.0)
        assert outcome.failure is None, outcome
        count += 1
    assert count == 12


def test_a_worker_that_has_half_of_its_message_is_not_timed_out(engine: ProcessEngine) -> None:
    """The rest of it is the driver's to write, which the consumer keeps from it."""
    limits, count = Limits(wall_s=1.5), 0
    toys.until(lambda: len({o.measures.pid for o in engine.stream(_naps(8))}) == 2)
    tasks = [Task(toys.square, (2,), "quick"), Task(toys.nap, (0.0, bytes(32 << 20)), "large", limits=limits)]
    for outcome in engine.stream(iter(tasks)):
        if not count:
            time.sleep(3.0)
        assert outcome.failure is None, outcome
        count += 1
    assert count == 2


def test_a_generator_that_nobody_finishes_is_no_harm(engine: ProcessEngine) -> None:
    next(engine.stream(Task(toys.square, (i,), str(i)) for i in range(10)))
    engine.stream(iter(()))
    assert len(list(engine.stream(Task(toys.square, (i,), str(i)) for i in range(10)))) == 10


def test_after_close_it_says_so() -> None:
    engine = ProcessEngine(1)
    engine.close()
    engine.close()
    engine.wake()
    with pytest.raises(WrongQuestion, match="closed"):
        list(engine.stream(iter(())))
    with pytest.raises(WrongQuestion, match="at least one slot"):
        ProcessEngine(0)


def test_an_engine_that_is_forgotten_takes_its_processes_along() -> None:
    engine = ProcessEngine(1)
    list(engine.stream(iter([Task(toys.square, (1,), "k")])))
    server = engine._pool.server.process
    del engine
    assert server.wait(timeout=5) is not None


def test_other_systems_are_told_in_one_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotSupported, match=r"needs Linux .* this is darwin\. Use engine=\"inline\""):
        ProcessEngine(1)


def test_a_server_that_cannot_start_leaves_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        ProcessEngine(1)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_importing_the_engines_is_light() -> None:
    code = (
        "import sys; import millrace.engines.inline, millrace.engines.auto, millrace.engines.processes; "
        "print(sorted({'numpy', 'numba', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30).stdout == "[]\n"
    assert client.WORKER_ENVIRONMENT["OMP_NUM_THREADS"] == "1"


def test_every_worker_draws_numbers_of_its_own() -> None:
    engine = ProcessEngine(2, preload=("numpy.random",))
    try:
        drawn: dict[int, float] = {}

        def both() -> bool:
            drawn.update({o.measures.pid: o.value for o in engine.stream(Task(_draw, (i,), str(i)) for i in range(4))})
            return len(drawn) == 2

        toys.until(both)
        assert len(set(drawn.values())) == 2
    finally:
        engine.close()


def _draw(_: int) -> float:
    import numpy

    time.sleep(0.02)
    return float(numpy.random.random())


INTERRUPTED = """
import signal
from millrace.engines.processes import ProcessEngine
from millrace.run.task import Task
from millrace.testing import toys
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
engine, interrupted = ProcessEngine(2), 0
for turn in range(25):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.0017 * turn)
        for outcome in engine.stream(Task(toys.nap, (0.0, bytes([turn]) * 3000), str(i)) for i in range(60_000)):
            assert outcome.value == bytes([turn]) * 3000
    except KeyboardInterrupt:
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    found = [o.value for o in engine.stream(Task(toys.square, (i,), str(i)) for i in range(10))]
    assert sorted(found) == [i * i for i in range(10)], found
engine.close()
assert interrupted > 20, interrupted
print("fine")
"""


@pytest.mark.slow
def test_an_interrupt_at_any_moment_leaves_a_pool_that_works() -> None:
    """What a handler raises comes in the middle of reads and writes; no pipe may stay out of step. In a process of its
    own: where pytest and its plugins run code at any time, the interrupt may hit them."""
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
