"""`millrace logs WHAT`: what a job printed, by its number; what the simulations of a run printed, by the run's folder or id."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.desks import desk_of, place_options
from millrace.cli.options import QUESTION, Argument, Option, Sectioned, json_option
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from pathlib import Path

    from millrace.jobs.table import JobTable

HELP = """What a job printed, or the simulations of a run, and why those that failed did.

WHAT is a job's number, or a run: its folder, its id or a part of the id that no other has, or `last`. Of what a simulation
prints the first and the last 4 KiB are kept; `millrace calibrate replay` shows all of it."""
POLL_S = 0.5


def command(name: str) -> click.Command:
    params = [
        Argument(["what"], "WHAT", "a job's number; or a run: folder, id, part of an id, or last"),
        Option(["--follow"], is_flag=True, section=QUESTION, help="of a job: go on until it has ended"),
        Option(
            ["--trial"], type=click.IntRange(min=0), metavar="N", section=QUESTION, help="of a run: this trial only"
        ),
        *place_options(),
        json_option(),
    ]
    return Sectioned(name, params=params, callback=tell, help=HELP)


def tell(**given: Any) -> int:
    if not given["what"].isdecimal():
        if given["follow"]:
            raise WrongQuestion("--follow is for a job, by its number; a run's records are written when it has ended.")
        return _of_run(given)
    if given["trial"] is not None or given["json"]:
        raise WrongQuestion(
            f"{given['what']} is a job's number, and what a job printed is plain text: leave out --trial and --json, or name "
            "the folder of a run."
        )
    with desk_of(given) as desk:
        found = desk.table.get(int(given["what"]))
        _print(desk.folder(found.id) / "log.txt", desk.table, found.id, given["follow"])
    return 0


def _print(log: Path, table: JobTable, number: int, follow: bool) -> None:
    at = 0
    while True:
        over = not follow or table.get(number).ended_at is not None  # asked before the last look: nothing is missed
        if log.exists():
            with log.open("r", errors="replace") as file:
                file.seek(at)
                click.echo(file.read(), nl=False)
                at = file.tell()
        if over:
            return
        time.sleep(POLL_S)


def _of_run(given: dict[str, Any]) -> int:
    """The records of the ledger that are about output and failures."""
    from millrace.cli.console import say_json
    from millrace.cli.places import folder_of
    from millrace.folder import history
    from millrace.settings import load

    past = history(folder_of(given["what"], load().runs))
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
