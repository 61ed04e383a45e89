"""Parts of this room put together: for whoever submits, for a worker, for `millrace up`."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from millrace.jobs.celery.broker import check_broker
from millrace.jobs.celery.messages import Messages, Sender
from millrace.jobs.celery.wiring import for_worker, own_app, team_app
from millrace.run.errors import WrongQuestion
from millrace.run.urls import spoken

if TYPE_CHECKING:
    from celery import Celery

    from millrace.jobs.celery.consuming import CeleryQueue
    from millrace.jobs.desk import Desk
    from millrace.jobs.signals import TierLoad
    from millrace.jobs.table import JobTable
    from millrace.tiers import Tier, Tiers

LOOK_S = 1.0


def messages(broker: str, table: JobTable, tiers: Tiers, say: Callable[[str], None]) -> Messages:
    """Opens no connection: a job is accepted while the broker is away."""
    holder = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
    return Messages(own_app(broker), table, tuple(tiers.tiers), holder, say, max(0.5, tiers.lease_s / 15))


def open_queue(
    broker: str, team: str | None, table: JobTable, tiers: Tiers, tier: Tier, say: Callable[[str], None]
) -> CeleryQueue:
    """The queue of a worker of `tier` (as this host can carry it), listening. `team`: an application, "module:attribute".

    `BrokerAway`, or `WrongQuestion` when the broker may evict, or when the application is on another one.
    """
    from millrace.jobs.celery.consuming import CeleryQueue

    check_broker(broker)
    app = for_worker(_of_team(team, broker) if team else own_app(broker), tiers)
    queue = CeleryQueue(app, broker, team, tier, os.getpid(), messages(broker, table, tiers, say), say)
    queue.start()
    return queue


class Watch:
    """What `millrace up` does about a broker: asks it how much waits and runs, and has what was lost sent again."""

    def __init__(self, broker: str, team: str | None, desk: Desk, say: Callable[[str], None]) -> None:
        from millrace.jobs.celery.signals import Running

        check_broker(broker)
        self._app = for_worker(_of_team(team, broker) if team else own_app(broker), desk.tiers)
        self._tiers = desk.tiers
        self._sender = Sender(messages(broker, desk.table, desk.tiers, say))
        self._running = Running(self._app)
        self._waiting: dict[str, dict[str, int]] = {}
        self._asked_s = -LOOK_S

    def with_tasks(self, loads: Mapping[str, TierLoad]) -> dict[str, TierLoad]:
        """The loads, and tasks that are no jobs beside them. `BrokerAway`."""
        from millrace.jobs.celery.signals import waiting, with_tasks

        if time.monotonic() - self._asked_s >= LOOK_S:
            self._waiting = waiting(self._app, self._tiers)
            self._asked_s = time.monotonic()
        return with_tasks(loads, self._waiting, self._running.by_tier())

    def close(self) -> None:
        self._running.close()
        self._sender.close()


def _of_team(team: str, broker: str) -> Celery:
    app = team_app(team)
    mine, theirs = own_app(broker).connection_for_write(), app.connection_for_write()
    if mine.as_uri() != theirs.as_uri():
        raise WrongQuestion(
            f"The application {team!r} is on the broker {spoken(theirs.as_uri())}, and jobs are on {spoken(broker)}: one worker "
            "listens to one broker. Give --broker its URL."
        )
    return app
