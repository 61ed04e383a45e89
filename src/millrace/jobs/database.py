"""Opens the database of jobs: SQLite (write-ahead log, full sync) or PostgreSQL by URL, brought to this release's schema.

Every statement of `jobs.table` is a transaction of its own, so connections commit by themselves. Does not know what the
tables hold.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.errors import MillraceError, MissingExtra, WrongQuestion
from millrace.run.urls import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

BUSY_S = 30.0
NETWORK = {
    "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000,
}  # fmt: skip
"""Of libpq. A host that is cut off hears of it within a lease: else a worker would wait for its server for minutes."""
_LOCK = 0x6D696C6C  # "mill": PostgreSQL's advisory lock of those who migrate


class DatabaseAway(MillraceError):
    """The database cannot be reached now; a cause that may pass."""

    http_status = 503


def url_of(place: str | Path) -> str:
    """A path becomes SQLite's URL; postgres:// and postgresql:// go through psycopg."""
    text = str(place)
    scheme, there, rest = text.partition("://")
    if not there:
        return f"sqlite:///{text}"
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme not in ("sqlite", "postgresql+psycopg"):
        raise WrongQuestion(
            f"The database {spoken(text)} is of a kind that the job table does not live in: give a path (SQLite) or "
            "postgresql://HOST/NAME."
        )
    return text


def open_database(place: str | Path) -> sa.Engine:
    """The engine over the database at that path or URL, its tables made or brought up to date."""
    try:
        import sqlalchemy as sa
    except ImportError as e:
        raise MissingExtra("sqlalchemy", "jobs", "The job table") from e
    url = url_of(place)
    local = url.startswith("sqlite:")
    if local:
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    else:
        try:
            import psycopg  # noqa: F401 - asked for now, so that the message is ours
        except ImportError as e:
            raise MissingExtra("psycopg", "postgres", "A job table in PostgreSQL") from e
    network = {} if local else NETWORK
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=not local, connect_args=network)
    if local:
        sa.event.listen(engine, "connect", _prepare)
    try:
        with engine.connect() as connection, _alone(connection, url):
            _upgrade(connection, spoken(url))
    except sa.exc.DBAPIError as e:
        engine.dispose()
        raise DatabaseAway(
            f"The job table at {spoken(url)} cannot be opened: {str(e.orig).strip()}. Look whether the place is right, "
            "writable and not full, and whether the server runs."
        ) from e
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare(connection: Any, _: Any) -> None:
    """Full sync: what was accepted outlives a power cut, at one fsync a commit."""
    for pragma in ("journal_mode=wal", "synchronous=full", f"busy_timeout={int(BUSY_S * 1000)}"):
        connection.execute(f"pragma {pragma}").close()


def lock_of(place: str) -> Path:
    """The file beside a SQLite database that is locked while it is migrated."""
    return Path(f"{place}.lock")


@contextmanager
def _alone(connection: sa.Connection, url: str) -> Iterator[None]:
    """One migrates at a time."""
    import sqlalchemy as sa

    if not url.startswith("sqlite:"):
        connection.execute(sa.text(f"select pg_advisory_lock({_LOCK})"))
        try:
            yield
        finally:
            connection.execute(sa.text(f"select pg_advisory_unlock({_LOCK})"))
        return
    with lock_of(url.removeprefix("sqlite:///")).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _upgrade(connection: sa.Connection, shown: str) -> None:
    import sqlalchemy as sa

    from millrace.jobs.schema import HEAD

    found = None
    if sa.inspect(connection).has_table("alembic_version"):
        found = connection.execute(sa.text("select version_num from alembic_version")).scalar()
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise WrongQuestion(
            f"The job table at {shown} is of version {found}, written by a newer millrace; this one works with {HEAD}. "
            "Use the newer millrace, or another --jobs folder."
        )
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as e:
        raise MissingExtra("alembic", "jobs", "The job table") from e
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    connection.exec_driver_sql("BEGIN")  # one transaction: who is killed in the middle leaves what was there before
    command.upgrade(config, HEAD)
    connection.exec_driver_sql("COMMIT")
