"""The tasks of explain: pure functions of a block of rows, which workers have preloaded.

A block is a fixed range of rows, cut by the question's shape. Everything large comes as a mapped, read-only argument.
Each block checks its own additivity, row by row. The kernels that only some questions need are loaded when they are asked
for: what is compiled on first use should be little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.explain.kernels import ensemble, structure, trees

if TYPE_CHECKING:
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


def tree_interactions(
    block: Block,
    rows: numpy.ndarray[Any, Any],
    forest: Arrays,
    background: Arrays | None,
    output: int,
    precision: str,
) -> Arrays:
    """Interaction values of rows[block] by pair. background: None for path-dependent values."""
    from millrace.analyses.explain.kernels import interactions

    model, shape, _ = unpack(forest)
    part = numpy.ascontiguousarray(rows[slice(*block)])
    known, weights = (None, None) if background is None else (background["rows"], background["weights"])
    return {"pairs": _pick(interactions.interaction_rows(model, shape, part, known, weights, precision), output)}


def linear_rows(block: Block, rows: numpy.ndarray[Any, Any], model: Arrays, output: int, precision: str) -> Arrays:
    """Closed form: coefficient times distance from the background's mean."""
    from millrace.analyses.explain.kernels import linear

    part = numpy.ascontiguousarray(rows[slice(*block)], dtype=numpy.float64)
    function = linear.Linear.from_arrays(model)
    values = linear.explain_linear(function, part, model["mean"], model["player_of"], int(model["players"]))
    return _answer(values.astype(precision, copy=False), function.raw(part), model["expected"], output)


def kernel_rows(
    block: Block,
    rows: numpy.ndarray[Any, Any],
    background: Arrays,
    player_of: numpy.ndarray[Any, Any],
    precision: str,
    tolerance: float,
    *designs: Arrays,
    function: Function,
) -> Arrays:
    """Estimates with standard errors (exact where the design holds every coalition).

    Each design is a round of its own coalitions: rows whose standard errors are not all below `tolerance` go on to the
    next, and their estimates are the mean of all rounds. 0: the first round alone.
    """
    return estimated(block, rows, background, player_of, precision, tolerance, designs, function.call, None)


def estimated(
    block: Block,
    rows: numpy.ndarray[Any, Any],
    background: Arrays,
    player_of: numpy.ndarray[Any, Any],
    precision: str,
    tolerance: float,
    designs: Sequence[Arrays],
    call: Any,
    game_of: Any,
) -> Arrays:
    """`kernel_rows` of a function or of a game (see `coalitions.explain_rows`)."""
    from millrace.analyses.explain.kernels import coalitions

    part = numpy.ascontiguousarray(rows[slice(*block)])
    known = (background["rows"], background["weights"])
    plan = coalitions.Design.from_arrays(designs[0])
    first = coalitions.explain_rows(call, part, *known, plan, player_of, game_of)
    values, errors = first.values.copy(), first.standard_errors.copy()
    for done, design in enumerate(designs[1:], 1):
        left = numpy.flatnonzero(errors.max(axis=(1, 2)) > tolerance)
        if not len(left):
            break
        plan = coalitions.Design.from_arrays(design)
        more = coalitions.explain_rows(call, part[left], *known, plan, player_of, game_of)
        values[left] += (more.values - values[left]) / (done + 1)
        errors[left] = numpy.sqrt((errors[left] * done) ** 2 + more.standard_errors**2) / (done + 1)
    whole = _answer(values.astype(precision, copy=False), first.prediction, first.base, -1)
    return {**whole, "errors": errors.astype(precision, copy=False), "exact": bool(first.exact.all())}


def gradient_rows(
    block: Block,
    rows: numpy.ndarray[Any, Any],
    background: Arrays,
    player_of: numpy.ndarray[Any, Any],
    players: int,
    precision: str,
    tolerance: float,
    function: Function,
) -> Arrays:
    """Expected gradients of a PyTorch module; as standard errors, how far doubling the points on each line moved them."""
    from millrace.analyses.explain.kernels import modules

    part = numpy.ascontiguousarray(rows[slice(*block)])
    known = (background["rows"], background["weights"])
    found = modules.explain_rows(function, part, *known, player_of, players, tolerance)
    whole = _answer(found.values.astype(precision, copy=False), found.prediction, found.base, -1)
    return {**whole, "errors": found.errors.astype(precision, copy=False), "exact": False}


def _answer(values: Any, raw: Any, expected: Any, output: int) -> Arrays:
    values, raw, expected = _pick(values, output), _pick(raw, output), _pick(numpy.asarray(expected), output)
    gap = numpy.abs(values.sum(axis=1, dtype=numpy.float64) + expected - raw)
    return {"values": values, "predictions": raw, "gap": gap.max(axis=1), "expected": expected}


def _pick(array: Any, output: int) -> Any:
    """One output of the last axis, kept as an axis of length one."""
    return array if output < 0 else array[..., output : output + 1]
