"""The tasks of explain: pure functions of a block of rows, which workers have preloaded.

A block is a fixed range of rows, cut by the question's shape. Everything large comes as a mapped, read-only argument.
Each block checks its own additivity, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy

from millrace.analyses.explain.kernels import coalitions, ensemble, linear, structure, trees
from millrace.analyses.explain.kernels.blackbox import Function

Block = tuple[int, int]
Arrays = Mapping[str, Any]


def pack(model: ensemble.Ensemble, shape: structure.Structure, cut: trees.Layout, expected: Any) -> Arrays:
    """A laid-out forest as a mapping of plain arrays, which a store keeps and workers map."""
    return {"ensemble": model.arrays(), "structure": shape.arrays(), "layout": cut.arrays(), "expected": expected}


def unpack(forest: Arrays) -> tuple[ensemble.Ensemble, structure.Structure, trees.Layout]:
    return (
        ensemble.Ensemble.from_arrays(forest["ensemble"]),
        structure.Structure.from_arrays(forest["structure"]),
        trees.Layout.from_arrays(forest["layout"]),
    )


def tree_tables(batch: int, forest: Arrays, background: Arrays) -> Arrays:
    """The pattern tables of one batch of trees."""
    return trees.build(*unpack(forest), batch, background["rows"], background["weights"])


def tree_rows(
    block: Block,
    rows: numpy.ndarray[Any, Any],
    forest: Arrays,
    output: int,
    precision: str,
    *tables: Arrays,
) -> Arrays:
    """Values of rows[block] by the tree method that `forest` was laid out for. `output`: one of them, or -1: all."""
    model, shape, cut = unpack(forest)
    part = numpy.ascontiguousarray(rows[slice(*block)])
    values = trees.explain_rows(model, shape, cut, tables, part, precision)
    raw = trees.raw_output(model, shape, part)
    return _answer(values, raw, forest["expected"], output)


def linear_rows(block: Block, rows: numpy.ndarray[Any, Any], model: Arrays, output: int, precision: str) -> Arrays:
    """Closed form: coefficient times distance from the background's mean."""
    part = numpy.ascontiguousarray(rows[slice(*block)], dtype=numpy.float64)
    function = linear.Linear.from_arrays(model)
    values = linear.explain_linear(function, part, model["mean"])
    return _answer(values.astype(precision, copy=False), function.raw(part), model["expected"], output)


def kernel_rows(
    block: Block,
    rows: numpy.ndarray[Any, Any],
    background: Arrays,
    design: Arrays,
    precision: str,
    function: Function,
) -> Arrays:
    """Estimates with standard errors (exact where the design holds every coalition)."""
    part = numpy.ascontiguousarray(rows[slice(*block)])
    plan = coalitions.Design.from_arrays(design)
    found = coalitions.explain_rows(function.call, part, background["rows"], background["weights"], plan)
    answer = dict(_answer(found.values.astype(precision, copy=False), found.prediction, found.base, -1))
    answer["errors"] = found.standard_errors.astype(precision, copy=False)
    answer["exact"] = bool(found.exact.all())
    return answer


def _answer(values: Any, raw: Any, expected: Any, output: int) -> Arrays:
    values, raw, expected = _pick(values, output), _pick(raw, output), _pick(numpy.asarray(expected), output)
    gap = numpy.abs(values.sum(axis=1, dtype=numpy.float64) + expected - raw)
    return {"values": values, "predictions": raw, "gap": gap.max(axis=1), "expected": expected}


def _pick(array: Any, output: int) -> Any:
    """One output of the last axis, kept as an axis of length one."""
    return array if output < 0 else array[..., output : output + 1]
