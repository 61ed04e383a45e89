"""Interaction values are exact: brute force over all coalitions, and shap's own where it is right."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
from random_trees import random_ensemble, random_rows
from sklearn.linear_model import Ridge

import millrace as mr
from millrace.analyses.explain.kernels import interactions, trees
from millrace.analyses.explain.kernels.ensemble import predict
from millrace.analyses.explain.kernels.structure import structure
from millrace.analyses.explain.oracle import interventional_game, path_dependent_game, shapley_interactions
from millrace.run.errors import NotSupported

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 6))
Y = X[:, 0] * X[:, 1] + np.sin(X[:, 2]) * X[:, 3]
MODEL = lightgbm.LGBMRegressor(n_estimators=20, num_leaves=15, verbose=-1, n_jobs=1).fit(X, Y)


def square(values: np.ndarray, pairs: np.ndarray, players: int) -> np.ndarray:
    whole = np.zeros((players, players, values.shape[-1]))
    whole[pairs[:, 0], pairs[:, 1]] = values
    return whole + whole.transpose(1, 0, 2)


@pytest.mark.parametrize("seed", range(6))
def test_pairs_equal_brute_force_with_both_value_functions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_ensemble(
        rng, n_features=6, n_trees=3, depth=5, n_outputs=2, vector=seed % 2 == 0, zero_cover_share=0.1
    )
    shape, rows = structure(model), random_rows(rng, model, 4)
    background, weights = random_rows(rng, model, 7), rng.random(7)
    pairs = interactions.pairs_of(model, shape)
    path = interactions.interaction_rows(model, shape, rows, None, None, np.float64)
    mixed = interactions.interaction_rows(model, shape, rows, background, weights, np.float64)
    for i, row in enumerate(rows):
        worth, used = path_dependent_game(model, row)
        wanted = np.zeros((6, 6, 2))
        wanted[np.ix_(used, used)] = shapley_interactions(worth)
        off = wanted * (1 - np.eye(6))[:, :, None]
        np.testing.assert_allclose(square(path[i], pairs, 6), off, atol=1e-12)
        wanted = shapley_interactions(interventional_game(lambda z: predict(model, z), row, background, weights))
        off = wanted * (1 - np.eye(6))[:, :, None]
        np.testing.assert_allclose(square(mixed[i], pairs, 6), off, atol=1e-12)


@pytest.mark.parametrize("background", [False, True])
def test_long_paths_equal_short_ones(background: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ten players nothing is remembered by pattern: rows summed over pairs still are the values."""
    rng = np.random.default_rng(3)
    model = random_ensemble(rng, n_features=30, n_trees=2, depth=24, chain=True)
    shape, rows = structure(model), random_rows(rng, model, 40)
    assert shape.most_distinct > interactions.MEMO_PLAYERS
    known = random_rows(rng, model, 20) if background else None
    weights = np.ones(20) if background else None
    pairs = interactions.pairs_of(model, shape)
    found = interactions.interaction_rows(model, shape, rows, known, weights, np.float64)
    alone = interactions.interaction_rows(model, shape, rows[7:8], known, weights, np.float64)
    np.testing.assert_array_equal(found[7:8], alone)
    # The main effect of a player alone: v({j}) - v(()) = phi_jj + ... is told by the two-player law on a sample of
    # players: conditioning the row on the background's values of j leaves no interaction with j.
    other = rows[:1].copy()
    j = int(pairs[0, 0])
    if known is not None:
        known = known.copy()
        known[:, j] = other[0, j]
        still = interactions.interaction_rows(model, shape, other, known, weights, np.float64)
        assert not still[0, (pairs == j).any(axis=1)].any()
    cut = trees.layout(model, shape, 40, 0, np.float64)
    assert cut.batches == 0


def test_shaps_own_interaction_values() -> None:
    import shap

    theirs = shap.TreeExplainer(MODEL).shap_interaction_values(X[:20])
    answer = mr.explain(MODEL, X[:20], interactions=True)
    assert answer.interactions is not None
    np.testing.assert_allclose(answer.interactions.dense(), theirs, atol=1e-9)


def test_rows_add_up_to_values_and_the_square_is_symmetric() -> None:
    answer = mr.explain(MODEL, X[:50], background=X[100:140], interactions=True)
    assert answer.interactions is not None
    whole = answer.interactions.dense()
    np.testing.assert_allclose(whole.sum(axis=2), answer.values, atol=1e-12)
    np.testing.assert_array_equal(whole, whole.transpose(0, 2, 1))
    np.testing.assert_array_equal(answer.interactions.row(3), whole[3])
    strongest = answer.interactions.table.to_pylist()[0]
    assert {strongest["feature"], strongest["other"]} in ({"x0", "x1"}, {"x2", "x3"})
    assert strongest["mean_abs"] == pytest.approx(
        2 * np.abs(whole[:, int(strongest["feature"][1]), int(strongest["other"][1])]).mean()
    )


def test_a_linear_model_has_none_and_a_function_is_refused() -> None:
    line = mr.explain(Ridge().fit(X, Y), X[:5], interactions=True)
    assert line.interactions is not None and not len(line.interactions.pairs)
    np.testing.assert_array_equal(np.diagonal(line.interactions.dense(), axis1=1, axis2=2), line.values)
    with pytest.raises(NotSupported, match="interactions"):
        mr.explain(lambda z: z[:, 0], X[:5], interactions=True)
