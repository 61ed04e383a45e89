"""Entries of a store as one file, for another host: `millrace cache export` and `import`.

MAGIC, then records as in segments (see `segments`); the note of a large value is followed by its file's bytes; the
record of kind END closes with the number of entries. Everything is under a checksum. Names of files are made from
checked keys by the store that reads, so nothing can be written elsewhere; nothing is unpickled. Streams both ways: a
pipe will do.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO

from millrace.run.errors import WrongQuestion
from millrace.stores import images, segments
from millrace.stores.codecs import Damaged
from millrace.stores.layout import FileNote, Home
from millrace.stores.segments import FILE, VALUE, Record

MAGIC = b"millrace store export 1\n"
END = 255
_COUNT = struct.Struct("<Q")
_CHUNK_BYTES = 1 << 20


class Sink:
    """Writes an archive; on leaving the block without an error its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._count = 0
        file.write(MAGIC)

    def __enter__(self) -> Sink:
        return self

    def add(self, record: Record, home: Home) -> bool:
        """One entry; False when it was damaged or gone, and was left out."""
        fd = -1
        if record.kind == FILE:
            note = FileNote.of(record.kind, record.payload)
            opened = images.open_image(home.object_path(record.raw_key, note), note.size_bytes)
            if opened is None:
                return False
            fd = opened[0]
        try:
            if fd >= 0 and images.checksum(fd) != note.crc:
                return False
            self._file.write(segments.sealed(record.kind, record.raw_key, record.payload))
            at = 0
            while fd >= 0 and (chunk := os.pread(fd, _CHUNK_BYTES, at)):
                self._file.write(chunk)
                at += len(chunk)
        finally:
            if fd >= 0:
                os.close(fd)
        self._count += 1
        return True

    def write(self, record: Record, chunks: Iterable[Any] = ()) -> None:
        """One entry: a small value, or the note of a large one and its bytes."""
        self._file.write(segments.sealed(record.kind, record.raw_key, record.payload))
        for chunk in chunks:
            self._file.write(chunk)
        self._count += 1

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self._file.write(segments.sealed(END, b"\0", _COUNT.pack(self._count)))


def entries(file: BinaryIO) -> Iterator[tuple[Record, BinaryIO | None]]:
    """The entries of an archive; a large value's bytes (`note.size_bytes` of them) are to be read from the file that
    comes with it before the next entry is asked for. `WrongQuestion` for anything but a whole archive."""
    if file.read(len(MAGIC)) != MAGIC:
        raise WrongQuestion("This is not a file that `millrace cache export` made. Nothing was taken in.")
    count = 0
    while True:
        record = _record(file)
        if record.kind == END:
            if record.payload != _COUNT.pack(count) or file.read(1):
                raise damaged()
            return
        if record.kind == FILE:
            try:
                FileNote.of(record.kind, record.payload)
            except Damaged:
                raise damaged() from None
        elif record.kind != VALUE:
            raise damaged()
        yield record, file if record.kind == FILE else None
        count += 1


def damaged() -> WrongQuestion:
    return WrongQuestion(
        "The exported file is damaged or not all there. The entries before the damage were taken in, and each of them is "
        "whole. Export again, or copy the file again and compare its checksum."
    )


def _record(file: BinaryIO) -> Record:
    head = file.read(segments.HEAD_BYTES)
    length = segments.length_from(head)
    if not 0 < length <= segments.MOST_RECORD_BYTES:
        raise damaged()
    opened = segments.opened(head + file.read(length - len(head)))
    if opened is None:
        raise damaged()
    return opened[0]
