"""Text for terminals and pipes. One look for both, so that a script may cut what people see."""

from __future__ import annotations

from collections.abc import Sequence

import click

from millrace.run.lines import columns

__all__ = ["columns", "say", "say_json"]


def say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def say_json(value: object) -> None:
    """One JSON document on stdout."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
