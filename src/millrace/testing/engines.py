"""The laws of an engine: `laws` is a tuple of functions, each takes a maker of engines and checks one sentence.

A maker is called as `make_engine()` or `make_engine(opener)` and returns a new engine; the law closes it. Laws with the
attribute `needs_isolation` hold for engines that say `isolates`, and do harm to others: they kill, crash and exhaust.
Values are compared by the digest that keys are made of. `keeps(make_engine)` checks all that apply.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from millrace.engines.inline import InlineEngine
from millrace.run.errors import SourceStalled, WrongQuestion
from millrace.run.keys import content_key
from millrace.run.ports import Engine, Source
from millrace.run.task import Cancel, Keep, Limits, Outcome, Ref, Task
from millrace.testing import toys
from millrace.testing.accounts import explain
from millrace.testing.isolation import isolation_laws

MakeEngine = Callable[..., Engine]
Law = Callable[[MakeEngine], None]
WINDOW = 2
"""Messages that an engine may have in flight per slot; an engine with another window says so as `window`."""


@contextmanager
def opened(make_engine: MakeEngine, *args: Any) -> Iterator[Engine]:
    engine = make_engine(*args)
    try:
        yield engine
    finally:
        engine.close()


# -- answers -----------------------------------------------------------------------------------------------------
def every_analysis_has_the_inline_engines_answer(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        for analysis in toys.ANALYSES:
            oracle = content_key(analysis(InlineEngine()))
            assert content_key(analysis(engine)) == oracle, f"{analysis.__name__} has another answer than inline"


def an_engine_serves_one_stream_after_another(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        for _ in range(20):
            assert [o.value for o in engine.stream(iter([Task(toys.square, (3,), "k")]))] == [9]
        assert list(engine.stream(iter(()))) == []


def each_outcome_is_delivered_once(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        tasks = (Task(toys.square, (i,), str(i), group=i % 3 or None) for i in range(3000))
        found = toys.outcomes(engine, tasks)
        assert {int(k): o.value for k, o in found.items()} == {i: i * i for i in range(3000)}


def kinds_of_tasks_may_alternate(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        makers = (lambda i: Task(toys.square, (i,), f"s{i}"), lambda i: Task(toys.nap, (0.0, i), f"n{i}", name="nap"))
        found = toys.outcomes(engine, (make(i) for i in range(200) for make in makers))
        assert all(found[f"s{i}"].value == i * i and found[f"n{i}"].value == i for i in range(200))


def references_become_values_and_large_values_stay(make_engine: MakeEngine) -> None:
    from millrace.stores.directory import DirectoryStore

    with tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        store = DirectoryStore(Path(folder))
        key = content_key(b"x" * 300_000)
        store.put(key, b"x" * 300_000)
        store.flush()
        keep = Keep(store.url, over_bytes=1000)
        with opened(make_engine, open_directory) as engine:
            tasks = [
                Task(len, (Ref(key, store.url, 300_000),), content_key("size")),
                Task(toys.nap, (0.0, b"y" * 5000), content_key("large"), keep=keep),
                Task(toys.nap, (0.0, b"z" * 50), content_key("small"), keep=keep),
                Task(toys.nap, (0.0, {1 + 2j}), content_key("odd"), keep=Keep(store.url, 0)),
                Task(toys.nap, (0.0, b"y" * 5000), "~1", keep=keep),
            ]
            size, large, small, odd, private = (toys.outcomes(engine, iter(tasks))[t.key] for t in tasks)
        assert size.value == 300_000, size
        assert type(large.value) is Ref, large
        assert (large.value.key, large.value.url) == (large.key, store.url)
        assert bytes(store.attach(large.key)) == b"y" * 5000
        assert small.value == b"z" * 50, small
        assert odd.value == {1 + 2j}, odd
        assert private.value == b"y" * 5000, private
        store.close()


def open_directory(url: str) -> Any:
    from millrace.compose import open_store

    return open_store(url)


# -- the source --------------------------------------------------------------------------------------------------
def an_outcome_that_the_source_brings_is_passed_through(make_engine: MakeEngine) -> None:
    told = 0

    def source() -> Source:
        for i in range(2000):
            while told < i:
                yield None
            yield Outcome(str(i), i, cached=True)

    with opened(make_engine) as engine:
        for outcome in engine.stream(source()):
            assert outcome == Outcome(str(told), told, cached=True)
            told += 1
    assert told == 2000


def a_source_that_waits_for_nothing_is_an_error(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        for items in ([None], [Task(toys.square, (2,), "a"), None, None]):
            values = []
            try:
                values += [o.value for o in engine.stream(iter(items))]
                stalled = False
            except SourceStalled:
                stalled = True
            assert stalled or values == [4], "None with nothing in flight was swallowed"
            assert stalled or len(items) > 1
        assert [o.value for o in engine.stream(iter([Task(toys.square, (2,), "a")]))] == [4]


def what_a_source_raises_reaches_the_consumer(make_engine: MakeEngine) -> None:
    def source() -> Source:
        yield from (Task(toys.square, (i,), str(i)) for i in range(10))
        raise LookupError("the source's own")

    with opened(make_engine) as engine:
        _refuses(engine, source(), LookupError)
        _refuses(engine, iter([object()]), WrongQuestion)
        assert len(list(engine.stream(Task(toys.square, (i,), str(i)) for i in range(5)))) == 5


def no_more_is_pulled_than_the_window_and_one(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        pulled, delivered, most = count(), 0, 0
        window = engine.slots * getattr(engine, "window", WINDOW)

        def source() -> Source:
            nonlocal most
            for i in range(8):
                most = max(most, next(pulled) + 1 - delivered)
                yield Task(toys.nap, (0.12, i), str(i))

        for _ in engine.stream(source()):
            delivered += 1
        assert most <= max(window, engine.slots * WINDOW) + 1 + engine.slots, f"{most} tasks were pulled ahead"


def a_wake_asks_the_source_at_once(make_engine: MakeEngine) -> None:
    """While a task is in flight, where that can be: it ends only because the source was asked again."""
    may = threading.Event()

    def source() -> Source:
        yield Task(toys.nap_or_wait, (0.05, str(asked) if engine.isolates else ""), "long")
        while not may.is_set() and not values:
            yield None
        asked.touch()
        yield Task(toys.square, (3,), "quick")

    def let() -> None:
        may.set()
        engine.wake()

    with opened(make_engine) as engine, tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        list(engine.stream(iter([Task(toys.square, (1,), str(i)) for i in range(engine.slots)])))
        asked, values = Path(folder, "asked"), {}
        timer = threading.Timer(0.2, let)
        timer.start()
        for outcome in engine.stream(source()):
            assert outcome.failure is None, f"nobody asked the source: {outcome.failure.message}"
            values[outcome.key] = outcome.value
        timer.join()
        assert values == {"long": None, "quick": 9}


def cancel_ends_a_group_and_only_that(make_engine: MakeEngine) -> None:
    def source() -> Source:
        for i in range(6):
            yield Task(toys.nap, (0.05, i), f"a{i}", group="a")
            yield Task(toys.nap, (0.001, i), f"b{i}", group="b")
        yield Cancel("a")
        yield Cancel("nobody")
        yield Task(toys.square, (5,), "again", group="a")

    with opened(make_engine) as engine:
        found = toys.outcomes(engine, source())
        assert len(found) == 13, sorted(found)
        assert all(found[f"b{i}"].value == i for i in range(6))
        assert found["again"].value == 25, found["again"]
        for i in range(6):
            failure = found[f"a{i}"].failure
            assert failure is None or failure.kind == "cancelled", failure


def closing_the_iterator_cancels(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        stream = engine.stream(Task(toys.nap, (600.0 if i > engine.slots else 0.0, i), str(i)) for i in range(20))
        next(stream)
        began = time.monotonic()
        stream.close()  # type: ignore[attr-defined]
        assert [o.value for o in engine.stream(iter([Task(toys.square, (3,), "k")]))] == [9]
        assert time.monotonic() - began < toys.PATIENCE_S, "what was in flight was not cancelled"


def one_stream_is_open_at_a_time(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        first = engine.stream(Task(toys.square, (i,), str(i)) for i in range(10))
        next(first)
        _refuses(engine, iter([Task(toys.square, (1,), "k")]), WrongQuestion)
        assert len(list(first)) == 9


def _refuses(engine: Engine, source: Iterator[Any], error: type[Exception]) -> None:
    try:
        list(engine.stream(source))
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


# -- failures are values -----------------------------------------------------------------------------------------
def an_exception_is_an_outcome_with_its_traceback(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        tasks = [
            Task(toys.fail, ("no good",), "value"),
            Task(toys.leave, (3,), "exit"),
            Task(toys.run_out_of_memory, (), "memory"),
            Task(toys.square, ("text",), "type"),
            Task(toys.square, (4,), "good"),
        ]
        found = toys.outcomes(engine, iter(tasks))
        assert found["good"].value == 16
        kinds = {key: outcome.failure.kind for key, outcome in found.items() if outcome.failure}
        assert kinds == {"value": "raised", "exit": "raised", "memory": "memory", "type": "raised"}, kinds
        failure = found["value"].failure
        assert failure is not None
        assert failure.message == "ValueError: no good", failure
        assert "toys.py" in failure.traceback and "in fail" in failure.traceback, failure.traceback


# -- resources ---------------------------------------------------------------------------------------------------
def a_resource_is_entered_once_per_worker_and_left_at_close(make_engine: MakeEngine) -> None:
    with tempfile.TemporaryDirectory(prefix="millrace-law-") as folder:
        diary = Path(folder, "diary")
        resources = (toys.DiaryFactory(str(diary)),)
        with opened(make_engine) as engine:
            for _ in range(2):  # warm from one stream to the next
                tasks = (Task(toys.use, (i,), str(i), resources=resources) for i in range(50))
                found = toys.outcomes(engine, tasks)
                assert sorted(o.value[1] for o in found.values()) == list(range(50))
            assert max(o.value[0] for o in found.values()) > 100 // engine.slots // 2, "it was not kept warm"
        lines = diary.read_text().split("\n")[:-1]
        pids = {line.split()[1] for line in lines}
        assert sorted(lines) == sorted(f"{what} {pid}" for pid in pids for what in ("in", "out")), lines
        assert 1 <= len(pids) <= engine.slots


def a_resource_that_raises_fails_the_task(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        tasks = [Task(toys.use, (1,), "a", resources=(toys.broken_resource,)), Task(toys.square, (2,), "b")]
        found = toys.outcomes(engine, iter(tasks))
        failure = found["a"].failure
        assert failure is not None and failure.kind == "raised" and "simulator" in failure.message, found["a"]
        assert found["b"].value == 4


def a_task_that_must_be_alone_is_alone(make_engine: MakeEngine) -> None:
    with opened(make_engine) as engine:
        alone = Limits(alone=True)
        tasks = [Task(toys.busy, (0.01, i), str(i), limits=alone if i % 10 == 5 else None) for i in range(40)]
        found = toys.outcomes(engine, iter(tasks))
        times = {int(k): (o.measures.started_ns, o.measures.ended_ns) for k, o in found.items()}
        for i in range(5, 40, 10):
            others = [j for j in times if j != i and times[j][0] < times[i][1] and times[i][0] < times[j][1]]
            assert not others, f"task {i} ran beside {others}"


# -- what is told of it ------------------------------------------------------------------------------------------
def the_time_of_every_slot_is_explained(make_engine: MakeEngine) -> None:
    """Attempts and spans of a slot do not overlap, lie inside the stream, and leave at most 2 % (and 20 ms) of gaps."""
    with opened(make_engine) as engine:
        for source in (
            lambda: (Task(toys.busy, (0.003, i), str(i)) for i in range(100)),
            lambda: (Task(toys.nap, (0.2 if i == 7 else 0.002, i), str(i)) for i in range(100)),
        ):
            engine.spans()
            began = time.monotonic_ns()
            found = []
            for outcome in engine.stream(source()):
                found.append(outcome)
                if len(found) == 50:
                    time.sleep(0.1)  # a consumer that does something else
            ended = time.monotonic_ns()
            for outcome in found:
                m = outcome.measures
                assert began <= m.sent_ns <= m.started_ns <= m.ended_ns <= ended, m
                assert m.unpack_ns + m.enter_ns + m.read_ns + m.write_ns <= m.ended_ns - m.started_ns, m
                assert 0 <= m.worker < engine.slots and m.pid > 0 and m.attempt == 1, m
            explain(found, engine.spans(), engine.slots, began, ended)


def after_close_nothing_is_left(make_engine: MakeEngine) -> None:
    before = _left()
    with tempfile.TemporaryDirectory(prefix="millrace-law-") as folder, _temporary_files_in(folder):
        for _ in range(2):
            with opened(make_engine) as engine:
                list(engine.stream(Task(toys.square, (i,), str(i)) for i in range(50)))
            engine.close()
            engine.wake()
            assert os.listdir(folder) == []
    assert _left() == before, f"before: {before}; after: {_left()}"


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Those of this process and of those that it starts: in the usual place others leave and take away theirs."""
    before, given = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR")
        if given is not None:
            os.environ["TMPDIR"] = given


def _left() -> tuple[list[str], list[str]]:
    """Open descriptors and children of this process."""
    gc.collect()
    fds = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    children = sorted(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()) if fds else []
    return fds, children


laws: tuple[Law, ...] = (
    every_analysis_has_the_inline_engines_answer,
    an_engine_serves_one_stream_after_another,
    each_outcome_is_delivered_once,
    kinds_of_tasks_may_alternate,
    references_become_values_and_large_values_stay,
    an_outcome_that_the_source_brings_is_passed_through,
    a_source_that_waits_for_nothing_is_an_error,
    what_a_source_raises_reaches_the_consumer,
    no_more_is_pulled_than_the_window_and_one,
    a_wake_asks_the_source_at_once,
    cancel_ends_a_group_and_only_that,
    closing_the_iterator_cancels,
    one_stream_is_open_at_a_time,
    an_exception_is_an_outcome_with_its_traceback,
    a_resource_is_entered_once_per_worker_and_left_at_close,
    a_resource_that_raises_fails_the_task,
    a_task_that_must_be_alone_is_alone,
    the_time_of_every_slot_is_explained,
    after_close_nothing_is_left,
    *isolation_laws,
)


def applies(law: Law, isolates: bool) -> bool:
    """Whether a law is for an engine that isolates, or does not."""
    return isolates or not getattr(law, "needs_isolation", False)


def keeps(make_engine: MakeEngine) -> None:
    """All laws that apply, one after the other."""
    with opened(make_engine) as engine:
        applying = [law for law in laws if applies(law, engine.isolates)]
    for law in applying:
        law(make_engine)
