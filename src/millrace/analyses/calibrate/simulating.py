"""What a worker does: one simulation, its outputs made small, what it printed kept.

The simulator is a warm resource: its module is imported (and a warm-up simulation run, when asked for) once per worker. This
module imports little: it belongs to the key of every simulation.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from millrace.analyses.calibrate.aligning import Alignment, WrongOutputs, columns_of

KEPT_BYTES = 8192
"""Of what a replicate prints: the first half and the last half of as much."""
PRINTED = "\nWhat it printed:\n"
"""Stands between a failure's traceback and what was printed before."""


class Simulator:
    """The user's functions, entered once per worker. alignments: what is taken of the outputs; None keeps them as they are."""

    def __init__(
        self,
        simulate: Callable[..., Any],
        summarise: Callable[..., Any] | None,
        alignments: tuple[Alignment, ...] | None,
        warm_up: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        self.simulate, self.summarise, self.alignments = simulate, summarise, alignments
        if warm_up:
            with printed():
                simulate(dict(warm_up), 0)


def replicate(simulator: Simulator, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One simulation: `outputs` (or `aligned`, arrays by target), `log` (what it printed), `seconds` (of the simulation).

    What the user's functions raise goes on, with what was printed as a note.
    """
    with printed() as said:
        try:
            begun = time.perf_counter()
            outputs = simulator.simulate(dict(params), seed)
            if simulator.summarise is not None:
                outputs = simulator.summarise(outputs)
            seconds = time.perf_counter() - begun
            if simulator.alignments is not None:
                made = {"aligned": {a.name: a.take(outputs) for a in simulator.alignments}}
            else:
                made = {"outputs": plain(outputs)}
        except BaseException as error:
            log = said()
            if log:
                error.add_note(PRINTED + log)
            raise
        return {**made, "log": said(), "seconds": seconds}


def plain(outputs: Any) -> Any:
    """Outputs that every store takes: tables as mappings of columns, the rest as it is."""
    if not isinstance(outputs, Mapping):
        kind = f"{type(outputs).__module__}.{type(outputs).__qualname__}"
        raise WrongOutputs(f"the outputs are a {kind}: give a mapping of names to tables or arrays")
    return {str(name): _plain(value, str(name)) for name, value in outputs.items()}


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.ndarray) and not value.dtype.names:
        return value
    if isinstance(value, bool | int | float | np.generic):
        return np.asarray(value)
    if isinstance(value, list | tuple):
        return np.asarray(value)
    return {
        column: values
        if values.dtype.kind in "fiubU"
        else values.astype("datetime64[us]")
        if values.dtype.kind == "M"
        else values.astype(str)
        for column, values in columns_of(value, name).items()
    }


@contextmanager
def printed() -> Iterator[Callable[[], str]]:
    """Standard output and error of this process, caught: a function that gives what was printed so far, bounded.

    Python's own streams go into a bounded buffer, so that megabytes of prints cost no disk; what libraries write to the
    file descriptors goes to a file without a name.
    """
    bounded = Bounded()
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        sys.stderr.flush()
        before, saved = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = bounded  # type: ignore[assignment]
        try:
            yield lambda: (bounded.text() + _ends_of(file)).strip("\n")
        finally:
            sys.stdout, sys.stderr = before
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


class Bounded(io.TextIOBase):
    """A text stream that keeps the beginning and the end of what is written to it."""

    def __init__(self, kept: int = KEPT_BYTES) -> None:
        self._half = kept // 2
        self._first, self._last, self._length = "", "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._length += len(text)
        room = self._half - len(self._first)
        self._first += text[:room] if room > 0 else ""
        self._last += text[max(0, room) :]
        if len(self._last) > 16 * self._half:  # now and then, so that a write costs its own length
            self._last = self._last[-self._half :]
        return len(text)

    def fileno(self) -> int:
        return 1

    def text(self) -> str:
        last = self._last[-self._half :]
        lost = self._length - len(self._first) - len(last)
        return f"{self._first}\n... {lost:,} characters more ...\n{last}" if lost > 0 else self._first + last


def _ends_of(file: Any) -> str:
    size = os.fstat(file.fileno()).st_size
    if not size:
        return ""
    half = KEPT_BYTES // 2
    if size <= KEPT_BYTES:
        return os.pread(file.fileno(), size, 0).decode(errors="replace")
    first, last = os.pread(file.fileno(), half, 0), os.pread(file.fileno(), half, size - half)
    return (
        f"{first.decode(errors='replace')}\n... {size - KEPT_BYTES:,} bytes more ...\n{last.decode(errors='replace')}"
    )
