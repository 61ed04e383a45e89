"""Values between the judge and a jailed child, as JSON text: what a hostile child sends can be wrong, and nothing worse.

    answer / compare   a result as JSON sees it: tuples, lists and arrays are sequences alike
    pack / unpack      with its types (tuple, set, bytes, complex, ...), for checks that compare with `==`

No pickle and no marshal ever comes back from a child. Imports the standard library only: the zygote stays small.
"""

from __future__ import annotations

import base64
import json
from typing import Any

TAG = "~"
"""The key of a mapping with one member that stands for a value which JSON does not know."""
SEPARATORS = (",", ":")
MOST_OF_RANGE = 10_000_000


def text_of(value: Any) -> str:
    """Canonical text of plain data: what expected outputs and results are compared by first."""
    return json.dumps(value, separators=SEPARATORS)


def answer(value: Any) -> str:
    """A program's result as JSON sees it; TypeError when it is no plain data."""
    return json.dumps(value, separators=SEPARATORS, default=_untyped)


def _untyped(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    told = getattr(value, "tolist", None)  # NumPy's arrays and scalars
    if told is not None:
        return told()
    raise TypeError(f"a {type(value).__name__} is no plain data")


def equal(told: str, expected: str) -> bool:
    """Whether a child's text says what was expected: the same text, or equal values (1 and 1.0 and true, as Python has it)."""
    if told == expected:
        return True
    try:
        return bool(json.loads(told) == json.loads(expected))
    except (ValueError, RecursionError):  # not JSON, or nested beyond reason: in any case not what was expected
        return False


def pack(value: Any) -> str:
    """Plain data with its types; TypeError for anything else."""
    return json.dumps(_packed(value), separators=SEPARATORS)


def unpack(text: str) -> Any:
    """Back from `pack`; ValueError when it is not its output."""
    return json.loads(text, object_hook=_unpacked)


def is_packed(text: str) -> bool:
    """Whether `unpack` gives a value: what a child says may be anything."""
    try:
        unpack(text)
    except (ValueError, RecursionError):
        return False
    return True


def _packed(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_packed(v) for v in value]
    if kind is tuple:
        return {TAG: ["tuple", [_packed(v) for v in value]]}
    if kind in (set, frozenset):
        return {TAG: [kind.__name__, sorted((_packed(v) for v in value), key=repr)]}
    if kind is dict:
        if TAG not in value and all(type(k) is str for k in value):
            return {k: _packed(v) for k, v in value.items()}
        return {TAG: ["dict", [[_packed(k), _packed(v)] for k, v in value.items()]]}
    if kind in (bytes, bytearray):
        return {TAG: [kind.__name__, base64.b64encode(value).decode()]}
    if kind is complex:
        return {TAG: ["complex", [value.real, value.imag]]}
    if kind is range:
        return {TAG: ["range", [_small(value.start), _small(value.stop), _small(value.step)]]}
    told = getattr(value, "tolist", None)
    if told is not None:
        return _packed(told())
    raise TypeError(f"a {kind.__name__} is no plain data")


_MAKERS: dict[str, Any] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*map(_small, parts)),
}


def _small(number: int) -> int:
    """A range is told by three numbers, and may be longer than time lasts."""
    if abs(number) > MOST_OF_RANGE:
        raise ValueError(f"a range that reaches to {number}")
    return number


def _unpacked(found: dict[str, Any]) -> Any:
    if len(found) != 1 or TAG not in found:
        return found
    try:
        kind, content = found[TAG]
        return _MAKERS[kind](content)
    except (KeyError, TypeError, OverflowError) as e:
        raise ValueError(f"not packed by millrace: {e}") from None
