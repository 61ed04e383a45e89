"""Runs a statement of the job table on its database: as its text with parameters, straight on the driver where that is SQLite.

SQLAlchemy writes the text, once a statement. Running it through SQLAlchemy each time costs three times what SQLite itself
takes, which a server across a network hides; there its handling of lost connections is worth more. Says nothing of what
statements mean (see `statements`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from millrace.jobs.database import DatabaseAway


class Speaker(Protocol):
    """The rows of a statement; each is a transaction. Raises `DatabaseAway`."""

    def __call__(self, statement: Any, values: Mapping[str, Any]) -> Sequence[Any]: ...

    def close(self) -> None: ...


def speaker(engine: sa.Engine) -> Speaker:
    """For that database. Safe for several threads."""
    return _Straight(engine) if engine.dialect.name == "sqlite" else _Through(engine)


@dataclass(frozen=True, slots=True)
class _Text:
    """`given`: parameters that the statement brings itself; `flags`: which of its columns are truth values."""

    sql: str
    given: Mapping[str, Any]
    flags: tuple[int, ...]


class _Straight:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._dialect = type(engine.dialect)(paramstyle="named")  # type: ignore[call-arg]
        self._texts: dict[Any, _Text] = {}
        self._free: list[
            Any
        ] = []  # connections that no thread uses now; a checkout of the pool costs as much as a claim

    def __call__(self, statement: Any, values: Mapping[str, Any]) -> Sequence[Any]:
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = self._text(statement, values)
        with away(self._engine.dialect.loaded_dbapi.OperationalError):
            try:
                connection = self._free.pop()
            except IndexError:
                connection = self._engine.raw_connection()
            try:
                found = connection.driver_connection.execute(text.sql, {**text.given, **values}).fetchall()
            finally:
                self._free.append(connection)
        return [_told(row, text.flags) for row in found] if text.flags else found

    def close(self) -> None:
        while self._free:
            self._free.pop().close()

    def _text(self, statement: Any, values: Mapping[str, Any]) -> _Text:
        keys = list(values) if isinstance(statement, sa.Insert) else None
        made = statement.compile(dialect=self._dialect, column_keys=keys)
        rows = statement.exported_columns if statement.is_select or statement._returning else ()
        flags = tuple(i for i, column in enumerate(rows) if isinstance(column.type, sa.Boolean))
        return _Text(
            str(made), {k: v for k, v in made.construct_params(dict(values)).items() if k not in values}, flags
        )


def _told(row: Sequence[Any], flags: Sequence[int]) -> list[Any]:
    said = list(row)
    for i in flags:
        said[i] = bool(said[i])
    return said


class _Through:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def __call__(self, statement: Any, values: Mapping[str, Any]) -> Sequence[Any]:
        with away(sa.exc.OperationalError, sa.exc.InterfaceError), self._engine.connect() as connection:
            made = connection.execute(statement, values)
            return made.fetchall() if made.returns_rows else ()

    def close(self) -> None:
        return None


@contextmanager
def away(*errors: type[BaseException]) -> Iterator[None]:
    """Errors of the driver as `DatabaseAway`."""
    try:
        yield
    except errors as e:
        raise DatabaseAway(
            f"The job table cannot be reached: {str(getattr(e, 'orig', e)).strip()}. Look whether its server runs and its disk "
            "has room; workers hold still and try again."
        ) from e
