"""The zygote: a small interpreter, started fresh, with the library loaded, that forks a jailed child for every program.

It is never forked from a process that holds data (a fork costs 42 ms per GiB of the parent, and the data would be in the
child's memory), so nothing that a child could find in its own memory is worth finding: no expected output is ever sent here.
It has one thread. `main` runs in it, `serve` in its children; `cell` is the other end of both.

Control socket (SEQPACKET, one JSON object a packet): `fork` {data_bytes, cpu_s, recursion, modules} with the child's socket
-> {pid}; `end` {pid} -> {status, cpu_s, peak_bytes}, after SIGKILL. Child's socket: frames of a length and a marshalled request
(trusted: they come from the judge); answers are a length, a letter and JSON text (never trusted).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import marshal
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

from millrace.analyses.validate.kernels import plain
from millrace.analyses.validate.kernels.jail import Ceilings, enter, probe

LENGTH = struct.Struct("<I")
VALUE, RAISED, SLOW, MEMORY = b"v", b"x", b"t", b"m"
NAME = "candidate"
SAID_CHARACTERS = 300
PRELOADED = (
    "abc", "array", "base64", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "numbers", "operator", "random", "re",
    "statistics", "string", "struct", "textwrap", "time", "typing", "unicodedata",
)  # fmt: skip
"""What programs import: in the jail no file is read, so it must be there before."""
NEVER = frozenset({"antigravity", "this", "idlelib", "turtle", "turtledemo", "test", "lib2to3", "ensurepip", "venv"})
"""Of the standard library, what acts when it is imported or is no library."""


class TooSlow(BaseException):
    """The soft timer rang. A program that swallows it is killed by the judge."""


class TooMuchOutput(OSError):
    """A program printed more than its limit."""


def main(control_fd: int, library: list[str], path: list[str], layers: list[str] | None, output_bytes: int) -> None:
    """Load the library, then fork a child for each request until the other end is closed. layers None: say only what the
    library offers and which layers hold here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    sys.path[:] = path
    try:
        for name in (*PRELOADED, *library):
            importlib.import_module(name)
    except BaseException as e:  # noqa: BLE001 - told to the judge, which tells the user
        control.send(json.dumps({"trouble": f"{name} cannot be imported: {type(e).__name__}: {e}"}).encode())
        return
    public = _public(library)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    gc.collect()
    gc.freeze()  # what children do not touch is not copied
    if layers is None:
        control.send(json.dumps({"names": sorted(public), "layers": probe()}).encode())
        return
    control.send(b'{"up": true}')
    while data := socket.recv_fds(control, 65536, 1):
        packet, fds, _, _ = data
        if not packet:
            return
        said = json.loads(packet)
        if said["do"] == "end":
            control.send(json.dumps(_ended(said["pid"])).encode())
            continue
        _preload(said["modules"])
        pid = os.fork()
        if not pid:
            _child(fds[0], said, frozenset(layers), public, output_bytes)
        os.close(fds[0])
        control.send(json.dumps({"pid": pid}).encode())


def _public(library: list[str]) -> dict[str, Any]:
    """What a program sees of the library without an import of its own."""
    found: dict[str, Any] = {}
    for name in library:
        module = sys.modules[name]
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        found.update({n: getattr(module, n) for n in names})
    return found


def _preload(modules: list[str]) -> None:
    for name in modules:
        if name in sys.stdlib_module_names and name not in NEVER and name not in sys.modules:
            with contextlib.suppress(ImportError):  # of another platform: the program will be told so itself
                importlib.import_module(name)


def _ended(pid: int) -> dict[str, Any]:
    """Kill and reap a child; how it ended and what it used."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {"status": status, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss << 10}


# -- in a child ------------------------------------------------------------------------------------------------------
def _child(
    fd: int, said: dict[str, Any], layers: frozenset[str], public: dict[str, Any], output_bytes: int
) -> NoReturn:
    """Close what is not its own, go to jail, serve."""
    status = 71
    try:
        os.dup2(fd, 3)
        os.closerange(4, 4096)
        signal.signal(signal.SIGPROF, _ring)
        random.seed(0)  # the same program draws the same numbers, wherever it runs
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(0)
        sys.stdout = sys.stderr = _Sink(output_bytes)
        sys.setrecursionlimit(said["recursion"])
        os.environ.clear()
        enter(Ceilings(said["data_bytes"], said["cpu_s"]), layers)
        _serve(public, output_bytes)
        status = 0
    finally:
        os._exit(status)


def _ring(*_: object) -> None:
    raise TooSlow


class _Sink(io.TextIOBase):
    """Counts what is printed and keeps nothing."""

    def __init__(self, most: int) -> None:
        self.left = most

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.left -= len(text)
        if self.left < 0:
            raise TooMuchOutput("more was printed than the limit allows")
        return len(text)


def _serve(public: dict[str, Any], output_bytes: int) -> None:
    """One request after the other, until the judge closes the socket."""
    compiled: dict[str, CodeType] = {}
    loaded: dict[str, Any] = {}
    while (request := _read()) is not None:
        kind, source, entry, text, cpu_s, frozen = request
        try:
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            if kind == "call":
                args, named = plain.unpack(text)
                told = plain.pack(_entered(loaded, entry)(*args, **named))
            else:
                loaded = {"__name__": NAME, **public}
                if source not in compiled:
                    compiled = {source: compile(source, f"<{NAME}>", "exec")}
                exec(compiled[source], loaded)
                told = "null" if kind == "load" else plain.answer(_entered(loaded, entry)(*_arguments(text, frozen)))
            signal.setitimer(signal.ITIMER_PROF, 0)
            if len(told) > output_bytes:
                raise TooMuchOutput("the result is larger than the limit allows")
            answer = VALUE, told
        except TooSlow:
            answer = SLOW, ""
        except MemoryError:
            answer = MEMORY, ""
        except BaseException as e:  # noqa: BLE001 - the verdict on the program
            answer = RAISED, json.dumps([type(e).__name__[:SAID_CHARACTERS], _said(e)])
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(*answer)


def _entered(names: dict[str, Any], entry: str) -> Callable[..., Any]:
    found = names.get(entry)
    if not callable(found):
        raise NameError(f"the program defines no function {entry!r}")
    return found  # type: ignore[no-any-return]


def _arguments(text: str, frozen: bool) -> Any:
    """Arguments of a call, made anew for each: what a program does to them is its own affair."""
    values = json.loads(text)
    return _frozen(values) if frozen else values


def _frozen(value: Any) -> Any:
    """Lists as tuples, as programs over immutable grids want them."""
    return tuple(map(_frozen, value)) if type(value) is list else value


def _said(error: BaseException) -> str:
    try:
        return str(error)[:SAID_CHARACTERS]
    except BaseException as e:  # noqa: BLE001 - a program may make its own exceptions
        return f"(its message could not be made: {type(e).__name__})"


def _read() -> Any:
    head = _exactly(LENGTH.size)
    body = None if head is None else _exactly(*LENGTH.unpack(head))
    return None if body is None else marshal.loads(body)


def _exactly(size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(3, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(letter: bytes, text: str) -> None:
    data = letter + text.encode()
    data = LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(3, data) :]
