"""An `Ensemble` that was read from a model predicts what the model predicts, on every row, or is refused by name."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_trees import ensembles, ensembles_with_rows, random_rows
from sklearn import ensemble as forests
from sklearn import tree as trees
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from millrace.analyses.explain.kernels.assemble import member_sets
from millrace.analyses.explain.kernels.ensemble import (
    Ensemble,
    apply_link,
    branch_fractions,
    category_columns,
    check_rows,
    predict,
)
from millrace.analyses.explain.kernels.lightgbm import read_lightgbm
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.kernels.xgboost import read_xgboost
from millrace.run.errors import ModelTrouble, NotSupported, WrongQuestion

Rows = NDArray[Any]
N, P, CATEGORY, FEW = (
    300,
    6,
    4,
    5,
)  # columns 4 (codes 0-69) and 5 (codes 0-5) are categories where a model has any


def table(missing: float = 0.1) -> Rows:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((N, P))
    rows[:, 3] = rng.poisson(0.7, N)  # many zeros
    rows[:, CATEGORY] = rng.choice([0, 1, 2, 3, 5, 8, 13, 21, 31, 32, 33, 40, 63, 64, 69], N)
    rows[:, FEW] = rng.integers(0, 6, N)
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def target(rows: Rows) -> Rows:
    known = np.nan_to_num(rows)
    odd = np.isin(known[:, CATEGORY], [2, 5, 33, 64]) + 0.5 * (known[:, FEW] % 2) - np.isnan(rows[:, 0])
    return np.asarray(known[:, 0] * known[:, 1] + np.sin(known[:, 2]) + odd + 0.3 * known[:, 3])


def three(values: Rows) -> Rows:
    return np.digitize(values, [0.3, 1.2])


def hostile(model: Ensemble, most: float = np.inf, missing: bool = True) -> Rows:
    """Rows on the thresholds and beside them, far away (not beyond `most`), unknown and negative categories, NaN."""
    rows = random_rows(np.random.default_rng(11), model, 400, 0.15 if missing else 0.0)
    return np.clip(rows, -most, most)


def close(ours: Rows, theirs: Any, tolerance: float = 1e-12) -> None:
    theirs = np.asarray(theirs, np.float64).reshape(ours.shape)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# LightGBM -----------------------------------------------------------------------------------------------------


def lightgbm_model(
    rounds: int = 12, categories: bool = False, label: Any = None, weight: Any = None, **parameters: Any
) -> lightgbm.Booster:
    rows = table(0.0 if parameters.get("zero_as_missing") else 0.1)
    if parameters.get("zero_as_missing"):
        rows[np.abs(rows) < 0.3] = 0.0
    label = target(rows) if label is None else label
    data = lightgbm.Dataset(
        rows,
        label,
        weight=weight,
        categorical_feature=[CATEGORY, FEW] if categories else [],
        free_raw_data=False,
    )
    usual = {
        "verbose": -1, "num_leaves": 15, "min_data_in_leaf": 3, "min_data_per_group": 3, "cat_smooth": 1, "seed": 1,
        "num_threads": 1,
    }  # fmt: skip
    return lightgbm.train(usual | parameters, data, rounds)


Y = target(table())
POSITIVE = np.exp(Y / 3)
SHARE = 1 / (1 + np.exp(-Y))
RULES = lightgbm_model(rounds=3).model_to_string()
LIGHTGBM: dict[str, dict[str, Any]] = {
    "missing values": {},
    "zero as missing": {"zero_as_missing": True},
    "missing values not used": {"use_missing": False},
    "categories": {"categories": True},
    "categories one by one": {"categories": True, "max_cat_to_onehot": 80},
    "categories, zero as missing": {"categories": True, "zero_as_missing": True},
    "row weights": {"weight": np.random.default_rng(2).random(N) + 0.1},
    "one tree": {"rounds": 1},
    "stumps": {"num_leaves": 2},
    "deep": {"num_leaves": 100, "min_data_in_leaf": 1},
    "constant label": {"label": np.full(N, 3.25)},
    "random forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "dart": {"boosting": "dart", "drop_rate": 0.5},
    "goss": {"data_sample_strategy": "goss"},
    "bagging": {"bagging_freq": 1, "bagging_fraction": 0.5},
    "binary": {"objective": "binary", "label": Y > 0.5},
    "binary, sigmoid 2": {"objective": "binary", "label": Y > 0.5, "sigmoid": 2.0},
    "binary, categories": {"objective": "binary", "label": Y > 0.5, "categories": True},
    "binary, one class": {"objective": "binary", "label": np.ones(N)},
    "binary forest": {
        "objective": "binary", "label": Y > 0.5, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6,
    },
    "multiclass": {"objective": "multiclass", "num_class": 3, "label": three(Y), "categories": True},
    "multiclass, empty class": {"objective": "multiclass", "num_class": 4, "label": three(Y)},
    "multiclass forest": {
        "objective": "multiclass", "num_class": 3, "label": three(Y), "boosting": "rf", "bagging_freq": 1,
        "bagging_fraction": 0.6,
    },
    "one against all": {"objective": "multiclassova", "num_class": 3, "label": three(Y), "sigmoid": 1.5},
    "poisson": {"objective": "poisson", "label": POSITIVE},
    "gamma": {"objective": "gamma", "label": POSITIVE},
    "tweedie": {"objective": "tweedie", "label": POSITIVE},
    "cross entropy": {"objective": "cross_entropy", "label": SHARE},
    "cross entropy lambda": {"objective": "cross_entropy_lambda", "label": SHARE},
    "square root": {"objective": "regression", "reg_sqrt": True},
    "absolute error": {"objective": "regression_l1"},
    "absolute error, square root": {"objective": "regression_l1", "reg_sqrt": True},
    "huber": {"objective": "huber"},
    "fair": {"objective": "fair"},
    "quantile": {"objective": "quantile", "alpha": 0.3},
    "percentage": {"objective": "mape"},
}  # fmt: skip


@pytest.mark.parametrize("case", LIGHTGBM)
def test_a_lightgbm_model_is_read_to_its_own_output(case: str) -> None:
    booster = lightgbm_model(**LIGHTGBM[case])
    model = read_trees(booster)
    assert model is not None
    # LightGBM's raw score of a forest is a sum; its prediction, and so the ensemble, takes the mean of the trees.
    share = 12 if LIGHTGBM[case].get("boosting") == "rf" else 1
    for rows in (table(), hostile(model)):
        close(predict(model, rows), booster.predict(rows, raw_score=True) / share)
        close(apply_link(model, predict(model, rows)), booster.predict(rows))
    assert len(category_columns(model)) == (2 if LIGHTGBM[case].get("categories") else 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_rule_of_a_lightgbm_split_sends_every_value_as_lightgbm_does(seed: int) -> None:
    """Training never writes some rules (a threshold of exactly 0, a missing type against its data): put them in."""
    rng = np.random.default_rng(seed)
    lines = RULES.split("\n")
    for at, line in enumerate(lines):
        key, _, numbers = line.partition("=")
        count = len(numbers.split())
        if key == "decision_type":
            lines[at] = f"{key}={' '.join(str(k) for k in rng.choice([0, 2, 4, 6, 8, 10], count))}"
        if key == "threshold":
            values = rng.choice([0.0, -0.0, 1e-35, -1e-35, 1e-40, 0.5, -0.5, 1e300, -1e300], count)
            lines[at] = f"{key}={' '.join(repr(float(value)) for value in values)}"
    text = "\n".join(line for line in lines if not line.startswith("tree_sizes"))
    model, booster = read_lightgbm(text), lightgbm.Booster(model_str=text)
    rows = hostile(model)
    close(predict(model, rows), booster.predict(rows))


def test_lightgbm_ranking_and_an_objective_of_ones_own_are_read() -> None:
    rows = table()
    data = lightgbm.Dataset(rows, three(Y), group=[N // 3] * 3)
    ranker = lightgbm.train({"objective": "lambdarank", "verbose": -1, "min_data_in_leaf": 3}, data, 5)
    own = lightgbm_model(objective=lambda raw, data: (raw - data.get_label(), np.ones(len(raw))))
    for booster in (ranker, own):
        close(predict(read_lightgbm(booster), rows), booster.predict(rows))


def test_lightgbm_text_and_booster_are_the_same_ensemble() -> None:
    booster = lightgbm_model(categories=True)
    text = booster.model_to_string()
    assert read_lightgbm(text).digest == read_lightgbm(booster).digest
    assert read_lightgbm(lightgbm.Booster(model_str=text)).digest == read_lightgbm(booster).digest


def test_lightgbm_stops_at_the_best_iteration_exactly_where_predict_does() -> None:
    rows = table()
    data = lightgbm.Dataset(rows, Y, free_raw_data=False)
    noise = lightgbm.Dataset(rows, np.random.default_rng(0).standard_normal(N), reference=data)
    stopped = lightgbm.train(
        {"verbose": -1, "min_data_in_leaf": 3},
        data,
        60,
        [noise],
        keep_training_booster=True,
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    assert 0 < stopped.best_iteration < stopped.num_trees()
    close(predict(read_lightgbm(stopped), rows), stopped.predict(rows))
    by_hand = lightgbm_model()
    for best in (3, 12, 40, -1, 0):
        by_hand.best_iteration = best
        close(predict(read_lightgbm(by_hand), rows), by_hand.predict(rows))
    assert read_lightgbm(by_hand).n_trees == 12


def test_a_lightgbm_booster_in_training_is_read_as_it_predicts_now() -> None:
    data = lightgbm.Dataset(table(), Y, free_raw_data=False)
    booster = lightgbm.Booster({"verbose": -1, "min_data_in_leaf": 3}, data)
    assert predict(read_lightgbm(booster), table()).max() == 0  # no trees yet
    for rounds in (1, 2, 3):
        booster.update()
        model = read_lightgbm(booster)
        assert model.n_trees == rounds
        close(predict(model, table()), booster.predict(table()))


def test_lightgbm_estimators_bring_the_names_of_their_classes() -> None:
    rows = table()
    usual = {"n_estimators": 4, "verbose": -1, "min_child_samples": 3}
    named = np.array(["low", "mid", "high"])[three(Y)]
    many = lightgbm.LGBMClassifier(**usual).fit(rows, named)
    two = lightgbm.LGBMClassifier(**usual).fit(rows, np.where(Y > 0, "yes", "no"))
    one = lightgbm.LGBMRegressor(**usual).fit(rows, Y)
    for estimator, names in ((many, ("high", "low", "mid")), (two, ("yes",)), (one, ("output",))):
        model = read_trees(estimator)
        assert model is not None
        assert model.output_names == names
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # it was fitted with the same array, and warns all the same
            close(predict(model, rows), estimator.predict(rows, raw_score=True))
            if names != ("output",):
                probability = estimator.predict_proba(rows)
                close(
                    apply_link(model, predict(model, rows)),
                    probability if len(names) > 1 else probability[:, 1],
                )


# XGBoost ------------------------------------------------------------------------------------------------------


def xgboost_data(rows: Rows, label: Any = None, categories: bool = False, **more: Any) -> xgboost.DMatrix:
    kinds = ["c" if categories and column in (CATEGORY, FEW) else "q" for column in range(P)]
    return xgboost.DMatrix(rows, label, feature_types=kinds, enable_categorical=categories, **more)


def xgboost_model(
    rounds: int = 12, categories: bool = False, label: Any = None, weight: Any = None, **parameters: Any
) -> xgboost.Booster:
    label = Y if label is None else label
    data = xgboost_data(table(), label, categories, weight=weight)
    if parameters.get("objective") == "survival:aft":
        data = xgboost_data(table(), None, categories)
        data.set_float_info("label_lower_bound", label)
        data.set_float_info("label_upper_bound", label * 1.5)
    return xgboost.train({"max_depth": 4, "nthread": 1, "seed": 1} | parameters, data, rounds)


XGBOOST: dict[str, dict[str, Any]] = {
    "missing values": {},
    "categories": {"categories": True},
    "categories one by one": {"categories": True, "max_cat_to_onehot": 100},
    "categories by lot": {"categories": True, "max_cat_to_onehot": 1, "max_cat_threshold": 4},
    "row weights": {"weight": np.random.default_rng(2).random(N) * (np.arange(N) % 3)},
    "one tree": {"rounds": 1},
    "stumps": {"max_depth": 1},
    "no trees": {"rounds": 0},
    "base score": {"base_score": 7.5},
    "constant label": {"label": np.full(N, 3.25)},
    "pruned": {"gamma": 5.0, "max_depth": 8, "tree_method": "exact"},
    "leaf by leaf": {"grow_policy": "lossguide", "max_leaves": 12, "max_depth": 0},
    "dart": {"booster": "dart", "rate_drop": 0.5},
    "forest": {"num_parallel_tree": 4, "subsample": 0.5, "colsample_bynode": 0.5},
    "binary": {"objective": "binary:logistic", "label": Y > 0.5},
    "binary, base score": {"objective": "binary:logistic", "label": Y > 0.5, "base_score": 0.1},
    "binary, one class": {"objective": "binary:logistic", "label": np.zeros(N)},
    "binary, other class": {"objective": "binary:logistic", "label": np.ones(N)},
    "binary dart, categories": {
        "objective": "binary:logistic", "label": Y > 0.5, "booster": "dart", "rate_drop": 0.5, "categories": True,
    },
    "raw logits": {"objective": "binary:logitraw", "label": Y > 0.5},
    "hinge": {"objective": "binary:hinge", "label": Y > 0.5},
    "shares": {"objective": "reg:logistic", "label": SHARE},
    "multiclass": {"objective": "multi:softprob", "num_class": 3, "label": three(Y), "categories": True},
    "multiclass forest": {
        "objective": "multi:softprob", "num_class": 3, "label": three(Y), "num_parallel_tree": 3, "subsample": 0.5,
    },
    "multiclass dart": {
        "objective": "multi:softprob", "num_class": 3, "label": three(Y), "booster": "dart", "rate_drop": 0.3,
    },
    "poisson": {"objective": "count:poisson", "label": POSITIVE},
    "gamma": {"objective": "reg:gamma", "label": POSITIVE},
    "tweedie": {"objective": "reg:tweedie", "label": POSITIVE},
    "cox": {"objective": "survival:cox", "label": POSITIVE, "base_score": 2.0},
    "accelerated failure": {"objective": "survival:aft", "label": POSITIVE},
    "logarithmic error": {"objective": "reg:squaredlogerror", "label": POSITIVE},
    "absolute error": {"objective": "reg:absoluteerror"},
    "pseudo-huber": {"objective": "reg:pseudohubererror"},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.7]},
    "several targets": {"label": np.stack([Y, -2 * Y], 1)},
    "several labels": {"label": np.stack([Y > 0, Y > 1], 1).astype(float), "objective": "binary:logistic"},
}  # fmt: skip


def float32_bound(model: Ensemble) -> float:
    """XGBoost adds in float32: each of n + 1 additions rounds to 2^-24 of a sum that is at most this large."""
    largest = [
        np.abs(model.value[a:b]).max() for a, b in zip(model.tree_start, model.tree_start[1:], strict=False)
    ]
    return (model.n_trees + 2) * 2.0**-24 * (np.abs(model.base).max() + sum(largest))


@pytest.mark.parametrize("case", XGBOOST)
def test_an_xgboost_model_is_read_to_its_own_output(case: str) -> None:
    categories = XGBOOST[case].get("categories", False)
    booster = xgboost_model(**XGBOOST[case])
    model = read_trees(booster)
    assert model is not None
    assert len(category_columns(model)) == (2 if categories else 0)
    bound = float32_bound(model)
    for rows in (table(), hostile(model, most=1e37)):
        data = xgboost_data(rows, categories=categories)
        raw = predict(model, rows)
        theirs = np.reshape(booster.predict(data, output_margin=True), raw.shape)
        assert np.abs(raw - theirs).max() <= bound
        close(apply_link(model, raw), booster.predict(data), 1e-5 * (1 + np.abs(raw).max()))


def test_xgboost_sends_infinite_values_as_its_inplace_prediction_does() -> None:
    booster = xgboost_model()
    model = read_xgboost(booster)
    rows = hostile(model)
    assert np.isinf(rows).any()
    raw = booster.inplace_predict(rows, predict_type="margin")
    assert np.abs(predict(model, rows)[:, 0] - raw).max() <= float32_bound(model)


def test_xgboost_softmax_gives_the_probabilities_behind_its_classes() -> None:
    booster = xgboost_model(objective="multi:softmax", num_class=3, label=three(Y))
    model = read_xgboost(booster)
    probability = apply_link(model, predict(model, table()))
    np.testing.assert_array_equal(probability.argmax(axis=1), booster.predict(xgboost_data(table())))


def test_xgboost_documents_in_both_forms_are_the_same_ensemble() -> None:
    for case in ("categories", "multiclass dart", "pruned", "no trees"):
        booster = xgboost_model(**XGBOOST[case])
        ours = read_xgboost(booster).digest
        assert read_xgboost(bytes(booster.save_raw("ubj"))).digest == ours
        assert read_xgboost(booster.save_raw("json")).digest == ours


def test_one_base_score_for_all_outputs_as_older_xgboost_wrote_it() -> None:
    booster = xgboost_model(objective="multi:softprob", num_class=3, label=three(Y), base_score=0.25)
    document = json.loads(bytes(booster.save_raw("json")))
    document["learner"]["learner_model_param"]["base_score"] = "2.5E-1"
    model = read_xgboost(json.dumps(document).encode())
    assert model.digest == read_xgboost(booster).digest


def test_an_xgboost_booster_uses_all_trees_and_an_estimator_stops_at_the_best() -> None:
    rows, noise = table(), np.random.default_rng(0).standard_normal(N)
    estimator = xgboost.XGBRegressor(n_estimators=50, early_stopping_rounds=3, max_depth=3, n_jobs=1)
    estimator.fit(rows, Y, eval_set=[(rows, noise)], verbose=False)
    booster = estimator.get_booster()
    assert estimator.best_iteration + 1 < booster.num_boosted_rounds()
    stopped, whole = read_trees(estimator), read_trees(booster)
    assert stopped is not None
    assert whole is not None
    assert (stopped.n_trees, whole.n_trees) == (estimator.best_iteration + 1, booster.num_boosted_rounds())
    close(predict(stopped, rows), estimator.predict(rows), 1e-5)
    close(predict(whole, rows), booster.predict(xgboost_data(rows)), 1e-5)


@pytest.mark.parametrize("case", ["multiclass forest", "dart", "categories"])
def test_best_iteration_set_by_hand_changes_what_predict_changes(case: str) -> None:
    parameters = XGBOOST[case]
    booster = xgboost_model(**parameters)
    booster.set_attr(best_iteration="4")
    data = xgboost_data(table(), categories=parameters.get("categories", False))
    close(predict(read_xgboost(booster), table()), booster.predict(data, output_margin=True), 1e-5)
    first = booster.predict(data, output_margin=True, iteration_range=(0, 5))
    close(predict(read_xgboost(booster, 5), table()), first, 1e-5)
    document = json.loads(bytes(booster.save_raw("json")))
    gradient = document["learner"]["gradient_booster"]
    del (gradient.get("gbtree") or gradient)["model"]["iteration_indptr"]  # as before XGBoost 2.0
    assert read_xgboost(json.dumps(document).encode(), 5).digest == read_xgboost(booster, 5).digest


def test_xgboost_estimators_bring_classes_and_are_read_by_what_they_can_do() -> None:
    rows = table()
    many = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(rows, three(Y))
    two = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(rows, Y > 0)
    forest = xgboost.XGBRFRegressor(n_estimators=4, n_jobs=1).fit(rows, Y)
    for estimator, names in ((many, ("0", "1", "2")), (two, ("1",)), (forest, ("output",))):
        model = read_trees(estimator)
        assert model is not None
        assert model.output_names == names
        close(predict(model, rows), estimator.predict(rows, output_margin=True), 1e-5)


# scikit-learn -------------------------------------------------------------------------------------------------

SMALL = {"random_state": 0, "max_depth": 5}
FEW_TREES = SMALL | {"n_estimators": 7, "n_jobs": 1}
WEIGHTS = np.random.default_rng(2).random(N) * (np.arange(N) % 3)
AVERAGES: dict[str, tuple[Any, Any]] = {
    "tree": (trees.DecisionTreeRegressor(**SMALL), Y),
    "stump": (trees.DecisionTreeRegressor(max_depth=1), Y),
    "best leaves first": (trees.DecisionTreeRegressor(max_leaf_nodes=9, random_state=0), Y),
    "pruned tree": (trees.DecisionTreeRegressor(ccp_alpha=0.05, random_state=0), Y),
    "constant label": (trees.DecisionTreeRegressor(), np.full(N, 2.0)),
    "tree of classes": (trees.DecisionTreeClassifier(**SMALL), three(Y)),
    "extra tree": (trees.ExtraTreeRegressor(**SMALL), Y),
    "extra tree of classes": (trees.ExtraTreeClassifier(**SMALL), Y > 0),
    "tree of targets": (trees.DecisionTreeRegressor(**SMALL), np.stack([Y, -Y, Y**2], 1)),
    "forest": (forests.RandomForestRegressor(**FEW_TREES), Y),
    "forest, unlimited": (forests.RandomForestRegressor(n_estimators=5, random_state=0, n_jobs=1), Y),
    "forest, poisson": (forests.RandomForestRegressor(criterion="poisson", **FEW_TREES), POSITIVE),
    "forest of targets": (forests.RandomForestRegressor(**FEW_TREES), np.stack([Y, Y**2], 1)),
    "forest of classes": (forests.RandomForestClassifier(**FEW_TREES), three(Y)),
    "forest of named classes": (
        forests.RandomForestClassifier(class_weight="balanced", **FEW_TREES), np.where(Y > 0, "yes", "no"),
    ),
    "extra trees": (forests.ExtraTreesRegressor(**FEW_TREES), Y),
    "extra trees of classes": (forests.ExtraTreesClassifier(**FEW_TREES), three(Y)),
}  # fmt: skip


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize("case", AVERAGES)
def test_an_average_of_trees_is_read_to_its_own_output(case: str, weight: Rows | None) -> None:
    estimator, label = AVERAGES[case]
    estimator.fit(table(), label, sample_weight=weight)
    model = read_trees(estimator)
    assert model is not None
    output = getattr(estimator, "predict_proba", estimator.predict)
    for rows in (table(), hostile(model, most=1e37)):
        close(predict(model, rows), output(rows))
    assert model.link == ("probability" if hasattr(estimator, "classes_") else "identity")
    if hasattr(estimator, "classes_"):
        assert model.output_names == tuple(str(name) for name in estimator.classes_)
    root = model.tree_start[0]
    assert model.cover[root] == pytest.approx(estimator_cover(estimator))


def estimator_cover(estimator: Any) -> float:
    first = estimator.estimators_[0] if hasattr(estimator, "estimators_") else estimator
    return float(first.tree_.weighted_n_node_samples[0])


BOOSTED: dict[str, tuple[Any, Any]] = {
    "regression": (forests.GradientBoostingRegressor(n_estimators=9, random_state=0), Y),
    "absolute error": (forests.GradientBoostingRegressor(n_estimators=9, loss="absolute_error"), Y),
    "huber, subsampled": (
        forests.GradientBoostingRegressor(n_estimators=9, loss="huber", subsample=0.5, random_state=0), Y,
    ),
    "quantile": (forests.GradientBoostingRegressor(n_estimators=9, loss="quantile", alpha=0.3), Y),
    "init zero": (forests.GradientBoostingRegressor(n_estimators=9, init="zero"), Y),
    "init median": (forests.GradientBoostingRegressor(n_estimators=9, init=DummyRegressor(strategy="median")), Y),
    "binary": (forests.GradientBoostingClassifier(n_estimators=9), Y > 0.5),
    "exponential": (forests.GradientBoostingClassifier(n_estimators=9, loss="exponential"), Y > 0.5),
    "init prior": (forests.GradientBoostingClassifier(n_estimators=9, init=DummyClassifier()), Y > 0.5),
    "init zero, binary": (forests.GradientBoostingClassifier(n_estimators=9, init="zero"), Y > 0.5),
    "multiclass": (forests.GradientBoostingClassifier(n_estimators=9), three(Y)),
    "stopped early": (forests.GradientBoostingRegressor(n_estimators=80, n_iter_no_change=2, random_state=0), Y),
}  # fmt: skip


def check_boosted(estimator: Any, model: Ensemble, rows: Rows) -> None:
    raw = predict(model, rows)
    if not hasattr(estimator, "predict_proba"):
        close(apply_link(model, raw), estimator.predict(rows))
        return
    close(raw, estimator.decision_function(rows))
    probability = estimator.predict_proba(rows)
    close(apply_link(model, raw), probability if model.n_outputs > 1 else probability[:, 1])


@pytest.mark.parametrize("case", BOOSTED)
def test_gradient_boosting_is_read_to_its_own_output(case: str) -> None:
    estimator, label = BOOSTED[case]
    estimator.fit(table(0.0), label, sample_weight=WEIGHTS + 0.1)
    model = read_trees(estimator)
    assert model is not None
    for rows in (table(0.0), hostile(model, most=1e37, missing=False)):
        check_boosted(estimator, model, rows)


HISTOGRAMS: dict[str, tuple[Any, Any]] = {
    "regression": ({}, Y),
    "categories": ({"categorical_features": [CATEGORY, FEW]}, Y),
    "poisson": ({"loss": "poisson", "categorical_features": [CATEGORY]}, POSITIVE),
    "gamma": ({"loss": "gamma"}, POSITIVE),
    "absolute error": ({"loss": "absolute_error"}, Y),
    "quantile": ({"loss": "quantile", "quantile": 0.2}, Y),
    "stumps": ({"max_leaf_nodes": 2, "categorical_features": [FEW]}, Y),
    "constant label": ({}, np.full(N, 1.5)),
    "binary": ({"categorical_features": [CATEGORY, FEW]}, Y > 0.5),
    "multiclass": ({"categorical_features": [CATEGORY, FEW]}, np.array(["a", "b", "c"])[three(Y)]),
}


@pytest.mark.parametrize("missing", [0.0, 0.1], ids=["whole", "with gaps"])
@pytest.mark.parametrize("case", HISTOGRAMS)
def test_histogram_boosting_is_read_to_its_own_output(case: str, missing: float) -> None:
    parameters, label = HISTOGRAMS[case]
    kind = (
        forests.HistGradientBoostingClassifier
        if case in ("binary", "multiclass")
        else forests.HistGradientBoostingRegressor
    )
    estimator = kind(max_iter=9, min_samples_leaf=4, random_state=0, **parameters).fit(
        table(missing), label, sample_weight=WEIGHTS + 0.1
    )
    model = read_trees(estimator)
    assert model is not None
    rows, columns = hostile(model), parameters.get("categorical_features", [])
    rows[:, columns] = np.clip(rows[:, columns], -3, 200).round()  # its encoder takes no infinite category
    for each in (table(), rows):
        check_boosted(estimator, model, each)
    assert set(category_columns(model)) <= set(columns)
    assert case == "stumps" or bool(len(category_columns(model))) == bool(columns)


def test_histogram_boosting_over_a_frame_reads_the_values_of_its_categories() -> None:
    rows = pd.DataFrame(table(0.0), columns=list("abcdef"))
    rows["e"] = rows["e"].astype(int).astype("category")
    estimator = forests.HistGradientBoostingRegressor(max_iter=9, min_samples_leaf=4).fit(rows, Y)
    model = read_trees(estimator)
    assert model is not None
    assert category_columns(model).tolist() == [CATEGORY]
    close(predict(model, rows.astype(float).to_numpy()), estimator.predict(rows))


# Inputs of other types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.float32, bool])
def test_columns_of_any_numeric_type_are_read_as_the_libraries_read_them(dtype: Any) -> None:
    rows = (np.random.default_rng(3).integers(0, 9, (N, P))).astype(dtype)
    label = rows.astype(float) @ np.arange(P)
    boosted = lightgbm.train(
        {"verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows.astype(float), label), 5
    )
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


# Refused by name ----------------------------------------------------------------------------------------------


class _Catboost:
    """What a CatBoost model can do that no other can."""

    tree_count_ = 3

    def get_tree_leaf_counts(self) -> list[int]:
        return [2, 2, 2]

    def calc_leaf_indexes(self, data: Any) -> list[int]:
        return [0]


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
        "catboost": (_Catboost, "CatBoost"),
        "missing is 0": (
            lambda: xgboost.XGBRegressor(n_estimators=2, missing=0.0).fit(rows, Y), "takes 0.0 for a missing value",
        ),
        "bagging": (lambda: forests.BaggingRegressor(**usual).fit(rows, Y), "BaggingRegressor of trees"),
        "adaboost": (lambda: forests.AdaBoostClassifier(**usual).fit(rows, Y > 0), "AdaBoostClassifier of trees"),
        "isolation": (lambda: forests.IsolationForest(**usual).fit(rows), "IsolationForest of trees"),
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
        forests.VotingRegressor([("a", leaf), ("b", leaf)]).fit(rows, Y),
        forests.StackingRegressor([("a", leaf)]).fit(rows, Y),
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


# Damaged models -----------------------------------------------------------------------------------------------


def test_garbage_is_said_to_be_no_model_in_one_paragraph() -> None:
    for text in ("", "tree", "hello\nworld", "tree\nversion=v4\n\nend of trees\n"):
        with pytest.raises(ModelTrouble) as caught:
            read_lightgbm(text)
        assert "\n" not in str(caught.value)
    for content in (
        b"",
        b"{",
        b"{}",
        b"[1]",
        b'{"learner": 3}',
        b'{"learner": {}}',
        b"{i\x07learnerZ}",
        b"binf\x00\x01",
    ):
        with pytest.raises(ModelTrouble) as caught:
            read_xgboost(content)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_is_trouble_wherever_it_is_cut() -> None:
    text = lightgbm_model(rounds=3, categories=True).model_to_string()
    end = text.index("end of trees")
    for cut in range(0, end, 37):
        with pytest.raises(ModelTrouble):
            read_lightgbm(text[:cut])
    content = bytes(xgboost_model(rounds=2, max_depth=2).save_raw("ubj"))
    for cut in range(0, len(content) - 1, 41):
        with pytest.raises(ModelTrouble):
            read_xgboost(content[:cut])


TEXT = lightgbm_model(rounds=3, categories=True).model_to_string().partition("\nfeature_importances")[0]
CONTENTS = [
    bytes(xgboost_model(rounds=2, max_depth=2, categories=True).save_raw(form)) for form in ("ubj", "json")
]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 12), st.text("0123456789-. =\nnaif", max_size=4))
def test_a_damaged_text_is_trouble_or_a_sound_ensemble(at: int, cut: int, put: str) -> None:
    try:
        model = read_lightgbm(TEXT[:at] + put + TEXT[at + cut :])
    except (ModelTrouble, NotSupported):
        return
    with contextlib.suppress(WrongQuestion):  # other columns, or categories now
        predict(model, table())


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(CONTENTS), st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(max_size=4))
def test_a_damaged_document_is_trouble_or_a_sound_ensemble(
    content: bytes, where: float, cut: int, put: bytes
) -> None:
    at = int(where * len(content))
    try:
        model = read_xgboost(content[:at] + put + content[at + cut :])
    except (ModelTrouble, NotSupported):
        return
    with contextlib.suppress(WrongQuestion):  # other columns, or categories now
        predict(model, table())


def test_category_sets_that_are_cut_short_are_trouble() -> None:
    for number in ("-9", "900", "99999999999999999999"):
        for key in ("cat_boundaries=", "cat_threshold="):
            with pytest.raises(ModelTrouble):
                read_lightgbm(TEXT.replace(f"\n{key}", f"\n{key}{number} "))
        with pytest.raises(ModelTrouble):
            read_lightgbm(TEXT.replace("\ncat_boundaries=0 ", f"\ncat_boundaries={number} "))
    document = json.loads(CONTENTS[1])
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["categories_sizes"] = [10**12] * len(tree["categories_sizes"])
    with pytest.raises(ModelTrouble, match="cut short"):
        read_xgboost(json.dumps(document).encode())


def test_inner_nodes_add_nothing() -> None:
    forest = forests.RandomForestRegressor(2, random_state=0, n_jobs=1).fit(table(), Y)
    for fitted in (lightgbm_model(), xgboost_model(), forest):
        model = read_trees(fitted)
        assert model is not None
        assert not model.value[model.left >= 0].any()
        assert model.value[model.left < 0].any()


def test_leaves_that_are_not_finite_are_trouble() -> None:
    document = json.loads(bytes(xgboost_model(rounds=2).save_raw("json")))
    first = document["learner"]["gradient_booster"]["model"]["trees"][0]
    first["split_conditions"][first["left_children"].index(-1)] = float("nan")
    with pytest.raises(ModelTrouble, match="not finite"):
        read_xgboost(json.dumps(document).encode())


def test_a_tree_that_is_its_own_ancestor_is_trouble() -> None:
    document = json.loads(bytes(xgboost_model(rounds=2).save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][1]["left_children"][1] = 0
    with pytest.raises(ModelTrouble, match="do not form trees"):
        read_xgboost(json.dumps(document).encode())


# The record itself --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(ensembles())
def test_arrays_round_trip_with_the_same_digest(model: Ensemble) -> None:
    again = Ensemble.from_arrays(model.arrays())
    assert again.digest == model.digest
    for name, item in model.arrays().items():
        if isinstance(item, np.ndarray):
            assert not item.flags.writeable
            assert item.flags.c_contiguous
            assert item.dtype == again.arrays()[name].dtype


def test_the_digest_moves_with_every_field() -> None:
    model = read_lightgbm(lightgbm_model(rounds=2, categories=True))
    digests = {model.digest}
    for name, item in model.arrays().items():
        if isinstance(item, np.ndarray):
            other = item.copy()
            other.ravel()[-1] += 1
            if name == "tree_start":  # its last number is the count of nodes: not free
                other = np.concatenate([item[:1], item[1:-1] + 2, item[-1:]])
            digests.add(replace(model, **{name: other}).digest)
    for change in (
        {"n_features": 7},
        {"float32_inputs": True},
        {"link": "log"},
        {"output_names": ("other",)},
    ):
        digests.add(replace(model, **change).digest)
    assert len(digests) == 1 + 13 + 4


@settings(deadline=None, max_examples=50)
@given(ensembles())
def test_nodes_stand_in_preorder(model: Ensemble) -> None:
    for tree in range(model.n_trees):
        start, stop = int(model.tree_start[tree]), int(model.tree_start[tree + 1])
        expected, stack = start, [start]
        while stack:
            node = stack.pop()
            assert node == expected
            expected += 1
            if model.left[node] >= 0:
                assert model.feature[node] >= 0
                stack += [int(model.right[node]), int(model.left[node])]
            else:
                assert model.feature[node] == model.right[node] == -1
        assert expected == stop


@settings(deadline=None, max_examples=50)
@given(ensembles_with_rows())
def test_branch_fractions_are_finite_and_siblings_share_the_whole(case: tuple[Ensemble, Rows]) -> None:
    model, _ = case
    fraction = branch_fractions(model)
    inner = np.flatnonzero(model.left >= 0)
    np.testing.assert_allclose(fraction[model.left[inner]] + fraction[model.right[inner]], 1.0, rtol=1e-12)
    assert (fraction[model.tree_start[:-1]] == 1).all()
    empty = inner[model.cover[inner] == 0]
    assert (fraction[model.left[empty]] == 0.5).all()


def test_a_memory_map_is_taken_as_it_is(tmp_path: Any) -> None:
    model = read_lightgbm(lightgbm_model(rounds=2))
    np.save(tmp_path / "threshold.npy", model.threshold)
    mapped = np.load(tmp_path / "threshold.npy", mmap_mode="r")
    again = Ensemble.from_arrays(model.arrays() | {"threshold": mapped})
    assert np.shares_memory(again.threshold, mapped)
    assert again.digest == model.digest
