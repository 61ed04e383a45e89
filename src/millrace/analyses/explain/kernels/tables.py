"""Interventional SHAP values from tables: which subtrees get one, and how a table is made.

For a leaf with d distinct features on its path let A be the features whose conditions a row meets, and M those whose
conditions a background row misses. The leaf is reached by a mixture of the two only when every condition is met by
the one taken, and its contribution (value v, weight h(M) of the background rows with that M; Lundberg et al. 2020)
depends on the row only through A:

    j in A:      v * sum over M within A, j in M, of h(M) (|M| - 1)! m! / (|M| + m)!       where m = d - |A|
    j not in A: -v * sum over M within A           of h(M) |M|! (m - 1)! / (|M| + m)!

So a table over the 2^d patterns A gives a row's values by look-up, whatever the size of the background: 10,000
background rows enter as a histogram h. The factorials are integrals of t^x (1 - t)^y, exact by Gauss-Legendre, and
at a point t one subset sum F(A) = sum over M within A, M not empty, of h(M) t^(|M| - 1) yields all of them:

    gain(A) = integral (1 - t)^m F(A)       keep(A) = integral (1 - t)^(m - 1) F(A)
    loss(A) = integral (1 - t)^(m - 1) (t F(A) + h(empty)) = keep(A) - gain(A) + h(empty) / m
    j in A: v (gain(A) - keep(A less j));      j not in A: -v loss(A)

Two kinds of table are kept. A SINGLE leaf's three arrays serve all its features and outputs with 3 * 2^d numbers. A
GROUP is a whole subtree: one bit for each distinct feature of the path above it and one for each of its splits, and
one column per feature and output, its leaves added up; a few look-ups then serve many leaves. PAIRS of row and
background patterns (see `pairs`), with the background's
patterns merged or not, take the leaves that are too wide, or not worth a table. `choose_items` picks by a
cost that knows only shapes: rows, background rows, the trees; so the choice is the same on every host.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.items import GROUP, GROUP_BITS, PAIRS, SINGLE
from millrace.analyses.explain.kernels.lanes import LANES, aligned_zeros, load, read_only, store, writable
from millrace.analyses.explain.kernels.structure import TABLE_FEATURES

# Costs in nanoseconds, measured at blocks of 1,024 rows; only their ratios matter.
_ITEM, _BIT, _LOOK_UP, _SINGLE_LOOK_UP = 0.5, 0.04, 0.8, 1.4  # a row: an item, a bit of it, a look-up
_MIX = 0.7  # building: a number of one leaf's table, or of its share in a group's column
_PAIR_ITEM, _PAIR_FEATURE, _PAIR_PATTERN = 40.0, 6.0, 0.02  # a row: a leaf, its features, its patterns' features
_PAIR_HIT, _PAIR_ADD = 4.0, 1.0  # a row: a pattern that meets it, a sum
_PAIR_MERGE, _PAIR_HASH, _PAIR_BLOCK = 0.5, 8.0, 1024  # a background row, its features, in every block of rows

_INTS, _LONGS, _FLOATS, _BYTES = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint8))


@njit(cache=True)
def _columns(node, left, parent, size, player, stamp):  # type: ignore[no-untyped-def]
    """(players that the path to the node or its subtree splits on, leaves of the subtree)."""
    columns, leaves, step = 0, 0, node
    while parent[step] >= 0:
        step = parent[step]
        if stamp[player[step]] != node:
            stamp[player[step]] = node
            columns += 1
    for step in range(node, node + size[node]):
        if left[step] < 0:
            leaves += 1
        elif stamp[player[step]] != node:
            stamp[player[step]] = node
            columns += 1
    return columns, leaves


@njit(
    types.int64(
        *(_INTS, _INTS, read_only(types.float64, 2), _INTS, _INTS, _INTS, _INTS, _INTS, _FLOATS),
        *(types.int64, types.float64, types.float64, types.int64, types.float64),
        *(writable(types.int32), writable(types.uint8), writable(types.int64)),
    ),
    cache=True,
)
def choose_items(  # type: ignore[no-untyped-def]
    left, right, value, parent, size, inner, distinct, player, fraction,
    n_played, rows, background, itemsize, byte_price, item_node, item_kind, item_bytes,
):  # fmt: skip
    """Cover every leaf that matters by one item; returns how many. Items come in preorder.

    The cheapest cover, bottom-up: a subtree as one group, or its two halves. `byte_price`: nanoseconds that a byte
    of table costs (to write, and to read again for every block of rows).
    """
    n, width = len(left), value.shape[1]
    cost, kind = np.zeros(n), np.full(n, 255, np.uint8)
    bytes_of = np.zeros(n, np.int64)
    stamp = np.full(n_played, -1, np.int64)
    share = np.ones(n_played)  # of the features on a path, the product of their fractions
    for node in range(n - 1, -1, -1):
        best = np.inf
        if left[node] >= 0:
            best = cost[left[node]] + cost[right[node]]
            bits = distinct[node] + inner[node]
            if bits > GROUP_BITS or best == 0.0:
                cost[node] = best
                continue
            columns, leaves = _columns(node, left, parent, size, player, stamp)
            numbers = np.float64(columns * width << bits)
            size_bytes = np.int64(numbers) * itemsize
            price = rows * (_ITEM + bits * _BIT + columns * width * _LOOK_UP) + byte_price * size_bytes
            price += leaves * (1 << bits) * (_MIX * distinct[node] * width + 4.0) + background * bits * _BIT
            if price < best:
                best, kind[node], bytes_of[node] = price, GROUP, size_bytes
        else:
            d = np.int64(distinct[node])
            matters = False
            for k in range(width):
                matters |= value[node, k] != 0.0
            if d == 0 or not matters:
                continue
            # Pairs, going by the training data: a row and a background row meet at the leaf with the chance that one
            # of them meets each feature's conditions; distinct background patterns are some 2^entropy.
            chance, entropy, step = 1.0, 2.0, node
            while parent[step] >= 0:
                share[player[parent[step]]] = 1.0
                step = parent[step]
            step = node
            while parent[step] >= 0:
                share[player[parent[step]]] *= fraction[step]
                step = parent[step]
            step = node
            while parent[step] >= 0:
                feature = player[parent[step]]
                chance *= 1.0 - (1.0 - share[feature]) ** 2
                spread = 4.0 * share[feature] * (1.0 - share[feature])
                entropy += np.sqrt(spread * np.sqrt(spread))  # near the entropy in bits, with no logarithm's last bit
                share[feature] = 1.0  # each feature counts once
                step = parent[step]
            blocks = np.ceil(rows / _PAIR_BLOCK)
            for merged in range(2):
                patterns, price = background, blocks * background * (d * _PAIR_MERGE + _PAIR_HASH)
                if merged:
                    patterns = min(background, np.float64(np.int64(1) << np.int64(min(entropy, d, 60.0))))
                else:
                    price = 0.0
                hits = patterns * chance
                price += rows * (_PAIR_ITEM + d * _PAIR_FEATURE + patterns * d * _PAIR_PATTERN)
                price += rows * (hits * _PAIR_HIT * (1 + d // 16) + min(1.0, hits) * d * width * _PAIR_ADD)
                if price < best:
                    best, kind[node] = price, PAIRS + merged
            if d <= TABLE_FEATURES:
                size_bytes = np.int64(3 << d) * itemsize
                price = rows * (_ITEM + d * _BIT + (d * width + 2) * _SINGLE_LOOK_UP) + byte_price * size_bytes
                price += (1 << d) * _MIX * (d + 3) * ((d + 1) // 2) + background * d * _BIT
                if price < best:
                    best, kind[node], bytes_of[node] = price, SINGLE, size_bytes
        cost[node] = best
    made, node = 0, 0
    while node < n:
        if kind[node] == 255:
            node += 1
            continue
        item_node[made], item_kind[made], item_bytes[made] = node, kind[node], bytes_of[node]
        made += 1
        node += size[node]
    return made


@njit(
    types.UniTuple(types.int64, 2)(
        *(_INTS, _BYTES, _INTS, _BYTES, _INTS, _INTS, _INTS, _INTS, types.int64, types.int64),
        *(writable(types.int64), writable(types.int64), writable(types.int32), writable(types.int32)),
        *(writable(types.int32), writable(types.int32), writable(types.uint8), writable(types.int32)),
    ),
    cache=True,
)
def list_literals(  # type: ignore[no-untyped-def]
    item_node, item_kind, left, side, parent, size, depth, player, n_played, most_depth,
    literal_start, column_start, item_bits, literal_bit, literal_node, literal_row, literal_right, column_player,
):  # fmt: skip
    """For each item its bits, as conjunctions of literals, and its columns; returns how many literals and columns.

    Bit b of an item is set where a row meets all its literals: goes to the right at the node if `literal_right`,
    else to the left. The path's features come first, a bit and a column each; then, in a group, a bit for each
    split (set: left) in preorder, and a column for each feature that the path does not have. `literal_row` is where
    the node's condition bits lie while the item is worked on: its depth, or after all depths for a group's splits.
    """
    stamp, bit_of = np.full(n_played, -1, np.int64), np.zeros(n_played, np.int32)
    literals, columns = 0, 0
    for item in range(len(item_node)):
        node = item_node[item]
        bits, step = 0, node
        while parent[step] >= 0:
            above = parent[step]
            feature = player[above]
            if stamp[feature] != item:
                stamp[feature] = item
                bit_of[feature] = bits
                column_player[columns] = feature
                bits += 1
                columns += 1
            literal_bit[literals], literal_node[literals] = bit_of[feature], above
            literal_row[literals], literal_right[literals] = depth[above], side[step]
            literals += 1
            step = above
        if item_kind[item] == GROUP:
            row = most_depth
            for step in range(node, node + size[node]):
                if left[step] < 0:
                    continue
                if stamp[player[step]] != item:
                    stamp[player[step]] = item
                    column_player[columns] = player[step]
                    columns += 1
                literal_bit[literals], literal_node[literals] = bits, step
                literal_row[literals], literal_right[literals] = row, 0
                literals += 1
                bits += 1
                row += 1
        # By bit, stable: literals of one feature are scattered over the path.
        for place in range(literal_start[item] + 1, literals):
            bit, at = literal_bit[place], literal_node[place]
            row_, right_ = literal_row[place], literal_right[place]
            k = place - 1
            while k >= literal_start[item] and literal_bit[k] > bit:
                literal_bit[k + 1], literal_node[k + 1] = literal_bit[k], literal_node[k]
                literal_row[k + 1], literal_right[k + 1] = literal_row[k], literal_right[k]
                k -= 1
            literal_bit[k + 1], literal_node[k + 1] = bit, at
            literal_row[k + 1], literal_right[k + 1] = row_, right_
        item_bits[item] = bits
        literal_start[item + 1], column_start[item + 1] = literals, columns
    return literals, columns


@njit(cache=True)
def _add_subsets(d, sums):  # type: ignore[no-untyped-def]
    """sums[A] becomes the sum over all subsets of A, for patterns of d bits; sums has 16 elements at least."""
    n = 1 << d
    for block in range(0, n, LANES):
        for bit in (1, 2, 4, 8):
            for k in range(LANES):
                if k & bit:
                    sums[block + k] += sums[block + k - bit]
    for bit in range(4, d):
        step = 1 << bit
        for block in range(step, n, 2 * step):
            for pattern in range(block, block + step, LANES):
                store(sums, pattern, load(sums, pattern) + load(sums, pattern - step))


@njit(cache=True)
def _leaf_table(d, weight, powers, rule, at, rest, rule_weight, sums, gain, keep, loss):  # type: ignore[no-untyped-def]
    """gain, keep and loss [2^d] of a leaf from weight[2^d], the background's weight by missed features."""
    n = np.uint64(1) << np.uint64(d)
    ups, downs = np.empty(d + 1), np.empty(d + 1)
    gain[:n] = 0.0
    keep[:n] = 0.0
    for q in range(rule, rule + (d + 1) // 2):
        t, u = at[q], rest[q]
        up, down = 1.0, rule_weight[q]
        downs[d] = down / u
        for k in range(1, d + 1):
            ups[k], downs[d - k] = up, down
            up, down = up * t, down * u
        ups[0] = 0.0
        for pattern in range(n):
            sums[pattern] = weight[pattern] * ups[powers[pattern]]
        for pattern in range(n, np.uint64(LANES)):
            sums[pattern] = 0.0
        _add_subsets(d, sums)
        for pattern in range(n):
            x = downs[powers[pattern]] * sums[pattern]
            keep[pattern] += x
            gain[pattern] += u * x
    for k in range(d):
        downs[k] = weight[0] / (d - k)
    downs[d] = 0.0
    for pattern in range(n):
        loss[pattern] = keep[pattern] - gain[pattern] + downs[powers[pattern]]


@njit(cache=True)
def _group_table(  # type: ignore[no-untyped-def]
    node, bits, columns, first_literal, last_literal, first_column, literal_bit, literal_node, literal_right,
    column_player, left, right, value, parent, side, size, player, histogram, powers, rule_start, at, rest, rule_weight,
    must, must_not, code, weight, sums, gain, keep, loss, total,
):  # fmt: skip
    """total[width * columns, 2^bits] of a group: its leaves' tables, spread over the group's patterns."""
    n, width = 1 << bits, value.shape[1]
    path_bits = bits
    for place in range(first_literal, last_literal):
        if literal_node[place] >= node:
            path_bits -= 1
    total[: width * columns * n] = 0.0
    leaf_column = np.empty(columns, np.int64)
    for leaf in range(node, node + size[node]):
        if left[leaf] >= 0:
            continue
        # The leaf's features among the group's columns, and which bits of the group each one asks for.
        must[:columns] = 0
        must_not[:columns] = 0
        for column in range(path_bits):
            must[column] = 1 << column
        step = leaf
        while step != node:
            above = parent[step]
            column = 0
            while column_player[first_column + column] != player[above]:
                column += 1
            place = first_literal
            while literal_node[place] != above:
                place += 1
            if side[step] == 0:
                must[column] |= 1 << literal_bit[place]
            else:
                must_not[column] |= 1 << literal_bit[place]
            step = above
        d = 0
        for column in range(columns):
            if must[column] | must_not[column]:
                leaf_column[d] = column
                d += 1
        weight[: 1 << d] = 0.0
        full = (1 << d) - 1
        for pattern in range(n):
            met = 0
            for j in range(d):
                column = leaf_column[j]
                if pattern & must[column] == must[column] and pattern & must_not[column] == 0:
                    met |= 1 << j
            code[pattern] = met
            weight[full ^ met] += histogram[pattern]
        _leaf_table(d, weight, powers, rule_start[(d + 1) // 2], at, rest, rule_weight, sums, gain, keep, loss)
        for j in range(d):
            bit = np.uint64(1 << j)
            # Over the leaf's own patterns first: they are few, and the group's then cost one look-up each.
            for met in range(np.uint64(1) << np.uint64(d)):
                sums[met] = gain[met] - keep[met ^ bit] if met & bit else -loss[met]
            for k in range(width):
                v, first = value[leaf, k], np.uint64((k * columns + leaf_column[j]) * n)
                for pattern in range(np.uint64(n)):
                    total[first + pattern] += v * sums[code[pattern]]


@njit(
    types.void(
        *(_INTS, _BYTES, _INTS, _LONGS, _LONGS, _INTS, _INTS, _BYTES, _INTS, _LONGS, _LONGS),
        *(_INTS, _INTS, read_only(types.float64, 2), _INTS, _BYTES, _INTS, _INTS),
        *(_FLOATS, _LONGS, _FLOATS, _FLOATS, _FLOATS, writable(types.float64)),
    ),
    cache=True,
)
def fill_tables(  # type: ignore[no-untyped-def]
    item_node, item_kind, item_bits, literal_start, column_start, literal_bit, literal_node, literal_right,
    column_player, histogram_start, table_start, left, right, value, parent, side, size, player,
    histogram, rule_start, at, rest, rule_weight, table,
):  # fmt: skip
    """All tables of a batch, from the histograms (by pattern of met bits) of its items."""
    most = 0
    for item in range(len(item_node)):
        if item_kind[item] < PAIRS:
            most = max(most, item_bits[item])
    n = 1 << most
    powers = np.zeros(n, np.uint8)
    for pattern in range(1, n):
        powers[pattern] = powers[pattern >> 1] + (pattern & 1)
    must, must_not = np.empty(64, np.int64), np.empty(64, np.int64)
    code = np.empty(n, np.uint16)
    weight, gain, keep, loss = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    sums = aligned_zeros(max(n, LANES))
    for item in range(len(item_node)):
        bits, first = (
            np.int64(item_bits[item]),
            table_start[item],
        )  # one type of number: one compiled version of each callee
        own = histogram[histogram_start[item] : histogram_start[item + 1]]
        if item_kind[item] == GROUP:
            columns = column_start[item + 1] - column_start[item]
            _group_table(
                np.int64(item_node[item]), bits, columns, literal_start[item], literal_start[item + 1], column_start[item],
                literal_bit, literal_node, literal_right, column_player, left, right, value, parent, side, size, player,
                own, powers, rule_start, at, rest, rule_weight, must, must_not, code, weight, sums, gain, keep, loss,
                table[first : table_start[item + 1]],
            )  # fmt: skip
        elif item_kind[item] == SINGLE:
            here = 1 << bits
            for pattern in range(here):
                weight[here - 1 - pattern] = own[pattern]
            _leaf_table(
                bits, weight, powers, rule_start[(bits + 1) // 2], at, rest, rule_weight, sums, gain, keep, loss
            )
            for pattern in range(here):
                table[first + pattern] = gain[pattern]
                table[first + here + pattern] = keep[pattern]
                table[first + 2 * here + pattern] = loss[pattern]
