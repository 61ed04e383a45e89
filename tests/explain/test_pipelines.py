"""A pipeline whose steps map columns one to one is explained exactly, in the columns of its input."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, PolynomialFeatures, QuantileTransformer, StandardScaler

import millrace as mr
from millrace.analyses.explain.kernels.pipelines import open_pipeline
from millrace.analyses.explain.oracle import brute_interventional

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 5)) * [1, 10, 0.1, 3, 1] + [0, 5, 0, 0, 2]
GAPS = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
Y = X[:, 0] * X[:, 3] + X[:, 1] / 5
NAMED = pandas.DataFrame(X, columns=list("abcde"))


def light() -> Any:
    return lightgbm.LGBMRegressor(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1)


def mixed() -> Any:
    """Another order, one column dropped."""
    return make_column_transformer(
        (StandardScaler(), ["d", "a"]), ("passthrough", ["b"]), (QuantileTransformer(n_quantiles=50), ["e"])
    )


CASES: dict[str, tuple[Any, Any]] = {
    "scaled trees": (make_pipeline(StandardScaler(), light()), X),
    "imputed and scaled line": (make_pipeline(SimpleImputer(), StandardScaler(), Ridge()), GAPS),
    "columns by name": (make_pipeline(mixed(), light()), NAMED),
    "columns by name, line": (make_pipeline(mixed(), "passthrough", Ridge()), NAMED),
    "scores": (make_pipeline(StandardScaler(), LogisticRegression()), X),
    "classes": (make_pipeline(SimpleImputer(), RandomForestClassifier(5, max_depth=4, random_state=0)), GAPS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_values_are_those_of_the_whole_pipeline(case: str) -> None:
    model, rows = CASES[case]
    model.fit(rows, Y > 1 if case in ("scores", "classes") else Y)
    background = rows[50:70]
    answer = mr.explain(model, rows[:4], background=background)
    assert answer.exact
    assert answer.method in ("interventional", "linear")
    ask = {"scores": "decision_function", "classes": "predict_proba"}.get(case, "predict")

    def output(z: np.ndarray) -> np.ndarray:
        given = pandas.DataFrame(z, columns=list("abcde")) if rows is NAMED else z
        return np.asarray(getattr(model, ask)(given)).reshape(len(z), -1)

    numbers = np.asarray(rows, float)
    values = np.asarray(answer.values).reshape(4, 5, -1)
    for k in range(4):
        wanted, base = brute_interventional(output, numbers[k], numbers[50:70], np.ones(20))
        np.testing.assert_allclose(values[k], wanted, atol=1e-9)
        np.testing.assert_allclose(answer.base_values, base, atol=1e-9)
    np.testing.assert_array_equal(answer.data, numbers[:4])


def test_path_dependent_values_are_those_of_the_last_step() -> None:
    model = make_pipeline(mixed(), light()).fit(NAMED, Y)
    answer = mr.explain(model, NAMED)
    inner = mr.explain(model[-1], model[:-1].transform(NAMED))
    np.testing.assert_array_equal(answer.values[:, [3, 0, 1, 4]], inner.values)
    assert not answer.values[:, 2].any()
    assert answer.feature_names == tuple("abcde")


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        (PCA(3), X), (Normalizer(), X), (PolynomialFeatures(2), X), (KNNImputer(), GAPS),
        (ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", "passthrough", [0])]), X),
    ],
    ids=["components", "norms", "powers", "neighbours", "twice"],
)  # fmt: skip
def test_steps_that_mix_or_double_columns_are_left_to_the_kernel(head: Any, rows: np.ndarray) -> None:
    model = make_pipeline(head, Ridge()).fit(rows, Y)
    assert open_pipeline(model, tuple("abcde"), rows, None) is None
    assert mr.explain(model, rows[:20], background=rows[20:25]).method == "kernel"


def test_a_rare_mixture_of_columns_is_found() -> None:
    rare = np.where((RNG.random(X.shape) < 0.1) & (np.arange(300)[:, None] > 200) & (np.arange(5) == 3), np.nan, X)
    model = make_pipeline(KNNImputer(), Ridge()).fit(rare, Y)
    assert open_pipeline(model, tuple("abcde"), rare, None) is None
    assert open_pipeline(model, tuple("abcde"), rare[:200], None) is not None  # nothing is missing there
