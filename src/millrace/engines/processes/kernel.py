"""The few system calls that matter: lifeline, parent-death signal, processor clock and private memory of a process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from millrace.run.errors import NotSupported

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
F_SETSIG = 10  # not in the fcntl module before 3.13


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
    text = os.pread(status_fd, 4096, 0)
    anon = text.find(b"RssAnon:")
    if anon < 0:
        return 0  # a zombie has no memory
    shared = text.find(b"RssShmem:", anon)
    end, shared_end = text.find(b"kB", anon), text.find(b"kB", shared)
    return (int(text[anon + 8 : end]) + int(text[shared + 9 : shared_end])) << 10


def data_bytes(status_fd: int) -> int:
    """VmData: what RLIMIT_DATA counts."""
    return int(os.pread(status_fd, 4096, 0).split(b"VmData:")[1].split(None, 1)[0]) << 10


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def children() -> list[int]:
    """Children of this process (which has one thread)."""
    with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
        return [int(pid) for pid in file.read().split()]
