"""The worker's loop: read a message of tasks, run them one by one, send back what came of them.

An attempt is measured whole, from where the one before it ended, so that a worker's time has no gaps within a message.
Every exception is recorded and sent; nothing but a kill, an exit or a crash ends a worker early. It knows nothing of
the source, of other workers, or of what a task is for. See `frames` for what is on the pipe, `page` for what it tells.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
import traceback
from array import array
from time import monotonic_ns, process_time_ns
from typing import TYPE_CHECKING, Any

import cloudpickle

from millrace.engines.attempt import Collector, Extra, Stores, Warm, carry_out, failure_of
from millrace.engines.processes import kernel, page
from millrace.engines.processes.frames import CODES, LAST, LENGTH, RESULTS, TASKS, UNREAD, Run
from millrace.run.task import Ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from millrace.run.ports import Tokens

FLUSH_NS = 20_000_000
"""Results go back this often. Waking the driver costs 30-100 us on busy cores; after a kill this much is run again."""
FLUSH_BYTES = 1 << 20
"""And when about so much has come together."""
MEASURED_NS = 100_000
"""Packing that took longer than this is worth another look at the processor clock, which is a system call."""
LET_GO = signal.SIGURG
"""By it the fork server asks for results that wait behind a long task. Who has no handler for it does not notice."""
WRITABLE_S = 0.001
"""How long such results wait for room in the pipe, in the time of that task."""
DROPS = 1024
"""How many dropped messages and groups are remembered; a pipe holds two messages."""
PLAIN = Extra()
Batch = tuple[list[Any], "array[int]", "array[int]", dict[int, Extra]]
"""Values, ends and processor times of attempts, and what is not plain about some."""


def main(sock: int, pages: page.Page, slot: int, life: int, server: int, hand_back_ns: int) -> None:
    """A freshly forked worker; never returns. Each is a process group, so that its own children can go with it."""
    os.setpgid(0, 0)
    kernel.prctl(kernel.SET_PDEATHSIG, signal.SIGKILL)  # it follows the thread that forked; the server has only one
    if os.getppid() != server:
        os._exit(1)
    kernel.lifeline(life, -os.getpid())
    os.close(life)
    for default in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(default, signal.SIG_DFL)  # a task may start and stop processes of its own
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # of driver and worker the kernel should take the worker; where it may not be set, so be it
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # else all workers would draw the numbers of the server they come from
    status = 1
    try:
        worker = Worker(socket.socket(fileno=sock), pages, slot, hand_back_ns)
        signal.signal(LET_GO, worker.let_go)
        worker.loop()
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the driver is gone
    except BaseException:  # noqa: BLE001 - the death is told by its status; this tells why
        traceback.print_exc()
    os._exit(status)


class Worker:
    def __init__(self, sock: socket.socket, pages: page.Page, slot: int, hand_back_ns: int) -> None:
        self.sock, self.cells, self.at, self.hand_back_ns = sock, pages.cells, page.base(slot), hand_back_ns
        self.tokens: Tokens | None = None
        self.meter: Callable[[], int] | None = None
        self.waited_ns = self.metered_ns = 0
        self.codes: dict[int, Any] = {}  # number -> pickle, and once used, the function
        self.stores, self.warm, self.collector = Stores(None), Warm(), Collector()
        self.dropped: dict[int, None] = {}  # messages and groups that are not wanted any more, oldest first
        self.seen = self.cells[self.at + page.SEEN]
        self.bytes_limit = 0
        self.most = 64  # results that are worth a frame by their size
        self.pid = os.getpid()
        self.batch: Batch | None = None  # results that are not sent yet, while tasks run and none is being sent
        self.rest = memoryview(b"")  # of a frame that did not fit the pipe when a long task was under way
        self.number = self.first = self.began_ns = self.unpack_ns = 0
        self.began_cpu_ns = process_time_ns()

    def loop(self) -> None:
        """Until the driver closes the pipe; then leave the warm resources."""
        while head := _read(self.sock, TASKS.size):
            length, news, number, *limits = TASKS.unpack(head)
            body = _read(self.sock, length - TASKS.size + LENGTH.size)
            if body is None:
                break
            self.message(body, news, number, limits)
        try:
            self.warm.leave()
        finally:
            self.stores.close()
            if self.tokens is not None:
                self.tokens.close()

    # -- a message ---------------------------------------------------------------------------------------------
    def message(self, body: bytearray, news: int, number: int, limits: list[int]) -> None:
        """Its time begins when the whole of it is here (a driver that is busy may leave half of it in the pipe) and
        there is a core for it: ceilings do not count the wait."""
        cells, at = self.cells, self.at
        self.number, self.first, self.waited_ns = number, 0, 0
        start_ns = self.begin()
        if news:
            tokens = self.tokens
            self.learn(*pickle.loads(memoryview(body)[:news]))
            if self.tokens is not tokens:
                start_ns = self.begin()
        self.throttled_ns()
        self.read_drops()
        if number in self.dropped:
            self.send(LAST)
            return
        cells[at + page.UNSENT] = number
        cells[at + page.CPU_LIMIT_NS], cells[at + page.WALL_LIMIT_NS], cells[at + page.BYTES_LIMIT] = limits
        self.first_line(limits[2])
        cells[at + page.START_CPU_NS], cells[at + page.START_NS] = self.began_cpu_ns, monotonic_ns()
        cells[at + page.PHASE] = page.UNPACKING
        cells[at + page.SEQ] = number
        try:
            runs = pickle.loads(memoryview(body)[news:])
        except BaseException as e:  # noqa: BLE001 - told to the driver, which finds out whose fault it is
            cells[at + page.SEQ] = 0
            self.send(LAST | UNREAD, [failure_of(e)])
            return
        del body
        cells[at + page.PHASE] = page.RUNNING
        self.unpack_ns = monotonic_ns() - start_ns
        self.run(runs)

    def begin(self) -> int:
        """Hold a core from here on; when the next attempt starts."""
        if self.tokens is not None:
            self.cells[self.at + page.WAITS] = 1
            self.waited_ns += self.tokens.take()
            self.cells[self.at + page.WAITS] = 0
        self.unpack_ns, self.began_ns, self.began_cpu_ns = 0, monotonic_ns(), process_time_ns()
        return self.began_ns

    def throttled_ns(self) -> int:
        """How long a quota has held this group back since the last look."""
        if self.meter is None:
            return 0
        before_ns, self.metered_ns = self.metered_ns, self.meter()
        return max(0, self.metered_ns - before_ns)

    def learn(self, codes: list[tuple[int, bytes]], place: tuple[Any, ...] | None) -> None:
        """`place`: folder, module path, pickled opener, tokens and meter, the last two None where there are none."""
        if len(self.codes) > CODES:
            self.codes.clear()
        self.codes.update(codes)
        if place is not None:
            folder, sys.path[:], opener, tokens, meter = place
            if tokens is not None and self.tokens is None:
                self.tokens = pickle.loads(tokens)
            if meter is not None and self.meter is None:
                self.meter = pickle.loads(meter)()
            if folder is not None:
                with contextlib.suppress(OSError):  # gone since: a task that opens something there will say so
                    os.chdir(folder)
            if opener is not None:
                self.stores = Stores(lambda url: pickle.loads(opener)(url))

    def run(self, runs: list[tuple[Any, ...]]) -> None:
        """All tasks of a message in order. Plain ones (known function, nothing but values) are called right here."""
        cells, at, number = self.cells, self.at, self.number
        at_seq, at_start, at_cpu, at_peak = (
            at + page.SEQ,
            at + page.START_NS,
            at + page.START_CPU_NS,
            at + page.PEAK_SEQ,
        )
        begun_ns = now = flushed = self.began_ns
        cpu, seq, seen, dropped = self.began_cpu_ns, number, self.seen, self.dropped
        values, ends, cpus, extras = self.batch = _batch()
        collector = self.collector
        collected = collector.total_ns
        for run in map(Run._make, runs):
            plain = self.plain(run)
            for i, args in enumerate(run.args):
                if cells[0] != seen:
                    seen = self.read_drops()
                    if number in dropped:  # stolen while a long task ran
                        self.send(LAST, values, ends, cpus, extras)
                        return
                value, extra = None, PLAIN
                if not (run.groups and run.groups[i] in dropped):
                    cells[at_cpu] = cpu
                    cells[at_start] = now
                    cells[at_seq] = seq  # last: now the ceilings hold
                    if plain is not None and Ref not in map(type, args):
                        try:
                            value = plain(*args)
                        except BaseException as e:  # noqa: BLE001 - recorded as a typed failure
                            extra = Extra(failure_of(e))
                    else:
                        value, extra = self.special(run, args, run.keys[i] if run.keys else "")
                        plain = self.plain(run)
                    now, cpu = monotonic_ns(), process_time_ns()
                    if cells[at_peak] == seq:
                        extra = extra._replace(peak_bytes=cells[at + page.PEAK_BYTES])
                    if collector.total_ns != collected:
                        extra = extra._replace(gc_ns=collector.total_ns - collected)
                        collected = collector.total_ns
                    if extra is not PLAIN:
                        extras[len(values)] = extra
                values.append(value)
                ends.append(now)
                cpus.append(cpu)
                seq += 1
                if now - flushed >= FLUSH_NS or len(values) >= self.most:
                    over = now - begun_ns > self.hand_back_ns  # slower than foretold: others may have the rest
                    self.send(LAST if over else 0, values, ends, cpus, extras)
                    if over:
                        return
                    values, ends, cpus, extras = self.batch = _batch()
                    now, cpu = self.began_ns, self.began_cpu_ns
                    flushed = now
        self.send(LAST, values, ends, cpus, extras)

    def special(self, run: Run, args: tuple[Any, ...], key: str) -> tuple[Any, Extra]:
        return carry_out(self.code, run.function, run.resources, args, run.keep, key, self.warm, self.stores)

    def plain(self, run: Run) -> Any:
        """The function, when a task of this kind needs nothing around its call; else None."""
        code = self.codes[run.function]
        return None if run.resources or run.keep is not None or type(code) is bytes else code

    def code(self, number: int) -> Any:
        """A function, loaded on first use: what its module raises is the failure of the task that needed it."""
        code = self.codes[number]
        if type(code) is bytes:
            code = self.codes[number] = pickle.loads(code)
        return code

    # -- to the driver -----------------------------------------------------------------------------------------
    def send(
        self,
        flags: int,
        values: list[Any] | tuple[()] = (),
        ends: array[int] | None = None,
        cpus: array[int] | None = None,
        extras: dict[int, Extra] | None = None,
    ) -> None:
        """Pack and send; afterwards `began_ns` is when the next attempt starts. Packing belongs to the last attempt."""
        self.batch = None
        cells, at, count, pack_ns = self.cells, self.at, len(ends or ()), 0
        cells[at + page.PHASE] = (
            page.PACKING
        )  # SEQ still tells the last task: its ceilings hold, and a crash has a cause
        data = _packed(values, extras or {})
        if ends and cpus:
            now = monotonic_ns()
            pack_ns = now - ends[-1]
            ends[-1] = now
            if pack_ns > MEASURED_NS:
                cpus[-1] = process_time_ns()
            self.most = max(1, FLUSH_BYTES * count // len(data))
        cells[at + page.START_NS] = (
            monotonic_ns()
        )  # from now on what was run is on its way: the driver does not steal it
        cells[at + page.SEQ] = 0
        cells[at + page.PHASE] = page.RUNNING
        head = self.head(flags, data, pack_ns, ends, cpus)
        if flags & LAST and self.tokens is not None:
            self.tokens.release()
        if len(data) < 1 << 16:
            self.write(head + data)
        else:
            self.write(head)
            self.write(data)
        self.sent(count)
        if not flags & LAST:
            self.begin()

    def head(self, flags: int, data: bytes, pack_ns: int, ends: array[int] | None, cpus: array[int] | None) -> bytes:
        """All of a frame before its pickle."""
        times, count = (ends.tobytes() + cpus.tobytes(), len(ends)) if ends and cpus else (b"", 0)
        length = RESULTS.size - LENGTH.size + len(times) + len(data)
        return times.join((RESULTS.pack(
            length, self.number, self.first, count, flags, self.pid, self.began_ns, self.began_cpu_ns,
            self.unpack_ns, pack_ns, self.waited_ns, self.throttled_ns() if count else 0,
        ), b""))  # fmt: skip

    def sent(self, count: int) -> None:
        self.first += count
        self.cells[self.at + page.UNSENT] = self.number + self.first
        self.waited_ns = 0

    def let_go(self, *_: object) -> None:
        """In the middle of a long task, between two steps of its code: send what was ready before it began.

        Nothing that goes wrong here is the task's. What does not go now goes later: with the task's own result at the latest.
        """
        batch, self.batch = self.batch, None
        if batch is None:
            return
        values, ends, cpus, extras = batch
        try:
            whole = len(values) == len(ends) == len(cpus) and all(i < len(values) for i in extras)
            if values and whole and not self.rest:
                data = _packed(values, extras)
                self.rest = memoryview(self.head(0, data, 0, ends, cpus) + data)
                self.unpack_ns, self.began_ns, self.began_cpu_ns = 0, ends[-1], cpus[-1]
                self.sent(len(ends))
                del values[:], ends[:], cpus[:]
                extras.clear()
            self.write_some()
        except Exception:  # noqa: BLE001 - the driver is gone, or the task has used up stack or memory: the loop finds out
            pass
        finally:
            self.batch = batch

    def write_some(self) -> None:
        """As much of the rest as a driver that is awake takes; UNSENT asks for another call when that is not all."""
        while self.rest:
            try:
                self.rest = self.rest[self.sock.send(self.rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if not select.select((), (self.sock,), (), WRITABLE_S)[1]:
                    break
        self.cells[self.at + page.UNSENT] = 0 if self.rest else self.number + self.first

    def write(self, data: bytes) -> None:
        """To the driver; while that is busy elsewhere and the pipe is full, the core is for others."""
        if self.rest:
            data, self.rest = bytes(self.rest) + data, memoryview(b"")
        view = memoryview(data)
        while view:
            try:
                sent = self.sock.send(view, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if self.tokens is not None:
                    self.tokens.release()
                sent = self.sock.send(view)
            view = view[sent:]

    def read_drops(self) -> int:
        """Take over what the driver dropped since the last look; returns how much that is by now."""
        cells, count = self.cells, self.cells[0]
        for i in range(max(self.seen, count - page.RING_IDS), count):
            self.dropped[cells[1 + i % page.RING_IDS]] = None
        while len(self.dropped) > DROPS:
            del self.dropped[next(iter(self.dropped))]
        self.seen = cells[self.at + page.SEEN] = count
        return count

    def first_line(self, private_bytes: int) -> None:
        """The ceiling of address space, when that of memory has changed; from there on the fork server moves it."""
        if private_bytes == self.bytes_limit:
            return
        self.bytes_limit = private_bytes
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        with open("/proc/self/status", "rb") as file:
            held = kernel.memory(file.fileno())
        resource.setrlimit(resource.RLIMIT_DATA, kernel.first_line(private_bytes, *held, hard))


def _batch() -> Batch:
    return [], array("q"), array("q"), {}


def _packed(values: list[Any] | tuple[()], extras: dict[int, Extra]) -> bytes:
    try:
        return pickle.dumps((values, {i: tuple(extra) for i, extra in extras.items()} if extras else None), 5)
    except BaseException:  # noqa: BLE001 - a class made here, a lambda, or what nothing can pickle: told one by one
        return _carefully(list(values), extras)


def _carefully(values: list[Any], extras: dict[int, Extra]) -> bytes:
    """By value where by reference does not work, and without what no way works for."""
    for i, value in enumerate(values):
        try:
            cloudpickle.dumps(value, 5)
        except BaseException as e:  # noqa: BLE001 - recorded as a typed failure
            kind, said, trace = failure_of(e)
            values[i] = None
            failure = kind, f"The task returned a {type(value).__name__}, which cannot be sent back: {said}", trace
            extras[i] = extras.get(i, PLAIN)._replace(failure=failure)
    data: bytes = cloudpickle.dumps((values, {i: tuple(extra) for i, extra in extras.items()}), 5)
    return data


def _read(sock: socket.socket, size: int) -> bytearray | None:
    """Exactly `size` bytes; None when the driver has closed the pipe."""
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        count = sock.recv_into(view[got:])
        if not count:
            return None
        got += count
    return buffer
