"""Columns of the data as refute needs them: checked numbers, and the matrix of confounders with categories spelt out.

A category becomes columns of 0 and 1, one for each label but the most frequent; a missing value becomes its own column with
`missing="indicator"`. Large tables and matrices lie in files, so that the driver never holds them: a table is read a few
columns at a time, and a matrix some rows at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.analyses.refute.words import counted
from millrace.run.errors import WrongQuestion
from millrace.run.tables import Rows, read_rows

if TYPE_CHECKING:
    import numpy

HELD_BYTES = 32 << 20
PIECE_BYTES = 4 << 20
HUGE = 1e100


def read(source: Any, limit: int | None = None) -> Columns:
    """The columns of a table, an array or a file."""
    import numpy

    if isinstance(source, numpy.ndarray):
        return Columns(_of_array(source, limit))
    if hasattr(source, "collect"):  # a lazy frame
        source = source.collect()
    streamed = _of_csv(Path(source), limit) if isinstance(source, str | os.PathLike) else None
    if streamed is not None:
        return Columns(streamed)
    pieces = _pieces(source, limit)
    if pieces is None:
        return Columns(read_rows(source, "data", limit))
    count, width, take = pieces
    most = max(1, PIECE_BYTES // (8 * count))
    values, names, categories = _room(count, width), (), {}  # type: Any, tuple[str, ...], dict[int, tuple[Any, ...]]
    for begin in range(0, width, most):
        rows = read_rows(take(begin, min(width, begin + most)), "data", limit)
        values[:, begin : begin + most] = rows.values
        names += rows.names
        categories |= {begin + j: labels for j, labels in rows.categories.items()}
    return Columns(Rows(values, names, categories))


def _pieces(source: Any, limit: int | None) -> tuple[int, int, Callable[[int, int], Any]] | None:
    """(rows, columns, columns from .. to) of a table that is best not read at once; None of any other."""
    if isinstance(source, str | os.PathLike):
        return _of_parquet(Path(source), limit)
    shape = getattr(source, "shape", None)
    names = list(getattr(source, "column_names", getattr(source, "columns", ())))
    if not (isinstance(shape, tuple) and len(shape) == 2):
        return None
    count = min(shape[0], limit or shape[0])
    if not _is_large(count, names) or shape[1] != len(names):
        return None
    if hasattr(source, "iloc"):
        return count, len(names), lambda begin, end: source.iloc[:count, begin:end]
    if hasattr(source, "select") and hasattr(source, "slice"):
        return count, len(names), lambda begin, end: source.select(names[begin:end]).slice(0, count)
    return None


def _of_parquet(path: Path, limit: int | None) -> tuple[int, int, Callable[[int, int], Any]] | None:
    if path.suffix.lower() not in (".parquet", ".pq") or not path.is_file():
        return None
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError):  # read at once, it says what is wrong
        return None
    with file:
        names, rows = list(file.schema_arrow.names), file.metadata.num_rows
    if not _is_large(min(rows, limit or rows), names):
        return None
    return (
        min(rows, limit or rows),
        len(names),
        lambda begin, end: parquet.read_table(path, columns=names[begin:end]),
    )


def _of_csv(path: Path, limit: int | None) -> Rows | None:
    """A large CSV file, block by block into a file of numbers; None of a small one, and where the first block does not tell the
    types of all (it is then read at once, as any other)."""
    if path.suffix.lower() != ".csv" or not path.is_file() or path.stat().st_size <= HELD_BYTES:
        return None
    import numpy
    import pyarrow
    from pyarrow import csv

    reading = csv.ReadOptions(block_size=PIECE_BYTES, use_threads=False)
    converting = csv.ConvertOptions(strings_can_be_null=True)
    names: tuple[str, ...] = ()
    codes: dict[int, dict[Any, int]] = {}
    try:
        with csv.open_csv(path, read_options=reading, convert_options=converting) as first:
            # A number may have its first fraction in the last row.
            types = {f.name: pyarrow.float64() if pyarrow.types.is_integer(f.type) else f.type for f in first.schema}
        converting = csv.ConvertOptions(strings_can_be_null=True, column_types=types)
        with (
            csv.open_csv(path, read_options=reading, convert_options=converting) as blocks,
            tempfile.TemporaryFile() as file,  # the map keeps it until it goes
        ):
            count, left = 0, limit
            for block in blocks:
                if not block.num_rows or left == 0:
                    continue
                rows = read_rows(pyarrow.Table.from_batches([block]), "data", left)
                values, names = rows.values, rows.names
                for j, labels in rows.categories.items():
                    known = codes.setdefault(j, {})
                    place = numpy.array([known.setdefault(label, len(known)) for label in labels] + [numpy.nan])
                    values[:, j] = place[numpy.where(numpy.isfinite(values[:, j]), values[:, j], -1).astype(int)]
                file.write(values.tobytes())
                count, left = count + len(values), None if left is None else left - len(values)
            if not count:
                return None
            file.flush()
            whole = numpy.memmap(file, dtype=numpy.float64, mode="r+", shape=(count, len(names)))
    except pyarrow.ArrowInvalid:
        return None
    return Rows(whole, names, {j: tuple(known) for j, known in codes.items()})


def _is_large(count: int, names: list[Any]) -> bool:
    """Too large to be held; and no name is there twice, which the reading of it at once finds."""
    return count * len(names) * 8 > HELD_BYTES and len({str(name) for name in names}) == len(names)


def _of_array(source: Any, limit: int | None) -> Rows:
    """An array as it is when it can be used so, else copied some rows at a time."""
    import numpy

    count = min(len(source), limit or len(source)) if source.ndim == 2 else 0
    usable = source.dtype in (numpy.float32, numpy.float64) and source.flags.c_contiguous
    if usable or count == 0 or count * source.shape[1] * 8 <= HELD_BYTES:
        return read_rows(source, "data", limit)
    values, some = _room(count, source.shape[1]), max(1, PIECE_BYTES // (8 * source.shape[1]))
    for begin in range(0, count, some):
        rows = read_rows(source[begin : min(count, begin + some)], "data")
        values[begin : begin + some] = rows.values
    return Rows(values, rows.names, named=False)


class Columns:
    """The data's columns by name. Numbers are float64, NaN where they are missing; text and categories are codes."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.names = rows, rows.names
        self._at = {name: j for j, name in enumerate(rows.names)}

    def require(self, name: str, role: str) -> None:
        if name not in self._at:
            import difflib

            close = difflib.get_close_matches(name, self.names, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It has {', '.join(self.names[:12])}."
            raise WrongQuestion(f"The data has no column {name!r} (the {role}).{hint}")

    def numbers(self, name: str) -> Any:
        """float64 (rows,). Infinite and absurdly large values are an error."""
        import numpy

        values = numpy.asarray(self._rows.values[:, self._at[name]], numpy.float64)
        with numpy.errstate(invalid="ignore"):
            bad = numpy.flatnonzero(numpy.abs(values) > HUGE)
        if len(bad):
            raise WrongQuestion(
                f"The column {name!r} has {len(bad):,} infinite or absurdly large values (first: {values[bad[0]]:g} in row "
                f"{bad[0]}): a mean over them means nothing. Mend them, or mark them as missing."
            )
        return values

    def labels(self, name: str) -> tuple[Any, ...] | None:
        return self._rows.categories.get(self._at[name])

    def known(self, name: str) -> Any:
        import numpy

        return numpy.isfinite(self.numbers(name))

    def complete(self, names: Sequence[str]) -> Any:
        """bool (rows,): all of these columns are known."""
        import numpy

        kept = numpy.ones(self.rows, bool)
        for part, block in self.pieces(names):
            kept[part] = numpy.isfinite(block).all(axis=1)
        return kept

    @property
    def rows(self) -> int:
        return len(self._rows.values)

    def pieces(self, names: Sequence[str], at: Any = None) -> Iterator[tuple[slice, numpy.ndarray[Any, Any]]]:
        """(which rows, float64 (some, columns)) of the rows numbered `at` (all when None), a few at a time, checked as
        `numbers` does."""
        import numpy

        columns = [self._at[name] for name in names]
        first = columns[0] if columns else 0
        chosen: Any = (
            slice(first, first + len(columns)) if columns == [*range(first, first + len(columns))] else columns
        )
        count = self.rows if at is None else len(at)
        some = max(256, PIECE_BYTES // (8 * max(1, self._rows.values.shape[1])))
        for begin in range(0, count, some):
            part = slice(begin, min(count, begin + some))
            taken = self._rows.values[part] if at is None else self._rows.values[at[part]]
            block = numpy.asarray(taken[:, chosen], numpy.float64)
            with numpy.errstate(invalid="ignore"):
                huge = (numpy.abs(block) > HUGE).any(axis=0)
            if huge.any():
                self.numbers(names[int(huge.argmax())])  # says which and where
            yield part, block

    def outcome(self, name: str) -> Any:
        """Numbers; two labels are 0 and 1 in alphabetical order."""
        import numpy

        values, labels = self.numbers(name), self.labels(name)
        if labels is None:
            return values
        used = sorted({str(labels[int(v)]) for v in numpy.unique(values[numpy.isfinite(values)])})
        if len(used) != 2:
            raise WrongQuestion(
                f"The column {name!r} holds {len(used)} labels: an effect on it needs numbers, or two labels."
            )
        code = numpy.array(
            [used.index(str(label)) if str(label) in used else numpy.nan for label in labels] + [numpy.nan]
        )
        return code[numpy.where(numpy.isfinite(values), values, len(labels)).astype(numpy.int64)]

    def shown(self, name: str, at: Any) -> Any:
        """Values as people know them: labels where there are some."""
        import numpy

        values, labels = self.numbers(name)[at], self.labels(name)
        return values if labels is None else numpy.asarray([str(labels[int(v)]) for v in values])


def confounders_of(
    columns: Columns,
    causes: Sequence[str],
    at: Any,
    indicators: bool,
    note: Callable[[str], None],
    spelt: str | None = None,
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], numpy.ndarray[Any, Any]]:
    """(names of the matrix' columns, which of them stand for each cause, float64 (rows, columns)). at: row numbers, or None
    for all. spelt: a cause whose numbers are labels. Constant columns are left out and named."""
    import numpy

    made: list[tuple[str, str, Callable[[Any], Any] | None]] = []  # (cause, name, numbers -> column, None: as it is)
    missing, varies = _seen(columns, causes, at)
    for j, cause in enumerate(causes):
        labels, lost = columns.labels(cause), int(missing[j])
        if lost and indicators:
            note(f"{lost:,} missing values of {cause!r} are marked by a column of their own.")
            made.append((cause, f"{cause} missing", lambda v: ~numpy.isfinite(v)))
        if labels is None and varies[j] and cause != spelt:
            made.append((cause, cause, _filler(columns, cause, at) if lost else None))
            continue
        coded = [] if not varies[j] else _coded(columns, cause, at, labels, note)
        made += coded
        if not coded:
            note(
                f"The common cause {cause!r} is the same in all rows and was left out: it cannot confound anything here."
            )
    names = tuple(name for _, name, _ in made)
    groups = {c: tuple(j for j, (own, _, _) in enumerate(made) if own == c) for c in causes}
    matrix = _room(columns.rows if at is None else len(at), len(made))
    whole = [cause for cause, _, make in made if make is None]
    place = {cause: j for j, cause in enumerate(causes)}
    for part, block in columns.pieces(causes, at):
        if len(whole) == len(made) == len(causes):
            matrix[part] = block
            continue
        for j, (cause, _, make) in enumerate(made):
            column = block[:, place[cause]]
            matrix[part, j] = column if make is None else make(column)
    return names, {c: g for c, g in groups.items() if g}, matrix


def _filler(columns: Columns, cause: str, at: Any) -> Callable[[Any], Any]:
    """The mean in place of what is missing."""
    import numpy

    values = columns.numbers(cause) if at is None else columns.numbers(cause)[at]
    middle = float(numpy.nanmean(values))
    return lambda v: numpy.where(numpy.isfinite(v), v, middle)


def _seen(columns: Columns, causes: Sequence[str], at: Any) -> tuple[Any, Any]:
    """Of each cause: how many values are missing, whether the others differ; (causes,) each."""
    import numpy

    missing = numpy.zeros(len(causes), numpy.int64)
    least, most = numpy.full(len(causes), numpy.inf), numpy.full(len(causes), -numpy.inf)
    for _, block in columns.pieces(causes, at):
        missing += numpy.isnan(block).sum(axis=0)
        least = numpy.fmin(least, numpy.fmin.reduce(block, axis=0))
        most = numpy.fmax(most, numpy.fmax.reduce(block, axis=0))
    return missing, most > least


def _coded(
    columns: Columns, cause: str, at: Any, labels: tuple[Any, ...] | None, note: Callable[[str], None]
) -> list[tuple[str, str, Callable[[Any], Any] | None]]:
    """A column for each label but the most frequent."""
    import numpy

    def shown(code: float) -> str:
        return number(code) if labels is None else str(labels[int(code)])

    values = columns.numbers(cause) if at is None else columns.numbers(cause)[at]
    codes, counts = numpy.unique(values[numpy.isfinite(values)], return_counts=True)
    if (counts == 1).any():
        alone = [shown(c) for c in codes[counts == 1]]
        note(
            f"{cause!r} has {counted(len(alone), 'label')} with one row only (such as {alone[0]!r}): that row fits "
            "exactly and says nothing."
        )
    most = codes[counts.argmax()] if len(codes) else -1
    return [(cause, f"{cause}={shown(c)}", lambda v, c=c: v == c) for c in codes if c != most]  # type: ignore[misc]


def _room(rows: int, width: int) -> Any:
    """Zeros; in a file that nobody else sees when they are many."""
    import numpy

    if rows * width * 8 <= HELD_BYTES:
        return numpy.zeros((rows, width))
    with tempfile.TemporaryFile() as file:  # the map keeps it until it goes
        return numpy.memmap(file, dtype=numpy.float64, mode="w+", shape=(rows, width))


def number(value: float) -> str:
    """3 as "3", 2.5 as "2.5"."""
    return f"{value:g}"
