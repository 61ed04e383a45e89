"""How much a user may keep in the inputs' folder: all that they have sent and that is there still, under names or not.

Who sent what is in the table of names, under the kind `sent`. What no name and no job mentions any more is taken away when
room is needed or a name is dropped. Who sits at this machine (no tokens) has no quota: the disk is theirs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from millrace.jobs.desk import Desk
from millrace.run.units import format_bytes
from millrace.service.problems import Refused

SENT = "sent"
FRESH_S = 60.0
"""What was put by so lately stays: somebody may be about to submit a job with it on the command line."""


@dataclass(slots=True)
class Room:
    """`limit_bytes` for each user. `submitting`: held while a job is added, and while what no job mentions is taken away."""

    desk: Desk
    limit_bytes: int
    submitting: threading.Lock = field(default_factory=threading.Lock)
    sending: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def of(self, user: str, given: str, size_bytes: int) -> Iterator[None]:
        """While an input that the user sends is put by. 413 when it is too much; nobody else sends meanwhile."""
        if not user:
            yield
            return
        with self.sending:
            if given not in (sent := self.sent(user)) and sum(sent.values()) + size_bytes > self.limit_bytes:
                self.release(user)
                used = sum(self.sent(user).values())
                if used + size_bytes > self.limit_bytes:
                    raise Refused(
                        413,
                        f"You keep {format_bytes(used)} of {format_bytes(self.limit_bytes)} here, and this is "
                        f"{format_bytes(size_bytes)} more: take names away (DELETE /v1/data/NAME, /v1/models/NAME). What no "
                        "name and no job has then makes room.",
                    )
            yield
            self.desk.table.name(SENT, f"{user}:{given}", given)

    def sent(self, user: str) -> dict[str, int]:
        """Bytes by input, of what the user has sent and is there."""
        found = {}
        for kind, full, given in self.desk.table.names():
            if kind == SENT and full == f"{user}:{given}":
                try:
                    found[given] = (self.desk.inputs / given).stat().st_size
                except FileNotFoundError:
                    self.desk.table.unname(kind, full)
        return found

    def release(self, user: str) -> None:
        """Take away what the user has sent, and no name, no job and nobody else has."""
        with self.submitting:
            names = self.desk.table.names()
            named = {given for kind, _, given in names if kind != SENT}
            of_others = {given for kind, full, given in names if kind == SENT and full != f"{user}:{given}"}
            for given in self.sent(user):
                place = self.desk.inputs / given
                fresh = time.time() - place.stat().st_mtime < FRESH_S
                if fresh or given in named or self.desk.table.mentions(given):
                    continue
                self.desk.table.unname(SENT, f"{user}:{given}")
                if given not in of_others:
                    place.unlink()
