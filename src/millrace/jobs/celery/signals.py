"""What a scaler asks of a broker about tasks that are no jobs of the table: how many wait, from the queues' lengths; how many
run, from the events of workers.

    watch = Running(app)                      listens from now on
    loads = with_tasks(tier_loads(table, names), waiting(app, tiers), watch.by_tier())

Decides nothing. What cannot be read raises `BrokerAway`: never a zero for "could not read".
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from celery.events import EventReceiver

from millrace.jobs.celery.broker import BrokerAway, away
from millrace.jobs.celery.consuming import tier_of
from millrace.jobs.celery.messages import broker_errors, depths
from millrace.jobs.celery.names import RUN_JOB
from millrace.jobs.signals import TierLoad

if TYPE_CHECKING:
    from celery import Celery

    from millrace.tiers import Tiers

SILENT_S = 10.0
"""Celery's workers tell every two seconds that they live; one that is silent for so long runs nothing."""
ASK_S, AGAIN_S = 1.0, 1.0
_ENDS = ("task-succeeded", "task-failed", "task-rejected", "task-revoked", "task-retried", "task-cancelled")


def waiting(app: Celery, tiers: Tiers) -> dict[str, dict[str, int]]:
    """Messages that wait, by tier and queue. Wake-ups are not among them: their jobs are counted in the table."""
    queues = {tier.name: tier.queues for tier in tiers.tiers.values()}
    found = depths(app, [queue for of in queues.values() for queue in of])
    return {tier: {queue: found[queue] for queue in of} for tier, of in queues.items()}


def with_tasks(
    loads: Mapping[str, TierLoad], waiting: Mapping[str, Mapping[str, int]], running: Mapping[str, int]
) -> dict[str, TierLoad]:
    """The loads of the job table, and tasks that are no jobs beside them."""
    found = dict(loads)
    for tier in {*waiting, *running}:
        load, queued = found.get(tier, TierLoad()), waiting.get(tier, {})
        found[tier] = replace(
            load,
            queued=load.queued + sum(queued.values()),
            running=load.running + running.get(tier, 0),
            queued_by=dict(Counter(load.queued_by) + Counter(queued)),
        )
    return found


@dataclass(frozen=True, slots=True)
class Task:
    """A team's task that runs now. `since`: seconds since 1970, None when its worker has not told."""

    id: str
    name: str
    tier: str | None
    worker: str
    since: float | None


def running_now(app: Celery) -> list[Task]:
    """Asks every worker, and waits a second for those that answer. `BrokerAway`."""
    try:
        told = app.control.inspect(timeout=ASK_S).active() or {}
    except broker_errors(app) as e:
        raise away(app.conf.broker_url, e) from e
    return [
        Task(one["id"], one["name"], tier_of(node), node, one.get("time_start"))
        for node, tasks in sorted(told.items())
        for one in tasks
        if one["name"] != RUN_JOB
    ]


class _Receiver(EventReceiver):
    """Celery's, which says when it hears."""

    ready: Callable[[], None]

    def on_consume_ready(self, *arguments: Any, **more: Any) -> None:
        super().on_consume_ready(*arguments, **more)
        self.ready()


class Running:
    """Tasks that run in workers of ours, by what Celery's events tell; those that ran before are asked for once."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._nodes: dict[str, str] = {}
        self._seen_s: dict[str, float] = {}
        self._error = "nothing was heard yet"
        self._known = threading.Event()
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._receiver: _Receiver | None = None
        self._thread = threading.Thread(target=self._listen, name="millrace-events", daemon=True)
        self._thread.start()

    def by_tier(self, patience_s: float = 3 * ASK_S) -> dict[str, int]:
        """How many run in each tier. `BrokerAway` while nobody can tell."""
        if not self._known.wait(patience_s):
            raise BrokerAway(f"How many tasks run is not known: {self._error}. Look whether the broker runs.")
        now = time.monotonic()
        with self._guard:
            live = {node for node, at in self._seen_s.items() if now - at < SILENT_S}
            return dict(
                Counter(t for node in self._nodes.values() if node in live and (t := tier_of(node)) is not None)
            )

    def close(self) -> None:
        self._closed.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        self._thread.join(2 * ASK_S)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                    self._receiver = _Receiver(connection, {"*": self._hear}, app=self._app)
                    self._receiver.ready = self._ask
                    self._receiver.should_stop = self._closed.is_set()
                    self._receiver.capture(wakeup=True)
            except (BrokerAway, *broker_errors(self._app)) as e:
                self._known.clear()
                self._error = str(away(self._app.conf.broker_url, e))
                self._closed.wait(AGAIN_S)

    def _ask(self) -> None:
        """What ran before anybody listened."""
        told = running_now(self._app)
        with self._guard:
            self._nodes = {task.id: task.worker for task in told}
            self._seen_s |= {task.worker: time.monotonic() for task in told}
        self._known.set()

    def _hear(self, event: Mapping[str, Any]) -> None:
        kind, node, task = event["type"], event.get("hostname", ""), event.get("uuid", "")
        with self._guard:
            if kind == "worker-offline":
                self._seen_s.pop(node, None)
                self._nodes = {t: n for t, n in self._nodes.items() if n != node}
                return
            self._seen_s[node] = time.monotonic()
            if kind == "task-started":
                self._nodes[task] = node
            elif kind in _ENDS:
                self._nodes.pop(task, None)
