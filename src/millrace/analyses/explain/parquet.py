"""A Parquet file that is larger than memory, as rows in a model's columns: read forwards, a block of a row group at a time.

What is known of the file comes from its footer. A reader keeps its place, so that blocks which are asked for in order are
decoded once; memory is that of a block and of one page a column, never of a row group. Writes nothing: see `parts`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.background import Everything
from millrace.run.errors import MissingExtra, WrongQuestion
from millrace.run.tables import Rows, read_rows

if TYPE_CHECKING:
    import numpy

HEAD_ROWS = 2048
PAGE_BYTES = 1 << 20
"""What writers make a page of, before it is compressed."""

Place = tuple[int, int, int]
"""Row group, first row within it, and the row after the last."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file. digest: of its bytes, "" before they were read (see `digested`). columns: the file's names of the columns that
    are read, in their order.

    group_rows: rows of each row group. row_bytes: of a row of these columns, decoded. page_bytes: what a reader holds besides.
    """

    path: str
    digest: str
    columns: tuple[str, ...]
    group_rows: tuple[int, ...]
    row_bytes: int
    page_bytes: int

    @property
    def rows(self) -> int:
        return sum(self.group_rows)

    def only(self, columns: tuple[str, ...]) -> Source:
        """The same file, these columns of it."""
        share = len(columns) / max(1, len(self.columns))
        return replace(
            self, columns=columns, row_bytes=int(self.row_bytes * share), page_bytes=int(self.page_bytes * share)
        )

    def everything(self, aligned: Callable[[Rows], Rows]) -> Everything:
        """The first rows, and others by their numbers; `aligned`: as the model takes them."""
        return Everything(aligned(head(self)), self.rows, lambda numbers: aligned(take(self, numbers)))

    def blocks(self, size: int) -> list[Place]:
        """All rows in their order, cut at row groups and into at most `size` rows."""
        return [
            (group, start, min(start + size, rows))
            for group, rows in enumerate(self.group_rows)
            for start in range(0, rows, size)
        ]


def open_source(path: Any) -> Source:
    """What the footer tells; the digest is left out, since it takes a pass over the file. Raises `WrongQuestion`."""
    if not isinstance(path, str | os.PathLike) or Path(path).suffix.lower() not in (".parquet", ".pq"):
        raise WrongQuestion(
            "Rows are streamed from a Parquet file: give its path as data, or leave stream out for data in memory."
        )
    full = Path(path).absolute()
    if not full.exists():
        raise WrongQuestion(f"There is no file {path} (the data). Look for a typing error, or give a full path.")
    told = _file(full)
    meta, schema = told.metadata, told.schema_arrow
    twice = sorted({n for n in schema.names if schema.names.count(n) > 1})
    if twice:
        raise WrongQuestion(f"The data has more than one column called {', '.join(map(repr, twice))}: rename them.")
    if not meta.num_rows or not schema.names:
        raise WrongQuestion(
            f"The data has {meta.num_rows} rows and {len(schema.names)} columns: there is nothing to compute."
        )
    groups = [meta.row_group(g) for g in range(meta.num_row_groups)]
    pages = max(
        sum(min(PAGE_BYTES, group.column(c).total_uncompressed_size) for c in range(group.num_columns))
        for group in groups
    )
    single = all(str(kind) == "float" for kind in schema.types)
    return Source(
        str(full),
        "",
        tuple(schema.names),
        tuple(group.num_rows for group in groups),
        len(schema.names) * (4 if single else 8),
        2 * pages,
    )


def digested(source: Source) -> Source:
    """The same, with the digest of the file's bytes, which one pass takes."""
    with Path(source.path).open("rb") as file:
        return replace(source, digest=hashlib.file_digest(file, "sha256").hexdigest())


class Reader:
    """Reads blocks of one source after another. What is asked for in order costs one pass; going back begins the row
    group anew."""

    def __init__(self) -> None:
        self._path = ""
        self._file: Any = None
        self._group, self._next = -1, 0
        self._columns: tuple[str, ...] = ()
        self._batches: Iterator[Any] = iter(())
        self._rest: Any = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def rows(self, source: Source, place: Place) -> Rows:
        """Rows [start, stop) of a row group, in the source's columns, with labels as they are in this block."""
        group, start, stop = place
        if (source.path, source.columns, group) != (self._path, self._columns, self._group) or start < self._next:
            self._begin(source, group, stop - start)
        while self._next < start:
            self._take(min(start - self._next, stop - start))
        parts, wanted = [], stop - start
        while wanted:
            part = self._take(wanted)
            parts.append(part)
            wanted -= part.num_rows
        import pyarrow

        return read_rows(pyarrow.Table.from_batches(parts), "data")

    def _begin(self, source: Source, group: int, size: int) -> None:
        if source.path != self._path:
            if self._file is not None:
                self._file.close()
            self._file, self._path = _file(Path(source.path)), source.path
        self._group, self._columns, self._next, self._rest = group, source.columns, 0, None
        self._batches = self._file.iter_batches(size, [group], list(source.columns), use_threads=False)

    def _take(self, most: int) -> Any:
        """The next rows, `most` of them or fewer, as a batch."""
        batch = self._rest if self._rest is not None else next(self._batches, None)
        if batch is None:
            raise WrongQuestion(f"The data file {self._path} has fewer rows than when it was opened: it was changed.")
        part, rest = batch.slice(0, most), batch.slice(most)
        self._rest = rest if rest.num_rows else None
        self._next += part.num_rows
        return part


def head(source: Source, rows: int = HEAD_ROWS) -> Rows:
    """The first rows."""
    with Reader() as reader:
        return reader.rows(source, (0, 0, min(rows, source.group_rows[0])))


def take(source: Source, numbers: numpy.ndarray[Any, Any]) -> Rows:
    """These rows (numbers over the whole file, increasing), by one pass over the row groups that have some."""
    import pyarrow

    parts, first = [], 0
    with _file(Path(source.path)) as file:
        for group, count in enumerate(source.group_rows):
            mine = numbers[(numbers >= first) & (numbers < first + count)] - first
            at = 0
            for batch in (
                file.iter_batches(HEAD_ROWS, [group], list(source.columns), use_threads=False) if len(mine) else ()
            ):
                here = mine[(mine >= at) & (mine < at + batch.num_rows)] - at
                if len(here):
                    parts.append(batch.take(pyarrow.array(here)))
                at += batch.num_rows
            first += count
    return read_rows(pyarrow.Table.from_batches(parts), "data")


def _file(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as e:
        raise MissingExtra("pyarrow", "data", "Reading Parquet") from e
    try:
        return parquet.ParquetFile(path, memory_map=True, pre_buffer=False, buffer_size=1 << 16)
    except (OSError, ValueError) as e:  # pyarrow's errors are both
        raise WrongQuestion(f"The data file {path} cannot be read as Parquet: {e}.") from e
