"""A store in a directory: any number of processes of a host share it, without a server.

Small values are packed into segments, large ones are files that everybody maps read-only; a hash table on disk says
where each lies (see `layout`, `segments`, `images`, `index`). Whoever commits first, under the store's lock, has
written the value that stays. Reading takes no lock, and believes only records whose key and checksum are right: what
is torn, damaged, older or alien is a miss, and the next `put` of its key replaces it.

`put` of a small value only buffers it; it is written after FLUSH_RECORDS of them or FLUSH_S, or by `flush`. From then
on it outlives the process. Nothing is synced to the disk: a power cut may lose what was put last, and a checksum tells.

The directory must be on a disk of this host: locks and sizes are not reliable on network file systems, and on a tmpfs
mapped values would count as memory. Forked children may go on with the object (they leave the parent's buffer and pins
alone). Thread-safe. Not here: who may read what (file permissions do that), and expiry by age.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.run.ports import Stored
from millrace.run.task import Key
from millrace.stores import archive, eviction, images, segments, staging
from millrace.stores.catalog import PATIENCE_S, Busy, Catalog, Lies
from millrace.stores.codecs import Damaged, decode, encode, raw_key
from millrace.stores.layout import FileNote, Home
from millrace.stores.pins import Pins
from millrace.stores.segments import FILE, VALUE, Place, Record

PACKED_BYTES = 16_384
"""A value that takes no more than this is packed with others; a larger one gets a file."""
FLUSH_RECORDS = 256
FLUSH_S = 0.03
_FLUSH_BYTES = 1 << 20
_MOST_WAITING = 4_096
_CLOSED = -1


class DirectoryStore:
    """The store in `path`, which is made if it is not there. Opening reads no entries."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(os.fspath(path)))
        self.url = f"dir:{self.path}"
        self.home = Home.at(self.path)
        try:
            self.home.make(self.path)
        except (FileExistsError, NotADirectoryError) as e:
            raise WrongQuestion(f"{self.path} cannot be a store: there is a file where a folder must be ({e}).") from e
        self._mapper = images.Mapper()
        self._reader = segments.Reader(self.home.segments)
        self._catalog = Catalog(self.home)
        self._begin()
        try:
            images.sweep(self.home.drafts)
            if self._catalog.index is None:
                with self._catalog.locked():
                    pass
        except OSError as e:
            if e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):  # a store that we may only read is fine
                raise

    def _begin(self) -> None:
        """What belongs to this process alone."""
        self._pid = os.getpid()
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        self._pending_since_s = 0.0
        self._values = segments.Writer(self.home.segments, VALUE)
        self._files = segments.Writer(self.home.segments, FILE)
        self._pins = Pins(self.home.pins)

    # -- reading ---------------------------------------------------------------------------------------------------
    def get(self, key: Key) -> Stored | None:
        """The verified value; a large one is read once by each process to verify it, then only mapped."""
        raw = self._raw(key)
        with self._catalog.guard:
            return self._found(raw, verify=True)

    def attach(self, key: Key) -> Any:
        """The value; of a large one nothing is read (its size and its note are right, its bytes are taken on trust)."""
        raw = self._raw(key)
        with self._catalog.guard:
            found = self._found(raw, verify=False)
        if found is None:
            raise KeyError(f"{key} is not in the store at {self.path} (any more): run again to compute it")
        return found.value

    def _found(self, raw: bytes, verify: bool, renew: bool = True) -> Stored | None:
        pending = self._pending.get(raw)
        if pending is not None:
            return self._stored(raw, pending, verify)
        for _ in (0, 1):
            for place in self._catalog.find(raw):
                stored = self._stored(raw, self._reader.read(place), verify)
                if stored is not None:
                    return stored
            if not renew or not self._catalog.renewed():
                return None
        return None

    def _stored(self, raw: bytes, data: bytes, verify: bool) -> Stored | None:
        """The value of this record if it is that of the key, and whole."""
        opened = segments.of_key(data, raw)
        if opened is None:
            return None
        kind, payload = opened
        try:
            if kind == VALUE:
                return Stored(raw.hex(), decode(payload), len(payload))
            return self._mapped(raw, FileNote.of(kind, payload), verify)
        except Damaged:
            return None

    def _mapped(self, raw: bytes, note: FileNote, verify: bool) -> Stored | None:
        path = self.home.object_path(raw, note)
        image = self._mapper.mapped(path, note.size_bytes, note.crc if verify else None)
        if image is None:
            return None
        tree = note.tree
        if tree is None:
            tree = image[note.tree_offset : note.tree_offset + note.tree_bytes]
        return Stored(raw.hex(), decode(tree, image), note.size_bytes)

    # -- writing ---------------------------------------------------------------------------------------------------
    def put(self, key: Key, value: Any) -> Stored:
        """Keep the value, unless a whole one is there; what is kept comes back. `NotStorable` for other values.

        A large value is written at once and is there for everybody when this returns.
        """
        raw = self._raw(key)
        with self._catalog.guard:  # not asking for a newer table: what is in there is found when this is written
            found = self._found(raw, verify=True, renew=False)
        if found is not None:
            return found
        encoded = encode(value)
        if encoded.layout == "tree" and len(encoded.tree) <= PACKED_BYTES:
            with self._catalog.guard:
                if raw not in self._pending:
                    self._buffer(raw, segments.sealed(VALUE, raw, encoded.tree))
                    return Stored(key, decode(encoded.tree), len(encoded.tree))
            return self.put(key, value)  # another thread was first
        return self._commit(raw, *staging.stage(self.home, encoded))

    def admit(self, key: Key, draft: images.Draft, note: FileNote) -> Stored:
        """Keep what `staging` made in this store's folder of drafts, unless a whole value is there; what is kept."""
        return self._commit(self._raw(key), draft, note)

    def _buffer(self, raw: bytes, record: bytes) -> None:
        now = time.monotonic()
        if not self._pending:
            self._pending_since_s = now
        self._pending[raw] = record
        self._pending_bytes += len(record)
        waiting = len(self._pending)
        if waiting < FLUSH_RECORDS and self._pending_bytes < _FLUSH_BYTES and now - self._pending_since_s < FLUSH_S:
            return
        self._pending_since_s = now
        # A busy lock is left alone: what waits is found by this process, and will go with the next batch.
        patience = PATIENCE_S if waiting >= _MOST_WAITING else 0.0
        with contextlib.suppress(Busy), self._catalog.locked(patience):
            self._write_pending()

    def flush(self) -> None:
        """Write what was buffered: from now on it outlives this process, and others find it."""
        if self._pid != os.getpid():
            self._after_fork()
        with self._catalog.guard:
            if self._pending:
                with self._catalog.locked():
                    self._write_pending()

    def _write_pending(self) -> None:
        """Append the buffered records to the segment, then point to them. Under the lock."""
        self._catalog.make_room(len(self._pending))
        offset = self._appended(self._values, b"".join(self._pending.values()))
        for raw, data in self._pending.items():
            self._catalog.enter(raw, segments.place(self._values.number, offset, len(data)), self._lies)
            offset += len(data)
        self._pending.clear()
        self._pending_bytes = 0

    def _commit(self, raw: bytes, draft: images.Draft, note: FileNote) -> Stored:
        """Give the draft its name and point to it, unless somebody was first."""
        path = self.home.object_path(raw, note)
        try:
            with self._catalog.locked():
                self._catalog.make_room(1)
                if raw in self._pending:  # a small value of this key, put before
                    self._write_pending()
                first = all(self._lies(raw, place) != "whole" for place in self._catalog.find(raw))
                if first:
                    record = segments.sealed(FILE, raw, note.packed())
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    os.rename(draft.path, path)
                    try:
                        offset = self._appended(self._files, record)
                    except BaseException:
                        os.unlink(path)
                        raise
                    place = segments.place(self._files.number, offset, len(record))
                    self._catalog.enter(raw, place, self._lies)
                    self._mapper.trust(path)  # its checksum was made of the very bytes that were written
                stored = self._found(raw, verify=not first)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft.path)
        if stored is None:
            raise AnalysisFailed(
                f"The value {raw.hex()} was gone from the store at {self.path} as soon as it was written: something "
                "else removes its files. Leave the folder to millrace, or use another one."
            )
        return stored

    def _lies(self, raw: bytes, place: Place) -> Lies:
        """What a slot of this key leads to. The file of a damaged value is taken away: should its note be found again,
        `attach` would trust it."""
        data = self._reader.read(place)
        opened = segments.opened(data)
        if opened is None:
            return "damaged"
        if opened[0].raw_key != raw:
            return "another's"
        if self._stored(raw, data, verify=True) is not None:
            return "whole"
        if opened[0].kind == FILE:
            with contextlib.suppress(Damaged, FileNotFoundError):
                os.unlink(self.home.object_path(raw, FileNote.of(FILE, opened[0].payload)))
        return "damaged"

    def _appended(self, writer: segments.Writer, data: bytes) -> int:
        try:
            return writer.append(data)
        except OSError as e:
            raise images.no_room(self.home.segments, e, len(data)) from e

    # -- what is kept ----------------------------------------------------------------------------------------------
    def pin(self, key: Key) -> None:
        """Keep it from `evict` until this object is closed or this process has died."""
        raw = self._raw(key)
        if not self._pins.has(raw):
            with self._catalog.locked():
                self._pins.add(raw)

    def hold(self, key: Key) -> None:
        """Keep it from `evict` for good (a result that somebody wants to keep), until `release`."""
        raw = self._raw(key)
        with self._catalog.locked():
            self._pins.hold(raw)

    def release(self, key: Key) -> None:
        raw = self._raw(key)
        with self._catalog.locked():
            self._pins.release(raw)

    def evict(self, limit_bytes: int) -> int:
        """Least recently used first until the store takes at most `limit_bytes`; the bytes freed.

        What is pinned or held stays, even when that alone is more. Segments of small values go as one. A value that is
        mapped somewhere stays readable there.
        """
        self.flush()
        images.sweep(self.home.drafts)
        with self._catalog.locked():
            before = eviction.size_bytes(self.home, self._catalog.table)
            try:
                eviction.evict(self.home, self._catalog.table, self._pins.everybodys(), limit_bytes)
            except OSError as e:
                raise images.no_room(self.home.segments, e, limit_bytes) from e
            self._catalog.settle()
            for part in (self._reader, self._values, self._files):
                part.close()  # open files would keep the space
            return before - eviction.size_bytes(self.home, self._catalog.table)

    def size_bytes(self) -> int:
        """Bytes on disk, the fixed 20 KiB of an empty store not counted."""
        self.flush()
        with self._catalog.guard:
            self._catalog.renewed()
            return eviction.size_bytes(self.home, self._catalog.index)

    def keys(self, prefix: str = "") -> Iterator[Key]:
        """Keys that start so, in no order. Reads all segments."""
        self.flush()
        for record in self._live():
            key = record.raw_key.hex()
            if key.startswith(prefix):
                yield key

    def _live(self) -> Iterator[Record]:
        """Each key's record that counts."""
        with self._catalog.guard:
            self._catalog.renewed()
        for place, record in self._catalog.records():
            with self._catalog.guard:
                counts = self._counts(record, place)
            if counts:
                yield record

    def _counts(self, record: Record, place: Place) -> bool:
        """This record is the first whole one that its key's slots lead to, and its file is there."""
        for other in self._catalog.find(record.raw_key):
            if other == place:
                break
            opened = segments.opened(self._reader.read(other))
            if opened is not None and opened[0].raw_key == record.raw_key:
                return False
        else:
            return False
        if record.kind == VALUE:
            return True
        try:
            note = FileNote.of(record.kind, record.payload)
            return os.stat(self.home.object_path(record.raw_key, note)).st_size == note.size_bytes
        except (Damaged, FileNotFoundError):
            return False

    # -- to and from one file --------------------------------------------------------------------------------------
    def export(self, file: BinaryIO, keys: Iterable[Key] | None = None) -> int:
        """Write entries (all, or those of `keys`) to a file that `import_` reads; how many. What is damaged is left out."""
        self.flush()
        wanted = None if keys is None else {raw_key(key) for key in keys}
        count = 0
        with archive.Sink(file) as sink:
            for record in self._live():
                if wanted is None or record.raw_key in wanted:
                    count += sink.add(record, self.home)
        return count

    def import_(self, file: BinaryIO) -> int:
        """Take in the entries of an exported file that are not here yet; how many there were. `WrongQuestion` when it
        is no such file or is damaged; what was taken in until then is whole and stays."""
        count = 0
        for record, body in archive.entries(file):
            count += 1
            if record.kind == VALUE:
                if self.get(record.raw_key.hex()) is None:
                    with self._catalog.guard:
                        self._buffer(record.raw_key, segments.sealed(VALUE, record.raw_key, record.payload))
                continue
            note = FileNote.of(record.kind, record.payload)
            assert body is not None, "a note of a file comes with the file"
            draft = images.copied(self.home.drafts, body, note.size_bytes)
            if draft.crc != note.crc:
                os.unlink(draft.path)
                raise archive.damaged()
            self._commit(record.raw_key, draft, note)
        self.flush()
        return count

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Flush, let the pins go, close all files. Values that were handed out stay readable. Idempotent."""
        if self._pid == _CLOSED:
            return
        try:
            self.flush()
        finally:
            with self._catalog.guard:
                self._pins.close()
                self._values.close()
                self._files.close()
                self._reader.close()
                self._pid = _CLOSED
            self._catalog.close()

    def _raw(self, key: Key) -> bytes:
        """The key's bytes; what every public method that takes a key begins with."""
        if self._pid != os.getpid():
            self._after_fork()
        return raw_key(key)

    def _after_fork(self) -> None:
        """In a child: what the parent buffered, pinned and locked is the parent's."""
        if self._pid == _CLOSED:
            raise ValueError(f"the store at {self.path} was closed; open it again")
        self._catalog.forked()
        self._pins.close(forget=True)
        self._values.close()
        self._files.close()
        self._begin()


def open_by_url(url: str) -> DirectoryStore:
    """The store that `url` ("dir:/absolute/path") names; what another process calls."""
    scheme, _, path = url.partition(":")
    if scheme != "dir" or not os.path.isabs(path):
        raise WrongQuestion(f"{url!r} is no url of a directory store: that is dir: and an absolute path.")
    return DirectoryStore(path)
