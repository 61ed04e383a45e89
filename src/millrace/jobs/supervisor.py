"""What `millrace up` keeps running on one jobs' folder: workers of every tier, as many as are wanted, and started again.

Workers are processes of their own that die with the supervisor (they pause what they run first). How many are wanted is
asked of a function; nobody here chooses a worker to stop: those above the least leave by themselves when idle.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from millrace.jobs.celery.broker import BrokerAway
from millrace.jobs.database import DatabaseAway
from millrace.jobs.desk import Desk
from millrace.jobs.signals import TierLoad, tier_loads
from millrace.jobs.table import Sweeper
from millrace.jobs.tiers import Tier
from millrace.run.errors import WrongQuestion

Wanted = Callable[[Tier, TierLoad], int]
TICK_S, HOUSEKEEPING_S = 0.2, 3600.0
IDLE_S = 10.0
QUICK_S, AGAIN_S, AGAIN_MOST_S = 5.0, 0.5, 30.0
AWAY_SAID_S = 10.0


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


def by_jobs(tier: Tier, load: TierLoad) -> int:
    """Workers for all jobs that wait or run, between the tier's bounds."""
    jobs = load.queued + load.running
    return max(tier.least, min(-(-jobs // tier.at_once), tier.least if tier.most is None else tier.most))


@dataclass(slots=True)
class Kept:
    """A worker process. `stays`: it does not leave when idle."""

    tier: str
    process: subprocess.Popen[bytes]
    stays: bool
    since_s: float


@dataclass(slots=True)
class Supervisor:
    """`arguments`: the settings, as options of `millrace worker`. `wanted`: how many workers a tier is to have. `loads`: of
    the tiers, what the job table says when it is not given."""

    desk: Desk
    arguments: list[str]
    say: Callable[[str], None]
    wanted: Wanted = by_jobs
    loads: Callable[[], Mapping[str, TierLoad]] | None = None
    idle_s: float = IDLE_S
    kept: list[Kept] = field(default_factory=list)
    stopping: bool = False
    _not_before: dict[str, float] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)
    _tidy_s: float = 0.0
    _said_s: float = 0.0

    def stop(self) -> None:
        """Drain everything and end. Safe in a signal handler."""
        self.stopping = True

    def serve(self) -> None:
        sweeper = Sweeper(self.desk.table, max(0.5, self.desk.tiers.lease_s / 15))
        try:
            while not self.stopping:
                self._reap()
                try:
                    self._start_missing(self.loads() if self.loads else self.table_loads())
                    for job in sweeper.tick():
                        self.say(f"job {job.id} was lost by its worker: {job.state}")
                    self._tidy()
                except (DatabaseAway, BrokerAway) as e:
                    self._hold(e)  # the workers hold still; nothing is started or stopped on a guess
                time.sleep(TICK_S)
        finally:
            self.drain()

    def table_loads(self) -> dict[str, TierLoad]:
        return tier_loads(self.desk.table, tuple(self.desk.tiers.tiers))

    def _hold(self, why: Exception) -> None:
        """Said once in a while: it may be away for long."""
        if time.monotonic() >= self._said_s:
            self._said_s = time.monotonic() + AWAY_SAID_S
            self.say(str(why))

    def drain(self) -> None:
        """Workers pause what they run, keep it, and leave; who does not within the grace is killed."""
        for worker in self.kept:
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self.desk.tiers.grace_s + 10
        for worker in self.kept:
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.kept.clear()

    def _reap(self) -> None:
        for worker in list(self.kept):
            code = worker.process.poll()
            if code is None:
                continue
            self.kept.remove(worker)
            lasted = time.monotonic() - worker.since_s
            if code == 0:
                continue
            bad = self._failures[worker.tier] = self._failures.get(worker.tier, 0) + 1 if lasted < QUICK_S else 1
            pause = min(AGAIN_MOST_S, AGAIN_S * 2 ** (bad - 1))
            self._not_before[worker.tier] = time.monotonic() + pause
            self.say(f"{worker.tier}: a worker ended with {code} after {lasted:.0f} s; started again in {pause:g} s")

    def _start_missing(self, loads: Mapping[str, TierLoad]) -> None:
        now = time.monotonic()
        for tier in self.desk.tiers.tiers.values():
            if self._not_before.get(tier.name, 0.0) > now:
                continue
            mine = [worker for worker in self.kept if worker.tier == tier.name]
            for _ in range(max(0, self.wanted(tier, loads[tier.name]) - len(mine))):
                staying = sum(worker.stays for worker in self.kept if worker.tier == tier.name)
                self._start(tier, stays=staying < tier.least)

    def _start(self, tier: Tier, stays: bool) -> None:
        command = [sys.executable, "-m", "millrace", "worker", "--tier", tier.name, "--parent", str(os.getpid())]
        command += self.arguments
        if not stays:
            command += ["--idle-s", str(self.idle_s)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.kept.append(Kept(tier.name, process, stays, time.monotonic()))

    def _tidy(self) -> None:
        if time.monotonic() >= self._tidy_s:
            self._tidy_s = time.monotonic() + HOUSEKEEPING_S
            self.desk.keep_within_days()
