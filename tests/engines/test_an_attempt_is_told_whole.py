"""What is known of an attempt beside its times: the memory of all that it started, the quota that held it back, its host;
and its result comes as soon as it is there, whatever runs behind it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millrace.engines.inline import InlineEngine
from millrace.engines.processes import ProcessEngine
from millrace.run.ports import Engine
from millrace.run.task import Outcome, Task
from millrace.testing import toys

MIB = 1 << 20
HELD = 120 * MIB
LONG_S = 60.0
"""A task that waits for so long has waited in vain."""


@pytest.fixture
def one() -> Iterator[ProcessEngine]:
    engine = ProcessEngine(1)
    yield engine
    engine.close()


# -- memory ------------------------------------------------------------------------------------------------------------
def in_another_program(held: int) -> int:
    code = f"import time; held = bytearray({held}); held[::4096] = b'x' * len(held[::4096]); time.sleep(1.5)"
    return subprocess.run([sys.executable, "-c", code], check=True).returncode


def in_a_fork(held: int) -> int:
    """The child has all that its parent has, and writes nothing."""
    kept = bytearray(held)
    kept[::4096] = b"x" * len(kept[::4096])
    child = os.fork()
    if not child:
        time.sleep(1.5)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("task", [in_another_program, in_a_fork])
def test_the_peak_is_of_the_worker_and_all_below_it_and_what_a_fork_shares_counts_once(
    one: ProcessEngine, task: Callable[[int], int]
) -> None:
    (outcome,) = one.stream(iter([Task(task, (HELD,), "k")]))
    assert outcome.value == 0
    assert HELD < outcome.measures.peak_bytes < 1.5 * HELD


def test_what_was_below_one_worker_is_not_told_of_the_next(one: ProcessEngine) -> None:
    (first,) = one.stream(iter([Task(in_another_program, (HELD,), "k")]))
    (second,) = one.stream(iter([Task(toys.nap, (1.0, 1), "l")]))
    assert second.measures.peak_bytes < HELD / 2 < first.measures.peak_bytes


# -- quotas ------------------------------------------------------------------------------------------------------------
def clock(path: str) -> Callable[[], int]:
    """A meter that tells what lies in a file."""
    return lambda: int(Path(path).read_text())


def held_back(path: str, quota_ns: int, wait_s: float) -> int:
    """As a task is that a quota holds back: it waits, and the meter has gone on."""
    Path(path).write_text(str(int(Path(path).read_text()) + quota_ns))
    time.sleep(wait_s)
    return quota_ns


@pytest.mark.parametrize("make", [InlineEngine, functools.partial(ProcessEngine, 1)])
def test_what_a_quota_took_is_told_of_the_attempt_and_never_more_than_it_waited(
    make: Callable[..., Engine], tmp_path: Path
) -> None:
    meter = tmp_path / "meter"
    meter.write_text("7000000000")  # of before
    engine = make(meter=functools.partial(clock, str(meter)))
    tasks = [
        Task(held_back, (str(meter), 20_000_000, 0.2), "held"),
        Task(held_back, (str(meter), 9_000_000_000, 0.05), "more than it waited"),
        Task(held_back, (str(meter), 0, 0.05), "free"),
    ]
    try:
        told = {o.key: o.measures for task in tasks for o in engine.stream(iter([task]))}
    finally:
        engine.close()
    assert told["held"].throttled_ns == 20_000_000
    waited = told["more than it waited"]
    assert 0.04e9 < waited.throttled_ns <= waited.ended_ns - waited.started_ns - waited.cpu_ns
    assert told["free"].throttled_ns == 0


# -- results -----------------------------------------------------------------------------------------------------------
def waiting(path: str, give: str) -> str:
    """Ends when somebody has made the file."""
    end = time.monotonic() + LONG_S
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)
    return give if os.path.exists(path) else "in vain"


def waiting_in_a_pipe(path: str, give: str) -> str:
    """In a system call that a signal interrupts, until the file is there."""
    read, write = os.pipe()
    threading.Thread(target=lambda: os.write(write, waiting(path, give).encode())).start()
    try:
        return os.read(read, 64).decode()
    finally:
        os.close(read)
        os.close(write)


class Untellable:
    """Nothing can pickle it."""

    def __reduce__(self) -> str:
        raise TypeError("never")


def either(path: str, give: object, wait: Callable[[str, str], str] | None) -> object:
    """One kind of task that may be short or long: nobody knows beforehand."""
    if give == "untellable":
        return Untellable()
    return wait(path, str(give)) if wait else give


@pytest.mark.parametrize("wait", [waiting, waiting_in_a_pipe])
def test_a_result_that_is_ready_does_not_wait_for_the_task_behind_it_in_the_message(
    one: ProcessEngine, tmp_path: Path, wait: Callable[[str, str], str]
) -> None:
    """The long task ends only when its consumer has the results of the short ones before it: else never."""
    gate = str(tmp_path / "gate")
    list(one.stream(Task(either, (gate, i, None), f"w{i}") for i in range(2000)))  # messages of many, by now
    calls = [(gate, i, None) for i in range(5)] + [(gate, "long", wait)] + [(gate, i, None) for i in range(5, 10)]
    came: list[Outcome] = []
    for outcome in one.stream(Task(either, args, str(args[1])) for args in calls):
        came.append(outcome)
        if {str(i) for i in range(5)} <= {o.key for o in came}:
            Path(gate).touch()
    assert {o.key: o.value for o in came} == {str(args[1]): args[1] for args in calls}
    assert len(came) == len(calls) and came[-1].measures.attempt == 1


def test_what_cannot_be_sent_and_what_is_large_is_told_early_too(one: ProcessEngine, tmp_path: Path) -> None:
    gate, large = str(tmp_path / "gate"), bytes(3 * MIB)  # more than a pipe holds
    list(one.stream(Task(either, (gate, i, None), f"w{i}") for i in range(2000)))
    calls = [(gate, "untellable", None), (gate, 1, None), (gate, large, None), (gate, "long", waiting), (gate, 2, None)]
    came: dict[str, Outcome] = {}
    for outcome in one.stream(Task(either, args, str(i)) for i, args in enumerate(calls)):
        came[outcome.key] = outcome
        if {"0", "1"} <= set(came):
            Path(gate).touch()
    failure = came["0"].failure
    assert failure is not None and "cannot be sent back" in failure.message
    assert came["2"].value == large and came["3"].value == "long" and came["4"].value == 2


def overflowing(path: str, depth: int) -> str:
    """A long task at the end of its stack."""
    return overflowing(path, depth - 1) if depth else waiting(path, "long")


def test_a_task_that_has_used_up_its_stack_does_not_fail_for_what_was_before_it(
    one: ProcessEngine, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    threading.Timer(1.0, Path(gate).touch).start()
    depth = sys.getrecursionlimit() - 60
    list(one.stream(Task(overflowing, (__file__, 0), f"w{i}") for i in range(2000)))
    tasks = [Task(overflowing, (__file__, 0), "short"), Task(overflowing, (gate, depth), "long")]
    found = {o.key: o for o in one.stream(iter(tasks))}
    failure = found["long"].failure
    assert found["long"].value == "long" or (failure is not None and failure.message.startswith("RecursionError"))
    assert found["short"].value == "long"
