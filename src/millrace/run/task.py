"""The words of the waist: what goes into an engine and what comes out of it.

Frozen data without behaviour. Does not know how a task gets its key (see `keys`), where it runs (see
`ports.Engine`), or where its value is kept (see `ports.Store`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Key = str
"""Lower-case hex digest of what a value is computed from; see `keys`."""

FailureKind = Literal["raised", "cpu", "wall", "memory", "lost", "cancelled"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings for one attempt of one task; 0 is "no limit".

    `cpu_s`: processor time of all threads of the worker; `wall_s`: wall time; `private_bytes`: RssAnon +
    RssShmem of the worker. `alone`: nothing else is in flight while it runs (how a task that broke its
    share of the memory gets the whole budget).
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    private_bytes: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave a value where it was made, in the store at `url`, when it is larger than `over_bytes`.

    The outcome then carries a `Ref` instead of the value: large values never pass through the driver.
    """

    url: str
    over_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class Ref:
    """A value in a store that every worker of the host can map: `store.attach(key)` gives it back.

    As an argument of a task (top level of `args`) it is replaced by the value before the call; the mapped
    value is read-only.
    """

    key: Key
    url: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Task:
    """One pure call, one fixed block of the question.

    `fn(*entered_resources, *args)` is called, where each of `resources` is a factory that a worker calls
    once (and enters, when it makes a context manager) and keeps warm until it ends. `key` is content-addressed;
    a key that starts with "~" belongs to this run alone and never reaches a store. `group` is what a `Cancel`
    names. `name` is how people call this kind of task in reports.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    key: Key = ""
    group: Hashable = None
    limits: Limits | None = None
    keep: Keep | None = None
    resources: tuple[Callable[[], Any], ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Said by a source: tasks of this group are not wanted any more, running or not."""

    group: Hashable


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no value. A failure is a value: engines deliver it, they do not raise it.

    kind: `raised` (the function's own exception, with the remote traceback), `cpu`, `wall`, `memory` (a
    ceiling was broken; `figure` is what was reached, in seconds or bytes), `lost` (its worker died, and it was
    quarantined), `cancelled`.
    """

    kind: FailureKind
    message: str
    traceback: str = ""
    figure: float = 0.0


class Measures(NamedTuple):
    """How the attempt went. Times are CLOCK_MONOTONIC of the host in ns; all 0 for a value that was not computed.

    `sent_ns`: the driver wrote the message; `started_ns`..`ended_ns`: the attempt in the worker, whole. Inside
    of it: `unpack_ns` (its share of reading the message, functions and their imports included), `enter_ns`
    (making warm resources), `read_ns` (attaching `Ref`s), `write_ns` (keeping or packing the value). What is left
    is the analysis itself. `cpu_ns`: processor time of the worker over the attempt, and of the processes that its warm
    resources keep (those that tell `spent_ns()`). `peak_bytes`: the largest private memory seen of the worker and all
    processes below it, 0 when nobody looked. `gc_ns`: what Python's collector took of the attempt. `throttled_ns`: how
    long a quota held it back, at most. `gpu`, `gpu_ns`: the number of the GPU that it had, -1 for none, and for how long.
    `host`: where it ran, "" for the driver's own.

    A tuple, since one is made for every task: a frozen dataclass takes twice as long.
    """

    worker: int = -1
    pid: int = 0
    attempt: int = 0
    sent_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    cpu_ns: int = 0
    unpack_ns: int = 0
    enter_ns: int = 0
    read_ns: int = 0
    write_ns: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    peak_bytes: int = 0
    gc_ns: int = 0
    throttled_ns: int = 0
    gpu: int = -1
    gpu_ns: int = 0
    host: str = ""


NOT_MEASURED = Measures()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a task, delivered once: a value or a `Failure`. `cached`: it came from a store."""

    key: Key
    value: Any = None
    failure: Failure | None = None
    measures: Measures = field(default=NOT_MEASURED)
    cached: bool = False


SpanKind = Literal["start", "starved", "tail", "driver", "engine", "lost", "stopped", "host"]


@dataclass(frozen=True, slots=True)
class Span:
    """What a slot did from `from_ns` to `to_ns` when it was not in an attempt that was delivered.

    `start`: its worker was being made; `starved`: the source had nothing to start; `tail`: the source was at
    its end; `driver`: the driver was busy elsewhere (slot -1 when it concerns all); `lost`: an attempt whose
    worker died; `stopped`: an attempt that was cancelled or stolen; `host`: it waited for a core (or, slot -1, for
    memory) that other runs of this host hold.
    """

    slot: int
    kind: SpanKind
    from_ns: int
    to_ns: int
    key: Key = ""
