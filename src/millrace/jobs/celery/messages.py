"""What is sent over the broker: a wake-up for each job that waits, and a reply to each task that asked for a job.

Both may be lost or doubled. What is lost is found by counting: a tier with more jobs that wait than messages in its queue,
twice in a row, is sent the difference. Nobody is asked which message it was: whoever is woken claims the best job.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery import signature
from kombu import Exchange, Queue
from kombu.exceptions import ChannelError, OperationalError

from millrace.jobs.celery.broker import BrokerAway, away
from millrace.jobs.celery.names import RUN_JOB, wake_queue
from millrace.jobs.celery.wiring import SEND_S
from millrace.jobs.table import JobTable
from millrace.run.errors import MillraceError

if TYPE_CHECKING:
    from celery import Celery

    from millrace.jobs.states import Job

OFFICE = "messages"
LATE_S, FORGOTTEN_S = 5.0, 7 * 86_400.0
"""Replies are sent again after the one and within the other."""
_NOT_FOUND = "404"
_ONCE = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.0}
"""A connection that has gone stale is opened again once; a broker that is away is told at once."""


def wake_channel(tier: str) -> Queue:
    """The queue of a tier's wake-ups, declared the same by whoever sends and whoever listens."""
    name = wake_queue(tier)
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


@dataclass(slots=True)
class Messages:
    """Sends and counts over one broker. `holder`: who this is, for the office of those who send again.

    `Publisher` for one thread; see `Sender` for those who must not wait for a broker.
    """

    app: Celery
    table: JobTable
    tiers: Sequence[str]
    holder: str
    say: Callable[[str], None]
    every_s: float = 2.0
    _next_s: float = 0.0
    _missed: dict[str, int] = field(default_factory=dict)
    _away: bool = False

    def publish(self, job: Job) -> None:
        """What cannot be sent now is sent by a later `tick`, of anybody."""
        try:
            if job.state == "queued" and job.not_before <= self.table.clock():
                self.wake(job.tier, [job.id])
            elif job.ended_at is not None:
                self._reply(job)
        except BrokerAway as e:
            self._tell(e)

    def tick(self) -> None:
        """Once in `every_s`, by one at a time: send what is missing."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + self.every_s
        try:
            if self.table.take_office(OFFICE, self.holder, 3 * self.every_s):
                self.send_again()
                self._away = False
        except BrokerAway as e:
            self._tell(e)

    def send_again(self) -> int:
        """Wake-ups that have been missing at two looks in a row, and replies that nobody has sent; how many."""
        waiting: dict[str, int] = dict.fromkeys(self.tiers, 0)
        for load in self.table.load():
            if load.state == "queued":
                waiting[load.tier] = waiting.get(load.tier, 0) + load.jobs
        there = depths(self.app, [wake_queue(tier) for tier in waiting])
        missing = {tier: jobs - there[wake_queue(tier)] for tier, jobs in waiting.items()}
        sent = 0
        for tier, count in missing.items():
            lacking = min(count, self._missed.get(tier, 0))
            if lacking > 0:
                numbers = [job.id for job in self.table.jobs("queued", tier, lacking)]  # any: a number is no claim
                self.wake(tier, numbers)
                missing[tier] = 0
                sent += len(numbers)
        self._missed = missing
        for job in self.table.untold(LATE_S, FORGOTTEN_S):
            self._reply(job)
            sent += 1
        return sent

    def wake(self, tier: str, numbers: Sequence[int]) -> None:
        """A message a number. `BrokerAway`."""
        channel = wake_channel(tier)
        try:
            with self.app.producer_or_acquire() as producer:
                for number in numbers:
                    self.app.send_task(
                        RUN_JOB, (number,), queue=channel, producer=producer, ignore_result=True, retry=True,
                        retry_policy=_ONCE,
                    )  # fmt: skip
        except broker_errors(self.app) as e:
            raise away(self.app.conf.broker_url, e) from e

    def _reply(self, job: Job) -> None:
        """The task that asked is sent once more: it finds that its job has ended, and its own caller hears of it."""
        caller = json.loads(job.question).get("caller")
        if caller is None or job.published_at is not None:
            return
        try:
            signature(caller, app=self.app).apply_async(retry=True, retry_policy=_ONCE)
        except broker_errors(self.app) as e:
            raise away(self.app.conf.broker_url, e) from e
        self.table.published([job.id])

    def _tell(self, error: BrokerAway) -> None:
        if not self._away:
            self._away = True
            self.say(str(error))


class Sender:
    """A `Publisher` for those who keep leases: a thread sends, and nobody waits for a broker that does not answer."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="millrace-messages", daemon=True)
        self._thread.start()

    def publish(self, job: Job) -> None:
        self._jobs.put(job)

    def tick(self) -> None:
        return None  # the thread has a clock of its own

    def close(self, patience_s: float = SEND_S) -> None:
        """Send what is still to be sent; not for longer than that."""
        self._jobs.put(None)
        self._thread.join(patience_s)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._messages.every_s)
                if job is None:
                    return
                self._try(lambda job=job: self._messages.publish(job))
            except queue.Empty:
                pass
            self._try(self._messages.tick)

    def _try(self, work: Callable[[], None]) -> None:
        """The thread outlives whatever it meets: what was not sent is missed later, and sent again."""
        try:
            work()
        except MillraceError as e:
            self._messages.say(str(e))
        except Exception as e:  # noqa: BLE001 - recorded for people; the next tick tries again
            self._messages.say(f"A message could not be sent, and will be again: {type(e).__name__}: {e}")


def depths(app: Celery, queues: Sequence[str]) -> dict[str, int]:
    """Messages that wait in each queue; a queue that nobody has made yet holds none. `BrokerAway`, and never a made-up zero."""
    try:
        with app.pool.acquire(block=True) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            return {name: _depth(connection, name) for name in queues}
    except broker_errors(app) as e:
        raise away(app.conf.broker_url, e) from e


def _depth(connection: Any, name: str) -> int:
    channel = connection.channel()  # an error about a queue closes the channel
    try:
        return int(channel.queue_declare(name, passive=True).message_count)
    except ChannelError as e:
        if str(e.reply_code) != _NOT_FOUND:
            raise
        return 0
    finally:
        channel.close()


def broker_errors(app: Celery) -> tuple[type[Exception], ...]:
    """What a broker that is away or full, or its library, may raise."""
    connection = app.connection_for_read()
    return (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
