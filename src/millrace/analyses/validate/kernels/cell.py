"""The judge's end: start a zygote, have it fork children, ask them, and kill what does not answer in time.

Limits are processor time: under load a limit of wall time condemns good programs (196 of 200 with sixteen instances on two
cores), one of processor time none. Three things hold it: a timer in the child, the judge's SIGKILL, and RLIMIT_CPU should the
judge itself be gone. What uses no processor time and does not answer either is `inconclusive`, which is never kept.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

from millrace.analyses.validate.kernels import zygote
from millrace.run.errors import AnalysisFailed, WrongQuestion

End = Literal["value", "raised", "cpu_limit", "memory", "crash", "inconclusive"]

KILL_AFTER_S = 0.1
"""Processor time beyond its limit at which a program that swallows its timer is killed."""
GUARD_S, GUARD_TIMES = 10.0, 30.0
"""Wall time after which the judge gives up: so much, and so many times the limit of processor time."""
BATCH = 32
"""Calls that one child of the batch lane serves: a fork costs as much as a small program."""
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one call. cpu_s: processor seconds; memory_bytes: private memory; output_bytes: of a result and of what is printed."""

    cpu_s: float = 2.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 1 << 20
    recursion: int = 1000


@dataclass(frozen=True, slots=True)
class Said:
    """What a call came to. text: JSON of a value, [type, message] of an exception, "SIGSEGV" or "exit 3" of a crash."""

    end: End
    text: str = ""
    cpu_s: float = 0.0


class Child:
    """One jailed child: asked over a socket, its processor clock read from outside."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock, self.pid, self.served = sock, pid, 0
        self.clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of another process, see clock_getcpuclockid(3)

    def cpu_s(self) -> float:
        try:
            return time.clock_gettime(self.clock)
        except OSError:  # it is a zombie: `end` tells
            return 0.0

    def send(self, request: tuple[Any, ...]) -> None:
        body = marshal.dumps(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: the answer will say how
            self.sock.sendall(zygote.LENGTH.pack(len(body)) + body)


class Cell:
    """A zygote and, for programs that are proven harmless, the child that serves several of them. A context manager."""

    def __init__(
        self, library: tuple[str, ...], path: tuple[str, ...], layers: tuple[str, ...] | None, limits: Limits
    ) -> None:
        """Raises WrongQuestion when the library cannot be imported. layers None: see `survey`."""
        self.limits = limits
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = (
            theirs.fileno(),
            list(library),
            list(path),
            None if layers is None else list(layers),
            limits.output_bytes,
        )
        boot = f"import sys; sys.path[:] = {list(sys.path)!r}\nfrom {zygote.__name__} import main\nmain(*{config!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", boot],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath},
        )
        theirs.close()
        self.shared: Child | None = None
        self.spent_s = 0.0
        self.first = self._hear()
        if "trouble" in self.first:
            self.__exit__()
            raise WrongQuestion(f"The library of the programs does not load: {self.first['trouble']}.")

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *_: object) -> None:
        """Children first, then the zygote: nothing stays."""
        if self.shared is not None:
            self.end(self.shared)
            self.shared = None
        self.control.close()
        self.process.wait()

    def call(
        self, source: str, entry: str, text: str, *, frozen: bool, batch: bool, modules: tuple[str, ...] = ()
    ) -> Said:
        """Run `entry(*arguments)` of a program. text: the arguments as a JSON list. batch: it is proven to call nothing but the
        library, so it may share its child with others of its kind."""
        child = self._shared() if batch else self.fork(modules, 1)
        said, lives = self.ask(child, ("run", source, entry, text, self.limits.cpu_s, frozen))
        if batch and lives and child.served < BATCH:
            self.shared = child
        elif lives:
            self.end(child)
        return said

    def _shared(self) -> Child:
        child, self.shared = self.shared, None
        return child or self.fork(())

    # -- children ----------------------------------------------------------------------------------------------------
    def fork(self, modules: tuple[str, ...], calls: int = BATCH) -> Child:
        """A new jailed child, that may use the processor time of `calls` calls."""
        ours, theirs = socket.socketpair()
        request = {
            "do": "fork", "data_bytes": self.limits.memory_bytes, "cpu_s": calls * self.limits.cpu_s + 1,
            "recursion": self.limits.recursion, "modules": list(modules),
        }  # fmt: skip
        with theirs:
            socket.send_fds(self.control, [json.dumps(request).encode()], [theirs.fileno()])
        return Child(ours, self._hear()["pid"])

    def end(self, child: Child) -> dict[str, Any]:
        """Kill and reap; its status and what it used."""
        child.sock.close()
        self.control.send(json.dumps({"do": "end", "pid": child.pid}).encode())
        told = self._hear()
        self.spent_s += told["cpu_s"]
        return told

    def ask(self, child: Child, request: tuple[Any, ...]) -> tuple[Said, bool]:
        """One request and its answer; whether the child lives on. A child that does not is ended and reaped here."""
        before_s, cpu_s = child.cpu_s(), request[4]
        child.served += 1
        child.send(request)
        data, why = self._answer(child, before_s + cpu_s + KILL_AFTER_S, max(GUARD_S, GUARD_TIMES * cpu_s))
        used_s = child.cpu_s() - before_s
        if data is not None:
            return _read(data, used_s), True
        told = self.end(child)
        used_s = max(used_s, told["cpu_s"] - before_s)
        return Said(*(why or _of_status(told["status"])), used_s), False

    def _answer(self, child: Child, cpu_until_s: float, guard_s: float) -> tuple[bytes | None, tuple[End, str] | None]:
        """The bytes of one answer, or None and why there is none (None: it died by itself)."""
        buffer, wanted, most = bytearray(), zygote.LENGTH.size, self.limits.output_bytes + (1 << 16)
        poll = select.poll()
        poll.register(child.sock, select.POLLIN)
        give_up_s = time.monotonic() + guard_s
        while True:
            left_s = cpu_until_s - child.cpu_s()
            if left_s <= 0:
                return None, ("cpu_limit", "")
            if time.monotonic() > give_up_s:
                return None, ("inconclusive", "it neither answered nor used its processor time")
            if not poll.poll(1000 * min(LOOK_S, left_s) + 1):
                continue
            try:
                part = child.sock.recv(1 << 20)
            except ConnectionResetError:
                part = b""
            if not part:
                return None, None
            buffer += part
            if len(buffer) >= zygote.LENGTH.size:
                wanted = zygote.LENGTH.size + zygote.LENGTH.unpack_from(buffer)[0]
            if wanted > most or len(buffer) > wanted:
                return None, ("crash", "it wrote to the judge what is no answer")
            if len(buffer) == wanted > zygote.LENGTH.size:
                return bytes(buffer[zygote.LENGTH.size :]), None

    def _hear(self) -> dict[str, Any]:
        data = self.control.recv(65536)
        if not data:
            raise AnalysisFailed(
                f"The interpreter that holds the library ended (status {self.process.wait()}). Does the library exit, or need "
                "more memory than there is?"
            )
        told: dict[str, Any] = json.loads(data)
        return told


def survey(library: tuple[str, ...], path: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The public names of the library, and each layer of the jail with "" when it holds here, else why it does not; found out
    in a fresh process, as programs will have it."""
    with Cell(library, path, None, Limits()) as cell:
        return tuple(cell.first["names"]), cell.first["layers"]


def _read(data: bytes, used_s: float) -> Said:
    ends: dict[bytes, End] = {
        zygote.VALUE: "value", zygote.RAISED: "raised", zygote.SLOW: "cpu_limit", zygote.MEMORY: "memory",
    }  # fmt: skip
    end = ends.get(data[:1])
    if end is None:
        return Said("crash", "it wrote to the judge what is no answer", used_s)
    return Said(end, data[1:].decode(errors="replace"), used_s)


def _of_status(status: int) -> tuple[End, str]:
    """How a child ended that nobody here had killed."""
    if os.WIFEXITED(status):
        return "crash", f"exit {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    if number == signal.SIGXCPU:
        return "cpu_limit", ""
    if number == signal.SIGKILL:  # by the kernel for want of memory, or by somebody else
        return "inconclusive", "it was killed from outside"
    return "crash", signal.Signals(number).name
