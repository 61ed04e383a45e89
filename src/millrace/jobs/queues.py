"""How a worker learns that there may be work. The table decides who gets what; a queue only wakes.

`TableQueue` is the embedded mode: no server at all. Over a broker it is `millrace.jobs.celery.consuming`. The laws of both
modes are in `millrace.testing.jobs`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from millrace.jobs.bell import hung_at, hush

if TYPE_CHECKING:
    from millrace.jobs.states import Job, Told
    from millrace.jobs.table import JobTable

LOOK_S = 0.25
"""A job whose back-off has run out changes nothing in the database, so the table is asked so often anyway."""


class Publisher(Protocol):
    """Tells others what has become of a job."""

    def publish(self, job: Job) -> None:
        """A queued job: wake somebody for it. One that has ended: tell who waits for it. May be lost or doubled."""
        ...

    def tick(self) -> None:
        """Called now and then by whoever serves: what was lost is sent again."""
        ...


@dataclass(frozen=True, slots=True)
class Errand:
    """Work that is no job of the table and came with its message. It takes a place and a share of memory as a job does.

    `given`: for the job process. `soft_s`, `hard_s`: limits of its own, None is the tier's. `began` is told the process,
    `ended` the end and what the process replied; `back`: nobody here takes it on.
    """

    label: str
    given: Mapping[str, Any]
    soft_s: float | None
    hard_s: float | None
    began: Callable[[int], None]
    ended: Callable[[Told, str | None], None]
    back: Callable[[], None]


class Queue(Publisher, Protocol):
    """Wakes workers of a tier."""

    bell: int | None
    """A file descriptor that is readable when somebody rings; None: look now and then."""

    def woken(self) -> bool:
        """Whether it is worth asking the table now; cheap."""
        ...

    def claimed(self, job: Job | None) -> bool:
        """Told what came of asking the table; whether it is worth asking once more."""
        ...

    def ended(self, job: Job) -> None:
        """The place of a claimed job is free again."""
        ...

    def errand(self) -> Errand | None:
        """Work that came with its message, if any."""
        ...

    def leave(self) -> None:
        """Nobody is to be woken any more; what was taken and not begun goes back."""
        ...

    def close(self) -> None: ...


class TableQueue:
    """Watches the table itself: on SQLite a bell rings for a job that waits, and the database says cheaply whether anything
    has changed; PostgreSQL is asked every `LOOK_S`/5.

    As a `Publisher` it has nothing to tell: whoever waits looks at the table.
    """

    def __init__(self, table: JobTable) -> None:
        self._table, self._asked_s = table, 0.0
        self.bell: int | None = None if table.bell is None else hung_at(table.bell)
        self._every_s = LOOK_S if table.engine.dialect.name == "sqlite" else LOOK_S / 5

    def publish(self, job: Job) -> None:
        return None

    def tick(self) -> None:
        return None

    def woken(self) -> bool:
        if self.bell is not None:
            hush(self.bell)
        now = time.monotonic()
        late = now - self._asked_s >= self._every_s
        if self._every_s == LOOK_S and self._table.changed():
            late = True
        if late:
            self._asked_s = now
        return late

    def claimed(self, job: Job | None) -> bool:
        return job is not None

    def ended(self, job: Job) -> None:
        return None

    def errand(self) -> Errand | None:
        return None

    def leave(self) -> None:
        if self.bell is not None:
            os.close(self.bell)
            self.bell = None

    def close(self) -> None:
        self.leave()
