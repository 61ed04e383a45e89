"""A pipeline whose steps map columns one to one: the last step, explained in the input's columns.

Scalers, imputers, encoders and column transformers change columns one by one, and then a value of the last step's
column is the value of the input's. What counts is what the steps do: each column of the input is changed on some rows
of the data, and which columns come out changed is looked at; then mixtures of the data's rows (and the background's)
must come out as mixtures, which is all that values ask. Where a step mixes columns (a principal component, a
row's norm, a nearest-neighbour imputer), makes several out of one, or cannot be asked, the answer is None, and the
whole pipeline is explained as a function of its columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble
from millrace.analyses.explain.kernels.libraries import column_names
from millrace.analyses.explain.kernels.linear import Linear

_BASE_ROWS = 8
_CALL_BYTES = 16 << 20
_MIXTURES, _SEED = 512, 20_240_301


@dataclass(frozen=True, slots=True)
class Opened:
    """last: the last step. source: int64, the input's column of each column that the last step gets. rows,
    background: what it gets."""

    last: Any
    source: NDArray[np.int64]
    rows: NDArray[Any]
    background: NDArray[Any] | None


def open_pipeline(
    model: Any, names: tuple[str, ...], rows: NDArray[Any], background: NDArray[Any] | None
) -> Opened | None:
    """The pipeline's last step and what comes to it, None when the model is no pipeline or mixes columns."""
    steps = getattr(model, "steps", None)
    if not isinstance(steps, list) or len(steps) < 2 or not all(isinstance(s, tuple) and len(s) == 2 for s in steps):
        return None
    head = [step for _, step in steps[:-1] if step is not None and not isinstance(step, str)]
    if not all(callable(getattr(step, "transform", None)) for step in head):
        return None

    frame_names = names if column_names(model) is not None else None

    def given(block: NDArray[Any]) -> Any:
        if frame_names is None:
            return block
        import pandas

        return pandas.DataFrame(block, columns=list(frame_names))

    def through(block: NDArray[Any]) -> NDArray[Any]:
        table = given(block)
        for step in head:
            table = step.transform(table)
        table = table.toarray() if hasattr(table, "toarray") else table
        return np.ascontiguousarray(table)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*feature names.*")
        try:
            source = _source(through, rows if background is None else np.concatenate([rows, background]))
            if source is None:
                return None
            found = Opened(steps[-1][1], source, through(rows), None if background is None else through(background))
            return found if _holds(through, found, rows, background) else None
        except (TypeError, ValueError, AttributeError, KeyError):  # a step that does not take these rows by itself
            return None


def _source(through: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[Any]) -> NDArray[np.int64] | None:
    """The input's column of every column that comes out; None when it is not one each, or cannot be told."""
    missing = np.flatnonzero(np.isnan(rows).any(axis=1))[: _BASE_ROWS // 2]
    spread = np.linspace(0, len(rows) - 1, _BASE_ROWS).astype(np.int64)
    base = rows[np.concatenate([missing, spread])[:_BASE_ROWS]]
    plain = through(base)
    if plain.ndim != 2 or plain.dtype.kind not in "fiub" or len(plain) != len(base):
        return None
    columns, count = rows.shape[1], len(base)
    moved = np.zeros((columns, plain.shape[1]), bool)
    at_once = max(1, _CALL_BYTES // (base.nbytes or 1))
    for first in range(0, columns, at_once):
        some = range(first, min(columns, first + at_once))
        changed = np.tile(base, (len(some), 1))
        for k, j in enumerate(some):
            changed[k * count : (k + 1) * count, j] = np.resize(_values(rows[:, j]), count)
        out = through(changed).reshape(len(some), count, -1)
        same = (out == plain) | ((out != out) & (plain != plain))
        moved[first : first + len(some)] = ~same.all(axis=1)
    if (moved.sum(axis=0) != 1).any() or (moved.sum(axis=1) > 1).any():
        return None
    return np.asarray(moved.argmax(axis=0), np.int64)


def _holds(
    through: Callable[[NDArray[Any]], NDArray[Any]], opened: Opened, rows: NDArray[Any], background: NDArray[Any] | None
) -> bool:
    """Whether mixtures of rows come out as mixtures of what their rows come out as: all that values ask of the steps."""
    others, behind = (rows, opened.rows) if background is None else (background, opened.background)
    assert behind is not None
    rng = np.random.default_rng(_SEED)
    count = max(1, min(_MIXTURES, _CALL_BYTES // (8 * rows.shape[1])))
    gaps = np.flatnonzero(np.isnan(rows).any(axis=1))
    one = np.concatenate([rng.choice(gaps, count // 2) if len(gaps) else gaps, rng.integers(len(rows), size=count)])
    one, other = one[:count], rng.integers(len(others), size=count)
    known = rng.random((count, rows.shape[1])) < rng.random((count, 1))
    mixed = through(np.where(known, rows[one], others[other]))
    wanted = np.where(known[:, opened.source], opened.rows[one], behind[other])
    return bool(np.allclose(mixed, wanted, rtol=1e-9, atol=1e-12, equal_nan=True))


def _values(column: NDArray[Any]) -> NDArray[Any]:
    """Values of a column that differ as much as the data allow: the ends, the middle, a missing one."""
    known = np.unique(column[~np.isnan(column)])
    ends = known[[0, -1, len(known) // 2]] if len(known) else known
    return np.concatenate([ends, column[np.isnan(column)][:1]])


def in_inputs(opened: Opened, part: Ensemble | Linear, columns: int) -> tuple[Any, NDArray[Any], NDArray[Any] | None]:
    """(the last step's trees or line over the input's columns, its rows and background laid out in these)."""
    if isinstance(part, Ensemble):
        feature = np.where(part.feature >= 0, opened.source[np.maximum(part.feature, 0)], -1)
        moved: Any = replace(part, feature=feature, n_features=columns)
    else:
        coefficients = np.zeros((len(part.coefficients), columns))
        coefficients[:, opened.source] = part.coefficients
        moved = replace(part, coefficients=coefficients)

    def spread(block: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros((len(block), columns), np.float32 if block.dtype == np.float32 else np.float64)
        out[:, opened.source] = block
        return out

    return moved, spread(opened.rows), None if opened.background is None else spread(opened.background)
