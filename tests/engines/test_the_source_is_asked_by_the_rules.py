"""A stream's source and outcomes, without processes."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engines.processes.flow import UNDELIVERED, Flow
from millrace.engines.processes.packing import Packer
from millrace.run.errors import WrongQuestion
from millrace.run.task import Cancel, Outcome, Task
from millrace.testing import toys


def flow_of(items: Any) -> tuple[Flow, list[int]]:
    dropped: list[int] = []
    numbers = iter(range(1, 10**9))
    return Flow(iter(items), Packer(0.1, 10), lambda: next(numbers), dropped.append), dropped


def task(i: int, group: Any = None) -> Task:
    return Task(toys.square, (i,), str(i), group)


def test_none_stops_it_until_an_outcome_or_a_wake() -> None:
    flow, _ = flow_of([task(0), None, task(1), None, task(2)])
    first = flow.next()
    assert first is not None and flow.next() is None and flow.waiting
    flow.woke()
    assert (second := flow.next()) is not None and second.task.key == "1"
    assert flow.next() is None
    flow.finish(first, Outcome("0", 0))
    flow.delivered()
    assert (third := flow.next()) is not None and third.task.key == "2"
    assert flow.next() is None and flow.exhausted and flow.open == 2


def test_the_look_ahead_is_one_after_an_outcome_and_always_after_a_wake() -> None:
    flow, _ = flow_of(task(i) for i in range(10))
    flow.look_ahead(woken=False)
    assert not flow.ready, "nobody asked"
    for _ in range(3):
        flow.delivered()
        flow.look_ahead(woken=False)
    assert len(flow.ready) == 1
    flow.look_ahead(woken=True)
    assert len(flow.ready) == 2
    assert [flow.next().task.key for _ in range(3)] == ["0", "1", "2"]  # type: ignore[union-attr]


def test_what_came_back_goes_first_and_in_order() -> None:
    flow, _ = flow_of(task(i) for i in range(6))
    sent = [flow.next() for _ in range(4)]
    flow.finish(sent[1], Outcome("1", 1))  # type: ignore[arg-type]
    flow.put_back(e for e in sent if e)
    assert [flow.next().task.key for _ in range(4)] == ["0", "2", "3", "4"]  # type: ignore[union-attr]


def test_what_was_cancelled_or_done_while_it_waited_is_not_sent_again() -> None:
    flow, _ = flow_of(task(i, group=i % 2) for i in range(4))
    sent = [flow.next() for _ in range(4)]
    flow.put_back(e for e in sent if e)
    flow.cancel(1)
    flow.finish(sent[0], Outcome("0", 0))  # type: ignore[arg-type]
    assert (left := flow.next()) is not None and left.task.key == "2"
    assert flow.next() is None and flow.open == 1


def test_nothing_is_pulled_while_too_many_outcomes_wait() -> None:
    flow, _ = flow_of(Outcome(str(i), i) for i in range(10 * UNDELIVERED))
    assert flow.next() is None
    assert len(flow.out) == UNDELIVERED


def test_anything_else_is_refused_by_name() -> None:
    flow, _ = flow_of(["what"])
    with pytest.raises(WrongQuestion, match="'what'"):
        flow.next()


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.tuples(st.just("task"), st.integers(0, 3)), st.tuples(st.just("cancel"), st.integers(0, 3))))
)
def test_a_cancel_ends_what_has_no_outcome_in_its_group(script: list[tuple[str, int]]) -> None:
    def source() -> Iterator[Any]:
        for i, (what, group) in enumerate(script):
            yield task(i, group or None) if what == "task" else Cancel(group or None)

    flow, dropped = flow_of(source())
    taken = []
    while (entry := flow.next()) is not None:
        taken.append(entry)
        if len(taken) % 3 == 0 and not taken[-2].done:
            flow.finish(taken[-2], Outcome(taken[-2].task.key, "value"))
    cancelled = {o.key for o in flow.out if o.failure is not None}
    finished = {o.key for o in flow.out if o.failure is None}
    assert len(flow.out) == len(cancelled | finished) == len(taken) - flow.open
    for i, (what, group) in enumerate(script):
        if what == "task" and str(i) not in finished:
            later = ("cancel", group) in script[i + 1 :] and group != 0
            assert (str(i) in cancelled) == later
    assert len(set(dropped)) == len(dropped), "a group's number was used twice"
