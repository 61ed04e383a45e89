"""What goes into a message: one task at first, then about the target's worth; suspects and the lonely by themselves."""

import functools
import pickle
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engines.processes.frames import CODES, TASKS, Run
from millrace.engines.processes.packing import MESSAGE_BYTES, Entry, Message, Packer, Past
from millrace.run.task import Keep, Limits, Task
from millrace.testing import toys


def entries(packer: Packer, tasks: list[Task]) -> list[Entry]:
    return [Entry(task, packer.kind(task), None) for task in tasks]


def batches(packer: Packer, waiting: list[Entry], most: int = 1 << 30, spend: float | None = None) -> list[list[Entry]]:
    """All messages that come of these, each measured as `spend` seconds a task."""
    queue, out = deque(waiting), []
    while queue:
        batch, uniform = packer.batch(
            queue.popleft(), lambda: queue.popleft() if queue else None, queue.appendleft, most
        )
        assert uniform == (len({e.kind for e in batch}) == 1)
        out.append(batch)
        if spend is not None:
            for entry in batch:
                entry.kind.cost.learn(spend, 1)
    return out


def test_a_message_doubles_until_it_holds_the_target() -> None:
    packer = Packer(target_s=0.1, max_tasks=2048)
    sizes = [
        len(b) for b in batches(packer, entries(packer, [Task(toys.square, (i,)) for i in range(500)]), spend=0.002)
    ]
    assert sizes[:8] == [1, 2, 4, 8, 16, 32, 50, 50]
    sizes = [len(b) for b in batches(packer, entries(packer, [Task(toys.nap, (i,)) for i in range(9000)]), spend=1e-6)]
    assert max(sizes) == 2048
    sizes = [len(b) for b in batches(packer, entries(packer, [Task(toys.busy, (i,)) for i in range(5)]), spend=3.0)]
    assert sizes == [1] * 5


def test_a_kind_that_turns_slow_is_noticed_at_once() -> None:
    packer = Packer(target_s=0.1, max_tasks=2048)
    kind = packer.kind(Task(toys.square, (1,)))
    kind.cost.sent = 2048
    for _ in range(50):
        kind.cost.learn(0.0001, 100)
    assert packer.room(kind) == 1000
    kind.cost.learn(0.05, 1)
    assert packer.room(kind) == 2


def test_large_arguments_make_small_messages() -> None:
    packer = Packer(target_s=0.1, max_tasks=2048)
    kind = packer.kind(Task(toys.nap, (0.0, b"")))
    kind.cost.learn(1e-6, 1)
    kind.cost.sent = 2048
    message = Message(1, entries(packer, [Task(toys.nap, (0.0, bytes(MESSAGE_BYTES // 4)))]), True)
    packer.encode(message, set(), None)
    assert packer.room(kind) == 3


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "limited", "suspect", "alone"]), max_size=60), st.integers(1, 50))
def test_every_task_goes_out_once_in_order_with_none_but_its_like(kinds: list[str], most: int) -> None:
    packer, waiting = Packer(0.1, 2048), []
    for i, kind in enumerate(kinds):
        limits = {"limited": Limits(cpu_s=1.0), "alone": Limits(alone=True)}.get(kind)
        task = Task(toys.square if kind == "a" else toys.nap, (i,), str(i), limits=limits)
        waiting += entries(packer, [task])
        if kind == "suspect":
            waiting[-1].past = Past()
    for entry in waiting:
        entry.kind.cost.learn(0.001, 1)
        entry.kind.cost.sent = 100
    out = batches(packer, waiting, most)
    assert [e.task.key for b in out for e in b] == [str(i) for i in range(len(kinds))]
    for batch in out:
        assert len(batch) <= most
        assert len({e.limits for e in batch}) == 1
        assert len(batch) == 1 or not any(e.past or e.limits.alone for e in batch)


def test_a_frame_says_what_the_worker_needs_and_nothing_twice() -> None:
    packer, known = Packer(0.1, 2048), set()
    keep = Keep("dir:/tmp/x")
    tasks = [Task(toys.square, (1,), "a"), Task(toys.square, (2,), "b"), Task(toys.nap, (0,), "c", keep=keep)]
    frame = packer.encode(Message(5, entries(packer, tasks), False), known, ("/", ["path"], None))
    length, news, number, cpu, wall, size = TASKS.unpack_from(frame)
    assert length == len(frame) - 8 and (number, cpu, wall, size) == (5, 0, 0, 0)
    codes, place = pickle.loads(frame[TASKS.size : TASKS.size + news])
    assert place == ("/", ["path"], None) and {pickle.loads(code) for _, code in codes} == {toys.square, toys.nap}
    first, second = map(Run._make, pickle.loads(frame[TASKS.size + news :]))
    assert (first.args, first.keys, first.keep) == ([(1,), (2,)], (), None)
    assert (second.args, second.keys, second.keep) == ([(0,)], ["c"], keep)
    again = packer.encode(Message(8, entries(packer, tasks[:2]), True), known, None)
    assert TASKS.unpack_from(again)[1] == 0


def test_a_new_function_for_every_task_does_not_fill_the_workers() -> None:
    packer, known = Packer(0.1, 2048), set()
    for i in range(3 * CODES):
        packer.encode(Message(i + 1, entries(packer, [Task(functools.partial(toys.square, i), ())]), True), known, None)
        assert len(known) <= CODES + 1


def test_functions_are_pickled_anew_for_each_stream() -> None:
    packer = Packer(0.1, 2048)
    settings_ = {"k": 1}
    task = Task(functools.partial(dict, settings_), ())
    first = packer.encode(Message(1, entries(packer, [task]), True), set(), None)
    settings_["k"] = 2
    packer.forget_kinds()
    known: set[int] = set()
    second = packer.encode(Message(2, entries(packer, [task]), True), known, None)
    assert first != second
    packer.forget_kinds()
    third = packer.encode(Message(3, entries(packer, [task]), True), known, None)
    assert TASKS.unpack_from(third)[1] == 0, "the same pickle was sent again"


def test_callables_that_cannot_be_hashed_are_told_apart() -> None:
    class Adder:
        __hash__ = None  # type: ignore[assignment]

        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            return x + self.n

        def __eq__(self, other: object) -> bool:
            return True

    packer = Packer(0.1, 2048)
    one, two = Adder(1), Adder(2)
    assert packer.kind(Task(one)) is packer.kind(Task(one))
    assert packer.kind(Task(one)) is not packer.kind(Task(two))
