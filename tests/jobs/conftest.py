"""Real databases: SQLite files, and a PostgreSQL server of this machine's own where Debian's is installed."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from millrace.jobs.database import open_database
from millrace.jobs.table import JobTable


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a fresh server on loopback."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="millrace-pg-", dir="/tmp"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*as_user, homes[-1] / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"], **run)
    port = free_port()
    server = subprocess.Popen(
        [*as_user, homes[-1] / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    url = f"postgresql://postgres@127.0.0.1:{port}"
    try:
        _await_server(f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres")
        yield url
    finally:
        subprocess.run([*as_user, homes[-1] / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False,
                       stdout=subprocess.DEVNULL, cwd=folder)  # fmt: skip
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _await_server(url: str) -> None:
    engine = sa.create_engine(url)
    for _ in range(600):
        try:
            engine.connect().close()
            engine.dispose()
            return
        except sa.exc.OperationalError:
            time.sleep(0.1)
    raise TimeoutError(url)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh database is to be."""
    return fresh_place(request, request.param, tmp_path)


def fresh_place(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    if kind == "sqlite":
        return str(tmp_path / "jobs.sqlite")
    server = request.getfixturevalue("postgres")
    name = f"jobs{next(_numbers)}"
    engine = sa.create_engine(
        server.replace("postgresql:", "postgresql+psycopg:") + "/postgres", isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture
def make(place: str) -> Callable[..., JobTable]:
    return lambda **options: JobTable(open_database(place), **options)


# -- brokers: the servers of the tests of stores ------------------------------------------------------------------
sys.path.append(str(Path(__file__).parents[1] / "stores"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey: append-only, synced every second, noeviction, on loopback."""
    from servers import valkey

    with valkey(tmp_path_factory.mktemp("broker"), "--maxmemory-policy", "noeviction") as server:
        yield server.url


_databases = itertools.count()


@pytest.fixture
def own_broker(broker: str) -> str:
    """A database of that server for one test."""
    return f"{broker.rsplit('/', 1)[0]}/{next(_databases)}"
