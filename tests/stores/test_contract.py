"""The laws of a store, over all that there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import servers

from millrace.compose import open_store
from millrace.run.ports import Store
from millrace.stores.directory import DirectoryStore
from millrace.stores.memory import MemoryStore
from millrace.testing import stores as laws

Law = Callable[[laws.Kind], None]


def _name(law: Law) -> str:
    return law.__name__


LONG = (laws.any_nesting_comes_back, laws.a_kill_at_any_moment_is_invisible, laws.racing_puts_leave_one_whole_value)
"""Tried in every test run over a directory; over the others with the slow tests."""


def _quick(all_of_them: tuple[Law, ...]) -> list[Any]:
    return [pytest.param(law, marks=pytest.mark.slow) if law in LONG else law for law in all_of_them]


def _files(store: Store) -> list[Path]:
    assert isinstance(store, DirectoryStore)
    return sorted(path for path in store.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("law", laws.LAWS, ids=_name)
def test_the_memory_store_keeps_the_law(law: Law) -> None:
    law(laws.Kind(make=MemoryStore))


@pytest.mark.parametrize("law", laws.LAWS + laws.SHARED_LAWS + laws.FILE_LAWS, ids=_name)
def test_the_directory_store_keeps_the_law(law: Law, tmp_path: Path) -> None:
    opener = "millrace.stores.directory:open_by_url"
    law(laws.Kind(make=lambda: DirectoryStore(tmp_path / "store"), opener=opener, files=_files))


@pytest.mark.parametrize("law", _quick(laws.LAWS + laws.SHARED_LAWS), ids=_name)
def test_the_redis_store_keeps_the_law(law: Law, redis_server: servers.Valkey, tmp_path: Path) -> None:
    url = f"{redis_server.url}?namespace={law.__name__}"
    law(_elsewhere(url))


@pytest.mark.parametrize("law", _quick(laws.LAWS + laws.SHARED_LAWS + laws.FILE_LAWS), ids=_name)
def test_the_store_in_a_network_folder_keeps_the_law(law: Law, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.caches_at(tmp_path / "caches", monkeypatch)
    there = tmp_path / "there"
    law(_elsewhere(f"file://{there}", files=lambda _: sorted(path for path in there.rglob("*") if path.is_file())))


@pytest.mark.parametrize("law", laws.LAWS, ids=_name)
def test_the_store_in_memory_of_fsspec_keeps_the_law(law: Law, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.caches_at(tmp_path / "caches", monkeypatch)
    law(_elsewhere(f"memory://{tmp_path.name}"))


QUICK_HERE = (
    laws.a_miss_is_none, laws.what_was_put_comes_back, laws.the_first_value_stays, laws.what_was_used_last_stays,
    laws.evict_keeps_the_bound_and_the_pins, laws.who_writes_first_stays,
)  # fmt: skip
BUCKET_LAWS = [
    law if law in QUICK_HERE else pytest.param(law, marks=pytest.mark.slow) for law in laws.LAWS + laws.SHARED_LAWS
]


@pytest.mark.parametrize("law", BUCKET_LAWS, ids=_name)
def test_the_store_in_a_bucket_keeps_the_law(law: Law, bucket: str) -> None:
    law(_elsewhere(bucket))


@pytest.mark.parametrize("law", _quick(laws.LAWS + laws.SHARED_LAWS), ids=_name)
def test_a_store_over_a_base_keeps_the_law(law: Law, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "base").close()
    url = f"layered:{tmp_path / 'base'},dir:{tmp_path / 'top'}"
    law(laws.Kind(make=lambda: open_store(url), opener="millrace.compose:open_store"))


def _elsewhere(url: str, files: Callable[[Store], list[Path]] | None = None) -> laws.Kind:
    return laws.Kind(lambda: servers.opened(url), "servers:opened", files, lapse_s=10 * servers.LEASE_S)


def test_both_are_stores(tmp_path: Path) -> None:
    assert isinstance(MemoryStore(), Store)
    assert isinstance(DirectoryStore(tmp_path), Store)
