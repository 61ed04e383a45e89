"""An `Ensemble` read from scikit-learn predicts what scikit-learn predicts, on every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble as forests
from sklearn import tree as trees
from sklearn.dummy import DummyClassifier, DummyRegressor
from tree_cases import (
    CATEGORY,
    FEW,
    POSITIVE,
    WEIGHTS,
    N,
    Rows,
    Y,
    close,
    hostile,
    table,
    three,
)

from millrace.analyses.explain.kernels.ensemble import (
    Ensemble,
    apply_link,
    category_columns,
    predict,
)
from millrace.analyses.explain.kernels.tree_models import read_trees

SMALL = {"random_state": 0, "max_depth": 5}
FEW_TREES = SMALL | {"n_estimators": 7, "n_jobs": 1}
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
    "bagging": (forests.BaggingRegressor(n_estimators=7, random_state=0), Y),
    "bagging of columns": (
        forests.BaggingRegressor(
            trees.DecisionTreeRegressor(max_depth=5), n_estimators=7, random_state=0, max_features=0.5,
            bootstrap_features=True,
        ), Y,
    ),
    "bagging of classes": (
        forests.BaggingClassifier(n_estimators=7, random_state=0, max_features=0.7), np.array(["a", "b", "c"])[three(Y)],
    ),
    "bagging of rare classes": (
        forests.BaggingClassifier(n_estimators=9, random_state=0, max_samples=12), np.where(np.arange(N) < 6, 7, three(Y)),
    ),
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
    "votes of two classes": (forests.AdaBoostClassifier(n_estimators=9, random_state=0), Y > 0.5),
    "votes of three classes": (
        forests.AdaBoostClassifier(trees.DecisionTreeClassifier(max_depth=3), n_estimators=9, random_state=0),
        np.array(["a", "b", "c"])[three(Y)],
    ),
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
