"""`millrace doctor`: what machine this really is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from millrace.cli.console import say, say_json
from millrace.cli.options import Sectioned, json_option

HELP = """What machine this really is - cores, memory, threads, scratch, what is installed - and the settings that
suit it.

Measures for a second or two; changes nothing."""


def command(name: str) -> click.Command:
    return Sectioned(name, params=[json_option()], callback=doctor, help=HELP)


def doctor(**given: Any) -> int:
    from millrace.analyses.validate.kernels.jail import probe
    from millrace.host.doctor import doctor as examine
    from millrace.settings import load
    from millrace.sharing import folder, learnt

    settings = load()
    found = examine(
        settings.scratch,
        locks=lock_folders(str(settings.store)),
        shared=folder(settings),
        learnt=learnt(settings),
        jail=probe(),
    )
    if given["json"]:
        say_json(found.as_dict())
    else:
        say(found.lines())
    return 0


def lock_folders(store: str) -> list[Path]:
    """Where runs hold their locks: the pins of the store, when that is a folder."""
    from millrace.stores.layout import Home

    place = Path(store.removeprefix("dir:"))
    return [Home.at(place).pins] if place.is_dir() else []
