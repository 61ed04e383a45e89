"""What every function of the Python face does: ask the question, say in one paragraph what is wrong with it, show progress."""

from __future__ import annotations

import reprlib
import sys
import time
from collections.abc import Callable
from typing import Any

from millrace import compose
from millrace.run.errors import MillraceError, WrongQuestion
from millrace.run.run import Progress
from millrace.run.run import Run as OpenRun

Shown = bool | Callable[[Progress], None] | None


def ask(
    analysis: str, question: dict[str, Any], machine: compose.Machine, run: OpenRun | None, fit: bool = False
) -> Any:
    """Carry out; what the spec refuses is said in one paragraph, with the names of the arguments.

    `fit`: as the largest question that fits, which the answer says.
    """
    from pydantic import ValidationError

    notes: tuple[str, ...] = ()
    try:
        if fit:
            question, notes = _fitted(analysis, question, machine, run)
        return compose.carry_out(analysis, question, machine, run, notes)
    except ValidationError as e:
        said = []
        for one in e.errors():
            own = one.get("ctx", {}).get("error")
            if isinstance(own, MillraceError):
                raise own from None
            name = "X" if one["loc"] == ("data",) else ".".join(map(str, one["loc"]))
            said.append(f"{name}={_short(one['input'])}: {own or one['msg']}" if name else str(own or one["msg"]))
        raise WrongQuestion(f"{analysis} cannot be asked so. {'; '.join(said)}.") from None


def _short(value: Any) -> str:
    """A value in a line, however large it is."""
    told = reprlib.Repr()
    told.maxstring = told.maxlong = 200
    told.maxother = 80
    return " ".join(told.repr(value).split())


def _fitted(
    analysis: str, question: dict[str, Any], machine: compose.Machine, run: OpenRun | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Within the budget of the run that is open, if there is one."""
    from millrace.fitting import fitted

    if run is not None:
        budget = run.budget
        machine = compose.Machine("processes" if budget.isolates else "inline", budget.cores, budget.private_bytes)
    return fitted(analysis, question, machine, "fit=True")


def shown(progress: Shown) -> Callable[[Progress], None] | None:
    """A function that shows progress: the one given, lines on stderr for True, nothing otherwise."""
    if progress is True:
        return _lines()
    return progress if callable(progress) else None


def _lines(every_s: float = 2.0) -> Callable[[Progress], None]:
    """Progress as plain lines on stderr, at most one in `every_s`."""
    told = [0.0]

    def show(progress: Progress) -> None:
        now = time.monotonic()
        if now - told[0] >= every_s:
            told[0] = now
            of = f" of {progress.total:,}" if progress.total else ""
            print(f"{progress.stage}: {progress.finished:,}{of} ({progress.elapsed_s:.0f} s)", file=sys.stderr)

    return show
