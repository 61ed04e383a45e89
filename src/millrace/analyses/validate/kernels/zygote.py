"""The zygote: a small interpreter, started fresh, with the library loaded, that forks a jailed child for every program.

It is never forked from a process that holds data (a fork costs 42 ms per GiB of the parent, and the data would be in the
child's memory), so nothing that a child could find in its own memory is worth finding: no expected output is ever sent here.
It has one thread. `main` runs in it, `_serve` in its children; `cell` is the other end of both. The user's own check runs
in a child of its own (`referee`), away from the program and from the judge: a value that makes it endless ends that child.

Control socket (SEQPACKET, one JSON object a packet): `fork` {data_bytes, cpu_s, recursion, modules, layers, trusted} with the
child's socket -> {pid}; `end` {pid} -> {status, cpu_s, killed}, after SIGKILL if it lived. Child's socket: frames of a length
and a marshalled request (trusted: they come from the judge); answers are a length, a letter and JSON text (never trusted);
the first, READY, says that the jail is shut.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import io
import json
import marshal
import os
import platform
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from millrace.analyses.validate.kernels import plain, shared
from millrace.analyses.validate.kernels.jail import MACHINES, Ceilings, end_with, enter, filtering, hold, probe

LENGTH = struct.Struct("<I")
READY, VALUE, FOUND, RAISED, SLOW, MEMORY, CALL = b"r", b"v", b"f", b"x", b"t", b"m", b"c"
NAME = "candidate"
SAID_CHARACTERS = 300
PRELOADED = (
    "abc", "array", "base64", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "numbers", "operator", "random", "re",
    "statistics", "string", "struct", "textwrap", "time", "typing", "unicodedata",
    "_strptime", "linecache", "traceback", "types", "warnings", "weakref",
    *(f"encodings.{name}" for name in ("ascii", "latin_1", "utf_8", "utf_16", "utf_32", "cp1252", "hex_codec", "base64_codec",
                                       "rot_13", "idna", "unicode_escape", "raw_unicode_escape")),
)  # fmt: skip
"""What programs import, and what the standard library imports only when it is called: in the jail no file is read. Anything
else that a program imports is loaded into its own child, before the jail is shut: what one program imports, the next one does
not find."""
NEVER = frozenset(
    {"antigravity", "this", "idlelib", "turtle", "turtledemo", "test", "lib2to3", "ensurepip", "venv", "__main__", "__hello__",
     "__phello__"}
)  # fmt: skip
"""Of the standard library, what acts when it is imported or is no library."""


class TooSlow(BaseException):
    """The soft timer rang. A program that swallows it is killed by the judge."""


class TooMuchOutput(OSError):
    """A program printed or returned more than its limit."""


class Over(BaseException):
    """Said to a check whose program gave no value: no `except Exception` of a check stops it."""


def main(control_fd: int, library: list[str], path: list[str], layers: list[str] | None, output_bytes: int) -> None:
    """Load the library, then fork a child for each request until the other end is closed. layers None: say only what the
    library offers and which layers hold here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    sys.path[:] = path
    try:
        for name in (*PRELOADED, *library):
            importlib.import_module(name)
        public, pure = _public(library)
    except BaseException as e:  # noqa: BLE001 - told to the judge, which tells the user
        control.send(json.dumps({"trouble": f"{name} cannot be imported: {type(e).__name__}: {e}"}).encode())
        return
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.environ.clear()
    machine = MACHINES.get(platform.machine())
    prepared = filtering(machine) if machine is not None else b""
    gc.collect()
    gc.freeze()  # what children do not touch is not copied
    if layers is None:
        control.send(json.dumps({"names": sorted(public), "pure": pure, "layers": probe()}).encode())
        return
    control.send(b'{"up": true}')
    me = os.getpid()
    while data := socket.recv_fds(control, 65536, 1):
        packet, fds, _, _ = data
        if not packet:
            return
        said = json.loads(packet)
        if said["do"] == "end":
            control.send(json.dumps(_ended(said["pid"])).encode())
            continue
        pid = os.fork()
        if not pid:
            _child(fds[0], said, public, output_bytes, me, prepared)
        os.close(fds[0])
        control.send(json.dumps({"pid": pid}).encode())


def _public(library: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What a program sees of the library without an import of its own; and the names among them that the library answers for:
    what its package defines or lists in `__all__`. A function of another module that it merely imported may do anything."""
    packages = {name.partition(".")[0] for name in library}
    found: dict[str, Any] = {}
    pure: dict[str, bool] = {}
    for name in library:
        module = sys.modules[name]
        listed = getattr(module, "__all__", None)
        for public in listed or [n for n in vars(module) if not n.startswith("_")]:
            value = getattr(module, public)
            own = isinstance(value, _PLAIN) or str(getattr(value, "__module__", "")).partition(".")[0] in packages
            same = public not in found or found[public] is value
            pure[public] = same and pure.get(public, True) and (listed is not None or own)
            found[public] = value
    return found, sorted(public for public, answered in pure.items() if answered)


_PLAIN = (int, float, complex, str, bytes, tuple, frozenset, type(None))


def _preload(modules: list[str], trusted: bool) -> None:
    """Import what a program (of the standard library) or the user's own check (of anything) will import."""
    for name in modules:
        parts = name.split(".")
        if not trusted and (parts[0] not in sys.stdlib_module_names or NEVER & set(parts)):
            continue
        for end in range(1, len(parts) + 1):
            try:
                module = importlib.import_module(".".join(parts[:end]))
            except BaseException:  # noqa: BLE001 - not here, or no module: the program will be told so by its own import
                break
            if not hasattr(module, "__path__"):
                break


def _ended(pid: int) -> dict[str, Any]:
    """Kill and reap a child; how it ended and what it used. killed: it had not ended by itself."""
    exiting, state = _flags(pid)
    killed = not exiting and state not in "ZX"
    if killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {"status": status, "cpu_s": usage.ru_utime + usage.ru_stime, "killed": killed}


EXITING = 0x4
"""PF_EXITING: its socket is closed by its end, and not the other way round."""


def _flags(pid: int) -> tuple[bool, str]:
    """Whether a child is on its way out, and its state; see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *rest = file.read().rpartition(b") ")[2].split()
    except OSError:  # no such file system
        return False, "?"
    return bool(int(rest[5]) & EXITING), state.decode()


# -- in a child ------------------------------------------------------------------------------------------------------
def _child(
    fd: int, said: dict[str, Any], public: dict[str, Any], output_bytes: int, parent: int, prepared: bytes
) -> NoReturn:
    """Close what is not its own, load what its program imports, go to jail, serve."""
    status = 71
    try:
        end_with(parent)
        os.dup2(fd, 3)
        os.closerange(4, 4096)
        sys.stdout = sys.stderr = _Sink(output_bytes)
        _preload(said["modules"], said["trusted"])
        if not said["trusted"]:
            sys.setrecursionlimit(said["recursion"])
        if said["layers"]:
            enter(Ceilings(said["data_bytes"], said["cpu_s"]), frozenset(said["layers"]), prepared)
        elif said["trusted"]:
            hold(said["data_bytes"])
        _write(READY, "")
        _serve(public, output_bytes, said["trusted"])
        status = 0
    finally:
        os._exit(status)


class _Timer:
    """The soft timer. The kernel counts for it by ticks, which may be some per cent off: it rings again until it is true."""

    def __init__(self) -> None:
        self.until_s = 0.0
        signal.signal(signal.SIGPROF, self.ring)

    def start(self, cpu_s: float) -> None:
        self.until_s = time.process_time() + cpu_s
        signal.setitimer(signal.ITIMER_PROF, cpu_s)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def ring(self, *_: object) -> None:
        left_s = self.until_s - time.process_time()
        if left_s <= 0:
            raise TooSlow
        signal.setitimer(signal.ITIMER_PROF, max(left_s, 1e-3))


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


def _serve(public: dict[str, Any], output_bytes: int, trusted: bool) -> None:
    """One request after the other, until the judge closes the socket."""
    carry_out, timer = _Program(public).carry_out, _Timer()
    while (request := _read()) is not None:
        try:
            timer.start(request[4])
            try:
                answer = carry_out(*request)
                if len(answer[1]) > output_bytes:
                    raise TooMuchOutput("the result is larger than the limit allows")
            except (TooSlow, MemoryError):
                raise
            except BaseException as e:  # noqa: BLE001 - the verdict on the program
                by_program = trusted and "told by program" in e.__dict__
                answer = RAISED, json.dumps([_name(e)[:SAID_CHARACTERS], _said(e), by_program])
            timer.stop()
        except TooSlow:
            answer = SLOW, ""
        except MemoryError:
            answer = MEMORY, ""
        timer.stop()
        _write(*answer)


class _Program:
    """What a child serves: one program after the other, or one program's calls."""

    def __init__(self, public: dict[str, Any]) -> None:
        self.public = public
        self.source, self.code = "", compile("", "", "exec")
        self.loaded: dict[str, Any] = {}
        self.sharing = shared.Sharing(public)

    def carry_out(self, kind: str, source: str, entry: str, text: str, cpu_s: float, frozen: bool) -> tuple[bytes, str]:
        """The letter and the text of the answer."""
        if kind == "call":
            args, named = plain.unpack(text)
            return VALUE, plain.pack(_entered(self.loaded, entry)(*args, **named))
        if kind == "score":
            from millrace.run.function import find_function

            return VALUE, plain.pack(find_function(source)(_ask))
        if kind == "shared":
            with contextlib.suppress(RecursionError):  # deeper by our own frames: then as if it were alone
                value, found_s = self.sharing.run(source, (text, frozen), lambda: _arguments(text, frozen))
                return FOUND, f"{found_s:.9f} {plain.answer(value)}"
        self.load(source, {} if kind == "check" else self.public)
        if kind == "check":
            self.loaded["check"](_ask)
        if kind not in ("run", "shared"):
            return VALUE, "null"
        return VALUE, plain.answer(_entered(self.loaded, entry)(*_arguments(text, frozen)))

    def load(self, source: str, public: dict[str, Any]) -> None:
        """Anew for each call: a module of its own, random numbers from their beginning."""
        random.seed(0)  # the same program draws the same numbers, wherever and after whatever it runs
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(0)
        module = sys.modules[NAME] = ModuleType(NAME)  # dataclasses look their module up
        self.loaded = vars(module)
        self.loaded.update(public)
        if source != self.source:
            self.code, self.source = compile(source, f"<{NAME}>", "exec"), source
        exec(self.code, self.loaded)


def _ask(*args: Any, **named: Any) -> Any:
    """The program, as its check sees it: a call goes by the judge to another child. Raises what the program raised."""
    _write(CALL, plain.pack([list(args), named]))
    request = _read()
    if request is None or request[0] == "over":
        raise Over
    end, text = request
    if end == "value":
        return plain.unpack(text)
    error = _same(*json.loads(text)[:2])
    error.__dict__["told by program"] = True
    raise error


def _same(name: str, message: str) -> BaseException:
    """The built-in exception of that name, so that a check may expect it; of any other kind, one that says its name."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError and its like want more
            pass
    return RuntimeError(f"{name}: {message}")


def _name(error: BaseException) -> str:
    """The name of its type, as the interpreter has it: a metaclass may say anything."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


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
        return str.__getitem__(str(error), slice(0, SAID_CHARACTERS))  # of a kind of string that may do anything itself
    except TooSlow:
        raise
    except BaseException as e:  # noqa: BLE001 - a program may make its own exceptions
        return f"(its message could not be made: {_name(e)[:SAID_CHARACTERS]})"


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
