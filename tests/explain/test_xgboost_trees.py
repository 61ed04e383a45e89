"""An `Ensemble` read from XGBoost predicts what XGBoost predicts, to the rounding of its float32 sums."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost
from tree_cases import (
    POSITIVE,
    SHARE,
    N,
    Y,
    close,
    hostile,
    table,
    three,
    xgboost_data,
    xgboost_model,
)

from millrace.analyses.explain.kernels.ensemble import (
    Ensemble,
    apply_link,
    category_columns,
    predict,
)
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.kernels.xgboost import read_xgboost

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
    largest = [np.abs(model.value[a:b]).max() for a, b in zip(model.tree_start, model.tree_start[1:], strict=False)]
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
