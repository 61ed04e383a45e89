"""On a Dask worker: messages of tasks, carried out in processes of our own that a small fork server there holds.

A Dask worker never reads a task: it hands the driver's frame to a process and the results back. So a task that crashes,
hangs or hoards memory costs that process, which has a successor in milliseconds, and never the Dask worker with the data
of others; ceilings are held as on one host; and no task shares an interpreter with another, whatever `nthreads` is.

The pools of an engine live as long as its lease, a small future that Dask drops when the driver is gone. Decides
nothing: see `engine`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import shutil
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from millrace.engines.dask.words import Death, Held, Kept, Progress, Reply, Terms, open_with, opener_at
from millrace.engines.processes import page
from millrace.engines.processes.frames import LAST, LENGTH, TASKS, parse_results
from millrace.engines.processes.pool import Pool

if TYPE_CHECKING:
    from millrace.run.ports import Store

GRACE_NS = 20_000_000
"""How long a task that nobody wants may go on before its process is killed."""
LOOK_S = 0.5
"""Between two looks whether the lease is still there."""
UNLEASED_S = 60.0
"""How long a host waits for its first lease."""
DROPS = 128
"""Groups and messages that are not wanted, which a new process is told of."""


class NotEnlisted(Exception):
    """A message came to a worker that joined later: the driver enlists it and sends the message again."""


class Seat:
    """One place for one message at a time: a pool of one process."""

    def __init__(self, index: int, terms: Terms) -> None:
        self.index = index
        self.pool = Pool(1, terms.preload, dict(terms.environment), terms.hand_back_ns)
        self.known: set[int] = set()
        self.place: bytes = b""
        self.fresh = True
        self.number = 0
        self.frames: list[bytes] = []
        self.unwanted: set[int] = set()
        self.ready_ns = 0

    @property
    def running(self) -> tuple[int, int]:
        """(the task that runs, since when)."""
        cells, at = self.pool.pages.cells, page.base(0)
        return cells[at + page.SEQ], cells[at + page.START_NS]


class Host:
    """One engine's pools on one Dask worker."""

    def __init__(self, worker: Any, terms: Terms) -> None:
        self.worker, self.terms = worker, terms
        self.lock = threading.Lock()
        self.free: list[Seat] = []
        self.seats: list[Seat] = []
        self.at_work: dict[int, Seat] = {}
        self.dropped: deque[int] = deque(maxlen=DROPS)
        self.over: deque[int] = deque(maxlen=DROPS)
        self.ended = False
        folder = Path(worker.local_directory).parent
        self.scratch = Scratch(folder, terms.engine)
        self.arena_path = str(self.scratch.path / "arena")
        self._arena: Store | None = None
        self.same_place = terms.machine == machine() and terms.prefix == sys.prefix
        self.modules = [self.scratch.unpack(name, data) for name, data in terms.modules]
        self.most_bytes = dict(terms.memory_bytes).get(machine(), 0)
        self._opener = opener_at(self.arena_path, terms.opener)
        for _ in range(worker.state.nthreads):
            seat = Seat(len(self.seats), terms)
            self.seats.append(seat)
            self.free.insert(0, seat)
        self._watch = threading.Thread(target=self._look, name="millrace-lease", daemon=True)
        self._watch.start()

    # -- a message ---------------------------------------------------------------------------------------------
    def carry(self, number: int, frame: bytes, keys: tuple[str, ...], needs: tuple[Kept, ...]) -> Reply | Held:
        began_ns = monotonic_ns()
        for kept in needs:
            kept.land(self.arena)
        with self.lock:
            if self.ended or number in self.dropped:
                return Reply(number, self.worker.address, 0, 0, began_ns, began_ns, 0, ())
            seat = self.free.pop()
            seat.number, seat.frames, seat.unwanted = number, [], set()
            self.at_work[number] = seat
        try:
            death = self._run(seat, frame)
        finally:
            with self.lock:
                del self.at_work[number]
                self.over.append(number)
                self.free.append(seat)
        frames, pid = tuple(seat.frames), seat.pool.workers[0].pid
        reply = Reply(
            number, self.worker.address, seat.index, pid, began_ns, monotonic_ns(), seat.ready_ns, frames, death
        )
        kept = self._kept(keys)
        return Held(reply, kept) if kept else reply

    def _run(self, seat: Seat, frame: bytes) -> Death | None:
        """Until the process lets go of the message, or dies."""
        pool = seat.pool
        pool.server.tell(do="watch", on=True)
        if seat.fresh:
            with self.lock:
                for dropped in self.dropped:
                    pool.pages.drop(dropped)
        pool.write(pool.workers[0], self._frame(seat, frame))
        try:
            kill_ns = 0
            while True:
                # Wakes come from `drop` and `leave`; the timeout is for a kill that is due.
                for event in pool.wait(GRACE_NS / 2e9 if kill_ns else None):
                    if event.kind == "up":
                        seat.ready_ns = event.said["at_ns"]
                    elif event.kind == "frame":
                        seat.frames.append(bytes(event.frame))
                        if parse_results(event.frame).flags & LAST:
                            return None
                    else:
                        seat.fresh, seat.known, seat.place = True, set(), b""
                        said, traces = event.said, event.traces
                        assert traces is not None
                        return Death(traces, said["pid"], said["status"], said["at_ns"], said["cpu_ns"])
                pool.woken = False
                if self._is_unwanted(seat):
                    kill_ns = kill_ns or monotonic_ns() + (0 if self.ended else GRACE_NS)
                    if monotonic_ns() >= kill_ns and self._kill(seat):
                        kill_ns = 0
                else:
                    kill_ns = 0
        finally:
            pool.server.tell(do="watch", on=False)

    def _is_unwanted(self, seat: Seat) -> bool:
        running = seat.running[0]
        return self.ended or (running in seat.unwanted) or (running != 0 and -seat.number in seat.unwanted)

    def _kill(self, seat: Seat) -> bool:
        worker = seat.pool.workers[0]
        if worker.pidfd < 0:
            return False
        seat.pool.pages.cells[page.base(0) + page.VERDICT] = page.UNWANTED
        return worker.kill()

    def _frame(self, seat: Seat, frame: bytes) -> bytes:
        """The driver's frame with what this process does not know yet, and this host's place."""
        _, news, number, *limits = TASKS.unpack_from(frame)
        if self.most_bytes and limits[2]:
            limits[2] = min(limits[2], self.most_bytes)
        body = memoryview(frame)[TASKS.size :]
        codes, place = pickle.loads(body[:news])
        new = [(n, code) for n, code in codes if n not in seat.known]
        folder, path, _ = place
        if not self.same_place:
            folder, path = None, list(sys.path)
        # no tokens: those of a host are between runs on it alone
        told: Any = folder, [*self.modules, *path], self._opener, None, self.terms.meter
        place_bytes = pickle.dumps(told, 5)
        if place_bytes == seat.place:
            told = None
        seat.place, seat.fresh = place_bytes, False
        seat.known.update(n for n, _ in new)
        said = pickle.dumps((new, told), 5) if new or told is not None else b""
        length = TASKS.size - LENGTH.size + len(said) + len(body) - news
        return b"".join((TASKS.pack(length, len(said), number, *limits), said, body[news:]))

    # -- values that stay --------------------------------------------------------------------------------------
    @property
    def arena(self) -> Store:
        with self.lock:
            if self._arena is None:
                self._arena = open_with(self.terms.opener, f"dir:{self.arena_path}")
            return self._arena

    def _kept(self, keys: tuple[str, ...]) -> dict[str, Kept]:
        if not keys or not os.path.isdir(self.arena_path):
            return {}
        found = {}
        for key in keys:
            stored = self.arena.get(key)
            if stored is not None:
                found[key] = Kept(key, stored.size_bytes, self.arena.attach)
        return found

    # -- what the driver says besides --------------------------------------------------------------------------
    def drop(self, numbers: list[int], running: list[int]) -> None:
        """Messages and groups that are not wanted any more; tasks (or all of a message: minus its number) that are not to
        go on."""
        with self.lock:
            self.dropped += numbers
            for seat in self.seats:
                for number in numbers:
                    seat.pool.pages.drop(number)
                if seat.number in self.at_work:
                    seat.unwanted.update(running)
                    seat.pool.wake()

    def hand_back(self, number: int) -> Progress | None:
        """Let go of what the message has not come to; None when it has not come here."""
        with self.lock:
            seat = self.at_work.get(number)
            if seat is None:
                over = number in self.over
                return Progress(number, self.worker.address, 0, (), 0, 0) if over else None
            seat.pool.pages.drop(number)
            seq, since_ns = seat.running
            return Progress(number, self.worker.address, seat.index, tuple(seat.frames), seq, since_ns)

    def pids(self) -> list[int]:
        return [w.pid for seat in self.seats for w in seat.pool.workers if w.pid]

    def leave(self, now: bool = False) -> None:
        """Resources are left, processes end, the scratch folder goes. Idempotent; what still runs is killed."""
        with self.lock:
            if self.ended:
                return
            self.ended = True
            for seat in self.seats:
                seat.pool.wake()
        end = time.monotonic() + 5.0
        while self.at_work and time.monotonic() < end:
            time.sleep(0.005)
        closing = [threading.Thread(target=seat.pool.close, args=(now,)) for seat in self.seats]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        if self._arena is not None:
            self._arena.close()
        self.scratch.leave()

    def _look(self) -> None:
        """The lease is a future of the driver's client: Dask drops it when that is gone, and then nothing stays here."""
        key, since = lease_key(self.terms.engine, self.worker.address), time.monotonic()
        seen = False
        while not self.ended:
            held = key in self.worker.data
            if (seen and not held) or (not seen and time.monotonic() - since > UNLEASED_S):
                forget(self.worker, self.terms.engine)
                self.leave(now=seen)
                return
            seen = seen or held
            time.sleep(LOOK_S)


class Scratch:
    """A folder that the Dask workers of a host share for one engine; the last who leaves takes it away.

    Each holds a shared lock, which the kernel frees when a process dies. Folders that nobody holds are swept at the start.
    """

    def __init__(self, parent: Path, engine: str) -> None:
        self.path = parent / f"millrace-{engine}"
        for stale in parent.glob("millrace-*/lock"):
            if stale.parent != self.path:
                self._sweep(stale)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def unpack(self, name: str, data: bytes) -> str:
        """A bundle's folder here; made whole elsewhere and renamed, since several workers may do it at once."""
        import io
        import tarfile

        place = self.path / name
        if not place.exists():
            making = self.path / f"{name}.{os.getpid()}"
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(making, filter="data")
            try:
                making.rename(place)
            except OSError:
                shutil.rmtree(making)
        return str(place)

    def leave(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.path, ignore_errors=True)
        except BlockingIOError:
            pass  # others are here
        finally:
            os.close(self._lock)

    @staticmethod
    def _sweep(lock: Path) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(fd)


# -- what Dask calls -----------------------------------------------------------------------------------------------
_hosts: weakref.WeakKeyDictionary[Any, dict[str, Host]] = weakref.WeakKeyDictionary()
"""Hosts by Dask worker and engine: a message comes as a plain function call, and finds here what an earlier one left."""
_guard = threading.Lock()


def enlist(terms: bytes) -> str:
    """Make this worker a host of the engine; the value is the lease."""
    from distributed import get_worker

    worker, said = get_worker(), pickle.loads(terms)
    with _guard:
        hosts = _hosts.setdefault(worker, {})
        if said.engine not in hosts:
            hosts[said.engine] = Host(worker, said)
    return str(said.engine)


def carry(
    engine: str, number: int, frame: bytes, keys: tuple[str, ...] = (), needs: tuple[Kept, ...] = ()
) -> Reply | Held:
    from distributed import get_worker

    worker = get_worker()
    host = _hosts.get(worker, {}).get(engine)
    if host is None:
        raise NotEnlisted(worker.address)
    return host.carry(number, frame, keys, needs)


def drop(engine: str, numbers: list[int], running: list[int], dask_worker: Any) -> None:
    for host in _here(dask_worker, engine):
        host.drop(numbers, running)


def hand_back(engine: str, number: int, dask_worker: Any) -> Progress | None:
    for host in _here(dask_worker, engine):
        return host.hand_back(number)
    return None


def pids(engine: str, dask_worker: Any) -> list[int]:
    return [pid for host in _here(dask_worker, engine) for pid in host.pids()]


async def leave(engine: str, dask_worker: Any) -> None:
    """Not in the worker's event loop, which it would hold up."""
    import asyncio

    hosts = list(_here(dask_worker, engine))
    forget(dask_worker, engine)
    for host in hosts:
        await asyncio.get_running_loop().run_in_executor(None, host.leave)


def forget(worker: Any, engine: str) -> None:
    with _guard:
        _hosts.get(worker, {}).pop(engine, None)


def _here(worker: Any, engine: str) -> Iterator[Host]:
    host = _hosts.get(worker, {}).get(engine)
    if host is not None:
        yield host


def lease_key(engine: str, address: str) -> str:
    return f"millrace-lease-{engine}-{address}"


def machine() -> str:
    """One clock, one file system: the kernel's boot, and the name, which containers have of their own."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return socket.gethostname()
