"""One stream of a Run: between the analysis' source and the engine.

Inbound, each task gets its key, is looked up in the store, and is sent once however often it is asked for. Outbound,
values are put into the store, attempts into the ledger, and a task that broke its share of the memory goes back once,
alone, with the whole budget. Knows nothing of analyses; the engine knows nothing of stores.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING

from millrace.run.errors import NotStorable
from millrace.run.task import Cancel, Failure, Keep, Limits, Outcome, Ref, Task

if TYPE_CHECKING:
    from millrace.run.ports import Source
    from millrace.run.run import Run

NO_LIMITS = Limits()


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
        self._last_limits: tuple[Limits | None, int, Limits] | None = None

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
            start = monotonic_ns()
            try:
                asked = next(self.source)
            except StopIteration:
                break
            finally:
                parts["source_ns"] += monotonic_ns() - start
            if type(asked) is Task:
                found = self._admit(asked)
                if found is not None:
                    yield found
            else:
                if type(asked) is Cancel:
                    self._forget(asked)
                yield asked

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
            if stored is not None:
                value = Ref(key, run.arena.url, stored.size_bytes) if _wants_ref(task) else stored.value
                self.pending[key] = Pending(task, run.next_item(), start)
                return Outcome(key, value, cached=True)
        self.pending[key] = Pending(task, run.next_item(), start)
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

    def _forget(self, cancel: Cancel) -> None:
        self.again = deque(t for t in self.again if t.group != cancel.group)

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
