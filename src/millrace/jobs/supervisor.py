"""What `millrace up` does beside scaling, on one jobs' folder: holds it, sweeps lost jobs, keeps old files within their days.

How many workers there are is the keeper's business (see `millrace.scaling`); they are processes of their own that die with
`up`, and pause what they run first.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from millrace.jobs.database import DatabaseAway
from millrace.jobs.desk import Desk
from millrace.jobs.table import Sweeper
from millrace.run.errors import WrongQuestion

TICK_S, HOUSEKEEPING_S, AWAY_SAID_S = 0.2, 3600.0, 10.0


@contextmanager
def held(home: Path) -> Iterator[None]:
    """The folder is served by this process alone; `WrongQuestion` says who holds it otherwise. Freed by the kernel."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = json.loads(file.read() or "{}")
            raise WrongQuestion(
                f"The jobs in {home} are served already, by process {who.get('pid')} on {who.get('host')} since "
                f"{who.get('since')}. Submit to it with `millrace submit`, or stop it with Ctrl-C first."
            ) from None
        file.truncate(0)
        file.write(
            json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        )
        file.flush()
        yield


class Keeper(Protocol):
    """Who keeps as many workers as are wanted (see `millrace.scaling`)."""

    def turn(self) -> None: ...

    def close(self, grace_s: float) -> None: ...


@dataclass(slots=True)
class Supervisor:
    """`keeper`: of the workers."""

    desk: Desk
    say: Callable[[str], None]
    keeper: Keeper | None = None
    stopping: bool = False
    _tidy_s: float = 0.0
    _said_s: float = 0.0

    def stop(self) -> None:
        """Drain everything and end. Safe in a signal handler."""
        self.stopping = True

    def serve(self) -> None:
        """Until it is stopped; then workers pause what they run, keep it, and leave."""
        assert self.keeper is not None
        sweeper = Sweeper(self.desk.table, max(0.5, self.desk.tiers.lease_s / 15))
        try:
            while not self.stopping:
                self.keeper.turn()
                try:
                    for job in sweeper.tick():
                        self.say(f"job {job.id} was lost by its worker: {job.state}")
                    self._tidy()
                except DatabaseAway as e:
                    self._hold(e)  # the workers hold still; nothing is started or stopped on a guess
                time.sleep(TICK_S)
        finally:
            self.say(f"Draining: what runs is paused between two tasks, within {self.desk.tiers.grace_s:g} s.")
            self.keeper.close(self.desk.tiers.grace_s + 10)

    def _hold(self, why: Exception) -> None:
        """Said once in a while: it may be away for long."""
        if time.monotonic() >= self._said_s:
            self._said_s = time.monotonic() + AWAY_SAID_S
            self.say(str(why))

    def _tidy(self) -> None:
        if time.monotonic() >= self._tidy_s:
            self._tidy_s = time.monotonic() + HOUSEKEEPING_S
            self.desk.keep_within_days()
