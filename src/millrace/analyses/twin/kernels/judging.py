"""The judge: how much likelier a drawn row is among real ones, by a classifier between the two; and rows accepted by it.

Drawing column by column loses what no single column shows: small errors of many conditionals, and what a later column says of
earlier ones. A classifier of finished rows sees them. Its odds are the ratio of the two densities, so that rows accepted in
proportion to them follow the real law more closely (rejection sampling, von Neumann 1951; discriminator rejection sampling,
Azadi et al. 2019). It is learnt from codes alone, and not used where it tells rows that it has not seen hardly better than
chance. Its trees are kept as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numba import njit

from millrace.analyses.twin.kernels import measures

MOST_ROWS, TIMES = 40_000, 3
"""Real rows, and twins, that it is learnt from at most; so many twins for a real row when there are few."""
LEAST_ROWS = 2_000
TREES, LEAVES, RATE, LEAST_LEAF = 200, 31, 0.1, 50
LEAST_TOLD = 0.51
"""AUC on rows that it has not seen from which on it is used."""
CAP = 3.0
"""Rows are accepted by their odds over this: about a third of all. Larger odds count as this; a higher cap costs more draws and
gains little."""
SEED = 20_240_603
BLOCK = 2_048


def learn(real: Any, made: Any, nominal: Any) -> dict[str, Any] | None:
    """The judge of real and drawn rows, uint8 codes (columns, rows) each; None when they are hardly told apart."""
    import lightgbm

    m, k = min(real.shape[1], MOST_ROWS), made.shape[1]
    if m < LEAST_ROWS:
        return None
    rng = numpy.random.default_rng(SEED)
    some = numpy.sort(rng.permutation(real.shape[1])[:m])
    X = numpy.concatenate([real[:, some], made], 1).T.astype(numpy.float32)
    y, weight = numpy.repeat([1.0, 0.0], [m, k]), numpy.repeat([1.0, m / k], [m, k])
    held = numpy.concatenate([rng.permutation(m), rng.permutation(k)]) % 5 == 0
    said = {
        "objective": "binary", "num_leaves": LEAVES, "learning_rate": RATE, "min_data_in_leaf": LEAST_LEAF, "verbosity": -1,
        "num_threads": 1, "seed": 1, "deterministic": True, "force_row_wise": True, "use_missing": False,
    }  # fmt: skip
    cats = numpy.flatnonzero(nominal).tolist()
    data = lightgbm.Dataset(X[~held], y[~held], weight=weight[~held], categorical_feature=cats, params=said)
    # All trees, though the held rows are told best by few of them: those that follow still bring twins nearer to rows that nobody
    # has seen (C2ST and utility on a third set), and what they have by heart of single rows is lost among all that is drawn.
    fitted = lightgbm.train(said, data, TREES)
    if measures.auc(fitted.predict(X[held], num_threads=1), y[held]) < LEAST_TOLD:
        return None
    return arrays_of(fitted.dump_model()["tree_info"])


def arrays_of(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Trees as LightGBM tells them, as arrays: feature (-1: leaf), threshold (codes up to it go left; -2: by masks), children,
    masks, leaf values, and where each tree begins."""
    feature, threshold, left, right, masks, value, roots = [], [], [], [], [], [], []

    def add(node: Mapping[str, Any]) -> int:
        at = len(feature)
        feature.append(-1)
        threshold.append(0)
        left.append(0)
        right.append(0)
        masks.append([0, 0, 0, 0])
        value.append(float(node.get("leaf_value", 0.0)))
        if "split_feature" in node:
            feature[at] = int(node["split_feature"])
            if node["decision_type"] == "==":
                threshold[at] = -2
                for code in map(int, str(node["threshold"]).split("||")):
                    masks[at][code >> 6] |= 1 << (code & 63)
            else:
                threshold[at] = int(numpy.floor(float(node["threshold"])))
            left[at], right[at] = add(node["left_child"]), add(node["right_child"])
        return at

    roots = [add(tree["tree_structure"]) for tree in trees]
    kinds = {"feature": numpy.int32, "threshold": numpy.int32, "left": numpy.int32, "right": numpy.int32}
    given = {"feature": feature, "threshold": threshold, "left": left, "right": right}
    made = {name: numpy.array(given[name], kind) for name, kind in kinds.items()}
    return made | {
        "masks": numpy.array(masks, numpy.uint64).reshape(-1, 4), "value": numpy.array(value),
        "roots": numpy.array(roots, numpy.int32),
    }  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """A judge ready to work: by tree and column that it splits on, which of its leaves a code leaves open, a bit each.

    The leaf of a row is what all of its codes leave (QuickScorer, Lucchese et al. 2015; here a code is a look-up): no branch
    depends on a row.

    open: uint32 (entries, 256). column: number in C of each entry. begin: (trees + 1,), where the entries of a tree begin.
    value: float64 (trees, 32), of each leaf.
    """

    open: Any
    column: Any
    begin: Any
    value: Any


def ready(judge: Mapping[str, Any], columns: Any) -> Tables:
    """columns: number in C of each feature of the judge."""
    trees = (numpy.asarray(judge[n]) for n in ("feature", "threshold", "left", "right", "masks", "value", "roots"))
    opened, column, begin, value = _opened(*trees, numpy.asarray(columns, numpy.int64))
    for array in (opened, column, begin, value):
        array.setflags(write=False)
    return Tables(opened, column, begin, value)


@njit(nogil=True, cache=True)
def _opened(feature, threshold, left, right, masks, value, roots, columns):  # type: ignore[no-untyped-def]
    trees = roots.size
    most = 0
    for node in range(feature.size):
        most += feature[node] >= 0
    opened = numpy.zeros((most, 256), numpy.uint32)
    column, begin = numpy.zeros(most, numpy.int64), numpy.zeros(trees + 1, numpy.int64)
    values = numpy.zeros((trees, 32))
    below = numpy.zeros(feature.size, numpy.uint32)  # leaves under each node
    made = 0
    for t in range(trees):
        end = roots[t + 1] if t + 1 < trees else feature.size
        leaf = 0
        for node in range(end - 1, roots[t] - 1, -1):  # children stand after their parent
            if feature[node] < 0:
                below[node] = numpy.uint32(1) << numpy.uint32(leaf)
                values[t, leaf] = value[node]
                leaf += 1
            else:
                below[node] = below[left[node]] | below[right[node]]
        first = made
        for node in range(roots[t], end):
            if feature[node] < 0:
                continue
            at = -1
            for k in range(first, made):
                if column[k] == columns[feature[node]]:
                    at = k
            if at < 0:
                at = made
                column[at] = columns[feature[node]]
                opened[at, :] = below[roots[t]]
                made += 1
            for c in range(256):
                if threshold[node] == -2:
                    goes = (masks[node, c >> 6] >> numpy.uint64(c & 63)) & numpy.uint64(1) == numpy.uint64(1)
                else:
                    goes = c <= threshold[node]
                opened[at, c] &= ~(below[right[node]] if goes else below[left[node]])
        begin[t + 1] = made
    return opened[:made].copy(), column[:made].copy(), begin, values


@njit(nogil=True, cache=True)
def log_odds(C, opened, column, begin, value):  # type: ignore[no-untyped-def]
    """float64 (rows,): log of how much likelier a row is among real ones. C: uint8 (columns, rows)."""
    n = C.shape[1]
    found = numpy.zeros(n)
    left = numpy.zeros(BLOCK, numpy.uint32)
    place = numpy.zeros(32, numpy.int64)  # of the only bit that is set, by De Bruijn's sequence
    for bit in range(32):
        place[((numpy.uint32(1) << numpy.uint32(bit)) * numpy.uint32(0x077CB531) & numpy.uint32(0xFFFFFFFF)) >> 27] = (
            bit
        )
    for start in range(0, n, BLOCK):
        m = min(BLOCK, n - start)
        for t in range(begin.size - 1):
            left[:m] = numpy.uint32(0xFFFFFFFF)
            for k in range(begin[t], begin[t + 1]):
                row, codes = opened[k], C[column[k], start : start + m]
                for i in range(m):
                    left[i] &= row[codes[i]]
            if begin[t] == begin[t + 1]:
                left[:m] = numpy.uint32(1)
            for i in range(m):
                found[start + i] += value[
                    t, place[numpy.uint32(left[i] * numpy.uint32(0x077CB531)) >> numpy.uint32(27)]
                ]
    return found


def share(C: Any, tables: Tables) -> Any:
    """float64 (rows,): with what chance a row is accepted."""
    told = log_odds(C, tables.open, tables.column, tables.begin, tables.value)
    return numpy.minimum(numpy.exp(told) / CAP, 1.0)
