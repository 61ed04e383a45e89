"""Large values on their way into a directory store: written as a draft in its folder, and named only when they are whole.

What `DirectoryStore.put` does in one go, stores elsewhere do in steps: a value is staged here, sent, and admitted when
it was the first of its key; or what others have sent is received, compared with its digest, and admitted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import zlib
from collections.abc import Callable, Iterator

from millrace.stores import images
from millrace.stores.codecs import Encoded
from millrace.stores.images import Draft
from millrace.stores.layout import FileNote, Home

NOTED_TREE_BYTES = 8_192
_CHUNK_BYTES = 256 << 10


def stage(home: Home, encoded: Encoded) -> tuple[Draft, FileNote]:
    """The value as a file that nobody reads yet, and the note that will lead to it."""
    encoded = encoded.in_container()
    draft = images.write(home.drafts, encoded)
    tree = encoded.tree if len(encoded.tree) <= NOTED_TREE_BYTES else None
    name = f"{secrets.token_hex(4)}{images.SUFFIXES[encoded.layout]}"
    return draft, FileNote(name, draft.size_bytes, draft.crc, encoded.tree_offset, len(encoded.tree), tree)


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """While the draft is sent or received it is locked, which tells `images.sweep` that it is not abandoned; what is
    left of it afterwards is removed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def received(home: Home, note: FileNote, sha256: bytes, fetch: Callable[[str], bool]) -> Iterator[Draft | None]:
    """A draft that `fetch(path)` has filled; None when it could not, or when the bytes are not those of the digest."""
    path = f"{home.drafts}/{secrets.token_hex(8)}"
    with held(path):
        try:
            whole = fetch(path) and summed(path) == (note.size_bytes, note.crc, sha256)
        except OSError as e:
            raise images.no_room(home.drafts, e, note.size_bytes) from e
        yield Draft(path, note.size_bytes, note.crc) if whole else None


def summed(path: str) -> tuple[int, int, bytes]:
    """Size, CRC-32 and SHA-256 of a file, by reading it once."""
    size, crc, sha = 0, 0, hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
            sha.update(chunk)
    return size, crc, sha.digest()
