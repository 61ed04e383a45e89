"""A store in object storage or a network folder (s3://, gs://, az://, file://, memory://), which several hosts share.

    <url>/v1/packs/0000000017                small values by the batch (see `packs`)
    <url>/v1/notes/3f/<key>                  of a large value: its object, size and SHA-256; made last, by the first only
    <url>/v1/objects/3f/<key>-<time>.npy     large values: .npy, .arrow, .mill, readable by anybody (see `codecs`)
    <url>/v1/uses/, <url>/v1/pins/           what was used when; what live runs need

A large value is fetched once by each host, compared with its SHA-256, kept in a directory store there and mapped (see
`nearby`). Requests are dear: misses are answered from what was there `renew_s` ago, small values are sent by the batch.
Whoever makes a note or a pack first has written the value that stays; a writer that is killed leaves an object that no
note names, which `evict` removes. Pins are leases, renewed by a thread while this object lives. Nothing is unpickled.

Who may read what: docs/stores.md. Values that were evicted may be found on hosts that have copied them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millrace.run.errors import MillraceError, WrongQuestion
from millrace.run.ports import Stored
from millrace.run.task import Key
from millrace.run.urls import spoken
from millrace.stores import remote_eviction as eviction
from millrace.stores import staging
from millrace.stores.codecs import Damaged, Encoded, decode, encode, raw_key
from millrace.stores.images import SUFFIXES
from millrace.stores.nearby import FarNote, Nearby, folder_of, is_small, opened
from millrace.stores.objects import Objects
from millrace.stores.outages import LEASE_S, PATIENCE_S, Lease
from millrace.stores.packs import Packs

RENEW_S = 0.5
FLUSH_RECORDS, FLUSH_BYTES, FLUSH_S = 1_000, 1 << 20, 1.0
_LIST_SHARE = 20
"""Lists of notes are asked for so seldom that they take a twentieth of the time."""
_USES_S, _PINS_S, _FEW_PINS = 60.0, 0.5, 100


class RemoteStore:
    """The store below `url`, of any scheme that fsspec knows. Credentials come from where its library looks for them.

    Copies of large values lie below `cache`, a directory on a disk of this host. Thread-safe; a forked child may go on
    with the object.
    """

    def __init__(
        self,
        url: str,
        cache: Path,
        *,
        lease_s: float = LEASE_S,
        patience_s: float = PATIENCE_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self.url = url
        self._lease_s, self._patience_s, self._renew_s = lease_s, patience_s, renew_s
        self._near = Nearby(folder_of(cache, url))
        self._closed = False
        self._begin()
        self._packs.identify()  # a bucket that is not there is said now, and not when the work is done

    def _begin(self) -> None:
        """What belongs to this process alone."""
        self._pid = os.getpid()
        self._guard = threading.RLock()
        self._objects = Objects(self.url, self._patience_s)
        self._packs = Packs(self._objects, self._near, self._renew_s)
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes, self._pending_since_s = 0, 0.0
        self._notes: set[str] = set()
        self._notes_s, self._notes_took_s = float("-inf"), 0.0
        self._uses: dict[bytes, float] = {}
        self._uses_told_s = time.monotonic()
        self._own: set[bytes] = set()
        self._pins_told_s = float("-inf")
        self._token = secrets.token_hex(8)
        self._lease = Lease(self._renew, self._lease_s / 3)

    # -- reading ---------------------------------------------------------------------------------------------------
    def get(self, key: Key) -> Stored | None:
        """The verified value: one that this host has, or else what is known to be there (see `renew_s`)."""
        raw = self._raw(key)
        tree = self._pending.get(raw)
        if tree is not None:
            return Stored(key, decode(tree), len(tree))
        stored = self._small(raw) or self._kept_here(raw) or self._large(raw)
        if stored is not None:
            self._uses[raw] = time.time()
        return stored

    def attach(self, key: Key) -> Any:
        """The value; a large one that this host has is only mapped. What is not known yet is asked for at once."""
        raw = self._raw(key)
        with contextlib.suppress(KeyError):
            return self._near.store.attach(key)
        stored = self.get(key) or self._large(raw, ask=True)
        if stored is None:
            raise KeyError(f"{key} is not in the store {spoken(self.url)} (any more): run again to compute it")
        return stored.value

    def _small(self, raw: bytes, renew_s: float | None = None) -> Stored | None:
        tree = self._packs.find(raw, renew_s)
        with contextlib.suppress(Damaged):
            return None if tree is None else Stored(raw.hex(), decode(tree), len(tree))
        return None

    def _kept_here(self, raw: bytes) -> Stored | None:
        """On this host: a large value's copy; or a small one that could not be sent, and is sent now."""
        stored = self._near.get(raw.hex())
        if stored is not None and is_small(encoded := encode(stored.value)):
            self._buffer(raw, encoded.tree)
        return stored

    def _large(self, raw: bytes, ask: bool = False) -> Stored | None:
        """By its note, if one is known to be there or is asked for; one that leads to no whole value is removed."""
        key = raw.hex()
        if not ask and not self._is_noted(key):
            return None
        record = self._objects.read(note_name(key))
        if record is None:
            return None
        found = opened(raw, record)
        stored = None
        if type(found) is FarNote and found.name.startswith("v1/objects/"):
            far = found
            stored = self._near.fetched(key, far, lambda path: self._objects.download(far.name, path))
        if stored is None:
            with contextlib.suppress(WrongQuestion):  # who may only read lets it lie
                self._objects.delete([note_name(key)])
        return stored

    def _is_noted(self, key: str) -> bool:
        if key in self._notes:
            return True
        wait_s = max(self._renew_s, _LIST_SHARE * self._notes_took_s) if self._renew_s else 0.0
        start = time.monotonic()
        if start - self._notes_s < wait_s:
            return False
        self._notes = {name.rpartition("/")[2] for name in self._objects.listed("v1/notes")}
        self._notes_s = time.monotonic()
        self._notes_took_s = self._notes_s - start
        return key in self._notes

    # -- writing ---------------------------------------------------------------------------------------------------
    def put(self, key: Key, value: Any) -> Stored:
        """Keep the value, unless a whole one is there; what is kept comes back. `NotStorable` for other values."""
        raw = self._raw(key)
        tree = self._pending.get(raw)
        if tree is not None:
            return Stored(key, decode(tree), len(tree))
        encoded = encode(value)
        if not is_small(encoded):
            return self._large(raw, ask=True) or self._send(raw, encoded)
        known = self._small(raw, RENEW_S)  # the last word is said when it is sent
        if known is None and key in self._notes:
            known = self._large(raw)
        return known or self._buffer(raw, encoded.tree)

    def _send(self, raw: bytes, encoded: Encoded) -> Stored:
        """A large value: its object first, then its note, unless somebody was faster."""
        key = raw.hex()
        suffix = SUFFIXES[encoded.in_container().layout]
        name = f"v1/objects/{key[:2]}/{key}-{time.time_ns():016x}{secrets.token_hex(4)}{suffix}"
        draft, far = self._near.stage(encoded, name)
        with staging.held(draft.path):
            try:
                self._objects.upload(draft.path, name)
                if self._objects.create(note_name(key), far.sealed(raw)):
                    return self._near.admit(key, draft, far)
                stored = self._large(raw, ask=True)
                if stored is not None:
                    self._objects.delete([name])
                    return stored
                self._objects.replace(note_name(key), far.sealed(raw))  # what was there led nowhere
            except MillraceError:
                self._near.admit(key, draft, far)  # finished work stays on this host
                raise
            return self._near.admit(key, draft, far)

    def _buffer(self, raw: bytes, tree: bytes) -> Stored:
        with self._guard:
            if not self._pending:
                self._pending_since_s = time.monotonic()
            tree = self._pending.setdefault(raw, tree)
            self._pending_bytes += len(tree)
            late = time.monotonic() - self._pending_since_s > FLUSH_S
            if len(self._pending) >= FLUSH_RECORDS or self._pending_bytes >= FLUSH_BYTES or late:
                self._write_pending()
        return Stored(raw.hex(), decode(tree), len(tree))

    def flush(self) -> None:
        """Send what was buffered: from now on it outlives this process, and others find it."""
        self._raw("00")
        with self._guard:
            self._write_pending()
            if self._uses and time.monotonic() - self._uses_told_s > _USES_S:
                self._tell_uses()

    def _write_pending(self) -> None:
        if not self._pending:
            return
        try:
            self._packs.append(self._pending)
        except MillraceError:
            self._near.spill(self._pending)
            raise
        finally:
            self._pending, self._pending_bytes = {}, 0

    # -- what is kept ----------------------------------------------------------------------------------------------
    def pin(self, key: Key) -> None:
        """Keep it from `evict`, here and there, while this object lives. Many pins are told together, within a second."""
        raw = self._raw(key)
        if raw in self._own:
            return
        self._own.add(raw)
        self._near.pin(key)
        if len(self._own) <= _FEW_PINS or time.monotonic() - self._pins_told_s > _PINS_S:
            self._tell_pins()
        self._lease.start()

    def _tell_pins(self) -> None:
        self._pins_told_s = time.monotonic()
        self._objects.replace(f"v1/pins/{self._token}", eviction.pins_of(list(self._own)))

    def _renew(self) -> None:
        """In the lease's thread. Without a connection nothing can be renewed; the next turn tells all of it again."""
        with contextlib.suppress(MillraceError):
            self._tell_pins()

    def _tell_uses(self) -> None:
        uses, self._uses, self._uses_told_s = self._uses, {}, time.monotonic()
        if uses:
            with contextlib.suppress(WrongQuestion):  # who may only read leaves no trace
                self._objects.replace(f"v1/uses/{secrets.token_hex(8)}", eviction.uses_of(uses))

    def evict(self, limit_bytes: int) -> int:
        """Least recently used first until the store takes at most `limit_bytes`; the bytes freed. Pinned values stay,
        even when they alone are more. Packs of small values go as one."""
        self.flush()
        with self._guard:
            self._tell_uses()
            if self._own:
                self._tell_pins()
            self._packs.catch_up()
            before = self.size_bytes()
            gone = eviction.evict(self._objects, self._packs, self._lease_s, limit_bytes)
            self._notes -= gone
            return before - self.size_bytes()

    def size_bytes(self) -> int:
        """Bytes of notes, objects and packs that hold something."""
        self.flush()
        return eviction.size_bytes(self._objects.listed("v1"))

    def keys(self, prefix: str = "") -> Iterator[Key]:
        """Keys that start so, in no order. Reads all packs that this host does not have."""
        self.flush()
        self._packs.catch_up()
        small = {raw.hex() for found in self._packs.contents().values() for raw in found}
        noted = {name.rpartition("/")[2] for name in self._objects.listed("v1/notes")}
        for key in small | noted:
            if key.startswith(prefix) and _is_key(key):
                yield key

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
            self._tell_uses()
            if self._own:
                self._objects.delete([f"v1/pins/{self._token}"])
        finally:
            self._closed = True
            self._near.close()

    def _raw(self, key: Key) -> bytes:
        """The key's bytes; what every public method begins with."""
        if self._closed:
            raise ValueError(f"the store {spoken(self.url)} was closed; open it again")
        if self._pid != os.getpid():
            self._begin()  # what the parent buffered and pinned is the parent's
        return raw_key(key)


def note_name(key: Key) -> str:
    return f"v1/notes/{key[:2]}/{key}"


def _is_key(key: str) -> bool:
    try:
        raw_key(key)
    except ValueError:
        return False
    return True
