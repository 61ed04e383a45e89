"""Exact SHAP values of tree ensembles: the one door to the tree kernels.

    shape  = structure(ensemble)                                  (in `structure`)
    cut    = layout(ensemble, shape, rows, background_rows, table_dtype)
    tables = [build(ensemble, shape, cut, batch, background, weights) for batch in range(cut.batches)]
    base   = base_values(ensemble, shape, background, weights)
    values = explain_rows(ensemble, shape, cut, tables, rows, out_dtype)

Two value functions, both exact. Path-dependent (no background: the training weights in the trees stand for what is
unknown) by quadrature: nothing to build, microseconds for a row, at any depth. Interventional (a background of
weighted rows) by tables of condition patterns and by pairs of patterns. Everything is a pure function of its
arguments, and every choice is made by the question's shape, so each worker and host makes the same one.

Values are sums over trees in model order, and no row sees another: neither the block of rows, nor where the batches
are cut, nor the processor's vector width changes a bit. Does not check additivity, plan, cut blocks into tasks or
keep files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from millrace.analyses.explain.kernels import items, outputs, pair_sizes, patterns
from millrace.analyses.explain.kernels.ensemble import Ensemble, check_rows
from millrace.analyses.explain.kernels.lanes import LANES, aligned, frozen
from millrace.analyses.explain.kernels.rows import columns_of, values_out
from millrace.analyses.explain.kernels.structure import Structure
from millrace.run.errors import WrongQuestion

BATCH_BYTES = 16 << 20
"""Tables of a batch, unless a single item has more."""

TABLE_BYTES = 1 << 30
"""Tables of a question: beyond it a byte gets dearer until pairs take over."""

_BYTE_PRICE = 0.5
_WALK_ROWS, _WALK_BYTES = (LANES, 1024), 1 << 20
_TABLE_ROWS, _TABLE_ROW_BYTES = (patterns.WORD, 1024), 8 << 20
_COUNT_ROWS = 1024

METHODS = ("quadrature", "tables", "tables+pairs", "pairs", "nothing")


@dataclass(frozen=True, slots=True, repr=False)
class Layout:
    """How a question's leaves are worked on.

    method: one of `METHODS`. background_rows: 0 for path-dependent values. table_dtype: "float32" or "float64".
    item_node: int32, root of each item; item_kind: uint8, `items.GROUP` and so on, in preorder.
    batch_start: int64[batches + 1], the items of each batch; batch_bytes: int64[batches], what a batch's arrays take
    at most. All empty for quadrature.
    """

    item_node: NDArray[np.int32]
    item_kind: NDArray[np.uint8]
    batch_start: NDArray[np.int64]
    batch_bytes: NDArray[np.int64]
    background_rows: int
    method: str
    table_dtype: str

    def __post_init__(self) -> None:
        for field in fields(self)[:4]:
            object.__setattr__(self, field.name, frozen(getattr(self, field.name)))

    def __repr__(self) -> str:
        return f"Layout({self.method}, {len(self.item_node)} items, {self.batches} batches of {self.table_bytes} bytes)"

    @property
    def batches(self) -> int:
        return len(self.batch_bytes)

    @property
    def table_bytes(self) -> int:
        """Of all batches together, at most."""
        return int(self.batch_bytes.sum())

    def arrays(self) -> dict[str, Any]:
        """Plain values by field name: what a store keeps."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, mapping: Mapping[str, Any]) -> Layout:
        """The inverse of `arrays`; arrays may be memory maps and are then not read here."""
        names = [field.name for field in fields(cls)]
        return cls(
            **{name: mapping[name] for name in names[:4]},
            background_rows=int(mapping["background_rows"]),
            method=str(mapping["method"]),
            table_dtype=str(mapping["table_dtype"]),
        )


def choose(ensemble: Ensemble, structure: Structure, rows: int, background_rows: int) -> str:
    """The method that `layout` takes, one of `METHODS`: what an answer says about itself."""
    return layout(ensemble, structure, rows, background_rows, np.float64).method


def layout(ensemble: Ensemble, structure: Structure, rows: int, background_rows: int, table_dtype: DTypeLike) -> Layout:
    """Decide by the question's shape: its rows in all, the background's rows (0: path-dependent), the trees.

    table_dtype: float32 or float64; float32 tables halve the bytes, and round each of their numbers to 2^-24.
    """
    dtype = np.dtype(table_dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"table_dtype must be float32 or float64, got {dtype}")
    nodes, kinds, item_bytes = _items(ensemble, structure, rows, background_rows, dtype.itemsize)
    method = "quadrature" if structure.most_distinct else "nothing"
    if background_rows:
        paired, tabled = bool((kinds >= items.PAIRS).any()), bool((kinds < items.PAIRS).any())
        method = {(0, 0): "nothing", (0, 1): "tables", (1, 0): "pairs", (1, 1): "tables+pairs"}[paired, tabled]
    start, size = _batches(item_bytes)
    return Layout(nodes, kinds, start, size, background_rows, method, dtype.name)


def _items(
    ensemble: Ensemble, structure: Structure, rows: int, background_rows: int, itemsize: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """(root, kind, most bytes) of the items; none for path-dependent values."""
    if not background_rows:
        return np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(0, np.int64)
    from millrace.analyses.explain.kernels import tables

    n = ensemble.n_nodes
    node, kind, size = np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.int64)
    made, price = 0, _BYTE_PRICE
    while n:
        made = tables.choose_items(
            ensemble.left, ensemble.right, ensemble.value, structure.parent, structure.size, structure.inner,
            structure.distinct, structure.player, structure.fraction, len(structure.played),
            float(max(rows, 1)), float(background_rows), itemsize, price, node, kind, size,
        )  # fmt: skip
        if size[:made].sum() <= TABLE_BYTES:
            break
        price *= 4
    node, kind, size = node[:made].copy(), kind[:made].copy(), size[:made].copy()
    # Literals (18 bytes each), columns, and for pairs the background's answers at the nodes of the path.
    literals = structure.depth[node] + np.where(kind == items.GROUP, structure.inner[node], 0)
    size += literals.astype(np.int64) * 22 + 48
    size += np.where(kind >= items.PAIRS, structure.depth[node].astype(np.int64) * 8 * _words(background_rows), 0)
    return node, kind, size


def _batches(item_bytes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(start[batches + 1], bytes[batches]): as many items in a row as fit `BATCH_BYTES`, one at least."""
    start, size = [0], []
    held = 0
    for item, more in enumerate(item_bytes.tolist()):
        if held and held + more > BATCH_BYTES:
            start.append(item)
            size.append(held)
            held = 0
        held += more
    if held:
        start.append(len(item_bytes))
        size.append(held)
    return np.array(start, np.int64), np.array(size, np.int64)


def build(
    ensemble: Ensemble,
    structure: Structure,
    layout: Layout,
    batch: int,
    background: NDArray[Any],
    background_weights: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    """The arrays of one batch: plain, to be stored, shared and mapped read-only. The same bits on every worker.

    background: rows[b, n_features] with b as in the layout; background_weights[b], not negative, need not add up
    to 1. Scratch: `build_bytes`. Raises `WrongQuestion`.
    """
    from millrace.analyses.explain.kernels import tables

    _check_background(ensemble, background, background_weights, layout.background_rows)
    part = slice(int(layout.batch_start[batch]), int(layout.batch_start[batch + 1]))
    held = _literals(ensemble, structure, layout.item_node[part], layout.item_kind[part])
    pairs_at = np.flatnonzero(held["item_kind"] >= items.PAIRS)
    nodes, held["literal_answer"] = _pair_nodes(held, pairs_at)
    most = int(held["item_bits"][pairs_at].max(initial=0))
    held["pair_gain"], held["pair_loss"] = pair_sizes.pair_weights(most)
    held["weights"] = shares(background_weights)
    histogram, held["answers"] = _background(ensemble, structure, held, nodes, background)
    table = np.empty(int(held["table_start"][-1]))
    tables.fill_tables(
        *(frozen(held[name]) for name in (
            "item_node", "item_kind", "item_bits", "literal_start", "column_start", "literal_bit", "literal_node",
            "literal_right", "column_player", "histogram_start", "table_start",
        )),
        ensemble.left, ensemble.right, ensemble.value, structure.parent, structure.side, structure.size,
        structure.player, frozen(histogram), structure.rule_start, structure.rule_at, structure.rule_rest,
        structure.rule_weight, table,
    )  # fmt: skip
    held["table"] = table.astype(layout.table_dtype, copy=False)
    for name in ("histogram_start", "item_bits"):
        del held[name]
    return held


def _literals(
    ensemble: Ensemble, structure: Structure, node: NDArray[np.int32], kind: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Items, their literals and columns, and where their tables and histograms begin."""
    from millrace.analyses.explain.kernels import tables

    group = kind == items.GROUP
    room = int((structure.depth[node].astype(np.int64) + np.where(group, structure.inner[node], 0)).sum())
    held: dict[str, NDArray[Any]] = {
        "item_node": frozen(node), "item_kind": frozen(kind),
        "literal_start": np.zeros(len(node) + 1, np.int64), "column_start": np.zeros(len(node) + 1, np.int64),
        "item_bits": np.zeros(len(node), np.int32),
        "literal_bit": np.empty(room, np.int32), "literal_node": np.empty(room, np.int32),
        "literal_row": np.empty(room, np.int32), "literal_right": np.empty(room, np.uint8),
        "column_player": np.empty(room, np.int32),
    }  # fmt: skip
    literals, columns = tables.list_literals(
        held["item_node"], held["item_kind"], ensemble.left, structure.side, structure.parent, structure.size,
        structure.depth, structure.player, len(structure.played), structure.most_depth,
        *(held[name] for name in (
            "literal_start", "column_start", "item_bits", "literal_bit", "literal_node", "literal_row",
            "literal_right", "column_player",
        )),
    )  # fmt: skip
    assert literals == room
    held["column_player"] = held["column_player"][:columns].copy()
    tree = np.searchsorted(ensemble.tree_start, node, side="right") - 1
    held["item_output"] = ensemble.tree_output[tree]
    patterns_of = np.where(kind >= items.PAIRS, 0, np.left_shift(1, held["item_bits"].astype(np.int64) % 32))
    numbers = np.where(group, np.diff(held["column_start"]) * ensemble.width, 3) * patterns_of
    held["histogram_start"] = np.concatenate([[0], np.cumsum(patterns_of)]).astype(np.int64)
    held["table_start"] = np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64)
    return held


def _pair_nodes(
    held: Mapping[str, NDArray[Any]], items: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(the nodes on the paths of pairs, for each literal its node's place among them; -1 outside pairs)."""
    answer = np.full(len(held["literal_node"]), -1, np.int32)
    start, stop = held["literal_start"][items], held["literal_start"][items + 1]
    within = np.zeros(len(answer) + 1, np.int64)
    np.add.at(within, start, 1)
    np.add.at(within, stop, -1)
    mine = np.cumsum(within)[:-1] > 0
    nodes, answer[mine] = np.unique(held["literal_node"][mine], return_inverse=True)
    return nodes.astype(np.int32), answer


def _background(
    ensemble: Ensemble,
    structure: Structure,
    held: Mapping[str, NDArray[Any]],
    nodes: NDArray[np.int32],
    background: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """(histograms of all tables, which background rows go left at the nodes of pairs: a bit each)."""
    from millrace.analyses.explain.kernels import counting

    words = _words(len(background))
    histogram = np.zeros(int(held["histogram_start"][-1]))
    answers = np.zeros((len(nodes), words), np.uint64)
    rules = (ensemble.threshold, ensemble.mode, ensemble.category_start, ensemble.category_count)
    for first in range(0, len(background), _COUNT_ROWS):
        block = background[first : first + _COUNT_ROWS]
        columns = columns_of(block, structure.used, ensemble.float32_inputs, patterns.WORD)
        flat = frozen(columns.reshape(-1))
        counting.count_patterns(
            *(frozen(held[name]) for name in (
                "item_kind", "literal_start", "literal_bit", "literal_node", "literal_row", "literal_right",
                "histogram_start",
            )),
            _bit_rows(structure), np.uint8(items.PAIRS), structure.slot, *rules, ensemble.category_member,
            flat, columns.shape[1], frozen(held["weights"][first : first + _COUNT_ROWS]), histogram,
        )  # fmt: skip
        counting.answer_nodes(
            frozen(nodes), structure.slot, *rules, ensemble.category_member,
            flat, columns.shape[1], first // patterns.WORD, words, answers.reshape(-1),
        )  # fmt: skip
    return histogram, answers


def explain_rows(
    ensemble: Ensemble,
    structure: Structure,
    layout: Layout,
    batches: Sequence[Mapping[str, NDArray[Any]]],
    rows: NDArray[Any],
    out_dtype: DTypeLike,
) -> NDArray[Any]:
    """SHAP values [n, players, n_outputs] of rows[n, n_features] (float32 or float64, C order; may be mapped).

    batches: what `build` made for every batch, in order; none for quadrature. out_dtype: float32 or float64; sums are
    float64 until the end. Scratch: `scratch_bytes`. Raises `WrongQuestion` for rows that the trees cannot read.
    """
    return prepared(ensemble, structure, layout, batches)(rows, out_dtype)


def prepared(
    ensemble: Ensemble, structure: Structure, layout: Layout, batches: Sequence[Mapping[str, NDArray[Any]]]
) -> Callable[[NDArray[Any], DTypeLike], NDArray[Any]]:
    """`explain_rows` of this model, with what does not depend on the rows made once: for many calls of few rows."""
    if len(batches) != layout.batches:
        raise ValueError(f"the layout has {layout.batches} batches, but the tables of {len(batches)} were given")
    walked, used, played = layout.method == "quadrature", len(structure.used), len(structure.played)
    size = _block(used, ensemble.n_outputs, walked)
    works = _works(ensemble, structure, layout, batches)

    def values(rows: NDArray[Any], out_dtype: DTypeLike) -> NDArray[Any]:
        check_rows(ensemble, rows)
        out = np.zeros((len(rows), structure.players, ensemble.n_outputs), out_dtype)
        for first in range(0, len(rows) if used else 0, size):
            block = rows[first : first + size]
            columns = columns_of(block, structure.used, ensemble.float32_inputs, LANES if walked else patterns.WORD)
            sums = aligned(ensemble.n_outputs * played, columns.shape[1])
            for kernel, arguments in works:
                kernel(*arguments, frozen(columns.reshape(-1)), columns.shape[1], len(block), played, sums.reshape(-1))
            values_out(sums, structure.played, first, len(block), out)
            del columns, sums  # before the next block's are made
        return out

    return values


def raw_output(ensemble: Ensemble, structure: Structure, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Raw output [n, n_outputs] of rows[n, n_features]: the bits of `ensemble.predict`, in a fraction of its time.

    Scratch: less than `scratch_bytes`. Raises `WrongQuestion` for rows that the trees cannot read.
    """
    check_rows(ensemble, rows)
    out = np.repeat(ensemble.base[None, :], len(rows), axis=0)
    used = len(structure.used)
    size = _block(used, 0, False)
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        columns = columns_of(block, structure.used, ensemble.float32_inputs, LANES)
        outputs.add_outputs(
            ensemble.left, ensemble.right, ensemble.value, ensemble.threshold, ensemble.mode, ensemble.category_start,
            ensemble.category_count, ensemble.category_member, ensemble.tree_start, ensemble.tree_output,
            structure.size, structure.slot, frozen(columns.reshape(-1)), columns.shape[1], len(block),
            out[first : first + size],
        )  # fmt: skip
    return out


def load_kernels(layout: Layout) -> None:
    """Compile what this layout needs, or take it from the disk: before tasks start, so that not every worker compiles."""
    if layout.method == "quadrature":
        from millrace.analyses.explain.kernels import quadrature  # noqa: F401
    if "tables" in layout.method:
        from millrace.analyses.explain.kernels import apply

        apply.prepare(layout.table_dtype)
    if "pairs" in layout.method:
        from millrace.analyses.explain.kernels import pairs  # noqa: F401
    if layout.batches:
        from millrace.analyses.explain.kernels import counting, tables  # noqa: F401


def _works(
    ensemble: Ensemble, structure: Structure, layout: Layout, batches: Sequence[Mapping[str, NDArray[Any]]]
) -> list[tuple[Any, tuple[Any, ...]]]:
    """The kernels that a block of rows goes through, with their arguments: the tables of all batches, then the pairs of all,
    so that the order of sums does not depend on where batches are cut."""
    if layout.method == "quadrature":
        from millrace.analyses.explain.kernels import quadrature

        return [(quadrature.walk_passes, _walk_arguments(ensemble, structure))]
    works: list[tuple[Any, tuple[Any, ...]]] = []
    if "tables" in layout.method:
        from millrace.analyses.explain.kernels import apply

        apply.prepare(layout.table_dtype)
        works += [(apply.apply_items, _apply_arguments(ensemble, structure, held)) for held in batches]
    if "pairs" in layout.method:
        from millrace.analyses.explain.kernels import pairs

        works += [
            (pairs.apply_pairs, _pair_arguments(ensemble, structure, held))
            for held in batches
            if (held["item_kind"] >= items.PAIRS).any()
        ]
    return works


def _walk_arguments(ensemble: Ensemble, structure: Structure) -> tuple[Any, ...]:
    """What `quadrature.walk_passes` takes before a block of rows."""
    return (
        ensemble.left, ensemble.right, ensemble.value, ensemble.threshold, ensemble.mode, ensemble.category_start,
        ensemble.category_count, ensemble.category_member, ensemble.tree_start, ensemble.tree_output,
        structure.parent, structure.side, structure.depth, structure.slot, structure.player, structure.previous,
        structure.fraction, structure.before, structure.needs, structure.pass_start, structure.pass_mask, structure.pass_points,
        structure.rule_start, structure.rule_at, structure.rule_rest, structure.rule_weight, structure.most_depth,
    )  # fmt: skip


def _apply_arguments(ensemble: Ensemble, structure: Structure, held: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
    """What `apply.apply_items` takes before a block of rows."""
    names = (
        "item_node", "item_kind", "item_output", "literal_start", "column_start", "table_start", "literal_bit",
        "literal_node", "literal_row", "literal_right", "column_player", "table",
    )  # fmt: skip
    return (*(frozen(held[name]) for name in names), _bit_rows(structure), *_conditions(ensemble, structure))


def _pair_arguments(ensemble: Ensemble, structure: Structure, held: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
    """What `pairs.apply_pairs` takes before a block of rows."""
    names = (
        "item_node", "item_kind", "item_output", "literal_start", "column_start", "literal_bit", "literal_node", "literal_row",
        "literal_right", "literal_answer", "column_player",
    )  # fmt: skip
    return (
        *(frozen(held[name]) for name in names), frozen(held["answers"]).reshape(-1), frozen(held["weights"]),
        frozen(held["pair_gain"]), frozen(held["pair_loss"]), _bit_rows(structure), *_conditions(ensemble, structure),
    )  # fmt: skip


def _conditions(ensemble: Ensemble, structure: Structure) -> tuple[Any, ...]:
    return (
        ensemble.value, structure.slot, ensemble.threshold, ensemble.mode, ensemble.category_start,
        ensemble.category_count, ensemble.category_member,
    )  # fmt: skip


def base_values(
    ensemble: Ensemble,
    structure: Structure,
    background: NDArray[Any] | None = None,
    background_weights: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """What values add to, [n_outputs]: the expected raw output when nothing is known.

    Without a background: by the training weights of the trees. With one: its weighted mean of raw outputs.
    """
    if background is not None:
        assert background_weights is not None
        _check_background(ensemble, background, background_weights, len(background))
        weighted = raw_output(ensemble, structure, background) * shares(background_weights)[:, None]
        return np.array([fsum(column) for column in weighted.T.tolist()])
    expected = ensemble.value.copy()
    # From the deepest level up: children before parents without a loop over nodes.
    for depth in range(structure.most_depth - 1, -1, -1):
        inner = np.flatnonzero((structure.depth == depth) & (ensemble.left >= 0))
        for child in (ensemble.left[inner], ensemble.right[inner]):
            expected[inner] += structure.fraction[child, None] * expected[child]
    base = ensemble.base.copy()
    for tree, first in enumerate(ensemble.tree_output.tolist()):
        base[first : first + ensemble.width] += expected[ensemble.tree_start[tree]]
    return base


def shares(weights: NDArray[Any]) -> NDArray[np.float64]:
    """Weights that add up to 1. Their sum is rounded once (numpy's own depends on the processor's vector width)."""
    weights = np.asarray(weights, np.float64)
    return weights / fsum(weights.tolist())


def _check_background(ensemble: Ensemble, background: NDArray[Any], weights: NDArray[Any], rows: int) -> None:
    check_rows(ensemble, background)
    weights = np.asarray(weights, np.float64)
    if len(background) != rows or weights.shape != (rows,):
        raise WrongQuestion(
            f"The background has {len(background)} rows and {weights.shape} weights, but {rows} rows were laid out. "
            "Give one weight for each background row, and the background that the layout was made for."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise WrongQuestion(
            "Background weights must be finite, not negative, and not all zero: they say how much each background row "
            "counts."
        )


def _bit_rows(structure: Structure) -> int:
    return structure.most_depth + items.GROUP_BITS


def _words(rows: int) -> int:
    return -(-rows // patterns.WORD)


def _block(used: int, n_outputs: int, walked: bool) -> int:
    """Rows of a block of the kernels: a power of two by which a block's columns and sums fit the cache."""
    (least, most), room = (_WALK_ROWS, _WALK_BYTES) if walked else (_TABLE_ROWS, _TABLE_ROW_BYTES)
    fits = room // (8 * max(used, 1) * (1 + n_outputs))
    return max(least, min(most, 1 << max(fits, 1).bit_length() - 1))


def scratch_bytes(used: int, n_outputs: int, most_depth: int, most_distinct: int, background_rows: int) -> int:
    """Most private bytes of `explain_rows` beside its arguments and result, for any number of rows.

    used: features that the trees split on. background_rows: 0 for path-dependent values.
    """
    walked = background_rows == 0
    size = _block(used, n_outputs, walked)
    block = size * 8 * used * (1 + n_outputs)
    if walked:
        from millrace.analyses.explain.kernels import quadrature

        return block + quadrature.walk_bytes(most_depth, (most_distinct + 1) // 2)
    bits = (most_depth + items.GROUP_BITS) * (8 + size // 8)
    return block + bits + 30 * size + pair_sizes.pair_bytes(most_distinct, background_rows, size)
