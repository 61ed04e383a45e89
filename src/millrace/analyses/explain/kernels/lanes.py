"""Sixteen rows side by side: a numba value type of 16 float64, and the few operations that the tree kernels need.

A kernel that walks a tree once for 16 rows pays for the walk once. Written as loops over 16 array elements, numba's
compiler has to prove that arrays do not overlap before it uses vector instructions, and gave up (measured: 4 to 6
times slower). As a value of its own the vector is one LLVM register type, which becomes two, four or eight machine
registers by host.

Every operation is element by element and correctly rounded, and `fma` is one rounding on every host (never a
compiler's choice): the bits of a result do not depend on the processor's vector width. Arrays are indexed by the
first of 16 consecutive elements, without bounds checks. Masks are ints whose bit k speaks of lane k.

Does not know trees. Memory should come from `aligned`: loads that cross cache lines cost half of the speed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numpy.typing import NDArray

LANES = 16

_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_INT = ir.IntType(32)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="millrace_lanes")


lanes = _Lanes()
"""The numba type of 16 float64 side by side."""


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _DOUBLES)


def read_only(dtype: types.Type, dimensions: int = 1) -> types.Array:
    """The type of an array that a kernel only reads: memory maps, and views of arrays made so by `frozen`."""
    return types.Array(dtype, dimensions, "C", readonly=True)


def writable(dtype: types.Type, dimensions: int = 1) -> types.Array:
    """The type of an array that a kernel writes to."""
    return types.Array(dtype, dimensions, "C")


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only, C-contiguous view (or copy, when it is not contiguous) of an array or memory map."""
    view = np.ascontiguousarray(array).view(np.ndarray).view()
    view.flags.writeable = False
    return view


def aligned(*shape: int) -> NDArray[np.float64]:
    """float64 zeros that begin at a cache line."""
    size = int(np.prod(shape))
    room = np.zeros(size + 8)
    start = (-room.ctypes.data // 8) % 8
    return room[start : start + size].reshape(shape)


@njit(writable(types.float64)(types.intp), cache=True)
def aligned_zeros(size):  # type: ignore[no-untyped-def]
    """float64 zeros[size] that begin at a cache line, for compiled code."""
    room = np.zeros(size + 8)
    start = (-(room.ctypes.data >> 3)) & 7
    return room[start : start + size]


def _splat(builder: Any, item: Any, kind: Any = _DOUBLES) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, item, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, to: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_DOUBLES, [_DOUBLES] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f64"), [a, b, c])


def _bits_of(builder: Any, mask: Any) -> Any:
    return builder.bitcast(builder.trunc(mask, ir.IntType(LANES)), _BITS)


@intrinsic
def load(_context: Any, array: Any, index: Any) -> Any:
    """lanes: array[index : index + 16] of a float64 array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1], _DOUBLES)
        return builder.load(place, align=8)

    return lanes(array, types.intp), emit


@intrinsic
def store(_context: Any, array: Any, index: Any, item: Any) -> Any:
    """array[index : index + 16] = lanes, into a float64 array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1], _DOUBLES)
        builder.store(args[2], place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), emit


@intrinsic
def full(_context: Any, number: Any) -> Any:
    """lanes that all hold one number."""
    return lanes(types.float64), lambda context, builder, signature, args: _splat(builder, args[0])


@intrinsic
def fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding; each of the three is lanes or a number."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = [x if t == lanes else _splat(builder, x) for t, x in zip(signature.args, args, strict=True)]
        return _fma(builder, *parts)

    return lanes(*(x if x == lanes else types.float64 for x in (a, b, c))), emit


@intrinsic
def at_most(_context: Any, array: Any, index: Any, bound: Any) -> Any:
    """mask: array[index + k] <= bound; False where it is NaN."""
    return types.int64(array, types.intp, types.float64), _compare("fcmp_ordered")


@intrinsic
def not_above(_context: Any, array: Any, index: Any, bound: Any) -> Any:
    """mask: array[index + k] <= bound; True where it is NaN."""
    return types.int64(array, types.intp, types.float64), _compare("fcmp_unordered")


def _compare(how: str) -> Callable[..., Any]:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1], _DOUBLES)
        bits = getattr(builder, how)("<=", builder.load(place, align=8), _splat(builder, args[2]))
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), ir.IntType(64))

    return emit


@intrinsic
def ones(_context: Any, mask: Any) -> Any:
    """lanes: 1.0 where the mask has a bit, else 0.0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, zero = (ir.Constant(_DOUBLES, [number] * LANES) for number in (1.0, 0.0))
        return builder.select(_bits_of(builder, args[0]), one, zero)

    return lanes(types.int64), emit


@intrinsic
def sum_of(_context: Any, item: Any) -> Any:
    """float64: the sum of the lanes, halves first, in the same order on every host."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part, size = args[0], LANES
        while size > 1:
            size //= 2
            halves = (list(range(size)), list(range(size, 2 * size)))
            places = [ir.Constant(ir.VectorType(_INT, size), half) for half in halves]
            nothing = ir.Constant(ir.VectorType(ir.DoubleType(), 2 * size), ir.Undefined)
            low, high = (builder.shuffle_vector(part, nothing, place) for place in places)
            part = builder.fadd(low, high)
        return builder.extract_element(part, ir.Constant(_INT, 0))

    return types.float64(lanes), emit


@intrinsic
def mark(_context: Any, codes: Any, index: Any, bits: Any, word: Any) -> Any:
    """codes[index + k] |= bits wherever bit k of the 64-bit word is set, for 64 uint16 codes."""
    wide = ir.VectorType(ir.IntType(16), 64)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1], wide)
        here = builder.bitcast(args[3], ir.VectorType(ir.IntType(1), 64))
        nothing = ir.Constant(wide, ir.Undefined)
        first = builder.insert_element(nothing, args[2], ir.Constant(_INT, 0))
        spread = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT, 64), [0] * 64))
        added = builder.select(here, spread, ir.Constant(wide, [0] * 64))
        builder.store(builder.or_(builder.load(place, align=2), added), place, align=2)
        return context.get_dummy_value()

    return types.void(codes, types.intp, types.uint16, types.uint64), emit


@intrinsic
def strike(_context: Any, words: Any, index: Any, mask: Any, kept: Any) -> Any:
    """words[index + k] &= kept wherever bit k of the mask is not set, for 16 uint64 words."""
    wide = ir.VectorType(ir.IntType(64), LANES)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1], wide)
        here = builder.load(place, align=8)
        struck = builder.and_(here, _splat(builder, args[3], wide))
        builder.store(builder.select(_bits_of(builder, args[2]), here, struck), place, align=8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64, types.uint64), emit


@intrinsic
def first_bit(_context: Any, word: Any) -> Any:
    """int64: number of the lowest bit set in a 64-bit word; the word must not be 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


def _arithmetic(symbol: Any, instruction: str) -> None:
    """Let numba code write `a <symbol> b` for lanes and lanes, and for lanes and a number on either side."""

    @intrinsic
    def apply(_context: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            both = [x if t == lanes else _splat(builder, x) for t, x in zip(signature.args, args, strict=True)]
            return getattr(builder, instruction)(*both)

        return lanes(*(x if x == lanes else types.float64 for x in (a, b))), emit

    @overload(symbol)
    def choose(a, b):  # type: ignore[no-untyped-def]  # numba compares this signature with the lambda's
        if lanes in (a, b) and all(x == lanes or isinstance(x, types.Float) for x in (a, b)):
            return lambda a, b: apply(a, b)
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _instruction)
