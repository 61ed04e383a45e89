"""From a library's nodes to an `Ensemble`: preorder, plain leaves, category sets, and the checks of a sound model.

What all parsers share. Everything is done for all trees at once, level by level, so no loop in Python goes over
nodes. Does not know any library (see `lightgbm`, `xgboost`, `sklearn_trees`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble
from millrace.run.errors import ModelTrouble, NotSupported

MOST_OUTPUTS = 10_000
"""A model without trees may not claim more: a damaged count must not ask for the memory of a billion outputs."""

_MEMBER_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes in any order, as a parser finds them: fields as in `Ensemble`, children as indices into these arrays.

    What no root reaches (XGBoost keeps pruned nodes) is left out by `assemble`. `category_member` is not indexed
    by node: each node names its piece by start and count.
    """

    feature: NDArray[Any]
    threshold: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]
    value: NDArray[Any]
    cover: NDArray[Any]
    mode: NDArray[Any]
    category_start: NDArray[Any]
    category_count: NDArray[Any]
    category_member: NDArray[np.uint8]


def assemble(
    nodes: Nodes,
    root: NDArray[Any],
    tree_output: NDArray[Any],
    base: NDArray[Any],
    *,
    n_features: int,
    float32_inputs: bool,
    link: str,
    output_names: tuple[str, ...],
) -> Ensemble:
    """Put the nodes of trees with the given roots into preorder, leaves into their plain form, and check them.

    Raises `ModelTrouble` when they are not binary trees over columns 0 .. n_features - 1 with finite values.
    """
    tree_output = np.asarray(tree_output, np.int64)
    if tree_output.size and not 0 <= tree_output.min() <= tree_output.max() <= len(output_names) - nodes.value.shape[1]:
        raise ModelTrouble(
            f"The model has trees for outputs outside 0 .. {len(output_names) - 1}; the model is damaged. Save it anew."
        )
    left, right = np.asarray(nodes.left, np.int64), np.asarray(nodes.right, np.int64)
    order, tree_start = _preorder(left, right, root)
    place = np.full(len(left), -1, np.int64)
    place[order] = np.arange(len(order))
    leaf = left[order] < 0
    feature = np.where(leaf, -1, np.asarray(nodes.feature)[order])
    value = np.where(leaf[:, None], np.asarray(nodes.value, np.float64)[order], 0.0)
    threshold = np.where(leaf, 0.0, np.asarray(nodes.threshold, np.float64)[order])
    cover = np.asarray(nodes.cover, np.float64)[order]
    if np.any((feature < 0) != leaf) or np.any(feature >= n_features):
        raise ModelTrouble(
            f"The model's trees split on columns outside 0 .. {n_features - 1}; the model is damaged. Save it anew."
        )
    if not (np.isfinite(value).all() and np.isfinite(cover).all() and (cover >= 0).all()):
        raise ModelTrouble(
            "The model has leaves or node weights that are not finite (or weights below 0), so its output has no "
            "meaning. Look at its training: an exploding objective, infinite labels or negative sample weights."
        )
    start, count = (np.asarray(part, np.int64)[order] for part in (nodes.category_start, nodes.category_count))
    length = len(nodes.category_member)
    if not ((start >= 0) & (count >= 0) & (start <= length) & (count <= length - start)).all():
        raise ModelTrouble("The model has category sets that are cut short; the model is damaged. Save it anew.")
    if np.isnan(threshold).any():
        raise ModelTrouble("The model has a split at NaN; the model is damaged. Save it anew.")
    return Ensemble(
        feature=feature.astype(np.int32),
        threshold=threshold,
        left=np.where(leaf, -1, place[left[order]]).astype(np.int32),
        right=np.where(leaf, -1, place[right[order]]).astype(np.int32),
        value=value,
        cover=cover,
        mode=np.where(leaf, 0, np.asarray(nodes.mode)[order]).astype(np.uint8),
        category_start=np.where(leaf, 0, start),
        category_count=np.where(leaf, 0, count),
        category_member=nodes.category_member if nodes.category_member.size else np.zeros(1, np.uint8),
        tree_start=tree_start,
        tree_output=tree_output,
        base=np.asarray(base, np.float64),
        n_features=n_features,
        n_outputs=len(output_names),
        float32_inputs=float32_inputs,
        link=link,
        output_names=output_names,
    )


def _preorder(
    left: NDArray[np.int64], right: NDArray[np.int64], root: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(order, tree_start): order[new] is the old index. Three hundred trees of 31 leaves take a millisecond."""
    n_nodes = len(left)
    root = np.asarray(root, np.int64)
    level = root
    levels: list[NDArray[np.int64]] = []
    reached = 0
    while level.size:
        reached += len(level)
        if reached > n_nodes or level.min() < 0 or level.max() >= n_nodes:
            raise ModelTrouble(
                "The model's nodes do not form trees (a child is missing, or is its own ancestor); the model is "
                "damaged. Save it anew."
            )
        levels.append(level)
        inner = level[left[level] >= 0]
        level = np.concatenate([left[inner], right[inner]])
    size = np.ones(n_nodes, np.int64)
    for level in reversed(levels):
        inner = level[left[level] >= 0]
        size[inner] += size[left[inner]] + size[right[inner]]
    tree_start = np.concatenate([[0], np.cumsum(size[root])]).astype(np.int64)
    place = np.full(n_nodes, -1, np.int64)
    place[root] = tree_start[:-1]
    for level in levels:
        inner = level[left[level] >= 0]
        place[left[inner]] = place[inner] + 1
        place[right[inner]] = place[inner] + 1 + size[left[inner]]
    order = np.full(reached, -1, np.int64)
    kept = np.flatnonzero(place >= 0)
    if len(kept) != reached:
        raise ModelTrouble("The model's trees share nodes; the model is damaged. Save it anew.")
    order[place[kept]] = kept
    return order, tree_start


def member_sets(
    nodes: NDArray[Any], length: NDArray[Any], members: NDArray[Any], n_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """(category_start, category_count, category_member) when node nodes[k] has the next length[k] of `members`.

    A set takes one byte for each code up to its largest; `NotSupported` when codes are so large that all sets
    together would take more than 1 GiB.
    """
    start, count = np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.int64)
    members, length = np.asarray(members, np.int64), np.asarray(length, np.int64)
    owner = np.repeat(np.asarray(nodes, np.int64), length)
    alone = len(np.unique(nodes)) == len(length)
    if not alone or len(owner) != len(members) or (members.size and members.min() < 0):
        raise ModelTrouble("The model's category sets are not lists of codes; the model is damaged. Save it anew.")
    np.maximum.at(count, owner, members + 1)
    total = int(count.sum())
    if total > _MEMBER_BYTES:
        raise NotSupported(
            f"The model's category codes go up to {int(members.max())}, and sets over them in {len(length)} nodes "
            f"would take {total / 2**30:.1f} GiB. Number the categories 0, 1, 2, ... before fitting."
        )
    start[nodes] = np.cumsum(count[nodes]) - count[nodes]
    member = np.zeros(max(total, 1), np.uint8)
    member[start[owner] + members] = 1
    return start, count, member
