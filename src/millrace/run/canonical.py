"""The one form in which a value enters a key: bytes that are equal exactly when the values are.

Pickle is no such form (its bytes differ between processes and versions). Every kind of value has a tag, every
length is written, mappings and sets are sorted by the bytes of their keys. `1`, `1.0` and `True` differ, and so do a
list and a tuple. What has no such form raises `Unkeyable`.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import pathlib
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from millrace.run.task import Ref

DIGEST_BYTES = 20
SIMPLE = frozenset({int, float, str, bytes, bool, type(None)})
BY_TEXT = (
    datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PurePath,
    complex, range, slice,
)  # fmt: skip

CODE = (
    type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.MethodWrapperType,
    types.WrapperDescriptorType, types.MethodDescriptorType, functools.partial,
)  # fmt: skip
DEEPEST = 60

_pack = msgspec.msgpack.Encoder().encode


class Unkeyable(TypeError):
    """A value whose identity cannot be written down: an open file, a live object."""


Digest = Callable[[Any], str]
"""How functions and classes are told apart; given by `code.CodeDigests`."""


def digest(*parts: bytes) -> str:
    """Hex digest of the parts, each with its length."""
    h = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for p in parts:
        h.update(b"%d:" % len(p))
        h.update(p)
    return h.hexdigest()


def canonical(value: Any, code: Digest | None = None) -> bytes:
    """The bytes of `value`. `code` digests functions and classes; without it they are Unkeyable."""
    out: list[bytes] = []
    _write(out, value, code, ())
    return b"".join(out)


def canonical_arguments(args: tuple[Any, ...], code: Digest) -> bytes:
    """The bytes of a task's arguments; plain numbers and strings, the usual case, take one call."""
    for a in args:
        if type(a) not in SIMPLE:
            return canonical(args, code)
    try:
        return b"s" + _pack(args)
    except (OverflowError, UnicodeEncodeError):  # more than 64 bits, or a lone surrogate
        return canonical(args, code)


def _write(out: list[bytes], v: Any, code: Digest | None, above: tuple[int, ...]) -> None:
    kind = type(v)
    if kind in SIMPLE:
        out.append(_simple(v))
    elif kind is list or kind is tuple or kind is dict or kind is set or kind is frozenset:
        if id(v) in above:
            raise Unkeyable("a container that holds itself")
        _write_container(out, v, code, (*above, id(v)))
    elif kind is Ref:
        out.append(b"r" + v.key.encode())
    elif isinstance(v, enum.Enum):
        out.append(b"e" + _pack((kind.__module__, kind.__qualname__, v.name)))
    elif isinstance(v, BY_TEXT):
        out.append(b"o" + _pack((kind.__qualname__, repr(v))))
    elif not _write_numeric(out, v):
        _write_object(out, v, code, (*above, id(v)))


def _simple(v: Any) -> bytes:
    try:
        return b"s" + _pack(v)
    except OverflowError:
        return b"i" + _pack(str(v))
    except UnicodeEncodeError:
        return b"u" + _pack(v.encode("utf-8", "surrogatepass"))


def _write_container(out: list[bytes], v: Any, code: Digest | None, above: tuple[int, ...]) -> None:
    if isinstance(v, list | tuple):
        out.append(b"%c%d:" % (b"l" if isinstance(v, list) else b"t", len(v)))
        for member in v:
            _write(out, member, code, above)
        return
    rows = []
    for key in v:
        row: list[bytes] = []
        _write(row, key, code, above)
        rows.append((b"".join(row), key))
    rows.sort(key=lambda r: r[0])
    out.append(b"%c%d:" % (b"d" if isinstance(v, dict) else b"h", len(v)))
    for encoded, key in rows:
        out.append(encoded)
        if isinstance(v, dict):
            _write(out, v[key], code, above)


def _write_numeric(out: list[bytes], v: Any) -> bool:
    """Arrays and tables, without importing their libraries: who has such a value has imported them."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(v, numpy.ndarray | numpy.generic):
        a = numpy.asarray(v)
        if a.dtype.hasobject:
            raise Unkeyable(f"an array of Python objects (dtype {a.dtype})")
        head = (type(v) is numpy.ndarray or isinstance(v, numpy.ndarray), str(a.dtype.descr), a.shape)
        out.append(b"a" + _pack(head) + _bytes_digest(numpy.ascontiguousarray(a).reshape(-1).view(numpy.uint8)))
        return True
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(v, torch.Tensor) and v.layout is torch.strided and not v.is_quantized:
        if v.device.type == "meta":
            raise Unkeyable("a tensor without values (of the device meta)")
        # Its pickle holds a storage whose bytes differ from one time to the next.
        values = v.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
        said = (type(v).__qualname__, str(v.dtype), tuple(v.shape), v.requires_grad)
        out.append(b"T" + _pack(said) + _bytes_digest(values))
        return True
    if hasattr(v, "__arrow_c_stream__"):
        import pyarrow as arrow

        table = arrow.table(v).replace_schema_metadata(None).combine_chunks()
        sink = _HashSink()
        with arrow.ipc.new_stream(arrow.PythonFile(sink, mode="w"), table.schema) as writer:
            writer.write_table(table)
        out.append(b"A" + sink.hash.digest())
        return True
    return False


class _HashSink:
    """A file that only remembers the digest of what was written."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _bytes_digest(data: Any) -> bytes:
    return hashlib.sha256(data).digest()  # twice as fast as blake2b on processors of today


def _write_object(out: list[bytes], v: Any, code: Digest | None, above: tuple[int, ...]) -> None:
    kind = type(v)
    name = _pack((kind.__module__, kind.__qualname__))
    if dataclasses.is_dataclass(v) and not isinstance(v, type):
        out.append(b"D" + name)
        members: Any = {f.name: getattr(v, f.name) for f in dataclasses.fields(v)}
        _write_container(out, members, code, above)
    elif hasattr(kind, "model_fields") and hasattr(v, "model_dump"):
        out.append(b"M" + name)
        _write_container(out, {f: getattr(v, f) for f in kind.model_fields}, code, above)
    elif isinstance(v, tuple) and hasattr(v, "_fields"):
        out.append(b"N" + name)
        _write_container(out, tuple(v), code, above)
    elif code is not None and isinstance(v, CODE):
        out.append(b"f" + code(v).encode())
    elif code is not None:
        _write_reduced(out, v, code, above)
    else:
        raise Unkeyable(f"a {kind.__module__}.{kind.__qualname__}")


def _write_reduced(out: list[bytes], v: Any, code: Digest, above: tuple[int, ...]) -> None:
    """An object by what its class says it is made from (`__reduce_ex__`), each part in canonical form: a fitted model
    by its parameters and arrays. A lock, a file or a socket says that it cannot, and is Unkeyable."""
    if len(above) > DEEPEST or id(v) in above[:-1]:
        raise Unkeyable(f"a {type(v).__module__}.{type(v).__qualname__} that holds itself")
    try:
        reduced = v.__reduce_ex__(2)
    except Exception as e:
        raise Unkeyable(f"a {type(v).__module__}.{type(v).__qualname__}") from e
    if isinstance(reduced, str):  # a global, by its name
        out.append(b"f" + code(v).encode())
        return
    maker, args, state, items, pairs = (*reduced, None, None, None)[:5]
    out.append(b"R" + code(maker).encode())
    parts = (args, state, list(items) if items is not None else None, dict(pairs) if pairs is not None else None)
    _write_container(out, parts, code, above)
