"""Replicas as processes of this host: started by a command, and asked to leave by SIGUSR1, which a busy worker ignores.

A worker that is asked and idle stops claiming and exits 0; the worker decides, because only it knows at that moment. The
crew (the job table) says what each worker does. Workers that this driver did not start, such as those of a scaler that
was killed, count like its own. A worker enters the crew as idle only once it handles the signal. Does not restart what
dies: the next tick sees that it is not there; after one that ended badly at once, it pauses first.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from millrace.autoscale.policy import FAILED_BOOTS, Decision
from millrace.autoscale.signals import UNBOUNDED, Crew, Supply, Worker
from millrace.run.errors import MillraceError
from millrace.tiers import Tier

ASKED_S = 10.0
"""An idle worker that was asked to leave and is still there after this time is asked again."""

LEAST_BOOT_S = 10.0
"""Processes come up within a second, and under load in ten: a shorter figure would call the slow ones failed."""

QUICK_S, PAUSE_S, PAUSE_MOST_S = 5.0, 0.5, 60.0
"""A worker that ends badly within the first is followed by the next after the second, doubled each time, at most the third."""

BOOTS = 50
"""Boot times remembered."""


class CannotStart(MillraceError):
    """The command that starts a worker cannot be run."""


@dataclass(slots=True)
class _Child:
    """A process that this driver started. `started`: on the steady clock."""

    process: subprocess.Popen[bytes]
    started: float
    up: bool = False
    given_up: bool = False


@dataclass(slots=True)
class _State:
    """What is known of one tier. `asked`: pids asked to leave, and when (time of day); `bad`: starts in a row that ended badly
    at once; `not_before`: on the steady clock."""

    children: dict[int, _Child] = field(default_factory=dict)
    asked: dict[int, float] = field(default_factory=dict)
    boots_s: deque[float] = field(default_factory=lambda: deque(maxlen=BOOTS))
    bad: int = 0
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What lives of a tier. `idle`: those of this host that may be asked to leave; part of `ready`."""

    ready: int
    idle: tuple[Worker, ...]
    booting_s: tuple[float, ...]
    leaving: int


class Processes:
    """Starts workers by `command(tier)`, with `environ` if given; `capacity` is how many of a tier this host can hold; `say`
    hears of workers that ended badly; `log`: where they write, for those that outlive this process."""

    def __init__(
        self, command: Callable[[Tier], Sequence[str]], crew: Crew, environ: Mapping[str, str] | None = None,
        capacity: Callable[[Tier], int] = lambda _: UNBOUNDED, host: str | None = None, least_boot_s: float = LEAST_BOOT_S,
        say: Callable[[str], None] = lambda _: None, log: Path | None = None,
    ) -> None:  # fmt: skip
        self._command, self._crew, self._environ, self._capacity = command, crew, environ, capacity
        self._host, self._least_boot_s = host or socket.gethostname(), least_boot_s
        self._tiers: dict[str, _State] = {}
        self._say, self._log = say, log

    def observe(self, tier: Tier) -> Supply:
        """What there is now. Raises what the crew raises: a crew that cannot be read is not an empty one."""
        look, now = self._look(tier), time.time()
        idle = tuple(max(0.0, now - worker.since) for worker in look.idle)
        return Supply(look.ready, look.booting_s, look.leaving, idle, self._boot_s(tier), self._capacity(tier))

    def apply(self, tier: Tier, decision: Decision) -> None:
        """Bring what serves to what was decided: doing it twice is as doing it once."""
        if decision.serving is None:
            return
        if decision.give_up:
            self._give_up(tier)
        look, state = self._look(tier), self._state(tier)
        serving = look.ready + len(look.booting_s)
        if decision.start and time.monotonic() >= state.not_before:
            wanted = min(decision.serving + decision.start - serving, tier.most - serving - look.leaving)
            for _ in range(wanted):
                self._start(tier, state)
        if decision.drain:
            longest = sorted(look.idle, key=lambda worker: worker.since)
            too_many = serving - (decision.serving - decision.drain)
            for worker in longest[: max(0, min(decision.drain, too_many))]:
                self._ask(state, worker)

    def close(self, grace_s: float = 30.0) -> None:
        """End the workers that this driver started: SIGTERM, by which they keep what is done, and at last SIGKILL."""
        children = [c for state in self._tiers.values() for c in state.children.values()]
        for child in children:
            if child.process.poll() is None:
                child.process.terminate()
        end = time.monotonic() + grace_s
        for child in children:
            try:
                child.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill(child)

    def _state(self, tier: Tier) -> _State:
        """With those that have ended taken out."""
        state = self._tiers.setdefault(tier.name, _State())
        for pid in [p for p, c in state.children.items() if c.process.poll() is not None]:
            self._ended(tier, state, state.children.pop(pid))
            state.asked.pop(pid, None)
        return state

    def _ended(self, tier: Tier, state: _State, child: _Child) -> None:
        code, lasted_s = child.process.returncode, time.monotonic() - child.started
        if code == 0 or child.given_up:
            state.bad = 0
            return
        state.bad = state.bad + 1 if lasted_s < QUICK_S else 0
        pause_s = min(PAUSE_MOST_S, PAUSE_S * 2 ** (state.bad - 1)) if state.bad else 0.0
        state.not_before = time.monotonic() + pause_s
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        after = f"; the next one in {pause_s:g} s" if pause_s else ""
        self._say(f"{tier.name}: a worker {how} after {lasted_s:.0f} s{after}")

    def _seen(self, tier: Tier) -> list[Worker]:
        """The crew without those of this host that are gone, whose lines it may still hold."""
        state, found = self._tiers[tier.name], []
        for worker in self._crew.crew(tier.name):
            child = state.children.get(worker.pid) if worker.host == self._host else None
            if worker.host == self._host and child is None and not _lives(worker.pid):
                continue
            if child is not None and child.given_up:
                continue
            if child is not None and not child.up and worker.state != "booting":
                child.up = True
                state.boots_s.append(time.monotonic() - child.started)
            found.append(worker)
        return found

    def _look(self, tier: Tier) -> _Look:
        """Everything that lives. A worker of ours that was up and is not in the crew now is taken to be busy."""
        state, seen = self._state(tier), self._seen(tier)
        leaving, steady = self._leaving(state, seen, time.time()), time.monotonic()
        ready = [w for w in seen if w.state in ("idle", "busy") and w not in leaving]
        told = {w.pid for w in seen if w.host == self._host}
        missed = sum(c.up and not c.given_up and p not in told for p, c in state.children.items())
        booting = [steady - c.started for c in state.children.values() if not c.up and not c.given_up]
        strange = [0.0 for w in seen if w.state == "booting" and not self._mine(state, w)]
        idle = [w for w in ready if w.state == "idle" and w.host == self._host]
        return _Look(len(ready) + missed, tuple(idle), (*booting, *strange), len(leaving))

    def _leaving(self, state: _State, seen: Sequence[Worker], now: float) -> list[Worker]:
        """Those that drain, and those asked to leave of which no more is known yet. Who took a job after all is not."""
        found = []
        for worker in seen:
            at = state.asked.get(worker.pid) if worker.host == self._host else None
            if at is not None and (worker.state == "busy" or now - at > ASKED_S):
                del state.asked[worker.pid]
                at = None
            if worker.state == "draining" or at is not None:
                found.append(worker)
        return found

    def _mine(self, state: _State, worker: Worker) -> bool:
        return worker.host == self._host and worker.pid in state.children

    def _boot_s(self, tier: Tier) -> float:
        """The 95th percentile of those seen; the setting while none was."""
        seen = sorted(self._state(tier).boots_s)
        return max(self._least_boot_s, seen[min(len(seen) - 1, int(0.95 * len(seen)))]) if seen else tier.boot_s

    def _start(self, tier: Tier, state: _State) -> None:
        command = list(self._command(tier))
        try:
            with ExitStack() as opened:
                said = None if self._log is None else opened.enter_context(self._log.open("ab"))
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                    env=self._environ,
                )
        except OSError as wrong:
            raise CannotStart(
                f"A worker of the tier {tier.name} cannot be started by {command[0]!r}: {wrong}. Look whether it is "
                "installed and this user may run it."
            ) from wrong
        state.children[process.pid] = _Child(process, time.monotonic())

    def _ask(self, state: _State, worker: Worker) -> None:
        try:
            os.kill(worker.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return  # it has left already
        except PermissionError as wrong:
            raise CannotStart(f"The worker {worker.pid} is of another user and cannot be asked to leave.") from wrong
        state.asked[worker.pid] = time.time()

    def _give_up(self, tier: Tier) -> None:
        """Boots that are too long; what never came up holds no job."""
        self._look(tier)  # who has come up meanwhile
        limit, steady = FAILED_BOOTS * self._boot_s(tier), time.monotonic()
        for child in self._state(tier).children.values():
            if not child.up and not child.given_up and steady - child.started > limit:
                child.given_up = True
                self._kill(child)

    @staticmethod
    def _kill(child: _Child) -> None:
        if child.process.poll() is None:
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
