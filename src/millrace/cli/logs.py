"""`millrace logs JOB|RUN`: what a job printed, or the simulations of a run. A number is a job; anything else names a run."""

from __future__ import annotations

import time
from typing import Any

import click

from millrace.cli.desks import desk_of, place_options
from millrace.cli.options import QUESTION, Argument, Option, Sectioned, json_option
from millrace.run.errors import WrongQuestion

ABOUT = """What a job printed, or what the simulations of a run printed and why those that failed did.

A number is a job's, as `millrace jobs` shows it. Anything else is a run: its folder, its id or a part of the id that no
other has, or `last`. Of what a simulation prints the first and the last 4 KiB are kept; `millrace calibrate replay` shows
all of it."""
LOOK_S = 0.5


def command(name: str) -> click.Command:
    params = [
        Argument(["named"], "JOB|RUN", "a job's number; or a run: folder, id, part of an id, or last"),
        Option(["--follow"], is_flag=True, section=QUESTION, help="of a job: go on until it has ended"),
        Option(
            ["--trial"], type=click.IntRange(min=0), metavar="N", section=QUESTION, help="of a run: this trial only"
        ),
        *place_options(),
        json_option(),
    ]
    return Sectioned(name, params=params, callback=tell, help=ABOUT)


def tell(**given: Any) -> int:
    if given["named"].isdigit():
        _refuse(given, "trial", "a job", "it is for the simulations of a run")
        return _of_job(int(given["named"]), given)
    _refuse(given, "follow", "a run", "it is for jobs; `millrace runs` tells whether a run has ended")
    return _of_run(given)


def _refuse(given: dict[str, Any], option: str, of: str, why: str) -> None:
    if given[option] not in (None, False):
        raise WrongQuestion(f"--{option} does not go with {of} ({given['named']}): {why}.")


def _of_job(number: int, given: dict[str, Any]) -> int:
    """All that its attempts printed, and with --follow what they go on to print."""
    from millrace.cli.console import say_json

    with desk_of(given) as desk:
        desk.table.get(number)
        log = desk.folder(number) / "log.txt"
        if given["json"]:
            say_json({"job": number, "log": log.read_text(errors="replace") if log.exists() else ""})
            return 0
        at = 0
        while True:
            ended = (
                desk.table.get(number).ended_at is not None
            )  # asked before reading: nothing that was printed is missed
            if log.exists():
                with log.open("r", errors="replace") as file:
                    file.seek(at)
                    click.echo(file.read(), nl=False)
                    at = file.tell()
            if ended or not given["follow"]:
                return 0
            time.sleep(LOOK_S)


def _of_run(given: dict[str, Any]) -> int:
    """The records of the ledger that are about output and failures."""
    from millrace.cli.console import say_json
    from millrace.cli.places import folder_of
    from millrace.folder import history
    from millrace.settings import load

    past = history(folder_of(given["named"], load().runs))
    wanted = given["trial"]
    found = [
        dict(record)
        for kind in ("printed", "verdict")
        for record in past.of(kind)
        if wanted is None or record["trial"] == wanted
    ]
    found.sort(key=lambda record: (record["trial"], record["seed"]))
    if given["json"]:
        say_json({"records": found})
        return 0
    for record in found:
        head = f"trial {record['trial']}, seed {record['seed']}"
        if record["record"] == "verdict":
            click.echo(f"== {head}: {record['message']}")
        else:
            click.echo(f"== {head} printed")
            click.echo(record["text"])
    if not found:
        click.echo(
            "Nothing was printed, and nothing failed."
            if wanted is None
            else f"Trial {wanted} printed nothing, and did not fail."
        )
    return 0
