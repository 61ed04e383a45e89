"""A pipeline whose steps map each column to columns of its own: the last step, explained in the input's columns.

Scalers, imputers, encoders (one-hot too) and column transformers change columns one by one. The columns that come out
of one column of the input are then one player of the last step: known or unknown together. What counts is what the
steps do: each player's columns are changed on some rows of the data, and which columns come out changed is looked at;
then mixtures of the data's rows (and the background's) must come out as mixtures, which is all that values ask. Where a
step mixes players (a principal component, a row's norm, a nearest-neighbour imputer), or cannot be asked, the answer is
None, and the whole pipeline is explained as a function of its columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.blackbox import table_of
from millrace.analyses.explain.kernels.libraries import column_names

_BASE_ROWS = 8
_MOST_VALUES = 256
_CALL_BYTES = 16 << 20
_MIXTURES, _SEED = 512, 20_240_301

Labels = Mapping[int, tuple[Any, ...]]
Through = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Opened:
    """last: the last step. player_of: int64, the player of each column that the last step gets; -1 where nothing that was
    tried changes the column, and it is the same in all rows. rows, background: what the last step gets."""

    last: Any
    player_of: NDArray[np.int64]
    rows: NDArray[Any]
    background: NDArray[Any] | None


def open_pipeline(
    model: Any,
    names: tuple[str, ...],
    rows: NDArray[Any],
    background: NDArray[Any] | None,
    player_of: NDArray[np.int64] | None = None,
    categories: Labels | None = None,
) -> Opened | None:
    """The pipeline's last step and what comes to it, None when the model is no pipeline or mixes players.

    player_of: each input column's player (None: itself). categories: labels of columns that hold codes.
    """
    steps = getattr(model, "steps", None)
    if not isinstance(steps, list) or len(steps) < 2 or not all(isinstance(s, tuple) and len(s) == 2 for s in steps):
        return None
    head = [step for _, step in steps[:-1] if step is not None and not isinstance(step, str)]
    if not all(callable(getattr(step, "transform", None)) for step in head):
        return None
    owner = np.arange(rows.shape[1]) if player_of is None else player_of
    known, values = _known_values(head, names, rows if background is None else np.concatenate([rows, background]),
                                  categories or {})  # fmt: skip
    as_table = bool(known) or column_names(model) is not None

    def through(block: NDArray[Any]) -> NDArray[Any]:
        table = table_of(block, "pandas", names, known) if as_table else block
        for step in head:
            table = step.transform(table)
        table = table.toarray() if hasattr(table, "toarray") else table
        return np.ascontiguousarray(table)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*feature names.*")
        warnings.filterwarnings("ignore", message=".*unknown categories.*")
        try:
            whole = rows if background is None else np.concatenate([rows, background])
            source = _source(through, whole, values, owner)
            if source is None:
                return None
            found = Opened(steps[-1][1], source, through(rows), None if background is None else through(background))
            return found if _holds(through, found, rows, background, owner) else None
        except (TypeError, ValueError, AttributeError, KeyError):  # a step that does not take these rows by itself
            return None


def _source(
    through: Through, rows: NDArray[Any], values: list[NDArray[Any]], owner: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """The player of every column that comes out; None when it is not one each, or cannot be told."""
    missing = np.flatnonzero(np.isnan(rows).any(axis=1))[: _BASE_ROWS // 2]
    spread = np.linspace(0, len(rows) - 1, _BASE_ROWS).astype(np.int64)
    base = rows[np.concatenate([missing, spread])[:_BASE_ROWS]]
    plain = through(base)
    if plain.ndim != 2 or plain.dtype.kind not in "fiub" or len(plain) != len(base):
        return None
    players = int(owner.max()) + 1
    moved = np.zeros((players, plain.shape[1]), bool)
    for j, tried in enumerate(values):
        count = len(tried) * len(base)
        changed = np.tile(base, (len(tried), 1))
        changed[:, j] = np.repeat(tried, len(base))
        try:
            out = through(changed).reshape(len(tried), len(base), -1)
        except ValueError:  # a missing value, or one that was never seen, where the step takes none
            changed = changed[: count - len(base)]
            out = through(changed).reshape(len(tried) - 1, len(base), -1)
        same = (out == plain) | ((out != out) & (plain != plain))
        moved[owner[j]] |= ~same.all(axis=(0, 1))
    if (moved.sum(axis=0) > 1).any():
        return None
    still = ~moved.any(axis=0)
    if still.any() and not _is_constant(through, rows, still):
        return None
    return np.where(still, -1, moved.argmax(axis=0)).astype(np.int64)


def _is_constant(through: Through, rows: NDArray[Any], columns: NDArray[np.bool_]) -> bool:
    first = through(rows[:1])[0, columns]
    size = max(1, _CALL_BYTES // (8 * rows.shape[1]))
    return all(
        bool(np.array_equal(out, np.broadcast_to(first, out.shape), equal_nan=True))
        for out in (through(rows[a : a + size])[:, columns] for a in range(0, len(rows), size))
    )


def _holds(
    through: Through, opened: Opened, rows: NDArray[Any], background: NDArray[Any] | None, owner: NDArray[np.int64]
) -> bool:
    """Whether mixtures of rows come out as mixtures of what their rows come out as: all that values ask of the steps."""
    others, behind = (rows, opened.rows) if background is None else (background, opened.background)
    assert behind is not None
    rng = np.random.default_rng(_SEED)
    count = max(1, min(_MIXTURES, _CALL_BYTES // (8 * rows.shape[1])))
    gaps = np.flatnonzero(np.isnan(rows).any(axis=1))
    one = np.concatenate([rng.choice(gaps, count // 2) if len(gaps) else gaps, rng.integers(len(rows), size=count)])
    one, other = one[:count], rng.integers(len(others), size=count)
    known = rng.random((count, int(owner.max()) + 1)) < rng.random((count, 1))
    mixed = through(np.where(known[:, owner], rows[one], others[other]))
    wanted = np.where(known[:, np.maximum(opened.player_of, 0)], opened.rows[one], behind[other])
    return bool(np.allclose(mixed, wanted, rtol=1e-9, atol=1e-12, equal_nan=True))


# -- what to try -----------------------------------------------------------------------------------------------------
def _known_values(
    head: list[Any], names: tuple[str, ...], rows: NDArray[Any], categories: Labels
) -> tuple[dict[int, tuple[Any, ...]], list[NDArray[Any]]]:
    """(labels of coded columns, those that an encoder knows beyond the data's included; values to try, by column).

    Values that differ as much as possible: those of the data (all of them where they are few), what an encoder was
    fitted on, and steps away from the middle, so that a single row is enough to ask. A missing one comes last.
    """
    fitted: dict[int, Any] = {}
    for step in head:
        _categories(step, list(range(len(names))), names, fitted)
    labels, values = {}, []
    for j in range(rows.shape[1]):
        column = rows[:, j]
        found = np.unique(column[~np.isnan(column)])
        if j in categories:
            more = [label for label in fitted.get(j, ()) if isinstance(label, str) and label not in categories[j]]
            labels[j] = (*categories[j], *more)
            found = np.arange(len(labels[j]), dtype=np.float64)
        else:
            known = np.asarray(fitted.get(j, ()))
            known = known.astype(np.float64) if known.dtype.kind in "iufb" else np.zeros(0)
            middle = found[len(found) // 2] if len(found) else 0.0
            away = [middle + 1.0, middle - 1.0, 2.0 * middle] if not len(known) else []
            found = np.unique(np.concatenate([_spread(found), known[~np.isnan(known)], away]))
        missing = column[np.isnan(column)][:1]
        values.append(np.concatenate([found[:_MOST_VALUES], missing]))
    return labels, values


def _spread(found: NDArray[Any]) -> NDArray[Any]:
    """All of few values; of many, the ends and the middle."""
    return found if len(found) <= 16 else found[[0, len(found) // 2, -1]]


def _categories(step: Any, columns: list[int], names: tuple[str, ...], found: dict[int, Any]) -> None:
    """The categories that encoders among the steps were fitted on, by the input's column."""
    if isinstance(getattr(step, "transformers_", None), list):
        for _, inner, chosen in step.transformers_:
            at = [_number(c, names) for c in chosen] if isinstance(chosen, list | tuple | np.ndarray) else []
            if not isinstance(inner, str) and all(j is not None and j < len(columns) for j in at):
                _categories(inner, [columns[j] for j in at if j is not None], names, found)
        return
    for inner in [one for _, one in getattr(step, "steps", [])] or [step]:
        known = getattr(inner, "categories_", None)
        if isinstance(known, list) and len(known) == len(columns):
            found.update({j: own for j, own in zip(columns, known, strict=True) if j not in found})


def _number(column: Any, names: tuple[str, ...]) -> int | None:
    if isinstance(column, str):
        return names.index(column) if column in names else None
    return int(column) if isinstance(column, int | np.integer) and not isinstance(column, bool | np.bool_) else None
