"""Toy analyses of each shape there is, and the tasks that the laws of engines run.

Every shape gives an answer that must not depend on the engine: one pass over blocks, ask and tell in rounds, early exit
by cancelling, and a source that pauses until somebody wakes it. Light: nothing here imports a numeric library.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from millrace.run.ports import Engine, Source
from millrace.run.task import Cancel, Outcome, Task

PATIENCE_S = 60.0
"""How long a test waits for what takes milliseconds on an idle machine, before it takes it for broken."""


# -- tasks -------------------------------------------------------------------------------------------------------
def square(x: int) -> int:
    return x * x


def busy(seconds: float, value: Any = None) -> Any:
    """Computes for so long, by the processor's clock."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return value


def nap(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def scramble(block: int, seed: int) -> list[int]:
    """A block of pseudo-random whole numbers: the same in every process."""
    state, out = (block * 2654435761 + seed) % 2**32, []
    for _ in range(100):
        state = (1664525 * state + 1013904223) % 2**32
        out.append(state)
    return out


def fail(message: str) -> None:
    raise ValueError(message)


def leave(status: int) -> None:
    raise SystemExit(status)


def run_out_of_memory() -> None:
    raise MemoryError("no room for it")


def unsendable() -> Any:
    return threading.Lock()


def mark(folder: str, name: str, value: Any = None) -> Any:
    """Leaves a file, so that one can count how often it ran."""
    (Path(folder) / f"{name}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return value


def crash(number: int) -> None:
    """Dies as a bug in C code would."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    time.sleep(10)


def exit_at_once(status: int) -> None:
    os._exit(status)


def killed_at_first(folder: str, times: int, value: Any) -> Any:
    """Killed from outside, as far as anybody can tell, in its first attempts."""
    mark(folder, "attempt")
    if len(list(Path(folder).iterdir())) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return value


def hoard(step_bytes: int) -> None:
    """Takes memory page by page until somebody stops it."""
    hoarded = []
    while True:
        hoarded.append(bytearray(step_bytes))


def burn() -> None:
    while True:
        pass


def hang() -> None:
    """Far longer than anybody is patient."""
    time.sleep(10 * PATIENCE_S)


def tell_and_hang(path: str) -> None:
    Path(path).write_text(f"{os.getpid()}.")
    hang()


def nap_or_wait(seconds: float, path: str) -> None:
    """Sleeps for so long, or until there is such a file."""
    if path:
        until(lambda: os.path.exists(path))
    else:
        time.sleep(seconds)


def reserve(times: int, size: int) -> int:
    """Reserves address space as OpenBLAS does: without touching it, and when it is refused it asks again."""
    held: list[mmap.mmap] = []
    while len(held) < times:
        try:
            held.append(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError:
            continue
    return len(held)


def until(true: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Waits for something to be true. AssertionError when it is not after so long, which is long on a busy machine."""
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)


class Diary:
    """A resource that writes down when it is entered and left."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> dict[str, int]:
        self._write("in")
        return {"uses": 0}

    def __exit__(self, *_: object) -> None:
        self._write("out")

    def _write(self, what: str) -> None:
        with open(self.path, "a") as file:
            file.write(f"{what} {os.getpid()}\n")


class DiaryFactory:
    """Makes a `Diary`; two for the same path have the same pickle, so a worker takes them for one."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> Diary:
        return Diary(self.path)


def use(resource: dict[str, int], value: Any) -> tuple[int, Any]:
    resource["uses"] += 1
    return resource["uses"], value


def broken_resource() -> None:
    raise ConnectionError("the simulator is not there")


# -- analyses ----------------------------------------------------------------------------------------------------
def one_pass(engine: Engine, blocks: int = 60) -> list[list[int]]:
    """Values of all blocks, in block order."""
    tasks = (Task(scramble, (block, 7), f"block-{block}") for block in range(blocks))
    found = {outcome.key: outcome.value for outcome in engine.stream(tasks)}
    return [found[f"block-{block}"] for block in range(blocks)]


def ask_and_tell(engine: Engine, rounds: int = 12, width: int = 4) -> list[tuple[int, int]]:
    """A search: each round proposes points around the best of all rounds before, decided in item order only."""
    best, history, told = (0, 0), [], {}  # type: tuple[int, int], list[tuple[int, int]], dict[str, int]

    def source() -> Source:
        nonlocal best
        for turn in range(rounds):
            points = [best[1] + (place - width // 2) * 2**turn + turn for place in range(width)]
            for place, point in enumerate(points):
                yield Task(_score, (point,), f"{turn}-{place}")
            while len(told) < (turn + 1) * width:
                yield None
            for place, point in enumerate(points):
                best = max(best, (told[f"{turn}-{place}"], point))
            history.append(best)

    for outcome in engine.stream(source()):
        told[outcome.key] = outcome.value
    return history


def _score(point: int) -> int:
    return 10**6 - (point - 777) ** 2


def first_to_fail(engine: Engine, candidates: int = 8, cases: int = 10) -> dict[int, int]:
    """For each candidate its failing case (-1: none), cancelling the rest of a candidate that failed.

    A candidate fails one case at most, so the answer does not depend on which others ran before the cancel came.
    """
    failing: dict[int, set[int]] = {candidate: set() for candidate in range(candidates)}
    decided: list[int] = []

    def source() -> Source:
        for case in range(cases):
            for candidate in range(candidates):
                while decided:
                    yield Cancel(decided.pop())
                if not failing[candidate]:
                    yield Task(_judge, (candidate, case), f"{candidate}/{case}", group=candidate)
        while decided:
            yield Cancel(decided.pop())

    for outcome in engine.stream(source()):
        candidate, case = map(int, outcome.key.split("/"))
        if outcome.failure is not None and outcome.failure.kind == "raised":
            failing[candidate].add(case)
            decided.append(candidate)
    return {candidate: min(cases_failed, default=-1) for candidate, cases_failed in failing.items()}


def _judge(candidate: int, case: int) -> int:
    time.sleep(0.001)
    if candidate % 2 and case == candidate % 5 + 2:
        raise ValueError("a wrong answer")
    return case


def pausing(engine: Engine, tasks: int = 20) -> list[int]:
    """A source that has more to give only after somebody else said so, and then woke the engine."""
    allowed = threading.Semaphore(5)
    values: dict[str, int] = {}

    def more() -> None:
        for _ in range(tasks - 5):
            time.sleep(0.005)
            allowed.release()
            engine.wake()

    def source() -> Source:
        # something must be in flight while the source waits: a task that lasts until all are allowed
        yield Task(nap, (0.005 * tasks + 0.2, -1), "long")
        asked = 0
        while asked < tasks:
            if allowed.acquire(blocking="long" in values):
                yield Task(square, (asked,), f"{asked}")
                asked += 1
            else:
                yield None

    waker = threading.Thread(target=more)
    waker.start()
    for outcome in engine.stream(source()):
        values[outcome.key] = outcome.value
    waker.join()
    return [values[f"{i}"] for i in range(tasks)]


ANALYSES: tuple[Callable[[Engine], Any], ...] = (one_pass, ask_and_tell, first_to_fail, pausing)


def outcomes(engine: Engine, source: Iterator[Any]) -> dict[str, Outcome]:
    """All outcomes by key; each key must come once."""
    found = list(engine.stream(source))
    twice = [key for key, count in Counter(o.key for o in found).items() if count > 1]
    assert not twice, f"delivered more than once: {twice}"
    return {outcome.key: outcome for outcome in found}
