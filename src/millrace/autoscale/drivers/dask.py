"""Replicas as workers of a Dask cluster that lives long: an adaptive target, by the cluster's own tasks.

Up by a command that starts one worker; it may as well hand it to a batch system. Down by retiring workers that the scheduler
itself sees idle, in the same step in which it is told to give them nothing more: their data moves first, and a worker with a
task is never stopped. Workers that this driver did not start count like its own, and outlive it.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client

from millrace.autoscale.policy import FAILED_BOOTS, Decision
from millrace.autoscale.signals import UNBOUNDED, Demand, Supply
from millrace.run.errors import MillraceError
from millrace.tiers import Tier

TIMEOUT_S = 10.0
BOOTS = 50


class DaskAway(MillraceError):
    """The scheduler cannot be reached, or a worker cannot be started."""


def _looker() -> Callable[..., dict[str, Any]]:
    """What the scheduler knows. Made within a function, so that it travels by value: millrace need not be there."""

    def look(dask_scheduler: Any) -> dict[str, Any]:
        workers, running, over = [], 0, 0
        for ws in dask_scheduler.workers.values():
            tasks = len(ws.processing) + len(ws.actors)
            running += min(tasks, ws.nthreads)
            over += max(0, tasks - ws.nthreads)
            workers.append((ws.address, str(ws.name), ws.status.name, tasks))
        waiting = len(dask_scheduler.queued) + len(dask_scheduler.unrunnable) + over
        return {"workers": workers, "running": running, "queued": waiting, "work_s": dask_scheduler.total_occupancy}

    return look


def _retirer() -> Callable[..., Any]:
    """Retires those of the given addresses that are idle at this moment, in one step of the scheduler's loop."""

    async def retire(addresses: list[str], dask_scheduler: Any) -> list[str]:
        from distributed.core import Status

        idle = [dask_scheduler.workers[a] for a in addresses if a in dask_scheduler.workers]
        idle = [ws for ws in idle if not ws.processing and not ws.actors and ws.status == Status.running]
        for ws in idle:  # before anything is awaited: from here on nothing is given to it
            dask_scheduler.handle_worker_status_change(Status.paused, ws, "millrace-retires")
        gone = await dask_scheduler.retire_workers(
            workers=[ws.address for ws in idle], close_workers=True, remove=True, stimulus_id="millrace-retires"
        )
        for ws in idle:  # its data has no other place: it stays, and works
            if ws.address not in gone and ws.address in dask_scheduler.workers:
                dask_scheduler.handle_worker_status_change(Status.running, ws, "millrace-retires")
        return list(gone)

    return retire


@dataclass(slots=True)
class _Boot:
    """A worker that was started and has not arrived. `pid`: of the command; `started`: on the steady clock."""

    pid: int
    started: float


class Adaptive:
    """The tasks and workers of the cluster at `address`, as signals of one tier; `command` has {address}, {name} and
    {threads}, which is the tier's `at_once`; `environ`: of the workers."""

    def __init__(
        self, address: str, command: Sequence[str], environ: Mapping[str, str],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._address, self._command, self._say, self._environ = address, tuple(command), say, environ
        self._client: Any = None
        self._boots: dict[str, _Boot] = {}
        self._left: set[int] = set()
        self._idle: dict[str, float] = {}
        self._boots_s: deque[float] = deque(maxlen=BOOTS)
        self._queued_since: float | None = None

    def demand(self, tier: str) -> Demand:
        """Tasks that wait and run. The oldest waits at most for as long as some have."""
        seen, steady = self._look(), time.monotonic()
        if not seen["queued"]:
            self._queued_since = None
        elif self._queued_since is None:
            self._queued_since = steady
        waited_s = 0.0 if self._queued_since is None else steady - self._queued_since
        return Demand(seen["queued"], waited_s, seen["running"], seen["work_s"])

    def observe(self, tier: Tier) -> Supply:
        workers, steady = self._workers(), time.monotonic()
        ready = [address for address, status, _ in workers if status in ("running", "paused")]
        idle = tuple(steady - self._idle[address] for address in ready if address in self._idle)
        booting = tuple(steady - boot.started for boot in self._boots.values())
        return Supply(len(ready), booting, len(workers) - len(ready), idle, self._boot_s(tier), UNBOUNDED)

    def apply(self, tier: Tier, decision: Decision) -> None:
        if decision.serving is None or not decision.changes:
            return
        workers, steady = self._workers(), time.monotonic()
        ready = [address for address, status, _ in workers if status in ("running", "paused")]
        if decision.give_up:
            limit_s = FAILED_BOOTS * self._boot_s(tier)
            for name in [n for n, boot in self._boots.items() if steady - boot.started > limit_s]:
                _end(self._boots.pop(name).pid)
        serving = len(ready) + len(self._boots)
        if decision.start:
            missing = decision.serving + decision.start - serving
            for _ in range(min(missing, tier.most - len(workers) - len(self._boots))):
                self._start(tier)
        if decision.drain:
            too_many = serving - (decision.serving - decision.drain)
            longest = sorted((a for a in ready if a in self._idle), key=self._idle.__getitem__)
            chosen = longest[: max(0, min(decision.drain, too_many))]
            if chosen:
                self._ask(lambda client: client.run_on_scheduler(_retirer(), chosen))

    def close(self, grace_s: float) -> None:
        """Leave the cluster; its workers stay."""
        if self._client is not None:
            self._client.close(timeout=grace_s)
            self._client = None

    def _workers(self) -> list[tuple[str, str, int]]:
        """(address, status, tasks) of all; who has arrived boots no more, and idleness is measured from here."""
        steady = time.monotonic()
        seen = [(str(a), str(n), str(s), int(t)) for a, n, s, t in self._look()["workers"]]
        for _, name, _, _ in seen:
            boot = self._boots.pop(name, None)
            if boot is not None:
                self._boots_s.append(steady - boot.started)
                self._left.add(boot.pid)
        self._left = {pid for pid in self._left if _exit_code(pid) is None}
        for name, boot in list(self._boots.items()):
            code = _exit_code(boot.pid)
            if code:  # one that hands the worker to a batch system ends with 0 before it arrives
                del self._boots[name]
                self._say(f"dask: {self._command[0]!r} ended with exit code {code} before its worker arrived")
        idle = {address for address, _, _, tasks in seen if not tasks}
        self._idle = {address: self._idle.get(address, steady) for address in idle}
        return [(address, status, tasks) for address, _, status, tasks in seen]

    def _look(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(lambda client: client.run_on_scheduler(_looker()))
        return found

    def _ask(self, what: Callable[[Any], Any]) -> Any:
        try:
            if self._client is None:
                connect: Any = Client
                self._client = connect(self._address, timeout=TIMEOUT_S, set_as_default=False)
            return what(self._client)
        except (OSError, TimeoutError) as away:
            if self._client is not None:
                self._client.close(timeout=1)
                self._client = None
            raise DaskAway(
                f"The Dask scheduler at {self._address} cannot be reached: {away}. Look whether it runs, and whether the "
                "address under [scaler.dask] is right."
            ) from away

    def _boot_s(self, tier: Tier) -> float:
        seen = sorted(self._boots_s)
        return max(TIMEOUT_S, seen[min(len(seen) - 1, int(0.95 * len(seen)))]) if seen else tier.boot_s

    def _start(self, tier: Tier) -> None:
        name = f"millrace-{secrets.token_hex(4)}"
        words = [word.format(address=self._address, name=name, threads=tier.at_once) for word in self._command]
        try:
            pid = _spawn(words, self._environ)
        except OSError as wrong:
            raise DaskAway(
                f"A Dask worker cannot be started by {words[0]!r}: {wrong}. Look at `command` under [scaler.dask]."
            ) from wrong
        self._boots[name] = _Boot(pid, time.monotonic())


def _spawn(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """A process in a session of its own, which may outlive this one: no object of subprocess's, which would complain."""
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    return os.posix_spawnp(words[0], list(words), environ, file_actions=[nothing], setsid=True)


def _exit_code(pid: int) -> int | None:
    """None while it lives; 0 once it was seen to have ended."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


def _end(pid: int) -> None:
    if _exit_code(pid) is None:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
