"""How a worker learns that there may be work. The table decides who gets what; a queue only wakes.

`TableQueue` is the embedded mode: no server at all. The laws of both modes are in `millrace.testing.jobs`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from millrace.jobs.states import Job
    from millrace.jobs.table import JobTable

LOOK_S = 0.25
"""A job whose back-off has run out changes nothing in the database, so the table is asked so often anyway."""


class Queue(Protocol):
    """Wakes workers of a tier."""

    def publish(self, job: Job) -> None:
        """Wake somebody for this job. May be lost or doubled."""
        ...

    def woken(self) -> bool:
        """Whether it is worth asking the table now; cheap."""
        ...


class TableQueue:
    """Watches the table itself: SQLite says cheaply whether anything has changed; PostgreSQL is asked every `LOOK_S`/5."""

    def __init__(self, table: JobTable) -> None:
        self._table, self._asked_s = table, 0.0
        self._every_s = LOOK_S if table.engine.dialect.name == "sqlite" else LOOK_S / 5

    def publish(self, job: Job) -> None:
        return None

    def woken(self) -> bool:
        now = time.monotonic()
        late = now - self._asked_s >= self._every_s
        if self._every_s == LOOK_S and self._table.changed():
            late = True
        if late:
            self._asked_s = now
        return late
