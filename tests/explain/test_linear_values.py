"""Linear models: the closed form is brute force's answer, and only what computes a linear sum is taken for linear."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import linear_model, svm
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from millrace.analyses.explain.kernels.linear import Linear, explain_linear, read_linear
from millrace.analyses.explain.oracle import brute_interventional


def _data(features: int = 6, rows: int = 120) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    rows_ = rng.normal(size=(rows, features)) * np.logspace(-2, 2, features) + 3
    return rows_, rows_ @ (rng.normal(size=features) / np.logspace(-2, 2, features)) + 5 + 0.1 * rng.normal(size=rows)


ROWS, TARGET = _data()
TWO = np.where(np.median(TARGET) < TARGET, "yes", "no")
THREE = np.digitize(TARGET, np.quantile(TARGET, [0.3, 0.6]))

REGRESSIONS = [
    linear_model.LinearRegression(),
    linear_model.LinearRegression(fit_intercept=False),
    linear_model.Ridge(),
    linear_model.Lasso(alpha=0.01),
    linear_model.ElasticNet(alpha=0.01),
    linear_model.SGDRegressor(random_state=0, eta0=1e-6),
    linear_model.HuberRegressor(max_iter=2000),
    linear_model.TweedieRegressor(power=0, link="identity", max_iter=2000),
    svm.LinearSVR(random_state=0, max_iter=100),
    svm.SVR(kernel="linear", max_iter=1000),
]
CLASSIFIERS = [
    linear_model.LogisticRegression(max_iter=50),
    linear_model.RidgeClassifier(),
    linear_model.SGDClassifier(random_state=0, max_iter=20),
    linear_model.Perceptron(max_iter=20),
    svm.LinearSVC(random_state=0, max_iter=50),
    LinearDiscriminantAnalysis(),
]


def _fit(model: Any, target: NDArray[Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are stopped early: convergence does not matter here
        return model.fit(ROWS, target)


def _check(model: Any, ask: Any, rows: NDArray[Any], weights: NDArray[Any] | None = None) -> Linear:
    linear = read_linear(model)
    assert linear is not None
    background, explained = rows[:9], rows[9:12]
    shares = np.full(9, 1 / 9) if weights is None else weights / weights.sum()
    values = explain_linear(linear, explained, shares @ background)
    for i in range(3):
        exact, base = brute_interventional(ask, explained[i], background, weights)
        scale = np.abs(exact).max() + np.abs(base).max()
        np.testing.assert_allclose(values[i], exact, rtol=0, atol=1e-10 * scale)
        np.testing.assert_allclose(
            linear.raw(shares @ background[None])[0] if weights is None else base, base, rtol=1e-9
        )
    np.testing.assert_allclose(linear.raw(explained), np.asarray(ask(explained)).reshape(3, -1), rtol=1e-9, atol=1e-9)
    return linear


@pytest.mark.parametrize("model", REGRESSIONS, ids=lambda m: f"{type(m).__name__}")
def test_linear_regressions_equal_brute_force(model: Any) -> None:
    fitted = _fit(model, TARGET)
    linear = _check(fitted, fitted.predict, ROWS)
    assert linear.output_names == ("output",)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two classes", "three classes"])
def test_raw_scores_of_linear_classifiers_equal_brute_force(model: Any, target: NDArray[Any]) -> None:
    from sklearn.base import clone

    fitted = _fit(clone(model), target)
    linear = _check(fitted, fitted.decision_function, ROWS)
    assert linear.output_names == (("yes",) if target is TWO else ("0", "1", "2"))


def test_the_unit_says_log_odds_only_where_they_are() -> None:
    logistic = read_linear(_fit(linear_model.LogisticRegression(max_iter=50), TWO))
    margin = read_linear(_fit(svm.LinearSVC(random_state=0, max_iter=50), TWO))
    assert logistic is not None
    assert margin is not None
    assert logistic.unit == "log-odds of yes"
    assert margin.unit == "score of yes"


def test_several_targets_are_several_outputs() -> None:
    fitted = linear_model.Ridge().fit(ROWS, np.stack([TARGET, -(TARGET**2)], axis=1))
    assert _check(fitted, fitted.predict, ROWS).output_names == ("output 0", "output 1")


def test_background_weights_move_the_mean() -> None:
    fitted = linear_model.Ridge().fit(ROWS, TARGET)
    _check(fitted, fitted.predict, ROWS, np.random.default_rng(0).random(9))


@pytest.mark.parametrize(
    "model", [linear_model.PoissonRegressor(), linear_model.GammaRegressor(), linear_model.TweedieRegressor(power=1.5)]
)
def test_generalised_linear_models_with_log_link_are_explained_as_the_log_of_what_they_predict(model: Any) -> None:
    fitted = _fit(model, np.exp(TARGET / 10))
    linear = _check(fitted, lambda rows: np.log(fitted.predict(rows)), ROWS)
    assert linear.unit == "log of the model's output"


class _Bent:
    """Has coefficients, and computes something else with them."""

    coef_ = np.array([1.0, 2.0, 3.0])
    intercept_ = 0.5

    def __init__(self, bend: Any) -> None:
        self.bend = bend

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        return self.bend(rows @ self.coef_ + self.intercept_)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "bend",
    [np.tanh, np.square, lambda z: z * 1.001, lambda z: z + 0.01, lambda z: np.maximum(z, 0), lambda z: 1 / (1 + np.exp(-z)),
     lambda z: z[:2], lambda z: np.where(z > 0, "a", "b"), lambda z: z * np.nan],
)  # fmt: skip
def test_an_object_with_coefficients_that_computes_something_else_is_not_linear(bend: Any) -> None:
    assert read_linear(_Bent(bend)) is None


def test_float32_coefficients_get_float32_margins_and_no_more() -> None:
    model = _Bent(lambda z: z.astype(np.float32))
    model.coef_ = model.coef_.astype(np.float32)
    assert read_linear(model) is not None
    model.bend = lambda z: z * np.float32(1.0001)
    assert read_linear(model) is None


def test_a_large_intercept_does_not_hide_a_bend() -> None:
    model = _Bent(lambda z: z + np.sin(z))
    model.intercept_ = 1e7
    assert read_linear(model) is None
    model.bend = lambda z: z
    assert read_linear(model) is not None


def test_what_has_no_coefficients_or_others_is_not_linear() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = MLPRegressor(hidden_layer_sizes=(4,), max_iter=5).fit(ROWS, TARGET)
    pipeline = make_pipeline(StandardScaler(), linear_model.Ridge()).fit(ROWS, TARGET)
    one_against_one = svm.SVC(kernel="linear", max_iter=500)
    for model in (
        network,
        pipeline,
        lambda rows: rows,
        object(),
        None,
        linear_model.Ridge(),
        _fit(one_against_one, THREE),
    ):
        assert read_linear(model) is None


def test_centred_models_are_linear_only_when_their_intercept_says_so() -> None:
    fitted = PLSRegression(n_components=2).fit(ROWS, TARGET)  # subtracts its means before it multiplies
    assert read_linear(fitted) is None


def test_a_model_fitted_on_a_table_is_read_without_a_warning() -> None:
    import pandas

    table = pandas.DataFrame(ROWS, columns=list("abcdef"))
    fitted = linear_model.LogisticRegression(max_iter=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(table, TWO)
    assert read_linear(fitted) is not None


def test_sparse_coefficients_are_read() -> None:
    fitted = _fit(linear_model.SGDClassifier(penalty="l1", random_state=0, max_iter=20), TWO)
    dense = read_linear(fitted)
    sparse = read_linear(fitted.sparsify())
    assert dense is not None
    assert sparse is not None
    assert np.array_equal(dense.coefficients, sparse.coefficients)


@pytest.mark.filterwarnings("ignore")
def test_values_equal_shap() -> None:
    import shap

    fitted = linear_model.Ridge().fit(ROWS, TARGET)
    linear = read_linear(fitted)
    assert linear is not None
    theirs = shap.LinearExplainer(fitted, shap.maskers.Independent(ROWS[:50], max_samples=50)).shap_values(ROWS[50:60])
    np.testing.assert_allclose(explain_linear(linear, ROWS[50:60], ROWS[:50].mean(axis=0))[:, :, 0], theirs, atol=1e-10)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), features=st.integers(1, 40), outputs=st.integers(1, 4), n=st.integers(1, 20))
def test_values_add_up_and_do_not_depend_on_other_rows(seed: int, features: int, outputs: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    linear = Linear(rng.normal(size=(outputs, features)), rng.normal(size=outputs), tuple(map(str, range(outputs))), "")
    rows, mean = rng.normal(size=(n, features)), rng.normal(size=features)
    values = explain_linear(linear, rows, mean)
    np.testing.assert_allclose(linear.raw(mean[None]) + values.sum(axis=1), linear.raw(rows), atol=1e-12)
    cut = n // 2
    assert np.array_equal(explain_linear(linear, rows[cut:], mean), values[cut:])
    assert np.array_equal(linear.raw(rows[cut:]), linear.raw(rows)[cut:])


def test_a_linear_model_survives_as_arrays() -> None:
    linear = read_linear(_fit(linear_model.LogisticRegression(max_iter=50), THREE))
    assert linear is not None
    again = Linear.from_arrays({**linear.arrays(), "mean": ROWS.mean(axis=0)})
    assert np.array_equal(again.coefficients, linear.coefficients)
    assert (again.output_names, again.unit) == (linear.output_names, linear.unit)
