"""The command of an analysis of the catalogue; its options come from the fields of its question."""

from __future__ import annotations

from typing import Any

import click

from millrace.analyses import catalogue
from millrace.cli.carry import carry
from millrace.cli.options import Sectioned, machine_options, question_of, said_options, spec_options


def command(name: str) -> click.Command:
    """`millrace NAME --model FILE ...`."""
    entry = catalogue.find(name)
    spec = entry.load("spec")

    def ask(**given: Any) -> int:
        from millrace.compose import carry_out

        question = question_of(spec, given)
        return carry(given, lambda machine: carry_out(name, question, machine))

    params = [*spec_options(spec), *machine_options(), *said_options()]
    return Sectioned(name, params=params, callback=ask, help=f"{entry.about}.")
