"""Jobs over a broker: Celery on Redis or Valkey (RabbitMQ second best) tells workers of any host that there is work.

    wiring      Celery applications, ours and a team's, set as long jobs need it; names of tasks and queues
    broker      what a broker must be before anybody trusts it
    messages    sends wake-ups and replies, and sends again what the broker has lost
    consuming   the mode of the queue port: a thread that listens to the broker beside a warden
    pool        Celery's pool over a warden: what Celery would run itself
    errands     a team's own tasks in job processes
    installing  `install(app)`: tasks that make jobs, in a team's own application
    signals     what a scaler asks of a broker

The job table stays the truth: a message is only a wake-up, and whoever it wakes claims the best job of its tier. Nothing
outside of this folder imports Celery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millrace.jobs.celery.installing import install

__all__ = ["install"]


def __getattr__(name: str) -> Any:
    if name == "install":
        from millrace.jobs.celery.installing import install

        return install
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
