"""Where things lie in a directory store, and what is noted of a large value.

    <path>/CACHEDIR.TAG            backups leave the folder out
    <path>/v1/lock                 writers lock it; readers never do
    <path>/v1/index                where each key's record lies (see `index`)
    <path>/v1/segments/3fa2b0.values   small values, packed; `.files`: notes of large ones (see `segments`)
    <path>/v1/objects/3f/<key>-<random>.npy    large values: .npy, .arrow, .mill (see `codecs`)
    <path>/v1/drafts/              large values that are being written
    <path>/v1/pins/                what eviction leaves alone (see `pins`)

Another layout gets another name than v1 and leaves this one alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from millrace.stores.codecs import Damaged
from millrace.stores.segments import FILE

LAYOUT = "v1"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A store of millrace: everything in it can be computed again.\n"
_NAME = re.compile(r"[0-9a-f]{8}\.(npy|arrow|mill)")
_FOLDERS = ("segments", "objects", "drafts", "pins")


@dataclass(frozen=True, slots=True)
class FileNote:
    """What the index knows of a large value: the rest of its file's name, size and checksum, and its tree.

    A tree that is too large for a record (`tree` is None then) lies in the file.
    """

    name: str
    size_bytes: int
    crc: int
    tree_offset: int
    tree_bytes: int
    tree: bytes | None

    def packed(self) -> bytes:
        return _encode(self)

    @classmethod
    def of(cls, kind: int, payload: bytes) -> FileNote:
        """`Damaged` when the record is not one of a file."""
        if kind != FILE:
            raise Damaged("not a note of a file")
        try:
            note = _decode(payload)
        except msgspec.DecodeError as e:
            raise Damaged(f"no note of a file: {e}") from e
        if not _NAME.fullmatch(note.name) or note.size_bytes <= 0:
            raise Damaged("no note of a file")
        return note


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FileNote).decode


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one store."""

    root: Path
    lock: Path
    index: Path
    segments: Path
    objects: Path
    drafts: Path
    pins: Path

    @classmethod
    def at(cls, path: Path) -> Home:
        root = path / LAYOUT
        return cls(root, root / "lock", root / "index", *(root / name for name in _FOLDERS))

    def make(self, path: Path) -> None:
        if self.pins.is_dir():
            return
        for folder in (self.segments, self.objects, self.drafts, self.pins):
            folder.mkdir(parents=True, exist_ok=True)
        tag = path / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG, encoding="ascii")

    def object_path(self, raw_key: bytes, note: FileNote) -> str:
        key = raw_key.hex()
        return f"{self.objects}/{key[:2]}/{key}-{note.name}"

    def object_paths(self) -> Iterator[str]:
        """All large files, named by an index entry or not."""
        for folder in os.listdir(self.objects):
            for name in os.listdir(self.objects / folder):
                yield f"{self.objects}/{folder}/{name}"
