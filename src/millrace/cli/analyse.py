"""The commands of the analyses of the catalogue; their options come from the fields of their questions.

An analysis with verbs is a table of them. A question that lies in a file is named by one argument; what is given as an
option besides takes the place of what the file says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from millrace.analyses import catalogue
from millrace.analyses.knobs import knobs_of
from millrace.cli.carry import carry, machine_of
from millrace.cli.options import (
    MACHINE,
    Option,
    Sectioned,
    file_argument,
    machine_options,
    question_of,
    said_options,
    spec_options,
)
from millrace.cli.table import Entry

if TYPE_CHECKING:
    from millrace.analyses.catalogue import Entry as Analysis


def analyses(entries: Iterable[Analysis], maker: str = "") -> list[Entry]:
    """Entries of a table: analyses by their names, one for all the verbs of an analysis. maker: "" is as the catalogue says."""
    found: dict[str, Entry] = {}
    verbs: dict[str, list[Entry]] = {}
    for entry in entries:
        first, made_by = entry.path[0], maker or entry.command
        if entry.verb:
            verbs.setdefault(first, []).append(Entry(entry.verb, entry.about, made_by, entry.name))
            found[first] = Entry(first, catalogue.ABOUT[first], "", verbs=tuple(verbs[first]))
        else:
            found[first] = Entry(first, entry.about, made_by, entry.name)
    return list(found.values())


def command(name: str) -> click.Command:
    """`millrace NAME --model FILE ...`, or `millrace NAME VERB STUDY.toml ...`."""
    entry = catalogue.find(name)

    def ask(**given: Any) -> int:
        from millrace.compose import carry_out

        question = asked(entry, given)
        if not given.get("fit"):
            return carry(given, lambda machine: carry_out(name, question, machine))
        from millrace.fitting import fitted

        smaller, said = fitted(name, question, machine_of(given, store=given["store"]))
        return carry(given, lambda machine: carry_out(name, smaller, machine, notes=said))

    fit = [_fit()] if entry.plan and knobs_of(entry.load("spec").model_fields) else []
    machine = machine_options(without=entry.load("spec").model_fields)
    params = [*question_options(entry), *machine, *fit, *said_options()]
    return Sectioned(entry.path[-1], params=params, callback=ask, help=f"{entry.about[0].upper()}{entry.about[1:]}.")


def question_options(entry: Analysis) -> list[click.Parameter]:
    """How the question is given: by options, or by a file and options that change it."""
    spec = entry.load("spec")
    return [file_argument(), *spec_options(spec, in_file=True)] if entry.in_file else [*spec_options(spec)]


def asked(entry: Analysis, given: Mapping[str, Any]) -> dict[str, Any]:
    """The question that was given."""
    if not entry.in_file:
        return question_of(entry.load("spec"), given)
    from millrace.cli.studies import read_study

    return {**read_study(given["study"], entry.load("spec")), **question_of(entry.load("spec"), given)}


def _fit() -> Option:
    about = "take the largest question that fits the memory and the deadline (fewer simulations or rows), and say so"
    return Option(["--fit"], is_flag=True, help=about, section=MACHINE)
