"""Make a directory store smaller: what was not used for longest goes first, what is pinned stays.

Units are large files and whole segments of small values (pinned values of such a segment move to a new one). Segments
that are mostly dead are written anew. Runs under the store's lock. The order of the steps keeps the store right when
the process is killed between any two: an index entry whose segment or file is gone is a miss, a file that no entry
names is taken away by the next eviction. Space is freed before anything new is written, so it works on a full disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from millrace.stores import index as tables
from millrace.stores import segments
from millrace.stores.codecs import Damaged
from millrace.stores.index import Index, tag_of
from millrace.stores.layout import FileNote, Home
from millrace.stores.segments import Place


@dataclass(frozen=True, slots=True)
class Large:
    """A large value: its record at `place`, its file."""

    raw_key: bytes
    place: Place
    record_bytes: int
    path: str
    size_bytes: int
    last_use_ns: int


@dataclass(slots=True)
class Segment:
    path: Path
    size_bytes: int
    last_use_ns: int
    live_bytes: int = 0
    live_count: int = 0
    pinned: list[Place] = field(default_factory=list)
    """Places of pinned values (segments of values only)."""


@dataclass(slots=True)
class Survey:
    """What there is."""

    segments: dict[int, Segment]
    larges: list[Large]
    orphans: list[str]
    count: int

    def total_bytes(self) -> int:
        return sum(s.size_bytes for s in self.segments.values()) + sum(x.size_bytes for x in self.larges)


def size_bytes(home: Home, index: Index | None) -> int:
    """Bytes of segments and large files, and of the index beyond that of an empty store."""
    total = 0
    segment_paths = (f"{home.segments}/{name}" for name in os.listdir(home.segments))
    for path in itertools.chain(segment_paths, home.object_paths()):
        with contextlib.suppress(FileNotFoundError):  # another process evicts
            total += os.stat(path).st_size
    return total + (index.extra_bytes() if index is not None else 0)


def evict(home: Home, index: Index, pinned: set[bytes], limit_bytes: int) -> None:
    """Bring the store to at most `limit_bytes`, if what is pinned allows it."""
    survey = _survey(home, index, pinned)
    for path in survey.orphans:
        _unlink(path)
    if survey.total_bytes() + index.extra_bytes() <= limit_bytes:
        return
    gone, larges = _chosen(survey, pinned, limit_bytes)
    for large in larges:
        _unlink(large.path)
    dead = {large.place for large in larges}
    rewritten = set()
    for number, segment in survey.segments.items():
        if number in gone and not segment.pinned:
            _unlink(segment.path)
        elif number in gone or _is_wasteful(number, segment):
            rewritten.add(number)
    places = _rewrite(home, index, survey, gone, rewritten, dead)
    lost = gone | rewritten

    def slots() -> Iterator[tuple[bytes, Place]]:
        for tag, place in index.slots():
            if (
                segments.segment_of(place) in survey.segments
                and segments.segment_of(place) not in lost
                and place not in dead
            ):
                yield tag, place
        yield from places

    tables.write_table(home.index, slots)
    for number in rewritten:
        _unlink(survey.segments[number].path)


def _survey(home: Home, index: Index, pinned: set[bytes]) -> Survey:
    found: dict[int, Segment] = {}
    for name in os.listdir(home.segments):
        number = segments.number_of(name)
        if number is not None:
            path = home.segments / name
            status = os.stat(path)
            found[number] = Segment(path, status.st_size, segments.last_use_ns(status))
    places: set[Place] = set()
    count = 0
    for _, place in index.slots():
        segment = found.get(segments.segment_of(place))
        if segment is None:
            continue
        count += 1
        segment.live_bytes += segments.length_of(place)
        segment.live_count += 1
        if segments.segment_of(place) & 1:
            places.add(place)
    for raw in pinned:
        for place in index.find(raw):
            number = segments.segment_of(place)
            if not number & 1 and number in found:
                found[number].pinned.append(place)
    larges = [x for number in found if number & 1 for x in _larges(home, number, found[number], places)]
    named = {x.path for x in larges}
    return Survey(found, larges, [p for p in home.object_paths() if p not in named], count)


def _larges(home: Home, number: int, segment: Segment, places: set[Place]) -> Iterator[Large]:
    """The large values whose live records are in this segment; records without a file are counted out."""
    for offset, length, record in segments.scan(segment.path):
        place = segments.place(number, offset, length)
        if place not in places:
            continue
        try:
            note = FileNote.of(record.kind, record.payload)
            path = home.object_path(record.raw_key, note)
            status = os.stat(path)
        except (Damaged, FileNotFoundError):
            segment.live_bytes -= length
            continue
        yield Large(record.raw_key, place, length, path, status.st_size, segments.last_use_ns(status))


def _is_wasteful(number: int, segment: Segment) -> bool:
    """More dead than alive. Records of large values are few and small: those segments are always written anew."""
    return bool(number & 1) or segment.live_bytes * 2 < segment.size_bytes


def _chosen(survey: Survey, pinned: set[bytes], limit_bytes: int) -> tuple[set[int], list[Large]]:
    """Segments of values and large files to go, least recently used first, until the rest is small enough."""
    total, count = 0, survey.count
    units: list[tuple[int, int, int, int | Large]] = []
    for number, segment in survey.segments.items():
        stays = segment.live_bytes if _is_wasteful(number, segment) else segment.size_bytes
        total += stays
        if not number & 1:
            kept = sum(map(segments.length_of, segment.pinned))
            if stays > kept:
                units.append((segment.last_use_ns, stays - kept, segment.live_count - len(segment.pinned), number))
    for large in survey.larges:
        total += large.size_bytes
        if large.raw_key not in pinned:
            units.append((large.last_use_ns, large.size_bytes + large.record_bytes, 1, large))
    units.sort(key=lambda unit: unit[0])
    gone: set[int] = set()
    larges: list[Large] = []
    for _, frees, fewer, unit in units:
        if total + tables.extra_bytes(count) <= limit_bytes:
            break
        total -= frees
        count -= fewer
        if isinstance(unit, Large):
            larges.append(unit)
        else:
            gone.add(unit)
    return gone, larges


def _rewrite(
    home: Home, index: Index, survey: Survey, gone: set[int], rewritten: set[int], dead: set[Place]
) -> list[tuple[bytes, Place]]:
    """Copy what survives of `rewritten` into new segments; the new slots of these records."""
    live: dict[int, set[Place]] = defaultdict(set)
    for _, place in index.slots():
        if segments.segment_of(place) in rewritten and place not in dead:
            live[segments.segment_of(place)].add(place)
    named = {large.place for large in survey.larges}
    for number in rewritten:
        if number in gone:
            live[number] &= set(survey.segments[number].pinned)
        elif number & 1:
            live[number] &= named
    places: list[tuple[bytes, Place]] = []
    for kind in (segments.VALUE, segments.FILE):
        old = [n for n in rewritten if (n & 1) == (kind == segments.FILE)]
        places += _copy(home, kind, sorted(old, key=lambda n: survey.segments[n].last_use_ns), survey, live)
    return places


def _copy(
    home: Home, kind: int, old: Iterable[int], survey: Survey, live: dict[int, set[Place]]
) -> Iterator[tuple[bytes, Place]]:
    batch: list[tuple[bytes, bytes]] = []
    size = last_use = 0
    for number in old:
        segment = survey.segments[number]
        for offset, length, record in segments.scan(segment.path):
            if segments.place(number, offset, length) not in live[number]:
                continue
            if size >= segments.SEGMENT_BYTES:
                yield from _write(home, kind, batch, last_use)
                batch, size, last_use = [], 0, 0
            data = segments.sealed(record.kind, record.raw_key, record.payload)
            batch.append((record.raw_key, data))
            size += len(data)
            last_use = max(last_use, segment.last_use_ns)
    if batch:
        yield from _write(home, kind, batch, last_use)


def _write(home: Home, kind: int, batch: list[tuple[bytes, bytes]], last_use_ns: int) -> Iterator[tuple[bytes, Place]]:
    number = segments.fresh_number(kind)
    path = home.segments / segments.path_name(number)
    with open(path, "xb") as file:
        file.write(b"".join(data for _, data in batch))
    os.utime(path, ns=(last_use_ns, last_use_ns))
    at = 0
    for raw, data in batch:
        yield tag_of(raw), segments.place(number, at, len(data))
        at += len(data)


def _unlink(path: str | Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
