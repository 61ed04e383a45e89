"""Arrow data as IPC files: what `codecs` asks when it meets some. pyarrow is imported only then.

No threads are started (workers are forked), nothing is compressed (mapped files are used where they lie).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from millrace.run.errors import NotStorable

if TYPE_CHECKING:
    import pyarrow

CHUNK_BYTES = 8 << 20
_COLUMN = "value"


def is_table(value: Any) -> bool:
    """A Table or RecordBatch: what an Arrow IPC file holds."""
    pa = sys.modules.get("pyarrow")
    return pa is not None and isinstance(value, (pa.Table, pa.RecordBatch))


def is_arrow(value: Any) -> bool:
    pa = sys.modules.get("pyarrow")
    return pa is not None and isinstance(value, (pa.Table, pa.RecordBatch, pa.Array, pa.ChunkedArray))


def kind_of(value: Any) -> str:
    import pyarrow as pa

    for kind, name in ((pa.Table, "table"), (pa.RecordBatch, "batch"), (pa.ChunkedArray, "chunked")):
        if isinstance(value, kind):
            return name
    return "array"


def as_table(value: Any) -> pyarrow.Table | pyarrow.RecordBatch:
    """The same data as something that an IPC file holds."""
    import pyarrow as pa

    if isinstance(value, pa.Array):
        return pa.RecordBatch.from_arrays([value], names=[_COLUMN])
    if isinstance(value, pa.ChunkedArray):
        return pa.Table.from_arrays([value], names=[_COLUMN])
    return value


def ipc_bytes(table: pyarrow.Table | pyarrow.RecordBatch) -> int:
    """Size of the IPC file, without writing it."""
    import pyarrow as pa

    counted = pa.MockOutputStream()
    _write(table, counted)
    return counted.size()  # type: ignore[no-any-return]


def ipc_chunks(table: pyarrow.Table | pyarrow.RecordBatch) -> Iterator[memoryview]:
    """A whole IPC file. Buffers of the table are not copied."""
    pieces = _Pieces()
    import pyarrow as pa

    with pa.PythonFile(pieces, mode="w") as sink:
        _write(table, sink)
    for piece in pieces.held:
        yield memoryview(piece)


def read(kind: str, data: Any) -> Any:
    """The Arrow value over `data`, whose memory it shares. A ValueError when it is none."""
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False)
    with pa.ipc.open_file(pa.py_buffer(data), options=options) as reader:
        if kind in ("table", "chunked"):
            table = reader.read_all()
            return table if kind == "table" else table.column(0)
        batch = reader.get_batch(0)
    if kind == "batch":
        return batch
    if kind != "array":
        raise ValueError(f"{kind!r} is no kind of Arrow data")
    return batch.column(0)


class _Pieces:
    """What a writer of Arrow IPC wrote, piece by piece, held without a copy."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.closed = False
        self._at = 0

    def write(self, piece: Any) -> int:
        size = memoryview(piece).nbytes
        self.held.append(piece)
        self._at += size
        return size

    def tell(self) -> int:
        return self._at

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        self.closed = True


def _write(table: pyarrow.Table | pyarrow.RecordBatch, sink: Any) -> None:
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(use_threads=False)
    try:
        if isinstance(table, pa.RecordBatch):
            with pa.ipc.new_file(sink, table.schema, options=options) as writer:
                writer.write_batch(table)
            return
        table = _one_dictionary(table)
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    except pa.ArrowNotImplementedError as e:
        raise NotStorable(f"Arrow cannot write this table as an IPC file ({e}); cast the column to a plain type") from e


def _one_dictionary(table: pyarrow.Table) -> pyarrow.Table:
    """An IPC file has one dictionary a column; chunks that came with their own get a common one."""
    import pyarrow as pa

    try:
        return table.unify_dictionaries()
    except pa.ArrowNotImplementedError:
        return table.combine_chunks()  # dictionaries inside lists or structs: one chunk has one dictionary
