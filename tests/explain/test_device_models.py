"""Models asked by torch say what they say on the processor, and so do the coalitions that are mixed there. On the processor,
where torch runs the same code as on a GPU."""

from __future__ import annotations

import dataclasses
import importlib.util

import lightgbm
import numpy as np
import pytest
import tree_cases
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import ensembles_with_rows
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from millrace.analyses.explain.kernels import coalitions, device_game
from millrace.analyses.explain.kernels.blackbox import as_function
from millrace.analyses.explain.kernels.device_models import OfTrees, form_of
from millrace.analyses.explain.kernels.ensemble import apply_link, predict
from millrace.analyses.explain.kernels.modules import open_module
from millrace.run.errors import ModelTrouble

needs_torch = pytest.mark.skipif(
    not importlib.util.find_spec("torch"), reason="torch, some gigabytes, is no part of the set-up: pip install torch"
)
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((300, 6))
TARGET = ROWS[:, 0] * ROWS[:, 1] + np.sin(ROWS[:, 2]) + 0.3 * ROWS[:, 3]
THREE = np.digitize(TARGET, [-0.5, 0.5])


def asked(form, rows, device="cpu"):
    import torch

    return form.on(device)(torch.from_numpy(np.array(rows))).numpy()


# -- which models ----------------------------------------------------------------------------------------------------
def fitted(maker, target, **options):
    return maker(**options).fit(ROWS, target)


QUIET = {"verbose": -1, "n_estimators": 20}
MODELS = {
    "lightgbm": (fitted(lightgbm.LGBMRegressor, TARGET, **QUIET), "auto"),
    "lightgbm, three classes": (fitted(lightgbm.LGBMClassifier, THREE, **QUIET), "probability"),
    "lightgbm, two classes, a loss": (fitted(lightgbm.LGBMClassifier, THREE > 0, **QUIET), "log_loss"),
    "lightgbm, one of the classes": (fitted(lightgbm.LGBMClassifier, THREE, **QUIET), "2"),
    "xgboost": (fitted(xgboost.XGBRegressor, TARGET, n_estimators=20), "auto"),
    "xgboost, two classes": (fitted(xgboost.XGBClassifier, (THREE > 0).astype(int), n_estimators=20), "probability"),
    "xgboost, counts": (fitted(xgboost.XGBRegressor, np.exp(TARGET), n_estimators=20, objective="count:poisson"), "auto"),
    "gradient boosting": (fitted(GradientBoostingRegressor, TARGET), "auto"),
    "gradient boosting, scores": (fitted(GradientBoostingClassifier, THREE > 0), "raw"),
    "histograms": (fitted(HistGradientBoostingClassifier, THREE, max_iter=10), "probability"),
    "forest": (fitted(RandomForestClassifier, THREE, n_estimators=10, max_depth=6), "auto"),
    "a method of a model": (fitted(GradientBoostingRegressor, TARGET).predict, "auto"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_trees_are_found_by_what_they_say(name):
    model, output = MODELS[name]
    form = form_of(as_function(model, output, None, ROWS[:64]), ROWS[:64])
    assert isinstance(form, OfTrees) and "trees of" in form.name


@needs_torch
@pytest.mark.parametrize("name", MODELS)
def test_trees_say_on_the_device_what_their_library_says(name):
    model, output = MODELS[name]
    function = as_function(model, output, None, ROWS[:64])
    said = function.call(ROWS)
    found = asked(form_of(function, ROWS[:64]), ROWS)
    tolerance = 1e-6 if "xgboost" in name else 1e-12  # it adds in float32
    assert np.abs(found - said).max() <= tolerance * np.abs(said).max()


class Clipped(GradientBoostingRegressor):
    """Trees whose own answer is another than theirs."""

    def predict(self, rows):
        return np.minimum(super().predict(rows), 0.5)


class Silent(DecisionTreeClassifier):
    """Gives labels alone, which are the leaves' shares on rows of the training and nowhere else."""

    predict_proba = None


def test_what_is_no_tree_or_says_something_else_is_left_to_the_processor():
    models = (
        SVC().fit(ROWS, THREE),
        make_pipeline(StandardScaler(), GradientBoostingRegressor()).fit(ROWS, TARGET),
        Clipped().fit(ROWS, TARGET),
        IsolationForest(n_estimators=5, random_state=0).fit(ROWS).predict,
        Silent().fit(ROWS[:64], THREE[:64]),
        lambda rows: rows[:, 0],
    )
    for model in models:
        assert form_of(as_function(model, "auto", None, ROWS[:64]), ROWS[:64]) is None


@needs_torch
@settings(deadline=None, max_examples=60)
@given(ensembles_with_rows(n_rows=30), st.booleans())
def test_every_rule_of_a_node_is_that_of_the_tables(case, vector):
    forest, rows = case
    found = asked(OfTrees(forest, "raw", False, -1, 1.0), rows)
    np.testing.assert_allclose(found, predict(forest, rows), rtol=1e-12, atol=1e-12)


@needs_torch
@pytest.mark.parametrize("categories", [False, True])
def test_rows_on_thresholds_beside_them_and_without_values(categories):
    from millrace.analyses.explain.kernels.lightgbm import read_lightgbm

    forest = read_lightgbm(tree_cases.lightgbm_model(categories=categories))
    rows = tree_cases.hostile(forest)
    tree_cases.close(asked(OfTrees(forest, "raw", False, -1, 1.0), rows), predict(forest, rows))


@needs_torch
@pytest.mark.parametrize("link", [
    "identity", "logit", "logit:2.0", "softmax", "log", "log1p_exp", "probability", "one_vs_all:0.5", "signed_square",
    "step", "isolation:3.0",
])  # fmt: skip
def test_links_are_those_of_the_tables(link):
    from random_trees import random_ensemble, random_rows

    rng = np.random.default_rng(3)
    forest = dataclasses.replace(random_ensemble(rng, n_outputs=3, vector=True, n_trees=70), link=link)
    rows = random_rows(rng, forest, 50, 0.1)
    found = asked(OfTrees(forest, "link", False, -1, 1.0), rows)
    np.testing.assert_allclose(found, apply_link(forest, predict(forest, rows)), rtol=1e-12, atol=1e-12)


# -- modules ---------------------------------------------------------------------------------------------------------
def network(kind="float64", outputs=2):
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(16, outputs)
    return open_module(torch.nn.Sequential(*layers).to(getattr(torch, kind)), lambda note: None)


@needs_torch
@pytest.mark.parametrize("output", ["auto", "output 1"])
def test_a_module_says_what_it_says_and_stays_where_it_is(output):
    function = as_function(network(), output, None, ROWS[:64])
    form = form_of(function, ROWS[:64])
    assert "parameters" in form.name
    before = next(function.model.module.parameters())
    assert np.abs(asked(form, ROWS) - function.call(ROWS)).max() < 1e-12
    assert next(function.model.module.parameters()) is before


# -- coalitions ------------------------------------------------------------------------------------------------------
def both_games(function, rows, background, weights, design, players=None):
    form = form_of(function, ROWS[:64])
    answer = form.on("cpu")

    def game_of(_, known, shares):
        return device_game.DeviceGame(answer, form.row_bytes, "cpu", known, shares)

    given = (rows, background, weights, design, players)
    return coalitions.explain_rows(None, *given, game_of), coalitions.explain_rows(function.call, *given)


def same(found, expected, tolerance):
    for name in ("values", "standard_errors", "base", "prediction"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert np.abs(ours - theirs).max() <= tolerance * max(1.0, np.abs(expected.values).max()), name
    assert (found.exact == expected.exact).all()


@needs_torch
@pytest.mark.parametrize("most", [1, 20, 40, 200, device_game.MOST_POINTS])
@pytest.mark.parametrize("which", ["module", "trees"])
def test_values_are_those_of_the_processor(monkeypatch, most, which):
    monkeypatch.setattr(device_game, "MOST_POINTS", most)
    model = network() if which == "module" else MODELS["lightgbm, three classes"][0]
    function = as_function(model, "auto", None, ROWS[:64])
    background, weights = ROWS[100:130].copy(), RNG.random(30)
    weights[4] = 0.0
    rows = ROWS[:2].copy()
    rows[1, 2:] = background[0, 2:]  # and a row in which few players count
    background[:, 2:] = background[0, 2:]
    design = coalitions.design(6, None, np.random.default_rng(1))
    same(*both_games(function, rows, background, weights, design), 1e-10)


@needs_torch
def test_estimates_groups_and_missing_values():
    rows = np.hstack([ROWS, ROWS[::-1], ROWS + 1.0])[:, :16]
    rows[5, 3] = rows[120, 0] = np.nan
    model = lightgbm.LGBMClassifier(verbose=-1, n_estimators=30).fit(rows, THREE > 0)
    function = as_function(model, "probability", None, rows[:64])
    form = form_of(function, rows[:64])
    answer = form.on("cpu")

    def game_of(_, known, shares):
        return device_game.DeviceGame(answer, form.row_bytes, "cpu", known, shares)

    players = np.array([0, *range(15)])
    design = coalitions.design(15, 200, np.random.default_rng(1))
    given = (rows[4:7], rows[100:140], None, design, players)
    found = coalitions.explain_rows(None, *given, game_of)
    expected = coalitions.explain_rows(function.call, *given)
    assert not expected.exact.any() and (expected.standard_errors > 0).any()
    same(found, expected, 1e-10)


@needs_torch
def test_values_that_are_not_finite_are_refused_with_the_row():
    import torch

    class Root(torch.nn.Module):
        def forward(self, rows):
            return 1.0 / rows[:, 0]

    function = as_function(open_module(Root(), lambda note: None), "auto", None, ROWS[:64])
    rows, background = ROWS[:2].copy(), ROWS[100:110].copy()
    rows[1, 0] = 0.0
    design = coalitions.design(6, None, np.random.default_rng(1))
    with pytest.raises(ModelTrouble, match=r"not finite for a row of the data .* \[0\.0, "):
        form = form_of(function, ROWS[:64])
        answer = form.on("cpu")
        coalitions.explain_rows(
            None, rows, background, None, design, None,
            lambda _, known, shares: device_game.DeviceGame(answer, form.row_bytes, "cpu", known, shares),
        )  # fmt: skip
    background[3, 0] = 0.0
    with pytest.raises(ModelTrouble, match="rows of the background"):
        both_games(function, rows[:1], background, None, design)
