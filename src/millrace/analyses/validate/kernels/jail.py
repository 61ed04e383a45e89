"""The jail: what a process gives up, for good, before it runs a program that nobody trusts.

Layers, each unprivileged, each probed by trying what it forbids:

    no_new_privs   no set-uid program gives anything back; of root's capabilities none is left
    rlimits        data, address space, stack, core, files written, open files, processor time, processes
    landlock       no file is opened, no TCP port is bound or reached, no signal leaves, no abstract socket is reached
    seccomp        only the system calls on a short list: no new process or thread, no file, no socket, no signal

The list allows what pure computing needs on descriptors that are open already (a pipe to the judge and /dev/null). It is a
list of what may be done, not of what may not: a system call that the kernel learns tomorrow is refused today. Nothing here
runs a program; see `zygote`. Linux on x86-64 and arm64; elsewhere only rlimits exist, and `probe` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

LIBC = ctypes.CDLL(None, use_errno=True)
"""Looked up once, in the zygote: a child that is to live for some milliseconds has no time for it."""
LAYERS = ("no_new_privs", "rlimits", "landlock", "seccomp")

SET_PDEATHSIG, SET_NO_NEW_PRIVS, GET_NO_NEW_PRIVS = 1, 38, 39
CAPABILITY_VERSION = 0x20080522
SECCOMP_SET_MODE_FILTER = 1
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, LANDLOCK_VERSION = 444, 446, 1
"""Of all architectures: system calls that came after the numbers were unified."""

RETURN_ALLOW, RETURN_ERRNO, RETURN_KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, AND, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_FOURTH = 0, 4, 40  # within struct seccomp_data; AT_FOURTH: the low word of an argument
MAP_KIND, MAP_PRIVATE = 0x0F | 0x100 | 0x2000 | 0x40000, 0x02
"""Type, grows down, locked, huge pages: RLIMIT_DATA counts neither what is shared nor what is a stack."""
X32_BIT = 0x40000000
SPARE_BYTES = 1 << 30
"""Address space beyond the data: what is reserved costs nothing, but the tables of pages that were only read do."""
STACK_BYTES = 8 << 20
PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Machine:
    """Numbers of one architecture: how the kernel calls it, seccomp itself, and the system calls that stay allowed."""

    audit: int
    seccomp: int
    mmap: int
    allowed: tuple[int, ...]


# read write writev pread64 close fstat lseek | mprotect munmap brk mremap madvise | sigaction sigprocmask sigreturn
# sigaltstack restart | yield exit exit_group | getitimer setitimer gettimeofday clock_gettime clock_getres times getrusage
# getrlimit | getpid gettid getppid get[e]uid get[e]gid | futex set_robust_list getrandom rseq (time on x86-64)
MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        317,
        9,
        (
            *(0, 1, 20, 17, 3, 5, 8, 10, 11, 12, 25, 28, 13, 14, 15, 131, 219, 24, 60, 231, 36, 38, 96, 228, 229, 100),
            *(98, 97, 39, 186, 110, 102, 107, 104, 108, 202, 273, 318, 334, 201),
        ),
    ),
    "aarch64": Machine(
        0xC00000B7,
        277,
        222,
        (
            *(63, 64, 66, 67, 57, 80, 62, 226, 215, 214, 216, 233, 134, 135, 139, 132, 128, 124, 93, 94, 102, 103, 169),
            *(113, 114, 153, 165, 163, 172, 178, 173, 174, 175, 176, 177, 98, 99, 278, 293),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one child may use. data_bytes: private memory beyond what it has at its start. cpu_s: processor seconds, rounded
    up, after which the kernel itself ends it (the judge does so earlier and more exactly)."""

    data_bytes: int
    cpu_s: float


def enter(ceilings: Ceilings, layers: frozenset[str], prepared: bytes = b"") -> None:
    """Give up everything but `layers` that this machine lacks; there is no way back. OSError when a layer cannot be entered.
    prepared: of `filtering`, made before the fork."""
    if "no_new_privs" in layers:
        _prctl(SET_NO_NEW_PRIVS, 1)
        _no_capabilities()
    if "rlimits" in layers:
        limit(ceilings)
    if "landlock" in layers:
        _landlock()
    if "seccomp" in layers:
        _seccomp(prepared)


def end_with(parent: int) -> None:
    """Be killed when the parent ends: a program that sleeps for ever would outlive it."""
    if sys.platform.startswith("linux"):
        _prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def hold(data_bytes: int) -> None:
    """The one ceiling of code that is trusted: its memory."""
    most = _sizes()[0] + data_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def limit(ceilings: Ceilings) -> None:
    """The ceilings of the kernel. RLIMIT_DATA holds the memory; RLIMIT_AS would count mapped libraries, so it has room."""
    held, space = _sizes()
    data, space = held + ceilings.data_bytes, space + ceilings.data_bytes + SPARE_BYTES
    seconds = int(ceilings.cpu_s) + 2
    wanted = [
        (resource.RLIMIT_DATA, data, data),
        (resource.RLIMIT_AS, space, space),
        (resource.RLIMIT_STACK, STACK_BYTES, STACK_BYTES),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_NOFILE, 16, 16),
    ]
    if os.getuid():  # for root it does not count; seccomp forbids processes in any case
        wanted.append((resource.RLIMIT_NPROC, 0, 0))
    for what, soft, hard in wanted:
        highest = resource.getrlimit(what)[1]
        if highest != resource.RLIM_INFINITY:
            soft, hard = min(soft, highest), min(hard, highest)
        resource.setrlimit(what, (soft, hard))


def probe() -> dict[str, str]:
    """Each layer of LAYERS: "" when it holds here, else why it does not. Every layer is entered in a child of its own, which
    then tries what the layer forbids."""
    if not sys.platform.startswith("linux"):
        lacks = f"{sys.platform} does not have it"
        return {name: "" if name == "rlimits" else lacks for name in LAYERS}
    return {
        "no_new_privs": _tried(lambda: _prctl(SET_NO_NEW_PRIVS, 1), lambda: _prctl(GET_NO_NEW_PRIVS, 0) == 1),
        "rlimits": _tried(
            lambda: limit(Ceilings(8 << 20, 1)), lambda: _refused(lambda: bytearray(64 << 20), MemoryError)
        ),
        "landlock": _tried(_in_landlock, lambda: _refused(lambda: os.open("/", os.O_RDONLY), PermissionError)),
        "seccomp": _tried(_in_seccomp, lambda: _refused(os.fork, PermissionError)),
    }


def _in_landlock() -> None:
    _prctl(SET_NO_NEW_PRIVS, 1)
    _landlock()


def _in_seccomp() -> None:
    _prctl(SET_NO_NEW_PRIVS, 1)
    _seccomp()


def _tried(layer: Callable[[], object], holds: Callable[[], bool]) -> str:
    """In a child: enter the layer, try what it forbids; "" when that was refused."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        said = "entering it raised nothing, and what it forbids was allowed"
        try:
            layer()
            said = "" if holds() else said
        except Exception as e:  # noqa: BLE001 - told to the parent as the reason
            said = f"{type(e).__name__}: {e}"
        finally:
            os.write(write, said.encode()[:4000] or b"\0")
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return "it ended the process" if not told else told.decode(errors="replace").strip("\0")


def _refused(act: Callable[[], object], error: type[BaseException]) -> bool:
    with contextlib.suppress(error):
        act()
        return False
    return True


# -- the layers ----------------------------------------------------------------------------------------------------
def _prctl(option: int, value: int) -> int:
    zero = ctypes.c_ulong(0)
    told = int(LIBC.prctl(option, ctypes.c_ulong(value), zero, zero, zero))
    if told < 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return told


def _no_capabilities() -> None:
    """capset(2) with nothing: a child of root may not do what only root may."""
    if LIBC.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


def _landlock() -> None:
    """All rights that this kernel knows are handled, and none is granted."""
    version = LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_VERSION)
    if version < 1:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    rules = _Ruleset((1 << rights) - 1, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = LIBC.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        if LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0):
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _seccomp(prepared: bytes = b"") -> None:
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    code = prepared or filtering(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if LIBC.syscall(machine.seccomp, SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp")


def filtering(machine: Machine) -> bytes:
    """Classic BPF: another architecture (or x32) kills, a number on the list is allowed, every other is EPERM.

    Memory may be mapped as private and as nothing else, see MAP_KIND.
    """

    def op(code: int, k: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("<HBBI", code, then, otherwise, k)

    count = len(machine.allowed)
    code = [
        op(LOAD, AT_ARCHITECTURE),
        op(JUMP_EQUAL, machine.audit, 1, 0),
        op(RETURN, RETURN_KILL_PROCESS),
        op(LOAD, AT_NUMBER),
        op(JUMP_AT_LEAST, X32_BIT, count + 4, 0),
        op(JUMP_EQUAL, machine.mmap, 0, 3),
        op(LOAD, AT_FOURTH),
        op(AND, MAP_KIND),
        op(JUMP_EQUAL, MAP_PRIVATE, count + 1, count),
        *(op(JUMP_EQUAL, number, count - i, 0) for i, number in enumerate(machine.allowed)),
        op(RETURN, RETURN_ERRNO | errno.EPERM),
        op(RETURN, RETURN_ALLOW),
    ]
    return b"".join(code)


def _sizes() -> tuple[int, int]:
    """VmData (what RLIMIT_DATA counts) and VmSize (what RLIMIT_AS does) of this process, in bytes; see proc(5)."""
    if not sys.platform.startswith("linux"):
        return 0, 0
    with open("/proc/self/statm", "rb", buffering=0) as file:
        size, _, _, _, _, data, _ = map(int, file.read(200).split())
    return data * PAGE_BYTES, size * PAGE_BYTES
