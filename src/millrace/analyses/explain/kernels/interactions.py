"""SHAP interaction values of tree ensembles: exact, for pairs of players that meet on some path.

For a leaf with value v, whose path asks conditions of d players, and o_k = 1 where the row meets those of player k, the
interaction value of i and j (Lundberg et al. 2018: half the Shapley interaction index of Fujimoto et al. 2006) is

    phi_ij = v / 2 * (o_i - r_i)(o_j - r_j) * integral over t in [0, 1] of the product over k != i, j of (t o_k + (1 - t) r_k)

Path-dependent, r_k is the product of the path's training fractions on k: Gauss-Legendre with floor(d / 2) points is exact.
Interventional, r_k is 1 where a background row meets the conditions, and the mean over the background is taken; the
integral is then a!c!/(a + c + 1)! of the a players that only the row meets and the c that only the background row meets.

A leaf speaks of a row only through the pattern o, so up to 10 players each pattern is computed once a block. Pairs that
meet on no path have the value 0 and are not kept. Does not compute the diagonal: it is what is left of a player's value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import DTypeLike, NDArray

from millrace.analyses.explain.kernels import trees
from millrace.analyses.explain.kernels.ensemble import Ensemble, check_rows
from millrace.analyses.explain.kernels.lanes import frozen, read_only, writable
from millrace.analyses.explain.kernels.legendre import legendre_rule
from millrace.analyses.explain.kernels.patterns import WORD, conditions
from millrace.analyses.explain.kernels.rows import columns_of
from millrace.analyses.explain.kernels.structure import Structure
from millrace.run.errors import NotSupported

MOST_PLAYED = 4096
"""Players that the trees use: their pairs are numbered in a square table."""
MEMO_PLAYERS = 10
_SUM_BYTES = 16 << 20

_INTS, _LONGS, _FLOATS, _BYTES = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint8))


def pairs_of(ensemble: Ensemble, structure: Structure) -> NDArray[np.int32]:
    """(pairs, 2) players, the smaller first, in order: those that meet on a path. Raises `NotSupported`."""
    played = len(structure.played)
    if played > MOST_PLAYED:
        raise NotSupported(
            f"Interactions of {played:,} features are more than are kept ({MOST_PLAYED:,}): explain groups of features, or "
            "a model of fewer."
        )
    at = np.flatnonzero(_marked(ensemble, structure))
    return structure.played[np.stack([at // max(played, 1), at % max(played, 1)], axis=1)].astype(np.int32)


def interaction_rows(
    ensemble: Ensemble,
    structure: Structure,
    rows: NDArray[Any],
    background: NDArray[Any] | None,
    weights: NDArray[Any] | None,
    out_dtype: DTypeLike,
) -> NDArray[Any]:
    """Interaction values [n, pairs, n_outputs] of rows[n, n_features], pairs as in `pairs_of`.

    background: None for path-dependent values. Row for row the same in any block. Scratch: `scratch_bytes`.
    """
    check_rows(ensemble, rows)
    marked = _marked(ensemble, structure)
    number = np.full(len(marked), -1, np.int32)
    count = int(marked.sum())
    number[marked] = np.arange(count, dtype=np.int32)
    out = np.zeros((len(rows), count, ensemble.n_outputs), out_dtype)
    if not count:
        return out
    most = structure.most_distinct
    start, at, rest, weight = _rules(most)
    known = np.zeros((0, ensemble.n_features)) if background is None else background
    shares = np.zeros(0) if weights is None else trees.shares(weights)
    behind = columns_of(known, structure.used, ensemble.float32_inputs, WORD)
    size = _rows_at_once(count, ensemble.n_outputs)
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        columns = columns_of(block, structure.used, ensemble.float32_inputs, WORD)
        sums = np.zeros((ensemble.n_outputs * count, columns.shape[1]))
        _add_pairs(
            ensemble.left, ensemble.value, ensemble.threshold, ensemble.mode, ensemble.category_start,
            ensemble.category_count, ensemble.category_member, ensemble.tree_start, ensemble.tree_output,
            structure.parent, structure.side, structure.slot, structure.player, structure.fraction,
            frozen(number), len(structure.played), most, frozen(start), frozen(at), frozen(rest), frozen(weight),
            frozen(_integrals(most)), frozen(behind.reshape(-1)), behind.shape[1], frozen(shares),
            frozen(columns.reshape(-1)), columns.shape[1], len(block), count, sums.reshape(-1),
        )  # fmt: skip
        each = sums.reshape(ensemble.n_outputs, count, -1)[:, :, : len(block)]
        out[first : first + size] = each.transpose(2, 1, 0)
    return out


def scratch_bytes(structure: Structure, pairs: int, n_outputs: int, most_nodes: int, background_rows: int) -> int:
    """Private bytes of `interaction_rows` beside its arguments and result. most_nodes: of a tree."""
    size, used, d = _rows_at_once(pairs, n_outputs), len(structure.used), structure.most_distinct
    memo = (8 << min(d, MEMO_PLAYERS)) * max(1, d * d // 2)
    sums = 8 * (size + WORD) * (pairs * n_outputs + used)
    bits = (most_nodes + d) * (size + background_rows + 2 * WORD) // 8
    return int(sums + bits + memo + 8 * used * (background_rows + WORD) + 5 * len(structure.played) ** 2)


def _rows_at_once(pairs: int, n_outputs: int) -> int:
    fits = _SUM_BYTES // (8 * max(pairs, 1) * n_outputs)
    return max(WORD, min(1024, 1 << max(fits, 1).bit_length() - 1))


def _rules(most: int) -> tuple[NDArray[Any], ...]:
    """Gauss-Legendre rules of 1 .. most // 2 points, one after another; start[q] is where that of q points begins."""
    start, parts = [0, 0], ([0.5], [0.5], [1.0])
    for points in range(1, most // 2 + 1):
        start[points] = len(parts[0])
        for part, more in zip(parts, legendre_rule(points), strict=True):
            part.extend(more)
        start.append(len(parts[0]))
    return np.array(start, np.int64), *(np.array(part) for part in parts)


def _integrals(most: int) -> NDArray[np.float64]:
    """[a, c]: integral of t^a (1 - t)^c = a! c! / (a + c + 1)!, flat."""
    table = np.empty((most + 1, most + 1))
    table[:, 0] = 1.0 / np.arange(1, most + 2)
    a = np.arange(most + 1)
    for c in range(1, most + 1):
        table[:, c] = table[:, c - 1] * c / (a + c + 1)
    return table.reshape(-1)


def _marked(ensemble: Ensemble, structure: Structure) -> NDArray[np.bool_]:
    """Flat [played, played]: whether players i < j meet on the path of a leaf."""
    mark = np.zeros(len(structure.played) ** 2, np.uint8)
    _mark_pairs(ensemble.left, structure.parent, structure.player, len(structure.played), mark)
    return mark.astype(bool)


@njit(types.void(_INTS, _INTS, _INTS, types.int64, writable(types.uint8)), cache=True)
def _mark_pairs(left, parent, player, n_played, mark):  # type: ignore[no-untyped-def]
    # A split meets all splits above it; that is every pair of every leaf below, at a cost of depth a node.
    for node in range(len(left)):
        if left[node] < 0:
            continue
        step = parent[node]
        while step >= 0:
            i, j = player[node], player[step]
            if i != j:
                mark[np.int64(min(i, j)) * n_played + max(i, j)] = 1
            step = parent[step]


@njit(cache=True)
def _path_pairs(d, o, ratio, rule, points, at, rest, weight, factor, out, first):  # type: ignore[no-untyped-def]
    """Path-dependent contributions of a leaf of value 1, by pair of its players, to out[first :]."""
    for q in range(rule, rule + points):
        product = 0.5 * weight[q]
        for k in range(d):
            f = at[q] * o[k] + rest[q] * ratio[k]
            if f == 0.0:
                return  # neither the row nor any training row comes here
            product *= f
            factor[k] = (o[k] - ratio[k]) / f
        place = first
        for i in range(1, d):
            share = product * factor[i]
            for j in range(i):
                out[place] += share * factor[j]
                place += 1


@njit(cache=True)
def _mixed_pairs(d, o, b, share, most, integral, out, first):  # type: ignore[no-untyped-def]
    """Adds those of one background row, or of all with this pattern b."""
    only_row, only_other = 0, 0
    for k in range(d):
        if o[k] == 0.0 and b[k] == 0.0:
            return
        only_row += o[k] > b[k]
        only_other += b[k] > o[k]
    if only_row + only_other < 2:
        return
    wide, half = most + 1, 0.5 * share
    both = half * integral[(only_row - 2) * wide + only_other] if only_row > 1 else 0.0
    none = half * integral[only_row * wide + only_other - 2] if only_other > 1 else 0.0
    mixed = -half * integral[(only_row - 1) * wide + only_other - 1] if only_row > 0 and only_other > 0 else 0.0
    place = first
    for i in range(1, d):
        for j in range(i):
            x, y = o[i] - b[i], o[j] - b[j]
            if x != 0.0 and y != 0.0:
                out[place] += mixed if x * y < 0.0 else both if x > 0.0 else none
            place += 1


@njit(
    types.void(
        *(_INTS, read_only(types.float64, 2), _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES, _LONGS, _INTS),
        *(_INTS, _BYTES, _INTS, _INTS, _FLOATS),
        *(_INTS, types.int64, types.int64, _LONGS, _FLOATS, _FLOATS, _FLOATS),
        *(_FLOATS, _FLOATS, types.int64, _FLOATS),
        *(_FLOATS, types.int64, types.int64, types.int64, writable(types.float64)),
    ),
    cache=True,
)
def _add_pairs(  # type: ignore[no-untyped-def]
    left, value, threshold, mode, category_start, category_count, category_member, tree_start, tree_output,
    parent, side, slot, player, fraction,
    number, n_played, most, rule_start, at, rest, weight,
    integral, behind, behind_stride, shares,
    columns, stride, rows, n_pairs, sums,
):  # fmt: skip
    words, other_words, others = stride // WORD, behind_stride // WORD, len(shares)
    largest = 0
    for tree in range(len(tree_output)):
        largest = max(largest, tree_start[tree + 1] - tree_start[tree])
    bits, other_bits = np.empty(largest * words, np.uint64), np.empty(largest * other_words, np.uint64)
    met, other_met = np.empty(most * words, np.uint64), np.empty(most * other_words, np.uint64)
    who, ratio = np.empty(most, np.int64), np.empty(most)
    o, b, factor = np.empty(most), np.empty(most), np.empty(most)
    memo_players = min(most, MEMO_PLAYERS)
    held, room = np.empty(1 << memo_players, np.bool_), max(memo_players * (memo_players - 1) // 2 << memo_players, 1)
    memo = np.empty(max(room, most * (most - 1) // 2))
    histogram, codes = np.empty(1 << memo_players), np.empty(rows, np.int64)
    one = np.uint64(1)
    for tree in range(len(tree_output)):
        root, last, output = tree_start[tree], tree_start[tree + 1], np.int64(tree_output[tree])
        for node in range(root, last):
            if left[node] >= 0:
                start, count = category_start[node], category_count[node]
                conditions(mode[node], threshold[node], start, count, category_member, columns,
                           np.int64(slot[node]) * stride, words, bits, (node - root) * words)  # fmt: skip
                if others:
                    conditions(mode[node], threshold[node], start, count, category_member, behind,
                               np.int64(slot[node]) * behind_stride, other_words, other_bits,
                               (node - root) * other_words)  # fmt: skip
        for leaf in range(root, last):
            if left[leaf] >= 0:
                continue
            matters = False
            for k in range(value.shape[1]):
                matters |= value[leaf, k] != 0.0
            d, step = 0, leaf
            while parent[step] >= 0 and matters:
                above = parent[step]
                k = 0
                while k < d and who[k] != player[above]:
                    k += 1
                if k == d:
                    who[k], ratio[k] = player[above], 1.0
                    met[k * words : (k + 1) * words] = ~np.uint64(0)
                    other_met[k * other_words : (k + 1) * other_words] = ~np.uint64(0)
                    d += 1
                ratio[k] *= fraction[step]
                flip = ~np.uint64(0) if side[step] else np.uint64(0)
                for w in range(words):
                    met[k * words + w] &= bits[(above - root) * words + w] ^ flip
                if others:
                    for w in range(other_words):
                        other_met[k * other_words + w] &= other_bits[(above - root) * other_words + w] ^ flip
                step = above
            if d < 2:
                continue
            pairs, short = d * (d - 1) // 2, d <= MEMO_PLAYERS
            if short:
                held[: 1 << d] = False
                if others:
                    histogram[: 1 << d] = 0.0
                    for row in range(others):
                        code = 0
                        for k in range(d):
                            bit = other_met[k * other_words + (row >> 6)] >> np.uint64(row & 63) & one
                            code |= np.int64(bit) << k
                        histogram[code] += shares[row]
            for row in range(rows):
                code = 0
                for k in range(d):
                    bit = np.int64(met[k * words + (row >> 6)] >> np.uint64(row & 63) & one)
                    o[k] = bit
                    if short:
                        code |= bit << k
                codes[row] = code
                if short and held[code]:
                    continue
                held[code] = True
                first = code * pairs
                memo[first : first + pairs] = 0.0
                if not others:
                    _path_pairs(d, o, ratio, rule_start[d // 2], d // 2, at, rest, weight, factor, memo, first)
                elif short:
                    for other in range(1 << d):
                        if histogram[other] != 0.0:
                            for k in range(d):
                                b[k] = other >> k & 1
                            _mixed_pairs(d, o, b, histogram[other], most, integral, memo, first)
                else:
                    for other in range(others):
                        for k in range(d):
                            b[k] = other_met[k * other_words + (other >> 6)] >> np.uint64(other & 63) & one
                        _mixed_pairs(d, o, b, shares[other], most, integral, memo, first)
                if not short:
                    place = 0
                    for i in range(1, d):
                        for j in range(i):
                            pair = number[min(who[i], who[j]) * n_played + max(who[i], who[j])]
                            for k in range(value.shape[1]):
                                sums[((output + k) * n_pairs + pair) * stride + row] += value[leaf, k] * memo[place]
                            place += 1
            if short:
                place = 0
                for i in range(1, d):
                    for j in range(i):
                        pair = number[min(who[i], who[j]) * n_played + max(who[i], who[j])]
                        for k in range(value.shape[1]):
                            target, v = ((output + k) * n_pairs + pair) * stride, value[leaf, k]
                            for row in range(rows):
                                sums[target + row] += v * memo[codes[row] * pairs + place]
                        place += 1
