"""One run as the terminal sees it: the machine from the options, progress, Ctrl-C, the answer, the exit code.

Used by every command that runs something. What is run is handed in.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.options import flag
from millrace.cli.places import refused
from millrace.cli.progress import watcher
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from types import FrameType

    from millrace.compose import Machine
    from millrace.run.run import Run

SAYS_NO = 1
_STOPPING = b"\nStopping: what is being computed is finished and kept. Once more to stop at once.\n"


def carry(given: Mapping[str, Any], work: Callable[[Machine], Any]) -> int:
    """Do the work on the machine that the options describe, and tell its answer."""
    quiet, as_json = given["quiet"], given["json"]
    answer = worked(given, work)
    if as_json:
        print_result(answer)
    elif not quiet:
        tell(answer)
    return SAYS_NO if given["fail_on_no"] and getattr(answer, "says_no", False) else 0


def worked(given: Mapping[str, Any], work: Callable[[Machine], Any]) -> Any:
    """The answer of `work(machine)`, with progress shown and Ctrl-C heard."""
    from millrace.compose import load_settings
    from millrace.run.urls import is_url

    settings = load_settings({name: given[name] for name in ("engine", "cores", "memory", "nice")})
    for name in ("out", "store"):  # now, and not when the work is done
        local = given[name] and not (name == "store" and is_url(given[name]))
        why = refused(Path(given[name])) if local else ""  # opening a url says it
        if why:
            raise WrongQuestion(f"{flag(name)} {given[name]} cannot be written to: {why}. Give another folder.")
    with watcher(settings.progress, given["quiet"]) as watch, stoppable() as stopped_by:

        def opened(run: Run) -> None:
            watch.budget_bytes = run.budget.private_bytes
            stopped_by(run)

        return work(machine_of(given, store=settings.store, keep_out=True, show=watch, opened=opened))


def machine_of(given: Mapping[str, Any], store: Path | str, **more: Any) -> Machine:
    """What the options say; finished work goes to the store of the settings when they name none."""
    from millrace.compose import Machine

    names = (
        "engine", "cores", "memory", "seed", "out", "deadline", "nice", "bundle", "dask_report", "timing_log", "profile",
    )  # fmt: skip
    said = {name: given[name] for name in names if name in given}
    return Machine(**said, store=given.get("store") or store, **more)


@contextmanager
def stoppable() -> Iterator[Callable[[Run], None]]:
    """SIGINT and SIGTERM pause the run that was told; the second one raises KeyboardInterrupt."""
    before: dict[int, Any] = {}

    def stopped_by(run: Run) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            for known in before:
                signal.signal(known, signal.default_int_handler)
            # Not print: a signal may arrive within a print, and Python's streams refuse to be entered twice.
            os.write(2, _STOPPING)
            run.pause()

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)

    try:
        yield stopped_by
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_result(answer: Any) -> None:
    """result.json as it was written."""
    click.echo((answer.out / "result.json").read_text(), nl=False)


def tell(answer: Any) -> None:
    """What was found, where the time went, what lies where."""
    click.echo(answer.summary())
    click.echo()
    for line in answer.report.lines():
        click.echo(line)
    for note in answer.notes:
        click.echo(f"Note: {note}")
    if answer.out is not None:
        click.echo(f"Written to {shown(answer.out)}: {written(answer.out)}")


def written(folder: Path) -> str:
    """What lies in a run's folder, the ledger last."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".vl.json"))
    first = [name for name in ("report.html", "result.json") if name in names]
    last = [name for name in ("ledger.jsonl",) if name in names]
    between = [name for name in names if name not in (*first, *last)]
    return ", ".join([*first, *between, *last])


def shown(path: Path) -> str:
    """As one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
