"""The engine of worker processes: one stream from the source's first task to the last outcome.

One thread and no lock: pull, pack, send; wait for results, deaths and wake-ups; deliver. What must hold while the
consumer or the source sleeps (ceilings, the end of everything when the driver dies) is the fork server's; new work and
what a dead worker leaves wait for the driver.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from time import monotonic_ns
from typing import TYPE_CHECKING

import cloudpickle

from millrace.engines.attempt import failure_of
from millrace.engines.processes import losses, page, results
from millrace.engines.processes.accounts import Accounts
from millrace.engines.processes.client import WorkerEnd, module_path
from millrace.engines.processes.flow import UNDELIVERED, Flow
from millrace.engines.processes.packing import Entry, Message, Packer
from millrace.engines.processes.pool import Event, Pool
from millrace.engines.processes.sharing import LONG_NS, fair_share, freest, is_uneven, open_messages, stuck, waiting_at
from millrace.run.errors import EngineLost, MillraceError, NotSupported, SourceStalled, WrongQuestion
from millrace.run.task import Failure, Outcome, Span, SpanKind

if TYPE_CHECKING:
    from millrace.run.ports import Meters, Opener, Source, Tokens

GRACE_NS = 20_000_000
"""How long a cancelled task may go on before its worker is killed."""
BETWEEN_NS = 2_000_000
"""A consumer that takes longer than this for outcomes that have come does not keep the workers waiting."""
FOREIGN = "This engine belongs to the process that was forked from: make a new one here."


class ProcessEngine:
    """`slots` worker processes behind an own fork server. Starts at once, in the background.

    `opener`: opens a store by its url, in the worker; it must be picklable. `preload`: modules that the fork server
    imports, so that each worker has them in milliseconds. `environment`: of the workers, beside this process's own.
    `tokens`: what a worker holds while it computes (picklable; each worker has its own). `meter`: makes, in the worker, what
    tells how long quotas have held it back.
    `target_s`: the work that a message is to hold; `window`: messages in flight to a worker; `max_tasks` in one.
    `NotSupported` where this is not Linux, and, at the first stream, for a preload that fails or starts threads;
    `EngineLost` when the fork server dies.
    """

    isolates = True

    def __init__(
        self,
        slots: int,
        *,
        opener: Opener | None = None,
        tokens: Tokens | None = None,
        meter: Meters | None = None,
        preload: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        target_s: float = 0.1,
        window: int = 2,
        max_tasks: int = 1024,
    ) -> None:
        if slots < 1:
            raise WrongQuestion(f"An engine needs at least one slot, and {slots} were asked for.")
        self.slots, self._window = slots, window
        parts = (None if x is None else cloudpickle.dumps(x, 5) for x in (opener, tokens, meter))
        self._opener, self._tokens, self._meter = parts
        self._packer = Packer(target_s, max_tasks)
        self._accounts = Accounts(slots)
        self._flow: Flow | None = None
        self._last_number = 0
        self._place: tuple[str | None, list[str]] = (None, [])
        self._place_number = 0
        self._alone: Message | None = None
        self._unwanted: dict[Entry, int] = {}
        self._closed = False
        self._parts = slots, preload, environment or {}, round(3e9 * target_s)
        self._pool = self._make_pool()
        _engines.add(self)

    # -- the waist ---------------------------------------------------------------------------------------------
    def stream(self, source: Source) -> Iterator[Outcome]:
        """Outcomes as they come. Closing the iterator cancels what is in flight."""
        self._check()
        flow, in_order = None, False
        try:
            flow = self._open(source)
            while True:
                self._fill(flow)
                if not flow.out:
                    if not flow.open and flow.exhausted:
                        in_order = True
                        return
                    if not flow.open and flow.waiting:
                        self._stalled(flow)
                        continue
                    self._wait(flow)
                looked_ns = monotonic_ns()
                while flow.out:
                    yield flow.out.popleft()
                    if self._pool.foreign:
                        raise WrongQuestion(FOREIGN)
                    flow.delivered()
                    if (now_ns := monotonic_ns()) - looked_ns > BETWEEN_NS:
                        looked_ns = now_ns
                        self._happened(flow, 0)
                        self._fill(flow)
        except (GeneratorExit, MillraceError):
            in_order = True
            raise
        finally:
            self._end_stream(flow, in_order or (flow is not None and flow.source_failed))

    def wake(self) -> None:
        self._pool.wake()

    def spans(self) -> list[Span]:
        return self._accounts.take()

    def at_work(self) -> tuple[int, list[int]]:
        return sum(1 for w in self._pool.workers if w.messages), self.worker_pids()

    def close(self) -> None:
        """Workers leave their resources and end; nothing is left. Idempotent."""
        self._closed = True
        self._end.detach()
        self._pool.close()

    def worker_pids(self) -> list[int]:
        """Of the workers that are up, for tools that look from outside."""
        return [w.pid for w in self._pool.workers if w.pid and not w.stale]

    # -- a stream's two ends -----------------------------------------------------------------------------------
    def _make_pool(self) -> Pool:
        pool = Pool(*self._parts)
        self._end = weakref.finalize(self, pool.close, True)
        return pool

    def _check(self) -> None:
        if self._closed:
            raise WrongQuestion("This engine was closed: make a new one.")
        if self._pool.foreign:
            raise WrongQuestion(FOREIGN)
        if self._flow is not None:
            raise WrongQuestion("An engine serves one stream at a time: finish or close the open one first.")

    def _open(self, source: Source) -> Flow:
        self._flow = Flow(source, self._packer, self._number, self._drop)
        if self._pool.closed:
            self._pool = self._make_pool()
        self._packer.forget_kinds()
        place = _working_directory(), module_path()
        if place != self._place:
            self._place, self._place_number = place, self._place_number + 1
        self._accounts.open(monotonic_ns())
        self._pool.server.tell(do="watch", on=True)
        return self._flow

    def _stalled(self, flow: Flow) -> None:
        """The source waits and nothing is in flight: an error, unless somebody has just called `wake`."""
        self._happened(flow, 0)
        if flow.waiting and not flow.out:
            raise SourceStalled(
                "The source waits for an outcome, and nothing is in flight: nobody can ever bring it one."
            )

    def _end_stream(self, flow: Flow | None, in_order: bool) -> None:
        """Nothing stays in flight. In order, short tasks may finish, and the workers of long ones are killed. Else a
        Ctrl-C may have come in the middle of anything, a pipe may hold half a frame: the pool is made anew when needed."""
        self._flow = None
        if self._pool.foreign:
            return  # a forked copy of the iterator must not touch its parent's workers
        try:
            if flow is not None and in_order:
                self._settle(flow)
        except (EngineLost, NotSupported):
            pass  # this error is on its way already, or comes with the next stream
        except BaseException:
            in_order = False
            raise
        finally:
            self._accounts.close(monotonic_ns())
            for worker in self._pool.workers:
                for message in worker.messages:
                    message.abandon()
                if worker.messages or not in_order:
                    self._accounts.gone(worker.slot)
                if worker.messages and in_order:
                    self._kill(worker)
                    self._pool.discard(worker)
            if not in_order:
                self._pool.close(now=True)
            self._alone = None
            self._unwanted.clear()

    def _settle(self, flow: Flow) -> None:
        """Say that nothing is wanted any more, and give what is about to end the time to: a warm worker is worth that."""
        busy = [w for w in self._pool.workers if w.messages]
        for worker in busy:
            for message in worker.messages:
                self._pool.pages.drop(message.number)
        end_ns = monotonic_ns() + GRACE_NS
        while any(w.messages for w in busy) and (left_ns := end_ns - monotonic_ns()) > 0:
            self._happened(flow, left_ns / 1e9)
        self._pool.server.tell(do="watch", on=False)

    # -- from the source to the workers ------------------------------------------------------------------------
    def _fill(self, flow: Flow) -> None:
        """Give every free place a message, as far as there is work for it; then the one look-ahead that is due."""
        woken, self._pool.woken = self._pool.woken, False
        if woken:
            flow.woke()
        while len(flow.out) < UNDELIVERED and self._alone is None:
            worker = freest(self._pool.workers, self._window)
            if worker is None:
                break
            entry = flow.next()
            if entry is None:
                if worker.messages or not self._steal(flow, worker):
                    break
                continue
            if entry.limits.alone and any(w.messages for w in self._pool.workers):
                flow.ready.appendleft(entry)  # first let all others end
                break
            most = self._packer.max_tasks
            if flow.ready and (flow.exhausted or flow.waiting):
                most = fair_share(self._pool.workers, len(flow.ready) + 1)
            self._send(flow, worker, *self._packer.batch(entry, flow.next, flow.ready.appendleft, most))
        flow.look_ahead(woken)
        for entry in flow.unwanted:
            self._unwanted[entry] = monotonic_ns() + GRACE_NS
        flow.unwanted.clear()

    def _send(self, flow: Flow, worker: WorkerEnd, batch: list[Entry], uniform: bool) -> None:
        message = Message(self._number(len(batch)), batch, uniform)
        place = None if worker.place == self._place_number else (*self._place, self._opener, self._tokens, self._meter)
        try:
            frame = self._packer.encode(message, worker.known, place)
        except Exception as e:  # noqa: BLE001 - recorded as a typed failure, of the one task that it belongs to
            self._unsendable(flow, worker, batch, e)
            return
        for seq, entry in enumerate(batch, message.number):
            entry.seq, entry.home = seq, message
        worker.place = self._place_number
        if batch[0].limits.alone:
            self._alone = message
        message.sent_ns = monotonic_ns()
        self._accounts.fed(worker.slot, message.sent_ns)
        worker.messages.append(message)
        self._pool.write(worker, frame)

    def _unsendable(self, flow: Flow, worker: WorkerEnd, batch: list[Entry], error: Exception) -> None:
        """Something in these tasks cannot be pickled. One alone has failed; several are sent one by one."""
        if len(batch) == 1:
            kind, said, trace = failure_of(error)
            flow.fail(batch[0], Failure(kind, f"It cannot be sent to a worker process: {said}", trace))
            return
        for entry in batch:
            self._send(flow, worker, [entry], True)

    def _steal(self, flow: Flow, idle: WorkerEnd) -> bool:
        found = stuck(self._pool.workers, idle, self._pool.pages.cells, monotonic_ns())
        if found is None:
            return False
        worker, long = found
        messages = open_messages(worker, self._pool.pages.cells)
        for message in messages:
            self._drop(message.number)
        # Looked at again, now that it cannot come to more: what it has begun meanwhile stays with it. Tasks are pure,
        # so that one may run twice when its worker comes to it in this very moment is no harm.
        waiting = waiting_at(messages, self._pool.pages.cells[page.base(worker.slot) + page.SEQ], long)
        for entry in waiting:
            entry.home = None
        flow.put_back(waiting)
        return True

    # -- from the workers to outcomes --------------------------------------------------------------------------
    def _wait(self, flow: Flow) -> None:
        why: SpanKind = "tail" if flow.exhausted and self._alone is None else "starved"
        self._accounts.waits(monotonic_ns(), why)
        self._happened(flow, LONG_NS / 1e9 if self._unwanted or is_uneven(self._pool.workers) else None)

    def _happened(self, flow: Flow, timeout_s: float | None) -> None:
        events = self._pool.wait(timeout_s)
        first = next(events, None)
        if timeout_s != 0:
            self._accounts.woke(monotonic_ns())
        if first is not None:
            self._on(flow, first)
            for event in events:
                self._on(flow, event)
        if self._pool.woken:
            flow.woke()
        if self._unwanted:
            self._kill_unwanted()

    def _on(self, flow: Flow, event: Event) -> None:
        worker = event.worker
        if event.kind == "frame":
            message = results.take(event.frame, worker, flow, self._accounts)
            if message is not None:
                self._over(flow, worker, message)
        elif event.kind == "up":
            self._accounts.up(worker.slot, event.said["at_ns"], bool(worker.messages) or worker.stale)
        else:
            self._died(flow, event)

    def _over(self, flow: Flow, worker: WorkerEnd, message: Message) -> None:
        """A worker has let go of a message; what it did not come to goes first again."""
        if message is self._alone:
            self._alone = None
        flow.put_back(message.left())
        if not worker.messages:
            self._accounts.dry(worker.slot)

    def _died(self, flow: Flow, event: Event) -> None:
        worker, said, traces = event.worker, event.said, event.traces
        assert traces is not None
        messages = list(worker.messages)
        judged = losses.judge(traces, messages, worker.slot, said["pid"], said["status"], said["at_ns"], said["cpu_ns"])
        delivered = judged.failure is not None
        key = judged.running.task.key if judged.running else ""
        kind: SpanKind = "stopped" if judged.unwanted or worker.stale else "lost"
        self._accounts.died(worker.slot, traces.started_ns, said["at_ns"], kind, key, delivered)
        worker.messages.clear()
        for message in messages:
            message.over = True
            if message is self._alone:
                self._alone = None
        if judged.failure is not None and judged.measures is not None and judged.running is not None:
            flow.fail(judged.running, judged.failure, judged.measures)
        flow.put_back(judged.back)

    # -- what nobody wants any more ----------------------------------------------------------------------------
    def _kill_unwanted(self) -> None:
        """Cancelled tasks that run on after their grace; those that did not start are passed over by the worker."""
        now_ns, cells = monotonic_ns(), self._pool.pages.cells
        running = {cells[page.base(w.slot) + page.SEQ]: w for w in self._pool.workers if w.messages}
        for entry, until_ns in list(self._unwanted.items()):
            over = entry.home is None or entry.home.over
            worker = running.get(entry.seq) if now_ns >= until_ns and not over else None
            if over or (worker is not None and self._kill(worker)):
                del self._unwanted[entry]

    def _kill(self, worker: WorkerEnd) -> bool:
        """On purpose: the page says so, and nobody is blamed. False when it is not up yet."""
        if worker.pidfd < 0:
            return False
        self._pool.pages.cells[page.base(worker.slot) + page.VERDICT] = page.UNWANTED
        worker.kill()
        return True

    def _drop(self, number: int) -> None:
        self._pool.pages.drop(number)

    def _number(self, count: int = 1) -> int:
        """Numbers of tasks, messages and groups: one line of them, none twice in the life of an engine."""
        first = self._last_number + 1
        self._last_number += count
        return first


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


_engines: weakref.WeakSet[ProcessEngine] = weakref.WeakSet()
"""Engines of this process, for the one thing that nobody can hand in: that it was forked."""


def _after_fork() -> None:
    for engine in list(_engines):
        engine._end.detach()
        engine._pool.abandon()
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork)
