"""Run: one execution, the object that an analysis is handed. Written once, above every engine.

    run.map(fn, items)         values in item order; the first failure is raised
    run.stream(source)         outcomes as they come, for analyses that decide what is next
    run.share(value) -> Ref    a big input, once per host, mapped by every worker
    run.task(fn, *args)        a task of this run, its key made
    run.batch(kernel, items, size=n)   as map, many items a task, on CPU or GPU
    run.rng(*index)            random numbers of an item
    run.budget .ending .progress(...) .note(...)

A run is resumed by running it again: what was finished is in the store. `compose` builds runs; analyses never do.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Literal

from millrace.run.budget import Budget, Plan
from millrace.run.canonical import Unkeyable
from millrace.run.errors import Cancelled, MillraceError, Paused, TaskFailed, WrongQuestion
from millrace.run.flow import Flow, describe, is_small
from millrace.run.keys import Keys, content_key
from millrace.run.ledger import Ledger
from millrace.run.placement import Placed, batch
from millrace.run.sharing import Sharing
from millrace.run.streams import rng
from millrace.run.task import Keep, Limits, Outcome, Ref, Span, Task
from millrace.run.watch import Progress, watched

if TYPE_CHECKING:
    import numpy

    from millrace.run.ports import Engine, Source, Store, Stored

Ending = Literal["pause", "deadline", "cancel"]
BUFFER_ITEMS, BUFFER_BYTES = 65_536, 64 << 20
SHOW_S, SPANS_S = 0.1, 1.0


class Run:
    """One execution of one analysis. One open stream at a time; `pause` and `cancel` may be called from anywhere."""

    def __init__(
        self,
        *,
        make_engine: Callable[[int], Engine],
        store: Store,
        arena: Store,
        ledger: Ledger,
        budget: Budget,
        seed: int = 0,
        deadline_s: float = 0.0,
        show: Callable[[Progress], None] | None = None,
        measure: Callable[..., int] | None = None,
        throttled_ns: Callable[[], int | None] = lambda: None,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        owned: ExitStack | None = None,
        watch: Callable[[Task, int, str], Task] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """`make_engine`: told how many slots; called when the first task comes, so that the plan has its say.

        `arena`: the store that workers reach for shared and large values (`store` itself when they reach it).
        `around`: entered for every stream, in which this process may run tasks itself (one BLAS thread).
        `owned`: what ends with the run. `measure`: private bytes of this process, or of the pid it is told. `throttled_ns`:
        how long the quota held the run back so far, None when nobody can tell. `show`: told at most ten times a second.
        `watch`: a task (its item and name) as the engine is to run it, when workers are to tell of it. `sharing`: with others.
        """
        self.store, self.arena, self.ledger, self._make_engine, self._around = store, arena, ledger, make_engine, around
        self._engine: Engine | None = None
        self._owned: ExitStack | None = owned or ExitStack()
        self.budget, self.seed, self.keys = budget, seed, Keys(seed)
        self._in_arena: set[str] = set()
        """Values that are in an arena which is not the store. It lives as long as the run, so nobody else put one there."""
        self.parts = dict.fromkeys(("keys_ns", "lookup_ns", "put_ns", "ledger_ns", "source_ns", "consume_ns"), 0)
        self.computed = self.cached = self.failed = self.peak_bytes = 0
        self.sharing = sharing or Sharing()
        self.watch, self._show, self._measure, self._throttled_ns = watch, show, measure, throttled_ns
        self._base_bytes = measure() if measure else 0
        self._ending: Ending | None = None
        self._deadline = time.monotonic() + deadline_s if deadline_s else 0.0
        self._items, self._private = itertools.count(), itertools.count()
        self.notes, self._streaming = [], False  # type: tuple[list[str], bool]
        self._stage, self._total, self._stage_done = "", None, 0  # type: tuple[str, int | None, int]
        self._slots = budget.cores
        self._began_s, self._shown_s, self._drained_s = time.monotonic(), 0.0, time.monotonic()
        self._free_ns = monotonic_ns()

    # -- what an analysis asks ---------------------------------------------------------------------------------
    def rng(self, *index: int) -> numpy.random.Generator:
        """Random numbers of item `index`: the same on every engine (see `streams.rng`)."""
        return rng(self.seed, *index)

    def share(self, value: Any) -> Ref:
        """Put a big input where every worker of the host maps it, once, by its content.

        As an argument of a task the Ref becomes the value (read-only). Arrays, Arrow tables, and mappings and lists
        of them; `NotStorable` for anything else.
        """
        if isinstance(value, Ref):
            return value
        key = content_key(value)
        if self.arena.url == "":
            stored = self.arena.put(key, value)
        else:
            found = self.arena.get(key)
            stored = found if found is not None else self.arena.put(key, value)
            self.arena.flush()
        self.arena.pin(key)
        self.ledger.write("share", key=key, size_bytes=stored.size_bytes)
        return Ref(key, self.arena.url, stored.size_bytes)

    def value(self, told: Any) -> Any:
        """What a task told, here in the driver: of a Ref its value, mapped read-only; what came itself as it is."""
        return self.arena.attach(told.key) if isinstance(told, Ref) else told

    def task(
        self,
        fn: Callable[..., Any],
        *args: Any,
        group: Any = None,
        keep: bool = False,
        limits: Limits | None = None,
        resources: tuple[Callable[[], Any], ...] = (),
        name: str = "",
    ) -> Task:
        """A task of this run. With `keep` its value stays in the store and the outcome carries a Ref."""
        if isinstance(fn, Placed):
            return fn.task(self, *args, group=group, keep=keep, limits=limits, resources=resources, name=name)
        url, key = self.arena.url, self._key(fn, args, resources)
        return Task(fn, args, key, group, limits, Keep(url, 0) if keep and url else None, resources, name)

    def map(
        self,
        fn: Callable[..., Any],
        items: Iterable[Any],
        *,
        shared: Any = (),
        ordered: bool = True,
        keep: bool = False,
        limits: Limits | None = None,
        resources: tuple[Callable[[], Any], ...] = (),
        name: str = "",
    ) -> Iterator[Any]:
        """`fn(item, *shared)` for every item; values in item order (or as they come), the first failure raised.

        `shared`: one big input or a tuple of them, values or Refs; values go through `share`. Results that wait for
        an earlier one are bounded: beyond 64 MiB or 65,536 of them no new task is started.
        """
        given = shared if isinstance(shared, tuple) else (shared,)
        refs = tuple(v if isinstance(v, Ref) or is_small(v) else self.share(v) for v in given)
        try:
            self._total = self._stage_done + len(items)  # type: ignore[arg-type]
        except TypeError:
            self._total = None
        keywords = {"keep": keep, "limits": limits, "resources": resources, "name": name}
        tasks = (self.task(fn, item, *refs, **keywords) for item in items)  # type: ignore[arg-type]
        return self.values(tasks, ordered, name or getattr(fn, "__name__", type(fn).__name__))

    batch = batch

    def stream(self, source: Source) -> Iterator[Outcome]:
        """Outcomes as they come. The source is asked again after each; see `ports.Source` for what it may say.

        Raises `Paused` or `Cancelled` at the end when the run was asked to stop; a deadline only ends the source.
        """
        if self._streaming:
            raise WrongQuestion("This run has an open stream already: close it, or finish it, before opening another.")
        self._streaming = True
        self._between(monotonic_ns())
        flow = Flow(self, iter(source))
        try:
            with self._around():
                yield from self._pass(flow, flow.inbound())
                while flow.again:
                    yield from self._pass(flow, iter([flow.again.popleft()]))
        finally:
            self._streaming = False
            self.store.flush()
            flow.close()
            self.ledger.spans(self.engine.spans())
            self._free_ns = monotonic_ns()
        if flow.cut:
            self._raise_if_stopped()
            self.note("The deadline ended the run before all of its tasks had started: this is a part.", once=True)

    def note(self, text: str, *, once: bool = False) -> None:
        """Say something in the answer, the ledger and the report (`once`: the same text one time only)."""
        if once and text in self.notes:
            return
        self.notes.append(text)
        self.ledger.write("note", text=text)

    def progress(self, stage: str, total: int | None = None) -> None:
        """A new stage begins: what it is called, and how many tasks it has."""
        self._stage, self._total, self._stage_done = stage, total, 0
        self.show(force=True)

    def follow(self, plan: Plan) -> None:
        """Record the plan, and run no more tasks at once than it says."""
        self.ledger.write("plan", **plan.as_dict())
        self._slots = self.sharing.enter(self, plan, min(self._slots, plan.slots))

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._make_engine(self._slots)
            self.ledger.write("engine", engine=type(self._engine).__name__, slots=self._engine.slots)
        return self._engine

    @property
    def ending(self) -> Ending | None:
        """None, or why the run is to end: `pause`, `deadline`, `cancel`."""
        if self._ending is None and self._deadline and time.monotonic() >= self._deadline:
            self._ending = "deadline"
        return self._ending

    # -- what a face asks --------------------------------------------------------------------------------------
    def pause(self) -> None:
        """Finish what is in flight, keep it, and raise `Paused`. Safe in a signal handler."""
        self._ending = self._ending or "pause"
        self._wake()

    def cancel(self) -> None:
        """As `pause`, but nobody wants the answer any more."""
        self._ending = "cancel"
        self._wake()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        state = "done" if kind is None else "paused" if issubclass(kind, Paused | KeyboardInterrupt) else "failed"
        self.close(state, "" if error is None else str(error).partition("\n")[0])

    def close(self, state: str = "done", error: str = "") -> None:
        """Write the end of the ledger, then let the engine and all that the run owns go. Idempotent."""
        if self._owned is None:
            return
        owned, self._owned = self._owned, None
        lost: MillraceError | None = None
        with owned:
            self.show(force=True)
            now = monotonic_ns()
            try:
                self.store.flush()
            except MillraceError as e:  # the ledger tells the end all the same
                state, error, lost = "failed", str(e).partition("\n")[0], e
            if self._engine is not None:
                self.ledger.spans(self._engine.spans())
                self.ledger.write("engine", engine=type(self._engine).__name__, slots=self._engine.slots)
                self._engine.close()
            self._between(now)
            self.ledger.write(
                "end", state=state, error=error, to_ns=now, parts=self.parts, throttled_ns=self._throttled_ns(),
                peak_bytes=self.peak_bytes, computed=self.computed, cached=self.cached, failed=self.failed,
            )  # fmt: skip
            self.ledger.close()
            if lost is not None:
                raise lost

    def show(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._shown_s < SHOW_S:
            return
        self._shown_s = now
        grown = self._measure() - self._base_bytes if self._measure else 0
        self.peak_bytes = max(self.peak_bytes, grown)
        if self._show is not None:
            busy, slots, held = watched(self._engine if self._owned is not None else None, self._measure)
            self._show(
                Progress(
                    self._stage, self._stage_done, self._total, self.cached, self.failed, now - self._began_s, grown + held,
                    busy, slots,
                )
            )  # fmt: skip

    # -- what the flow asks ------------------------------------------------------------------------------------
    def stopping(self) -> bool:
        """True when no new task is to start. A paused slice still commits one task."""
        ending = self.ending
        return ending in ("cancel", "deadline") or (ending == "pause" and self.computed > 0)

    def look(self, key: str) -> Stored | None:
        stored = self.store.get(key)
        if stored is None and key in self._in_arena:
            stored = self.arena.get(key)
        return stored

    def kept(self, key: str) -> None:
        """A worker has put the value of this task into the arena."""
        self.arena.pin(key)
        if self.arena is not self.store:
            self._in_arena.add(key)

    def key(self, task: Task) -> str:
        return self._key(task.fn, task.args, task.resources)

    def next_item(self) -> int:
        return next(self._items)

    def share_bytes(self) -> int:
        """A worker's ceiling: what the budget leaves when the driver has grown as it has, over the slots."""
        if not self.engine.isolates or not self.budget.private_bytes:
            return 0
        return max(1, (self.budget.private_bytes - self.peak_bytes) // max(1, self.engine.slots))

    def count(self, outcome: Outcome) -> None:
        self._stage_done += 1
        if outcome.cached:
            self.cached += 1
        elif outcome.failure is not None:
            self.failed += 1
        else:
            self.computed += 1
        self.show()

    # -- within ------------------------------------------------------------------------------------------------
    def _pass(self, flow: Flow, inbound: Source) -> Iterator[Outcome]:
        outcomes = self.engine.stream(inbound)
        try:
            for outcome in outcomes:
                for told in flow.take(outcome):
                    start = monotonic_ns()
                    yield told
                    self.parts["consume_ns"] += monotonic_ns() - start
                now = time.monotonic()
                if now - self._drained_s > SPANS_S:
                    self._drained_s = now
                    self.ledger.spans(self.engine.spans())
        finally:
            outcomes.close()  # type: ignore[attr-defined]

    def values(self, tasks: Iterator[Task], ordered: bool, name: str) -> Iterator[Any]:
        """Values of tasks, in their order through a bounded buffer, or as they come."""
        places: dict[str, int] = {}
        twice: dict[str, deque[int]] = {}  # further places of a task that was asked for more than once
        done: dict[int, Outcome] = {}
        asked = told = held = 0

        def source() -> Source:
            nonlocal asked
            for task in tasks:
                while ordered and (asked - told >= BUFFER_ITEMS or held > BUFFER_BYTES):
                    yield None
                if places.setdefault(task.key, asked) != asked:
                    twice.setdefault(task.key, deque()).append(asked)
                asked += 1
                yield task

        for outcome in self.stream(source()):
            place = places.pop(outcome.key)
            if twice and (line := twice.get(outcome.key)):
                places[outcome.key] = line.popleft()
            if outcome.failure is not None:
                raise TaskFailed(describe(outcome.failure, name, place), outcome.failure, outcome.key)
            if not ordered:
                yield outcome.value
                continue
            done[place] = outcome
            held += outcome.measures.out_bytes
            while told in done:
                ready = done.pop(told)
                held -= ready.measures.out_bytes
                told += 1
                yield ready.value

    def _key(self, fn: Callable[..., Any], args: tuple[Any, ...], resources: tuple[Any, ...]) -> str:
        start = monotonic_ns()
        try:
            return self.keys.of(fn, args, resources)
        except Unkeyable as e:
            name = getattr(fn, "__qualname__", repr(fn))
            self.note(f"{name} runs without the store: its result depends on {e}, which has no identity.", once=True)
            return f"~{next(self._private)}"
        finally:
            self.parts["keys_ns"] += monotonic_ns() - start

    def _wake(self) -> None:
        if self._engine is not None:
            self._engine.wake()

    def _between(self, now_ns: int) -> None:
        """The time since the last stream, in which the slots waited for the driver."""
        self.ledger.spans([Span(-1, "driver", self._free_ns, now_ns)])

    def _raise_if_stopped(self) -> None:
        if self._ending not in ("pause", "cancel"):
            return
        kind = Paused if self._ending == "pause" else Cancelled
        raise kind(
            f"Stopped after {self.computed + self.cached} finished tasks; they are kept. Run the same again to go on "
            "from there."
        )
