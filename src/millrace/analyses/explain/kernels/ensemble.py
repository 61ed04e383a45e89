"""The flat tree ensemble: what every parser writes and every tree kernel reads.

One frozen record of plain arrays for LightGBM, XGBoost and scikit-learn trees, so that workers can map it from
a file and the kernels know one set of rules. `predict` walks it: the reference for the parsers (it must equal
the library's own output) and for additivity. Does not read models (see `tree_models`, and `assemble` for how
parsers make one), holds no derived tables (see `structure`), and turns raw output into predictions only in
`apply_link`.

How a node sends a value z, after z was rounded to float32 where `float32_inputs` is set:

| mode | name | rule |
|---|---|---|
| 0 | NAN_RIGHT | z <= threshold: left; NaN: right |
| 1 | NAN_LEFT | z <= threshold or NaN: left |
| 2 | ZERO_RIGHT | NaN or abs(z) <= ZERO: right; else z <= threshold: left |
| 3 | ZERO_LEFT | NaN or abs(z) <= ZERO: left; else z <= threshold: left |
| 4 | MEMBER_NAN_RIGHT | 0 <= z < count and member[start + int(z)]: left; all else, NaN too: right |
| 5 | MEMBER_NAN_LEFT | as 4, but NaN: left |

A category that is negative, not below `count`, or infinite is no member. Values between two categories never
reach a kernel: the libraries disagree about them (LightGBM reads -0.5 as 0, XGBoost as no category, scikit-learn
does not know 2.7), so `check_rows` refuses them. Compare with `count` before converting: 1e300 is no integer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from millrace.run.errors import WrongQuestion

NAN_RIGHT, NAN_LEFT, ZERO_RIGHT, ZERO_LEFT, MEMBER_NAN_RIGHT, MEMBER_NAN_LEFT = range(6)

ZERO = float(np.float32(1e-35))
"""LightGBM's own bound for "zero": the float32 nearest to 1e-35, compared in float64."""

LINKS = (
    "identity", "logit", "softmax", "log", "log1p_exp", "probability", "one_vs_all", "signed_square", "step",
    "isolation",
)  # fmt: skip
"""How raw output becomes a prediction (see `apply_link`); "logit", "softmax" and "one_vs_all" may carry a scale: "logit:2.0"."""

_ROWS_A_BLOCK = 8192
_DTYPES: dict[str, type[np.generic]] = {
    "feature": np.int32,
    "threshold": np.float64,
    "left": np.int32,
    "right": np.int32,
    "value": np.float64,
    "cover": np.float64,
    "mode": np.uint8,
    "category_start": np.int64,
    "category_count": np.int64,
    "category_member": np.uint8,
    "tree_start": np.int64,
    "tree_output": np.int32,
    "base": np.float64,
}
_OF_NODES = tuple(_DTYPES)[:9]


@dataclass(frozen=True, slots=True, repr=False)
class Ensemble:
    """Nodes of all trees in preorder with global indices: a node's left child follows it at once, its right
    child follows the whole left subtree. Arrays are C-contiguous and read-only (one compiled version of every
    kernel).

    feature: int32[n_nodes], column of the model's input; -1 in a leaf.
    threshold: float64[n_nodes], z <= threshold goes left (already the next float below for libraries with "<").
    left, right: int32[n_nodes], -1 in a leaf.
    value: float64[n_nodes, width], what a leaf adds (learning rate, dart weights and averaging multiplied in);
        0 in inner nodes. width is n_outputs for vector leaves (tree_output is then 0), and 1 otherwise.
    cover: float64[n_nodes], training weight through each node, as the library itself counts it for its own
        contributions (LightGBM, HistGradientBoosting: rows; XGBoost: hessians; scikit-learn trees: weighted
        rows). May be 0: use `branch_fractions`, which says what then holds.
    mode: uint8[n_nodes], the rule of the node (table above); 0 in a leaf.
    category_start, category_count: int64[n_nodes]; category_member: uint8[>= 1]. The set of node i is
        category_member[start : start + count]; count is 0 outside category nodes.
    tree_start: int64[n_trees + 1]; tree_output: int32[n_trees], the first output that the tree adds to.
    base: float64[n_outputs], added to each output.
    float32_inputs: the library rounds inputs to float32 before it compares; thresholds are compared exactly.
    link: how raw output becomes the model's own prediction, one of `LINKS`.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]
    mode: NDArray[np.uint8]
    category_start: NDArray[np.int64]
    category_count: NDArray[np.int64]
    category_member: NDArray[np.uint8]
    tree_start: NDArray[np.int64]
    tree_output: NDArray[np.int32]
    base: NDArray[np.float64]
    n_features: int
    n_outputs: int
    float32_inputs: bool
    link: str
    output_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            # A view, so that a caller's own array (or a memory map) is not itself made read-only.
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype).view(np.ndarray).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        n_nodes, n_trees = len(self.feature), len(self.tree_output)
        same = all(len(getattr(self, name)) == n_nodes for name in _OF_NODES)
        shaped = self.value.ndim == 2 and self.value.shape[1] in (1, self.n_outputs)
        start = self.tree_start
        whole = len(start) == n_trees + 1 and start[0] == 0 and start[-1] == n_nodes
        named = len(self.base) == self.n_outputs == len(self.output_names)
        if not (same and shaped and whole and named and self.link.partition(":")[0] in LINKS):
            raise ValueError(
                f"not an ensemble: {n_nodes} nodes, {n_trees} trees, values of shape {self.value.shape}, base of "
                f"length {len(self.base)}, {self.n_outputs} outputs named {self.output_names}, link {self.link!r}"
            )

    def __repr__(self) -> str:
        return (
            f"Ensemble({self.n_trees} trees, {self.n_nodes} nodes, {self.n_features} features, {self.n_outputs} "
            f"outputs, width {self.width}, float32_inputs {self.float32_inputs}, link {self.link!r})"
        )

    @property
    def n_nodes(self) -> int:
        return len(self.feature)

    @property
    def n_trees(self) -> int:
        return len(self.tree_output)

    @property
    def width(self) -> int:
        """Numbers in a leaf: 1, or n_outputs for vector leaves."""
        return int(self.value.shape[1])

    def arrays(self) -> dict[str, Any]:
        """Plain values by field name (arrays, ints, strings, bools, a list of strings): what a store keeps."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"output_names": list(self.output_names)}

    @classmethod
    def from_arrays(cls, mapping: Mapping[str, Any]) -> Ensemble:
        """The inverse of `arrays`; arrays may be memory maps and are then not read here."""
        return cls(
            **{name: mapping[name] for name in _DTYPES},
            n_features=int(mapping["n_features"]),
            n_outputs=int(mapping["n_outputs"]),
            float32_inputs=bool(mapping["float32_inputs"]),
            link=str(mapping["link"]),
            output_names=tuple(str(name) for name in mapping["output_names"]),
        )

    @property
    def digest(self) -> str:
        """Hex blake2b-160 over every field: names, types, shapes and bytes. Computed anew at each call."""
        hasher = hashlib.blake2b(digest_size=20)
        for name, item in sorted(self.arrays().items()):
            if isinstance(item, np.ndarray):
                hasher.update(f"{name}:{item.dtype.str}:{item.shape}:".encode())
                hasher.update(item.data if item.size else b"")
            else:
                hasher.update(f"{name}:{item!r}:".encode())
        return hasher.hexdigest()


def branch_fractions(ensemble: Ensemble) -> NDArray[np.float64]:
    """Share of the parent's training weight that goes to a node: cover[node] / cover[parent]; 1 in a root.

    The conditional expectation of a path-dependent value function multiplies these. Below a node without
    cover (a hessian that vanished, rows of weight 0) the data say nothing, and each child has 1/2. A child
    without cover below a parent that has some has 0, as the data say. Fractions of siblings add up to 1 as well
    as the library's own covers do.
    """
    fraction = np.ones(ensemble.n_nodes)
    inner = np.flatnonzero(ensemble.left >= 0)
    parent_cover = ensemble.cover[inner]
    known = parent_cover > 0
    for child in (ensemble.left[inner], ensemble.right[inner]):
        fraction[child] = 0.5
        fraction[child[known]] = ensemble.cover[child[known]] / parent_cover[known]
    return fraction


def category_columns(ensemble: Ensemble) -> NDArray[np.int64]:
    """Sorted columns that some node reads as a category: their values are codes, whole numbers or NaN."""
    return np.unique(ensemble.feature[ensemble.mode >= MEMBER_NAN_RIGHT]).astype(np.int64)


def check_rows(ensemble: Ensemble, rows: NDArray[Any]) -> None:
    """Refuse rows[n, n_features] that the trees cannot read as the library does: `WrongQuestion`."""
    if rows.ndim != 2 or rows.shape[1] != ensemble.n_features:
        raise WrongQuestion(
            f"The trees read {ensemble.n_features} columns, but the rows have the shape {rows.shape}. "
            "Pass the columns that the model was fitted on, in that order, and no others."
        )
    for column in category_columns(ensemble):
        codes = rows[:, column]
        wrong = np.flatnonzero(np.isfinite(codes) & (np.trunc(codes) != codes))
        if wrong.size:
            raise WrongQuestion(
                f"Column {column} holds category codes, but row {wrong[0]} has {codes[wrong[0]]!r} there "
                f"({wrong.size} such rows). Categories are whole numbers, as in training; a missing one is NaN."
            )


def _read_only(dtype: types.Type, dimensions: int) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=True)


@njit(
    types.boolean(types.float64, types.uint8, types.float64, types.int64, types.int64, _read_only(types.uint8, 1)),
    cache=True,
)
def goes_left(z, mode, threshold, start, count, member):  # type: ignore[no-untyped-def]
    """Whether a node sends z to the left, by the table in the module's docstring."""
    if mode >= MEMBER_NAN_RIGHT:
        if np.isnan(z):
            return mode == MEMBER_NAN_LEFT
        return 0.0 <= z < count and member[start + np.int64(z)] != 0
    if np.isnan(z):
        return mode in (NAN_LEFT, ZERO_LEFT)
    if mode >= ZERO_RIGHT and abs(z) <= ZERO:
        return mode == ZERO_LEFT
    return z <= threshold


_INTS, _LONGS, _BYTES, _FLOATS = (
    _read_only(dtype, 1) for dtype in (types.int32, types.int64, types.uint8, types.float64)
)
_TABLE = _read_only(types.float64, 2)


@njit(
    types.void(
        *(_INTS, _FLOATS, _INTS, _INTS, _TABLE, _BYTES, _LONGS, _LONGS, _BYTES, _LONGS, _INTS),
        *(types.boolean, _TABLE, types.Array(types.float64, 2, "C")),
    ),
    cache=True,
)
def _walk(  # type: ignore[no-untyped-def]
    feature, threshold, left, right, value, mode, category_start, category_count, category_member,
    tree_start, tree_output, float32_inputs, rows, out,
):  # fmt: skip
    # Tree by tree in model order for every row: the order in which the libraries add, the same in any block.
    for tree in range(len(tree_output)):
        first = tree_output[tree]
        for row in range(rows.shape[0]):
            node = tree_start[tree]
            while left[node] >= 0:
                z = rows[row, feature[node]]
                if float32_inputs:
                    z = np.float64(np.float32(z))
                if goes_left(
                    z,
                    mode[node],
                    threshold[node],
                    category_start[node],
                    category_count[node],
                    category_member,
                ):
                    node = np.int64(left[node])
                else:
                    node = np.int64(right[node])
            for k in range(value.shape[1]):
                out[row, first + k] += value[node, k]


def predict(ensemble: Ensemble, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Raw output float64[n, n_outputs] of rows[n, n_features] (any numeric type), by walking every tree.

    Equals LightGBM's `raw_score`, scikit-learn's `decision_function` or averaged output to rounding, and
    XGBoost's `output_margin` to the rounding of its own float32 sums (each of its n_trees additions rounds to
    2^-24 of the sum so far). Raises `WrongQuestion` (see `check_rows`).
    """
    rows = np.asarray(rows)
    check_rows(ensemble, rows)
    out = np.repeat(ensemble.base[None, :], len(rows), axis=0)
    for start in range(0, len(rows), _ROWS_A_BLOCK):
        # A converted block at a time: never a float64 copy of all rows.
        block = np.ascontiguousarray(rows[start : start + _ROWS_A_BLOCK], dtype=np.float64).view()
        block.flags.writeable = False
        _walk(
            ensemble.feature, ensemble.threshold, ensemble.left, ensemble.right, ensemble.value, ensemble.mode,
            ensemble.category_start, ensemble.category_count, ensemble.category_member,
            ensemble.tree_start, ensemble.tree_output, ensemble.float32_inputs, block,
            out[start : start + _ROWS_A_BLOCK],
        )  # fmt: skip
    return out


def row_reader(ensemble: Ensemble) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """`predict` of rows that are float64[1, n_features] already, for calls that are counted in microseconds."""
    columns = category_columns(ensemble)
    walked = (
        ensemble.feature, ensemble.threshold, ensemble.left, ensemble.right, ensemble.value, ensemble.mode,
        ensemble.category_start, ensemble.category_count, ensemble.category_member, ensemble.tree_start,
        ensemble.tree_output, ensemble.float32_inputs,
    )  # fmt: skip

    def read(row: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(columns) or row.shape[1] != ensemble.n_features:
            check_rows(ensemble, row)
        seen = row.view()
        seen.flags.writeable = False
        out = ensemble.base[None, :].copy()
        _walk(*walked, seen, out)
        return np.asarray(out[0])

    return read


def apply_link(ensemble: Ensemble, raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The model's own prediction from raw[n, n_outputs], same shape: probabilities of outputs, means of counts.

    "logit:s" and, for each output by itself, "one_vs_all:s" are 1 / (1 + exp(-s raw)), s being 1 when not given;
    "log" is exp(raw); "log1p_exp" is log(1 + exp(raw)); "signed_square" is raw abs(raw); "step" is 1 where
    raw > 0; "isolation:s" is -2^(-raw / s). "probability" and "identity" change nothing.
    """
    name, _, scale = ensemble.link.partition(":")
    with np.errstate(over="ignore"):  # exp of a large raw output is inf, as in the libraries
        if name in ("logit", "one_vs_all"):
            return 1.0 / (1.0 + np.exp(-float(scale or 1.0) * raw))
        if name == "softmax":
            grown = np.exp(float(scale or 1.0) * (raw - raw.max(axis=1, keepdims=True)))
            return np.asarray(grown / grown.sum(axis=1, keepdims=True))
        if name == "log":
            return np.exp(raw)
        if name == "log1p_exp":
            return np.logaddexp(0.0, raw)
    if name == "isolation":
        return -np.exp2(-raw / float(scale))
    if name == "signed_square":
        return raw * np.abs(raw)
    if name == "step":
        return (raw > 0).astype(np.float64)
    return raw
