"""`millrace validate export DIR`: the best programs of a run as files."""

from __future__ import annotations

from typing import Any

import click

from millrace.analyses import catalogue
from millrace.cli.options import Argument, Sectioned, spec_options


def export(name: str) -> click.Command:
    """The command; it opens no Run, since it runs nothing."""
    entry = catalogue.find(name)
    spec = entry.load("spec")

    def ask(**given: Any) -> int:
        from millrace.cli.carry import shown
        from millrace.cli.places import folder_of
        from millrace.settings import load

        run = str(folder_of(given["run"], load().runs))
        written = entry.load("analysis")(spec(**{**given, "run": run}))
        for file in written:
            click.echo(shown(file))
        click.echo(f"{len(written)} programs of {run}")
        return 0

    options = [option for option in spec_options(spec) if option.name != "folder"]
    argument = Argument(["folder"], "DIR", spec.model_fields["folder"].description or "")
    return Sectioned(
        entry.path[-1], params=[argument, *options], callback=ask, help="The best programs of a run as files."
    )
