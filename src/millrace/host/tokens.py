"""Tokens for this host's cores: one lock file a core, shared by all runs of a user, released by the kernel on death.

Who is about to compute takes a token and gives it back when it has done a piece; so many runs never compute on more
cores than there are, use all of them while any has work, and one alone never waits. Turns are first come, first served:
who finds no core waits in the lock of one gate file, whose holder looks for a core once a millisecond. A turn lasts
`TURN_NS` of holding, in however many pieces, so that short pieces are not worth less than long ones; what takes longer
in one piece (a long task) keeps its core.

A process that was stopped (SIGSTOP, Ctrl-Z) while it holds a token uses no core: after `LATE_S` others take its core
by a second lock file, and pass a gate whose holder is stopped. When it goes on there is one more than cores until the
piece ends. Does not know what is computed, and measures no load of other programs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from millrace.host.cgroups import Root, read_text
from millrace.host.instances import holders
from millrace.host.scratch import candidates

TURN_NS = 100_000_000
POLL_S = 0.001
LATE_S = 2.0
GATE = "gate"
_holding: ContextVar[bool] = ContextVar("millrace_holding", default=False)
"""Whether this thread holds a token already: what it starts inside of a task computes on that one."""


def places() -> list[Path]:
    """Where locks may lie when nobody says. Not in $TMPDIR: it differs between programs that are to share a host."""
    return candidates({**os.environ, "TMPDIR": ""})


def holds() -> bool:
    """Whether this thread computes on a token: a run that it opens must take none, or it would wait for itself."""
    return _holding.get()


class CoreTokens:
    """One taker: a worker, or the engine of a thread. `folder` is on a disk of this host; `count`: its cores.

    `name`: what the lock files are called, and `numbers` (0 to `count` - 1 when not given) how they end.
    Pickles as its arguments; files are opened by whoever takes first.
    """

    def __init__(self, folder: str | Path, count: int, name: str = "core", numbers: tuple[int, ...] = ()) -> None:
        self._folder, self._name = str(folder), name
        self._numbers = numbers or tuple(range(max(1, count)))
        self._count = len(self._numbers)
        self._pid, self._held = 0, -1
        self._gate = -1
        self._cores: list[int] = []
        self._lent: dict[int, int] = {}
        self._since_ns, self._spent_ns = 0, TURN_NS
        self._next = 0
        self.core = -1
        """Which one is held; -1: none."""

    def __reduce__(self) -> tuple[type[CoreTokens], tuple[str, int, str, tuple[int, ...]]]:
        return type(self), (self._folder, self._count, self._name, self._numbers)

    def take(self) -> int:
        """Hold a core; returns the ns that it took, 0 when there was one at once. Holding one already is fine."""
        if self._held >= 0:
            return 0
        if self._pid != os.getpid():
            self._open()
        began_ns = time.monotonic_ns()
        waited = False
        if self._spent_ns >= TURN_NS or not self._try():
            waited = self._queue()
            self._spent_ns = 0
        self._since_ns = time.monotonic_ns()
        self._mark(True)
        return self._since_ns - began_ns if waited else 0

    def release(self) -> None:
        """Let it go. Holding none is fine."""
        if self._held < 0:
            return
        fcntl.flock(self._held, fcntl.LOCK_UN)
        self._held = self.core = -1
        self._spent_ns += time.monotonic_ns() - self._since_ns
        self._mark(False)

    def _mark(self, held: bool) -> None:
        if self._name == "core":
            _holding.set(held)

    def close(self) -> None:
        if self._pid == os.getpid():
            self.release()
            for fd in (self._gate, *self._cores, *self._lent.values()):
                os.close(fd)
        self._forget()

    # -- taking ------------------------------------------------------------------------------------------------
    def _open(self) -> None:
        """A forked copy opens the files anew: a lock belongs to the open file, which it shares with its parent."""
        self._forget()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._gate = self._file(GATE if self._name == "core" else f"{self._name}-{GATE}")
        self._cores = [self._file(f"{self._name}-{i}") for i in self._numbers]
        self._next = random.randrange(self._count)
        self._pid = os.getpid()

    def _forget(self) -> None:
        self._pid, self._held, self._gate, self.core = 0, -1, -1, -1
        self._cores, self._lent, self._spent_ns = [], {}, TURN_NS

    def _file(self, name: str) -> int:
        fd = os.open(os.path.join(self._folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.utime(fd)  # whoever sweeps old files must see that it is in use
        return fd

    def _try(self) -> bool:
        for i in range(self._count):
            core = (self._next + i) % self._count
            if _lock(self._cores[core]):
                self._held, self.core, self._next = self._cores[core], self._numbers[core], core
                return True
        return False

    def _queue(self) -> bool:
        """Through the gate to a core; whether that meant waiting."""
        passed = waited = False
        try:
            passed = _lock(self._gate)
            if not passed:
                waited, passed = True, self._wait_at_gate()
            late_s = time.monotonic() + LATE_S
            while not self._try():
                waited = True
                time.sleep(POLL_S)
                if time.monotonic() > late_s:
                    if self._borrow():
                        break
                    late_s = time.monotonic() + LATE_S
        finally:
            if passed:
                fcntl.flock(self._gate, fcntl.LOCK_UN)
        return waited

    def _wait_at_gate(self) -> bool:
        """In line, in the kernel. False when the gate's holder is stopped and so the gate does not count.

        A thread waits, since nothing else ends a wait for a lock without touching the signals of a program that is not
        ours; one that is given up lets the gate go as soon as it gets it.
        """
        line = _Line(self._folder, self._gate)
        try:
            while not line.wait(LATE_S):
                stopped = any(is_stopped(pid) for pid, _ in holders([Path(self._folder, self._gate_name)]))
                if stopped and line.give_up():
                    return False
        except BaseException:  # Ctrl-C in the line: what comes through it now must not keep the gate
            if not line.give_up():
                fcntl.flock(self._gate, fcntl.LOCK_UN)
            raise
        return True

    @property
    def _gate_name(self) -> str:
        return GATE if self._name == "core" else f"{self._name}-{GATE}"

    def _borrow(self) -> bool:
        """The core of a process that is stopped."""
        names = {f"{self._name}-{i}": i for i in self._numbers}
        for pid, path in holders([Path(self._folder, name) for name in names]):
            if not is_stopped(pid):
                continue
            core = names[path.name]
            if core not in self._lent:
                self._lent[core] = self._file(f"{self._name}-{core}.lent")
            if _lock(self._lent[core]):
                self._held, self.core = self._lent[core], core
                return True
        return False


class _Line:
    """One place in the line before a gate, held by a thread."""

    def __init__(self, folder: str, gate: int) -> None:
        self._gate = gate
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._given_up = False
        threading.Thread(target=self._stand, daemon=True, name="millrace-gate").start()

    def _stand(self) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile: nobody waits any more
            fcntl.flock(self._gate, fcntl.LOCK_EX)
        with self._lock:
            if self._given_up:
                with contextlib.suppress(OSError):
                    fcntl.flock(self._gate, fcntl.LOCK_UN)
            self._over.set()

    def wait(self, timeout_s: float) -> bool:
        return self._over.wait(timeout_s)

    def give_up(self) -> bool:
        """False when it is through already."""
        with self._lock:
            self._given_up = not self._over.is_set()
            return self._given_up


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def is_stopped(pid: int, root: Root = "/") -> bool:
    """Whether a process is stopped by a signal or a debugger."""
    fields = (read_text(Path(root, f"proc/{pid}/stat")) or "").rpartition(")")[2].split()
    return bool(fields) and fields[0] in ("T", "t")


def held(folder: Path) -> dict[int, int]:
    """Process -> core tokens that it holds now."""
    files = [p for p in sorted(folder.glob("core-*")) if re.fullmatch(r"core-\d+(\.lent)?", p.name)]
    found: dict[int, int] = {}
    for pid, _ in holders(files):
        found[pid] = found.get(pid, 0) + 1
    return found


@contextlib.contextmanager
def holding(tokens: CoreTokens) -> Iterator[int]:
    """Hold one for the block; gives its number."""
    tokens.take()
    try:
        yield tokens.core
    finally:
        tokens.release()
