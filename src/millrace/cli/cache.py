"""`millrace cache size|evict|export|import`: the store of finished work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.carry import shown
from millrace.cli.console import columns, say, say_json
from millrace.cli.options import QUESTION, SIZE, Argument, Option, Sectioned, json_option
from millrace.cli.table import Entry, Table
from millrace.run.errors import WrongQuestion
from millrace.run.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from millrace.run.ports import Store
    from millrace.settings import Settings

ABOUT = """The store of finished work, which every run of this user looks into before it computes. What is in it can be
computed again, so it may be made smaller, or deleted, at any time."""


def command(name: str) -> click.Command:
    entries = (
        Entry("size", "how much is kept, where, and up to what limit", f"{__name__}:size"),
        Entry("evict", "free space: what was not used for longest goes first", f"{__name__}:evict"),
        Entry("export", "copy everything into a folder, to take to another machine", f"{__name__}:give"),
        Entry("import", "take in what another machine exported", f"{__name__}:take"),
    )
    return Table(name, entries, ABOUT)


def size(name: str) -> click.Command:
    def told(**given: Any) -> int:
        settings, place = _of(given)
        with opened(place) as store:
            entries, taken = (len(set(store.keys())), store.size_bytes()) if store else (0, 0)
        if given["json"]:
            limit = settings.store_limit
            say_json({"store": str(place), "entries": entries, "size_bytes": taken, "limit_bytes": limit})
        else:
            rows = [
                ("store", shown(place)),
                ("entries", f"{entries:,}"),
                ("size", format_bytes(taken)),
                ("limit", f"{format_bytes(settings.store_limit)} (from {settings.origin('store_limit')})"),
            ]
            say(columns(rows))
        return 0

    return Sectioned(
        name,
        params=[_store(), json_option()],
        callback=told,
        help="How much is kept, where, up to what limit.",
    )


def evict(name: str) -> click.Command:
    def told(**given: Any) -> int:
        settings, place = _of(given)
        limit = settings.store_limit if given["to"] is None else parse_bytes(given["to"])
        with opened(place) as store:
            freed, taken = (store.evict(limit), store.size_bytes()) if store else (0, 0)
        if given["json"]:
            say_json({"store": str(place), "freed_bytes": freed, "size_bytes": taken, "limit_bytes": limit})
        else:
            click.echo(f"Freed {format_bytes(freed)}; {format_bytes(taken)} are kept in {shown(place)}.")
            if taken > limit:
                click.echo(f"That is more than {format_bytes(limit)}: the rest is in use by runs that are under way.")
        return 0

    to = Option(["--to"], type=SIZE, metavar="SIZE", section=QUESTION,
                help="free until this much is left (not given: the setting store_limit)")  # fmt: skip
    about = "Free space: what was not used for longest goes first; what a live run uses stays."
    return Sectioned(name, params=[to, _store(), json_option()], callback=told, help=about)


def give(name: str) -> click.Command:
    def told(**given: Any) -> int:
        _, place = _of(given)
        return _copied(place, Path(given["folder"]), given["json"])

    about = "Copy every entry into FOLDER, a store of its own: `millrace cache import FOLDER` there, or --store FOLDER."
    return Sectioned(name, params=[_folder(), _store(), json_option()], callback=told, help=about)


def take(name: str) -> click.Command:
    def told(**given: Any) -> int:
        _, place = _of(given)
        source = Path(given["folder"])
        if not source.is_dir():
            raise WrongQuestion(f"There is no folder {source}: give one that `millrace cache export` made.")
        return _copied(source, place, given["json"])

    about = "Take in every entry of FOLDER, which `millrace cache export` made; entries that are here already stay."
    return Sectioned(name, params=[_folder(), _store(), json_option()], callback=told, help=about)


def copy(source: Store, target: Store) -> tuple[int, int, int]:
    """Entries copied, bytes of them, and entries that were there already. Verified on the way: `get` gives whole values
    only."""
    copied = copied_bytes = there = 0
    have = set(target.keys())
    for key in source.keys():  # noqa: SIM118 - a store is no mapping
        if key in have:
            there += 1
            continue
        stored = source.get(key)
        if stored is not None:
            target.put(key, stored.value)
            copied, copied_bytes = copied + 1, copied_bytes + stored.size_bytes
    target.flush()
    return copied, copied_bytes, there


@contextmanager
def opened(place: Path) -> Iterator[Store | None]:
    """The store there; None, and nothing made, when there is none yet."""
    from millrace.compose import open_store

    if not place.is_dir():
        yield None
        return
    store = open_store(os.fspath(place))
    try:
        yield store
    finally:
        store.close()


def _copied(source: Path, target: Path, as_json: bool) -> int:
    from millrace.compose import open_store

    if source.resolve() == target.resolve():
        raise WrongQuestion(f"{source} is the store itself: give another folder.")
    with opened(source) as store:
        if store is None:
            copied, copied_bytes, there = 0, 0, 0
        else:
            into = open_store(os.fspath(target))
            try:
                copied, copied_bytes, there = copy(store, into)
            finally:
                into.close()
    if as_json:
        told = {"copied": copied, "copied_bytes": copied_bytes, "there_already": there}
        say_json({"from": str(source), "to": str(target), **told})
    else:
        click.echo(
            f"Copied {copied:,} entries ({format_bytes(copied_bytes)}) from {shown(source)} to {shown(target)}; "
            f"{there:,} were there already."
        )
    return 0


def _of(given: dict[str, Any]) -> tuple[Settings, Path]:
    from millrace.settings import load

    settings = load({"store": given["store"]})
    return settings, Path(settings.store)


def _store() -> Option:
    about = "another store than that of the settings"
    return Option(["--store"], type=click.Path(file_okay=False), metavar="DIR", help=about, section=QUESTION)


def _folder() -> Argument:
    return Argument(["folder"], "FOLDER", "a store to take along", type=click.Path(file_okay=False))
