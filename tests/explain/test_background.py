"""The background: weighted rows count as often as their weights say; "auto" represents the data and says so."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.linear_model import Ridge

import millrace as mr
from millrace.analyses.explain.background import representatives
from millrace.run.errors import WrongQuestion
from millrace.run.streams import rng
from millrace.run.tables import read_rows

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 5))
Y = X[:, 0] * X[:, 1] + X[:, 2]
TREES = lightgbm.LGBMRegressor(n_estimators=10, num_leaves=7, verbose=-1, n_jobs=1).fit(X, Y)
MODELS: dict[str, Any] = {"trees": TREES, "linear": Ridge().fit(X, Y), "kernel": lambda z: z[:, 0] * z[:, 1] + z[:, 2]}


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_of_weight_three_is_three_rows(kind: str) -> None:
    weights = np.array([1, 3, 0, 2, 1])
    told = mr.explain(MODELS[kind], X[:9], background=X[10:15], background_weights=weights)
    wanted = mr.explain(MODELS[kind], X[:9], background=np.repeat(X[10:15], weights, axis=0))
    np.testing.assert_allclose(told.values, wanted.values, atol=1e-12)
    np.testing.assert_allclose(told.base_values, wanted.base_values, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_auto_is_its_rows_and_weights(kind: str) -> None:
    answer = mr.explain(MODELS[kind], X, background="auto", background_rows=20)
    chosen, weights = representatives(read_rows(X, "data"), 20, rng(0, 2))
    wanted = mr.explain(MODELS[kind], X, background=X[chosen], background_weights=weights)
    assert answer.background_rows == len(chosen) == 20
    assert answer.method == {"trees": "interventional"}.get(kind, kind)
    assert answer.values.tobytes() == wanted.values.tobytes()
    assert any("background auto: 20 rows" in note for note in answer.notes)
    assert mr.explain(MODELS[kind], X, background="auto", background_rows=20, seed=1).digest != answer.digest


def test_clusters_are_represented_by_their_share() -> None:
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    of = np.repeat([0, 1, 2], [600, 300, 100])
    rows = centres[of] + RNG.standard_normal((1000, 2))
    chosen, weights = representatives(read_rows(rows, "data"), 3, rng(0, 2))
    assert sorted(of[chosen]) == [0, 1, 2]
    np.testing.assert_allclose(weights[np.argsort(of[chosen])], [0.6, 0.3, 0.1])
    assert np.linalg.norm(rows[chosen] - centres[of[chosen]], axis=1).max() < 0.5


def test_few_distinct_rows_missing_values_and_one_row() -> None:
    few = np.array([[1.0, np.nan], [2.0, 3.0]])[RNG.integers(0, 2, 50)]
    chosen, weights = representatives(read_rows(few, "data"), 10, rng(0, 2))
    assert len(chosen) == 2
    assert weights.sum() == 1
    assert representatives(read_rows(few[:1], "data"), 10, rng(0, 2))[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "1 background_weights for 5"),
        ([0.0] * 5, "not all zero"),
        ([1, 1, 1, 1, np.nan], "finite"),
        (["a"] * 5, "numbers"),
    ],
)
def test_what_cannot_be_weights_is_said(weights: Any, said: str) -> None:
    with pytest.raises(WrongQuestion, match=said):
        mr.explain(TREES, X[:5], background=X[:5], background_weights=weights)


def test_weights_without_rows_are_an_error() -> None:
    for background in (None, "auto"):
        with pytest.raises(WrongQuestion, match="give the background's rows"):
            mr.explain(TREES, X[:5], background=background, background_weights=[1.0])
