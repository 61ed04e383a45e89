"""Text for terminals and pipes: aligned columns. One look for both, so that a script may cut what people see."""

from __future__ import annotations

from collections.abc import Sequence

import click


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns, two spaces between; those numbered in `right` end together."""
    if not rows:
        return []
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(w) if c in right else text.ljust(w) for c, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def say_json(value: object) -> None:
    """One JSON document on stdout."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
