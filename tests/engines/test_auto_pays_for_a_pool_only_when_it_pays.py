"""`auto`: inline while that is cheaper, then the pool, and at once for what only processes can hold."""

import os
from collections.abc import Iterator

import pytest

from millrace.engines.auto import AutoEngine
from millrace.engines.processes import ProcessEngine
from millrace.run.errors import SourceStalled
from millrace.run.task import Cancel, Limits, Outcome, Task
from millrace.testing import toys
from millrace.testing.accounts import explain


class Counted:
    """Makes pools and knows how many."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> ProcessEngine:
        self.made += 1
        return ProcessEngine(2)


@pytest.fixture
def make() -> Counted:
    return Counted()


@pytest.fixture
def auto(make: Counted) -> Iterator[AutoEngine]:
    engine = AutoEngine(make, 0.05, slots=2)
    yield engine
    engine.close()


def pids(engine: AutoEngine, tasks: list[Task]) -> list[int]:
    return [outcome.measures.pid for outcome in engine.stream(iter(tasks))]


def test_little_work_starts_no_pool(auto: AutoEngine, make: Counted) -> None:
    for _ in range(3):
        assert set(pids(auto, [Task(toys.square, (i,), str(i)) for i in range(100)])) == {os.getpid()}
    assert make.made == 0 and auto.slots == 1 and not auto.isolates


def test_much_work_goes_on_in_the_pool_and_stays_there(auto: AutoEngine, make: Counted) -> None:
    where = pids(auto, [Task(toys.nap, (0.02, i), str(i)) for i in range(12)])
    assert where[:3] == [os.getpid()] * 3 and os.getpid() not in where[4:]
    assert make.made == 1 and auto.slots == 2 and auto.isolates
    assert os.getpid() not in pids(auto, [Task(toys.square, (1,), "k")])
    assert make.made == 1


@pytest.mark.parametrize(
    "bad",
    [
        Task(toys.nap, (30.0,), "bad", limits=Limits(wall_s=0.2)),
        Task(toys.hoard, (1 << 20,), "bad", limits=Limits(private_bytes=200 << 20)),
    ],
    ids=["wall", "memory"],
)
def test_ceilings_are_held_from_the_first_task_on(auto: AutoEngine, bad: Task) -> None:
    found = toys.outcomes(auto, iter([Task(toys.square, (2,), "a"), bad, Task(toys.square, (3,), "b")]))
    assert found["bad"].failure is not None and found["a"].value == 4 and found["b"].value == 9


def test_a_resource_lives_in_a_worker(auto: AutoEngine, make: Counted, tmp_path: object) -> None:
    tasks = [Task(toys.use, (1,), "a", resources=(toys.DiaryFactory(f"{tmp_path}/diary"),))]
    assert os.getpid() not in pids(auto, tasks) and make.made == 1


def test_the_sources_rules_hold_across_the_change(auto: AutoEngine) -> None:
    told: set[str] = set()

    def source() -> Iterator[Task | Outcome | Cancel | None]:
        for i in range(40):
            yield Task(toys.nap, (0.005, i), str(i), group=i % 2)
            yield Outcome(f"known {i}", i, cached=True)
            while i % 5 == 4 and len(told) < 2 * i:
                yield None
        yield Cancel(1)

    for outcome in auto.stream(source()):
        assert outcome.key not in told
        told.add(outcome.key)
    assert len(told) == 80 and auto.isolates
    with pytest.raises(SourceStalled):
        list(auto.stream(iter([None])))


def test_the_slots_that_were_not_there_are_told(auto: AutoEngine) -> None:
    import time

    auto.spans()
    began = time.monotonic_ns()
    found = list(auto.stream(Task(toys.nap, (0.01, i), str(i)) for i in range(60)))
    explain(found, auto.spans(), 2, began, time.monotonic_ns())


def test_closing_it_early_closes_whichever_runs(auto: AutoEngine) -> None:
    for _ in range(2):
        stream = auto.stream(Task(toys.nap, (0.02, i), str(i)) for i in range(30))
        for _ in range(6):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert len(list(auto.stream(Task(toys.square, (i,), str(i)) for i in range(5)))) == 5
