"""Celery's pool over a warden: what Celery would run itself goes to the warden, which has the places, limits and processes.

Two threads meet here: Celery's, with its event loop, and the warden's. What one has for the other lies in a `Link` until
the bell is heard; Celery's own state is touched in Celery's thread alone.
"""

from __future__ import annotations

import base64
import os
import pickle
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency.base import BasePool

from millrace.jobs.celery.names import RUN_JOB
from millrace.jobs.queues import Errand
from millrace.jobs.states import Told
from millrace.run.errors import AnalysisFailed

CARRY_OUT = "millrace.jobs.celery.errands:carry_out"


class OutOfMemory(AnalysisFailed):
    """A task of a team's held more private memory than its place has."""


class Bell:
    """Rung in one thread, heard in the other by its descriptor."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        for end in (self._here, self._there):
            end.setblocking(False)
        self.fd = self._here.fileno()

    def ring(self) -> None:
        with suppress(BlockingIOError, OSError):  # full: it rings already; closed: nobody listens any more
            self._there.send(b"!")

    def hush(self) -> None:
        with suppress(BlockingIOError):
            while self._here.recv(4096):
                pass

    def close(self) -> None:
        self._here.close()
        self._there.close()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A wake-up that was taken from the broker; Celery takes no more than there are places until they are done."""

    done: Callable[[], None]


@dataclass(slots=True)
class Link:
    """`arrivals`: from Celery's thread; `calls`: to be made in it."""

    arrivals: deque[Ticket | Errand] = field(default_factory=deque)
    calls: deque[Callable[[], Any]] = field(default_factory=deque)
    to_warden: Bell = field(default_factory=Bell)
    to_celery: Bell = field(default_factory=Bell)

    def arrive(self, what: Ticket | Errand) -> None:
        self.arrivals.append(what)
        self.to_warden.ring()

    def call(self, function: Callable[[], Any]) -> None:
        self.calls.append(function)
        self.to_celery.ring()

    def make_calls(self) -> None:
        self.to_celery.hush()
        try:
            while self.calls:
                self.calls.popleft()()
        finally:
            if self.calls:  # one of them failed: Celery logs it, and the others are not its fault
                self.to_celery.ring()

    def close(self) -> None:
        self.to_warden.close()
        self.to_celery.close()


class Pool(BasePool):
    """What `WorkController` is given, as a subclass that knows its `link` and `about` (what job processes need to know)."""

    link: Link
    about: dict[str, Any]
    signal_safe = False

    def register_with_event_loop(self, loop: Any) -> None:
        loop.add_reader(self.link.to_celery.fd, self.link.make_calls)

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, **said: Any) -> None:
        request = said["accept_callback"].__self__
        if args[0] == RUN_JOB:
            self._wake(request, said)
        else:
            self._run(request, args, said)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """A revoked task is ended with its process; a revoked wake-up is only a message."""
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal or _TERM)

    def _wake(self, request: Any, said: dict[str, Any]) -> None:
        since = time.monotonic()
        said["accept_callback"](os.getpid(), since)  # acknowledges: from here on the table alone remembers the job
        done = lambda: said["callback"]((0, "", time.monotonic() - since))  # noqa: E731 - one line, used as a value
        self.link.arrive(Ticket(lambda: self.link.call(done)))

    def _run(self, request: Any, args: Any, said: dict[str, Any]) -> None:
        name, task_id, about, body, content_type, encoding = args
        message = pickle.dumps((name, task_id, about, bytes(body) if isinstance(body, memoryview) else body,
                                content_type, encoding))  # fmt: skip
        given = {"errand": CARRY_OUT, "message": base64.b64encode(message).decode(), "log": "log.txt", **self.about}
        soft_s, hard_s = said.get("soft_timeout"), said.get("timeout")

        def began(pid: int) -> None:
            at = time.monotonic()
            self.link.call(lambda: said["accept_callback"](pid, at))

        def ended(told: Told, reply: str | None) -> None:
            self.link.call(lambda: _tell(said, told, reply, hard_s))

        def back() -> None:
            self.link.call(lambda: request.reject(requeue=True))

        self.link.arrive(Errand(f"{name}[{task_id}]", given, soft_s, hard_s, began, ended, back))


_TERM = int(signal.SIGTERM)


def _tell(said: dict[str, Any], told: Told, reply: str | None, hard_s: float | None) -> None:
    """Celery hears how its task ended, in the way its own pool would tell."""
    if told.ending == "finished" and reply is not None:
        said["callback"](pickle.loads(base64.b64decode(reply)))
    elif told.ending == "timed out":
        said["timeout_callback"](False, hard_s or told.seconds)
    elif told.ending == "out of memory":
        said["error_callback"](information(OutOfMemory(told.why)))
    else:
        said["error_callback"](information(WorkerLostError(told.why)))


def information(error: Exception) -> ExceptionInfo:
    try:
        raise error
    except Exception:  # noqa: BLE001 - Celery takes an error with its traceback
        return ExceptionInfo()
