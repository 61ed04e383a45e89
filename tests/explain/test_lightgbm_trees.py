"""An `Ensemble` read from LightGBM predicts what LightGBM predicts, on every row."""

from __future__ import annotations

import warnings
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_cases import (
    POSITIVE,
    SHARE,
    N,
    Y,
    close,
    hostile,
    lightgbm_model,
    table,
    three,
)

from millrace.analyses.explain.kernels.ensemble import (
    apply_link,
    category_columns,
    predict,
)
from millrace.analyses.explain.kernels.lightgbm import read_lightgbm
from millrace.analyses.explain.kernels.tree_models import read_trees

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
            warnings.simplefilter("ignore", UserWarning)  # it was fitted with the same array, and warns all the same
            close(predict(model, rows), estimator.predict(rows, raw_score=True))
            if names != ("output",):
                probability = estimator.predict_proba(rows)
                close(
                    apply_link(model, predict(model, rows)),
                    probability if len(names) > 1 else probability[:, 1],
                )
