"""Columns that are explained together: groups, and what pipelines make of one column."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest
from random_trees import random_ensemble, random_rows
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import millrace as mr
from millrace.analyses.explain.kernels import trees
from millrace.analyses.explain.kernels.ensemble import predict
from millrace.analyses.explain.kernels.structure import structure
from millrace.analyses.explain.oracle import brute_interventional, path_dependent_game, shapley
from millrace.analyses.explain.players import players
from millrace.run.errors import WrongQuestion

OF = np.array([0, 1, 0, 2, 1, 0])
GROUPS = [[0, 2, 5], [1, 4], [3]]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 4))
CITY = np.array(["Rome", "Oslo", "Lima", "Bonn"])[RNG.integers(0, 4, 200)]
Y = X[:, 0] * X[:, 1] + (CITY == "Oslo") * X[:, 2] + (CITY == "Lima")
TABLE = pandas.DataFrame(X, columns=list("abcd")).assign(city=CITY)


def ours(model: Any, rows: Any, background: Any, weights: Any, total: int = 5000) -> np.ndarray:
    shape = structure(model, OF, 4)  # the last player has no column
    cut = trees.layout(model, shape, total, 0 if background is None else len(background), np.float64)
    tables = [trees.build(model, shape, cut, b, background, weights) for b in range(cut.batches)]
    return trees.explain_rows(model, shape, cut, tables, rows, np.float64)


@pytest.mark.parametrize("seed", range(6))
def test_groups_of_trees_equal_brute_force_with_both_value_functions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_ensemble(rng, n_features=6, n_trees=3, depth=6, n_outputs=2, vector=seed % 2 == 0)
    rows = random_rows(rng, model, 5)
    background, weights = random_rows(rng, model, 9), rng.random(9)
    found = ours(model, rows, None, None)
    for row, values in zip(rows, found, strict=True):
        worth, used = path_dependent_game(model, row)
        together = [sum(1 << used.index(c) for c in group if c in used) for group in GROUPS]
        game = np.array([worth[sum(together[g] for g in range(3) if s >> g & 1)] for s in range(8)])
        np.testing.assert_allclose(values[:3], shapley(game), atol=1e-12)
        assert not values[3].any()
    for total in (5000, 1):  # tables, and pairs
        found = ours(model, rows, background, weights, total)
        for row, values in zip(rows, found, strict=True):
            wanted, _ = brute_interventional(lambda z: predict(model, z), row, background, weights, GROUPS)
            np.testing.assert_allclose(values[:3], wanted, atol=1e-12)


def light() -> Any:
    return lightgbm.LGBMRegressor(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1, min_child_samples=5)


@pytest.mark.parametrize("model", [light(), Ridge(), lambda z: z[:, 0] * z[:, 1] + np.sin(z[:, 2])])
def test_a_group_is_one_player_of_every_method(model: Any) -> None:
    ask = model.fit(X, Y).predict if hasattr(model, "fit") else model
    answer = mr.explain(model, X[:3], background=X[50:60], groups={"first": ["x0", "x2"], "last": [3]})
    assert answer.feature_names == ("first", "x1", "last")
    assert answer.exact
    for row, values in zip(X[:3], answer.values, strict=True):
        wanted, _ = brute_interventional(ask, row, X[50:60], None, [[0, 2], [1], [3]])
        np.testing.assert_allclose(values, wanted[:, 0], atol=1e-9)
    assert answer.categories[0] == ("2 columns",)
    np.testing.assert_array_equal(answer.data[:, 1:], X[:3, [1, 3]])


def encoded() -> Any:
    return make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), list("abcd")))


@pytest.mark.parametrize("last", [light(), Ridge(), LogisticRegression()], ids=["trees", "line", "scores"])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_one_hot_columns_are_explained_as_the_column_that_they_come_from(last: Any) -> None:
    scores = isinstance(last, LogisticRegression)
    model = make_pipeline(encoded(), last).fit(TABLE, Y > 1 if scores else Y)
    answer = mr.explain(model, TABLE[:4], background=TABLE[50:70])
    assert answer.method in ("interventional", "linear") and answer.exact
    assert answer.feature_names == ("a", "b", "c", "d", "city")
    ask = model.decision_function if scores else model.predict
    coded = TABLE.assign(city=TABLE.city.astype("category").cat.codes).to_numpy(float)
    names = sorted(set(CITY))

    def output(z: np.ndarray) -> np.ndarray:
        table = pandas.DataFrame(z[:, :4], columns=list("abcd"))
        return np.asarray(ask(table.assign(city=[names[int(code)] for code in z[:, 4]])))

    for i in range(4):
        wanted, base = brute_interventional(output, coded[i], coded[50:70])
        np.testing.assert_allclose(answer.values[i], wanted[:, 0], atol=1e-9)
        np.testing.assert_allclose(answer.base_values, base, atol=1e-9)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_single_row_is_the_same_row_among_many() -> None:
    model = make_pipeline(encoded(), light()).fit(TABLE, Y)
    whole = mr.explain(model, TABLE)
    assert whole.method == "tree_path_dependent"
    np.testing.assert_array_equal(mr.explain(model, TABLE[7:8]).values[0], whole.values[7])


def test_steps_that_mix_only_within_a_group_are_exact() -> None:
    head = make_column_transformer((PCA(2), [0, 1, 2]), ("passthrough", [3]))
    model = make_pipeline(head, light()).fit(X, Y)
    answer = mr.explain(model, X[:3], background=X[50:60], groups=[["x0", "x1", "x2"]])
    assert answer.method == "interventional"
    for row, values in zip(X[:3], answer.values, strict=True):
        wanted, _ = brute_interventional(model.predict, row, X[50:60], None, [[0, 1, 2], [3]])
        np.testing.assert_allclose(values, wanted[:, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("groups", "says"),
    [({"g": ["a", "z"]}, "'z'"), ({"g": ["a"], "h": ["a"]}, "two groups"), ("nonsense", "cannot be read"),
     ({"b": ["a"]}, "call the group something else")],
)  # fmt: skip
def test_groups_that_mean_nothing_are_refused(groups: Any, says: str) -> None:
    with pytest.raises(WrongQuestion, match=says):
        players(groups, ("a", "b"))


def test_groups_as_text() -> None:
    found = players("left=a,c; right=b", ("a", "b", "c", "d"))
    assert found.names == ("left", "right", "d") and found.of.tolist() == [0, 1, 0, 2]
