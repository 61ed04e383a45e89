"""A team's own task in a job process: traced by Celery as in a pool of its own, under the ceilings of a tier.

Celery's tracer stores the result, calls callbacks and goes on with chains; what goes back to the worker is for its events
and acknowledgements only.
"""

from __future__ import annotations

import base64
import functools
import logging
import pickle
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app import trace
from celery.exceptions import SoftTimeLimitExceeded

from millrace.jobs.celery.pool import OutOfMemory, information
from millrace.jobs.celery.wiring import WORKER, own_app, team_app

if TYPE_CHECKING:
    from celery import Celery

    from millrace.jobs.worker.child import Asked


def carry_out(given: dict[str, Any], asked: Asked) -> str:
    """Run the task of a message; (failed, value, seconds) as Celery's pool tells it, pickled between our own processes."""
    app = _opened(given["app"], given["broker"], given["hostname"])
    name, task_id, about, body, content_type, encoding = pickle.loads(base64.b64decode(given["message"]))
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:  # once: it would strike again where the task tidies up
            interrupted = True
            raise SoftTimeLimitExceeded

    asked.interrupt = interrupt
    ended = trace.trace_task_ret(name, task_id, about, body, content_type, encoding, app=app)
    asked.interrupt = None
    if ended[0] and isinstance(ended[1].exception, MemoryError):
        # Stored already; Celery would end its worker for this one. Its frames hold what was too much.
        asked.worn = True
        ended = (1, information(OutOfMemory(f"a MemoryError under {given['memory_bytes']:,} private bytes")), ended[2])
    return base64.b64encode(pickle.dumps(ended)).decode()


@functools.lru_cache(maxsize=1)
def _opened(name: str | None, broker: str, hostname: str) -> Celery:
    """The application, prepared as Celery prepares it in a process of its own pool; once a process."""
    app = team_app(name) if name else own_app(broker)
    app.conf.update(WORKER)
    app.loader.init_worker()
    app.loader.init_worker_process()
    app.log.setup(logging.INFO, None, False, hostname=hostname)
    trace.setup_worker_optimizations(app, hostname)
    for task_name, task in app.tasks.items():
        task.__trace__ = trace.build_tracer(task_name, task, app.loader, hostname, app=app)
    signals.worker_process_init.send(sender=hostname)
    return app
