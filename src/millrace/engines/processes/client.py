"""The driver's end of the fork server and of one worker's pipe. Nothing is decided here.

The driver makes each pair of sockets itself and passes one end through the server, so it can write to a worker before
that exists, and no worker holds another's pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from millrace.engines.processes import kernel, page
from millrace.engines.processes.frames import LENGTH
from millrace.engines.processes.packing import Message
from millrace.run.errors import EngineLost
from millrace.run.niceness import be_nice

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTHONHASHSEED": "0",
}
"""One thread per worker, set before anything is imported: more are slower, change the last bits of sums, and do not
survive a fork. One order of sets in all workers and all runs, since a task may (wrongly) depend on it."""

BOOT = (
    "import json, sys; config = json.loads(sys.argv[1]); sys.path[:] = config['path']; "
    "from millrace.engines.processes.server import main; main(config)"
)
"""What the server runs: `-m` would put the server's own names into `__main__`, where tasks' classes are looked up."""

BUFFER_BYTES = 1 << 18


class ServerClient:
    """Starts the fork server. Its death is `EngineLost`."""

    def __init__(self, slots: int, preload: tuple[str, ...], environment: Mapping[str, str], hand_back_ns: int) -> None:
        kernel.require_linux()
        shared = kernel.high(page.create(slots))
        self.pages = page.Page(shared)
        self.control, theirs = _pair(socket.SOCK_SEQPACKET)
        life, self.life = (kernel.high(fd) for fd in os.pipe2(os.O_CLOEXEC))
        fds = theirs.fileno(), life, shared
        config = {
            "control": fds[0],
            "life": life,
            "page": shared,
            "driver": os.getpid(),
            "path": module_path(),
            "preload": preload,
            "hand_back_ns": hand_back_ns,
        }
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # -W, -X, -O: as here
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *flags, "-c", BOOT, json.dumps(config)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the driver's terminal is the driver's alone
                env={**os.environ, **WORKER_ENVIRONMENT, **environment},
            )
            be_nice(self.process.pid, os.nice(0))
        except BaseException:
            self.control.close()
            os.close(self.life)
            self.pages.close()
            raise
        finally:
            for fd in (life, shared):
                os.close(fd)
            theirs.close()

    def fork(self, slot: int) -> socket.socket:
        """Ask for a worker; the pipe to it can be written to at once."""
        ours, theirs = _pair(socket.SOCK_STREAM)
        try:
            socket.send_fds(self.control, [json.dumps({"do": "fork", "slot": slot}).encode()], [theirs.fileno()])
        except OSError as e:
            ours.close()
            raise self.lost() from e
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    def tell(self, **said: Any) -> None:
        try:
            self.control.send(json.dumps(said).encode())
        except OSError as e:
            raise self.lost() from e

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """The server's next packet, and descriptors that came with it."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, 65536, 4)
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            raise self.lost()
        return json.loads(data), [kernel.high(fd) for fd in fds]

    def lost(self) -> EngineLost:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        how = "is not to be reached" if code is None else _ending(code)
        return EngineLost(
            f"The fork server, which all workers come from, {how}. Finished tasks are in the store: run the same again to "
            "go on. If nobody killed it, its last words are on stderr, and the kernel's log tells of a lack of memory."
        )

    def close(self) -> None:
        """The server kills and reaps what is left, and ends. Idempotent."""
        if self.life < 0:
            return
        self.control.close()
        os.close(self.life)
        self.life = -1
        self.process.wait()
        self.pages.close()

    def abandon(self) -> None:
        """In a forked child of the driver: let go, so that the workers live and die with the driver alone."""
        if self.life < 0:
            return
        self.control.close()
        os.close(self.life)
        self.life = -1
        self.process.returncode = 0  # not our child: nothing to wait for, nothing to warn of


class WorkerEnd:
    """One worker as the driver sees it: its pipe, what is in flight on it, what is not yet written."""

    __slots__ = (
        "_filled", "_inbuf", "_large", "_outbuf", "closed", "heard_ns", "known", "messages", "pid", "pidfd", "place", "slot",
        "sock", "stale",
    )  # fmt: skip

    host = ""
    """Of the driver, as measures say it."""

    def __init__(self, slot: int, sock: socket.socket) -> None:
        self.slot, self.sock, self.pid, self.pidfd = slot, sock, 0, -1
        self.messages: deque[Message] = deque()  # oldest first
        self.known: set[int] = set()  # functions it has
        self.heard_ns = 0  # when something last came from it
        self.place = 0  # which working directory and module path it was told
        self.stale = False  # killed: what is still in its pipe is nobody's
        self.closed = False  # its end of the pipe is gone; only the server's word is a death
        self._inbuf, self._outbuf = bytearray(), bytearray()
        self._large: bytearray | None = None
        self._filled = 0

    def write(self, data: bytes = b"") -> bool:
        """Queue and send; True when something is left for when the pipe is writable."""
        self._outbuf += data
        while self._outbuf:
            try:
                sent = self.sock.send(self._outbuf)
            except BlockingIOError:
                return True
            except (BrokenPipeError, ConnectionResetError):
                self._outbuf.clear()  # its death is the server's to tell
                return False
            del self._outbuf[:sent]
        return False

    def read(self, buffer: bytearray) -> list[bytes | bytearray]:
        """Whole frames that have arrived, without their length. `buffer` is scratch space."""
        frames: list[bytes | bytearray] = []
        view = memoryview(buffer)
        while not self.closed:
            try:
                if self._large is None:
                    got = self.sock.recv_into(buffer)
                else:
                    got = self.sock.recv_into(memoryview(self._large)[self._filled :])
            except BlockingIOError:
                break
            except ConnectionResetError:
                got = 0
            if not got:
                self.closed = True
            elif self._large is not None:
                self._filled += got
                if self._filled < len(self._large):
                    continue
                frames.append(self._large)
                self._large = None
            else:
                self._inbuf += view[:got]
                self._cut(frames)
                if got == len(buffer):
                    continue
            if self._large is None:
                break
        return frames

    def _cut(self, frames: list[bytes | bytearray]) -> None:
        """Take whole frames from the front; a large one gets space of its own, so that it is not copied as it grows."""
        data, at = self._inbuf, 0
        while len(data) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            start = at + LENGTH.size
            if len(data) - start < length:
                if length > BUFFER_BYTES:
                    self._large = bytearray(length)
                    self._filled = len(data) - start
                    self._large[: self._filled] = data[start:]
                    at = len(data)
                break
            frames.append(bytes(data[start : start + length]))
            at = start + length
        del data[:at]

    def kill(self) -> bool:
        """With its process group; False when it is not up yet."""
        if self.pidfd < 0:
            return False
        kernel.kill(-self.pid)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        return True

    def release(self) -> None:
        self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def module_path() -> list[str]:
    """Where this process finds modules, with the working directory by its name."""
    return [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    ours, theirs = (socket.socket(fileno=kernel.high(s.detach())) for s in socket.socketpair(socket.AF_UNIX, kind))
    return ours, theirs
