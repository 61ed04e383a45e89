"""What the commands about jobs share: the options that say where the jobs are, the desk that is opened for them, how they end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.options import MACHINE, Option
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.settings import Settings

PLACES = ("jobs", "database", "broker", "tiers")
_PR_SET_PDEATHSIG = 1


def place_options() -> list[click.Parameter]:
    return [
        Option(["--jobs"], type=click.Path(file_okay=False), metavar="DIR", section=MACHINE,
               help="the jobs' folder (not given: as the settings say, millrace-jobs)"),
        Option(["--database"], metavar="URL", section=MACHINE,
               help="postgresql://HOST/NAME for the job table (not given: SQLite in the jobs' folder)"),
        Option(["--broker"], metavar="URL", section=MACHINE,
               help="redis://HOST:PORT/0, by which workers on other hosts are woken (not given: they look at the table)"),
        Option(["--tiers"], type=click.Path(dir_okay=False), metavar="FILE", section=MACHINE,
               help="TOML file of tiers, queues and routes (not given: those of millrace)"),
    ]  # fmt: skip


def settings_of(given: Mapping[str, Any], *more: str) -> Settings:
    from millrace.compose import load_settings

    return load_settings({name: given.get(name) for name in (*PLACES, *more)})


@contextmanager
def desk_of(given: Mapping[str, Any]) -> Iterator[Desk]:
    from millrace.compose import open_jobs

    desk = open_jobs(settings_of(given))
    try:
        yield desk
    finally:
        desk.table.close()


def on_signals(stop: Callable[[], object]) -> None:
    """Ctrl-C and SIGTERM call `stop`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def die_with(parent: int, number: int, what: str) -> None:
    """Have Linux send this process `number` when `parent` dies. Raises `WrongQuestion` when it is not its child any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise WrongQuestion(f"The process {parent} that this {what} belongs to has ended.")
