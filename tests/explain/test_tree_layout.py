"""What is derived from trees is right, and a layout covers every leaf once, by the question's shape alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from math import comb, factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_trees import ensembles, ensembles_with_rows, random_ensemble, random_rows

from millrace.analyses.explain.kernels import counting, items, lanes, pair_sizes, patterns, trees
from millrace.analyses.explain.kernels.ensemble import Ensemble, branch_fractions, goes_left
from millrace.analyses.explain.kernels.legendre import legendre_rule
from millrace.analyses.explain.kernels.rows import columns_of, values_out
from millrace.analyses.explain.kernels.structure import MASK_BITS, Structure, structure


def way(shape: Structure, node: int) -> list[int]:
    """The nodes below the root on the path down to a node, itself last."""
    nodes = []
    while shape.parent[node] >= 0:
        nodes.append(node)
        node = int(shape.parent[node])
    return nodes[::-1]


# -- structure --


@settings(deadline=None, max_examples=100)
@given(ensembles(max_depth=8, max_features=9))
def test_structure_is_what_a_naive_walk_finds(model: Ensemble) -> None:
    shape = structure(model)
    fraction = branch_fractions(model)
    used = sorted({int(f) for f in model.feature if f >= 0})
    assert shape.used.tolist() == used
    for node in range(model.n_nodes):
        nodes = way(shape, node)
        split = [int(model.feature[shape.parent[n]]) for n in nodes]
        assert shape.depth[node] == len(nodes)
        assert shape.distinct[node] == len(set(split))
        assert all(
            model.right[shape.parent[n]] == n if shape.side[n] else model.left[shape.parent[n]] == n for n in nodes
        )
        below = [n for n in range(model.n_nodes) if node == n or node in [int(shape.parent[k]) for k in way(shape, n)]]
        assert shape.size[node] == len(below)
        assert shape.inner[node] == sum(model.left[n] >= 0 for n in below)
        leaves = [n for n in below if model.left[n] < 0]
        wanted = sum({1 << (int(shape.distinct[n]) + 1) // 2 - 1 for n in leaves if shape.distinct[n]})
        assert int(shape.needs[node]) == wanted
        if model.left[node] < 0:
            assert (shape.slot[node], shape.previous[node], shape.before[node]) == (-1, -1, 1.0)
            continue
        assert used[shape.slot[node]] == model.feature[node]
        same = [n for n, f in zip(nodes, split, strict=True) if f == model.feature[node]]
        assert shape.previous[node] == (same[-1] if same else -1)
        assert shape.before[node] == pytest.approx(np.prod(fraction[same]), rel=1e-14)
    assert (shape.most_depth, shape.most_distinct) == (shape.depth.max(initial=0), shape.distinct.max(initial=0))


@settings(deadline=None, max_examples=60)
@given(ensembles(max_depth=12, max_features=40))
def test_passes_take_each_leaf_once_with_enough_points(model: Ensemble) -> None:
    shape = structure(model)
    for tree in range(model.n_trees):
        part = slice(int(shape.pass_start[tree]), int(shape.pass_start[tree + 1]))
        for leaf in range(int(model.tree_start[tree]), int(model.tree_start[tree + 1])):
            if model.left[leaf] < 0 and shape.distinct[leaf]:
                taken = (shape.pass_mask[part] & shape.needs[leaf]) != 0
                assert taken.sum() == 1
                assert 2 * shape.pass_points[part][taken][0] >= shape.distinct[leaf]


def test_leaves_of_more_than_128_features_share_a_pass() -> None:
    model = random_ensemble(np.random.default_rng(0), n_features=2000, n_trees=1, depth=170, chain=True)
    shape = structure(model)
    assert shape.most_distinct > 2 * MASK_BITS
    assert shape.pass_points.max() == shape.most_points == (shape.most_distinct + 1) // 2


@settings(deadline=None, max_examples=20)
@given(ensembles())
def test_structure_and_layout_go_to_plain_values_and_back(model: Ensemble) -> None:
    shape = structure(model)
    for made, kind in ((shape, Structure), (trees.layout(model, shape, 99, 10, np.float32), trees.Layout)):
        again = kind.from_arrays(made.arrays())
        for field in fields(kind):
            one, other = getattr(made, field.name), getattr(again, field.name)
            assert np.array_equal(one, other)
            assert not isinstance(one, np.ndarray) or not one.flags.writeable


# -- layout --


@settings(deadline=None, max_examples=100)
@given(ensembles(max_depth=9, max_features=12), st.sampled_from([1, 100, 10**6]), st.sampled_from([1, 30, 5000]))
def test_a_layout_covers_every_leaf_that_matters_once(model: Ensemble, rows: int, background_rows: int) -> None:
    shape = structure(model)
    cut = trees.layout(model, shape, rows, background_rows, np.float64)
    covered = np.zeros(model.n_nodes, int)
    for node, kind in zip(cut.item_node, cut.item_kind, strict=True):
        assert kind == items.GROUP or model.left[node] < 0
        assert kind != items.GROUP or shape.distinct[node] + shape.inner[node] <= items.GROUP_BITS
        covered[node : node + shape.size[node]] += 1
    leaf = (model.left < 0) & (shape.distinct > 0)
    assert (covered <= 1).all()
    assert (covered[leaf & model.value.any(axis=1)] == 1).all()
    assert (np.diff(cut.item_node) > 0).all()
    assert cut.batch_start.tolist() == sorted(cut.batch_start.tolist())
    assert (cut.batch_start[0], cut.batch_start[-1]) == (0, len(cut.item_node))
    assert cut.method in trees.METHODS
    assert cut.method == trees.choose(model, shape, rows, background_rows)


@settings(deadline=None, max_examples=30)
@given(ensembles_with_rows(n_rows=70, max_depth=8, max_features=12), st.sampled_from([1, 10**6]))
def test_a_batch_takes_no_more_bytes_than_was_said(case: tuple[Ensemble, NDArray[Any]], rows: int) -> None:
    model, background = case
    shape = structure(model)
    cut = trees.layout(model, shape, rows, 70, np.float32)
    for batch, most in enumerate(cut.batch_bytes.tolist()):
        held = trees.build(model, shape, cut, batch, background, np.ones(70))
        # Beside what grows with the items: offsets' ends, the background's weights and the weights of pairs.
        rest = 100 + held["weights"].nbytes + 2 * held["pair_gain"].nbytes
        assert sum(array.nbytes for array in held.values()) <= most + rest


def test_batches_are_bounded_and_cut_by_shape() -> None:
    rng = np.random.default_rng(2)
    model = random_ensemble(rng, n_features=60, n_trees=60, depth=11, leaf_share=0.0, category_share=0.0)
    shape = structure(model)
    cut = trees.layout(model, shape, 10**6, 100, np.float64)
    assert cut.batches > 3
    assert (cut.batch_bytes <= trees.BATCH_BYTES).all()
    assert cut.table_bytes <= 1.1 * trees.TABLE_BYTES
    again = trees.layout(model, Structure.from_arrays(shape.arrays()), 10**6, 100, np.float64)
    assert all(np.array_equal(getattr(cut, f.name), getattr(again, f.name)) for f in fields(cut))


def test_one_row_is_not_worth_tables_and_many_are() -> None:
    model = random_ensemble(np.random.default_rng(2), n_features=60, n_trees=20, depth=7, leaf_share=0.0)
    shape = structure(model)
    assert trees.choose(model, shape, 1, 100) == "pairs"
    assert trees.choose(model, shape, 10**6, 100) == "tables"
    assert trees.choose(model, shape, 1, 0) == trees.choose(model, shape, 10**6, 0) == "quadrature"
    assert trees.layout(model, shape, 10**6, 0, np.float64).batches == 0


def test_other_table_types_are_refused() -> None:
    model = random_ensemble(np.random.default_rng(2))
    with pytest.raises(ValueError, match="float32 or float64"):
        trees.layout(model, structure(model), 10, 10, np.int32)


# -- parts --


@pytest.mark.parametrize("points", [1, 2, 3, 7, 8, 20, 64])
def test_a_rule_integrates_the_weights_of_coalitions(points: int) -> None:
    at, rest, weight = (np.array(part) for part in legendre_rule(points))
    assert at.tolist() == sorted(at.tolist())
    d = 2 * points
    for size in range(d):
        found = (weight * at**size * rest ** (d - 1 - size)).sum()
        assert found == pytest.approx(factorial(size) * factorial(d - 1 - size) / factorial(d), rel=1e-13)


def test_weights_of_pairs_are_correctly_rounded() -> None:
    gain, loss = pair_sizes.pair_weights(70)
    for a, m in ((1, 0), (0, 1), (3, 4), (35, 35), (70, 0), (1, 69)):
        assert a == 0 or gain[a, m] == 1 / (a * comb(a + m, a))
        assert m == 0 or loss[a, m] == 1 / (m * comb(a + m, m))
    assert gain[0].tolist() == [0.0] * 71
    assert loss[:, 0].tolist() == [0.0] * 71


@settings(deadline=None, max_examples=40)
@given(ensembles_with_rows(n_rows=100, max_trees=2))
def test_answers_of_nodes_are_those_of_goes_left(case: tuple[Ensemble, NDArray[Any]]) -> None:
    model, rows = case
    shape = structure(model)
    nodes = np.flatnonzero(model.left >= 0).astype(np.int32)
    columns = columns_of(rows, shape.used, model.float32_inputs, patterns.WORD)
    bits = np.zeros(len(nodes) * 2, np.uint64)
    counting.answer_nodes(
        lanes.frozen(nodes), shape.slot, model.threshold, model.mode, model.category_start, model.category_count,
        model.category_member, lanes.frozen(columns.reshape(-1)), columns.shape[1], 0, 2, bits,
    )  # fmt: skip
    for node, words in zip(nodes, bits.reshape(-1, 2), strict=True):
        for k in range(100):
            with np.errstate(over="ignore"):
                z = rows[k, model.feature[node]]
                z = float(np.float32(z)) if model.float32_inputs else z
            wanted = goes_left(
                z, model.mode[node], model.threshold[node], model.category_start[node], model.category_count[node],
                model.category_member,
            )  # fmt: skip
            assert bool(int(words[k // 64]) >> (k % 64) & 1) == wanted


def test_blocks_of_rows_come_back_as_they_went() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 9))
    used = np.array([1, 4, 8], np.int32)
    columns = columns_of(rows, used, False, 64)
    assert columns.shape[1] >= 320
    assert columns.ctypes.data % 64 == 0
    assert np.array_equal(columns[:, :300], rows[:, used].T)
    assert not columns[:, 300:].any()
    narrow = columns_of(rows, used, True, 16)
    assert np.array_equal(narrow[:, :300], rows[:, used].astype(np.float32).T)
    out = np.zeros((310, 9, 1))
    values_out(columns, used, 5, 300, out)
    assert np.array_equal(out[5:305, used, 0], rows[:, used])
    assert np.count_nonzero(out) == 900


_PEAK = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from random_trees import random_ensemble
from millrace.analyses.explain.kernels import trees
from millrace.analyses.explain.kernels.structure import structure
rng = np.random.default_rng(5)
model = random_ensemble(rng, n_features=900, n_trees=30, depth=10, n_outputs={outputs}, leaf_share=0.05)
shape, background = structure(model), rng.integers(-3, 9, ({background}, 900)).astype(float)
cut = trees.layout(model, shape, {like}, {background}, np.float32)
held = [trees.build(model, shape, cut, k, background, np.ones({background})) for k in range(cut.batches)]
def anonymous(what):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024
rows = rng.integers(-3, 9, (6000, 900)).astype(float)
trees.explain_rows(model, shape, cut, held, rows[:1], np.float32)
open("/proc/self/clear_refs", "w").write("5")
before = anonymous("VmHWM")
values = trees.explain_rows(model, shape, cut, held, rows, np.float32)
print(anonymous("VmHWM") - before - values.nbytes,
      trees.scratch_bytes(len(shape.used), {outputs}, shape.most_depth, shape.most_distinct, {background}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("outputs", "background", "like"), [(1, 0, 9), (3, 0, 9), (1, 300, 10**6), (2, 5000, 10)])
def test_scratch_stays_below_what_was_said(outputs: int, background: int, like: int) -> None:
    code = _PEAK.format(tests=str(Path(__file__).parent), outputs=outputs, background=background, like=like)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    used, said = map(int, done.stdout.split())
    assert used <= said + (1 << 20)  # the allocator's own


def test_a_damaged_layout_does_not_pass_for_another() -> None:
    model = random_ensemble(np.random.default_rng(2), depth=5)
    shape = structure(model)
    cut = trees.layout(model, shape, 10, 10, np.float64)
    rows = random_rows(np.random.default_rng(0), model, 12)
    with pytest.raises(ValueError, match="batches"):
        trees.explain_rows(model, shape, replace(cut, background_rows=0), [], rows, np.float64)
