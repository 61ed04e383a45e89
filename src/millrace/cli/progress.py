"""How far a run is, on stderr: a bar where somebody watches a terminal, a plain line every few seconds elsewhere.

Is told by the run (`run.run.Progress`, ten times a second at most) and starts no thread: a process with a thread that
draws is not one to fork workers from.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import click

from millrace.run.units import format_bytes, format_duration

if TYPE_CHECKING:
    from millrace.run.run import Progress

LINE_S = 3.0
PACE_S = 15.0


class Pace:
    """Tasks a second over the last 15 s of a stage; what was found in the store counts as finished at once."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, progress: Progress) -> float | None:
        """None while there is nothing to tell from."""
        if progress.stage != self._stage or (self._seen and progress.finished < self._seen[-1][1]):
            self._stage = progress.stage
            self._seen.clear()
        self._seen.append((progress.elapsed_s, progress.finished))
        while len(self._seen) > 2 and self._seen[-1][0] - self._seen[1][0] > PACE_S:
            self._seen.popleft()
        (from_s, before), (now_s, finished) = self._seen[0], self._seen[-1]
        if now_s - from_s < 0.2 or finished == before:
            return None
        return (finished - before) / (now_s - from_s)


def described(progress: Progress, rate: float | None, budget_bytes: int) -> str:
    """ "1,200 of 4,000 (30 %), 85/s, 33s to go, 2 of 2 cores busy, 310MiB of 4GiB, 12 from the store"."""
    total = progress.total
    parts = [f"{progress.finished:,}"]
    if total:
        parts = [f"{progress.finished:,} of {total:,} ({100 * progress.finished // total} %)"]
    if rate is not None:
        parts.append(f"{rate:,.3g}/s" if rate < 1000 else f"{rate:,.0f}/s")
        if total and total > progress.finished:
            parts.append(f"{format_duration((total - progress.finished) / rate)} to go")
    if progress.slots:
        parts.append(f"{progress.busy} of {progress.slots} cores busy")
    if progress.private_bytes > 0:
        of = f" of {format_bytes(budget_bytes)}" if budget_bytes else ""
        parts.append(f"{format_bytes(progress.private_bytes)}{of}")
    if progress.cached:
        parts.append(f"{progress.cached:,} from the store")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return ", ".join(parts)


class Lines(AbstractContextManager["Lines"]):
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, every_s: float = LINE_S) -> None:
        self.budget_bytes = 0
        self._every_s, self._pace, self._next_s = every_s, Pace(), every_s

    def __call__(self, progress: Progress) -> None:
        rate = self._pace(progress)
        if progress.elapsed_s < self._next_s:
            return
        self._next_s = progress.elapsed_s + self._every_s
        told = described(progress, rate, self.budget_bytes)
        click.echo(f"{progress.stage}: {told} [{format_duration(progress.elapsed_s)}]", err=True)

    def __exit__(self, *_: object) -> None:
        return None


class Bar(AbstractContextManager["Bar"]):
    """One line that is drawn again and again, and gone at the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Drawn

        self.budget_bytes = 0
        self._pace = Pace()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[told]}", markup=False),
        )
        # No refresh thread, and nothing redirected: what tasks print goes where it always went.
        self._drawn = Drawn(
            *columns,
            console=Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._row: Any = None

    def __call__(self, progress: Progress) -> None:
        told = described(progress, self._pace(progress), self.budget_bytes)
        if self._row is None:
            self._drawn.start()
            self._row = self._drawn.add_task(progress.stage, total=progress.total, told=told)
        self._drawn.update(
            self._row,
            description=progress.stage,
            total=progress.total,
            completed=progress.finished,
            told=told,
            refresh=True,
        )

    def __exit__(self, *_: object) -> None:
        self._drawn.stop()


class Nothing(AbstractContextManager["Nothing"]):
    """--quiet."""

    budget_bytes = 0

    def __call__(self, progress: Progress) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def watcher(wanted: Literal["auto", "on", "off"], quiet: bool) -> Lines | Bar | Nothing:
    """By the setting `progress`, --quiet, and whether stderr is a terminal."""
    if quiet or wanted == "off":
        return Nothing()
    return Bar() if sys.stderr.isatty() else Lines()
