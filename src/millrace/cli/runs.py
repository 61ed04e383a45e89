"""`millrace runs`: the runs that there are."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from millrace.cli.carry import shown
from millrace.cli.console import columns, say, say_json
from millrace.cli.options import QUESTION, Option, Sectioned, json_option
from millrace.cli.places import Past, runs_in
from millrace.run.units import format_duration

SHOWN = 20
DIGEST_DIGITS = 12


def command(name: str) -> click.Command:
    params = [
        Option(["--runs"], type=click.Path(file_okay=False), metavar="DIR", section=QUESTION,
               help="the folder of runs (not given: as the settings say, millrace-runs)"),
        Option(["--all", "every"], is_flag=True, section=QUESTION, help=f"all of them, not the last {SHOWN} only"),
        json_option(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=runs, help="The runs that there are, the latest last.")


def runs(**given: Any) -> int:
    from millrace.settings import load

    place = Path(load({"runs": given["runs"]}).runs)
    found = runs_in(place)
    if given["json"]:
        say_json([past.as_dict() for past in found])
        return 0
    if not found:
        click.echo(f"There are no runs in {shown(place)} yet.")
        return 0
    listed = found if given["every"] else found[-SHOWN:]
    head = ("run", "analysis", "started", "state", "tasks", "took", "digest")
    say(columns([head, *(_row(past) for past in listed)], right=(4, 5)))
    if len(listed) < len(found):
        click.echo(f"{len(found) - len(listed):,} earlier ones are not listed: --all lists them.")
    return 0


def _row(past: Past) -> tuple[str, ...]:
    started = datetime.datetime.fromisoformat(past.started_at).astimezone()
    return (
        past.run_id,
        past.analysis,
        f"{started:%Y-%m-%d %H:%M:%S}",
        past.state,
        "" if past.tasks is None else f"{past.tasks:,}",
        "" if past.wall_s is None else format_duration(past.wall_s),
        past.digest[:DIGEST_DIGITS],
    )
