"""The commands of calibrate that are about a run that there was: its folder is the argument."""

from __future__ import annotations

from typing import Any

import click

from millrace.analyses import catalogue
from millrace.cli.options import (
    QUESTION,
    Argument,
    Option,
    Sectioned,
    machine_options,
    question_of,
    said_options,
    spec_options,
)

OF_THE_RUN = ("seed",)


def of_run(name: str) -> click.Command:
    """`millrace calibrate rescore RUN ...`, `millrace calibrate replay RUN ...`."""
    entry = catalogue.find(name)
    spec = entry.load("spec")

    def ask(**given: Any) -> int:
        from millrace.cli.carry import carry
        from millrace.cli.places import folder_of
        from millrace.cli.studies import read_study
        from millrace.compose import carry_out
        from millrace.settings import load

        question = question_of(spec, given)
        question["run"] = str(folder_of(given["run"], load().runs))
        if question.get("study"):
            study = read_study(question.pop("study"), catalogue.find("calibrate").load("spec"))
            question["targets"] = study["targets"]
        # The seed of a replay is that of a simulation; what the machine draws by is not asked here.
        return carry({**given, "seed": 0}, lambda machine: carry_out(name, question, machine))

    options = [option for option in spec_options(spec, in_file=True) if option.name != "run"]
    argument = Argument(["run"], "RUN", spec.model_fields["run"].description)
    params = [argument, *options, *machine_options(without=OF_THE_RUN), *said_options()]
    return Sectioned(entry.path[-1], params=params, callback=ask, help=f"{entry.about[0].upper()}{entry.about[1:]}.")


LOGS = """What the simulations of RUN printed, and why those that failed did.

RUN is a run's folder, its id or a part of the id that no other has, or `last`. Of what a simulation prints the first and the
last 4 KiB are kept; `millrace calibrate replay` shows all of it."""


def logs(name: str) -> click.Command:
    """`millrace logs RUN --trial N`."""
    from millrace.cli.options import json_option

    params = [
        Argument(["run"], "RUN", "folder, id, part of an id, or last"),
        Option(["--trial"], type=click.IntRange(min=0), metavar="N", help="of this trial only", section=QUESTION),
        json_option(),
    ]
    return Sectioned(name, params=params, callback=tell_logs, help=LOGS)


def tell_logs(**given: Any) -> int:
    """Print the records of the ledger that are about output and failures."""
    from millrace.cli.console import say_json
    from millrace.cli.places import folder_of
    from millrace.folder import history
    from millrace.settings import load

    past = history(folder_of(given["run"], load().runs))
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
