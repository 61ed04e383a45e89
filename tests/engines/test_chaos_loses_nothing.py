"""Workers are killed at random; every result is right, and each comes once."""

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from millrace.engines.processes import ProcessEngine
from millrace.run.task import Cancel, Task
from millrace.testing import toys
from millrace.testing.isolation import killer, under_fire


def test_a_thousand_tasks_with_a_worker_killed_every_200_ms() -> None:
    engine = ProcessEngine(2)
    try:
        found, kills = under_fire(engine, (Task(toys.busy, (0.004, i), str(i)) for i in range(1000)), 0.2)
    finally:
        engine.close()
    assert {int(k): o.value for k, o in found.items()} == {i: i for i in range(1000)}
    assert kills >= 5
    assert max(o.measures.attempt for o in found.values()) <= 4


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seconds"), [(2000, 0.001), (100_000, 0.0)])
def test_a_storm_of_kills(count: int, seconds: float) -> None:
    engine = ProcessEngine(2)
    fn = (lambda i: Task(toys.busy, (seconds, i), str(i))) if seconds else (lambda i: Task(abs, (i,), str(i)))
    try:
        found, kills = under_fire(engine, map(fn, range(count)), 0.012)
    finally:
        engine.close()
    assert {int(k): o.value for k, o in found.items()} == {i: i for i in range(count)}
    assert kills >= 20


@pytest.mark.slow
def test_streams_that_are_cancelled_closed_and_shot_at() -> None:
    rng = random.Random(1)

    def source() -> Iterator[Task | Cancel]:
        for i in range(60):
            yield Task(toys.busy, (0.001, i), str(i), group=i % 5)
            if rng.random() < 0.1:
                yield Cancel(rng.randrange(5))

    engine = ProcessEngine(2)
    try:
        with killer(0.04) as alive:
            for turn in range(60):
                keys = []
                stream = engine.stream(source())
                for outcome in stream:
                    keys.append(outcome.key)
                    if outcome.failure is None:
                        assert outcome.value == int(outcome.key)
                        alive[outcome.measures.worker] = outcome.measures.pid
                    else:
                        assert outcome.failure.kind == "cancelled", outcome
                    if turn % 3 == 0 and len(keys) == 20:
                        stream.close()  # type: ignore[attr-defined]
                        break
                assert len(set(keys)) == len(keys) == (20 if turn % 3 == 0 else 60)
    finally:
        engine.close()


@pytest.mark.slow
def test_a_worker_that_dies_while_results_are_large_and_the_consumer_is_slow() -> None:
    engine = ProcessEngine(2)
    try:
        found = {}
        with killer(0.05) as alive:
            for outcome in engine.stream(Task(toys.nap, (0.005, bytes([i]) * (3 << 20)), str(i)) for i in range(60)):
                found[outcome.key] = outcome.value
                alive[outcome.measures.worker] = outcome.measures.pid
                time.sleep(0.01)
    finally:
        engine.close()
    assert all(value == bytes([int(key)]) * (3 << 20) for key, value in found.items())
    assert len(found) == 60


def test_a_stopped_worker_holds_up_nobody_but_its_own_tasks() -> None:
    engine = ProcessEngine(2)
    try:
        list(engine.stream(Task(toys.nap, (0.01, i), str(i)) for i in range(8)))
        stopped = engine.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        stream = engine.stream(Task(toys.nap, (0.001, i), str(i)) for i in range(200))
        found = {next(stream).key for _ in range(190)}
        os.kill(stopped, signal.SIGCONT)
        found |= {outcome.key for outcome in stream}
        assert len(found) == 200
    finally:
        engine.close()
