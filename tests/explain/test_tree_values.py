"""Tree values are exact: they equal brute force, the peers where these are right, and the axioms; to the bit whatever
the blocks and batches."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import shap
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_trees import ensembles_with_rows, random_ensemble, random_rows
from sklearn import ensemble as forests

from millrace.analyses.explain.kernels import items as item_kinds
from millrace.analyses.explain.kernels import one_row, trees
from millrace.analyses.explain.kernels.ensemble import Ensemble, predict
from millrace.analyses.explain.kernels.lanes import frozen
from millrace.analyses.explain.kernels.structure import Structure, structure
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.oracle import brute_interventional, brute_path_dependent
from millrace.run.errors import WrongQuestion

Rows = NDArray[Any]
KINDS = {
    "groups": item_kinds.GROUP, "singles": item_kinds.SINGLE, "pairs": item_kinds.PAIRS, "merged pairs": item_kinds.MERGED_PAIRS,
}  # fmt: skip
MANY = 100_000  # rows by which the layout prefers tables


def path_dependent(model: Ensemble, rows: Rows, dtype: Any = np.float64) -> tuple[Rows, Rows]:
    shape = structure(model)
    cut = trees.layout(model, shape, len(rows), 0, dtype)
    return trees.explain_rows(model, shape, cut, [], rows, dtype), trees.base_values(model, shape)


def interventional(
    model: Ensemble, rows: Rows, background: Rows, weights: Rows | None = None, *, like: int | str = MANY,
    table_dtype: Any = np.float64,
) -> tuple[Rows, Rows]:  # fmt: skip
    """like: rows in all, by which the layout chooses; or one of KINDS for all leaves."""
    weights = np.ones(len(background)) if weights is None else weights
    shape = structure(model)
    if isinstance(like, str):
        cut = forced(model, shape, KINDS[like], len(background), table_dtype)
    else:
        cut = trees.layout(model, shape, like, len(background), table_dtype)
    held = [trees.build(model, shape, cut, batch, background, weights) for batch in range(cut.batches)]
    values = trees.explain_rows(model, shape, cut, held, rows, np.float64)
    return values, trees.base_values(model, shape, background, weights)


def forced(model: Ensemble, shape: Structure, kind: int, background_rows: int, dtype: Any) -> trees.Layout:
    """Every leaf by one kind of item; groups are as large as they may be, and one leaf where they may not."""
    items, node = [], 0
    while node < model.n_nodes:
        bits = shape.distinct[node] + shape.inner[node]
        whole = kind == item_kinds.GROUP and 0 < bits <= item_kinds.GROUP_BITS and model.left[node] >= 0
        if whole or (model.left[node] < 0 and shape.distinct[node] > 0):
            items.append((node, kind if whole or kind != item_kinds.GROUP else item_kinds.SINGLE))
        node += int(shape.size[node]) if whole else 1
    nodes, kinds = (np.array([item[k] for item in items]) for k in (0, 1))
    ends = [0, len(items)] if items else [0]
    return trees.Layout(
        nodes.astype(np.int32), kinds.astype(np.uint8), np.array(ends, np.int64),
        np.ones(len(ends) - 1, np.int64), background_rows, "tables+pairs", np.dtype(dtype).name,
    )  # fmt: skip


def some_weights(rng: np.random.Generator, n: int) -> Rows:
    weights = rng.random(n) * (rng.random(n) > 0.2)
    weights[0] = 0.5
    return weights


def close(found: Rows, wanted: Rows, tolerance: float = 1e-13) -> None:
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    assert np.abs(found - wanted).max(initial=0.0) <= tolerance * scale


# -- brute force --


def check_path_dependent(case: tuple[Ensemble, Rows]) -> None:
    model, rows = case
    values, base = path_dependent(model, rows)
    for k, x in enumerate(rows):
        wanted, wanted_base = brute_path_dependent(model, x)
        close(values[k], wanted)
        close(base, wanted_base)


def check_interventional(case: tuple[Ensemble, Rows], like: int | str, seed: int) -> None:
    model, rows = case
    weights = some_weights(np.random.default_rng(seed), 38)
    values, base = interventional(model, rows[:2], rows[2:], weights, like=like)
    for k in range(2):
        wanted, wanted_base = brute_interventional(lambda z: predict(model, z), rows[k], rows[2:], weights)
        close(values[k], wanted)
        close(base, wanted_base)


MANY_WAYS = (ensembles_with_rows(n_rows=40, max_depth=6), st.sampled_from([1, 30, MANY, *KINDS]), st.integers(0, 2**32))


@settings(deadline=None, max_examples=200)
@given(ensembles_with_rows(n_rows=3, max_depth=7))
def test_path_dependent_values_equal_brute_force(case: tuple[Ensemble, Rows]) -> None:
    check_path_dependent(case)


@settings(deadline=None, max_examples=150)
@given(*MANY_WAYS)
def test_interventional_values_equal_brute_force(case: tuple[Ensemble, Rows], like: int | str, seed: int) -> None:
    check_interventional(case, like, seed)


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(ensembles_with_rows(n_rows=3, max_depth=7))
def test_a_thousand_path_dependent_values_equal_brute_force(case: tuple[Ensemble, Rows]) -> None:
    check_path_dependent(case)


@pytest.mark.slow
@settings(deadline=None, max_examples=600)
@given(*MANY_WAYS)
def test_many_interventional_values_equal_brute_force(case: tuple[Ensemble, Rows], like: int | str, seed: int) -> None:
    check_interventional(case, like, seed)


def walked_alone(model: Ensemble, row: Rows) -> Rows:
    """A single row by `one_row`: (players, outputs)."""
    shape = structure(model)
    most = int((model.tree_start[1:] - model.tree_start[:-1]).max(initial=0))
    sums = np.zeros((model.n_outputs, len(shape.played)))
    with np.errstate(over="ignore"):
        seen = row.astype(np.float32).astype(np.float64) if model.float32_inputs else row.astype(np.float64)
    one_row.walk_row(
        model.feature, model.left, model.right, model.value, model.threshold, model.mode, model.category_start,
        model.category_count, model.category_member, model.tree_start, model.tree_output, shape.player, shape.previous,
        shape.fraction, shape.before, *one_row.rules(model, shape), most, frozen(seen), sums,
    )  # fmt: skip
    values = np.zeros((shape.players, model.n_outputs))
    values[shape.played] = sums.T
    return values


@settings(deadline=None, max_examples=150)
@given(ensembles_with_rows(n_rows=3, max_depth=7))
def test_a_row_alone_has_the_values_that_it_has_among_many(case: tuple[Ensemble, Rows]) -> None:
    model, rows = case
    values, _ = path_dependent(model, rows)
    for k, row in enumerate(rows):
        close(walked_alone(model, row), values[k])


@pytest.mark.parametrize(("depth", "n_features"), [(40, 40), (120, 120), (90, 12)])
def test_a_row_alone_is_right_on_long_paths(depth: int, n_features: int) -> None:
    rng = np.random.default_rng(depth)
    model = long_paths(rng, depth, n_features)
    rows = rng.standard_normal((2, n_features)) * 3
    values, _ = path_dependent(model, rows)
    for k in range(2):
        close(walked_alone(model, rows[k]), values[k], 1e-12)


@pytest.mark.parametrize("like", KINDS)
@pytest.mark.parametrize("vector", [False, True])
def test_every_kind_of_item_is_right_on_deep_paths_that_repeat_features(like: str, vector: bool) -> None:
    rng = np.random.default_rng(3)
    model = random_ensemble(rng, n_features=9, n_trees=3, depth=9, n_outputs=3, vector=vector, zero_cover_share=0.1)
    rows, background = random_rows(rng, model, 3), random_rows(rng, model, 150)
    weights = some_weights(rng, 150)
    values, _ = interventional(model, rows, background, weights, like=like)
    for k, x in enumerate(rows):
        wanted, _ = brute_interventional(lambda z: predict(model, z), x, background, weights)
        close(values[k], wanted)


# -- the libraries --


def regression_rows() -> tuple[Rows, Rows]:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((500, 10)).astype(np.float32).astype(np.float64)
    return rows, rows[:, 0] * rows[:, 1] + np.sin(2 * rows[:, 2]) + 0.1 * rng.standard_normal(500)


def fitted(name: str) -> Any:
    rows, y = regression_rows()
    label = np.digitize(y, [-0.5, 0.5])
    gaps = rows.copy()
    gaps[np.random.default_rng(2).random(rows.shape) < 0.1] = np.nan
    quiet = {"verbose": -1, "n_jobs": 1}
    few = {"n_estimators": 20, "random_state": 0}
    return {
        "lightgbm": lambda: lightgbm.LGBMRegressor(**few, **quiet, min_child_samples=3).fit(gaps, y),
        "lightgbm multi-class": lambda: lightgbm.LGBMClassifier(n_estimators=8, **quiet).fit(rows, label),
        "xgboost": lambda: xgboost.XGBRegressor(**few, max_depth=6, n_jobs=1).fit(gaps, y),
        "xgboost logistic": lambda: xgboost.XGBClassifier(**few, max_depth=5, n_jobs=1).fit(rows, label > 0),
        "xgboost multi-class": lambda: xgboost.XGBClassifier(n_estimators=8, n_jobs=1).fit(rows, label),
        "forest": lambda: forests.RandomForestRegressor(**few).fit(rows, y),
        "forest classifier": lambda: forests.RandomForestClassifier(**few).fit(rows, label),
        "hist": lambda: forests.HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(rows, y),
    }[name]()


NAMES = (
    "lightgbm", "lightgbm multi-class", "xgboost", "xgboost logistic", "xgboost multi-class", "forest",
    "forest classifier", "hist",
)  # fmt: skip


def read(model: Any) -> Ensemble:
    ensemble = read_trees(model)
    assert ensemble is not None
    return ensemble


@pytest.mark.parametrize("name", NAMES)
def test_path_dependent_values_equal_shap(name: str) -> None:
    model = fitted(name)
    rows = regression_rows()[0][:60]
    values, base = path_dependent(read(model), rows)
    peer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    if name.startswith("xgboost"):
        peer.model.model_type = "internal"  # else it hands back XGBoost's own contributions, sums in float32
    theirs = np.asarray(peer.shap_values(rows, check_additivity=False)).reshape(values.shape)
    close(values, theirs, 2e-14)
    if not name.startswith("xgboost"):  # shap's base is another one than XGBoost's there, and does not add up
        close(base, np.ravel(peer.expected_value), 2e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("like", [1, MANY])
def test_interventional_values_equal_shap(name: str, like: int) -> None:
    model = fitted(name)
    rows, background = regression_rows()[0][:40], regression_rows()[0][300:400]
    values, base = interventional(read(model), rows, background, like=like)
    peer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    theirs = np.asarray(peer.shap_values(rows, check_additivity=False)).reshape(values.shape)
    # shap adds interventional values up in float32.
    close(values, theirs, 1e-6)
    close(values.sum(axis=1) + base, predict(read(model), rows))


@pytest.mark.parametrize("name", ["lightgbm", "lightgbm multi-class"])
def test_lightgbm_s_own_contributions_are_equal(name: str) -> None:
    model = fitted(name)
    rows = regression_rows()[0]
    values, base = path_dependent(read(model), rows)
    own = model.predict(rows, pred_contrib=True).reshape(len(rows), -1, 11)
    close(values, own[:, :, :-1].swapaxes(1, 2), 2e-14)
    close(base, own[0, :, -1], 2e-14)


@pytest.mark.parametrize("name", ["xgboost", "xgboost logistic", "xgboost multi-class"])
def test_xgboost_s_own_contributions_are_equal_to_its_float32(name: str) -> None:
    model = fitted(name).get_booster()
    rows = regression_rows()[0]
    values, base = path_dependent(read(model), rows)
    own = model.predict(xgboost.DMatrix(rows), pred_contribs=True).reshape(len(rows), -1, 11)
    close(values, own[:, :, :-1].swapaxes(1, 2), 2e-6)
    close(base, own[0, :, -1], 2e-6)


# -- paths that break others: more than 63 distinct features, depth in the hundreds --


def long_paths(rng: np.random.Generator, depth: int, n_features: int) -> Ensemble:
    return random_ensemble(
        rng, n_features=n_features, n_trees=2, depth=depth, category_share=0.0, chain=True, zero_cover_share=0.02
    )


def leaves_of(model: Ensemble, shape: Structure, x: Rows) -> list[tuple[float, dict[int, tuple[bool, Decimal]]]]:
    """(value, {feature: (met, product of fractions)}) of each leaf, from the root down, fractions in decimals."""
    found = []
    for leaf in np.flatnonzero(model.left < 0):
        features: dict[int, tuple[bool, Decimal]] = {}
        step = int(leaf)
        while shape.parent[step] >= 0:
            above = int(shape.parent[step])
            met, share = features.get(int(model.feature[above]), (True, Decimal(1)))
            total = Decimal(float(model.cover[above]))
            share *= Decimal(float(model.cover[step])) / total if total else Decimal("0.5")
            features[int(model.feature[above])] = (met and goes(model, above, x) == (shape.side[step] == 0), share)
            step = above
        found.append((float(model.value[leaf, 0]), features))
    return found


def goes(model: Ensemble, node: int, x: Rows) -> bool:
    """Left or right, by the prediction of a tree of one split: shares nothing with the kernels' own decisions."""
    z, mode = float(x[model.feature[node]]), int(model.mode[node])
    missing = z != z or (mode >= 2 and abs(z) <= float(np.float32(1e-35)))
    return mode in (1, 3) if missing else z <= model.threshold[node]


def slow_path_dependent(model: Ensemble, shape: Structure, x: Rows) -> Rows:
    """Shapley values by coefficients of the polynomial of coalition sizes, in 200 digits."""
    phi = [Decimal(0)] * model.n_features
    with localcontext() as context:
        context.prec = 200
        for value, features in leaves_of(model, shape, x):
            d = len(features)
            for j, (met_j, share_j) in features.items():
                sizes = [Decimal(1)]
                for i, (met, share) in features.items():
                    if i != j:
                        grown = [Decimal(0), *(sizes if met else [Decimal(0)] * len(sizes))]
                        sizes = [a + b * share for a, b in zip(grown, [*sizes, Decimal(0)], strict=True)]
                weight = sum(size / (d * comb(d - 1, k)) for k, size in enumerate(sizes))
                phi[j] += Decimal(value) * (int(met_j) - share_j) * weight
    return np.array([float(p) for p in phi])


def slow_interventional(model: Ensemble, shape: Structure, x: Rows, background: Rows) -> Rows:
    """The closed form for each leaf and background row, in fractions."""
    phi = [Fraction(0)] * model.n_features
    mine = leaves_of(model, shape, x)
    for z in background:
        for (value, of_x), (_, of_z) in zip(mine, leaves_of(model, shape, z), strict=True):
            only_x = [j for j in of_x if of_x[j][0] and not of_z[j][0]]
            only_z = [j for j in of_x if of_z[j][0] and not of_x[j][0]]
            a, m = len(only_x), len(only_z)
            if a + m == 0 or any(not of_x[j][0] and not of_z[j][0] for j in of_x):
                continue
            for j in only_x:
                phi[j] += Fraction(value) / (a * comb(a + m, a) * len(background))
            for j in only_z:
                phi[j] -= Fraction(value) / (m * comb(a + m, m) * len(background))
    return np.array([float(p) for p in phi])


@pytest.mark.parametrize(("depth", "n_features"), [(89, 60), (100, 300), (166, 200)])
def test_long_paths_equal_an_exact_reference(depth: int, n_features: int) -> None:
    rng = np.random.default_rng(depth)
    model = long_paths(rng, depth, n_features)
    shape = structure(model)
    assert shape.most_depth == depth
    assert n_features < 63 or shape.most_distinct > 63
    rows = rng.standard_normal((2, n_features)) * 3
    values, base = path_dependent(model, rows)
    close(values.sum(axis=1) + base, predict(model, rows))
    if depth <= 100:  # the reference takes a minute beyond
        close(values[0, :, 0], slow_path_dependent(model, shape, rows[0]))


@pytest.mark.parametrize("like", ["pairs", "merged pairs", 1, MANY])
def test_long_paths_with_a_background_equal_an_exact_reference(like: int | str) -> None:
    rng = np.random.default_rng(9)
    model = long_paths(rng, 150, 1000)
    shape = structure(model)
    assert shape.most_distinct > 128
    # Thresholds of a long path let almost nobody through, so look at rows that go far down.
    far = np.where(rng.random((12, 1000)) < 0.5, 3.0, -3.0)
    rows, background = far[:3], far[3:]
    values, base = interventional(model, rows, background, like=like)
    close(values.sum(axis=1) + base, predict(model, rows))
    for k, x in enumerate(rows):
        close(values[k, :, 0], slow_interventional(model, shape, x, background))


def test_a_forest_without_limit_adds_up() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((2000, 100)) * (rng.random((2000, 100)) < 0.03)
    y = rng.standard_normal(2000) + rows.sum(axis=1)
    model = read(forests.RandomForestRegressor(3, max_features=3, random_state=0).fit(rows, y))
    assert structure(model).most_depth > 60
    values, base = path_dependent(model, rows[:50])
    close(values.sum(axis=1) + base, predict(model, rows[:50]))
    values, base = interventional(model, rows[:50], rows[100:200], like=50)
    close(values.sum(axis=1) + base, predict(model, rows[:50]))


# -- axioms --


@settings(deadline=None, max_examples=100)
@given(ensembles_with_rows(n_rows=30, max_features=30, max_trees=8, max_depth=9), st.sampled_from([1, MANY]))
def test_values_add_up_to_the_output(case: tuple[Ensemble, Rows], like: int) -> None:
    model, rows = case
    output = predict(model, rows)
    for values, base in (path_dependent(model, rows), interventional(model, rows, rows[10:], like=like)):
        close(values.sum(axis=1) + base, output, 1e-12)


@settings(deadline=None, max_examples=60)
@given(ensembles_with_rows(n_rows=20, max_features=12, max_trees=5, max_depth=6))
def test_a_feature_that_no_tree_uses_gets_nothing(case: tuple[Ensemble, Rows]) -> None:
    model, rows = case
    unused = np.setdiff1d(np.arange(model.n_features), model.feature)
    for values, _ in (path_dependent(model, rows), interventional(model, rows, rows[5:])):
        assert not values[:, unused].any()


@settings(deadline=None, max_examples=60)
@given(ensembles_with_rows(n_rows=20, max_features=8, max_depth=6), st.integers(0, 2**32))
def test_the_names_of_features_do_not_matter(case: tuple[Ensemble, Rows], seed: int) -> None:
    model, rows = case
    order = np.random.default_rng(seed).permutation(model.n_features)
    place = np.argsort(order)
    renamed = replace(model, feature=np.where(model.feature >= 0, place[model.feature], -1))
    moved = rows[:, order]
    assert np.array_equal(path_dependent(renamed, moved)[0], path_dependent(model, rows)[0][:, order])
    one, other = interventional(renamed, moved, moved[5:]), interventional(model, rows, rows[5:])
    close(one[0], other[0][:, order])


@settings(deadline=None, max_examples=60)
@given(ensembles_with_rows(n_rows=20, max_trees=4, max_outputs=1, max_depth=6))
def test_values_of_a_sum_of_trees_are_the_sum_of_the_trees_values(case: tuple[Ensemble, Rows]) -> None:
    model, rows = case
    both, kinds = np.zeros((2, len(rows), model.n_features, 1)), (path_dependent, interventional)
    for tree in range(model.n_trees):
        part = slice(int(model.tree_start[tree]), int(model.tree_start[tree + 1]))
        move = {
            name: np.where(getattr(model, name)[part] >= 0, getattr(model, name)[part] - part.start, -1)
            for name in ("left", "right")
        }
        others = ("feature", "threshold", "value", "cover", "mode", "category_start", "category_count")
        alone = replace(
            model, **move, **{name: getattr(model, name)[part] for name in others},
            tree_start=np.array([0, part.stop - part.start]), tree_output=model.tree_output[tree : tree + 1],
        )  # fmt: skip
        both[0] += path_dependent(alone, rows)[0]
        both[1] += interventional(alone, rows, rows[5:])[0]
    close(both[0], kinds[0](model, rows)[0])
    close(both[1], interventional(model, rows, rows[5:])[0])


@settings(deadline=None, max_examples=60)
@given(ensembles_with_rows(n_rows=30), st.sampled_from([1, MANY, *KINDS]), st.integers(0, 2**32))
def test_a_weight_is_as_good_as_a_copy_of_a_row(case: tuple[Ensemble, Rows], like: int | str, seed: int) -> None:
    model, rows = case
    times = np.random.default_rng(seed).integers(0, 4, 20)
    times[0] = 1
    weighted = interventional(model, rows[:10], rows[10:], times * 0.25, like=like)
    copied = interventional(model, rows[:10], np.repeat(rows[10:], times, axis=0), like=like)
    close(weighted[0], copied[0])
    close(weighted[1], copied[1])


# -- the same bits --


def deep_model() -> tuple[Ensemble, Rows]:
    rng = np.random.default_rng(11)
    model = random_ensemble(rng, n_features=20, n_trees=12, depth=8, n_outputs=2, leaf_share=0.05)
    return model, random_rows(rng, model, 1500)


@pytest.mark.parametrize("like", [None, MANY, *KINDS])
def test_the_block_of_rows_does_not_change_a_bit(like: int | str | None) -> None:
    model, rows = deep_model()

    def explain(part: Rows) -> Rows:
        if like is None:
            return path_dependent(model, part)[0]
        return interventional(model, part, rows[1100:1300], some_weights(np.random.default_rng(1), 200), like=like)[0]

    whole = explain(rows)
    for size, count in ((1, 5), (7, 4), (64, 2), (1024, 2)):
        for block in range(count):
            part = slice(block * size, min((block + 1) * size, len(rows)))
            assert np.array_equal(explain(rows[part]), whole[part])


def test_where_batches_are_cut_does_not_change_a_bit() -> None:
    model, rows = deep_model()
    shape, background, weights = structure(model), rows[:70], np.ones(70)
    cut = trees.layout(model, shape, 3000, 70, np.float32)
    count = len(cut.item_node)
    assert len(set(cut.item_kind.tolist())) > 1
    answers = []
    for ends in ([0, count], [0, 1, count // 3, count // 2, count], list(range(count + 1))):
        other = replace(cut, batch_start=np.array(ends), batch_bytes=np.ones(len(ends) - 1, np.int64))
        held = [trees.build(model, shape, other, k, background, weights) for k in range(other.batches)]
        answers.append(trees.explain_rows(model, shape, other, held, rows, np.float64))
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_mapped_files_and_plain_arrays_give_the_same_bits(tmp_path: Path) -> None:
    model, rows = deep_model()
    shape = structure(model)
    cut = trees.layout(model, shape, MANY, 50, np.float32)
    held = [trees.build(model, shape, cut, k, rows[:50], np.ones(50)) for k in range(cut.batches)]

    def mapped(plain: dict[str, Any], name: str) -> dict[str, Any]:
        for key, item in plain.items():
            if isinstance(item, np.ndarray) and item.size:
                np.save(tmp_path / f"{name}-{key}.npy", item)
                plain = plain | {key: np.load(tmp_path / f"{name}-{key}.npy", mmap_mode="r")}
        return plain

    again = (
        Ensemble.from_arrays(mapped(model.arrays(), "model")),
        Structure.from_arrays(mapped(shape.arrays(), "shape")),
        trees.Layout.from_arrays(mapped(cut.arrays(), "cut")),
        [mapped(dict(batch), f"batch{k}") for k, batch in enumerate(held)],
        mapped({"rows": rows}, "rows")["rows"],
    )
    wanted = trees.explain_rows(model, shape, cut, held, rows, np.float32)
    assert wanted.dtype == np.float32
    assert np.array_equal(trees.explain_rows(*again, np.float32), wanted)
    walk = trees.layout(model, shape, MANY, 0, np.float32)
    wanted = trees.explain_rows(model, shape, walk, [], rows, np.float64)
    assert np.array_equal(trees.explain_rows(again[0], again[1], walk, [], again[4], np.float64), wanted)


_DIGEST = """
import hashlib, sys
import numpy as np
sys.path.insert(0, {tests!r})
import test_tree_values as t
from random_trees import random_ensemble, random_rows
rng = np.random.default_rng(5)
model = random_ensemble(rng, n_features=25, n_trees=8, depth=14, n_outputs=2, leaf_share=0.1)
rows = random_rows(rng, model, 100)
parts = [t.path_dependent(model, rows)[0]]
parts += [t.interventional(model, rows[:20], rows[20:], np.arange(1.0, 81.0), like=like)[0]
          for like in (t.MANY, *t.KINDS) if like != "singles"]
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


@pytest.mark.slow
def test_the_processor_does_not_change_a_bit(tmp_path: Path) -> None:
    """Vector width and fused multiply-add are the compiler's choice by processor, unless the kernels say otherwise."""
    code, found = _DIGEST.format(tests=str(Path(__file__).parent)), set()
    for processor in ("generic", "haswell", "skylake-avx512", "znver4"):
        cache = tmp_path / processor
        environment = os.environ | {
            "NUMBA_CPU_NAME": processor,
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": str(cache),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=400
        )
        if done.returncode in (-4, 132):
            continue  # this host does not have the processor's instructions
        assert done.returncode == 0, done.stderr[-2000:]
        found.add(done.stdout.strip())
    assert len(found) == 1


# -- precision, kinds of input --


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "forest"])
def test_float32_tables_add_up_to_float32(name: str) -> None:
    model = read(fitted(name))
    rows = regression_rows()[0]
    values, base = interventional(model, rows, rows[:100], table_dtype=np.float32)
    output = predict(model, rows)
    assert np.abs(values.sum(axis=1) + base - output).max() <= 2e-7 * np.abs(output).max()
    close(values, interventional(model, rows, rows[:100])[0], 1e-6)


def test_float32_rows_are_the_same_rows() -> None:
    rng = np.random.default_rng(6)
    for rounds in (False, True):
        model = random_ensemble(rng, n_features=6, n_trees=4, depth=6, float32_inputs=rounds)
        narrow = rng.standard_normal((100, 6)).astype(np.float32)
        wide = narrow.astype(np.float64)
        assert np.array_equal(path_dependent(model, narrow)[0], path_dependent(model, wide)[0])
        assert np.array_equal(interventional(model, narrow, narrow[:30])[0], interventional(model, wide, wide[:30])[0])


def test_a_model_without_splits_explains_nothing() -> None:
    model = random_ensemble(np.random.default_rng(0), n_trees=2, depth=0, n_outputs=2)
    rows = np.zeros((3, 5))
    for values, base in (path_dependent(model, rows), interventional(model, rows, rows)):
        assert values.shape == (3, 5, 2)
        assert not values.any()
        close(base, predict(model, rows)[0])
    assert path_dependent(model, rows[:0])[0].shape == (0, 5, 2)


def test_rows_and_backgrounds_that_do_not_fit_are_refused() -> None:
    model = random_ensemble(np.random.default_rng(0), n_features=5, depth=4, category_share=0.0)
    rows = np.zeros((3, 5))
    with pytest.raises(WrongQuestion, match="columns"):
        path_dependent(model, rows[:, :4])
    for weights in ([1.0, 2.0], [1.0, -1.0, 3.0], [0.0, 0.0, 0.0], [1.0, np.nan, 1.0]):
        with pytest.raises(WrongQuestion, match="weight"):
            interventional(model, rows, rows, np.array(weights))
    with pytest.raises(ValueError, match="batches"):
        shape = structure(model)
        trees.explain_rows(model, shape, trees.layout(model, shape, 3, 3, np.float64), [], rows, np.float64)


@pytest.mark.slow
def test_more_than_a_million_rows_in_one_call() -> None:
    model = random_ensemble(np.random.default_rng(0), n_features=3, n_trees=2, depth=3, category_share=0.0)
    rows = np.random.default_rng(1).standard_normal((1_100_000, 3))
    for values, base in (path_dependent(model, rows), interventional(model, rows, rows[:50])):
        close(values.sum(axis=1) + base, predict(model, rows))
