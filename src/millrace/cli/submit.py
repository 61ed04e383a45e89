"""`millrace submit ANALYSIS ...`: a question as a durable job. `millrace register model|data NAME FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from millrace.analyses import catalogue
from millrace.cli.analyse import analyses, asked, question_options
from millrace.cli.console import say_json
from millrace.cli.desks import desk_of, place_options
from millrace.cli.options import (
    DURATION,
    MACHINE,
    Argument,
    Option,
    Sectioned,
    json_option,
)  # fmt: skip
from millrace.cli.table import Entry, Table


def command(name: str) -> click.Command:
    entries = analyses((entry for entry in catalogue.ENTRIES if entry.plan), f"{__name__}:analysis")
    entries.append(Entry("run", "your own function, one call an item", f"{__name__}:function"))
    about = """A question as a durable job: checked, predicted and put in a queue now, carried out by `millrace up`.
    Files and registered names are copied by content: what changes afterwards does not change the job."""
    return Table(name, entries, about)


def analysis(name: str) -> click.Command:
    """`millrace submit NAME`, with the options of NAME."""
    entry = catalogue.find(name)

    def ask(**given: Any) -> int:
        return _submit(name, asked(entry, given), given)

    own = {option.name for option in job_options()}
    questions = [option for option in question_options(entry) if option.name not in own]
    said = f"`millrace {' '.join(entry.path)}` as a job."
    return Sectioned(entry.path[-1], params=[*questions, *job_options()], callback=ask, help=said)


def function(name: str) -> click.Command:
    from millrace.cli.run import asked as of_function

    def ask(**given: Any) -> int:
        question = {key: given[key] for key in ("function", "items", "limit") if given[key] is not None}
        return _submit("run", question, given)

    return Sectioned(name, params=[*of_function(), *job_options()], callback=ask, help="`millrace run` as a job.")


def job_options() -> list[click.Parameter]:
    """What is about the job."""
    return [
        Option(["--queue"], metavar="QUEUE", section=MACHINE, help="the queue (not given: by prediction and kind)"),
        Option(["--priority"], type=int, default=0, show_default=True, metavar="N", section=MACHINE,
               help="a step is worth an hour of waiting"),
        Option(["--seed"], type=int, default=0, show_default=True, metavar="N", section=MACHINE,
               help="for everything random"),
        Option(["--label"], default="", metavar="TEXT", section=MACHINE,
               help="what the job is called; routes may go by it"),
        Option(["--owner"], default="", metavar="NAME", section=MACHINE, help="whose job it is"),
        Option(["--key"], metavar="TEXT", section=MACHINE, help="a second submission with this key is the same job"),
        Option(["--max-total", "max_total"], type=DURATION, metavar="DURATION", section=MACHINE,
               help="bound of all its slices together (not given: none)"),
        *place_options(),
        json_option(),
    ]  # fmt: skip


def _submit(name: str, question: dict[str, Any], given: dict[str, Any]) -> int:
    from millrace.jobs.table import plain
    from millrace.ordering import order
    from millrace.run.units import parse_duration

    about = {key: given[key] for key in ("queue", "priority", "seed", "label", "owner", "key")}
    with desk_of(given) as desk:
        total_s = parse_duration(given["max_total"]) if given["max_total"] else 0.0
        made = order(desk, name, question, **about, max_total_s=total_s)
        if given["json"]:
            say_json(plain(made))
        else:
            click.echo(f"Job {made.id} is {made.state}: queue {made.queue}, tier {made.tier}. `millrace job {made.id}`")
    return 0


def register(name: str) -> click.Command:
    def done(**given: Any) -> int:
        from millrace.ordering import register as keep

        with desk_of(given) as desk:
            digest = keep(desk, given["kind"], given["name"], Path(given["file"]))
            click.echo(f"{given['name']} is now the {given['kind']} {digest}.")
        return 0

    params: list[click.Parameter] = [
        Argument(["kind"], "model|data", "what is registered", type=click.Choice(["model", "data"])),
        Argument(["name"], "NAME", "what jobs call it"),
        Argument(["file"], "FILE", "a file or folder, copied by content"),
        *place_options(),
    ]
    return Sectioned(name, params=params, callback=done, help="Keep a model or data under a name that jobs may use.")
