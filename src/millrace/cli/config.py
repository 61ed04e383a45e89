"""`millrace config show|check`: the machine's settings, where each came from, and whether they can be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.console import columns, say, say_json
from millrace.cli.options import Sectioned, json_option
from millrace.cli.places import refused
from millrace.cli.table import Entry, Table
from millrace.run.errors import MillraceError, WrongQuestion
from millrace.run.units import format_bytes

if TYPE_CHECKING:
    from millrace.settings import Settings

ABOUT = """The machine's settings. A value comes from the first of these that has it: the command line, MILLRACE_...
in the environment, millrace.toml or [tool.millrace] of pyproject.toml here or above, the user's millrace.toml, the
default."""


def command(name: str) -> click.Command:
    entries = (
        Entry("show", "every setting, its value and where that came from", f"{__name__}:show"),
        Entry("check", "whether the settings can be: places, cores, memory, engine", f"{__name__}:check"),
    )
    return Table(name, entries, ABOUT)


def show(name: str) -> click.Command:
    def told(**given: Any) -> int:
        from millrace.settings import load

        rows = load().show()
        if given["json"]:
            say_json({row.name: {"value": row.value, "origin": row.origin, "help": row.help} for row in rows})
        else:
            say(columns([("setting", "value", "from"), *((row.name, row.value, row.origin) for row in rows)]))
        return 0

    return Sectioned(
        name, params=[json_option()], callback=told, help="Every setting, its value and where that came from."
    )


def check(name: str) -> click.Command:
    def told(**given: Any) -> int:
        from millrace.settings import load

        settings = load()
        found = complaints(settings)
        if given["json"]:
            say_json({"right": not found, "complaints": found})
        elif not found:
            click.echo("The settings are right.")
        if found and not given["json"]:
            say(found)
        return WrongQuestion.exit_code if found else 0

    return Sectioned(
        name, params=[json_option()], callback=told, help="Exit code 2, and the reasons, when they cannot be."
    )


def complaints(settings: Settings) -> list[str]:
    """What is wrong with the settings on this machine, a sentence each."""
    from millrace import compose, host

    found = []
    if not compose.is_engine(settings.engine):
        origin = settings.origin("engine")
        found.append(f"There is no engine {settings.engine!r} (from {origin}); there are {', '.join(compose.ENGINES)}.")
    allowed = host.slots(host.cores())
    if settings.cores is not None and settings.cores > allowed:
        found.append(
            f"cores = {settings.cores} (from {settings.origin('cores')}) is more than the {allowed} that this "
            "process may use: tasks would wait for each other."
        )
    limit = host.memory().limit_bytes
    if settings.memory is not None and settings.memory > limit:
        found.append(
            f"memory = {format_bytes(settings.memory)} (from {settings.origin('memory')}) is more than the "
            f"{format_bytes(limit)} that there are."
        )
    for name in ("store", "runs"):
        place = getattr(settings, name)
        why = refused(Path(place))
        if why:
            found.append(f"{name} = {place} (from {settings.origin(name)}) cannot be written to: {why}.")
    try:
        host.scratch(settings.scratch)
    except MillraceError as error:
        found.append(str(error))
    return found
