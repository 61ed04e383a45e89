"""The workers of an engine, their fork server, and the one place where the driver waits for all of them.

Tells what happens as events, in the order in which it counts: all results that a worker sent come before its death. A
worker that died has a successor at once. Decides nothing about tasks.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from millrace.engines.processes import kernel
from millrace.engines.processes.client import BUFFER_BYTES, ServerClient, WorkerEnd
from millrace.engines.processes.losses import Traces, read_traces
from millrace.engines.processes.page import Page
from millrace.run.errors import EngineLost, NotSupported

STARTING = 64
"""Workers that are asked for and not yet up: the socket to the server holds only so many packets."""
LEAVE_S = 2.0
"""How long workers have to leave their resources when the engine closes."""


class Event(NamedTuple):
    """`frame`: of `worker`; `up`: it lives, `said` since when; `dead`: `said` how, `traces` of what it did, and it has a
    successor in the pool already."""

    kind: Literal["frame", "up", "dead"]
    worker: WorkerEnd
    frame: bytes | bytearray = b""
    said: Mapping[str, Any] = {}
    traces: Traces | None = None


class Pool:
    def __init__(self, slots: int, preload: tuple[str, ...], environment: Mapping[str, str], hand_back_ns: int) -> None:
        self._buffer = bytearray(BUFFER_BYTES)
        self._wake_lock = threading.RLock()  # re-entrant: a signal handler may call wake() in the middle of close()
        self._trouble: NotSupported | None = None
        self.workers: list[WorkerEnd] = []
        self._by_fd: dict[int, WorkerEnd] = {}
        self._early: list[Event] = []
        self._starting = 0
        self.foreign = self.woken = False
        self.server = ServerClient(slots, preload, environment, hand_back_ns)
        self._waker = -1
        self._epoll = select.epoll()
        try:
            self._waker = kernel.high(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            self._epoll.register(self.server.control.fileno(), select.EPOLLIN)
            self._epoll.register(self._waker, select.EPOLLIN)
            for slot in range(slots):
                self.workers.append(self._start(slot))
        except BaseException:
            self.close(now=True)
            raise

    @property
    def pages(self) -> Page:
        return self.server.pages

    # -- events ------------------------------------------------------------------------------------------------
    def wait(self, timeout_s: float | None) -> Iterator[Event]:
        """What happens until something does, or for so long. Sets `woken` when somebody called `wake`."""
        if self._early:
            timeout_s = 0
        happened = self._epoll.poll(timeout_s)
        early, self._early = self._early, []
        yield from early
        for fd, mask in happened:
            worker = self._by_fd.get(fd)
            if worker is not None:
                if mask & select.EPOLLOUT and not worker.write():
                    self._epoll.modify(fd, select.EPOLLIN)
                yield from self._frames(worker)
            elif fd == self._waker:
                os.eventfd_read(fd)
                self.woken = True
            elif fd == self.server.control.fileno():
                yield from self._hear()

    def write(self, worker: WorkerEnd, data: bytes) -> None:
        if worker.write(data):
            self._epoll.modify(worker.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def wake(self) -> None:
        with self._wake_lock:
            if self._waker >= 0 and not self.foreign:
                os.eventfd_write(self._waker, 1)

    def _frames(self, worker: WorkerEnd) -> Iterator[Event]:
        if worker.stale:
            return
        frames = worker.read(self._buffer)
        if frames:
            worker.heard_ns = time.monotonic_ns()
        for frame in frames:
            yield Event("frame", worker, frame)
        if worker.closed:
            self._forget(worker)

    def _hear(self) -> Iterator[Event]:
        try:
            said, fds = self.server.hear()
        except EngineLost:
            for worker in self.workers:  # the kernel took the workers with the server; this takes their children
                worker.kill()
            raise
        if said["do"] == "trouble":
            self._trouble = NotSupported(
                f"The module {said['module']!r} cannot be preloaded into workers: {said['why']}. Leave it out of `preload` "
                "(workers then import it themselves), or mend it."
            )
        elif said["do"] == "refused":
            raise EngineLost(
                f"The host refuses a new worker process: {said['why']}. Raise its limit of processes or memory, or use "
                "fewer slots; finished tasks are in the store."
            )
        elif said["do"] == "up":
            worker = self.workers[said["slot"]]
            worker.pid, worker.pidfd = said["pid"], fds[0]
            self._starting -= 1
            if worker.stale:  # killed before it lived
                worker.kill()
            yield Event("up", worker, said=said)
        elif said["do"] == "dead":
            worker = self.workers[said["slot"]]
            yield from self._frames(worker)  # what it had sent before it died counts
            self._forget(worker)
            traces = read_traces(self.pages, worker.slot)
            self.pages.clear(worker.slot)
            worker.release()
            self.workers[worker.slot] = self._start(worker.slot)
            yield Event("dead", worker, said=said, traces=traces)
        if self._trouble is not None:
            raise self._trouble

    def _start(self, slot: int) -> WorkerEnd:
        while self._starting >= STARTING:
            self._early += self._hear()
        worker = WorkerEnd(slot, self.server.fork(slot))
        self._starting += 1
        self._by_fd[worker.sock.fileno()] = worker
        self._epoll.register(worker.sock.fileno(), select.EPOLLIN)
        return worker

    def discard(self, worker: WorkerEnd) -> None:
        """It was killed, or is to be when it is up: what is in its pipe is nobody's. Its death brings a successor."""
        worker.stale = True
        self._forget(worker)
        worker.sock.close()

    @property
    def closed(self) -> bool:
        return self._epoll.closed

    def _forget(self, worker: WorkerEnd) -> None:
        if self._by_fd.pop(worker.sock.fileno(), None) is not None:
            self._epoll.unregister(worker.sock.fileno())

    # -- the end -----------------------------------------------------------------------------------------------
    def close(self, now: bool = False) -> None:
        """Workers leave their resources and exit; whatever is left after `LEAVE_S` (or `now`) is killed. Idempotent."""
        if self.foreign or self.closed:
            return
        for worker in self.workers:
            worker.sock.close()  # an end of file
        if not now:
            self._await_exits()
        self.server.close()
        with self._wake_lock:
            waker, self._waker = self._waker, -1
            if waker >= 0:
                os.close(waker)
        for worker in self.workers:
            worker.release()
        self._epoll.close()

    def _await_exits(self) -> None:
        end = time.monotonic() + LEAVE_S
        poll = select.poll()
        waiting = {w.pidfd for w in self.workers if w.pidfd >= 0}
        for pidfd in waiting:
            poll.register(pidfd, select.POLLIN)
        while waiting and (left := end - time.monotonic()) > 0:
            for pidfd, _ in poll.poll(left * 1000):
                poll.unregister(pidfd)
                waiting.discard(pidfd)

    def abandon(self) -> None:
        """In a forked child of the driver: it has copies of everything and owns nothing."""
        self.foreign = True
        self._wake_lock = threading.RLock()
        self.server.abandon()
        self._epoll.close()
        for worker in self.workers:
            worker.sock.close()
        for fd in (self._waker, *(w.pidfd for w in self.workers)):
            with contextlib.suppress(OSError):
                os.close(fd)
