"""Servers that several tests share; see `servers`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Valkey]:
    with servers.valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched, servers.s3(tmp_path_factory.mktemp("s3"), patched) as where:
        yield where


@pytest.fixture
def redis_server(_valkey: servers.Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> servers.Valkey:
    """A server that tests share: each is to use a namespace of its own."""
    servers.caches_at(tmp_path / "caches", monkeypatch)
    return _valkey


@pytest.fixture
def bucket(_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The url of a folder in a bucket that nobody else uses."""
    servers.caches_at(tmp_path / "caches", monkeypatch)
    return f"s3://team/{tmp_path.name}"
