"""A store in Redis (or Valkey), by which the workers of several hosts share results.

A small value is a string, in the sealed form of `segments`: whoever sets it first has set the value that stays. A large
one is sent in chunks that expire unless their note is set, in one step on the server, when all are there; a writer that
is killed leaves nothing that anybody sees. Each host fetches a large value once, compares it with its SHA-256, and maps
it from its own disk (see `nearby`). Small ones are sent by the batch (`flush`). What is read is never unpickled.

Pins are leases, renewed by a thread while this object lives. What was used last is kept in a sorted set, so that
`evict` begins with the oldest and looks at nothing else. A server with a `maxmemory-policy` of its own may take values
away: that is a miss, and `remarks` says it. When the server cannot be reached for `patience_s` the error names it, and
small values that were not sent stay on this host and go out later.

Who may read what: docs/stores.md. Not for Redis Cluster with several masters.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from millrace.run.errors import MillraceError
from millrace.run.ports import Stored
from millrace.run.task import Key
from millrace.run.urls import spoken
from millrace.stores import redis_scripts as scripts
from millrace.stores import redis_server as server
from millrace.stores import segments, staging
from millrace.stores.codecs import Encoded, encode, raw_key
from millrace.stores.nearby import FarNote, Nearby, folder_of, is_small, opened
from millrace.stores.outages import LEASE_S, PATIENCE_S, Lease

T = TypeVar("T")
CHUNK_BYTES = 4 << 20
FLUSH_RECORDS, FLUSH_BYTES, FLUSH_S = 256, 1 << 20, 0.05
_UPLOAD_S = 3_600
"""Chunks without a note go away after this long."""
_TOUCH_S, _TOUCH_MOST = 1.0, 512
_MISSED_S, _MISSED_MOST = 60.0, 65_536
_EVICT_STEP = 256
_ROOM_LEFT = 0.9


class RedisStore:
    """The store at `url`: redis://[user[:password]@]host[:port][/db][?namespace=NAME][&limit=SIZE], rediss:// over TLS.

    Copies of large values lie below `cache`, a directory on a disk of this host. Beyond `limit` what was not used for
    longest goes. Other parts of the query are redis-py's. Thread-safe; a forked child may go on with the object.
    """

    def __init__(self, url: str, cache: Path, *, lease_s: float = LEASE_S, patience_s: float = PATIENCE_S) -> None:
        self.url = url
        self._lease_s, self._patience_s = lease_s, patience_s
        self._plain_url, namespace, self._limit_bytes = server.parts(url)
        self._errors = server.passing(url)
        root = f"{{millrace{'-' if namespace else ''}{namespace}}}:1:"
        self._values, self._chunks, self._pins = (f"{root}{part}:".encode() for part in ("v", "c", "p"))
        self._index = [root + name for name in ("used", "about", "total")]
        self._holders = root + "holders"
        self._near = Nearby(folder_of(cache, url))
        self._closed = False
        self._begin()
        self.remarks: tuple[str, ...] = server.remarks(url, self._client, self._call)

    def _begin(self) -> None:
        """What belongs to this process alone."""
        self._pid = os.getpid()
        self._guard = threading.RLock()
        self._client = server.client(self._plain_url)
        register = self._client.register_script
        self._put, self._touch = register(scripts.PUT), register(scripts.TOUCH)
        self._pin, self._evict = register(scripts.PIN), register(scripts.EVICT)
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes, self._pending_since_s = 0, 0.0
        self._missed: dict[bytes, float] = {}
        self._used: set[bytes] = set()
        self._used_since_s = time.monotonic()
        self._own: set[bytes] = set()
        self._token = secrets.token_hex(8)
        self._lease = Lease(self._renew, self._lease_s / 3)

    # -- reading ---------------------------------------------------------------------------------------------------
    def get(self, key: Key) -> Stored | None:
        """The verified value. What this host kept when the server was out of reach is found, and sent again."""
        raw = self._raw(key)
        pending = self._pending.get(raw)
        if pending is not None:
            return opened(raw, pending)  # type: ignore[return-value]
        stored = self._found(raw, self._record(raw))
        if stored is None:
            if len(self._missed) >= _MISSED_MOST:
                self._missed.clear()
            self._missed[raw] = time.monotonic()
            stored = self._near.get(key)
            if stored is not None:
                encoded = encode(stored.value)
                if is_small(encoded):
                    self._buffer(raw, encoded.tree)
            return stored
        self._use(raw)
        return stored

    def attach(self, key: Key) -> Any:
        """The value; a large one that this host has is only mapped, without asking the server."""
        self._raw(key)
        with contextlib.suppress(KeyError):
            return self._near.store.attach(key)
        stored = self.get(key)
        if stored is None:
            raise KeyError(f"{key} is not in the store {spoken(self.url)} (any more): run again to compute it")
        return stored.value

    def _record(self, raw: bytes) -> bytes:
        """What is there by this key; empty when nothing is."""
        return self._call(lambda: self._client.get(self._values + raw)) or b""

    def _found(self, raw: bytes, record: bytes) -> Stored | None:
        found = opened(raw, record) if record else None
        if type(found) is not FarNote:
            return found  # type: ignore[return-value]
        return self._near.fetched(raw.hex(), found, lambda path: self._download(found, path))

    def _download(self, far: FarNote, path: str) -> bool:
        token, _, count = far.name.partition(":")
        with open(path, "wb", buffering=0) as file:
            for i in range(int(count)):
                chunk = self._call(lambda i=i: self._client.get(self._chunk(token, i)))
                if chunk is None:
                    return False
                file.write(chunk)
        return True

    # -- writing ---------------------------------------------------------------------------------------------------
    def put(self, key: Key, value: Any) -> Stored:
        """Keep the value, unless a whole one is there; what is kept comes back. `NotStorable` for other values."""
        raw = self._raw(key)
        pending = self._pending.get(raw)
        if pending is not None:
            return opened(raw, pending)  # type: ignore[return-value]
        encoded = encode(value)
        if is_small(encoded):
            there = None if self._just_missed(raw) else self._found(raw, self._record(raw))
            return there or self._buffer(raw, encoded.tree)
        record = self._record(raw)
        stored = self._found(raw, record)
        return stored if stored is not None else self._send(raw, encoded, record)

    def _just_missed(self, raw: bytes) -> bool:
        """A run asks, computes and puts: the server need not be asked again, since setting it asks, too."""
        return time.monotonic() - self._missed.pop(raw, -_MISSED_S) < _MISSED_S

    def _send(self, raw: bytes, encoded: Encoded, expected: bytes) -> Stored:
        """A large value: chunks first, then its note, unless somebody was faster."""
        key = raw.hex()
        count = -(-encoded.in_container().image_bytes // CHUNK_BYTES)
        while True:
            token = secrets.token_hex(8)
            draft, far = self._near.stage(encoded, f"{token}:{count}")
            with staging.held(draft.path):
                try:
                    self._upload(draft.path, token)
                    record = far.sealed(raw)
                    entry = (raw, record, expected, len(record) + draft.size_bytes, token, count)
                    (said,) = self._commit([entry])
                except BaseException:
                    self._near.admit(key, draft, far)  # finished work stays on this host
                    raise
                if not said:
                    return self._near.admit(key, draft, far)
            if said == b"lost":  # the server took chunks away while the others came
                continue
            self._call(lambda token=token: self._client.unlink(*(self._chunk(token, i) for i in range(count))))
            stored = self._found(raw, said)
            if stored is not None:
                return stored
            expected = said

    def _upload(self, path: str, token: str) -> None:
        with open(path, "rb", buffering=0) as file:
            i = 0
            while chunk := file.read(CHUNK_BYTES):
                name = self._chunk(token, i)
                self._call(lambda name=name, chunk=chunk: self._client.set(name, chunk, ex=_UPLOAD_S))
                i += 1

    def _buffer(self, raw: bytes, tree: bytes) -> Stored:
        record = segments.sealed(segments.VALUE, raw, tree)
        with self._guard:
            if not self._pending:
                self._pending_since_s = time.monotonic()
            record = self._pending.setdefault(raw, record)
            self._pending_bytes += len(record)
            late = time.monotonic() - self._pending_since_s > FLUSH_S
            if len(self._pending) >= FLUSH_RECORDS or self._pending_bytes >= FLUSH_BYTES or late:
                self._write_pending()
        return opened(raw, record)  # type: ignore[return-value]

    def flush(self) -> None:
        """Send what was buffered: from now on it outlives this process, and others find it."""
        self._raw("00")
        with self._guard:
            self._write_pending()
            self._tell_used()

    def _write_pending(self) -> None:
        entries = [(raw, record, b"", len(record), "", 0) for raw, record in self._pending.items()]
        try:
            while entries:
                said = self._commit(entries)
                entries = [
                    (raw, record, there, *rest)
                    for (raw, record, _, *rest), there in zip(entries, said, strict=True)
                    if there and self._found(raw, there) is None  # damaged: once more, in its place
                ]
        except BaseException:
            self._near.spill({raw: segments.of_key(record, raw)[1] for raw, record in self._pending.items()})  # type: ignore[index]
            raise
        finally:
            self._pending.clear()
            self._pending_bytes = 0

    def _commit(self, entries: list[tuple[Any, ...]]) -> list[bytes]:
        """For each (raw key, record, expected, size, token, chunks) b"" when it was set; else what is there."""
        if not entries:
            return []
        keys = [*self._index, *(self._values + entry[0] for entry in entries)]
        args = [self._chunks, *(part for entry in entries for part in entry)]
        total, said = self._call(lambda: self._put(keys, args))
        if self._limit_bytes and int(total) > self._limit_bytes:
            self._shrink(int(self._limit_bytes * _ROOM_LEFT))
        return said  # type: ignore[no-any-return]

    # -- what is kept ----------------------------------------------------------------------------------------------
    def pin(self, key: Key) -> None:
        """Keep it from `evict`, here and on the server, while this object lives."""
        raw = self._raw(key)
        if raw not in self._own:
            self._own.add(raw)
            self._near.pin(key)
            self._tell_pins([raw])
            self._lease.start()

    def _tell_pins(self, raws: list[bytes]) -> bool:
        keys = [self._pins + self._token.encode(), self._holders]
        args = [int(self._lease_s * 1e6), self._token, *raws]
        return bool(self._call(lambda: self._pin(keys, args)))

    def _renew(self) -> None:
        """In the lease's thread. Without a connection nothing can be renewed; what lapsed is told again later."""
        own = list(self._own)
        with contextlib.suppress(MillraceError):
            if own and not self._tell_pins([]):
                for at in range(0, len(own), 1_000):
                    self._tell_pins(own[at : at + 1_000])

    def _use(self, raw: bytes) -> None:
        self._used.add(raw)
        if len(self._used) >= _TOUCH_MOST or time.monotonic() - self._used_since_s > _TOUCH_S:
            with self._guard:
                self._tell_used()

    def _tell_used(self) -> None:
        used, self._used, self._used_since_s = self._used, set(), time.monotonic()
        if used:
            with contextlib.suppress(server.NotAllowed):  # who may only read leaves no trace
                self._call(lambda: self._touch(self._index[:1], list(used)))

    def evict(self, limit_bytes: int) -> int:
        """Least recently used first until the store takes at most `limit_bytes`; the bytes freed. Pinned values stay,
        even when they alone are more."""
        self.flush()
        self._mend_index()
        return self._shrink(limit_bytes)

    def _shrink(self, limit_bytes: int) -> int:
        freed = passed = over = 0
        keys = [*self._index, self._holders]
        while not over:
            args = [limit_bytes, _EVICT_STEP, passed, self._values, self._chunks, self._pins]
            more, passed, over = self._call(lambda args=args: self._evict(keys, args))
            freed += more
        return freed

    def size_bytes(self) -> int:
        """Bytes of records and chunks; what the server itself needs for each key comes on top."""
        self.flush()
        self._mend_index()
        return int(self._call(lambda: self._client.get(self._index[2])) or 0)

    def keys(self, prefix: str = "") -> Iterator[Key]:
        """Keys that start so, in no order."""
        self.flush()
        self._mend_index()
        cursor, told = -1, set()
        while cursor:
            at = max(cursor, 0)
            cursor, found = self._call(lambda at=at: self._client.hscan(self._index[1], at, count=1_000))
            raws = [raw for raw in found if raw not in told and raw.hex().startswith(prefix)]
            told.update(raws)
            there = self._call(lambda raws=raws: self._all_exist(raws)) if raws else []
            yield from (raw.hex() for raw, exists in zip(raws, there, strict=True) if exists)

    def _all_exist(self, raws: list[bytes]) -> list[int]:
        with self._client.pipeline(transaction=False) as pipe:
            for raw in raws:
                pipe.exists(self._values + raw)
            return pipe.execute()  # type: ignore[no-any-return]

    def _mend_index(self) -> None:
        """A server that evicts may take the index: then it is made again by looking at every value."""

        def counts() -> list[int]:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.zcard(self._index[0]).hlen(self._index[1]).exists(self._index[2])
                return pipe.execute()  # type: ignore[no-any-return]

        used, about, total = self._call(counts)
        if used == about and (total or not about):
            return
        self._call(lambda: self._client.delete(*self._index))
        match = b"".join(b"\\" + bytes([c]) if c in b"[]{}*?\\" else bytes([c]) for c in self._values) + b"*"
        names = self._call(lambda: list(self._client.scan_iter(match, count=1_000)))
        for name in names:
            raw = name[len(self._values) :]
            record = self._record(raw)
            found = opened(raw, record) if record else None
            if found is None:
                continue
            token, _, count = found.name.partition(":") if type(found) is FarNote else ("", "", "0")
            size = len(record) + (found.note.size_bytes if type(found) is FarNote else 0)
            self._commit([(raw, record, record, size, token, int(count))])

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Send what was buffered and let the pins go. Values that were handed out stay readable. Idempotent."""
        if self._closed:
            return
        if self._pid != os.getpid():
            self._begin()
        self._lease.stop()
        try:
            self.flush()
            if self._own:
                self._call(self._let_go)
        finally:
            self._closed = True
            self._client.close()
            self._near.close()

    def _let_go(self) -> None:
        self._client.zrem(self._holders, self._token)
        self._client.unlink(self._pins + self._token.encode())

    # -- within ----------------------------------------------------------------------------------------------------
    def _raw(self, key: Key) -> bytes:
        """The key's bytes; what every public method begins with."""
        if self._closed:
            raise ValueError(f"the store {spoken(self.url)} was closed; open it again")
        if self._pid != os.getpid():
            self._begin()  # what the parent buffered and pinned is the parent's
        return raw_key(key)

    def _chunk(self, token: str, i: int) -> bytes:
        return self._chunks + f"{token}:{i}".encode()

    def _call(self, work: Callable[[], T]) -> T:
        return server.answered(self.url, self._patience_s, self._errors, work)
