"""Models are told apart by what they can do; what cannot be read is refused by name; rows are checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn import ensemble as forests
from sklearn import tree as trees
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from tree_cases import (
    FEW,
    N,
    P,
    Y,
    close,
    hostile,
    lightgbm_model,
    table,
    xgboost_data,
    xgboost_model,
)

from millrace.analyses.explain.kernels.assemble import member_sets
from millrace.analyses.explain.kernels.ensemble import (
    check_rows,
    predict,
)
from millrace.analyses.explain.kernels.lightgbm import read_lightgbm
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.kernels.xgboost import read_xgboost
from millrace.run.errors import ModelTrouble, NotSupported, WrongQuestion


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.float32, bool])
def test_columns_of_any_numeric_type_are_read_as_the_libraries_read_them(dtype: Any) -> None:
    rows = (np.random.default_rng(3).integers(0, 9, (N, P))).astype(dtype)
    label = rows.astype(float) @ np.arange(P)
    boosted = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows.astype(float), label), 5)
    other = xgboost.train({"nthread": 1}, xgboost.DMatrix(rows, label), 5)
    forest = forests.RandomForestRegressor(3, random_state=0, n_jobs=1).fit(rows, label)
    close(predict(read_lightgbm(boosted), rows), boosted.predict(rows.astype(float)))
    close(predict(read_xgboost(other), rows), other.predict(xgboost.DMatrix(rows)), 1e-5)
    model = read_trees(forest)
    assert model is not None
    close(predict(model, rows), forest.predict(rows))
    close(predict(model, np.asfortranarray(rows)), forest.predict(rows))


def test_rows_are_predicted_the_same_in_blocks_of_any_size() -> None:
    model = read_lightgbm(lightgbm_model(categories=True))
    rows = np.tile(hostile(model), (45, 1))  # more than one block of rows
    whole = predict(model, rows)
    np.testing.assert_array_equal(whole[:400], whole[-400:])
    np.testing.assert_array_equal(whole[17:18], predict(model, rows[17:18]))
    assert predict(model, rows[:0]).shape == (0, 1)


def test_rows_that_the_trees_cannot_read_are_refused() -> None:
    model = read_lightgbm(lightgbm_model(categories=True))
    with pytest.raises(WrongQuestion, match="6 columns, but the rows have the shape"):
        predict(model, np.zeros((3, P + 1)))
    with pytest.raises(WrongQuestion, match="6 columns"):
        check_rows(model, np.zeros(P))
    for wrong in (-0.5, 2.5):
        rows = np.zeros((3, P))
        rows[1, FEW] = wrong
        with pytest.raises(WrongQuestion, match="Column 5 holds category codes, but row 1"):
            predict(model, rows)


def refused() -> dict[str, tuple[Callable[[], Any], str]]:
    rows, two = table(0.0), np.stack([Y > 0, Y > 1], 1)
    odd = pd.DataFrame({"a": Y, "b": pd.Categorical(np.where(Y > 0, "yes", "no"))})
    usual = {"n_estimators": 3, "random_state": 0}
    return {
        "gblinear": (
            lambda: xgboost.train({"booster": "gblinear"}, xgboost_data(rows, Y), 2), "gblinear is a linear model",
        ),
        "vector leaves": (
            lambda: xgboost_model(label=np.stack([Y, Y], 1), multi_strategy="multi_output_tree"), "multi_output_tree",
        ),
        "linear leaves": (lambda: lightgbm_model(linear_tree=True), "linear_tree"),
        "missing is 0": (
            lambda: xgboost.XGBRegressor(n_estimators=2, missing=0.0).fit(rows, Y), "takes 0.0 for a missing value",
        ),
        "adaboost": (lambda: forests.AdaBoostRegressor(**usual).fit(rows, Y), "AdaBoostRegressor predicts a weighted median"),
        "targets of classes": (
            lambda: forests.RandomForestClassifier(**usual).fit(rows, two), "RandomForestClassifier with 2 targets",
        ),
        "init": (
            lambda: forests.GradientBoostingRegressor(init=LinearRegression(), **usual).fit(rows, Y),
            "init=LinearRegression",
        ),
        "init of lots": (
            lambda: forests.GradientBoostingClassifier(
                init=DummyClassifier(strategy="stratified"), **usual
            ).fit(rows, Y > 0),
            "init=DummyClassifier",
        ),
        "init of classes": (
            lambda: forests.GradientBoostingClassifier(init=LogisticRegression(), **usual).fit(rows, Y > 0),
            "init=LogisticRegression",
        ),
        "words": (
            lambda: forests.HistGradientBoostingRegressor(max_iter=2).fit(odd, odd["b"] == "yes"),
            "Column 1 of HistGradientBoostingRegressor has the categories",
        ),
        "negative codes": (
            lambda: forests.HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]).fit(
                np.sign(Y)[:, None], Y
            ),
            "Column 0 of HistGradientBoostingRegressor has the categories",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("case", refused())
def test_what_is_not_supported_is_refused_by_its_name(case: str) -> None:
    make, words = refused()[case]
    model = make()
    with pytest.raises(NotSupported, match=words):
        read_trees(model)


def test_an_objective_that_nobody_knows_is_refused_by_its_name() -> None:
    text = lightgbm_model(rounds=2).model_to_string().replace("objective=regression", "objective=tomorrow")
    with pytest.raises(NotSupported, match="'tomorrow'"):
        read_lightgbm(text)
    document = json.loads(bytes(xgboost_model(rounds=2).save_raw("json")))
    document["learner"]["objective"]["name"] = "reg:tomorrow"
    with pytest.raises(NotSupported, match="'reg:tomorrow'"):
        read_xgboost(json.dumps(document).encode())


def test_codes_too_large_for_sets_are_refused_before_the_memory_is_taken() -> None:
    with pytest.raises(NotSupported, match="Number the categories"):
        member_sets(np.arange(4), np.ones(4, int), np.full(4, 2**29), 4)


def test_what_is_no_tree_model_is_none() -> None:
    rows = table(0.0)
    leaf = trees.DecisionTreeRegressor(max_depth=2)
    for model in (
        LinearRegression().fit(rows, Y),
        forests.VotingRegressor([("a", leaf), ("b", LinearRegression())]).fit(rows, Y),
        forests.StackingRegressor([("a", leaf)], KNeighborsRegressor()).fit(rows, Y),
        forests.BaggingRegressor(LinearRegression(), n_estimators=2).fit(rows, Y),
        forests.RandomTreesEmbedding(n_estimators=2, n_jobs=1).fit(rows),
        np.sum,
        None,
        "tree",
        pd.DataFrame(rows),
    ):
        assert read_trees(model) is None


def test_an_estimator_that_is_not_fitted_is_said_to_be() -> None:
    for estimator in (lightgbm.LGBMRegressor(), xgboost.XGBRegressor()):
        with pytest.raises(ModelTrouble, match="is not fitted"):
            read_trees(estimator)


@pytest.mark.parametrize("objective", ["l2", "binary"])
def test_a_forest_of_lightgbms_is_explained(objective: str) -> None:
    """It predicts the mean of its trees, and LightGBM's raw output is their sum."""
    import millrace as mr

    rows = np.random.default_rng(3).normal(size=(300, P))
    label = rows[:, 0] + rows[:, 1] * rows[:, 2]
    options = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "verbose": -1, "num_threads": 1}
    data = lightgbm.Dataset(rows, label > 0 if objective == "binary" else label)
    model = lightgbm.train({**options, "objective": objective}, data, 7)
    found = mr.explain(model, rows[:40], engine="inline")
    close(found.values.sum(1) + found.base_values, model.predict(rows[:40], raw_score=True) / 7)
