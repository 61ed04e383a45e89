"""The fork server: a small clean process with the heavy modules loaded, from which workers are forked in milliseconds.

It forks workers, reaps them, holds their ceilings, and sweeps away what they leave behind. It has one thread, runs no
task and reads none. Started as `python -c BOOT CONFIG` by `client.ServerClient`.

Control socket (SEQPACKET, one JSON object a packet). From the driver: `fork` {slot} with the worker's socket; `watch`
{on}. To the driver: `hello`; `trouble` {module, why} instead of it; `up` {slot, pid, at_ns} with a pidfd; `dead` {slot,
pid, status, at_ns, cpu_ns}; `refused` {why}. Only `dead`, from `wait4`, is a death: an end of file is not.

Python's own fork server is not used: its children outlive a killed driver, it imports `__main__` again (scripts
without a guard die), and it skips preloads that fail without a word.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

from millrace.engines.processes import kernel, page, worker

TICK_S = 0.02
"""Between two looks at ceilings that are far."""
FINE_S, FINE_CLOCK_S = 0.0005, 0.001
"""The shortest time between two looks: at memory, at a clock."""
FILL_BYTES_S = 4e9
"""What one worker could fault in at worst: the closer its ceiling, the sooner the next look."""
STATUS_TICK_S = 0.05
"""Between two looks at the memory of tasks that have no ceiling (for their peak)."""
BELOW_S, BELOW_SHARE = 0.2, 0.01
"""Between two looks at what a worker's children hold (for the peak, too); a look may take so much of that time."""
LATE_NS = 20_000_000
"""Results that wait for a task that runs for longer are asked for."""

MOVE_BYTES = kernel.RESERVED_BYTES // 8
"""A ceiling of address space that is so near to where it should be stays where it is."""


class Server:
    def __init__(self, control: socket.socket, life: int, pages: page.Page, driver: int, hand_back_ns: int) -> None:
        self.control, self.life, self.pages = control, life, pages
        self.hand_back_ns = hand_back_ns
        self.alive: dict[int, tuple[int, int]] = {}  # pid -> slot, its open /proc/PID/status
        self.below: dict[int, tuple[int, int, int]] = {}  # pid -> the task, bytes below it then, when to look again
        self.asked: dict[int, int] = {}  # pid -> the task in which it was asked to let go of results
        self.watching, self.nudge = False, -1
        self.driver_fd = os.pidfd_open(driver)
        self.child_read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def loop(self) -> None:
        """Until the driver hangs up or dies."""
        poll = select.poll()
        for fd in (self.control.fileno(), self.driver_fd, self.child_read, self.life):
            poll.register(fd, select.POLLIN)
        wait_s: float | None = None
        while True:
            # poll() knows milliseconds only: below one, look without waiting and sleep after it
            for fd, event in poll.poll(None if wait_s is None else int(wait_s * 1000)):
                if fd == self.driver_fd or (fd == self.life and event & select.POLLHUP):
                    return
                if fd == self.child_read:
                    os.read(fd, 4096)
                    self.reap()
                elif fd == self.control.fileno() and not self.command():
                    return
            if wait_s is not None and wait_s < 0.001:
                time.sleep(wait_s)
            wait_s = self.watch() if self.watching and self.alive else None

    def command(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, 65536, 8)
        if not data:
            return False
        said = json.loads(data)
        if said["do"] == "watch":
            self.watching = said["on"]
        else:
            self.fork(said["slot"], fds[0])
        return True

    def fork(self, slot: int, sock: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as e:  # no more processes, no memory for one: the driver says it
            os.close(sock)
            self.tell({"do": "refused", "why": str(e)})
            return
        if not pid:
            try:
                self.let_go()
                worker.main(kernel.high(sock), self.pages, slot, self.life, parent, self.hand_back_ns)
            finally:
                os._exit(70)
        os.close(sock)  # else the driver would never see the worker's end of it close
        pidfd = os.pidfd_open(pid)
        self.alive[pid] = slot, os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self.tell({"do": "up", "slot": slot, "pid": pid, "at_ns": time.monotonic_ns()}, [pidfd])
        os.close(pidfd)

    def let_go(self) -> None:
        """In a new worker: what is the server's alone."""
        signal.set_wakeup_fd(-1)
        self.control.close()
        for fd in (self.driver_fd, self.child_read, self.nudge, *(status for _, status in self.alive.values())):
            os.close(fd)

    def reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid not in self.alive:
                continue  # an orphan that fell to us
            at_ns = time.monotonic_ns()
            slot, fd = self.alive.pop(pid)
            self.below.pop(pid, None)
            self.asked.pop(pid, None)
            os.close(fd)
            kernel.kill(-pid)  # its process group
            self.sweep()
            cpu_ns = round((usage.ru_utime + usage.ru_stime) * 1e9)
            self.tell({"do": "dead", "slot": slot, "pid": pid, "status": status, "at_ns": at_ns, "cpu_ns": cpu_ns})

    def sweep(self) -> None:
        """Kill what fell to us as subreaper: grandchildren that left their group and lost their parent.

        Not those in the group of a worker that lives: they are its own and go with it.
        """
        for pid in kernel.children():
            if pid in self.alive:
                continue
            try:
                group = os.getpgid(pid)
            except ProcessLookupError:
                continue
            if group not in self.alive:
                kernel.kill(pid)

    def watch(self) -> float:
        """Hold the ceilings once; returns how long until the next look."""
        wait_s, cells = STATUS_TICK_S, self.pages.cells
        for pid, (slot, status_fd) in self.alive.items():
            at = page.base(slot)
            seq = cells[at + page.SEQ]
            if not seq or cells[at + page.VERDICT]:
                continue
            try:
                self.free_results(pid, at, seq)
                verdict, next_s = self.look(pid, at, seq, status_fd)
            except (ProcessLookupError, OSError):
                continue  # dead: reap() comes next
            wait_s = min(wait_s, next_s)
            if verdict and cells[at + page.SEQ] == seq:  # still the same task
                cells[at + page.VERDICT_SEQ], cells[at + page.FIGURE] = seq, verdict[1]
                cells[at + page.VERDICT] = verdict[0]
                kernel.kill(-pid)
                kernel.kill(pid)
        return wait_s

    def look(self, pid: int, at: int, seq: int, status_fd: int) -> tuple[tuple[int, int] | None, float]:
        """One worker: the ceiling that it broke with what it reached, and how long it may go unwatched."""
        cells, wait_s, verdict = self.pages.cells, STATUS_TICK_S, None
        used, data = kernel.memory(status_fd)
        if cells[at + page.PEAK_SEQ] != seq:
            cells[at + page.PEAK_BYTES] = 0
            cells[at + page.PEAK_SEQ] = seq
        cells[at + page.PEAK_BYTES] = max(cells[at + page.PEAK_BYTES], used + self.below_bytes(pid, seq))
        if limit := cells[at + page.BYTES_LIMIT]:
            if used > limit:
                verdict = page.MEMORY, used
            move_first_line(pid, cells, at, used, data)
            wait_s = min(TICK_S, max(FINE_S, (limit - used) / FILL_BYTES_S / 2))
        if limit := cells[at + page.CPU_LIMIT_NS]:
            used = kernel.cpu_ns(pid) - cells[at + page.START_CPU_NS]
            if used > limit:
                verdict = page.CPU, used
            wait_s = min(wait_s, TICK_S, max(FINE_CLOCK_S, (limit - used) / 1e9))
        if limit := cells[at + page.WALL_LIMIT_NS]:
            used = time.monotonic_ns() - cells[at + page.START_NS]
            if used > limit:
                verdict = page.WALL, used
            wait_s = min(wait_s, TICK_S, max(FINE_CLOCK_S, (limit - used) / 1e9))
        return verdict, wait_s

    def free_results(self, pid: int, at: int, seq: int) -> None:
        """Ask a worker to send what was ready before a task that takes long: once, and again while the pipe was full."""
        cells = self.pages.cells
        unsent = cells[at + page.UNSENT]
        if seq == unsent or (unsent and self.asked.get(pid) == seq):
            return
        if time.monotonic_ns() - cells[at + page.START_NS] > LATE_NS and cells[at + page.SEQ] == seq:
            self.asked[pid] = seq
            os.kill(pid, worker.LET_GO)

    def below_bytes(self, pid: int, seq: int) -> int:
        """Of the processes below a worker, as it was at the last look in this task."""
        looked, held, next_ns = self.below.get(pid, (0, 0, 0))
        began_ns = time.monotonic_ns()
        if began_ns >= next_ns:
            looked, held = seq, kernel.below_bytes(pid)
            now_ns = time.monotonic_ns()
            next_ns = now_ns + max(round(BELOW_S * 1e9), round((now_ns - began_ns) / BELOW_SHARE))
            self.below[pid] = looked, held, next_ns
        return held if looked == seq else 0

    def tell(self, said: dict[str, Any], fds: list[int] | None = None) -> None:
        socket.send_fds(self.control, [json.dumps(said).encode()], fds or [])

    def end(self) -> None:
        """Nothing outlives the server: kill and reap until the last orphan is gone."""
        for pid in self.alive:
            kernel.kill(-pid)
            kernel.kill(pid)
        while pids := kernel.children():
            for pid in pids:
                kernel.kill(pid)
            os.wait()


def move_first_line(pid: int, cells: memoryview, at: int, private: int, data: int) -> None:
    """Give a worker the address space again that it has reserved and does not hold, or take what it has given back."""
    with contextlib.suppress(PermissionError):  # a task that became another user keeps what it has
        while True:
            ceiling_bytes = cells[at + page.BYTES_LIMIT]
            soft, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
            wanted = kernel.first_line(ceiling_bytes, private, data, hard)
            if abs(wanted[0] - soft) > MOVE_BYTES:
                resource.prlimit(pid, resource.RLIMIT_DATA, wanted)
            if cells[at + page.BYTES_LIMIT] == ceiling_bytes:
                return  # else its next task came in between, perhaps one without a ceiling


def preload(names: list[str]) -> tuple[str, str] | None:
    """Import the modules; the first that fails or leaves a thread behind, and why."""
    for name in names:
        before = kernel.thread_count()
        try:
            importlib.import_module(name)
        except Exception as e:  # noqa: BLE001 - said to the driver
            return name, f"importing it raised {type(e).__name__}: {e}"
        started = kernel.thread_count() - before
        if started > 0:
            return (
                name,
                f"importing it started {started} thread(s), and a fork would leave them behind with their locks held",
            )
    return None


def main(config: dict[str, Any]) -> None:
    """Everything from here to the driver's end. `config`: control, life and page descriptors, driver, preload."""
    for quiet in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(quiet, signal.SIG_IGN)  # it ends with the driver, and never before
    guard = kernel.lifeline(config["life"], os.getpid())  # while it imports it cannot poll
    if os.getppid() != config["driver"]:
        os._exit(1)
    control = socket.socket(fileno=config["control"])
    if sys.stderr is not None:
        faulthandler.enable()  # a segmentation fault in a task says where
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(line_buffering=True)  # a killed worker has no time to flush
    trouble = preload(config["preload"])
    kernel.prctl(kernel.SET_CHILD_SUBREAPER, 1)
    server = Server(control, config["life"], page.Page(config["page"]), config["driver"], config["hand_back_ns"])
    os.close(guard)  # from here on the loop sees it, and sweeps
    server.nudge = kernel.lifeline(
        config["life"], os.getpid(), signal.SIGCONT
    )  # even when somebody stopped this process
    gc.collect()
    gc.freeze()  # a collection in a worker must not touch, and so copy, the pages it shares with the others
    try:
        if trouble is None:
            server.tell({"do": "hello"})
        else:
            server.tell({"do": "trouble", "module": trouble[0], "why": trouble[1]})
        server.loop()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the driver is gone
    finally:
        server.end()
