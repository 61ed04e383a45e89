"""Trees split where a plain search would, and their leaves hold what fell into them."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.twin.kernels import drawing, leaves, trees


def chi2(left, n):
    """Pearson's statistic of a split: counts of classes on the left, and of all."""
    right = n - left
    expected_left, expected_right = n * left.sum() / n.sum(), n * right.sum() / n.sum()
    some = n > 0
    return ((left - expected_left)[some] ** 2 / expected_left[some]).sum() + (
        (right - expected_right)[some] ** 2 / expected_right[some]
    ).sum()


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(20, 300), width=st.integers(2, 16), sizes=st.integers(2, 120))
def test_the_best_threshold_is_that_of_a_plain_search(seed, n, width, sizes):
    rng = numpy.random.default_rng(seed)
    codes, y = rng.integers(0, sizes, n), rng.integers(0, width, n)
    y = numpy.where(rng.random(n) < 0.5, codes * width // (sizes + 1), y)
    n_k = numpy.bincount(y, minlength=16).astype(float)
    inverse = 1 / numpy.where(n_k > 0, n_k, numpy.inf)
    scratch = (
        numpy.zeros(n, numpy.uint8), numpy.zeros(258, numpy.int64), numpy.zeros((256, 16), numpy.int32),
        numpy.zeros(16, numpy.int64),
    )  # fmt: skip
    given = codes.astype(numpy.uint8), y.astype(numpy.uint8)
    found, at = trees._best_threshold(*given, n, inverse, float(n), 5, *scratch)
    if len(numpy.unique(codes)) > 1:  # both ways to search are one search
        by_table = trees._best_of_table(
            *given, n, codes.min(), codes.max(), inverse, float(n), 5, scratch[2], scratch[3]
        )
        assert by_table == (pytest.approx(found), at)
    best = 0.0
    for t in range(sizes):
        left = numpy.bincount(y[codes <= t], minlength=16)
        if 5 <= left.sum() <= n - 5:
            best = max(best, chi2(left, n_k))
    assert found == pytest.approx(best, abs=1e-6)
    if best > 1e-9:
        assert chi2(numpy.bincount(y[codes <= at], minlength=16), n_k) == pytest.approx(found)


def test_the_best_set_of_a_category_for_two_classes_is_the_best_of_all():
    rng = numpy.random.default_rng(3)
    for _ in range(30):
        m, n = 6, 400
        codes = rng.integers(0, m, n)
        y = (rng.random(n) < rng.random(m)[codes]).astype(numpy.int64)
        n_k = numpy.bincount(y, minlength=2).astype(float)
        table, mask = numpy.zeros((256, 2), numpy.int64), numpy.zeros(4, numpy.uint64)
        found = trees._best_set(
            codes, y, n, m, 2, n_k, float(n), 1, table, numpy.zeros(256), numpy.zeros(256, numpy.int64),
            numpy.zeros(2, numpy.int64), mask,
        )  # fmt: skip
        best = max(
            chi2(numpy.bincount(y[numpy.isin(codes, [k for k in range(m) if some >> k & 1])], minlength=2), n_k)
            for some in range(1, 2**m - 1)
        )
        assert found + (m - 2) == pytest.approx(best)


def grown(rows=5_000, columns=4, min_leaf=20):
    rng = numpy.random.default_rng(1)
    X = rng.integers(0, 40, (rows, columns)).astype(numpy.uint8)
    y = ((X[:, 0] // 10 + X[:, 1] // 20 + rng.integers(0, 2, rows)) % 16).astype(numpy.uint8)
    X.setflags(write=False)
    extra = numpy.zeros(1, numpy.uint8)
    extra.setflags(write=False)
    index = numpy.arange(rows, dtype=numpy.int32)
    sizes, nominal = numpy.full(columns + 1, 40), numpy.array([False, True, False, False, False])
    found = trees.grow(X, extra, sizes, nominal, numpy.arange(columns), y, 16, False, index, min_leaf, 2.0, 40)
    return X, y, index, found


def test_leaves_part_the_rows_and_are_never_smaller_than_asked():
    X, _, index, (feature, threshold, left, begin, end, masks) = grown()
    assert sorted(index.tolist()) == list(range(5_000))
    ends = numpy.flatnonzero(feature < 0)
    assert len(ends) > 4
    assert (end - begin)[ends].sum() == 5_000
    assert (end - begin)[ends].min() >= 20
    assert len(masks) == (threshold[feature >= 0] < -1).sum() > 1
    walk, leaf = leaves.walk_of(feature, threshold, left)
    numpy.testing.assert_array_equal(leaf, ends)
    found = drawing.leaves_of(numpy.ascontiguousarray(X.T), walk, masks)
    for row in range(0, 5_000, 97):
        node = 0
        while feature[node] >= 0:
            c = int(X[row, feature[node]])
            t = threshold[node]
            goes = bool(int(masks[-2 - t, c >> 6]) >> (c & 63) & 1) if t < -1 else c <= t
            node = left[node] + (not goes)
        assert row in index[begin[node] : end[node]]
        assert leaf[found[row]] == node


def test_large_nodes_are_split_by_some_rows_and_all_of_them_go_on():
    """More rows than are looked at in a node, and less than are held: both ways through a tree."""
    rows = 3 * trees.SEEN + 17
    X, _, index, (feature, _, _, begin, end, _) = grown(rows)
    assert sorted(index.tolist()) == list(range(rows))
    ends = numpy.flatnonzero(feature < 0)
    told = X[index[begin[ends[0]] : end[ends[0]]]]
    assert len(ends) > 20
    assert len(numpy.unique(told[:, 0] // 10)) == 1


def test_a_leaf_of_codes_holds_the_counts_of_its_rows():
    _, y, index, (feature, threshold, left, begin, end, _) = grown()
    _, leaf = leaves.walk_of(feature, threshold, left)
    start, codes, cumulative = leaves.leaves_of_codes(leaf, begin, end, index, y)
    for k, node in enumerate(leaf):
        counts = numpy.bincount(y[index[begin[node] : end[node]]], minlength=16)
        numpy.testing.assert_array_equal(codes[start[k] : start[k + 1]], numpy.flatnonzero(counts))
        numpy.testing.assert_array_equal(numpy.diff(cumulative[start[k] : start[k + 1]], prepend=0), counts[counts > 0])


ONE_LEAF = numpy.array([0], numpy.int32), numpy.array([0], numpy.int32)


def test_a_leaf_of_ranks_keeps_common_values_and_the_residuals_of_a_line():
    rng = numpy.random.default_rng(2)
    n = 400
    x = rng.integers(0, 1000, n).astype(numpy.uint16)
    y = (20_000 + 7 * x.astype(int) + rng.integers(-9, 10, n)).astype(numpy.uint16)
    y[:50] = 3  # a common value
    spike, none = numpy.zeros(65_536, bool), numpy.zeros((1, 65_536), bool)
    spike[3] = True
    index = numpy.arange(n, dtype=numpy.int32)
    end = numpy.array([n], numpy.int32)
    _, fixed, plane, low, high, slope, unit, held = leaves.leaves_of_ranks(
        *ONE_LEAF, end, index, y, x[None], 1, none, spike, 0.3
    )
    assert (fixed[0], plane[0]) == (50, 0)
    assert slope[0, 0] == pytest.approx(numpy.polyfit(x[50:], y[50:].astype(float), 1)[0], rel=1e-4)
    assert (held[:50] == 3).all()
    told = unit[0, 0] + unit[0, 1] * held[50:]
    numpy.testing.assert_allclose(told, numpy.sort(y[50:] - slope[0, 0] * x[50:].astype(float)), atol=0.02)
    assert (low[0], high[0]) == (y[50:].min(), y[50:].max())


def test_a_plane_goes_by_what_tells_and_by_nothing_else():
    rng = numpy.random.default_rng(3)
    n = 300
    X = rng.integers(0, 2_000, (4, n)).astype(numpy.uint16)
    X[1] = X[0] + rng.integers(0, 40, n)  # nearly the same, and only the difference tells
    y = (30_000 + 90 * (X[1].astype(int) - X[0]) - 3 * X[2].astype(int) + rng.integers(-20, 21, n)).astype(numpy.uint16)
    none = numpy.zeros((4, 65_536), bool)
    index, end = numpy.arange(n, dtype=numpy.int32), numpy.array([n], numpy.int32)
    _, _, plane, _, _, slope, unit, held = leaves.leaves_of_ranks(*ONE_LEAF, end, index, y, X, 4, none, none[0], 0.3)
    assert plane[0] == 0
    expected = numpy.linalg.lstsq(
        numpy.column_stack([X[:3].T.astype(float), numpy.ones(n)]), y.astype(float), rcond=None
    )[0]
    numpy.testing.assert_allclose(slope[0], [*expected[:3], 0.0], rtol=0.02)
    assert (held * unit[0, 1]).std() < 30
    rng.shuffle(y)
    _, _, plane, _, _, slope, _, _ = leaves.leaves_of_ranks(*ONE_LEAF, end, index, y, X, 4, none, none[0], 0.3)
    assert plane[0] == -1
    assert slope.size == 0


def test_a_node_makes_its_own_classes_of_a_column_with_an_order():
    """All rows are in one sixteenth of the codes, where classes of the whole would see one class."""
    rng = numpy.random.default_rng(4)
    n = 2_000
    X = rng.integers(0, 100, (n, 2)).astype(numpy.uint8)
    y = (100 + X[:, 0] // 10).astype(numpy.uint8)
    X.setflags(write=False)
    extra = numpy.zeros(1, numpy.uint8)
    extra.setflags(write=False)
    index = numpy.arange(n, dtype=numpy.int32)
    feature, _, _, begin, end, _ = trees.grow(
        X, extra, numpy.full(3, 100), numpy.zeros(3, bool), numpy.arange(2), y, 16, True, index, 20, 2.0, 40
    )
    assert all(len(numpy.unique(y[index[begin[k] : end[k]]])) == 1 for k in numpy.flatnonzero(feature < 0))
