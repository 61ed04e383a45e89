"""The few system calls that matter: lifeline, parent-death signal, processor clock and private memory of a process."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time

from millrace.run.errors import NotSupported

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
F_SETSIG = 10  # not in the fcntl module before 3.13
RESERVED_BYTES = 128 << 20
"""Address space that a worker may reserve beyond its ceiling between two looks of the fork server."""


def require_linux() -> None:
    """Worker processes need memfd, pidfds, descriptors over sockets and /proc."""
    if not sys.platform.startswith("linux"):
        raise NotSupported(
            f"The engine of worker processes needs Linux (memfd, pidfds, /proc), and this is {sys.platform}. Use "
            'engine="inline" here, or run millrace in a Linux container.'
        )
    if not sys.executable:
        raise NotSupported(
            "The engine of worker processes starts the Python interpreter anew, and this program, which embeds Python, "
            'does not say where it is (sys.executable is empty). Set sys.executable, or use engine="inline".'
        )


def prctl(option: int, value: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "prctl")


def high(fd: int) -> int:
    """The same description above 2, close-on-exec: with stdin closed, a new socket would get number 0."""
    if fd > 2:
        return fd
    import fcntl

    new = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return new


def lifeline(fd: int, owner: int, number: int = signal.SIGKILL) -> int:
    """A signal for `owner` (a pid, or minus a process group) at the moment the last writer of the pipe is gone.

    O_ASYNC and the owner belong to the *open file description*: each process must open the pipe anew, or it would take
    the signal away from the others.
    """
    import fcntl

    own = high(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    fcntl.fcntl(own, F_SETSIG, number)
    fcntl.fcntl(own, fcntl.F_SETOWN, owner)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(own, select.POLLIN)
    if any(event & select.POLLHUP for _, event in poll.poll(0)):  # the writer left before the signal was armed
        os._exit(1)
    return own


def kill(pid: int) -> None:
    """SIGKILL to a process, or with minus to a group; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def cpu_ns(pid: int) -> int:
    """Processor time of any process, all threads: one system call, no file."""
    return time.clock_gettime_ns(((~pid) << 3) | 2)


def private_bytes(status_fd: int) -> int:
    """RssAnon + RssShmem from an open /proc/PID/status. `smaps_rollup` would tell the same and walks all pages."""
    return _private(os.pread(status_fd, 4096, 0))


def memory(status_fd: int) -> tuple[int, int]:
    """Private bytes, and the bytes of address space that RLIMIT_DATA counts (VmData)."""
    text = os.pread(status_fd, 4096, 0)
    data = text.find(b"VmData:")
    return _private(text), 0 if data < 0 else int(text[data + 7 : text.find(b"kB", data)]) << 10


def _private(status: bytes) -> int:
    anon = status.find(b"RssAnon:")
    if anon < 0:
        return 0  # a zombie has no memory
    shared = status.find(b"RssShmem:", anon)
    end, shared_end = status.find(b"kB", anon), status.find(b"kB", shared)
    return (int(status[anon + 8 : end]) + int(status[shared + 9 : shared_end])) << 10


def first_line(ceiling_bytes: int, private: int, data: int, hard: int) -> tuple[int, int]:
    """RLIMIT_DATA for a process that may hold `ceiling_bytes` (0: no ceiling), holds `private`, and has `data`.

    It makes a huge request raise MemoryError where it is made, instead of costing the worker. It counts address space,
    which libraries reserve and hardly touch (OpenBLAS 32 MiB a copy, a thread 8 MiB), and some of them wait for ever or
    end the process when they are refused it: so there is room beyond the ceiling, and what is reserved without being
    held counts against nobody for longer than until the next look. What is really held is the fork server's to watch.
    """
    if not ceiling_bytes:
        return hard, hard
    soft = data + max(0, ceiling_bytes - private) + RESERVED_BYTES
    return (soft if hard == resource.RLIM_INFINITY else min(soft, hard)), hard


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def children(pid: int = 0) -> list[int]:
    """Children of a process; of this one, which has one thread, when none is named. One that is gone has none."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task") if pid else (os.getpid(),):
            with open(f"/proc/{pid or 'self'}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def below_bytes(pid: int) -> int:
    """What the processes below a process hold beside it: pages that they alone have written. What a fork shares with its
    parent is its parent's. `smaps_rollup` walks all pages of each, so that this is not for every tick."""
    total, waiting = 0, children(pid)
    while waiting:
        child = waiting.pop()
        waiting += children(child)
        with contextlib.suppress(OSError), open(f"/proc/{child}/smaps_rollup", "rb") as file:  # gone, or another user's
            text = file.read()
            at = text.find(b"Private_Dirty:")
            total += int(text[at + 14 : text.find(b"kB", at)]) << 10 if at >= 0 else 0
    return total
