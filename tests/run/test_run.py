"""Run: one answer on every engine, nothing lost and nothing twice, stopped and resumed, memory broken and retried."""

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import millrace as mr
from millrace import compose, folder
from millrace.run.errors import Cancelled, Paused, SourceStalled, TaskFailed, WrongQuestion
from millrace.run.keys import content_key
from millrace.run.run import Run
from millrace.run.task import Cancel, Limits, Ref

ENGINES = ("inline", "processes", "auto")


def square(x):
    return x * x


def marked(folder, x):
    """Leaves a mark for every time that it really ran."""
    (Path(folder) / f"{x}-{time.monotonic_ns()}").touch()
    return x * x


def fail_on(bad, x):
    if x == bad:
        raise ValueError(f"no {x}")
    return x


@contextlib.contextmanager
def opened(engine: str, **machine) -> Iterator[Run]:
    with compose.open_run("test", compose.Machine(engine=engine, cores=2, **machine)) as run:
        yield run


@pytest.mark.parametrize("engine", ENGINES)
def test_map_gives_values_in_item_order(engine):
    with opened(engine) as run:
        assert list(run.map(square, range(500))) == [x * x for x in range(500)]
        assert sorted(run.map(square, range(100), ordered=False)) == sorted(x * x for x in range(100))


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_items_are_computed_once_and_delivered_each_time(engine, tmp_path):
    with opened(engine) as run:
        assert list(run.map(functools.partial(marked, str(tmp_path)), [3, 1, 3, 3, 2])) == [9, 1, 9, 9, 4]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_run_over_the_same_store_computes_nothing(engine, tmp_path):
    marks, store = tmp_path / "marks", tmp_path / "store"
    marks.mkdir()
    task = functools.partial(marked, str(marks))
    with opened(engine, store=store) as run:
        first = list(run.map(task, range(50)))
        assert (run.computed, run.cached) == (50, 0)
    with opened(engine, store=store) as run:
        assert list(run.map(task, range(60))) == first + [x * x for x in range(50, 60)]
        assert (run.computed, run.cached) == (10, 50)
    assert len(list(marks.iterdir())) == 60


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_failure_is_raised_with_the_remote_traceback(engine):
    with opened(engine) as run:
        with pytest.raises(TaskFailed, match="fail_on.*no 7|no 7") as told:
            list(run.map(functools.partial(fail_on, 7), range(20), name="fail_on"))
        assert "in fail_on" in str(told.value) and told.value.failure.kind == "raised"
        assert list(run.map(square, range(3))) == [0, 1, 4]  # the run lives on


def total(x, shared):
    return float(shared["a"].sum()) + x


def is_read_only(x, shared):
    return not shared.flags.writeable


@pytest.mark.parametrize("engine", ENGINES)
def test_shared_inputs_reach_tasks_read_only(engine):
    a = np.arange(100_000.0)
    with opened(engine) as run:
        ref = run.share({"a": a, "b": "text"})
        assert isinstance(ref, Ref) and run.share({"a": a.copy(), "b": "text"}) == ref
        assert list(run.map(total, [1, 2], shared=ref)) == [a.sum() + 1, a.sum() + 2]
        assert list(run.map(is_read_only, [1, 2], shared=a)) == [True, True]


def large(x):
    return np.full(50_000, float(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_large_values_stay_in_the_arena_and_come_back_mapped(engine, tmp_path):
    for store in (None, tmp_path / "store"):
        with opened(engine, store=store) as run:
            values = list(run.map(large, range(4)))
            assert all((v == i).all() and v.shape == (50_000,) for i, v in enumerate(values))
            refs = list(run.map(large, range(4), keep=True))
            assert all(isinstance(r, Ref) for r in refs)
            assert list(run.map(lambda x, a: float(a[0]), [1], shared=refs[2])) == [2.0]


def test_random_numbers_belong_to_the_item():
    draws = {e: [] for e in ENGINES}
    for engine in ENGINES:
        with opened(engine, seed=5) as run:
            draws[engine] = list(run.map(lambda i: float(mr.rng(5, i).standard_normal()), range(20)))
            assert run.rng(3).standard_normal() == draws[engine][3]
    assert draws["inline"] == draws["processes"] == draws["auto"]
    assert len(set(draws["inline"])) == 20


@pytest.mark.parametrize("engine", ENGINES)
def test_pause_keeps_what_is_done_and_the_same_run_goes_on(engine, tmp_path):
    marks, store = tmp_path / "marks", tmp_path / "store"
    marks.mkdir()
    task = functools.partial(marked, str(marks))
    with pytest.raises(Paused, match="Run the same again"), opened(engine, store=store) as run:
        for value in run.map(task, range(5000)):
            if value == 100:
                run.pause()
    done = len({m.name.partition("-")[0] for m in marks.iterdir()})  # a stolen task may have run twice
    assert 0 < done < 5000
    with opened(engine, store=store) as run:
        assert list(run.map(task, range(5000))) == [x * x for x in range(5000)]
        assert run.cached >= done - 1 and run.computed + run.cached == 5000
    assert len({m.name.partition("-")[0] for m in marks.iterdir()}) == 5000


@pytest.mark.parametrize("engine", ENGINES)
def test_a_paused_slice_commits_at_least_one_task(engine, tmp_path):
    for expected in range(1, 4):
        with contextlib.suppress(Paused), opened(engine, store=tmp_path) as run:
            run.pause()  # what a pool had been given before its first outcome is finished too
            list(run.map(square, range(1000, 1010)))
        with opened("inline", store=tmp_path) as run:
            assert sum(run.look(run.task(square, x).key) is not None for x in range(1000, 1010)) >= expected


def test_cancel_raises_and_a_deadline_ends_the_source():
    with pytest.raises(Cancelled), opened("inline") as run:
        for value in run.map(square, itertools.count()):
            if value > 100:
                run.cancel()
    with compose.open_run("test", compose.Machine(engine="inline", deadline=2.0)) as run:
        got = list(run.map(square, itertools.count()))
        assert run.ending == "deadline" and got == [x * x for x in range(len(got))] and got


@pytest.mark.parametrize("engine", ENGINES)
def test_pause_from_another_thread_wakes_a_waiting_run(engine):
    with pytest.raises(Paused), opened(engine) as run:
        threading.Timer(0.3, run.pause).start()
        for _ in run.map(functools.partial(_nap, 0.05), itertools.count()):
            pass


def _nap(s, i):
    time.sleep(s)
    return i


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_keyed_runs_uncached_and_says_so_once(engine, tmp_path):
    live = np.array([None, {}], dtype=object)  # travels, but has no canonical form
    with opened(engine, store=tmp_path) as run:
        assert list(run.map(lambda x: x + len(live), range(5))) == [2, 3, 4, 5, 6]
        assert sum("without the store" in n for n in run.notes) == 1
        assert list(run.store.keys("")) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_values_that_no_store_takes_are_kept_for_this_run_only(engine, tmp_path):
    with opened(engine, store=tmp_path) as run:
        values = list(run.map(_odd_value, range(3)))
        assert [v.real for v in values] == [0, 1, 2]
        assert any("this run only" in n for n in run.notes)


class Odd:
    def __init__(self, real):
        self.real = real


def _odd_value(x):
    return Odd(x)


@pytest.mark.parametrize("engine", ENGINES)
def test_stream_carries_ask_and_tell_cancel_and_cached_outcomes(engine):
    with opened(engine) as run:
        told: list[int] = []

        def source():
            for asked in range(30):
                while len(told) < asked:
                    yield None
                yield run.task(square, asked % 10)  # the later twenty are hits

        for outcome in run.stream(source()):
            told.append(outcome.value)
        assert told == [(x % 10) ** 2 for x in range(30)]
        assert (run.computed, run.cached) == (10, 20)

        with pytest.raises(SourceStalled):
            list(run.stream(iter([None])))

        def early():
            for i in range(40):
                yield run.task(square, 100 + i, group=i % 2)
            yield Cancel(1)

        states = [o.failure.kind if o.failure else "done" for o in run.stream(early())]
        assert len(states) == 40 and set(states) <= {"done", "cancelled"}


def test_one_open_stream_at_a_time():
    with opened("inline") as run:
        first = run.map(square, range(10))
        next(first)
        with pytest.raises(WrongQuestion, match="open stream"):
            list(run.map(square, range(3)))
        first.close()
        assert list(run.map(square, range(3))) == [0, 1, 4]


def hungry(mib):
    return len(b"x" * (mib << 20)) >> 20  # every page of it is touched


def test_a_task_that_breaks_its_share_gets_the_whole_budget_once_then_fails_with_the_figure():
    with opened("processes", memory="600MiB") as run:
        assert list(run.map(hungry, [10, 350, 20])) == [10, 350, 20]  # a share is at most 300 MiB
        with pytest.raises(TaskFailed, match="memory") as told:
            list(run.map(hungry, [10, 900, 20]))
        assert told.value.failure.kind == "memory"


def test_a_ceiling_of_the_task_itself_is_kept_without_a_second_try():
    with opened("processes") as run:
        outcomes = list(run.stream(iter([run.task(_spin, limits=Limits(cpu_s=0.2))])))
        assert outcomes[0].failure is not None and outcomes[0].failure.kind == "cpu"


def _spin():
    while True:
        pass


def test_the_ledger_of_a_run_holds_every_attempt(tmp_path):
    with opened("processes", out=tmp_path / "out", store=tmp_path / "store") as run:
        list(run.map(square, range(100)))
    with opened("processes", out=tmp_path / "again", store=tmp_path / "store") as run:
        list(run.map(square, range(120)))
    past = folder.history(tmp_path / "again")
    assert past.end["computed"] == 20 and past.end["cached"] == 100 and past.attempts == 120
    assert past.header["slots"] == 2 and past.end["state"] == "done"
    assert sorted(past.columns["item"]) == list(range(120))


def test_answers_have_one_digest_on_every_engine_and_budget(tmp_path):
    digests = set()
    for engine in ENGINES:
        for memory in ("400MiB", "2GiB"):
            for store in (None, tmp_path / "store"):
                with opened(engine, memory=memory, store=store) as run:
                    digests.add(content_key(list(run.map(large, range(5)))))
    assert len(digests) == 1


def test_who_watches_sees_busy_cores_and_the_memory_of_all():
    seen = []
    machine = compose.Machine(engine="processes", cores=2, show=seen.append)
    with compose.open_run("test", machine) as run:
        list(run.map(functools.partial(_nap, 0.1), range(12)))
    assert max(p.busy for p in seen) == 2 and {p.slots for p in seen} >= {2}
    assert max(p.private_bytes for p in seen) > 5 << 20  # two worker processes


def test_a_task_that_is_tried_alone_leaves_the_driver_what_it_has_grown_by():
    with opened("processes", memory="800MiB") as run:
        grown = np.ones(40_000_000)  # 320 MB in the driver
        run.show(force=True)
        assert run.peak_bytes >= grown.nbytes
        with pytest.raises(TaskFailed, match="memory"):
            list(run.map(hungry, [550]))  # less than the budget, and more than it has left
