"""`millrace report RUN`: where the core-seconds of a run went, told again from its ledger."""

from __future__ import annotations

from typing import Any

import click

from millrace.cli.carry import shown
from millrace.cli.console import say, say_json
from millrace.cli.options import Argument, Sectioned, json_option
from millrace.cli.places import folder_of, past_of

HELP = """Where the core-seconds of RUN went; its report.html is written again.

RUN is a run's folder, its id or a part of the id that no other has (see `millrace runs`), or `last`."""


def command(name: str) -> click.Command:
    params = [Argument(["run"], "RUN", "folder, id, part of an id, or last"), json_option()]
    return Sectioned(name, params=params, callback=report, help=HELP)


def report(**given: Any) -> int:
    from millrace.folder import report_of, write_report
    from millrace.settings import load

    folder = folder_of(given["run"], load().runs)
    told = report_of(folder)
    page = write_report(folder)
    if given["json"]:
        say_json(told.as_dict())
        return 0
    click.echo(f"Run {told.run_id}")
    past = past_of(folder)
    if past is not None and past.state != "done":
        click.echo(f"Ended as {past.state}{f': {past.error}' if past.error else ''}")
    say(told.lines())
    for note in told.accounting.notes:
        click.echo(f"Note: {note}")
    click.echo(f"Written: {shown(page.absolute())}")
    return 0
