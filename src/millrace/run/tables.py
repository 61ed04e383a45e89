"""Data in: files and tables of any library as one matrix of numbers with column names.

Reads CSV, Parquet, Arrow/Feather, npy and JSON lines; takes pandas, polars, Arrow and NumPy objects. Numbers and
truth values become floats (float32 only when every column is float32), text and categories become codes with their
labels kept, missing values become NaN. Heavy libraries are imported where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.errors import MissingExtra, WrongQuestion

if TYPE_CHECKING:
    import numpy
    import pyarrow

FORMS = {
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """`values`: (rows, columns) float64 or float32, C order. `categories`: labels by column number; there `values`
    holds codes, NaN where the label is missing. `named`: the names are the data's own, not x0, x1, ...
    """

    values: numpy.ndarray[Any, Any]
    names: tuple[str, ...]
    categories: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    named: bool = True

    def take(self, columns: list[int]) -> Rows:
        """These columns, in this order."""
        import numpy

        if columns == list(range(len(self.names))):
            return self
        return replace(
            self,
            values=numpy.ascontiguousarray(self.values[:, columns]),
            names=tuple(self.names[c] for c in columns),
            categories={new: self.categories[old] for new, old in enumerate(columns) if old in self.categories},
        )


def read_rows(source: Any, what: str = "data", limit: int | None = None) -> Rows:
    """Rows of a file or an object; `what` names it in errors. The first `limit` rows only when given."""
    import numpy

    if isinstance(source, str | os.PathLike):
        source = read_file(Path(source), what)
    if isinstance(source, list | tuple):
        source = numpy.asarray(source)
    if isinstance(source, numpy.ndarray):
        rows = _from_array(source, what, limit)
    else:
        rows = _from_arrow(_as_arrow(source, what), what, limit)
    if not rows.values.size:
        n, p = rows.values.shape
        raise WrongQuestion(f"The {what} has {n} rows and {p} columns: there is nothing to compute. Give at least one.")
    return rows


def read_table(source: Any, what: str = "data") -> pyarrow.Table:
    """A file or an object as an Arrow table, with the types that its columns have."""
    import numpy

    if isinstance(source, str | os.PathLike):
        source = read_file(Path(source), what)
    if isinstance(source, list | tuple):
        source = numpy.asarray(source)
    if isinstance(source, numpy.ndarray) and source.ndim != 2:
        raise WrongQuestion(f"The {what} has {source.ndim} dimensions; rows and columns are needed.")
    return _as_arrow(source, what)


def read_items(path: Path) -> list[Any]:
    """One item a line: JSON lines, text lines, or the rows of a table as mappings."""
    import msgspec

    if not path.exists():
        raise WrongQuestion(f"There is no file {path} with items.")
    if path.suffix in (".jsonl", ".ndjson"):
        items = []
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                items.append(msgspec.json.decode(line))
            except msgspec.DecodeError as e:
                raise WrongQuestion(f"Line {number} of {path} is not JSON ({e}). Give one JSON value a line.") from None
        return items
    if path.suffix == ".txt":
        return path.read_text().splitlines()
    table = read_file(path, "items")
    return table.to_pylist() if hasattr(table, "to_pylist") else table.tolist()  # type: ignore[no-any-return]


def read_file(path: Path, what: str = "data") -> Any:
    """A file as its library has it: an Arrow table, or an array. `what` names it in errors."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        known = ", ".join(sorted(FORMS))
        raise WrongQuestion(f"The {what} file {path} has no ending that tells its form. Known are {known}.")
    if not path.exists():
        raise WrongQuestion(f"There is no file {path} (the {what}). Look for a typing error, or give a full path.")
    try:
        return _read(path, form)
    except ImportError as e:
        raise MissingExtra(e.name or "pyarrow", "data", f"Reading {path.name}") from e
    except (OSError, ValueError) as e:  # pyarrow's errors are both
        raise WrongQuestion(f"The {what} file {path} cannot be read as {form}: {e}.") from e


def _read(path: Path, form: str) -> Any:
    if form == "npy":
        import numpy

        return numpy.load(path, mmap_mode="r", allow_pickle=False)
    if form == "parquet":
        from pyarrow import parquet

        return parquet.read_table(path)
    if form == "csv":
        from pyarrow import csv

        return csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))
    if form == "jsonl":
        from pyarrow import json

        return json.read_json(path)
    from pyarrow import feather

    return feather.read_table(path, memory_map=True)


def _from_array(a: numpy.ndarray[Any, Any], what: str, limit: int | None) -> Rows:
    import numpy

    if a.ndim == 1:
        raise WrongQuestion(f"The {what} has one dimension: give rows and columns, for one row `x.reshape(1, -1)`.")
    if a.ndim != 2:
        raise WrongQuestion(f"The {what} has {a.ndim} dimensions; rows and columns are needed.")
    if a.dtype.kind not in "fiub":
        raise WrongQuestion(f"The {what} has dtype {a.dtype}: give numbers, or a table whose columns have types.")
    kind = a.dtype if a.dtype in (numpy.float32, numpy.float64) else numpy.float64
    values = numpy.ascontiguousarray(a[:limit], dtype=kind)
    return Rows(values, tuple(f"x{j}" for j in range(a.shape[1])), named=False)


def _as_arrow(source: Any, what: str) -> pyarrow.Table:
    try:
        import pyarrow
    except ImportError as e:
        raise MissingExtra("pyarrow", "data", f"The {what}, a table,") from e
    if type(source).__module__.partition(".")[0] == "pandas":
        return pyarrow.Table.from_pandas(source, preserve_index=False)
    if hasattr(source, "__arrow_c_stream__"):
        return pyarrow.table(source)
    if hasattr(source, "__array__"):
        import numpy

        return pyarrow.table({f"x{j}": c for j, c in enumerate(numpy.asarray(source).T)})
    if hasattr(source, "collect"):  # a lazy frame
        return pyarrow.table(source.collect())
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    raise WrongQuestion(
        f"The {what} is a {kind}. Give an array, a pandas, polars or Arrow table, or the path of a file "
        f"({', '.join(FORMS)})."
    )


def _from_arrow(table: pyarrow.Table, what: str, limit: int | None) -> Rows:
    import numpy
    import pyarrow

    table = table if limit is None else table.slice(0, limit)
    names = tuple(str(n) for n in table.column_names)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise WrongQuestion(f"The {what} has more than one column called {', '.join(map(repr, twice))}: rename them.")
    single = bool(names) and all(pyarrow.types.is_float32(f.type) for f in table.schema)
    values = numpy.empty((table.num_rows, len(names)), numpy.float32 if single else numpy.float64)
    categories: dict[int, tuple[Any, ...]] = {}
    for j, name in enumerate(names):
        column, labels = _numbers(table.column(j), name, what)
        values[:, j] = column
        if labels is not None:
            categories[j] = labels
    return Rows(values, names, categories)


def _numbers(column: Any, name: str, what: str) -> tuple[Any, tuple[Any, ...] | None]:
    """A column as floats, with its labels when they are codes."""
    import numpy
    import pyarrow

    kind, is_ = column.type, pyarrow.types
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        column = column.cast(pyarrow.large_string()).dictionary_encode()
        kind = column.type
    labels = None
    if is_.is_dictionary(kind):
        column = column.unify_dictionaries().combine_chunks()
        column = column.chunk(0) if hasattr(column, "num_chunks") and column.num_chunks else column
        labels = tuple(column.dictionary.to_pylist()) if hasattr(column, "dictionary") else ()
        column = column.indices if hasattr(column, "indices") else pyarrow.array([], pyarrow.int32())
    elif not (is_.is_integer(kind) or is_.is_floating(kind) or is_.is_boolean(kind) or is_.is_null(kind)):
        raise WrongQuestion(
            f"Column {name!r} of the {what} holds {kind}: give numbers, truth values, text or categories "
            "(a date as days since a day of your choice, for example)."
        )
    target = pyarrow.float32() if is_.is_float32(kind) else pyarrow.float64()
    numbers = column.cast(target, safe=False).to_numpy(zero_copy_only=False) if labels is not None else (
        column.cast(target, safe=False).to_numpy()
    )  # fmt: skip
    return numpy.asarray(numbers), labels


def align(rows: Rows, names: tuple[str, ...], what: str) -> tuple[Rows, str | None]:
    """Rows with exactly the model's columns in its order; what was put right, in words, or None.

    Unnamed columns count by position. Missing or extra columns are an error that names them.
    """
    if not rows.named:
        if len(rows.names) != len(names):
            raise WrongQuestion(
                f"The {what} has {len(rows.names)} columns and the model takes {len(names)}. They have no names, so "
                "that none can be matched: give the model's columns in the order of its training."
            )
        return replace(rows, names=names), None
    missing = [n for n in names if n not in rows.names]
    extra = [n for n in rows.names if n not in names]
    if missing or extra:
        said = [f"lacks {_some(missing)}"] * bool(missing) + [f"has {_some(extra)} beyond them"] * bool(extra)
        raise WrongQuestion(
            f"The columns of the {what} are not the model's: it {' and '.join(said)}. The model takes "
            f"{_some(list(names))}."
        )
    if rows.names == names:
        return rows, None
    at = {n: j for j, n in enumerate(rows.names)}
    return rows.take([at[n] for n in names]), f"The columns of the {what} were put into the model's order by name."


def _some(names: list[str], most: int = 8) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
