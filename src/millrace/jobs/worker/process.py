"""One job process as its warden sees it: started, given a job, watched, stopped, and its end told apart.

`start` is to be called from the warden's main thread: the signal of the parent's death follows the thread that forked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.host import child_environment, private_bytes
from millrace.jobs.queues import Errand
from millrace.jobs.states import Job, Told
from millrace.jobs.table import Progress
from millrace.run.niceness import be_nice

CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS})


@dataclass(slots=True)
class Slot:
    """A job process and the job or errand in it. `stopping`: why it was asked to stop; `verdict`: why it was killed;
    `reply`: what an errand's process told beside its end; `worn`: it says that it is to be replaced; `scratch`: where
    its temporary files are."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    job: Job | None = None
    errand: Errand | None = None
    reply: str | None = None
    worn: bool = False
    folder: str = ""
    began_s: float = 0.0
    stopping: str = ""
    asked_s: float = 0.0
    verdict: Told | None = None
    progress: Progress = field(default_factory=Progress)
    progressed: bool = False
    ceiling_bytes: int = 0
    peak_bytes: int = 0
    jobs_done: int = 0
    ready: bool = False
    rest: bytes = b""
    scratch: Path | None = None

    @property
    def busy(self) -> bool:
        return self.job is not None or self.errand is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began_s


def start(nice: int, log: Path, scratch: Path | None = None, warm: bool = False) -> Slot:
    """A new process, in a session of its own. `scratch`: the folder for its temporary files, which goes with it; `warm`: it
    imports what a light job needs before it says that it is ready."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "millrace.jobs.worker.child", str(theirs.fileno()), str(os.getpid())]
    command += ["warm"] if warm else []
    environ = child_environment()
    if scratch is not None:
        environ |= {"TMPDIR": str(scratch), "MILLRACE_SCRATCH": str(scratch)}
    with log.open("ab") as said:
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL, stdout=said,
            stderr=said, env=environ,
        )  # fmt: skip
    theirs.close()
    ours.setblocking(False)
    if nice:
        with suppress(ProcessLookupError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, max(nice, os.getpriority(os.PRIO_PROCESS, process.pid)))
        be_nice(process.pid, nice)
    return Slot(process, ours, scratch=scratch)


def give(slot: Slot, work: Job | Errand, given: dict[str, Any]) -> None:
    """Hand a job or an errand to a process that has none."""
    slot.job, slot.errand = (None, work) if isinstance(work, Errand) else (work, None)
    slot.reply, slot.folder, slot.began_s = None, given["folder"], time.monotonic()
    slot.stopping, slot.asked_s, slot.verdict, slot.progress, slot.progressed = "", 0.0, None, Progress(), False
    slot.ceiling_bytes, slot.peak_bytes = given["memory_bytes"], 0
    slot.link.setblocking(True)
    with suppress(BrokenPipeError, ConnectionResetError):  # it died just now: `ended` tells
        slot.link.sendall(json.dumps(given).encode() + b"\n")
    slot.link.setblocking(False)


def heard(slot: Slot) -> Told | None:
    """Read what the process says; the end of its job when it told one."""
    try:
        data = slot.link.recv(1 << 16)
    except (BlockingIOError, ConnectionResetError):
        return None
    *lines, slot.rest = (slot.rest + data).split(b"\n")
    told = None
    for line in lines:
        said = json.loads(line)
        slot.ready = slot.ready or "ready" in said
        if said.get("progress"):
            at = said["progress"]
            slot.progress = Progress(at["stage"], at["finished"], at["total"], slot.peak_bytes)
            slot.progressed = slot.progressed or bool(at["computed"])
        if "end" in said:
            end = said["end"]
            slot.reply, slot.worn = end.get("reply"), end["worn"]
            answer = tuple(end["answer"]) if end.get("answer") else None
            told = Told(
                end["ending"], end.get("why", ""), slot.seconds, end["core_s"], slot.peak_bytes or None, answer,
                end["progressed"],
            )  # fmt: skip
    return told


def ended(slot: Slot) -> Told | None:
    """What the end of the process says about its job; None while it lives."""
    code = slot.process.poll()
    if code is None:
        return None
    sweep_session(slot)
    if slot.verdict is not None:
        return slot.verdict
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    ending = "killed" if code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP) else "crashed"
    return Told(
        ending, f"its process ended with {name}", slot.seconds, None, slot.peak_bytes or None, None, slot.progressed
    )


def measure(slot: Slot) -> int:
    """Private bytes of the process and all below it; what is mapped is not the job's memory."""
    with suppress(ProcessLookupError):
        held = private_bytes(slot.process.pid, tree=True)
        slot.peak_bytes = max(slot.peak_bytes, held)
        return held
    return 0


def kill(slot: Slot, verdict: Told | None) -> None:
    """The whole group, now. Its workers have lifelines of their own and go with it."""
    slot.verdict = verdict
    with suppress(ProcessLookupError):
        os.killpg(slot.process.pid, signal.SIGKILL)


def ask(slot: Slot, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(slot.process.pid, number)


def sweep_session(slot: Slot) -> None:
    """What the job started within its group goes with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(slot.process.pid, signal.SIGKILL)


def close(slot: Slot) -> None:
    slot.link.close()  # a process that waits for a job ends by that
    if slot.process.poll() is None:
        kill(slot, None)
        slot.process.wait()
    sweep_session(slot)
    if slot.scratch is not None:
        shutil.rmtree(slot.scratch, ignore_errors=True)
