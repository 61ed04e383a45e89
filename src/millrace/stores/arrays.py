"""numpy arrays and scalars as bytes: what `codecs` asks when it meets one. numpy is imported only then.

A dtype is kept by its description, as in `.npy` files, and only when the description gives exactly the same dtype
back: objects, variable-width strings, overlapping fields and foreign dtypes (bfloat16) are refused.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.run.errors import NotStorable

if TYPE_CHECKING:
    import numpy

CHUNK_BYTES = 8 << 20
_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class Described:
    """What an array is but for its elements. `order`: "C", or "F" for one that is contiguous by columns only."""

    descr: Any
    shape: tuple[int, ...]
    order: str


def is_array(value: Any) -> bool:
    """A plain array or memory map. Other subclasses say more than their elements (a mask, a matrix product)."""
    np = sys.modules.get("numpy")
    return np is not None and (type(value) is np.ndarray or type(value) is np.memmap)


def is_scalar(value: Any) -> bool:
    np = sys.modules.get("numpy")
    return np is not None and isinstance(value, np.generic) and type(value) is value.dtype.type


def text_of(value: Any) -> str | bytes | None:
    """The text of a numpy string scalar (a fixed-width element would lose zeros at its end); None for others."""
    import numpy as np

    if type(value) is np.str_:
        return str(value)
    return bytes(value) if type(value) is np.bytes_ else None


def numpy_text(text: str | bytes) -> Any:
    import numpy as np

    return np.str_(text) if type(text) is str else np.bytes_(text)


def describe(array: numpy.ndarray[Any, Any]) -> Described:
    """Description of the array; `NotStorable` when its dtype cannot be told by one."""
    flags = array.flags
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    return Described(descr(array.dtype), array.shape, order)


def descr(dtype: numpy.dtype[Any]) -> Any:
    """Text, or lists and tuples for a dtype with fields."""
    import numpy as np

    if dtype.hasobject:
        raise NotStorable(
            f"an array of dtype {dtype} holds Python objects; give it a fixed type (astype), or use an Arrow array for "
            "text of any length"
        )
    try:
        told = dtype.str if dtype.names is None else np.lib.format.dtype_to_descr(dtype)
        same = _dtype(told) == dtype
    except (ValueError, TypeError):
        same = False
    if not same:
        raise NotStorable(f"the dtype {dtype} has no description that gives it back; convert the array with astype")
    return told


def _dtype(told: Any) -> numpy.dtype[Any]:
    import numpy as np

    dtype = np.dtype(told) if type(told) is str else np.lib.format.descr_to_dtype(told)
    if dtype.hasobject:
        raise ValueError("arrays of objects are never read")
    return dtype


def scalar(told: Any, data: bytes) -> Any:
    import numpy as np

    return np.ndarray((1,), _dtype(told), buffer=data)[0]


def view(told: Any, shape: list[int], order: Any, buffer: Any, offset: int) -> numpy.ndarray[Any, Any]:
    """The array over `buffer`, read-only. ValueError or TypeError when the buffer is too small for it."""
    import numpy as np

    dtype = _dtype(told)
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes == 0 or min(shape, default=1) < 0:
        empty = np.zeros(tuple(shape), dtype, order=order)
        empty.flags.writeable = False
        return empty
    # By way of `frombuffer`: an array made over a read-only memoryview of writable memory can be made writable again.
    flat = np.frombuffer(buffer, np.uint8, size_bytes, offset).view(dtype)
    return flat.reshape(tuple(shape), order=order)


def chunks(array: numpy.ndarray[Any, Any]) -> Iterator[memoryview]:
    """The elements in the order of `describe`, as read-only pieces; a contiguous array is not copied."""
    import numpy as np

    if array.nbytes == 0:
        return
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous:
        flat = array.reshape(-1, order="C" if flags.c_contiguous else "F")
        yield flat.view(np.uint8).data.toreadonly()
        return
    count = max(1, CHUNK_BYTES // array.itemsize)
    pieces = np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], ["readonly"], buffersize=count, order="C")
    for piece in pieces:
        yield memoryview(np.asarray(piece).tobytes())


def npy_header(described: Described) -> bytes:
    """The head of a `.npy` file, 64-byte aligned as numpy writes it (numpy's own writer warns about version 3)."""
    fortran = described.order == "F"
    text = f"{{'descr': {described.descr!r}, 'fortran_order': {fortran}, 'shape': {described.shape!r}, }}"
    body, version = text.encode("utf-8"), 3
    if text.isascii() and len(body) < 65_000:
        version = 1
    fixed = len(_NPY_MAGIC) + 2 + (2 if version == 1 else 4)
    total = -(-(fixed + len(body) + 1) // 64) * 64
    length = (total - fixed).to_bytes(2 if version == 1 else 4, "little")
    return _NPY_MAGIC + bytes((version, 0)) + length + body.ljust(total - fixed - 1) + b"\n"


def npy_chunks(header: bytes, array: numpy.ndarray[Any, Any]) -> Iterator[memoryview]:
    """A whole `.npy` file."""
    yield memoryview(header)
    yield from chunks(array)
