"""Export and import for stores of any kind, in the one format of `archive`: what left a bucket may enter a folder.

A directory store copies its records as they are; of others each value is read, and written in the same form.
"""

from __future__ import annotations

import mmap
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from millrace.run.ports import Store
from millrace.stores import archive
from millrace.stores.codecs import Damaged, Encoded, decode, encode
from millrace.stores.directory import DirectoryStore
from millrace.stores.images import SUFFIXES
from millrace.stores.layout import FileNote
from millrace.stores.nearby import is_small
from millrace.stores.segments import FILE, VALUE, Record
from millrace.stores.staging import NOTED_TREE_BYTES

_CHUNK_BYTES = 1 << 20


def export(store: Store, file: BinaryIO) -> int:
    """Write all whole entries to a file that `import_` reads; how many."""
    if isinstance(store, DirectoryStore):
        return store.export(file)
    count = 0
    with archive.Sink(file) as sink:
        for key in store.keys(""):
            stored = store.get(key)
            if stored is None:
                continue
            encoded = encode(stored.value)
            raw = bytes.fromhex(key)
            if is_small(encoded):
                sink.write(Record(VALUE, raw, encoded.tree))
            else:
                encoded = encoded.in_container()
                sink.write(Record(FILE, raw, _note_of(encoded).packed()), _whole(encoded))
            count += 1
    return count


def import_(store: Store, file: BinaryIO) -> int:
    """Take in the entries of an exported file that are not there yet; how many there were. `WrongQuestion` when it is no
    such file or is damaged; what was taken in until then is whole and stays."""
    if isinstance(store, DirectoryStore):
        return store.import_(file)
    count = 0
    for record, body in archive.entries(file):
        try:
            if body is None:
                store.put(record.raw_key.hex(), decode(record.payload))
            else:
                _take_large(store, record, body)
        except Damaged:
            raise archive.damaged() from None
        count += 1
    store.flush()
    return count


def _take_large(store: Store, record: Record, body: BinaryIO) -> None:
    """By way of a file that is mapped, so that memory does not bound what is taken in."""
    note = FileNote.of(record.kind, record.payload)
    with tempfile.TemporaryFile(dir="/var/tmp") as copy:
        left, crc = note.size_bytes, 0
        while left and (chunk := body.read(min(_CHUNK_BYTES, left))):
            copy.write(chunk)
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
        copy.flush()
        if left or crc != note.crc:
            raise archive.damaged()
        image = mmap.mmap(copy.fileno(), note.size_bytes, access=mmap.ACCESS_READ)
        tree = note.tree or image[note.tree_offset : note.tree_offset + note.tree_bytes]
        store.put(record.raw_key.hex(), decode(tree, image))


def _note_of(encoded: Encoded) -> FileNote:
    crc = 0
    for chunk in _whole(encoded):
        crc = zlib.crc32(chunk, crc)
    tree = encoded.tree if len(encoded.tree) <= NOTED_TREE_BYTES else None
    name = f"{secrets.token_hex(4)}{SUFFIXES[encoded.layout]}"
    return FileNote(name, encoded.image_bytes, crc, encoded.tree_offset, len(encoded.tree), tree)


def _whole(encoded: Encoded) -> Iterator[Any]:
    """The image front to back, gaps as zeros."""
    at = 0
    for offset, chunk in encoded.chunks():
        if offset > at:
            yield bytes(offset - at)
        yield chunk
        at = offset + len(chunk)
    if at < encoded.image_bytes:
        yield bytes(encoded.image_bytes - at)
