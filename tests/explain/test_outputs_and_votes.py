"""Probabilities, log loss, voting, isolation forests, tolerance: exact where they are sums, else honest estimates."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
from random_trees import random_ensemble, random_rows
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

import millrace as mr
from millrace.analyses.explain.kernels.ensemble import predict
from millrace.analyses.explain.kernels.voting import comparing_in_float64
from millrace.analyses.explain.oracle import brute_interventional

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 5))
Y = X[:, 0] * X[:, 1] + X[:, 2]
LABELS = np.array(["no", "yes"])[(Y > 0).astype(int)]
BEHIND = X[50:65]


def check(ask: Any, answer: Any, rows: np.ndarray) -> None:
    values = np.asarray(answer.values).reshape(*rows.shape, -1)
    for row, found in zip(rows, values, strict=True):
        wanted, base = brute_interventional(ask, row, BEHIND)
        np.testing.assert_allclose(found, wanted, atol=1e-9)
        np.testing.assert_allclose(answer.base_values, base, atol=1e-9)


def boosted(labels: Any = LABELS) -> Any:
    kind = lightgbm.LGBMClassifier if labels is LABELS else lightgbm.LGBMRegressor
    return kind(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1).fit(X, labels)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_log_loss_of_every_class() -> None:
    model = boosted()
    answer = mr.explain(model, X[:3], background=BEHIND, output="log_loss")
    assert answer.output_names == ("loss if no", "loss if yes") and answer.unit == "log loss" and answer.exact
    check(lambda z: -np.log(model.predict_proba(z)), answer, X[:3])
    certain = RandomForestClassifier(3, random_state=0).fit(X, LABELS)  # probabilities of 0
    assert np.isfinite(mr.explain(certain, X[:2], background=BEHIND, output="log_loss").values).all()


def test_a_booster_without_predict_proba_has_probabilities_too() -> None:
    booster = boosted().booster_
    answer = mr.explain(booster, X[:3], background=BEHIND, output="probability")
    assert answer.output_names == ("0", "1") and answer.method == "kernel"
    np.testing.assert_allclose(answer.predictions[:, 1], booster.predict(X[:3]), atol=1e-12)


def forests() -> list[tuple[str, Any]]:
    return [
        ("forest", RandomForestClassifier(4, max_depth=4, random_state=0)),
        ("extra", ExtraTreesClassifier(4, max_depth=4, random_state=0)),
    ]


VOTES: dict[str, tuple[Any, Any, str, str]] = {
    "classes": (VotingClassifier(forests(), voting="soft", weights=[1, 3]), LABELS, "predict_proba", "interventional"),
    "regressors": (
        VotingRegressor([
            ("forest", RandomForestRegressor(4, max_depth=4, random_state=0)), ("gone", "drop"),
            ("histogram", HistGradientBoostingRegressor(max_iter=5)), ("light", boosted(Y)),
        ], weights=[2, 5, 1, 1]),
        Y, "predict", "interventional",
    ),
    "lines": (VotingRegressor([("a", Ridge()), ("b", LinearRegression())]), Y, "predict", "linear"),
    "mixed": (VotingRegressor([("a", Ridge()), ("b", RandomForestRegressor(3, max_depth=3))]), Y, "predict", "kernel"),
    "mixed classes": (
        VotingClassifier([*forests(), ("line", LogisticRegression())], voting="soft"), LABELS, "predict_proba", "kernel",
    ),
    "stacking": (
        StackingRegressor([("a", Ridge()), ("b", RandomForestRegressor(3, max_depth=3))], cv=2), Y, "predict", "kernel",
    ),
    "stacked trees": (
        StackingRegressor(
            [("a", RandomForestRegressor(3, max_depth=3, random_state=0)), ("b", boosted(Y))], final_estimator=Ridge(), cv=2
        ),
        Y, "predict", "interventional",
    ),
    "stacked lines": (
        StackingRegressor([("a", Ridge()), ("b", LinearRegression())], final_estimator=Ridge(), cv=2), Y, "predict", "linear",
    ),
    "stacked through": (
        StackingRegressor([("a", Ridge())], final_estimator=Ridge(), cv=2, passthrough=True), Y, "predict", "kernel",
    ),
    "stacked classes": (
        StackingClassifier(forests(), cv=2), LABELS, "predict_proba", "kernel",
    ),
    "median": (AdaBoostRegressor(n_estimators=4, random_state=0), Y, "predict", "kernel"),
}  # fmt: skip


@pytest.mark.parametrize("case", VOTES)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_ensembles_of_models_are_exact_and_by_linearity_where_it_holds(case: str) -> None:
    model, target, ask, method = VOTES[case]
    model.fit(X, target)
    answer = mr.explain(model, X[:3], background=BEHIND)
    assert answer.method == method and answer.exact
    check(getattr(model, ask), answer, X[:3])
    if ask == "predict_proba":
        assert answer.output_names == ("no", "yes")


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_in_float64_decide_as_rounded_inputs_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_ensemble(rng, float32_inputs=True, n_trees=5, depth=5)
    wide = comparing_in_float64(model)
    rows = random_rows(rng, model, 500)
    edge = model.threshold[model.feature >= 0].astype(np.float32)
    with np.errstate(over="ignore"):
        for away in (edge, np.nextafter(edge, np.float32(np.inf)), np.nextafter(edge, np.float32(-np.inf))):
            middle = (edge.astype(float) + away.astype(float)) / 2
            for j in range(5):
                if not (model.mode[model.feature == j] >= 4).any():
                    rows[: 3 * len(edge)][: len(edge) * 3, j] = np.resize(
                        np.concatenate([middle, np.nextafter(middle, 9), np.nextafter(middle, -9)]),
                        min(500, 3 * len(edge)),
                    )
            np.testing.assert_array_equal(predict(wide, rows), predict(model, rows))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_an_isolation_forest_is_explained_by_its_path_lengths() -> None:
    model = IsolationForest(n_estimators=10, max_features=3, max_samples=60, random_state=0).fit(X)
    answer = mr.explain(model, X[:3], background=BEHIND)
    assert answer.exact and answer.unit.startswith("mean path length")
    from millrace.analyses.explain.kernels.ensemble import apply_link
    from millrace.analyses.explain.kernels.tree_models import read_trees

    forest = read_trees(model)
    assert forest is not None
    check(lambda z: predict(forest, z), answer, X[:3])
    np.testing.assert_allclose(apply_link(forest, answer.predictions)[:, 0], model.score_samples(X[:3]), atol=1e-12)


def wide(rows: np.ndarray) -> np.ndarray:
    return np.sin(rows * 2).sum(axis=1) + rows[:, 0] * rows[:, 1] * rows[:, 2] * np.exp(rows[:, 3])


def test_a_tolerance_is_met_in_rounds_row_by_row() -> None:
    rows = RNG.standard_normal((12, 16))
    usual = mr.explain(wide, rows, background=rows[:5])
    assert usual.standard_errors is not None
    largest = usual.standard_errors.max(axis=1)
    bound = float(np.median(largest))
    tight = mr.explain(wide, rows, background=rows[:5], tolerance=bound)
    assert tight.standard_errors is not None
    easy = largest <= bound
    np.testing.assert_array_equal(tight.values[easy], usual.values[easy])
    assert (tight.standard_errors.max(axis=1)[~easy] < largest[~easy]).all()
    assert any("tolerance" in note for note in tight.notes)
    alone = mr.explain(wide, rows[~easy][:1], background=rows[:5], tolerance=bound)
    np.testing.assert_array_equal(alone.values[0], tight.values[~easy][0])
    once = mr.explain(wide, rows, background=rows[:5], tolerance=bound, max_evaluations=2100)
    np.testing.assert_array_equal(once.values, usual.values)
