"""LightGBM's text model format -> `Ensemble`.

Reads the text that `Booster.model_to_string()` and `save_model` write, not the JSON dump: LightGBM takes longer to
write that dump and Python to read it than everything else in an explanation of a thousand rows. Numbers of one kind
are parsed for all trees in one call. Needs numpy alone: a model file is read without the package `lightgbm`.

What LightGBM predicts and this matches (its `c_api.cpp` and `tree.h`): abs(x) <= 1e-35 is read as 0; a NaN is 0
unless the split's missing type is NaN; missing type Zero sends 0 and NaN the default way; a category set sends
members left and everything else right; dart's weights are in the leaves already. A random forest (boosting=rf)
predicts from the mean of its trees, and so does the ensemble; LightGBM's `raw_score` and `pred_contrib` of a forest
are the sum. Covers are row counts (`leaf_count`, `internal_count`), which is what `pred_contrib` uses, not the
hessian sums in `leaf_weight`.

Not here: `linear_tree` (refused by name), early stopping of predictions (`pred_early_stop`, which changes the output
from row to row and so shows in the additivity check).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.assemble import MOST_OUTPUTS, Nodes, assemble
from millrace.analyses.explain.kernels.ensemble import ZERO, Ensemble
from millrace.run.errors import ModelTrouble, NotSupported

_LINKS = {
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "custom": "identity",
    "none": "identity",
    "poisson": "log",
    "gamma": "log",
    "tweedie": "log",
    "cross_entropy": "logit",
    "cross_entropy_lambda": "log1p_exp",
    "multiclass": "softmax",
    "multiclassova": "one_vs_all",
    "binary": "logit",
}
_INNER = ("split_feature", "threshold", "decision_type", "left_child", "right_child", "internal_count")
_LEAF = ("leaf_value", "leaf_count")
_REAL = ("threshold", "leaf_value")
_TREE = ("num_leaves", "num_cat", *_INNER, *_LEAF, "cat_boundaries", "cat_threshold", "is_linear")


def read_lightgbm(model: Any) -> Ensemble:
    """Read a Booster (anything with `model_to_string`) or the text of a model file.

    A Booster gives the iterations that its own `predict` uses: all of them, or up to `best_iteration` where that is
    set; a text gives all that it holds. Raises `NotSupported` (linear leaves, an objective of unknown link) and
    `ModelTrouble` (not a LightGBM text model, cut short, damaged).
    """
    # With no argument `model_to_string` stops at best_iteration exactly as `predict` does.
    text = model if isinstance(model, str) else model.model_to_string()
    head, lines, n_trees = _split(text)
    per_iteration = _whole(head, "num_tree_per_iteration")
    if not 1 <= per_iteration <= max(n_trees, MOST_OUTPUTS) or n_trees % per_iteration:
        raise ModelTrouble(
            f"The LightGBM model has {n_trees} trees, which is not a multiple of {per_iteration} trees an "
            "iteration; the file is cut short. Save the model anew."
        )
    n_iterations = n_trees // per_iteration
    if any(flag.strip() not in ("", "0") for flag in lines["is_linear"]):
        raise NotSupported(
            "LightGBM's linear_tree (a linear model in each leaf) is not supported: tree kernels need constant "
            "leaves. Fit with linear_tree=false, or explain the model with method='kernel'."
        )
    nodes, root = _nodes(lines)
    if "average_output" in head:
        nodes = dataclasses.replace(nodes, value=nodes.value / max(n_iterations, 1))
    link = _link(head.get("objective", "custom"))
    return assemble(
        nodes,
        root,
        np.tile(np.arange(per_iteration), n_iterations),
        np.zeros(per_iteration),
        n_features=_whole(head, "max_feature_idx") + 1,
        float32_inputs=False,
        link=link,
        output_names=("output",) if per_iteration == 1 else tuple(str(k) for k in range(per_iteration)),
    )


def _split(text: str) -> tuple[dict[str, str], dict[str, list[str]], int]:
    """(header, lines by key with one entry a tree, number of trees)."""
    first, _, body = text.partition("\nTree=0\n")
    if not first.startswith("tree\n") or "\nend of trees" not in text:
        raise ModelTrouble(
            "This is not a whole LightGBM model: the text must begin with 'tree' and hold 'end of trees'. Save it "
            "with booster.save_model(path) and pass that file."
        )
    head = {}
    for line in first.partition("\nend of trees")[0].split("\n"):
        key, _, rest = line.partition("=")
        head[key] = rest
    lines: dict[str, list[str]] = {key: [] for key in _TREE}
    blocks = body.partition("\nend of trees")[0].split("\nTree=") if body else []
    for block in blocks:
        found = dict(line.partition("=")[::2] for line in block.split("\n"))
        for key in _TREE:
            lines[key].append(found.get(key, ""))
    return head, lines, len(blocks)


def _whole(head: dict[str, str], key: str) -> int:
    try:
        return int(head[key])
    except (KeyError, ValueError) as error:
        raise ModelTrouble(
            f"The LightGBM model's header has no number {key!r}; the file is damaged. Save the model anew."
        ) from error


def _numbers(lines: dict[str, list[str]], key: str, expected: int) -> NDArray[Any]:
    """All trees' values of one key, in tree order: float64 for thresholds and leaves, else int64."""
    joined = " ".join(lines[key])
    try:
        if key in _REAL:
            numbers = np.array(list(map(float, joined.split())), dtype=np.float64)
        else:
            # Ten times as fast as int() of each piece, but it only warns at what is no number: looked at before.
            if joined.strip("0123456789 -"):
                raise ValueError("not whole numbers")
            numbers = np.fromstring(joined, dtype=np.int64, sep=" ") if joined.strip() else np.zeros(0, np.int64)
    except (ValueError, DeprecationWarning) as error:
        raise ModelTrouble(
            f"The LightGBM model's {key!r} cannot be read ({error}); the file is damaged. Save the model anew."
        ) from error
    if len(numbers) != expected:
        raise ModelTrouble(
            f"The LightGBM model has {len(numbers)} values of {key!r} where its trees need {expected}; the file is "
            "damaged. Save the model anew."
        )
    return numbers


def _nodes(lines: dict[str, list[str]]) -> tuple[Nodes, NDArray[np.int64]]:
    """All splits of all trees, then all leaves; and the roots."""
    n_trees = len(lines["num_leaves"])
    n_leaves = _numbers(lines, "num_leaves", n_trees)
    if n_trees and n_leaves.min() < 1:
        raise ModelTrouble("The LightGBM model has a tree without leaves; the file is damaged.")
    n_inner = n_leaves - 1
    inners, leaves = int(n_inner.sum()), int(n_leaves.sum())
    # Trees of one leaf may come without a count; nothing ever divides by it.
    lines["leaf_count"] = [
        count or ("1" if n == 1 else "") for count, n in zip(lines["leaf_count"], n_leaves, strict=True)
    ]
    split = {key: _numbers(lines, key, inners) for key in _INNER}
    leaf = {key: _numbers(lines, key, leaves) for key in _LEAF}
    first_inner = np.repeat(np.cumsum(n_inner) - n_inner, n_inner)
    first_leaf = np.repeat(inners + np.cumsum(n_leaves) - n_leaves, n_inner)

    def child(side: str) -> NDArray[np.int64]:
        own = split[side]
        allowed = (own < np.repeat(n_inner, n_inner)) & (~own < np.repeat(n_leaves, n_inner))
        # 1 << 40 is no node, so `assemble` says that the trees are damaged.
        return np.where(allowed, np.where(own >= 0, first_inner + own, first_leaf + ~own), 1 << 40)

    rule = split["decision_type"]
    start, count, member = _sets(lines, rule & 1 == 1, split["threshold"], np.repeat(np.arange(n_trees), n_inner))

    def padded(inner: NDArray[Any], fill: NDArray[Any] | float) -> NDArray[Any]:
        return np.concatenate([inner, np.broadcast_to(fill, leaves)])

    nodes = Nodes(
        feature=padded(split["split_feature"], -1),
        threshold=padded(_off_zero(split["threshold"]), 0.0),
        left=padded(child("left_child"), -1),
        right=padded(child("right_child"), -1),
        value=np.concatenate([np.zeros(inners), leaf["leaf_value"]])[:, None],
        cover=np.concatenate([split["internal_count"], leaf["leaf_count"]]),
        mode=padded(_modes(rule, split["threshold"]), 0),
        category_start=padded(start, 0),
        category_count=padded(count, 0),
        category_member=member,
    )
    root = np.where(n_inner > 0, np.cumsum(n_inner) - n_inner, inners + np.cumsum(n_leaves) - n_leaves)
    return nodes, root


def _off_zero(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds that send -ZERO .. ZERO as one: LightGBM puts 0 for all of it before it looks at a tree."""
    beside = np.where(threshold >= 0, ZERO, np.nextafter(-ZERO, -np.inf))
    return np.where(np.abs(threshold) <= ZERO, beside, threshold)


def _modes(rule: NDArray[np.int64], threshold: NDArray[np.float64]) -> NDArray[np.int64]:
    """`decision_type`: bit 0 category, bit 1 default left, bits 2-3 missing type (0 none, 1 zero, 2 NaN)."""
    default_left, missing = (rule >> 1) & 1, (rule >> 2) & 3
    # Without a missing type a NaN is read as 0, and so goes where 0 goes.
    when_none = (threshold >= 0).astype(np.int64)
    numeric = np.choose(np.minimum(missing, 2), [when_none, 2 + default_left, default_left])
    return np.where(rule & 1 == 1, 4, numeric)


def _sets(
    lines: dict[str, list[str]],
    is_category: NDArray[np.bool_],
    threshold: NDArray[np.float64],
    tree: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Category sets: a split's threshold is its number in its tree; set i of a tree is the 32-bit words
    cat_boundaries[i] .. cat_boundaries[i + 1] of cat_threshold, lowest bit first."""
    start = np.zeros(len(threshold), np.int64)
    count = np.zeros(len(threshold), np.int64)
    if not is_category.any():
        return start, count, np.zeros(1, np.uint8)
    n_sets = _numbers(lines, "num_cat", len(lines["num_cat"]))
    bounds_a_tree = np.where(n_sets > 0, n_sets + 1, 0)
    bounds = _numbers(lines, "cat_boundaries", int(bounds_a_tree.sum()))
    first_bound = np.cumsum(bounds_a_tree) - bounds_a_tree
    words_a_tree = np.where(n_sets > 0, bounds[np.minimum(first_bound + n_sets, len(bounds) - 1)], 0)
    words = _numbers(lines, "cat_threshold", int(words_a_tree.sum()))
    first_word = np.cumsum(words_a_tree) - words_a_tree
    at = np.flatnonzero(is_category)
    owner = tree[at]
    if not ((threshold[at] >= 0) & (threshold[at] < n_sets[owner])).all():
        raise ModelTrouble("The LightGBM model names a category set that it does not hold; the file is damaged.")
    number = threshold[at].astype(np.int64)
    low, high = bounds[first_bound[owner] + number], bounds[first_bound[owner] + number + 1]
    start[at], count[at] = 32 * (first_word[owner] + low), 32 * (high - low)
    return start, count, np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")


def _link(objective: str) -> str:
    """LightGBM's objective as its header has it: a name, then "sqrt", "sigmoid:2" and the like."""
    name, *options = objective.split()
    if name not in _LINKS:
        raise NotSupported(
            f"LightGBM's objective {name!r} is not known here, so it is not known what its raw output means. "
            "Explain the model with method='kernel'."
        )
    link = _LINKS[name]
    if "sqrt" in options:
        return "signed_square"
    sigmoid = [option.partition(":")[2] for option in options if option.startswith("sigmoid:")]
    if link in ("logit", "one_vs_all") and sigmoid and float(sigmoid[0]) != 1.0:
        return f"{link}:{float(sigmoid[0])!r}"
    return link
