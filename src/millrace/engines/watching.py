"""What a worker tells about its tasks when it is asked to: a timing line each, and samples of what they were doing.

A `Watched` stands for the function of a task, in whatever worker runs it. Timing lines go to the worker's stderr, one
write each. Samples of the interpreter's stack are taken by a thread that only runs within tasks, and are appended to a
file of the process; a task that holds the interpreter (native code) is seen when it lets go, and the time until then is
put to the stack that is found there. What is sampled in the last tenth of a second before a kill is not written.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec

from millrace.run.task import Task

SAMPLE_S = 0.005
FLUSH_S = 0.1
DEPTH = 60
"""Frames of a stack that are kept, from the task's own function on."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a watched task is called in its line: the last of its arguments."""

    param_id: str
    item: int


class Watch:
    """Makes tasks watched. `timing_log`: lines on stderr; `samples`: the folder that stacks are written to."""

    def __init__(self, timing_log: bool, samples: Path | None) -> None:
        self._timing_log, self._samples = timing_log, samples
        self._known: dict[Hashable, Watched] = {}

    def __call__(self, task: Task, item: int, name: str) -> Task:
        """The same task, watched; its key is made already and does not change."""
        watched = self._known.get((task.fn, name))
        if watched is None:
            watched = self._known[task.fn, name] = Watched(task.fn, name, self._timing_log, self._samples)
        told = Told(str(item if task.group is None else task.group), item)
        return replace(task, fn=watched, args=(*task.args, told), name=task.name or name)


class Watched:
    """A function whose calls are told. The last argument is a `Told`."""

    def __init__(self, fn: Callable[..., Any], name: str, timing_log: bool, samples: Path | None) -> None:
        self.fn, self.name, self.timing_log, self.samples = fn, name, timing_log, samples
        self._seed = _place_of_seed(fn)
        self._sampler: Sampler | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sampler": None}

    def __call__(self, *given: Any) -> Any:
        *args, told = given
        if self.samples is not None and self._sampler is None:
            self._sampler = Sampler(self.name, self.samples)
        start = time.perf_counter()
        try:
            if self._sampler is None:
                return self.fn(*args)
            with self._sampler:
                return self.fn(*args)
        finally:
            if self.timing_log:
                self._tell(args, told, time.perf_counter() - start)

    def _tell(self, args: list[Any], told: Told, took_s: float) -> None:
        seed = args[self._seed] if self._seed is not None and self._seed < len(args) else told.item
        line = (
            f"SIM_TIMING: param_id={_word(told.param_id)} seed={_word(seed)} duration_ms={took_s * 1e3:.3f} "
            f"worker={platform.node()}-{os.getpid()}\n"
        )
        with contextlib.suppress(OSError):  # whoever read stderr has left: the task is worth more than its line
            os.write(2, line.encode())


def _word(value: Any) -> str:
    return "_".join(str(value).split()) or "-"


def _place_of_seed(fn: Callable[..., Any]) -> int | None:
    """Where the argument `seed` stands, None when there is none or nobody can tell."""
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return None
    return names.index("seed") if "seed" in names else None


class Sampler:
    """Looks at this thread's stack every few milliseconds while it is within `with`."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._path = folder / f"{platform.node()}-{os.getpid()}.jsonl"
        self._thread = threading.get_ident()
        self._within = threading.Event()
        self._lock = threading.Lock()
        self._seconds: Counter[tuple[str, ...]] = Counter()
        self._since = self._flushed = time.monotonic()
        self._words: dict[CodeType, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._look, daemon=True, name="millrace-sampler").start()

    def __enter__(self) -> None:
        self._since = time.monotonic()
        self._within.set()

    def __exit__(self, *_: Any) -> None:
        self._within.clear()
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flush()

    def _look(self) -> None:
        while True:
            self._within.wait()
            time.sleep(SAMPLE_S)
            frame = sys._current_frames().get(self._thread)
            now = time.monotonic()
            if frame is None:
                return
            stack = self._stack(frame) if self._within.is_set() else ()
            with self._lock:
                if stack:
                    self._seconds[stack] += now - self._since  # type: ignore[assignment]  # seconds, not counts
                self._since = now

    def _stack(self, frame: FrameType | None) -> tuple[str, ...]:
        """From the task's function to where it is; empty when it is not in the task."""
        found: list[str] = []
        while frame is not None:
            code = frame.f_code
            if code is Watched.__call__.__code__:
                return tuple(reversed(found[-DEPTH:]))
            word = self._words.get(code)
            if word is None:
                word = self._words[code] = f"{code.co_qualname} ({os.path.basename(code.co_filename)})"
            found.append(word)
            frame = frame.f_back
        return ()

    def _flush(self) -> None:
        with self._lock:
            taken, self._seconds = self._seconds, Counter()
            self._flushed = time.monotonic()
        if taken:
            rows = [(self._name, list(stack), round(seconds, 6)) for stack, seconds in taken.items()]
            with contextlib.suppress(OSError), self._path.open("ab") as file:  # a full disk costs the samples only
                file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
