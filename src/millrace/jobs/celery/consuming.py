"""The queue port over a broker: a thread with Celery's own consumer, beside the warden that has the places.

The thread takes a message only when a place is free (on Redis; RabbitMQ hands over one a place ahead), so that the length
of a tier's queue is the number of jobs that wait. A lost connection touches nothing that runs: the consumer connects again,
one that ends is started again, and the table is looked at meanwhile.
"""

from __future__ import annotations

import logging
import platform
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.worker import WorkController, state
from kombu.asynchronous import set_event_loop

from millrace.jobs.celery.broker import BrokerAway
from millrace.jobs.celery.messages import Messages, Sender, wake_channel
from millrace.jobs.celery.pool import Link, Pool, Ticket
from millrace.jobs.queues import Errand
from millrace.tiers import Tier

if TYPE_CHECKING:
    from celery import Celery

    from millrace.jobs.states import Job

READY_S, STOP_S, AGAIN_S, AWAY_LOOK_S = 30.0, 5.0, 1.0, 1.0


def node_name(tier: str, pid: int) -> str:
    """How Celery's events call a worker of ours; `tier_of` reads it."""
    return f"{tier}.{pid}-{secrets.token_hex(2)}@{platform.node()}"


def tier_of(node: str) -> str | None:
    """The tier of a worker by its name among Celery's events; None when it is none of ours."""
    name, _, _ = node.partition("@")
    tier, there, _ = name.rpartition(".")
    return tier if there else None


class CeleryQueue:
    """Listens for one worker of `tier`. `app`: prepared by `wiring.for_worker`; `team`: its name when it is a team's.

    `start` before the warden serves. One a process: Celery keeps the state of its worker in its modules.
    """

    def __init__(
        self, app: Celery, broker: str, team: str | None, tier: Tier, pid: int, messages: Messages, say: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._app, self._tier, self._say = app, tier, say
        self._node = node_name(tier.name, pid)
        self._link = Link()
        self._sender = Sender(messages)
        self._about = {"app": team, "broker": broker, "hostname": self._node}
        self._tickets: deque[Ticket] = deque()
        self._errands: deque[Errand] = deque()
        self._bound: dict[int, Ticket] = {}
        self._unmet = False
        self._leaving = False
        self._again_s = self._looked_s = 0.0
        self._thread: threading.Thread | None = None
        self._controller: Any = None
        self.bell: int | None = self._link.to_warden.fd

    def start(self) -> None:
        """Connect and listen. `BrokerAway` when that does not come about."""
        logger = logging.getLogger("celery")
        logger.addHandler(_Said(self._say, self._node))
        logger.propagate = False
        ready = threading.Event()
        self._listen(ready.set)
        if not ready.wait(READY_S):
            self.close()
            raise BrokerAway(
                f"Celery's consumer did not begin within {READY_S:.0f} s: look at the broker and at the lines above."
            )

    # -- the port ------------------------------------------------------------------------------------------------
    def publish(self, job: Job) -> None:
        self._sender.publish(job)

    def tick(self) -> None:
        """A consumer that has ended is started again; what runs goes on meanwhile."""
        if self._thread is None or self._thread.is_alive() or self._leaving or time.monotonic() < self._again_s:
            return
        self._again_s = time.monotonic() + AGAIN_S
        self._say(f"{self._node}: Celery's consumer has ended, and is started again")
        self._listen(lambda: None)

    def woken(self) -> bool:
        self._link.to_warden.hush()
        while self._link.arrivals:
            what = self._link.arrivals.popleft()
            (self._errands if isinstance(what, Errand) else self._tickets).append(what)  # type: ignore[attr-defined]
        return bool(self._tickets or self._errands) or self._looks_itself()

    def _looks_itself(self) -> bool:
        """While the broker is away nobody is woken: the table is looked at as without one."""
        consumer = getattr(self._controller, "consumer", None)
        if consumer is not None and consumer.connection is not None:
            return False
        now = time.monotonic()
        late = now - self._looked_s >= AWAY_LOOK_S
        if late:
            self._looked_s = now
        return late

    def claimed(self, job: Job | None) -> bool:
        if job is not None:
            if self._tickets:
                self._bound[job.id] = self._tickets.popleft()
            return bool(self._tickets)
        self._unmet = bool(self._bound)  # perhaps it does not fit beside what runs: asked again when a place is free
        for ticket in self._tickets:
            ticket.done()
        self._tickets.clear()
        return False

    def ended(self, job: Job) -> None:
        ticket = self._bound.pop(job.id, None)
        if ticket is None:
            return
        if self._unmet:
            self._unmet = False
            self._tickets.append(ticket)
        else:
            ticket.done()

    def errand(self) -> Errand | None:
        return self._errands.popleft() if self._errands else None

    def leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._link.call(self._cancel)
        self.woken()
        for ticket in self._tickets:  # its job still waits in the table: it is missed, and sent again
            ticket.done()
        for errand in self._errands:
            errand.back()
        self._tickets.clear()
        self._errands.clear()

    def close(self) -> None:
        self.leave()
        self._link.call(_stop)
        if self._thread is not None:
            self._thread.join(STOP_S)
        self._sender.close()
        if self._thread is None or not self._thread.is_alive():
            self.bell = None
            self._link.close()

    # -- Celery's thread -----------------------------------------------------------------------------------------
    def _listen(self, ready: Callable[[], None]) -> None:
        link, about = self._link, self._about
        pool = type("Pool", (Pool,), {"link": link, "about": about})
        for queue in (wake_channel(self._tier.name), *self._tier.queues):
            if (queue if isinstance(queue, str) else queue.name) not in self._app.amqp.queues:
                self._app.amqp.queues.add(queue)
        names = [wake_channel(self._tier.name).name, *self._tier.queues]

        def run() -> None:
            state.should_stop = None
            state.reset_state()  # an earlier consumer's messages count as taken otherwise
            set_event_loop(None)
            self._controller = WorkController(
                app=self._app, hostname=self._node, pool=pool, concurrency=self._tier.at_once, queues=names,
                ready_callback=lambda _: ready(), without_gossip=True, without_mingle=True, task_events=True,
                loglevel=logging.WARNING, use_eventloop=True,
            )  # fmt: skip
            self._controller.start()

        self._thread = threading.Thread(target=run, name="millrace-celery", daemon=True)
        self._thread.start()

    def _cancel(self) -> None:
        consumer = getattr(self._controller, "consumer", None)
        if consumer is not None and consumer.task_consumer is not None:
            consumer.task_consumer.cancel()


def _stop() -> None:
    state.should_stop = 0


class _Said(logging.Handler):
    """Celery's warnings, a line each."""

    def __init__(self, say: Callable[[str], None], node: str) -> None:
        super().__init__(logging.WARNING)
        self._tell, self._node = say, node

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(f"{self._node}: {record.getMessage().strip().splitlines()[0]}")
