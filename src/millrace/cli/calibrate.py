"""The commands of calibrate that are about a run that there was: its folder is the argument."""

from __future__ import annotations

from typing import Any

import click

from millrace.analyses import catalogue
from millrace.cli.options import (
    Argument,
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
