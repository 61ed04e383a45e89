"""The command of an analysis of the catalogue; its options come from the fields of its question."""

from __future__ import annotations

from typing import Any

import click

from millrace.analyses import catalogue
from millrace.cli.carry import carry, machine_of
from millrace.cli.options import MACHINE, Option, Sectioned, machine_options, question_of, said_options, spec_options


def command(name: str) -> click.Command:
    """`millrace NAME --model FILE ...`."""
    entry = catalogue.find(name)
    spec = entry.load("spec")

    def ask(**given: Any) -> int:
        from millrace.compose import carry_out

        question = question_of(spec, given)
        if not given["fit"]:
            return carry(given, lambda machine: carry_out(name, question, machine))
        from millrace.fitting import fitted

        asked, said = fitted(name, question, machine_of(given, store=given["store"]))
        return carry(given, lambda machine: carry_out(name, asked, machine, notes=said))

    params = [*spec_options(spec), *machine_options(), _fit(), *said_options()]
    return Sectioned(name, params=params, callback=ask, help=f"{entry.about}.")


def _fit() -> Option:
    about = "take the largest question that fits the memory and the deadline (fewer simulations or rows), and say so"
    return Option(["--fit"], is_flag=True, help=about, section=MACHINE)
