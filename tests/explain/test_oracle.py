"""Brute force is right: it equals closed forms, the peers where these are right, and the axioms of Shapley values."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
import shap
import xgboost
from hypothesis import given, settings
from numpy.typing import NDArray
from random_trees import ensembles_with_rows, random_ensemble, random_rows
from sklearn import ensemble as forests
from sklearn import tree as trees

from millrace.analyses.explain.kernels.ensemble import Ensemble, predict
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.oracle import (
    MOST_PLAYERS,
    brute_interventional,
    brute_path_dependent,
    interventional_game,
    path_dependent_game,
    shapley,
    shapley_interactions,
)
from millrace.run.errors import WrongQuestion

Rows = NDArray[Any]
N, P, LOOKS = 300, 5, 6  # rows are explained by brute force LOOKS at a time


def table(missing: float = 0.1, categories: bool = False) -> Rows:
    """float32 values without ties at a threshold: shap rounds rows and thresholds, and its values do not add up there
    (its interventional values of a HistGradientBoosting model on rows of three decimals are wrong by 0.08)."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((N, P)).astype(np.float32).astype(np.float64)
    if categories:
        rows[:, 3], rows[:, 4] = rng.integers(0, 40, N), rng.integers(0, 5, N)
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def target(rows: Rows) -> Rows:
    known = np.nan_to_num(rows)
    return np.asarray(known[:, 0] * known[:, 1] + np.sin(known[:, 2]) + (known[:, 3] % 3 > 1) + known[:, 4] / 4)


def read(model: Any) -> Ensemble:
    ensemble = read_trees(model)
    assert ensemble is not None
    return ensemble


def path_dependent(model: Ensemble, rows: Rows) -> Rows:
    """[rows, features + 1, outputs], the base last: as the libraries lay their contributions out."""
    return np.array([np.vstack([*(each[None] for each in phi), base]) for phi, base in
                     (brute_path_dependent(model, x) for x in rows)])  # fmt: skip


def contributions(theirs: Any, n_outputs: int) -> Rows:
    """LightGBM's and XGBoost's own, in the same layout."""
    return np.asarray(theirs, np.float64).reshape(len(theirs), n_outputs, P + 1).swapaxes(1, 2)


# The game alone -----------------------------------------------------------------------------------------------


def test_shapley_values_of_known_games() -> None:
    gloves = np.array([0.0, 0, 0, 1, 0, 1, 0, 1])[:, None]  # player 0 has the left glove, 1 and 2 a right one
    np.testing.assert_allclose(shapley(gloves)[:, 0], [4 / 6, 1 / 6, 1 / 6], rtol=1e-15)
    airport = np.array([max([c for j, c in enumerate((1, 2, 4)) if s >> j & 1], default=0) for s in range(8)])
    np.testing.assert_allclose(shapley(airport.astype(float)), [1 / 3, 5 / 6, 17 / 6], rtol=1e-15)
    assert shapley(np.array([[3.0, 4.0]])).shape == (0, 2)


def test_interactions_of_a_product_and_a_sum() -> None:
    product = np.array([0.0, 0, 0, 1])
    np.testing.assert_allclose(shapley_interactions(product), [[0, 0.5], [0.5, 0]])
    total = np.array([0.0, 2, 3, 5])
    np.testing.assert_allclose(shapley_interactions(total), [[2, 0], [0, 3]], atol=1e-15)


def test_interventional_values_of_a_linear_function_are_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    slope, background, x = rng.standard_normal((4, 2)), rng.standard_normal((30, 4)), rng.standard_normal(4)
    weights = rng.random(30)
    phi, base = brute_interventional(lambda rows: rows @ slope + 1, x, background, weights)
    mean = np.average(background, axis=0, weights=weights)
    np.testing.assert_allclose(phi, slope * (x - mean)[:, None], rtol=1e-12)
    np.testing.assert_allclose(base, mean @ slope + 1, rtol=1e-12)


def test_grouped_columns_play_together() -> None:
    rng = np.random.default_rng(0)
    background, x = rng.standard_normal((20, 4)), rng.standard_normal(4)
    slope = np.array([1.0, -2, 3, 4])
    each, base = brute_interventional(lambda rows: rows @ slope, x, background)
    grouped, same = brute_interventional(lambda rows: rows @ slope, x, background, groups=[[0, 2], [1], [3]])
    np.testing.assert_allclose(grouped, [each[0] + each[2], each[1], each[3]], rtol=1e-12)
    np.testing.assert_allclose(same, base)


def test_weights_of_background_rows_are_the_rows_repeated() -> None:
    model = random_ensemble(np.random.default_rng(1), n_outputs=2)
    rows = random_rows(np.random.default_rng(2), model, 6)
    times = np.array([1, 3, 0, 2, 1])
    for one, other in zip(
        brute_interventional(lambda z: predict(model, z), rows[5], rows[:5], times),
        brute_interventional(lambda z: predict(model, z), rows[5], np.repeat(rows[:5], times, axis=0)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_too_many_players_are_refused_before_the_work() -> None:
    with pytest.raises(WrongQuestion, match=f"up to {MOST_PLAYERS}"):
        brute_interventional(lambda rows: rows[:, 0], np.zeros(13), np.zeros((2, 13)))
    model = random_ensemble(np.random.default_rng(0), n_features=40, n_trees=20, depth=5)
    with pytest.raises(WrongQuestion, match="features that the trees use"):
        brute_path_dependent(model, np.zeros(40))


# Axioms on random trees ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(ensembles_with_rows(n_rows=4, max_features=5))
def test_values_add_up_to_the_output_and_unused_columns_have_none(case: tuple[Ensemble, Rows]) -> None:
    model, rows = case
    unused = np.setdiff1d(np.arange(model.n_features), model.feature)
    outputs = predict(model, rows)
    for x, output in zip(rows, outputs, strict=True):
        for phi, base in (
            brute_path_dependent(model, x),
            brute_interventional(lambda z: predict(model, z), x, rows),
        ):
            np.testing.assert_allclose(base + phi.sum(axis=0), output, atol=1e-11)
            np.testing.assert_allclose(phi[unused], 0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(ensembles_with_rows(n_rows=2, max_features=4))
def test_interactions_are_symmetric_and_add_up_to_the_values(case: tuple[Ensemble, Rows]) -> None:
    model, rows = case
    worth, used = path_dependent_game(model, rows[0])
    for game in (worth, interventional_game(lambda z: predict(model, z), rows[0], rows)):
        pairs = shapley_interactions(game)
        np.testing.assert_allclose(pairs, pairs.swapaxes(0, 1), atol=1e-12)
        np.testing.assert_allclose(pairs.sum(axis=1), shapley(game), atol=1e-12)
    assert used == sorted(set(model.feature[model.feature >= 0].tolist()))


def test_the_naive_walk_equals_the_compiled_one_when_everything_is_known() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = random_ensemble(rng, n_features=4, float32_inputs=seed % 2 == 0, depth=5, category_share=0.5)
        rows = random_rows(rng, model, 20)
        whole = [path_dependent_game(model, x)[0][-1] for x in rows]
        np.testing.assert_allclose(whole, predict(model, rows), atol=1e-12)


def test_two_columns_that_play_alike_have_the_same_value() -> None:
    phi, _ = brute_interventional(
        lambda rows: np.maximum(rows[:, 0], rows[:, 1]) * rows[:, 2], np.array([2.0, 2, 3]), np.zeros((1, 3))
    )
    assert phi[0] == pytest.approx(phi[1], abs=1e-12)


# Peers, path-dependent ----------------------------------------------------------------------------------------

USUAL = {
    "verbose": -1,
    "num_leaves": 9,
    "min_data_in_leaf": 3,
    "min_data_per_group": 3,
    "cat_smooth": 1,
    "num_threads": 1,
}
LIGHTGBM: dict[str, dict[str, Any]] = {
    "missing values": {},
    "zero as missing": {"zero_as_missing": True},
    "categories": {"categories": True},
    "row weights": {"weight": True},
    "bagging": {"bagging_freq": 1, "bagging_fraction": 0.5},
    "goss": {"data_sample_strategy": "goss"},
    "dart": {"boosting": "dart"},
    "binary": {"objective": "binary"},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "stumps": {"num_leaves": 2},
}


def labelled(objective: str, rows: Rows) -> Rows:
    label = target(rows)
    if objective.startswith("multi"):
        return np.digitize(label, [0.4, 1.2])
    return (label > 0.6) * 1 if objective.startswith("binary") else label


@pytest.mark.parametrize("case", LIGHTGBM)
def test_brute_force_on_a_lightgbm_model_equals_its_own_contributions(case: str) -> None:
    parameters = dict(LIGHTGBM[case])
    categories = parameters.pop("categories", False)
    rows = table(categories=categories)
    weight = np.random.default_rng(1).random(N) + 0.1 if parameters.pop("weight", False) else None
    label = labelled(parameters.get("objective", ""), rows)
    data = lightgbm.Dataset(rows, label, weight=weight, categorical_feature=[3, 4] if categories else [])
    booster = lightgbm.train(USUAL | parameters, data, 6)
    model = read(booster)
    theirs = contributions(booster.predict(rows[:LOOKS], pred_contrib=True), model.n_outputs)
    # LightGBM's contributions of a forest add up to the sum of its trees, its prediction and ours to their mean.
    share = 6 if case == "forest" else 1
    np.testing.assert_allclose(path_dependent(model, rows[:LOOKS]), theirs / share, atol=1e-12)


XGBOOST: dict[str, dict[str, Any]] = {
    "missing values": {},
    "categories": {"categories": True},
    "categories one by one": {"categories": True, "max_cat_to_onehot": 50},
    "row weights": {"weight": True},
    "dart": {"booster": "dart", "rate_drop": 0.4},
    "binary": {"objective": "binary:logistic"},
    "poisson": {"objective": "count:poisson"},
    "multiclass": {"objective": "multi:softprob", "num_class": 3},
    "forest": {"num_parallel_tree": 3, "subsample": 0.5},
    "stumps": {"max_depth": 1},
}


@pytest.mark.parametrize("case", XGBOOST)
def test_brute_force_on_an_xgboost_model_equals_its_own_contributions(case: str) -> None:
    parameters = dict(XGBOOST[case])
    categories = parameters.pop("categories", False)
    rows = table(categories=categories)
    label = np.abs(labelled(parameters.get("objective", ""), rows))
    weight = np.random.default_rng(1).random(N) + 0.1 if parameters.pop("weight", False) else None
    kinds = ["c" if categories and column >= 3 else "q" for column in range(P)]

    def matrix(part: Rows, **more: Any) -> xgboost.DMatrix:
        return xgboost.DMatrix(part, feature_types=kinds, enable_categorical=True, **more)

    booster = xgboost.train({"max_depth": 4, "nthread": 1} | parameters, matrix(rows, label=label, weight=weight), 6)
    model = read(booster)
    theirs = contributions(booster.predict(matrix(rows[:LOOKS]), pred_contribs=True), model.n_outputs)
    # XGBoost computes these in float32.
    np.testing.assert_allclose(path_dependent(model, rows[:LOOKS]), theirs, atol=3e-6)


SKLEARN: dict[str, Any] = {
    "tree": trees.DecisionTreeRegressor(max_depth=5, random_state=0),
    "tree of classes": trees.DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": forests.RandomForestRegressor(5, max_depth=5, random_state=0, n_jobs=1),
    "forest of classes": forests.RandomForestClassifier(5, max_depth=4, random_state=0, n_jobs=1),
    "extra trees": forests.ExtraTreesRegressor(5, max_depth=4, random_state=0, n_jobs=1),
    "boosting": forests.GradientBoostingRegressor(n_estimators=8, random_state=0),
    "boosting, binary": forests.GradientBoostingClassifier(n_estimators=8, random_state=0),
    "histograms": forests.HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=4, max_leaf_nodes=8),
    "histograms, binary": forests.HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=4, max_leaf_nodes=8),
}


def fitted(case: str, rows: Rows) -> Any:
    classes = "classes" in case or "binary" in case
    kind = "binary" if "binary" in case else "multi" if classes else ""
    weight = np.random.default_rng(1).random(N) + 0.1 if "histograms" not in case else None
    return SKLEARN[case].fit(rows, labelled(kind, rows), sample_weight=weight)


def shap_values(explainer: Any, rows: Rows, n_outputs: int) -> tuple[Rows, Rows]:
    """([rows, features, outputs], [outputs])"""
    values = np.asarray(explainer.shap_values(rows, check_additivity=False))
    return values.reshape(len(rows), P, n_outputs), np.ravel(explainer.expected_value)


@pytest.mark.parametrize("case", SKLEARN)
def test_brute_force_path_dependent_equals_shap(case: str) -> None:
    rows = table(0.0)
    estimator = fitted(case, rows)
    model = read(estimator)
    explainer = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
    values, base = shap_values(explainer, rows[:LOOKS], model.n_outputs)
    ours = path_dependent(model, rows[:LOOKS])
    np.testing.assert_allclose(ours[:, :-1], values, atol=1e-6)
    np.testing.assert_allclose(ours[0, -1], base, atol=1e-6)


# Peers, interventional ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SKLEARN)
def test_brute_force_interventional_equals_shap(case: str) -> None:
    rows = table(0.0)
    estimator = fitted(case, rows)
    model = read(estimator)
    background = rows[100:140]
    masker = shap.maskers.Independent(background, max_samples=1000)
    explainer = shap.TreeExplainer(estimator, masker, feature_perturbation="interventional")
    values, base = shap_values(explainer, rows[:LOOKS], model.n_outputs)
    for x, value in zip(rows[:LOOKS], values, strict=True):
        phi, ours = brute_interventional(lambda z: predict(model, z), x, background)
        np.testing.assert_allclose(phi, value, atol=1e-6)
        np.testing.assert_allclose(ours, base, atol=1e-6)


def test_brute_force_interventional_on_boosters_with_missing_values_equals_shap() -> None:
    rows = table()
    label = target(rows)
    booster = lightgbm.train(USUAL, lightgbm.Dataset(rows, label), 6)
    other = xgboost.XGBRegressor(n_estimators=6, max_depth=4, n_jobs=1).fit(rows, label)
    background = rows[100:130]
    for fit, tolerance in ((booster, 1e-6), (other, 1e-5)):
        model = read(fit)
        masker = shap.maskers.Independent(background, max_samples=1000)
        explainer = shap.TreeExplainer(fit, masker, feature_perturbation="interventional")
        values, _ = shap_values(explainer, rows[:LOOKS], 1)
        for x, value in zip(rows[:LOOKS], values, strict=True):
            phi, _ = brute_interventional(lambda z, model=model: predict(model, z), x, background)
            np.testing.assert_allclose(phi, value, atol=tolerance)


def test_brute_force_explains_a_probability_through_the_models_own_function() -> None:
    rows = table(0.0)
    estimator = fitted("boosting, binary", rows)
    phi, base = brute_interventional(estimator.predict_proba, rows[0], rows[100:120])
    np.testing.assert_allclose(base + phi.sum(axis=0), estimator.predict_proba(rows[:1])[0], rtol=1e-12)
    np.testing.assert_allclose(phi[:, 0], -phi[:, 1], atol=1e-15)
