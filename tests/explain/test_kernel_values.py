"""Kernel SHAP: exact where every coalition is taken, better than shap's estimate where not, the same in any block.

Oracles: brute force over all coalitions, shap.KernelExplainer, exact interventional values of trees.
"""

from __future__ import annotations

import hashlib
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from millrace.analyses.explain.kernels import coalitions
from millrace.analyses.explain.kernels.coalitions import Design, design, explain_rows
from millrace.analyses.explain.oracle import brute_interventional
from millrace.run.errors import ModelTrouble, WrongQuestion

Predict = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in a run: one BLAS thread."""
    with threadpool_limits(1):
        yield


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _data(features: int, rows: int = 300, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = _rng(seed)
    rows_ = rng.normal(size=(rows, features))
    target = rows_[:, 0] * rows_[:, 1] + np.sin(2 * rows_[:, 2]) * rows_[:, 3] + rows_ @ rng.normal(size=features) / 2
    return rows_, target + rows_[:, 0] * rows_[:, 1] * (rows_[:, 4] > 0)


def _models(features: int) -> dict[str, Predict]:
    """Model kinds without closed form, fitted for real."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.svm import SVC

    rows, target = _data(features)
    classes = np.digitize(target, [-1.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations: MLPs say that they have not converged
        network = MLPClassifier(hidden_layer_sizes=(24,), max_iter=60, random_state=0).fit(rows, classes)
        regression = MLPRegressor(hidden_layer_sizes=(24,), max_iter=60, random_state=0).fit(rows, target)
    process = GaussianProcessRegressor(RBF(features**0.5) + WhiteKernel(0.1), optimizer=None).fit(rows, target)
    return {
        "MLP classifier": network.predict_proba,
        "MLP regression": regression.predict,
        "SVC": SVC(gamma=1 / features).fit(rows, classes).decision_function,
        "kNN": KNeighborsClassifier(7).fit(rows, classes).predict_proba,
        "GP": process.predict,
        "function": lambda z: np.stack([np.sin(z).sum(axis=1) * z[:, 0], z[:, 1:4].prod(axis=1)], axis=1),
    }


@pytest.fixture(scope="module")
def models8() -> dict[str, Predict]:
    return _models(8)


@pytest.fixture(scope="module")
def models13() -> dict[str, Predict]:
    return _models(13)


# -- exact ---------------------------------------------------------------------------------------------------------
def test_up_to_twelve_features_every_model_gets_its_brute_force_values(models8: dict[str, Predict]) -> None:
    rows, _ = _data(8, seed=1)
    background, weights = rows[:7], _rng(2).random(7)
    plan = design(8, None, _rng())
    assert plan.exact
    assert len(plan.masks) == 2**8 - 2
    for name, predict in models8.items():
        found = explain_rows(predict, rows[10:12], background, weights, plan)
        for i in (0, 1):
            values, base = brute_interventional(predict, rows[10 + i], background, weights)
            scale = np.abs(values).max()
            np.testing.assert_allclose(found.values[i], values, rtol=0, atol=1e-12 * scale, err_msg=name)
            np.testing.assert_allclose(found.base, base, rtol=1e-12, err_msg=name)
        assert found.exact.all()
        assert not found.standard_errors.any()
        alone = np.asarray(predict(rows[10:12])).reshape(2, -1)
        np.testing.assert_allclose(found.prediction, alone, rtol=1e-10, atol=1e-12)


def test_twelve_features_are_exact_by_default_and_thirteen_are_not() -> None:
    assert design(12, None, _rng()).exact
    assert design(12, 2 * 12 + 2048, _rng()).exact
    assert not design(13, None, _rng()).exact
    assert design(13, 2**13 - 2, _rng()).exact
    assert not design(10, 500, _rng()).exact


def test_a_complete_design_equals_brute_force_at_its_limit() -> None:
    rows, _ = _data(12, rows=4)
    predict = lambda z: np.tanh(z[:, :6].sum(axis=1)) * z[:, 6:].max(axis=1)  # noqa: E731
    found = explain_rows(predict, rows[:1], rows[1:], None, design(12, None, _rng()))
    values, _ = brute_interventional(predict, rows[0], rows[1:])
    np.testing.assert_allclose(found.values[0], values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_the_smallest_games_are_exact(features: int) -> None:
    rows, predict = _rng().normal(size=(5, features)), lambda z: np.exp(z).prod(axis=1)
    found = explain_rows(predict, rows[:2], rows[2:], None, design(features, None, _rng()))
    for i in (0, 1):
        values, _ = brute_interventional(predict, rows[i], rows[2:])
        np.testing.assert_allclose(found.values[i], values, atol=1e-13)


def test_float32_rows_stay_float32_and_mixed_rows_become_float64() -> None:
    seen = set()

    def predict(rows: NDArray[Any]) -> NDArray[Any]:
        seen.add(rows.dtype)
        return rows.sum(axis=1)

    rows = _rng().normal(size=(6, 5)).astype(np.float32)
    explain_rows(predict, rows[:1], rows[1:], None, design(5, None, _rng()))
    assert seen == {np.dtype(np.float32)}
    seen.clear()
    explain_rows(predict, rows[:1].astype(np.float64), rows[1:], None, design(5, None, _rng()))
    assert seen == {np.dtype(np.float64)}


def test_missing_values_reach_the_model_as_they_are() -> None:
    predict = lambda z: np.where(np.isnan(z), 3.0, z) @ np.array([1.0, 2, 3, 4])  # noqa: E731
    rows = _rng().normal(size=(6, 4))
    rows[0, 1] = rows[3, 2] = rows[1:, 3] = rows[0, 3] = np.nan
    found = explain_rows(predict, rows[:1], rows[1:], None, design(4, None, _rng()))
    values, _ = brute_interventional(predict, rows[0], rows[1:])
    np.testing.assert_allclose(found.values[0], values, atol=1e-13)
    assert found.values[0, 3, 0] == 0.0  # NaN in the row and in the whole background: no difference


def test_groups_of_columns_are_players() -> None:
    rows, _ = _data(8, rows=12)
    predict = lambda z: z[:, 0] * z[:, 5] * z[:, 2] + np.abs(z).sum(axis=1)  # noqa: E731
    player = np.array([0, 1, 2, 2, 0, 3, 3, 1])
    found = explain_rows(predict, rows[:2], rows[2:], None, design(4, None, _rng()), player)
    groups = [np.flatnonzero(player == p).tolist() for p in range(4)]
    for i in (0, 1):
        values, _ = brute_interventional(predict, rows[i], rows[2:], groups=groups)
        np.testing.assert_allclose(found.values[i], values, atol=1e-13)


def test_weights_count_rows_and_rows_without_weight_do_not_count() -> None:
    rows, _ = _data(6, rows=9)
    predict = lambda z: z[:, 0] * z[:, 1] * z[:, 2] + z[:, 3] ** 2 * z[:, 4] + z[:, 5]  # noqa: E731
    plan = design(6, None, _rng())
    weighted = explain_rows(predict, rows[:2], rows[2:6], np.array([2.0, 1, 0, 3]), plan)
    repeated = explain_rows(predict, rows[:2], rows[[2, 2, 3, 5, 5, 5]], None, plan)
    np.testing.assert_allclose(weighted.values, repeated.values, atol=1e-13)
    for bad in ([1.0, -1, 1, 1], [0.0, 0, 0, 0], [1.0, 1], [np.nan, 1, 1, 1]):
        with pytest.raises(WrongQuestion, match="weights"):
            explain_rows(predict, rows[:2], rows[2:6], np.array(bad), plan)


# -- what does not vary --------------------------------------------------------------------------------------------
def test_a_feature_that_does_not_vary_gets_nothing_and_is_not_played() -> None:
    rows, _ = _data(20, rows=10)
    rows[:, 9:] = rows[0, 9:]  # nine vary, eleven are the same in row and background
    calls = []

    def predict(given: NDArray[Any]) -> NDArray[Any]:
        calls.append(len(given))
        return given[:, :12].prod(axis=1) + np.sin(given).sum(axis=1)

    found = explain_rows(predict, rows[:2], rows[2:], None, design(20, None, _rng()))
    assert found.exact.all()
    assert not found.values[:, 9:].any()
    short = explain_rows(lambda z: predict(np.hstack([z, np.tile(rows[0, 9:], (len(z), 1))])), rows[:2, :9], rows[2:, :9],
                         None, design(9, None, _rng()))  # fmt: skip
    np.testing.assert_allclose(found.values[:, :9], short.values, atol=1e-12)


def test_rows_with_different_varying_features_go_together() -> None:
    rows, _ = _data(40, rows=30)
    background = rows[20:]
    background[:, 25:] = 1.0
    rows = rows[:4]
    rows[0, 25:] = 1.0  # 25 vary
    rows[1, 5:] = np.nan  # all vary
    rows[2, 25:] = [1.0] * 12 + [2.0] * 3  # 28 vary
    rows[3] = background[0]
    rows[3, 25:] = 1.0
    predict = lambda z: np.nan_to_num(z).sum(axis=1) + np.nan_to_num(z[:, :5]).prod(axis=1)  # noqa: E731
    plan = design(40, None, _rng())
    found = explain_rows(predict, rows, background, None, plan)
    assert not found.values[0, 25:].any()
    assert not found.standard_errors[2, 25:37].any()
    assert found.values[1].all()
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), found.prediction, atol=1e-11)
    made = coalitions.with_narrower(plan, rows, background)
    assert set(made.narrower) == {27, 33}
    again = explain_rows(predict, rows, background, None, made)
    assert np.array_equal(found.values, again.values)
    assert np.array_equal(found.standard_errors, again.standard_errors)


def test_a_row_that_equals_the_whole_background_has_no_values() -> None:
    rows = np.ones((3, 15))
    found = explain_rows(lambda z: z.sum(axis=1), rows[:1], rows[1:], None, design(15, None, _rng()))
    assert not found.values.any()
    assert found.exact.all()
    assert found.prediction[0, 0] == found.base[0] == 15.0


def test_small_differences_count() -> None:
    rows = np.zeros((3, 5))
    rows[0] = 1e-9  # shap's tolerance of 1e-8 calls this the same
    found = explain_rows(lambda z: 1e9 * z.sum(axis=1), rows[:1], rows[1:], None, design(5, None, _rng()))
    np.testing.assert_allclose(found.values[0, :, 0], 1.0)


def test_a_constant_model_has_zero_values() -> None:
    rows, _ = _data(20, rows=5)
    found = explain_rows(lambda z: np.full(len(z), 7.0), rows[:1], rows[1:], None, design(20, None, _rng()))
    assert np.abs(found.values).max() < 1e-14
    assert np.abs(found.standard_errors).max() < 1e-14


# -- estimates -----------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=25)
@given(features=st.integers(13, 45), outputs=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_values_add_up_and_linear_functions_are_exact(features: int, outputs: int, seed: int) -> None:
    rng = _rng(seed)
    plan = design(features, 2 * features + 400, rng)
    rows = rng.normal(size=(5, features))
    linear, bent = rng.normal(size=(2, features, outputs))
    found = explain_rows(lambda z: z @ linear, rows[:1], rows[1:], None, plan)
    exact = (rows[0] - rows[1:].mean(axis=0))[:, None] * linear
    np.testing.assert_allclose(found.values[0], exact, atol=1e-9 * np.abs(exact).max())
    assert found.standard_errors.max() < 1e-9 * np.abs(exact).max()
    found = explain_rows(lambda z: np.exp(np.tanh(z @ bent)), rows[:1], rows[1:], None, plan)
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), found.prediction, atol=1e-12)
    assert (found.standard_errors > 0).all()
    assert not found.exact.any()


def test_pair_interactions_are_exact_because_coalitions_come_in_pairs() -> None:
    rows, _ = _data(30, rows=6)
    couple = _rng(3).normal(size=(30, 30))
    found = explain_rows(
        lambda z: np.einsum("ni,ij,nj->n", z, couple, z), rows[:1], rows[1:], None, design(30, None, _rng())
    )
    symmetric = couple + couple.T
    # f is quadratic: value j is its derivative half way between row and background row, times the step, on average
    steps = rows[0] - rows[1:]
    exact = (steps * ((rows[0] + rows[1:]) / 2 @ symmetric)).mean(axis=0)
    np.testing.assert_allclose(found.values[0, :, 0], exact, atol=1e-8 * np.abs(exact).max())


@pytest.mark.filterwarnings("ignore")
def test_small_cases_equal_shap(models8: dict[str, Predict]) -> None:
    import shap

    rows, _ = _data(8, seed=1)
    plan = design(8, None, _rng())
    for name in ("MLP classifier", "SVC", "function"):
        theirs = shap.KernelExplainer(models8[name], rows[:6]).shap_values(rows[20:22], l1_reg=False, silent=True)
        ours = explain_rows(models8[name], rows[20:22], rows[:6], None, plan)
        np.testing.assert_allclose(ours.values, theirs, atol=1e-8, err_msg=name)


@pytest.mark.filterwarnings("ignore")
def test_at_equal_evaluations_errors_are_a_quarter_less_than_those_of_shap(models13: dict[str, Predict]) -> None:
    import shap

    rows, _ = _data(13, seed=1)
    ratios = {}
    for name, predict in models13.items():
        exact = explain_rows(predict, rows[30:32], rows[:4], None, design(13, 2**13 - 2, _rng())).values
        ours = [np.abs(explain_rows(predict, rows[30:32], rows[:4], None, design(13, 1500, _rng(s))).values - exact).mean()
                for s in range(3)]  # fmt: skip
        explainer = shap.KernelExplainer(predict, rows[:4])
        theirs = []
        for seed in range(3):
            np.random.seed(seed)
            found = explainer.shap_values(rows[30:32], nsamples=1500, l1_reg=False, silent=True)
            theirs.append(np.abs(found.reshape(exact.shape) - exact).mean())
        ratios[name] = np.mean(ours) / np.mean(theirs)
    assert np.mean(list(ratios.values())) < 0.75, ratios
    assert max(ratios.values()) < 1.1, ratios


@pytest.mark.filterwarnings("ignore")
def test_estimates_of_a_tree_model_come_near_its_exact_values_as_standard_errors_say() -> None:
    import shap
    from sklearn.ensemble import GradientBoostingRegressor

    rows, target = _data(30, rows=400)
    model = GradientBoostingRegressor(n_estimators=40, max_depth=4, random_state=0).fit(rows, target)
    background, explained = rows[:3], rows[50:54]
    explainer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    exact = explainer.shap_values(explained)[:, :, None]
    z, ours = [], []
    for seed in range(3):
        found = explain_rows(model.predict, explained, background, None, design(30, None, _rng(seed)))
        ours.append(np.abs(found.values - exact).mean())
        z.append((found.values - exact) / found.standard_errors)
    z = np.concatenate(z)
    assert 0.88 < (np.abs(z) < 2).mean() <= 1.0
    assert 0.6 < np.sqrt((z**2).mean()) < 1.4
    theirs = []
    kernel = shap.KernelExplainer(model.predict, background)
    for seed in range(2):
        np.random.seed(seed)
        theirs.append(np.abs(kernel.shap_values(explained, l1_reg=False, silent=True)[:, :, None] - exact).mean())
    assert np.mean(ours) < 0.75 * np.mean(theirs)


def test_standard_errors_tell_the_size_of_errors(models13: dict[str, Predict]) -> None:
    rows, _ = _data(13, seed=1)
    for name in ("MLP classifier", "SVC", "kNN", "GP"):
        exact = explain_rows(models13[name], rows[30:33], rows[:4], None, design(13, 2**13 - 2, _rng())).values
        errors, said = [], []
        for seed in range(4):
            found = explain_rows(models13[name], rows[30:33], rows[:4], None, design(13, 1200, _rng(seed)))
            errors.append(found.values - exact)
            said.append(found.standard_errors)
        ratio = np.sqrt(np.mean(np.square(said)) / np.mean(np.square(errors)))
        assert 0.7 < ratio < 1.6, (name, ratio)
        assert (np.abs(errors) <= 2 * np.array(said) + 1e-12).mean() > 0.88, name


def test_more_evaluations_give_smaller_errors_down_to_exact(models13: dict[str, Predict]) -> None:
    rows, _ = _data(13, seed=1)
    predict = models13["MLP classifier"]
    exact = explain_rows(predict, rows[30:31], rows[:3], None, design(13, 2**13 - 2, _rng()))
    errors = [
        np.abs(
            explain_rows(predict, rows[30:31], rows[:3], None, design(13, count, _rng())).values - exact.values
        ).mean()
        for count in (200, 800, 3000, 8000)
    ]
    assert exact.exact.all()
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 0.1 * errors[0]


def test_a_large_design_is_solved_in_parts_and_gains_by_it() -> None:
    rows, _ = _data(16, rows=4)
    predict = lambda z: np.tanh(z.sum(axis=1) / 4) + z[:, 0] * z[:, 1] * z[:, 2]  # noqa: E731
    exact = explain_rows(predict, rows[:1], rows[1:], None, design(16, 2**16, _rng()))
    errors: dict[int, list[float]] = {4000: [], 12_000: []}
    said: dict[int, list[float]] = {4000: [], 12_000: []}
    for count in errors:
        for seed in (0, 1):
            plan = design(16, count, _rng(seed))
            found = explain_rows(predict, rows[:1], rows[1:], None, plan)
            assert len(plan.part_starts) == {4000: 2, 12_000: 4}[count]
            errors[count].append(np.mean((found.values - exact.values) ** 2))
            said[count].append(np.mean(found.standard_errors**2))
    root = {count: np.sqrt(np.mean(squares)) for count, squares in errors.items()}
    assert root[12_000] < 0.8 * root[4000]
    for count in errors:
        assert 0.5 < np.sqrt(np.mean(said[count])) / root[count] < 2


# -- the same in any block -----------------------------------------------------------------------------------------
def _digest(*arrays: NDArray[Any]) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def test_a_row_has_the_same_bits_in_any_block(models13: dict[str, Predict]) -> None:
    rows, _ = _data(13, seed=1)
    rows[5:, 4:9] = rows[5, 4:9]  # some rows have fewer varying features
    background, explained = rows[280:300], rows[[0, 7, 1, 8, 2, 3]]
    plan = design(13, 700, _rng())
    for kind in (np.float64, np.float32):
        digests = set()
        for cuts in ([6], [1] * 6, [4, 2], [1, 5]):
            parts = []
            start = 0
            for size in cuts:
                part = explained[start : start + size].astype(kind)
                parts.append(explain_rows(models13["MLP classifier"], part, background.astype(kind), None, plan))
                start += size
            digests.add(
                _digest(
                    np.concatenate([p.values for p in parts]),
                    np.concatenate([p.standard_errors for p in parts]),
                    np.concatenate([p.prediction for p in parts]),
                    parts[0].base,
                )
            )
        assert len(digests) == 1


@pytest.mark.parametrize(("features", "background"), [(13, 1), (13, 100), (30, 9000), (400, 3)])
def test_the_model_is_called_in_one_bounded_shape(features: int, background: int) -> None:
    shapes = []

    def predict(rows: NDArray[Any]) -> NDArray[Any]:
        shapes.append(rows.shape)
        return rows[:, 0]

    rows = _rng().normal(size=(background + 1, features))
    evaluations = 2 * features + 60
    explain_rows(predict, rows[:1], rows[1:], None, design(features, evaluations, _rng()))
    assert len(set(shapes[1 if background <= coalitions.BATCH_ROWS else 2 :])) == 1  # after those of the base value
    assert max(n for n, _ in shapes) <= coalitions.BATCH_ROWS
    assert max(n * p * 8 for n, p in shapes) <= coalitions.BATCH_BYTES
    needed = (evaluations + 1) * background
    assert needed <= sum(n for n, _ in shapes) - background <= 1.1 * needed + 2 * max(n for n, _ in shapes)


def test_what_the_model_does_to_its_rows_does_not_matter() -> None:
    def spoils(rows: NDArray[Any]) -> NDArray[Any]:
        out = rows.prod(axis=1)
        rows[:] = 9.0
        return out

    rows = _rng().normal(size=(5, 6))
    spoilt = explain_rows(spoils, rows[:2], rows[2:], None, design(6, None, _rng()))
    clean = explain_rows(lambda z: z.prod(axis=1), rows[:2], rows[2:], None, design(6, None, _rng()))
    assert np.array_equal(spoilt.values, clean.values)


def test_the_background_may_be_one_row_and_read_only() -> None:
    rows = _rng().normal(size=(2, 6))
    rows.flags.writeable = False
    predict = lambda z: z.prod(axis=1)  # noqa: E731
    found = explain_rows(predict, rows[:1], rows[1:], None, design(6, None, _rng()))
    np.testing.assert_allclose(found.values[0], brute_interventional(predict, rows[0], rows[1:])[0], atol=1e-13)


# -- the design ----------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(features=st.integers(4, 70), extra=st.integers(0, 400), seed=st.integers(0, 2**32 - 1))
def test_designs_are_paired_balanced_complete_at_the_ends_and_add_up(features: int, extra: int, seed: int) -> None:
    asked = 2 * features + 16 + extra
    plan = design(features, asked, _rng(seed))
    all_of_them = 2**features - 2
    assert len(plan.masks) == min(asked // 2 * 2, all_of_them) or plan.exact
    assert plan.exact == (asked >= all_of_them)
    assert np.array_equal(plan.masks[0::2], ~plan.masks[1::2])
    assert len({mask.tobytes() for mask in plan.masks}) == len(plan.masks)
    size = plan.masks.sum(axis=1)
    assert size.min() >= 1
    assert (size == 1).sum() == (size == features - 1).sum() == features
    np.testing.assert_allclose(plan.solver.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(plan.full.sum(), 1, atol=1e-12)
    # It solves what it should: main effects are given back as they are.
    signs = 2.0 * plan.masks[0::2] - 1
    np.testing.assert_allclose(plan.solver @ signs + plan.full[:, None], np.eye(features), atol=1e-7)
    if plan.exact:
        return
    shares = []
    for s in range(2, (features + 1) // 2):
        sets = plan.masks[size == s]
        if len(sets) < comb(features, s):
            shares.append(len(sets))
            uses = sets.sum(axis=0)
            rounds = len(sets) // max(1, features // s) + 1  # a round uses a feature once at most
            assert uses.max() - uses.min() <= rounds
    assert not shares or max(shares) - min(shares) <= 2


@settings(deadline=None, max_examples=10)
@given(features=st.integers(14, 60), seed=st.integers(0, 2**32 - 1))
def test_each_feature_takes_part_nearly_equally_often(features: int, seed: int) -> None:
    plan = design(features, None, _rng(seed))
    size = plan.masks.sum(axis=1)
    for s in range(2, features // 2):
        sets = plan.masks[size == s]
        left_out_a_round = features % s / features
        spread = np.sqrt(left_out_a_round * len(sets) * s / features) + 1
        assert np.ptp(sets.sum(axis=0)) <= 10 * spread


def test_a_design_is_given_by_the_generator() -> None:
    one, same, other = design(20, None, _rng(1)), design(20, None, _rng(1)), design(20, None, _rng(2))
    assert np.array_equal(one.masks, same.masks)
    assert np.array_equal(one.solver, same.solver)
    assert not np.array_equal(one.masks, other.masks)


def test_a_design_survives_as_arrays(tmp_path: Any) -> None:
    rows, _ = _data(20, rows=8)
    rows[:, :6] = 1.0
    plan = coalitions.with_narrower(design(20, 300, _rng()), rows[:2], rows[2:])
    kept = plan.arrays()
    np.save(tmp_path / "solver.npy", kept["solver"])
    kept["solver"] = np.load(tmp_path / "solver.npy", mmap_mode="r")
    kept["masks"] = kept["masks"].copy()
    kept["masks"].flags.writeable = False
    again = Design.from_arrays(kept)
    predict = lambda z: np.cos(z).prod(axis=1)  # noqa: E731
    a, b = (explain_rows(predict, rows[:2], rows[2:], None, d) for d in (plan, again))
    assert np.array_equal(a.values, b.values)
    assert np.array_equal(a.standard_errors, b.standard_errors)
    assert list(again.narrower) == [15]


def test_too_few_evaluations_are_refused_with_the_number_that_will_do() -> None:
    with pytest.raises(WrongQuestion, match="at least 116"):
        design(50, 100, _rng())
    assert len(design(50, 116, _rng()).masks) == 116


@pytest.mark.parametrize(
    ("features", "background", "outputs", "kind"),
    [(12, 100, 2, np.float64), (50, 1, 1, np.float64), (50, 100, 2, np.float32), (50, 10_000, 1, np.float64),
     (500, 100, 1, np.float64), (30, 30, 50, np.float64)],
)  # fmt: skip
def test_scratch_is_what_was_said_and_at_most_16_mib(features: int, background: int, outputs: int, kind: type) -> None:
    rows = _rng().random((background + 1, features)).astype(kind)
    asked = 2 * features + 300 if background > 1000 else None
    plan = design(features, asked, _rng())
    out = np.ones((1, outputs))
    predict = lambda z: np.repeat(out, len(z), axis=0)  # noqa: E731
    explain_rows(predict, rows[:1], rows[1:], None, plan)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    explain_rows(predict, rows[:1], rows[1:], None, plan)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    said = coalitions.scratch_bytes(features, background, outputs, np.dtype(kind).itemsize, asked)
    assert peak <= said <= 2 * peak
    assert said <= 16 << 20


@pytest.mark.parametrize(("features", "evaluations"), [(12, None), (13, None), (50, None), (40, 9000)])
def test_a_design_takes_the_bytes_that_were_said(features: int, evaluations: int | None) -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    plan = design(features, evaluations, _rng())
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    kept = sum(array.nbytes for array in (plan.masks, plan.solver, plan.left_out))
    said_kept, said_peak = coalitions.design_bytes(features, evaluations)
    assert kept <= said_kept <= 1.3 * kept
    assert peak <= said_peak <= 2 * peak


def test_no_number_of_features_breaks_the_arithmetic_of_a_plan() -> None:
    for features in (1, 1000, 100_000):
        assert coalitions.scratch_bytes(features, 100, 2) <= 16 << 20 or features == 100_000
        assert coalitions.design_bytes(features)[0] >= 0
    assert coalitions.design_bytes(100_000)[0] > 1 << 36  # what a plan refuses


# -- bad functions -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "predict",
    [lambda z: np.zeros(len(z) + 1), lambda z: np.zeros((len(z), 2, 2)), lambda z: 1.0,
     lambda z: np.zeros((len(z), 1 + (len(z) != 3)))],
)  # fmt: skip
def test_a_function_of_the_wrong_shape_is_an_error(predict: Predict) -> None:
    rows = _rng().normal(size=(4, 5))
    with pytest.raises(ModelTrouble, match="shape"):
        explain_rows(predict, rows[:1], rows[1:], None, design(5, None, _rng()))


def test_rows_that_do_not_fit_the_background_or_the_design_are_an_error() -> None:
    rows = _rng().normal(size=(4, 5))
    plan = design(5, None, _rng())
    with pytest.raises(WrongQuestion, match="background"):
        explain_rows(lambda z: z[:, 0], rows, rows[:, :4], None, plan)
    with pytest.raises(WrongQuestion, match="players"):
        explain_rows(lambda z: z[:, 0], rows[:, :4], rows[:, :4], None, plan)
    with pytest.raises(WrongQuestion, match="players"):
        explain_rows(lambda z: z[:, 0], rows, rows, None, plan, np.array([0, 1, 2, 3, 3]))
