"""`millrace cache size|evict|export|import`: the store of finished work."""

from __future__ import annotations

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
from millrace.run.urls import spoken

if TYPE_CHECKING:
    from millrace.run.ports import Store
    from millrace.settings import Settings

ABOUT = """The store of finished work, which every run of this user looks into before it computes. What is in it can be
computed again, so it may be made smaller, or deleted, at any time."""


def command(name: str) -> click.Command:
    entries = (
        Entry("size", "how much is kept, where, and up to what limit", f"{__name__}:size"),
        Entry("evict", "free space: what was not used for longest goes first", f"{__name__}:evict"),
        Entry("export", "copy everything into one file, to take to another machine", f"{__name__}:give"),
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
            say_json({"store": spoken(place), "entries": entries, "size_bytes": taken, "limit_bytes": limit})
        else:
            rows = [
                ("store", _shown(place)),
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
            say_json({"store": spoken(place), "freed_bytes": freed, "size_bytes": taken, "limit_bytes": limit})
        else:
            click.echo(f"Freed {format_bytes(freed)}; {format_bytes(taken)} are kept in {_shown(place)}.")
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
        target = Path(given["file"])
        draft = target.with_name(f"{target.name}.part")
        try:
            with opened(place) as store, draft.open("wb") as file:
                if store is None:
                    raise WrongQuestion(f"There is no store at {place} yet: nothing can be exported.")
                from millrace.stores.portable import export

                count = export(store, file)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return _told(given, {"store": spoken(place), "file": str(target), "entries": count}, "Copied", "to")

    about = "Copy every whole entry into FILE: `millrace cache import FILE` takes it in on another machine."
    return Sectioned(name, params=[_file(), _store(), json_option()], callback=told, help=about)


def take(name: str) -> click.Command:
    def told(**given: Any) -> int:
        _, place = _of(given)
        source = Path(given["file"])
        if not source.is_file():
            raise WrongQuestion(f"There is no file {source}: give one that `millrace cache export` made.")
        if isinstance(place, Path):
            place.mkdir(parents=True, exist_ok=True)
        with opened(place) as store, source.open("rb") as file:
            from millrace.stores.portable import import_

            assert store is not None  # its folder is there
            count = import_(store, file)
        return _told(given, {"store": spoken(place), "file": str(source), "entries": count}, "Took in", "from")

    about = "Take in the entries of FILE, which `millrace cache export` made; those that are here already stay."
    return Sectioned(name, params=[_file(), _store(), json_option()], callback=told, help=about)


@contextmanager
def opened(place: Path | str) -> Iterator[Store | None]:
    """The store there; None, and nothing made, when it is a folder that is not there yet."""
    from millrace.compose import open_store

    if isinstance(place, Path) and not place.is_dir():
        yield None
        return
    store = open_store(str(place))
    try:
        yield store
    finally:
        store.close()


def _shown(place: Path | str) -> str:
    return shown(place) if isinstance(place, Path) else spoken(place)


def _told(given: dict[str, Any], facts: dict[str, Any], done: str, way: str) -> int:
    if given["json"]:
        say_json(facts)
    else:
        size = format_bytes(Path(facts["file"]).stat().st_size)
        click.echo(
            f"{done} {facts['entries']:,} entries {way} {facts['file']} ({size}); the store is {facts['store']}."
        )
    return 0


def _of(given: dict[str, Any]) -> tuple[Settings, Path | str]:
    from millrace.settings import load

    settings = load({"store": given["store"]})
    return settings, settings.store


def _store() -> Option:
    about = "another store than that of the settings: a folder, or a url such as redis://HOST or s3://BUCKET/FOLDER"
    return Option(["--store"], type=click.Path(file_okay=False), metavar="STORE", help=about, section=QUESTION)


def _file() -> Argument:
    return Argument(["file"], "FILE", "entries of a store, to take along", type=click.Path(dir_okay=False))
