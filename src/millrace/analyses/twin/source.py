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
        return _plain_text(file.read(columns=[name], use_threads=False).column(0).slice(0, rows))

    return Source(names, rows, column, sum(_width(f.type) for f in file.schema_arrow))


def _table(given: Any, what: str, limit: int | None) -> Source:
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        return _pandas(given, what, limit)
    table = tables.read_table(given, what)
    table = table if limit is None else table.slice(0, limit)
    names = tuple(str(n) for n in table.column_names)
    return Source(
        names, table.num_rows, lambda name: _plain_text(table.column(names.index(name))),
        sum(_width(f.type) for f in table.schema),
    )  # fmt: skip


def _plain_text(column: Any) -> Any:
    """Text as polars holds it (views) as text that can be taken from."""
    import pyarrow

    return column.cast(pyarrow.large_string()) if pyarrow.types.is_string_view(column.type) else column


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
        return _plain_text(found if isinstance(found, pyarrow.ChunkedArray) else pyarrow.chunked_array([found]))

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
    if not isinstance(given.get("columns", {}), Mapping):
        raise WrongQuestion(
            f'{where}: columns are a mapping from names to what they are, such as {{"age": {{"low": 18}}}}.'
        )
    columns: dict[str, Any] = {}
    for name, value in given.get("columns", {}).items():
        if not isinstance(value, str | Mapping):
            raise WrongQuestion(f"{where}: column {name!r} is {value!r}; say its kind, or kind, levels, low, high.")
        columns[name] = said = {"kind": value} if isinstance(value, str) else {n: _plain(v) for n, v in value.items()}
        unknown = sorted(set(said) - FIELDS)
        if unknown:
            raise WrongQuestion(
                f"{where}: column {name!r} has {unknown[0]!r}; it may have {', '.join(sorted(FIELDS))}."
            )
        if said.get("kind") not in (None, *KINDS):
            raise WrongQuestion(f"{where}: column {name!r} is of kind {said['kind']!r}; there are {', '.join(KINDS)}.")
        for end in ("low", "high"):
            if end in said and (isinstance(said[end], bool) or not isinstance(said[end], int | float | str)):
                raise WrongQuestion(f"{where}: {end} of {name!r} is {said[end]!r}, and no number or date.")
        ends = [said[end] for end in ("low", "high") if end in said]
        if len({isinstance(end, str) for end in ends}) > 1:
            raise WrongQuestion(f"{where}: {name!r} has a number at one end and a date at the other.")
        if len(ends) == 2 and ends[0] > ends[1]:
            raise WrongQuestion(
                f"{where}: {name!r} from {said['low']} to {said['high']} is an interval the wrong way round."
            )
    texts = given.get("constraints", ())
    texts = [t.strip() for t in texts.split(";") if t.strip()] if isinstance(texts, str) else texts
    return Schema(columns, tuple(texts), str(given.get("name", "")))


def _plain(value: Any) -> Any:
    """Dates as texts, which are stored as they are and sort as dates do."""
    return value.isoformat() if hasattr(value, "isoformat") else value


def bound(value: Any, column: Any) -> float:
    """The end of a declared range, as the column of data counts: a number; days or microseconds of a date in text."""
    import datetime

    import pyarrow

    if not isinstance(value, str):
        return float(value)
    when = datetime.datetime.fromisoformat(value)
    since = (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)) - datetime.datetime(
        1970, 1, 1, tzinfo=datetime.UTC
    )
    return since.total_seconds() / 86_400 if pyarrow.types.is_date(column.type) else since.total_seconds() * 1e6


def check_schema(schema: Schema, name: str, column: Any) -> None:
    """The data keep to the schema; the first ten rows that do not are in the error."""
    import pyarrow
    import pyarrow.compute as pc

    said = schema.columns.get(name, {})
    if wrong := _not_of_kind(said.get("kind"), column):
        _refuse(name, wrong[1], wrong[0], column)
    if "levels" in said:
        text = _decoded(column).cast(pyarrow.string())
        known = pyarrow.array([str(v) for v in said["levels"]], pyarrow.string())
        odd = pc.and_(pc.invert(pc.is_in(text, value_set=known)), pc.is_valid(text))
        _refuse(name, f"one of {', '.join(map(repr, list(said['levels'])[:12]))}", odd, column)
    if "low" in said or "high" in said:
        _refuse(name, _range_of(said), _outside(said, name, column), column)


def _range_of(said: Mapping[str, Any]) -> str:
    if "high" not in said:
        return f"{said['low']} or more"
    return f"from {said['low']} to {said['high']}" if "low" in said else f"{said['high']} or less"


def _outside(said: Mapping[str, Any], name: str, column: Any) -> Any:
    """bool by row: outside of low to high."""
    import pyarrow
    import pyarrow.compute as pc

    from millrace.analyses.twin import describing

    if describing.is_text(column) or not _counts_as(said, column):
        raise WrongQuestion(
            f"By the schema {name!r} is {_range_of(said)}, and the data have {column.type} there: a range is of numbers, or of "
            "dates written as 2024-01-31."
        )
    try:
        low, high = bound(said.get("low", float("-inf")), column), bound(said.get("high", float("inf")), column)
    except ValueError:
        raise WrongQuestion(f"By the schema {name!r} is {_range_of(said)}, which are no dates as 2024-01-31.") from None
    numbers = pyarrow.array(describing.numbers_of(column, name)[0], from_pandas=True)
    return pc.fill_null(pc.or_(pc.less(numbers, low), pc.greater(numbers, high)), False)


def _counts_as(said: Mapping[str, Any], column: Any) -> bool:
    """Dates are bounded by dates, numbers by numbers."""
    import pyarrow

    dates = any(isinstance(said.get(end), str) for end in ("low", "high"))
    return bool(pyarrow.types.is_temporal(column.type)) == dates


def _not_of_kind(kind: str | None, column: Any) -> tuple[Any, str] | None:
    """(bool by row: it is not what the schema calls it; that in words); None where nothing is to be said."""
    import pyarrow
    import pyarrow.compute as pc

    from millrace.analyses.twin import describing

    is_, there = pyarrow.types, pc.is_valid(column)
    if kind == "key":
        flat = _decoded(column)
        counts = {v["values"]: v["counts"] for v in pc.value_counts(flat).to_pylist() if v["counts"] > 1}
        twice = pyarrow.array([v for v in counts if v is not None], flat.type)
        return pc.is_in(flat, value_set=twice), "a key, another in every row"
    numeric = is_.is_integer(column.type) or is_.is_floating(column.type) or is_.is_decimal(column.type)
    if kind == "boolean" and not is_.is_boolean(column.type):
        if not numeric:
            return there, "a truth value"
        values = column.cast(pyarrow.float64(), safe=False)
        return pc.and_(
            there, pc.invert(pc.is_in(values, value_set=pyarrow.array([0.0, 1.0])))
        ), "a truth value (0 or 1)"
    if kind == "date" and not is_.is_temporal(column.type):
        return there, "a date"
    if kind in ("integer", "number") and (describing.is_text(column) or is_.is_temporal(column.type)):
        return there, "a number"
    return None


def _decoded(column: Any) -> Any:
    import pyarrow

    return column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column


def _refuse(name: str, why: str, wrong: Any, column: Any) -> None:
    import pyarrow.compute as pc

    at = pc.indices_nonzero(wrong)
    if len(at):
        rows = "; ".join(f"row {i}: {_plain(column[i].as_py())!r}" for i in at[:10].to_pylist())
        raise WrongQuestion(
            f"By the schema {name!r} is {why}, and {len(at):,} rows are not (from 0): {rows}. Mend them, or the schema."
        )
