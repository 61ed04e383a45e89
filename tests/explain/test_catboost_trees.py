"""CatBoost's trees, read from its own document, give its raw output and its own contributions."""

from __future__ import annotations

from typing import Any

import catboost
import numpy as np
import pytest
from tree_cases import N, hostile, table, target, three

import millrace as mr
from millrace.analyses.explain.kernels.ensemble import predict
from millrace.analyses.explain.kernels.tree_models import read_trees
from millrace.analyses.explain.oracle import brute_interventional, brute_path_dependent
from millrace.run.errors import ModelTrouble, NotSupported

ROWS = table()
Y = target(ROWS)


def fitted(kind: Any = catboost.CatBoostRegressor, label: Any = Y, **options: Any) -> Any:
    usual = {"iterations": 12, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    return kind(**usual | options).fit(ROWS, label)


CASES = {
    "symmetric": lambda: fitted(),
    "deeper than rows": lambda: fitted(depth=8),
    "missing values last": lambda: fitted(nan_mode="Max"),
    "depthwise": lambda: fitted(grow_policy="Depthwise"),
    "by leaves": lambda: fitted(grow_policy="Lossguide", max_leaves=12),
    "weights": lambda: fitted(kind=lambda **o: _Weighted(o)),
    "counts": lambda: fitted(label=np.round(np.exp(Y / 3)), loss_function="Poisson"),
    "two classes": lambda: fitted(catboost.CatBoostClassifier, Y > 0.5),
    "three classes": lambda: fitted(catboost.CatBoostClassifier, three(Y)),
    "one against all": lambda: fitted(catboost.CatBoostClassifier, three(Y), loss_function="MultiClassOneVsAll"),
    "two targets": lambda: fitted(label=np.stack([Y, -Y * Y], 1), loss_function="MultiRMSE"),
}


class _Weighted:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def fit(self, rows: Any, label: Any) -> Any:
        weight = np.random.default_rng(2).random(N) * (np.arange(N) % 3)
        return catboost.CatBoostRegressor(**self.options).fit(rows, label, sample_weight=weight)


@pytest.mark.parametrize("case", CASES)
def test_raw_output_and_own_contributions(case: str) -> None:
    model = CASES[case]()
    forest = read_trees(model)
    assert forest is not None
    rows = hostile(forest, most=1e30)
    own = np.asarray(model.predict(rows, prediction_type="RawFormulaVal")).reshape(len(rows), -1)
    np.testing.assert_allclose(predict(forest, rows), own, rtol=1e-10, atol=1e-10)
    part = rows[:20]
    answer = mr.explain(model, part)
    assert answer.exact and answer.method == "tree_path_dependent"
    values = np.asarray(answer.values).reshape(20, part.shape[1], -1)
    for k in range(2):
        wanted, base = brute_path_dependent(forest, part[k])
        np.testing.assert_allclose(values[k], wanted, atol=1e-12)
        np.testing.assert_allclose(answer.base_values, base, atol=1e-12)


@pytest.mark.parametrize("case", ["symmetric", "deeper than rows", "two classes", "weights", "small depthwise"])
def test_its_own_contributions(case: str) -> None:
    """Not of larger trees that are not symmetric: there CatBoost's own do not add up to its output."""
    model = fitted(iterations=5, depth=3, grow_policy="Depthwise") if case == "small depthwise" else CASES[case]()
    own = model.get_feature_importance(catboost.Pool(ROWS), type="ShapValues")
    answer = mr.explain(model, ROWS)
    np.testing.assert_allclose(answer.values, own[:, :-1], atol=1e-12)
    np.testing.assert_allclose(answer.base_values, own[0, -1], atol=1e-12)


def test_interventional_values_equal_brute_force() -> None:
    model = CASES["three classes"]()
    forest = read_trees(model)
    assert forest is not None
    answer = mr.explain(model, ROWS[:5], background=ROWS[50:70])
    for k in range(5):
        wanted, base = brute_interventional(lambda z: predict(forest, z), ROWS[k], ROWS[50:70], np.ones(20))
        np.testing.assert_allclose(answer.values[k], wanted, atol=1e-12)
        np.testing.assert_allclose(answer.base_values, base, atol=1e-12)
    assert answer.output_names == ("0", "1", "2")


def test_names_are_the_model_s_and_order_is_put_right() -> None:
    import pandas

    named = pandas.DataFrame(ROWS, columns=list("abcdef"))
    model = catboost.CatBoostRegressor(iterations=5, depth=3, verbose=0, allow_writing_files=False).fit(named, Y)
    answer = mr.explain(model, named[list("fedcba")])
    assert answer.feature_names == tuple("abcdef")
    assert answer.values.tobytes() == mr.explain(model, named).values.tobytes()


def test_categories_and_unfitted_models_are_refused_by_name() -> None:
    rows = np.array([[str(int(c)), x] for c, x in zip(np.arange(N) % 3, Y, strict=True)], object)
    model = catboost.CatBoostRegressor(iterations=3, verbose=0, allow_writing_files=False)
    with pytest.raises(ModelTrouble, match="not fitted"):
        read_trees(model)
    with pytest.raises(NotSupported, match="categorical columns"):
        read_trees(model.fit(rows, Y, cat_features=[0]))


def labelled() -> tuple[Any, np.ndarray]:
    import pandas

    frame = pandas.DataFrame(ROWS[:, :3], columns=list("abc")).assign(
        town=np.array(["u", "v", "w", "x", "y"])[np.arange(N) * 7 % 5], size=np.array(["s", "m"])[np.arange(N) // 2 % 2]
    )
    return frame, Y + frame.town.isin(["u", "x"]) * 2 - (frame["size"] == "s") * (frame.town == "w")


def over_labels(kind: Any = catboost.CatBoostRegressor, three_of_them: bool = False, **options: Any) -> tuple[Any, Any]:
    frame, label = labelled()
    usual = {"iterations": 8, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    model = kind(**usual | options)
    return model.fit(frame, three(label) if three_of_them else label, cat_features=["town", "size"]), frame


def brute_over_labels(model: Any, frame: Any, row: int, behind: range) -> np.ndarray:
    """Each column's number says from which row of the frame it comes."""
    import pandas

    def asked(numbers: np.ndarray) -> np.ndarray:
        at = numbers.astype(int)
        mixed = pandas.DataFrame({name: frame[name].to_numpy()[at[:, j]] for j, name in enumerate(frame.columns)})
        return np.asarray(model.predict(mixed, prediction_type="RawFormulaVal"))

    others = np.repeat(np.array(behind, float)[:, None], frame.shape[1], axis=1)
    return brute_interventional(asked, np.full(frame.shape[1], float(row)), others)[0]


@pytest.mark.parametrize("classes", [False, True], ids=["regression", "three classes"])
def test_categories_are_exact_where_a_split_asks_one_column(classes: bool) -> None:
    kind = catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor
    model, frame = over_labels(kind, classes, max_ctr_complexity=1)
    own = np.asarray(
        model.get_feature_importance(catboost.Pool(frame, cat_features=["town", "size"]), type="ShapValues")
    )
    answer = mr.explain(model, frame, engine="inline")
    assert answer.method == "tree_path_dependent" and answer.exact
    values = answer.values if classes else answer.values[:, :, None]
    np.testing.assert_allclose(np.moveaxis(values, 2, 1), own[..., :-1].reshape(N, -1, 5), atol=1e-10)
    known = mr.explain(model, frame[:3], background=frame[20:30], engine="inline")
    assert known.method == "interventional" and known.exact
    for k in range(2):
        np.testing.assert_allclose(
            np.ravel(known.values[k]), np.ravel(brute_over_labels(model, frame, k, range(20, 30))), atol=1e-10
        )


def test_splits_of_several_categories_are_answered_through_the_model_s_own_predictions() -> None:
    model, frame = over_labels(iterations=30, max_ctr_complexity=2, one_hot_max_size=1)
    answer = mr.explain(model, frame[:3], background=frame[20:30], engine="inline")
    assert answer.method == "kernel" and answer.exact
    assert any("together" in note for note in answer.notes)
    for k in range(2):
        np.testing.assert_allclose(
            answer.values[k], np.ravel(brute_over_labels(model, frame, k, range(20, 30))), atol=1e-10
        )
