"""Where values of other libraries are wrong, ours are right: the snippets of the documentation, as tests."""

from __future__ import annotations

from typing import Any

import catboost
import numpy as np
import pytest
import shap
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

import millrace as mr

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def gap_of(values: Any, base: Any, predictions: Any) -> float:
    return float(np.abs(np.ravel(base)[0] + np.asarray(values).sum(axis=1) - predictions).max())


def test_deep_paths_of_many_features_add_up_here_and_not_in_shap() -> None:
    """shap's polynomials lose all digits (its issue 4042)."""
    rows = np.eye(120)
    model = DecisionTreeRegressor(random_state=0).fit(rows, np.arange(120.0) ** 2)
    theirs = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    wrong = gap_of(theirs.shap_values(rows, check_additivity=False), theirs.expected_value, model.predict(rows))
    answer = mr.explain(model, rows, engine="inline")
    assert model.get_depth() > 80 and wrong > 1.0
    assert answer.additivity_error < 1e-8
    assert gap_of(answer.values, answer.base_values, model.predict(rows)) < 1e-8


def test_a_background_of_more_than_a_hundred_rows_is_used_whole_here_and_cut_in_shap() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1000, 4))
    model = RandomForestRegressor(5, random_state=0).fit(rows, rows[:, 0] * rows[:, 1] + rows[:, 2])
    mean = model.predict(rows).mean()
    theirs = float(np.ravel(shap.TreeExplainer(model, rows).expected_value)[0])
    answer = mr.explain(model, rows[:20], background=rows, engine="inline")
    assert abs(theirs - mean) > 1e-3
    assert abs(answer.base_values[0] - mean) < 1e-12
    seen = rows.astype("f4").astype(
        "f8"
    )  # as the trees see them; shap does not round, and sends a row in a thousand astray
    masker = shap.maskers.Independent(seen, max_samples=len(seen))
    whole = shap.TreeExplainer(model, masker).shap_values(seen[:20], check_additivity=False)
    np.testing.assert_allclose(answer.values, whole, atol=1e-6)


def test_catboost_s_own_values_of_trees_that_are_not_symmetric_do_not_add_up_and_ours_do() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 6))
    model = catboost.CatBoostRegressor(
        iterations=12, depth=4, grow_policy="Depthwise", verbose=0, thread_count=1, allow_writing_files=False
    ).fit(rows, rows[:, 0] * rows[:, 1])
    own = model.get_feature_importance(catboost.Pool(rows), type="ShapValues")
    assert np.abs(own.sum(axis=1) - model.predict(rows)).max() > 1e-3
    assert mr.explain(model, rows, engine="inline").additivity_error < 1e-12
