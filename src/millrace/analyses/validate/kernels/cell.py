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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from millrace.analyses.validate.kernels import zygote
from millrace.run.errors import AnalysisFailed, WrongQuestion

End = Literal["value", "raised", "cpu_limit", "memory", "crash", "inconclusive", "call"]

KILL_AFTER_S = 0.1
"""Processor time beyond its limit at which a program that swallows its timer is killed."""
GUARD_S, GUARD_TIMES = 10.0, 30.0
"""Wall time after which the judge gives up: so much, and so many times the limit of processor time."""
SLEEP_S = 1.0
"""Wall time after which it gives up on a program that sleeps: nobody will wake it. A process that waits for a processor, or
for the disk, is in another state, so load does not matter."""
REFEREE_S, REFEREE_TIMES = 10.0, 2.0
"""Processor time of the user's own check or scorer on one case: so much, or so many times the program's."""
Lane = Literal["candidate", "batch", "shared"]
"""Of a program: a child of its own; one for several; one that computes once what they have in common, too."""
CALLS: Mapping[Lane, int] = {"candidate": 1, "batch": 128, "shared": 256}
"""That one child serves: a fork costs as much as a small program, and what is shared is lost with the child."""
LOOK_S = 0.05
TICKS = 0.9
"""The kernel's timers count by ticks: so much of a limit may be all of it."""


FORK_S = 60.0
"""Processor and wall time in which a child imports what its program needs and shuts the jail."""


class Unready(AnalysisFailed):
    """A child could not be made: it says nothing about the program."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one call. cpu_s: processor seconds; memory_bytes: private memory; output_bytes: of a result and of what is printed."""

    cpu_s: float = 2.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 1 << 20
    recursion: int = 1000


@dataclass(frozen=True, slots=True)
class Said:
    """What a call came to. text: JSON of a value, [type, message] of an exception, "SIGSEGV" or "exit 3" of a crash; of a check
    (end "call"): the arguments that it asks the program with."""

    end: End
    text: str = ""
    cpu_s: float = 0.0


class Child:
    """One jailed child: asked over a socket, its processor clock read from outside."""

    def __init__(self, sock: socket.socket, pid: int, trusted: bool) -> None:
        self.sock, self.pid, self.trusted, self.served = sock, pid, trusted, 0
        self.clock = _clock(pid)

    def cpu_s(self) -> float:
        try:
            return time.clock_gettime(self.clock)
        except OSError:  # it is a zombie: `end` tells
            return 0.0

    def sleeps(self) -> bool:
        """Whether it waits for somebody, and not for a processor, a page or a disk; see proc(5)."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] == b"S"
        except OSError:
            return False

    def send(self, request: tuple[Any, ...]) -> None:
        self.served += 1
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
            [sys.executable, "-B", "-W", "ignore", "-c", boot],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath},
        )
        theirs.close()
        self.layers = layers or ()
        self.serving: dict[Lane, Child] = {}  # of programs that are proven harmless
        self.scorer: Child | None = None  # of the user's own, with what it has imported
        self.living: dict[int, Child] = {}
        self.ended_s = 0.0
        self.first = self._hear()
        if "trouble" in self.first:
            self.__exit__()
            raise WrongQuestion(f"The library of the programs does not load: {self.first['trouble']}.")

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *_: object) -> None:
        """Children first, then the zygote: nothing stays."""
        for child in list(self.living.values()):
            self.end(child)
        self.control.close()
        self.process.wait()

    def spent_ns(self) -> int:
        """Processor time of the zygote and all its children so far."""
        try:
            zygote_s = time.clock_gettime(_clock(self.process.pid))
        except OSError:  # it has ended, and somebody will be told so
            zygote_s = 0.0
        return int(1e9 * (zygote_s + self.ended_s + sum(child.cpu_s() for child in self.living.values())))

    def call(
        self, source: str, entry: str, text: str, *, frozen: bool, lane: Lane, modules: tuple[str, ...] = ()
    ) -> Said:
        """Run `entry(*arguments)` of a program. text: the arguments as a JSON list. lane: not "candidate" when it is proven to
        call nothing but the library, so that its child may serve others of its kind; "shared": and the library is pure."""
        child = self.fork(modules) if lane == "candidate" else self._serving(lane)
        kind = "shared" if lane == "shared" else "run"
        said, lives = self.ask(child, (kind, source, entry, text, self.limits.cpu_s, frozen))
        first = child.served == 1
        if lives:
            if child.served < CALLS[lane] and said.end != "memory":
                self.serving[lane] = child
            else:
                self.end(child)
        if said.end in ("memory", "crash") and not first:  # what others left there may be the reason
            return self.call(source, entry, text, frozen=frozen, lane="candidate", modules=modules)
        return said

    def _serving(self, lane: Lane) -> Child:
        return self.serving.pop(lane, None) or self.fork((), CALLS[lane])

    # -- children ----------------------------------------------------------------------------------------------------
    def fork(self, modules: tuple[str, ...] = (), calls: int = 1) -> Child:
        """A new child behind all layers of the jail, that may use the processor time of `calls` calls."""
        return self._child(modules, calls * self.limits.cpu_s + 1, self.layers, trusted=False)

    def referee(self, modules: tuple[str, ...]) -> Child:
        """A child for the user's own check: jailed too, since what a program returns may make it endless."""
        return self._child(modules, self.referee_s, self.layers, trusted=True)

    @property
    def referee_s(self) -> float:
        return max(REFEREE_S, REFEREE_TIMES * self.limits.cpu_s)

    def score(self) -> Child:
        """The child of the user's own scorers, with the user's rights but for its memory; kept, with what it imported."""
        child, self.scorer = self.scorer, None
        return child or self._child((), 0.0, (), trusted=True)

    def _child(self, modules: tuple[str, ...], cpu_s: float, layers: tuple[str, ...], *, trusted: bool) -> Child:
        ours, theirs = socket.socketpair()
        request = {
            "do": "fork", "data_bytes": self.limits.memory_bytes, "cpu_s": cpu_s, "recursion": self.limits.recursion,
            "modules": list(modules), "layers": list(layers), "trusted": trusted,
        }  # fmt: skip
        with theirs:
            socket.send_fds(self.control, [json.dumps(request).encode()], [theirs.fileno()])
        child = Child(ours, self._hear()["pid"], trusted)
        self.living[child.pid] = child
        data, why = self._answer(child, FORK_S, FORK_S, patient=True)
        if data != zygote.READY:
            told = self.end(child)
            raise Unready(
                f"A child did not get ready for a program ({(why or _of_status(told['status']))[1] or 'too slow'})."
            )
        return child

    def end(self, child: Child) -> dict[str, Any]:
        """Kill and reap; its status and what it used."""
        child.sock.close()
        self.control.send(json.dumps({"do": "end", "pid": child.pid}).encode())
        told = self._hear()
        del self.living[child.pid]
        self.ended_s += told["cpu_s"]
        return told

    def ask(self, child: Child, request: tuple[Any, ...], cpu_s: float | None = None) -> tuple[Said, bool]:
        """One request and its answer; whether the child lives on. A child that does not is ended and reaped here. cpu_s: its
        limit, that of the request when None."""
        before_s, limit_s = child.cpu_s(), request[4] if cpu_s is None else cpu_s
        child.send(request)
        until_s, guard_s = before_s + limit_s + KILL_AFTER_S, max(GUARD_S, GUARD_TIMES * limit_s)
        data, why = self._answer(child, until_s, guard_s, patient=child.trusted)
        used_s = child.cpu_s() - before_s
        if data is not None:
            said = _read(data, used_s, child.trusted)
            if said.cpu_s > limit_s:  # it took its timer away, or swallowed it; or what it shares took the rest
                return Said("cpu_limit", "", said.cpu_s), True
            return said, True
        told = self.end(child)
        used_s = max(used_s, told["cpu_s"] - before_s)
        if why is None and used_s >= TICKS * limit_s:  # ended by its own timer, or by the kernel's
            why = "cpu_limit", ""
        if why is None and told["killed"]:
            why = "crash", "it closed its line to the judge"
        return Said(*(why or _of_status(told["status"])), used_s), False

    def _answer(
        self, child: Child, cpu_until_s: float, guard_s: float, *, patient: bool
    ) -> tuple[bytes | None, tuple[End, str] | None]:
        """The bytes of one answer, or None and why there is none (None: it died by itself). patient: it may sleep."""
        buffer, wanted, most = bytearray(), zygote.LENGTH.size, self.limits.output_bytes + (1 << 16)
        poll = select.poll()
        poll.register(child.sock, select.POLLIN)
        begun_s = awake_s = time.monotonic()
        cpu_s = child.cpu_s()
        while True:
            left_s = cpu_until_s - cpu_s
            if left_s <= 0:
                return None, ("cpu_limit", "")
            if not poll.poll(1000 * min(LOOK_S, left_s) + 1):
                before_s, cpu_s, now_s = cpu_s, child.cpu_s(), time.monotonic()
                if patient or cpu_s > before_s or not child.sleeps():
                    awake_s = now_s
                if now_s - awake_s > SLEEP_S or now_s - begun_s > guard_s:
                    if buffer:
                        return None, ("crash", "it wrote to the judge what is no answer")
                    return None, ("inconclusive", "it neither answered nor used its processor time")
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
            cpu_s = child.cpu_s()

    def _hear(self) -> dict[str, Any]:
        data = self.control.recv(65536)
        if not data:
            raise AnalysisFailed(
                f"The interpreter that holds the library ended (status {self.process.wait()}). Does the library exit, or need "
                "more memory than there is?"
            )
        told: dict[str, Any] = json.loads(data)
        return told


def _clock(pid: int) -> int:
    """CPUCLOCK_SCHED of another process, see clock_getcpuclockid(3)."""
    return (~pid << 3) | 2


Names = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Of a library: all public ones, those that it answers for, and the modules that it is imported as."""


def survey(library: tuple[str, ...], path: tuple[str, ...]) -> tuple[Names, dict[str, str]]:
    """The names of the library, and each layer of the jail with "" when it holds here, else why it does not; found out
    in a fresh process, as programs will have it."""
    with Cell(library, path, None, Limits()) as cell:
        return (tuple(cell.first["names"]), tuple(cell.first["pure"]), library), cell.first["layers"]


def _read(data: bytes, used_s: float, trusted: bool) -> Said:
    ends: dict[bytes, End] = {
        zygote.VALUE: "value", zygote.RAISED: "raised", zygote.SLOW: "cpu_limit", zygote.MEMORY: "memory", zygote.CALL: "call",
    }  # fmt: skip
    if data[:1] == zygote.FOUND:  # what others had computed for it counts as its own
        found_s, _, text = data[1:].decode(errors="replace").partition(" ")
        return Said("value", text, used_s + float(found_s))
    end = ends.get(data[:1])
    if end is None or (end == "call" and not trusted):
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
