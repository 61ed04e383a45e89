"""What goes into the next message to a worker: how many tasks, of which kinds, as which bytes.

Messages start with one task and at most double, until one holds about `target_s` of work by the measured times of that
kind of task; so neither a million tiny tasks nor a few long ones are sent the wrong way. A task that is suspected of
killing its worker, and one that must be alone, is a message of its own. Pure but for pickling; which worker gets the
message is the engine's business.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from millrace.engines.processes.frames import CODES, LENGTH, TASKS
from millrace.run.task import Keep, Limits, Task

MESSAGE_BYTES = 1 << 20
"""A message of more than one task is not larger than about this; it lies in the driver's memory until it is written."""
LEARN = 0.2
"""Weight of one task in the running mean of its kind; a jump to more than four times the mean counts whole."""
KINDS = 4096
NO_LIMITS = Limits()


@dataclass(slots=True)
class Cost:
    """What tasks of one name have taken so far. `known`: one has ended."""

    known: bool = False
    task_s: float = 0.0
    in_bytes: float = 0.0
    sent: int = 1
    """The largest message so far, in tasks."""

    def learn(self, mean_s: float, count: int) -> None:
        if not self.known or mean_s > 4 * self.task_s:
            self.known, self.task_s = True, mean_s
        else:
            self.task_s += min(1.0, LEARN * count) * (mean_s - self.task_s)


@dataclass(slots=True, eq=False)
class Kind:
    """Tasks that differ in their arguments only. Numbers and pickles of its functions are made when first sent."""

    fn: Callable[..., Any]
    resources: tuple[Callable[[], Any], ...]
    keep: Keep | None
    name: str
    cost: Cost
    function: int = 0
    resource_numbers: tuple[int, ...] = ()
    codes: dict[int, bytes] = field(default_factory=dict)
    grouped: bool = False
    """Some task of it has a group."""


@dataclass(slots=True, eq=False)
class Group:
    """Tasks that one `Cancel` names, in the order in which they came. `number` is never used again after a cancel."""

    number: int
    members: dict[Entry, None] = field(default_factory=dict)


class Past:
    """Of a task whose worker died under it: losses by its own making, by others; `alone`: it may be the cause."""

    __slots__ = ("others", "own")

    def __init__(self) -> None:
        self.own = self.others = 0


class Entry:
    """A task on its way. `seq` and `home` are of the message that it was last sent in."""

    __slots__ = ("done", "group", "home", "kind", "past", "seq", "task")

    def __init__(self, task: Task, kind: Kind, group: Group | None) -> None:
        self.task, self.kind, self.group = task, kind, group
        self.done = False
        self.past: Past | None = None
        self.home: Message | None = None
        self.seq = 0

    @property
    def limits(self) -> Limits:
        return self.task.limits or NO_LIMITS


@dataclass(slots=True, eq=False)
class Message:
    """Tasks in flight to one worker. `number` is the seq of the first; `over`: the worker has let go of it."""

    number: int
    entries: list[Entry]
    uniform: bool
    """All of one kind."""
    sent_ns: int = 0
    task_bytes: int = 0
    taken: int = 0
    """How many results have come, from the front."""
    over: bool = False

    def left(self) -> list[Entry]:
        """What still waits for its result from here: not done, and not sent elsewhere meanwhile."""
        return [e for e in self.entries[self.taken :] if e.home is self and not e.done]

    def abandon(self) -> None:
        """Its stream has ended: a worker that dies with it leaves nothing for the next one."""
        for entry in self.left():
            entry.done = True


class Packer:
    """Costs for the life of an engine; kinds for one stream."""

    def __init__(self, target_s: float, max_tasks: int) -> None:
        self.target_s, self.max_tasks = target_s, max_tasks
        self._costs: dict[str, Cost] = {}
        self._numbers: dict[bytes, int] = {}
        self._resources: dict[bytes, int] = {}
        self._count = 0
        self.forget_kinds()

    def forget_kinds(self) -> None:
        """At the start of a stream: a function is pickled anew, since what it refers to may have changed (in a notebook,
        a global of the cell above). One whose pickle is the same keeps its number, and is not sent again."""
        self._kinds: dict[Hashable, Kind] = {}
        self._last = Kind(len, (), None, "", Cost())

    # -- how much ----------------------------------------------------------------------------------------------
    def kind(self, task: Task) -> Kind:
        last = self._last
        if (
            task.fn is last.fn
            and task.keep is last.keep
            and task.resources == last.resources
            and task.name == last.name
        ):
            return last
        key: Hashable = (task.fn, task.resources, task.keep, task.name)
        try:
            found = self._kinds.get(key)
        except TypeError:  # a callable object that cannot be hashed is itself alone
            key = (id(task.fn), tuple(map(id, task.resources)), task.keep, task.name)
            found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= KINDS:
                self.forget_kinds()
            label = task.name or _label(task.fn)
            cost = self._costs.setdefault(label, Cost())
            found = self._kinds[key] = Kind(task.fn, task.resources, task.keep, task.name, cost)
        self._last = found
        return found

    def room(self, kind: Kind) -> int:
        """How many tasks of this kind the next message may hold."""
        cost = kind.cost
        if not cost.known:
            return 1
        by_time = int(self.target_s / max(cost.task_s, 1e-7))
        by_bytes = int(MESSAGE_BYTES / max(cost.in_bytes, 1.0))
        return max(1, min(by_time, by_bytes, 2 * cost.sent, self.max_tasks))

    def batch(
        self, first: Entry, next_entry: Callable[[], Entry | None], put_back: Callable[[Entry], None], most: int
    ) -> tuple[list[Entry], bool]:
        """The tasks that go together with `first`, at most `most`, and whether all are of one kind."""
        batch, uniform, limits = [first], True, first.task.limits
        if first.past is not None or (limits is not None and limits.alone):
            return batch, uniform
        kind, room = first.kind, min(most, self.room(first.kind))
        while len(batch) < room:
            entry = next_entry()
            if entry is None:
                break
            other = entry.task.limits
            if entry.past is not None or not (other is limits or (other or NO_LIMITS) == (limits or NO_LIMITS)):
                put_back(entry)
                break
            if entry.kind is not kind:
                kind, uniform = entry.kind, False
                room = min(room, len(batch) + self.room(kind))
            batch.append(entry)
        for entry in (first, batch[-1]):
            entry.kind.cost.sent = max(entry.kind.cost.sent, len(batch))
        return batch, uniform

    # -- as which bytes ----------------------------------------------------------------------------------------
    def encode(self, message: Message, known: set[int], place: Any) -> bytes:
        """The frame. `known`: functions that the worker has, brought up to date. Raises whatever pickling raises."""
        entries = message.entries
        kinds = [entries[0].kind] if message.uniform else list({e.kind: None for e in entries})
        for kind in kinds:
            if not kind.function:
                self._name(kind)
        data = _dumps([_run(kinds[0], entries)] if message.uniform else _runs(entries))
        message.task_bytes = len(data) // len(entries)
        cost = kinds[0].cost
        cost.in_bytes += (message.task_bytes - cost.in_bytes) * (LEARN if cost.in_bytes else 1.0)
        if len(known) > CODES:
            known.clear()
        new = {n: code for kind in kinds for n, code in kind.codes.items() if n not in known}
        news = pickle.dumps((list(new.items()), place), 5) if new or place is not None else b""
        known.update(new)
        limits = entries[0].limits
        length = TASKS.size - LENGTH.size + len(news) + len(data)
        allowed = int(limits.cpu_s * 1e9), int(limits.wall_s * 1e9), limits.private_bytes
        return b"".join((TASKS.pack(length, len(news), message.number, *allowed), news, data))

    def _name(self, kind: Kind) -> None:
        """Numbers for the functions of a kind, one per distinct pickle."""
        kind.resource_numbers = tuple(self._number(fn, self._resources, kind) for fn in kind.resources)
        if len(self._numbers) >= KINDS:
            self._numbers.clear()  # what is still in use is sent once more
        kind.function = self._number(kind.fn, self._numbers, kind)

    def _number(self, fn: Any, numbers: dict[bytes, int], kind: Kind) -> int:
        code = cloudpickle.dumps(fn, 5)  # functions of __main__ travel by value
        number = numbers.get(code)
        if number is None:
            self._count += 1
            number = numbers[code] = self._count
        kind.codes[number] = code
        return number


def _runs(entries: list[Entry]) -> list[tuple[Any, ...]]:
    """Consecutive entries of one kind together."""
    runs, at, count = [], 0, len(entries)
    while at < count:
        kind, end = entries[at].kind, at + 1
        while end < count and entries[end].kind is kind:
            end += 1
        runs.append(_run(kind, entries[at:end]))
        at = end
    return runs


def _run(kind: Kind, entries: list[Entry]) -> tuple[Any, ...]:
    """The fields of a `frames.Run`."""
    groups = [e.group.number if e.group else 0 for e in entries] if kind.grouped else ()
    keys = [e.task.key for e in entries] if kind.keep is not None else ()
    return kind.function, kind.resource_numbers, kind.keep, [e.task.args for e in entries], groups, keys


def _dumps(value: Any) -> bytes:
    """By reference where that works in another process, by value for what `__main__` defines."""
    try:
        data = pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001 - cloudpickle takes more; what it does not take raises there
        data = b"__main__"
    if b"__main__" in data:
        data = cloudpickle.dumps(value, 5)
    return data


def _label(fn: Any) -> str:
    """Tasks with the same label are expected to take about the same time."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
