"""What the tree kernels derive once from an ensemble: how nodes lie, which features paths meet, quadrature passes.

Plain arrays, one entry per node unless said otherwise, computed in one pass in preorder; workers map them from a
file. Holds nothing of rows or background (see `trees.Layout` and `tables`).

Passes. The quadrature walk integrates polynomials whose degree is the number of distinct features on a leaf's path
less one; Gauss-Legendre with ceil(distinct / 2) points is exact for it. One long path must not make all leaves pay
for its points, so each tree is walked in passes: a pass takes the leaves that need between a and b points, b points
for all. The cuts between passes minimise the work (nodes that a pass must visit times their cost).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble, branch_fractions
from millrace.analyses.explain.kernels.lanes import LANES, frozen, read_only, writable
from millrace.analyses.explain.kernels.legendre import legendre_rule

MASK_BITS = 64
"""Leaves that need this many points or more share the last bit of a mask."""

TABLE_FEATURES = 16
"""A table of all patterns of a path's features is never made for more of them (see `tables`)."""

ROUNDING = 2.0**-51
"""Fractions of siblings that add up to 1 within this do so but for the rounding of two divisions."""

_VISIT_COST = 3
"""Cost of visiting a node beside its points, in points (measured on trees of depth 6 to 42)."""


@dataclass(frozen=True, slots=True, repr=False)
class Structure:
    """parent: int32, -1 in a root. side: uint8, 1 for a right child. depth: int32, edges from the root.
    size: int32, nodes of the subtree. inner: int32, inner nodes of the subtree.
    distinct: int32, distinct players on the path from the root to the node.
    slot: int32, place of the node's feature in `used`; -1 in a leaf.
    player: int32, place of its player in `played`; -1 in a leaf. A player is a feature, or several that are
        explained together: what is said of conditions below holds for conjunctions of the conditions on all of them.
    previous: int32, the last node on the path down to here (this one included) whose parent splits on the same
        player as this node; -1 when the path does not meet the player above, and in leaves.
    fraction: float64, `branch_fractions`. before: float64, product of the fractions over the path's edges that
        split on this node's player; 1 when there is none, and in leaves.
    needs: uint64, bit q - 1 is set when some leaf of the subtree needs q points.
    used: int32[used features], sorted columns that the trees split on. played: int32, the sorted numbers of their
        players. players: how many there are in all, played or not.
    pass_start: int64[n_trees + 1]; pass_mask: uint64 and pass_points: int32 per pass: the leaves that it takes (by
        `needs`) and its number of points, at least one each.
    rule_start: int64[most points + 2]; rule_at, rule_rest, rule_weight: float64, the rule of q points (t, 1 - t and
        weight, see `legendre`) from rule_start[q] on; only for the q that are used, and 16 entries more at the end.
    most_depth, most_distinct: over all nodes.
    """

    parent: NDArray[np.int32]
    side: NDArray[np.uint8]
    depth: NDArray[np.int32]
    size: NDArray[np.int32]
    inner: NDArray[np.int32]
    distinct: NDArray[np.int32]
    slot: NDArray[np.int32]
    player: NDArray[np.int32]
    previous: NDArray[np.int32]
    fraction: NDArray[np.float64]
    before: NDArray[np.float64]
    needs: NDArray[np.uint64]
    used: NDArray[np.int32]
    played: NDArray[np.int32]
    pass_start: NDArray[np.int64]
    pass_mask: NDArray[np.uint64]
    pass_points: NDArray[np.int32]
    rule_start: NDArray[np.int64]
    rule_at: NDArray[np.float64]
    rule_rest: NDArray[np.float64]
    rule_weight: NDArray[np.float64]
    players: int
    most_depth: int
    most_distinct: int

    def __post_init__(self) -> None:
        for field in fields(self)[:-3]:
            object.__setattr__(self, field.name, frozen(getattr(self, field.name)))

    def __repr__(self) -> str:
        return (
            f"Structure({len(self.parent)} nodes, {len(self.used)} used features, {len(self.pass_mask)} passes, "
            f"depth {self.most_depth}, {self.most_distinct} distinct features on a path)"
        )

    @property
    def most_points(self) -> int:
        """Quadrature points of the longest pass; 0 when no tree has a split."""
        return (self.most_distinct + 1) // 2

    def arrays(self) -> dict[str, Any]:
        """Plain values by field name: what a store keeps."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, mapping: Mapping[str, Any]) -> Structure:
        """The inverse of `arrays`; arrays may be memory maps and are then not read here."""
        names = [field.name for field in fields(cls)]
        whole = {name: int(mapping[name]) for name in names[-3:]}
        return cls(**{name: mapping[name] for name in names[:-3]}, **whole)


def structure(ensemble: Ensemble, player_of: NDArray[np.int64] | None = None, players: int = 0) -> Structure:
    """Derive everything; time and memory grow with the number of nodes.

    player_of: int64[n_features], the number of each column's player, from 0 on; None: each column is its own. players: how many
    there are, when not all of them have columns.
    """
    n, n_trees = ensemble.n_nodes, ensemble.n_trees
    used = np.unique(ensemble.feature[ensemble.feature >= 0]).astype(np.int32)
    slot = np.where(ensemble.feature >= 0, np.searchsorted(used, ensemble.feature), -1).astype(np.int32)
    owner = np.arange(ensemble.n_features) if player_of is None else np.asarray(player_of, np.int64)
    played = np.unique(owner[used]).astype(np.int32)
    player = np.where(slot >= 0, np.searchsorted(played, owner[np.maximum(ensemble.feature, 0)]), -1).astype(np.int32)
    fraction = branch_fractions(ensemble)
    ints = {name: np.zeros(n, np.int32) for name in ("depth", "size", "inner", "distinct")}
    nearest = {name: np.full(n, -1, np.int32) for name in ("parent", "previous")}
    side, before, needs = np.zeros(n, np.uint8), np.ones(n), np.zeros(n, np.uint64)
    _derive(
        ensemble.left, ensemble.right, ensemble.tree_start, frozen(player), len(played), frozen(fraction),
        nearest["parent"], side, ints["depth"], ints["size"], ints["inner"], ints["distinct"], nearest["previous"],
        before, needs,
    )  # fmt: skip
    distinct = ints["distinct"]
    pass_mask, pass_points = np.zeros(n + n_trees, np.uint64), np.zeros(n + n_trees, np.int32)
    pass_start = np.zeros(n_trees + 1, np.int64)
    _cut(ensemble.left, ensemble.tree_start, frozen(distinct), frozen(needs), pass_start, pass_mask, pass_points)
    n_passes = int(pass_start[-1])
    most_distinct = int(distinct.max(initial=0))
    return Structure(
        **_rules(set(pass_points[:n_passes].tolist()) | set(range(1, _table_points(most_distinct) + 1))),
        **ints, **nearest, side=side, slot=slot, player=player, fraction=fraction, before=before, needs=needs, used=used,
        played=played, players=max(players, int(owner.max(initial=-1)) + 1),
        pass_start=pass_start, pass_mask=pass_mask[:n_passes].copy(), pass_points=pass_points[:n_passes].copy(),
        most_depth=int(ints["depth"].max(initial=0)), most_distinct=most_distinct,
    )  # fmt: skip


def _table_points(most_distinct: int) -> int:
    return (min(most_distinct, TABLE_FEATURES) + 1) // 2


def _rules(counts: set[int]) -> dict[str, NDArray[Any]]:
    """The Gauss-Legendre rules of the given numbers of points, one after another."""
    start = np.zeros(max(counts, default=0) + 2, np.int64)
    parts: tuple[list[float], ...] = ([], [], [])
    for count in range(1, len(start) - 1):
        start[count] = len(parts[0])
        if count in counts:
            for part, more in zip(parts, legendre_rule(count), strict=True):
                part.extend(more)
    start[-1] = len(parts[0])
    # Kernels read a rule 16 entries at a time.
    at, rest, weight = (np.array(part + [0.5] * LANES) for part in parts)
    return {"rule_start": start, "rule_at": at, "rule_rest": rest, "rule_weight": weight}


_INTS, _LONGS, _FLOATS, _MASKS = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint64))
_NEW_INTS, _NEW_LONGS, _NEW_BYTES, _NEW_FLOATS, _NEW_MASKS = (
    writable(dtype) for dtype in (types.int32, types.int64, types.uint8, types.float64, types.uint64)
)


@njit(
    types.void(
        *(_INTS, _INTS, _LONGS, _INTS, types.int64, _FLOATS),
        *(_NEW_INTS, _NEW_BYTES, *[_NEW_INTS] * 5, _NEW_FLOATS, _NEW_MASKS),
    ),
    cache=True,
)
def _derive(  # type: ignore[no-untyped-def]
    left, right, tree_start, player, n_played, fraction,
    parent, side, depth, size, inner, distinct, previous, before, needs,
):  # fmt: skip
    n = len(left)
    for node in range(n):
        if left[node] >= 0:
            for child in (left[node], right[node]):
                parent[child] = node
                depth[child] = depth[node] + 1
            side[right[node]] = 1
    # The last edge of each player on the way down to the current node, with what each edge replaced, so that
    # leaving a subtree undoes its edges: linear in the nodes however long the paths.
    latest = np.full(n_played, -1, np.int32)
    replaced = np.empty(depth.max() + 1 if n else 1, np.int32)
    edges = np.empty(len(replaced), np.int32)
    share = np.ones(n)  # product of the fractions of the feature split above a node, that node's edge included
    for tree in range(len(tree_start) - 1):
        deep = 0
        for node in range(tree_start[tree], tree_start[tree + 1]):
            while deep > 0 and deep >= depth[node]:
                latest[player[parent[edges[deep]]]] = replaced[deep]
                deep -= 1
            above = parent[node]
            if above >= 0:
                deep += 1
                edges[deep] = node
                replaced[deep] = latest[player[above]]
                latest[player[above]] = node
                distinct[node] = distinct[above] + (replaced[deep] < 0)
                share[node] = before[above] * fraction[node]
            if left[node] >= 0:
                previous[node] = latest[player[node]]
                if previous[node] >= 0:
                    before[node] = share[previous[node]]
        while deep > 0:
            latest[player[parent[edges[deep]]]] = replaced[deep]
            deep -= 1
    for node in range(n - 1, -1, -1):
        size[node] += 1
        if left[node] >= 0:
            inner[node] += 1
        else:
            points = min((distinct[node] + 1) // 2, MASK_BITS)
            if points > 0:
                needs[node] = np.uint64(1) << np.uint64(points - 1)
        if parent[node] >= 0:
            size[parent[node]] += size[node]
            inner[parent[node]] += inner[node]
            needs[parent[node]] |= needs[node]


@njit(types.void(_INTS, _LONGS, _INTS, _MASKS, _NEW_LONGS, _NEW_MASKS, _NEW_INTS), cache=True)
def _cut(left, tree_start, distinct, needs, pass_start, pass_mask, pass_points):  # type: ignore[no-untyped-def]
    """Cheapest partition of each tree's point counts into consecutive passes, by dynamic programming."""
    one = np.uint64(1)
    # visits[a, b]: inner nodes whose leaves need b points next, counting up from a.
    visits = np.empty((MASK_BITS + 2, MASK_BITS + 2), np.int64)
    best = np.empty(MASK_BITS + 2, np.int64)
    end = np.empty(MASK_BITS + 2, np.int64)
    made = 0
    for tree in range(len(tree_start) - 1):
        first, last = tree_start[tree], tree_start[tree + 1]
        most = 0
        for node in range(first, last):
            most = max(most, (distinct[node] + 1) // 2)
        top = min(most, MASK_BITS)
        visits[: top + 2, : top + 2] = 0
        for node in range(first, last):
            if left[node] >= 0:
                upcoming = -1
                for a in range(top, 0, -1):
                    if needs[node] >> np.uint64(a - 1) & one:
                        upcoming = a
                    if upcoming > 0:
                        visits[a, upcoming] += 1
        best[top + 1] = 0
        for a in range(top, 0, -1):
            best[a] = np.iinfo(np.int64).max
            active = 0
            for b in range(a, top + 1):
                active += visits[a, b]
                points = most if b == MASK_BITS else b
                cost = active * (_VISIT_COST + points) + best[b + 1]
                if cost < best[a]:
                    best[a] = cost
                    end[a] = b
        a = 1
        while a <= top:
            b = end[a]
            mask = np.uint64(0)
            for points in range(a, b + 1):
                mask |= one << np.uint64(points - 1)
            if mask & needs[first]:
                pass_mask[made] = mask
                pass_points[made] = most if b == MASK_BITS else b
                made += 1
            a = b + 1
        pass_start[tree + 1] = made
