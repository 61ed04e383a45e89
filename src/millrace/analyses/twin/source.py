"""Data in, a column at a time: files and tables of any library as Arrow columns, and schema files.

A Parquet file is read column by column, so that the whole of it is never in memory; what is in memory already stays there.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.run import tables
from millrace.run.errors import WrongQuestion

FIELDS = {"kind", "levels", "low", "high", "about"}
KINDS = ("category", "boolean", "integer", "number", "date", "key", "drop")


@dataclass(frozen=True)
class Source:
    """names: of the columns. rows: how many. column: an Arrow column by name. row_bytes: of a row, about."""

    names: tuple[str, ...]
    rows: int
    column: Callable[[str], Any]
    row_bytes: int = 0


@dataclass(frozen=True)
class Schema:
    """What a schema file says. columns: by name `kind`, `levels`, `low`, `high`, `about`. constraints: texts."""

    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    name: str = ""

    @property
    def dropped(self) -> tuple[str, ...]:
        return tuple(n for n, c in self.columns.items() if c.get("kind") == "drop")


def open_source(given: Any, what: str = "data", limit: int | None = None) -> Source:
    """The columns of a file or a table. `WrongQuestion` for what has no names, or the same name twice."""
    if isinstance(given, str | os.PathLike) and tables.FORMS.get(Path(given).suffix.lower()) == "parquet":
        found = _parquet(Path(given), what, limit)
    else:
        found = _table(given, what, limit)
    twice = sorted({n for n in found.names if found.names.count(n) > 1})
    if twice:
        raise WrongQuestion(f"The {what} has more than one column called {', '.join(map(repr, twice))}: rename them.")
    if not found.rows or not found.names:
        raise WrongQuestion(
            f"The {what} has {found.rows} rows and {len(found.names)} columns: there is nothing to learn."
        )
    return found


def _parquet(path: Path, what: str, limit: int | None) -> Source:
    if not path.exists():
        raise WrongQuestion(f"There is no file {path} (the {what}). Look for a typing error, or give a full path.")
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as e:
        raise WrongQuestion(f"The {what} file {path} cannot be read as parquet: {e}.") from e
    rows = file.metadata.num_rows if limit is None else min(limit, file.metadata.num_rows)
    names = tuple(file.schema_arrow.names)

    def column(name: str) -> Any:
        return file.read(columns=[name], use_threads=False).column(0).slice(0, rows)

    return Source(names, rows, column, sum(_width(f.type) for f in file.schema_arrow))


def _table(given: Any, what: str, limit: int | None) -> Source:
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        return _pandas(given, what, limit)
    table = tables.read_table(given, what)
    table = table if limit is None else table.slice(0, limit)
    names = tuple(str(n) for n in table.column_names)
    return Source(
        names, table.num_rows, lambda name: table.column(names.index(name)), sum(_width(f.type) for f in table.schema)
    )


def _pandas(frame: Any, what: str, limit: int | None) -> Source:
    """Column by column, so that the frame is not copied as a whole; it is never changed."""
    import pyarrow

    frame = frame if limit is None else frame.iloc[:limit]
    names = tuple(str(n) for n in frame.columns)

    def column(name: str) -> Any:
        try:
            found = pyarrow.array(frame.iloc[:, names.index(name)], from_pandas=True)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as e:
            raise WrongQuestion(
                f"Column {name!r} of the {what} has values of mixed types ({e}): make all of them numbers, or all of them text."
            ) from e
        return found if isinstance(found, pyarrow.ChunkedArray) else pyarrow.chunked_array([found])

    return Source(names, len(frame), column, 8 * len(names))


def _width(kind: Any) -> int:
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:
        return 8


# -- schema files ----------------------------------------------------------------------------------------------------
def read_schema(given: Any) -> Schema:
    """A TOML file or a mapping: `name`, `constraints`, and `[columns.NAME]` with kind, levels, low, high, about."""
    if given is None:
        return Schema()
    if isinstance(given, Schema):
        return given
    where = "The schema"
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        where = f"The schema {path}"
        if not path.exists():
            raise WrongQuestion(f"There is no schema file {path}.")
        try:
            given = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as e:
            raise WrongQuestion(f"{where} is not TOML: {e}.") from None
    if not isinstance(given, Mapping):
        raise WrongQuestion(f"{where} is a TOML file or a mapping, and not a {type(given).__qualname__}.")
    odd = sorted(set(given) - {"name", "about", "columns", "constraints"})
    if odd:
        raise WrongQuestion(f"{where} has {odd[0]!r}; it may have name, about, columns and constraints.")
    columns = dict(given.get("columns", {}))
    for name, said in columns.items():
        if isinstance(said, str):
            columns[name] = said = {"kind": said}
        unknown = sorted(set(said) - FIELDS)
        if unknown:
            raise WrongQuestion(
                f"{where}: column {name!r} has {unknown[0]!r}; it may have {', '.join(sorted(FIELDS))}."
            )
        if said.get("kind") not in (None, *KINDS):
            raise WrongQuestion(f"{where}: column {name!r} is of kind {said['kind']!r}; there are {', '.join(KINDS)}.")
        if "low" in said and "high" in said and said["low"] > said["high"]:
            raise WrongQuestion(
                f"{where}: {name!r} from {said['low']} to {said['high']} is an interval the wrong way round."
            )
    return Schema(columns, tuple(given.get("constraints", ())), str(given.get("name", "")))


def check_schema(schema: Schema, name: str, column: Any) -> None:
    """The data keep to the schema; the first ten rows that do not are in the error."""
    import pyarrow
    import pyarrow.compute as pc

    said = schema.columns.get(name, {})
    wrong = None
    if "levels" in said:
        text = column.cast(pyarrow.string())
        known = pyarrow.array([str(v) for v in said["levels"]])
        wrong = pc.and_(pc.invert(pc.is_in(text, value_set=known)), pc.is_valid(text))
        why = f"one of {', '.join(map(repr, list(said['levels'])[:12]))}"
    elif "low" in said or "high" in said:
        low, high = said.get("low", float("-inf")), said.get("high", float("inf"))
        numbers = column.cast(pyarrow.float64(), safe=False)
        wrong = pc.fill_null(pc.or_(pc.less(numbers, low), pc.greater(numbers, high)), False)
        why = f"from {low} to {high}"
    if wrong is not None:
        at = [i for i, bad in enumerate(wrong.to_pylist()) if bad][:10] if pc.any(wrong).as_py() else []
        if at:
            rows = "; ".join(f"row {i}: {column[i].as_py()!r}" for i in at)
            many = pc.sum(wrong).as_py()
            raise WrongQuestion(f"By the schema {name!r} is {why}, and {many:,} rows are not: {rows}.")
