"""Storable values as bytes, without pickle: exactly what went in comes out, or `NotStorable` says why not.

Storable are None, bool, int of any size, float and complex (nan, inf and -0.0 to the bit), str, bytes; lists, tuples
(which come back as tuples) and dicts of these, with scalars or tuples as dict keys; numpy scalars; numpy arrays of any dtype that
holds no Python objects; pyarrow Tables, RecordBatches, Arrays and ChunkedArrays; any nesting to DEPTH levels. What
comes back is equal and of the same type, so a cached run cannot differ from a first one. For the same reason a
subclass (a namedtuple, an enum, a masked array, an OrderedDict) is refused instead of flattened to its base.

A value is a *tree* and an *image*. The tree is MessagePack with the extension types below. Arrays and Arrow data of
more than INLINE_BYTES are not in it: they lie in the image, 64-byte aligned, and the tree says where; so a value whose
image is a mapped file costs no reading. The image of a bare array is a `.npy` file, that of a bare Arrow table an
Arrow IPC file, both whole and readable by anybody; other images start with CONTAINER_MAGIC, hold the buffers, then the
tree, and end with TRAILER, so they can be read without the store as well.

numpy and pyarrow are imported only when such a value is met. Does not touch files: see `images`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec

from millrace.run.errors import NotStorable
from millrace.stores import arrays, arrow

INLINE_BYTES = 8_192
"""Arrays and Arrow data up to this size are part of the tree."""
ALIGN_BYTES = 64
DEPTH = 100
CONTAINER_MAGIC = b"millrace container 1\n".ljust(ALIGN_BYTES, b"\0")
TRAILER = struct.Struct("<QQ16s")
"""Offset and length of the tree in a container, and TRAILER_MAGIC."""
TRAILER_MAGIC = b"millrace tree 1\n"

Buffer = Any
"""Something with the buffer protocol: bytes, a memoryview, a memory map."""
Layout = Literal["tree", "npy", "arrow", "container"]

TUPLE, BIG_INT, COMPLEX, ODD_TEXT, PAIRS = 1, 2, 3, 4, 5
SCALAR, ARRAY, ARRAY_AT, ARROW, ARROW_AT, NUMPY_TEXT, NUMPY_BYTES = 6, 7, 8, 9, 10, 11, 12

_FLAT = frozenset({type(None), bool, int, float, str, bytes})
_EXACT = frozenset({type(None), bool, float, bytes})
_pack = msgspec.msgpack.Encoder().encode


class Damaged(ValueError):
    """Bytes that are no value of this codec. Stores answer it with a miss."""


@dataclass(frozen=True, slots=True)
class Part:
    """One large buffer of an image: `size_bytes` at `offset`, written by `chunks()`."""

    offset: int
    size_bytes: int
    chunks: Callable[[], Iterator[memoryview]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as bytes. `image_bytes` is the size of its image, 0 when the tree is all (layout "tree")."""

    tree: bytes
    parts: tuple[Part, ...]
    layout: Layout
    image_bytes: int
    tree_offset: int = 0

    @property
    def size_bytes(self) -> int:
        return self.image_bytes or len(self.tree)

    def in_container(self) -> Encoded:
        """The same with its tree in an image (for a tree that is too large to be packed with others)."""
        if self.layout != "tree":
            return self
        offset = len(CONTAINER_MAGIC)
        return Encoded(self.tree, (), "container", offset + len(self.tree) + TRAILER.size, offset)

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        """The image front to back as (offset, bytes); gaps are zero bytes."""
        if self.layout == "container":
            yield 0, memoryview(CONTAINER_MAGIC)
        for part in self.parts:
            at = part.offset if self.layout != "npy" else 0
            for chunk in part.chunks():
                yield at, chunk
                at += len(chunk)
        if self.layout == "container":
            yield self.tree_offset, memoryview(self.tree)
            trailer = TRAILER.pack(self.tree_offset, len(self.tree), TRAILER_MAGIC)
            yield self.tree_offset + len(self.tree), memoryview(trailer)


def raw_key(key: str) -> bytes:
    """The bytes of a key; ValueError for what is none (a key of one run alone, "~...", must not reach a store)."""
    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raw = b""
    if raw.hex() != key or not 0 < len(raw) < 256:
        raise ValueError(f"{key!r} is no key of a store: keys are digests in lower-case hex")
    return raw


def encode(value: Any) -> Encoded:
    """The value as a tree and, when it holds large buffers, an image. `NotStorable` when it cannot be kept."""
    kind = type(value)
    if kind in _FLAT or (kind is list and _FLAT.issuperset(map(type, value))):  # the walk would find nothing to do
        try:
            return _treed(_pack(value))
        except (OverflowError, ValueError):
            pass  # an integer of more than 64 bits or text with lone surrogates: the exact walk knows them
    try:
        bare = _bare(value)
        if bare is not None:
            return bare
        try:
            return _walked(value, _FLAT)
        except (OverflowError, UnicodeEncodeError):
            return _walked(value, _EXACT)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as e:  # msgspec: more than 4 Gi bytes or items; pyarrow: data that breaks its own schema
        raise NotStorable(f"the value does not fit the format ({e}); split it or convert it") from e


def decode(tree: Buffer, image: Buffer = None) -> Any:
    """The value. Arrays are read-only; those from `image` share its memory. `Damaged` when this is no value."""
    try:
        if image is None:
            return _decode_alone(tree)
        return msgspec.msgpack.decode(tree, ext_hook=partial(_extension, image))
    except (
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        struct.error,
        RecursionError,
        NotImplementedError,
    ) as e:
        raise Damaged(f"no stored value: {type(e).__name__}: {e}") from e


def read_container(image: Buffer) -> Any:
    """The value of a whole container image (what a store does by its index, done from the file alone)."""
    view = memoryview(image)
    if len(view) < len(CONTAINER_MAGIC) + TRAILER.size or view[: len(CONTAINER_MAGIC)] != CONTAINER_MAGIC:
        raise Damaged("not a millrace container")
    offset, length, magic = TRAILER.unpack(view[-TRAILER.size :])
    if magic != TRAILER_MAGIC or offset + length + TRAILER.size != len(view):
        raise Damaged("a container without its end")
    return decode(bytes(view[offset : offset + length]), image)


# -- encoding ----------------------------------------------------------------------------------------------------
def _treed(tree: bytes) -> Encoded:
    return Encoded(tree, (), "tree", 0)


def _bare(value: Any) -> Encoded | None:
    """A large array or Arrow table by itself, in a form that others can read; None for everything else."""
    if arrays.is_array(value) and value.nbytes > INLINE_BYTES:
        described = arrays.describe(value)
        header = arrays.npy_header(described)
        part = Part(len(header), value.nbytes, partial(arrays.npy_chunks, header, value))
        tree = _pack(_array_at(described, part.offset))
        return Encoded(tree, (part,), "npy", part.offset + part.size_bytes)
    if arrow.is_table(value):
        size = arrow.ipc_bytes(value)
        if size > INLINE_BYTES:
            part = Part(0, size, partial(arrow.ipc_chunks, value))
            return Encoded(_pack(_ext(ARROW_AT, [arrow.kind_of(value), 0, size])), (part,), "arrow", size)
    return None


def _walked(value: Any, leaves: frozenset[type]) -> Encoded:
    walk = _Walk(leaves)
    tree = _pack(walk.plain(value, 0))
    if not walk.parts:
        return _treed(tree)
    return Encoded(tree, tuple(walk.parts), "container", walk.at + len(tree) + TRAILER.size, walk.at)


class _Walk:
    """One pass over a value: everything that MessagePack would change or refuse becomes an extension.

    `leaves`: the types that go as they are. The first walk takes ints and text for such, which holds for nearly all
    and lets a flat list of a million floats pass at the speed of C; the second looks at each.
    """

    def __init__(self, leaves: frozenset[type]) -> None:
        self.leaves = leaves
        self.parts: list[Part] = []
        self.at = len(CONTAINER_MAGIC)

    def plain(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in self.leaves:
            return value
        if depth > DEPTH:
            raise _too_deep()
        if kind is list:
            return self._items(value, depth)
        if kind is tuple:
            return _ext(TUPLE, self._items(value, depth))
        if kind is dict:
            return self._mapping(value, depth)
        return self._special(value, kind)

    def _items(self, items: Any, depth: int) -> list[Any]:
        if self.leaves.issuperset(map(type, items)):
            return list(items)
        return [self.plain(item, depth + 1) for item in items]

    def _mapping(self, value: dict[Any, Any], depth: int) -> Any:
        if not self.leaves.issuperset(map(type, value)):
            flat = [item for pair in value.items() for item in pair]
            return _ext(PAIRS, self._items(flat, depth))
        if self.leaves.issuperset(map(type, value.values())):
            return value
        return {k: self.plain(v, depth + 1) for k, v in value.items()}

    def _special(self, value: Any, kind: type) -> Any:
        if kind is int:
            if -(2**63) <= value < 2**64:
                return value
            return msgspec.msgpack.Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        if kind is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                return msgspec.msgpack.Ext(ODD_TEXT, value.encode("utf-8", "surrogatepass"))
            return value
        if kind is complex:
            return msgspec.msgpack.Ext(COMPLEX, struct.pack("<dd", value.real, value.imag))
        root = kind.__module__.partition(".")[0]
        if root == "numpy":
            return self._numpy(value)
        if root == "pyarrow" and arrow.is_arrow(value):
            return self._arrow(value)
        raise NotStorable(_advice(kind, root))

    def _numpy(self, value: Any) -> Any:
        if arrays.is_array(value):
            described = arrays.describe(value)
            if value.nbytes <= INLINE_BYTES:
                return _ext(ARRAY, [*_dtype_shape_order(described), value.tobytes("A")])
            return _array_at(described, self._part(value.nbytes, partial(arrays.chunks, value)))
        text = arrays.text_of(value)
        if text is not None:
            return _ext(NUMPY_BYTES if type(text) is bytes else NUMPY_TEXT, self.plain(text, 0))
        if arrays.is_scalar(value):
            return _ext(SCALAR, [_ready(arrays.descr(value.dtype)), value.tobytes()])
        raise NotStorable(_advice(type(value), "numpy"))

    def _arrow(self, value: Any) -> Any:
        kind, table = arrow.kind_of(value), arrow.as_table(value)
        size = arrow.ipc_bytes(table)
        if size <= INLINE_BYTES:
            return _ext(ARROW, [kind, b"".join(arrow.ipc_chunks(table))])
        return _ext(ARROW_AT, [kind, self._part(size, partial(arrow.ipc_chunks, table)), size])

    def _part(self, size_bytes: int, chunks: Callable[[], Iterator[memoryview]]) -> int:
        offset = self.at
        self.parts.append(Part(offset, size_bytes, chunks))
        self.at = -(-(offset + size_bytes) // ALIGN_BYTES) * ALIGN_BYTES
        return offset


def _ext(code: int, content: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _pack(content))


def _dtype_shape_order(described: arrays.Described) -> list[Any]:
    return [_ready(described.descr), list(described.shape), described.order]


def _array_at(described: arrays.Described, offset: int) -> msgspec.msgpack.Ext:
    return _ext(ARRAY_AT, [*_dtype_shape_order(described), offset])


def _ready(descr: Any) -> Any:
    """A dtype's description: text, or nested lists and tuples for one with fields."""
    return descr if type(descr) is str else _Walk(_FLAT).plain(descr, 0)


def _too_deep() -> NotStorable:
    return NotStorable(f"the value is nested more than {DEPTH} levels deep or holds itself")


def _advice(kind: type, root: str) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if root in ("pandas", "polars"):
        way = "pyarrow.Table.from_pandas(frame)" if root == "pandas" else "frame.to_arrow()"
        return f"a {name} is not stored as it is; convert it to Arrow first: {way}"
    if root == "numpy":
        return f"a {name} is not stored as it is; give a plain array: numpy.asarray(value)"
    return (
        f"a {name} cannot be stored without pickle; return numbers, text, bytes, lists, tuples and dicts of these, "
        "numpy arrays or Arrow tables"
    )


# -- decoding ----------------------------------------------------------------------------------------------------
def _extension(image: Buffer, code: int, data: memoryview) -> Any:
    if code == BIG_INT:
        return int.from_bytes(data, "little", signed=True)
    if code == COMPLEX:
        return complex(*struct.unpack("<dd", data))
    if code == ODD_TEXT:
        return str(data, "utf-8", "surrogatepass")
    content = msgspec.msgpack.decode(data, ext_hook=partial(_extension, image))
    if code == TUPLE:
        return tuple(_listed(content))
    if code == PAIRS:
        items = iter(_listed(content))
        return dict(zip(items, items, strict=True))
    if code == SCALAR:
        return arrays.scalar(*content)
    if code == ARRAY:
        descr, shape, order, data = content
        return arrays.view(descr, shape, order, data, 0)
    if code in (NUMPY_TEXT, NUMPY_BYTES):
        return arrays.numpy_text(content)
    if code == ARROW:
        kind, data = content
        return arrow.read(kind, data)
    if image is None:
        raise Damaged("a value without its image")
    if code == ARRAY_AT:
        descr, shape, order, offset = content
        return arrays.view(descr, shape, order, image, offset)
    if code == ARROW_AT:
        kind, offset, size = content
        return arrow.read(kind, memoryview(image)[offset : offset + size])
    raise Damaged(f"extension type {code} is not known")


def _listed(content: Any) -> list[Any]:
    if type(content) is not list:
        raise Damaged("a list was expected")
    return content


_decode_alone = msgspec.msgpack.Decoder(ext_hook=partial(_extension, None)).decode
