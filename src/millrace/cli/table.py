"""A table of commands whose files are imported when they are called.

Built on click itself: Typer makes options from the signatures of functions, and ours come from the fields of a
pydantic model; it builds every command before the first is asked for; and it moved onto a private copy of click, so
that lazy groups and options made from data would stand on private names.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """`maker` is "module:function", called with `of`, or else with the entry's name; it gives the click command.

    With `verbs` the command is a table of these.
    """

    name: str
    about: str
    maker: str
    of: str = ""
    verbs: tuple[Entry, ...] = ()

    def make(self) -> click.Command:
        if self.verbs:
            return Table(self.name, self.verbs, f"{self.about[0].upper()}{self.about[1:]}.")
        module, _, function = self.maker.partition(":")
        command: click.Command = getattr(import_module(module), function)(self.of or self.name)
        return command


class Table(click.Group):
    """A group over entries; its help is written from `Entry.about`, without importing a command."""

    def __init__(self, name: str, entries: Sequence[Entry], about: str, params: Sequence[click.Parameter] = ()) -> None:
        super().__init__(name, help=about, params=list(params), subcommand_metavar="COMMAND ...")
        self.entries = {entry.name: entry for entry in entries}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        return entry.make() if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with our own words about a command that is not there."""
        if args[0] not in self.entries and not args[0].startswith("-") and not ctx.resilient_parsing:
            alike = difflib.get_close_matches(args[0], self.entries, 1)
            hint = f"is {alike[0]!r} meant?" if alike else f"there are {', '.join(self.entries)}."
            raise click.UsageError(f"There is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.about) for entry in self.entries.values()])
