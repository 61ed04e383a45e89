"""One stream of a Run: between the analysis' source and the engine.

Inbound, each task gets its key, is looked up in the store, and is sent once however often it is asked for. Outbound,
values are put into the store, attempts into the ledger, and a task that broke its share of the memory goes back once,
alone, with the whole budget. Knows nothing of analyses; the engine knows nothing of stores.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from millrace.run.errors import NotStorable
from millrace.run.sharing import Elsewhere
from millrace.run.task import Cancel, Failure, Keep, Limits, Outcome, Ref, Span, Task

if TYPE_CHECKING:
    from millrace.run.ports import Source, Stored
    from millrace.run.run import Run

NO_LIMITS = Limits()
WAIT_S = 0.005


@dataclass(slots=True)
class Pending:
    """A task that the engine has: how often it was asked for, and when first."""

    task: Task
    item: int
    queued_ns: int
    copies: int = 1


class Flow:
    """State of one open stream. `inbound()` is what the engine pulls; `take()` is told every outcome.

    `cut`: the run was asked to stop before the source had ended.
    """

    def __init__(self, run: Run, source: Source) -> None:
        self.run, self.source = run, source
        self.pending: dict[str, Pending] = {}
        self.again: deque[Task] = deque()
        self.cut = False
        self.keep = Keep(run.arena.url) if run.arena.url else None
        claims = run.sharing.claims
        self.elsewhere = Elsewhere(claims, run.store.flush) if claims is not None else None
        self._last_limits: tuple[Limits | None, int, Limits] | None = None

    def close(self) -> None:
        """Nothing is claimed any more."""
        if self.elsewhere is not None:
            self.elsewhere.close()

    # -- from the analysis to the engine -----------------------------------------------------------------------
    def inbound(self) -> Source:
        """Tasks with keys and limits, hits as outcomes; ends when the source does or the run is ending."""
        run, parts = self.run, self.run.parts
        while True:
            if self.again:
                yield self.again.popleft()
                continue
            if run.stopping():
                self.cut = True
                break
            elsewhere = self.elsewhere
            if elsewhere is not None and elsewhere.waiting and (elsewhere.full() or elsewhere.due()):
                yield from self._landed(wait=elsewhere.full())
            start = monotonic_ns()
            try:
                asked = next(self.source)
            except StopIteration:
                if elsewhere is not None and elsewhere.waiting:
                    yield from self._landed(wait=True)
                    self.source = iter(())
                    continue
                break
            finally:
                parts["source_ns"] += monotonic_ns() - start
            if type(asked) is Task:
                found = self._admit(asked)
                if found is not None:
                    yield found
            elif asked is None and elsewhere is not None and elsewhere.waiting:
                yield from self._landed(wait=True)
            else:
                if type(asked) is Cancel:
                    yield from self._forget(asked)
                yield asked

    def _landed(self, wait: bool) -> Iterator[Task | Outcome | None]:
        """What others have computed since, or what is ours now since they have let go. With `wait` there is nothing else
        to start: then None while tasks are in flight here, else it waits a little itself."""
        elsewhere, run = self.elsewhere, self.run
        assert elsewhere is not None
        found = 0
        while (key := elsewhere.look(lambda k: run.look(k) is not None, wait)) is not None:
            found += 1
            yield self._found(key) or self._sent(key, self.pending[key].task)
        if not wait or found:
            return
        elsewhere.settle()  # two runs that wait for each other's buffers would wait for long
        if len(self.pending) > len(elsewhere.waiting):
            yield None
        else:
            start = monotonic_ns()
            time.sleep(WAIT_S)
            run.ledger.spans([Span(-1, "host", start, monotonic_ns())])

    def _admit(self, task: Task) -> Task | Outcome | None:
        """The task as the engine gets it, its value when the store has it, None when it is in flight already."""
        run, parts = self.run, self.run.parts
        start = monotonic_ns()
        key = task.key or run.key(task)
        looked = monotonic_ns()
        parts["keys_ns"] += looked - start
        flying = self.pending.get(key)
        if flying is not None:
            flying.copies += 1
            return None
        if key[0] != "~":
            stored = run.look(key)
            parts["lookup_ns"] += monotonic_ns() - looked
            self.pending[key] = Pending(task, run.next_item(), start)
            if stored is not None:
                return self._hit(key, task, stored)
            if self.elsewhere is not None and not self.elsewhere.mine(key):
                return None
        else:
            self.pending[key] = Pending(task, run.next_item(), start)
        return self._sent(key, task)

    def _found(self, key: str) -> Outcome | None:
        """The value of a task that was left to another run, if it is there."""
        stored = self.run.look(key)
        if stored is None or self.elsewhere is None:
            return None
        self.elsewhere.let_go(key)
        return self._hit(key, self.pending[key].task, stored)

    def _hit(self, key: str, task: Task, stored: Stored) -> Outcome:
        value = Ref(key, self.run.arena.url, stored.size_bytes) if _wants_ref(task) else stored.value
        return Outcome(key, value, cached=True)

    def _sent(self, key: str, task: Task) -> Task:
        """The task as the engine gets it."""
        run = self.run
        limits, keep = self._with_share(task.limits), task.keep or self._keep_for(key)
        # Not `dataclasses.replace`, which costs as much as all the rest here.
        sent = Task(task.fn, task.args, key, task.group, limits, keep, task.resources, task.name)
        return sent if run.watch is None else run.watch(sent, self.pending[key].item, task.name or _name(task))

    def _keep_for(self, key: str) -> Keep | None:
        return self.keep if key[0] != "~" else None

    def _with_share(self, limits: Limits | None) -> Limits | None:
        """The worker's share of the memory, where a ceiling can be held and the task has none of its own."""
        share = self.run.share_bytes()
        if not share or (limits is not None and limits.private_bytes):
            return limits
        last = self._last_limits
        if last is None or limits is not last[0] or share != last[1]:
            last = self._last_limits = limits, share, dataclasses.replace(limits or NO_LIMITS, private_bytes=share)
        return last[2]

    def _forget(self, cancel: Cancel) -> Iterator[Outcome]:
        """What the engine has of the group, it cancels itself."""
        self.again = deque(t for t in self.again if t.group != cancel.group)
        for key in list(self.elsewhere.waiting) if self.elsewhere is not None else ():
            if self.pending[key].task.group == cancel.group and self.elsewhere is not None:
                del self.elsewhere.waiting[key]
                said = f"The source cancelled the group {cancel.group!r}."
                yield Outcome(key, failure=Failure("cancelled", said))

    # -- from the engine to the analysis -----------------------------------------------------------------------
    def take(self, outcome: Outcome) -> tuple[Outcome, ...]:
        """Record an outcome; what is to be passed on: it, once for each time that its task was asked for."""
        run = self.run
        pending = self.pending.pop(outcome.key, None)
        if pending is None:  # an outcome that the source itself brought
            run.count(outcome)
            return (outcome,)
        task = pending.task
        start = monotonic_ns()
        retry = None
        if outcome.failure is not None:
            retry = self._retry(pending, outcome.key, outcome.failure)
        elif not outcome.cached:
            outcome = self._kept(outcome, task)
        put = monotonic_ns()
        run.ledger.attempt(outcome, task.name or _name(task), pending.item, pending.queued_ns, task.group)
        run.parts["put_ns"] += put - start
        if self.elsewhere is not None and retry is None:
            if outcome.failure is not None:
                self.elsewhere.let_go(outcome.key)
            else:
                self.elsewhere.ended(outcome.key, (outcome.measures.ended_ns - outcome.measures.started_ns) / 1e9)
        run.parts["ledger_ns"] += monotonic_ns() - put
        if retry is not None:
            self.pending[outcome.key] = pending
            self.again.append(retry)
            return ()
        for _ in range(pending.copies):
            run.count(outcome)
        return (outcome,) * pending.copies

    def _kept(self, outcome: Outcome, task: Task) -> Outcome:
        """The outcome with its value in the store, mapped back from there when it is large."""
        run, value = self.run, outcome.value
        if type(value) is Ref:
            run.kept(value.key)
            if _wants_ref(task):
                return outcome
            return dataclasses.replace(outcome, value=run.arena.attach(value.key))
        if outcome.key[0] == "~":
            return outcome
        try:
            run.store.put(outcome.key, value)
        except NotStorable as e:
            run.note(f"{task.name or _name(task)}: values are kept for this run only, {e}.", once=True)
        return outcome

    def _retry(self, pending: Pending, key: str, failure: Failure) -> Task | None:
        """The same task once more, alone and with the whole budget, when it broke its share."""
        own, share = pending.task.limits, self.run.share_bytes()
        asked_for = own is not None and own.private_bytes
        if failure.kind != "memory" or asked_for or not share:
            return None
        whole = max(share, self.run.budget.private_bytes - self.run.peak_bytes)  # the driver has its part of it
        limits = dataclasses.replace(own or NO_LIMITS, private_bytes=whole, alone=True)
        task = dataclasses.replace(pending.task, key=key, limits=limits)
        pending.task = task
        return task if task.keep else dataclasses.replace(task, keep=self._keep_for(task.key))


def is_small(value: Any) -> bool:
    """Goes along with every task: what is cheaper to send than to map."""
    return isinstance(value, int | float | str | bytes | bool | None) and len(str(value)[:4097]) <= 4096


def _wants_ref(task: Task) -> bool:
    return task.keep is not None and task.keep.over_bytes == 0


def _name(task: Task) -> str:
    return getattr(task.fn, "__name__", type(task.fn).__name__)


def describe(failure: Failure, name: str, item: int) -> str:
    """One paragraph about a failed task: what, which, what to do."""
    what = {
        "raised": "raised",
        "cpu": "used more processor time than its limit",
        "wall": "took longer than its limit",
        "memory": "needed more memory than there is",
        "lost": "lost its worker again and again",
        "cancelled": "was cancelled",
    }[failure.kind]
    text = f"{name} {what} on item {item}: {failure.message}".rstrip(": ")
    if failure.kind == "memory":
        text += ". Give --memory more, or smaller items"
    if failure.traceback:
        text += f"\n\nIn the worker:\n{failure.traceback.rstrip()}"
    return text
