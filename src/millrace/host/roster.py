"""The runs of a user on this host: a file each, which its driver holds locked, with what it may take.

The kernel lets the lock go however a driver ends, and whoever looks next takes the file away. Memory is shared by what
runs declare (the peaks of their plans): one that does not fit beside the others waits for its turn, in the order in
which they came; after `PATIENCE_S` it takes as few slots as fit. A run that is alone, or has something declared
already, never waits, so none waits in a circle. Nobody is held to what it declared here: its own ceilings do that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from millrace.host.tokens import is_stopped

PATIENCE_S = 10.0
POLL_S = 0.05
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Entry:
    """A run: its driver, what it is called, cores it may use, bytes it declared, and since when it waits for how many
    (monotonic seconds, 0.0 and 0 when it does not)."""

    pid: int
    run_id: str
    cores: int
    declared_bytes: int = 0
    waits_since_s: float = 0.0
    wanted_bytes: int = 0


class Roster:
    """`folder` is on a disk of this host; `limit_bytes`: what all runs may declare together."""

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = Path(folder), limit_bytes
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._fd, self._pid = self._folder, -1, os.getpid()
        self._entry = Entry(0, "", 0)

    def enter(self, run_id: str, cores: int) -> None:
        """Be seen by others until `close`, or until this process has died."""
        self._entry = Entry(os.getpid(), run_id, cores)
        with self._locked():
            self._path = self._folder / f"{secrets.token_hex(8)}.run"
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._say(self._entry)

    def admit(
        self,
        peak_bytes: Callable[[int], int],
        slots: int,
        ending: Callable[[], bool],
        waits: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> int:
        """Declare `peak_bytes(slots)` and return the slots; fewer when that is all that fits after `patience_s`.

        `waits` is told once, before the first wait, for whom; `ending`: the run is to end, and goes on undeclared.
        """
        began_s, told = time.monotonic(), False
        while True:
            with self._locked():
                others = self._others()
                may = self._may(others, peak_bytes, slots, time.monotonic() - began_s > patience_s)
                if may:
                    held = max(self._entry.declared_bytes, peak_bytes(may))
                    self._say(replace(self._entry, declared_bytes=held, waits_since_s=0.0, wanted_bytes=0))
                    return may
                if not self._entry.waits_since_s:
                    self._say(replace(self._entry, waits_since_s=began_s, wanted_bytes=peak_bytes(slots)))
            if ending():
                with self._locked():
                    self._say(replace(self._entry, waits_since_s=0.0, wanted_bytes=0))
                return slots
            if not told:
                told = True
                waits(", ".join(f"{e.run_id} (process {e.pid})" for e in others if e.declared_bytes))
            time.sleep(POLL_S)

    def close(self) -> None:
        if self._fd >= 0 and self._pid == os.getpid():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._fd)
        self._fd = -1

    def _may(self, others: list[Entry], peak_bytes: Callable[[int], int], slots: int, patient: bool) -> int:
        """How many slots may start now; 0: wait."""
        others_bytes = sum(e.declared_bytes for e in others)
        own = self._entry
        if not others_bytes or own.declared_bytes or any(e.pid == own.pid and e.declared_bytes for e in others):
            return slots  # who holds something must not wait for more: two of them would wait for each other
        if any(self._before(e) for e in others):
            return 0
        free = self._limit_bytes - others_bytes
        if peak_bytes(slots) <= free:
            return slots
        fitting = (n for n in range(slots - 1, 0, -1) if peak_bytes(n) <= free)
        return next(fitting, 0) if patient else 0

    def _before(self, other: Entry) -> bool:
        """Whether another run waits and came first. One that is stopped does not keep the line waiting."""
        since = self._entry.waits_since_s or time.monotonic()
        return 0.0 < other.waits_since_s < since and not is_stopped(other.pid)

    def _others(self) -> list[Entry]:
        return [entry for path, entry in _entries(self._folder) if path != self._path]

    def _say(self, entry: Entry) -> None:
        self._entry = entry
        data = json.dumps(asdict(entry)).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def roster(folder: Path) -> list[Entry]:
    """The runs that live, oldest file name first; takes nothing away."""
    return [entry for _, entry in _entries(folder, sweep=False)]


def _entries(folder: Path, sweep: bool = True) -> Iterator[tuple[Path, Entry]]:
    for path in sorted(folder.glob("*.run")):
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if sweep:
                    path.unlink()  # its driver is dead
            except BlockingIOError:
                with contextlib.suppress(ValueError, TypeError):  # seen in the middle of a write: it will be whole soon
                    yield path, Entry(**json.loads(file.read()))
