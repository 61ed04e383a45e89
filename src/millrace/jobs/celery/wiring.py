"""Celery applications as long jobs need them, and the names by which tasks and queues are known.

A broker carries numbers of jobs, so everything that Celery does to keep work itself is off: messages are acknowledged when
they are taken on (a late acknowledgement comes back after the visibility timeout, an hour, and starts a long job twice),
nothing is taken ahead (`worker_disable_prefetch`, of Redis alone; RabbitMQ takes one a slot ahead), nothing is cancelled
when the connection is lost. Every name below is looked up in Celery's own table by a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millrace.jobs.celery.broker import is_redis, plain_url
from millrace.run.errors import MissingExtra, WrongQuestion
from millrace.tiers import Tiers

try:
    from celery import Celery
except ImportError as e:
    raise MissingExtra("celery", "celery", "A broker") from e

SEND_S = 5.0

OURS: dict[str, Any] = {
    "task_acks_late": False,
    "task_ignore_result": False,
    "broker_connection_retry_on_startup": True,
    "task_default_queue": "default",
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "result_expires": 86_400,
}
"""The application that is used when the team has none."""

WORKER: dict[str, Any] = {
    "worker_prefetch_multiplier": 1,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_prefetch_count_reduction": False,
    "worker_send_task_events": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}
"""Any application in a worker of ours, a team's too."""

REDIS_WORKER: dict[str, Any] = {"worker_disable_prefetch": True}

TRANSPORT: dict[str, Any] = {"socket_timeout": 30.0, "socket_connect_timeout": SEND_S, "socket_keepalive": True}
"""Of redis-py: a server that has gone without a word is noticed."""


def own_app(broker: str) -> Celery:
    """An application of our own on that broker. Opens no connection."""
    from millrace.jobs.celery.installing import install

    app = Celery("millrace", broker=plain_url(broker), set_as_current=False, fixups=[])
    app.conf.update(OURS)
    if is_redis(broker):
        app.conf.update(broker_transport_options=dict(TRANSPORT), result_backend=plain_url(broker))
    install(app)
    return app


def team_app(name: str) -> Celery:
    """The application of a team, by "module:attribute" as `celery --app` takes it; ours are among its tasks then."""
    from celery.app.utils import find_app

    from millrace.jobs.celery.installing import install

    try:
        app = find_app(name)
    except (ImportError, AttributeError, TypeError) as e:
        raise WrongQuestion(
            f"There is no Celery application {name!r}: {e}. Give module:attribute as `celery --app` takes it, from the folder "
            "where that module can be imported."
        ) from e
    if not isinstance(app, Celery):
        raise WrongQuestion(f"{name!r} is {type(app).__name__} and no Celery application: give module:attribute.")
    install(app)
    app.finalize()
    return app


def for_worker(app: Celery, tiers: Tiers) -> Celery:
    """The application as a worker of ours needs it. `WrongQuestion`: tasks of it go to a queue that no tier serves."""
    app.conf.update(WORKER)
    app.conf.accept_content = sorted({*app.conf.accept_content, "json"})
    if is_redis(app.conf.broker_url or ""):
        app.conf.update(REDIS_WORKER)
    served = {queue for tier in tiers.tiers.values() for queue in tier.queues}
    lost = sorted(set(queues_of(app)) - served)
    if lost:
        raise WrongQuestion(
            f"Tasks of the application {app.main!r} go to {', '.join(lost)}, which no tier has: add it to the queues of a tier "
            "in the tiers' file, or route those tasks elsewhere (task_routes, task_default_queue)."
        )
    return app


def queues_of(app: Celery) -> Iterable[str]:
    """The queues that an application names: its default, those it lists, those its plain routes lead to."""
    yield app.conf.task_default_queue
    for queue in app.conf.task_queues or ():
        yield queue if isinstance(queue, str) else queue.name
    routes = app.conf.task_routes or {}
    for table in routes if isinstance(routes, list | tuple) else [routes]:
        for route in table.values() if isinstance(table, dict) else ():
            queue = route if isinstance(route, str) else route.get("queue") if isinstance(route, dict) else None
            if queue:
                yield queue if isinstance(queue, str) else queue.name
