"""`millrace run MODULE:FUNCTION --items FILE`: the user's own function, one call an item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from millrace.cli.carry import carry
from millrace.cli.options import QUESTION, Argument, Option, Sectioned, machine_options, said_options

HELP = """Calls FUNCTION of MODULE (found here or installed) once for each item of a file, on every core.

Each value is kept under a key of the function's code and its item: what was computed once is not computed again.
The values go to results.parquet where all of them are flat mappings, else to results.jsonl, in the order of the
items."""


def command(name: str) -> click.Command:
    def run(**given: Any) -> int:
        from millrace.compose import map_function

        items = items_of(given)
        return carry(given, lambda machine: map_function(given["function"], items, machine))

    return Sectioned(name, params=[*asked(), *machine_options(), *said_options()], callback=run, help=HELP)


def asked() -> list[click.Parameter]:
    """What is to be called on what."""
    return [
        Argument(["function"], "MODULE:FUNCTION", "what is called: a module, and a function of it"),
        Option(
            ["--items"],
            type=click.Path(),
            metavar="FILE",
            required=True,
            help="one item a line (JSON lines, .txt), or one a row as a mapping (CSV, Parquet, Arrow), or npy",
            section=QUESTION,
        ),
        Option(
            ["--limit"],
            type=click.IntRange(min=1),
            metavar="N",
            help="the first N items only",
            section=QUESTION,
        ),
    ]


def items_of(given: dict[str, Any]) -> list[Any]:
    """The items of the file, the first `limit` of them."""
    from millrace.run.tables import read_items

    items = read_items(Path(given["items"]))
    return items[: given["limit"]]
