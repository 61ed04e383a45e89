"""Make a store in object storage smaller: what was not used for longest goes first, what is pinned stays.

A note goes before its object, so that a kill between the two leaves nothing that can be found and not read. Ages are
told by the storage's own clock; uses by the clocks of those who used (minutes apart do no harm). Objects that no note
names are left of killed writers, and are removed when they are older than an upload takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from millrace.stores.nearby import FarNote, opened
from millrace.stores.objects import DRAFT, Listed, Objects
from millrace.stores.packs import FOLDER as PACKS
from millrace.stores.packs import GONE, Packs

ABANDONED_S = 6 * 3_600.0
_NOTES, _OBJECTS, _PINS, _USES = "v1/notes/", "v1/objects/", "v1/pins/", "v1/uses/"
_encode = msgspec.msgpack.Encoder().encode
_pins = msgspec.msgpack.Decoder(list[bytes]).decode
_uses = msgspec.msgpack.Decoder(dict[bytes, float]).decode


def pins_of(raws: list[bytes]) -> bytes:
    return _encode(raws)


def uses_of(uses: dict[bytes, float]) -> bytes:
    return _encode(uses)


@dataclass(frozen=True, slots=True)
class Unit:
    """What goes at once: a large value (`key`, its note and object) or a pack."""

    last_use_s: float
    size_bytes: int
    key: str = ""
    names: tuple[str, ...] = ()
    pack: int = -1


def size_bytes(listed: Mapping[str, Listed]) -> int:
    return sum(one.size_bytes for name, one in listed.items() if _counts(name, one))


def _counts(name: str, one: Listed) -> bool:
    if name.startswith(PACKS):
        return one.size_bytes > len(GONE)
    return name.startswith((_NOTES, _OBJECTS))


def evict(objects: Objects, packs: Packs, lease_s: float, limit_bytes: int) -> set[str]:
    """Bring the store to at most `limit_bytes`, if what is pinned allows it; the keys of large values that went."""
    uses, told = _all_uses(objects)
    mark = f"{_USES}merged-{len(told)}"
    objects.replace(mark, uses_of(uses))
    listed = objects.listed("v1")
    now_s = listed[mark].made_s if mark in listed else max((one.made_s for one in listed.values()), default=0.0)
    objects.delete(name for name in told if name != mark)
    pinned = _pinned(objects, listed, now_s - lease_s)
    larges, orphans = _larges(objects, listed, uses, now_s)
    objects.delete(orphans)
    total = size_bytes(listed) - sum(listed[name].size_bytes for name in orphans if _counts(name, listed[name]))
    units = sorted([*larges, *_packs_of(packs, listed, uses)], key=lambda unit: unit.last_use_s)
    gone: set[str] = set()
    moves: list[tuple[int, list[bytes]]] = []
    contents = packs.contents()
    for unit in units:
        if total <= limit_bytes:
            break
        if unit.pack >= 0:
            kept = [raw for raw in contents.get(unit.pack, {}) if raw in pinned]
            stays = sum(contents[unit.pack][raw][2] for raw in kept)
            if stays * 2 > unit.size_bytes:
                continue
            moves.append((unit.pack, kept))
            total -= unit.size_bytes - stays
        elif bytes.fromhex(unit.key) not in pinned:
            objects.delete(unit.names)
            gone.add(unit.key)
            total -= unit.size_bytes
    moved = [raw for _, kept in moves for raw in kept]
    if moved:
        packs.move(moved)
    for number, _ in moves:
        packs.drop(number)
    return gone


def _all_uses(objects: Objects) -> tuple[dict[bytes, float], list[str]]:
    """When each key was used last, of all that was told, and the objects that told it."""
    uses: dict[bytes, float] = {}
    told = list(objects.listed(_USES.rstrip("/")))
    for name in told:
        try:
            found = _uses(objects.read(name) or b"\x80")
        except msgspec.DecodeError:
            continue
        for raw, used_s in found.items():
            uses[raw] = max(used_s, uses.get(raw, 0.0))
    return uses, told


def _pinned(objects: Objects, listed: Mapping[str, Listed], since_s: float) -> set[bytes]:
    """Keys of leases that have not lapsed; those that have are removed."""
    pinned: set[bytes] = set()
    for name, one in listed.items():
        if not name.startswith(_PINS):
            continue
        if one.made_s < since_s:
            objects.delete([name])
            continue
        try:
            pinned.update(_pins(objects.read(name) or b"\x90"))
        except msgspec.DecodeError:
            continue
    return pinned


def _larges(
    objects: Objects, listed: Mapping[str, Listed], uses: Mapping[bytes, float], now_s: float
) -> tuple[list[Unit], list[str]]:
    """Large values, and objects that nothing leads to (drafts of a folder among them)."""
    by_key: dict[str, list[str]] = {}
    orphans = []
    for name in listed:
        if name.endswith(DRAFT):
            orphans.append(name)
        elif name.startswith(_OBJECTS):
            by_key.setdefault(name.rpartition("/")[2].partition("-")[0], []).append(name)
    units = []
    for name, one in listed.items():
        if not name.startswith(_NOTES) or name.endswith(DRAFT):
            continue
        key = name.rpartition("/")[2]
        own = by_key.pop(key, [])
        if len(own) > 1:  # of writers who were not the first
            record = objects.read(name)
            found = opened(bytes.fromhex(key), record) if record else None
            named = found.name if type(found) is FarNote else ""
            orphans += [other for other in own if other != named]
            own = [named] if named in own else []
        used_s = max(uses.get(bytes.fromhex(key), 0.0), *map(_made_s, own), 0.0)
        size = one.size_bytes + sum(listed[each].size_bytes for each in own)
        units.append(Unit(used_s, size, key, (name, *own)))
    orphans += [name for names in by_key.values() for name in names]
    return units, [name for name in orphans if now_s - listed[name].made_s > ABANDONED_S]


def _packs_of(packs: Packs, listed: Mapping[str, Listed], uses: Mapping[bytes, float]) -> list[Unit]:
    contents = packs.contents()
    units = []
    for number, one in packs.take_listed({n: one for n, one in listed.items() if n.startswith(PACKS)}).items():
        used_s = max((uses.get(raw, 0.0) for raw in contents.get(number, ())), default=0.0)
        units.append(Unit(max(used_s, one.made_s), one.size_bytes, pack=number))
    return units


def _made_s(name: str) -> float:
    """When an object was made, by its name: storage tells whole seconds only."""
    try:
        return int(name.rpartition("-")[2][:16], 16) / 1e9
    except ValueError:
        return 0.0
