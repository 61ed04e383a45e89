"""Effects on worlds whose truth is known: intervals that hold it, ranking that pays, overlap that is not taken for granted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import millrace as mr
from millrace.analyses.twin import effects, effects_model
from millrace.analyses.twin.kernels import effects as kernel
from millrace.run.errors import NotSupported, WrongQuestion

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "twin_pharma"))
import world

TREATMENT, OUTCOME = "contacted", "prescriptions"


def small_world(n: int, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Six columns, a confounded treatment, an effect that differs; the true effects."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    kind = rng.integers(0, 3, n)
    chance = 1 / (1 + np.exp(-(0.7 * x[:, 0] - 0.5 * x[:, 1] + 0.5 * (kind == 1))))
    treated = rng.random(n) < np.clip(chance, 0.1, 0.9)
    effect = 0.5 + 0.4 * np.tanh(x[:, 0]) + 0.2 * (kind == 2)
    y = x[:, 0] + 0.5 * np.sin(2 * x[:, 1]) + 0.5 * (kind == 1) + effect * treated + rng.normal(size=n)
    columns = {f"x{j}": x[:, j] for j in range(5)} | {"kind": np.array(["a", "b", "c"])[kind]}
    return pa.table({**columns, "t": treated, "y": y}), effect


def fitted(table: pa.Table, **more: Any) -> effects_model.EffectModel:
    with mr.Run(engine="inline") as run:
        return effects.fit_effects(run, table, "t", "y", **more)


@pytest.fixture(scope="module")
def pharma() -> tuple[world.World, effects_model.EffectModel]:
    drawn = world.draw(4_000, seed=3)
    with mr.Run(engine="inline") as run:
        return drawn, effects.fit_effects(run, pa.table(drawn.columns), TREATMENT, OUTCOME, folds=3)


# -- what is right -----------------------------------------------------------------------------------------------------
def test_the_average_is_right_where_comparing_misleads(pharma: Any) -> None:
    drawn, model = pharma
    y, t = drawn.columns[OUTCOME], drawn.columns[TREATMENT]
    naive = y[t == 1].mean() - y[t == 0].mean()
    low, high = model.interval()
    assert low < drawn.effect.mean() < high
    assert not low < naive < high
    a, b = model.interval("att")
    assert a < drawn.effect[t == 1].mean() < b


def test_scores_are_those_of_the_formula() -> None:
    y, t = np.array([1.0, 2.0]), np.array([1.0, 0.0])
    mu0, mu1, e = np.array([0.5, 1.5]), np.array([0.8, 1.0]), np.array([0.25, 0.5])
    np.testing.assert_allclose(kernel.scores(y, t, mu0, mu1, e), [0.3 + 0.2 / 0.25, -0.5 - 0.5 / 0.5])


def test_scores_are_right_when_either_model_is() -> None:
    """Double robustness, with the truth in the place of one model and nonsense in that of the other."""
    rng = np.random.default_rng(0)
    n = 200_000
    x = rng.normal(size=n)
    e = 1 / (1 + np.exp(-x))
    t = (rng.random(n) < e).astype(float)
    y = x + 0.5 * t + rng.normal(size=n)
    for mu0, mu1, chance in ((x, x + 0.5, np.full(n, 0.5)), (np.zeros(n), np.zeros(n), e)):
        mean, se = kernel.average(kernel.scores(y, t, mu0, mu1, chance))
        assert abs(mean - 0.5) < 4 * se


def test_the_projection_agrees_with_the_average_and_with_groups(pharma: Any) -> None:
    drawn, model = pharma
    found = model.predict(pa.table(drawn.columns))
    effect, se = model.of_group(found.basis.mean(axis=0))
    assert effect == pytest.approx(model.ate[0], abs=0.02)
    assert se == pytest.approx(model.ate[1], rel=0.15)
    missed = []
    for region in ("east", "north", "south", "west"):
        inside = drawn.columns["region"] == region
        effect, se = model.of_group(found.basis[inside].mean(axis=0))
        missed.append(abs(effect - drawn.effect[inside].mean()) / se)
    assert max(missed) < 3.5 and np.mean(missed) < 1.6


def test_ranking_by_the_effect_pays_on_rows_that_it_has_not_seen(pharma: Any) -> None:
    drawn, model = pharma
    gain, share = model.uplift["gain"], model.uplift["share"]
    assert gain[0] == 0 and gain[-1] == pytest.approx(model.ate[0])
    assert gain[50] - share[50] * gain[-1] > 2 * model.uplift["se"][50] * 0.5
    assert np.corrcoef(model.tau, drawn.effect[model.kept])[0, 1] > 0.6


def test_uplift_of_the_true_ranking_is_the_largest() -> None:
    rng = np.random.default_rng(0)
    effect = rng.normal(size=5_000)
    psi = effect + rng.normal(size=5_000)
    best, random = kernel.uplift(psi, effect), kernel.uplift(psi, rng.normal(size=5_000))
    assert (best["gain"][1:-1] > random["gain"][1:-1]).all()
    np.testing.assert_allclose(best["gain"][-1], psi.mean())


@pytest.mark.parametrize("method", ["dr", "t", "x"])
def test_every_method_learns_who_gains(method: str) -> None:
    table, effect = small_world(3_000, 1)
    model = fitted(table, method=method, folds=2)
    assert np.corrcoef(model.predict(table).tau, effect)[0, 1] > 0.6
    low, high = model.interval()
    assert low < effect.mean() < high


def test_two_values_may_be_labels_and_outcomes_shares() -> None:
    table, _ = small_world(2_000, 2)
    y = np.asarray(table["y"]) > 0.5
    arms = np.where(table["t"], "yes", "no")
    table = table.set_column(table.column_names.index("t"), "t", pa.array(arms))
    model = fitted(table.set_column(table.column_names.index("y"), "y", pa.array(y)), folds=2)
    assert model.arms == ("no", "yes") and model.kind == "binary"
    assert 0.02 < model.ate[0] < 0.4
    assert ((model.predict(table).baseline >= 0) & (model.predict(table).baseline <= 1)).all()


# -- the same everywhere, and kept -------------------------------------------------------------------------------------
def test_a_model_is_kept_and_read_without_the_rows(pharma: Any, tmp_path: Path) -> None:
    drawn, model = pharma
    model.save(tmp_path / "effects")
    assert all(p.suffix in (".json", ".txt") for p in (tmp_path / "effects").iterdir())
    again = effects.load(tmp_path / "effects")
    table = pa.table(drawn.columns).slice(0, 300)
    assert again.digest == model.digest and again.describe() == model.describe()
    for name in ("tau", "baseline", "propensity", "basis"):
        np.testing.assert_array_equal(getattr(again.predict(table), name), getattr(model.predict(table), name))
    text = (tmp_path / "effects" / "effects.json").read_text()
    (tmp_path / "effects" / "effects.json").write_text(text.replace('"format": 1', '"format": 2', 1))
    with pytest.raises(WrongQuestion, match="format 2"):
        effects.load(tmp_path / "effects")
    (tmp_path / "effects" / "propensity.txt").unlink()
    (tmp_path / "effects" / "effects.json").write_text(text)
    with pytest.raises(WrongQuestion, match="not a whole effect model"):
        effects.load(tmp_path / "effects")


def test_every_engine_learns_the_same(tmp_path: Path) -> None:
    table, _ = small_world(600, 4)
    found = [fitted(table, folds=2).digest]
    for engine, cores in (("processes", 1), ("processes", 2)):
        with mr.Run(engine=engine, cores=cores) as run:
            found.append(effects.fit_effects(run, table, "t", "y", folds=2).digest)
    assert len(set(found)) == 1


# -- what cannot be learnt ---------------------------------------------------------------------------------------------
def test_a_treatment_without_overlap_is_refused_and_who_decides_it_is_named() -> None:
    table, _ = small_world(1_500, 5)
    decided = np.asarray(table["x0"]) + 0.05 * np.random.default_rng(0).normal(size=1_500) > 0
    table = table.set_column(table.column_names.index("t"), "t", pa.array(decided))
    with pytest.raises(WrongQuestion, match="nobody to compare with") as refused:
        fitted(table, folds=2)
    assert "'x0'" in str(refused.value) and "overlap='trim'" in str(refused.value)
    with pytest.raises(WrongQuestion, match="Trimming would leave too few"):
        fitted(table, folds=2, overlap="trim")


def test_trimming_names_the_population_that_is_left() -> None:
    rng = np.random.default_rng(6)
    table, effect = small_world(3_000, 6)
    x = np.asarray(table["x0"])
    treated = rng.random(3_000) < np.where(x > 1.0, 0.995, 0.5)
    y = x + effect * treated + rng.normal(size=3_000)
    table = table.set_column(table.column_names.index("t"), "t", pa.array(treated))
    table = table.set_column(table.column_names.index("y"), "y", pa.array(y))
    with pytest.raises(WrongQuestion, match="nobody to compare with"):
        fitted(table, folds=2)
    model = fitted(table, folds=2, overlap="trim")
    assert model.overlap.trimmed and model.rows == model.overlap.kept < 3_000
    assert any("there is nobody to compare with" in note for note in model.notes)
    low, high = model.interval()
    assert low < effect[model.kept].mean() < high


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"t": np.ones(300, bool)}, WrongQuestion, "same in all rows"),
        ({"t": np.arange(300) % 3}, NotSupported, "more than two values"),
        ({"t": np.arange(300) < 20}, WrongQuestion, "Only 20 rows"),
        ({"y": np.ones(300)}, WrongQuestion, "single value"),
        ({"y": np.where(np.arange(300) < 200, np.nan, 1.0 * np.arange(300))}, WrongQuestion, "more than half"),
        ({"x0": np.where(np.arange(300) == 7, np.inf, 0.5 * np.arange(300))}, WrongQuestion, "infinite"),
    ],
)
def test_what_cannot_be_learnt_is_said(change: dict[str, Any], kind: type[Exception], says: str) -> None:
    table, _ = small_world(300, 7)
    for name, values in change.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    with pytest.raises(kind, match=says):
        fitted(table, folds=2)


def test_wrong_names_are_said() -> None:
    table, _ = small_world(300, 8)
    with mr.Run(engine="inline") as run:
        for treatment, outcome, says in (("T", "y", "no column 'T'"), ("y", "y", "both treatment and outcome")):
            with pytest.raises(WrongQuestion, match=says):
                effects.fit_effects(run, table, treatment, outcome)
        with pytest.raises(NotSupported, match="there are dr, t, x"):
            effects.fit_effects(run, table, "t", "y", method="s")
        with pytest.raises(WrongQuestion, match="150 rows"):
            effects.fit_effects(run, table.slice(0, 150), "t", "y")


# -- minutes -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """95 % intervals of the average over 200 worlds: between 90 and 98 % hold it."""
    held = []
    with mr.Run(engine="processes") as run:
        for seed in range(200):
            table, effect = small_world(800, 1_000 + seed)
            model = effects.fit_effects(run, table, "t", "y", folds=3, overlap="trim")
            low, high = model.interval()
            held.append(low < effect.mean() < high)
    assert 0.90 <= np.mean(held) <= 0.98, np.mean(held)


@pytest.mark.slow
def test_effects_of_many_rows_are_told_apart() -> None:
    """At 30,000 rows the learnt effect goes with the true one by .90 or more, and better than two models do."""
    import lightgbm

    drawn = world.draw(30_000, seed=11)
    table = pa.table(drawn.columns)
    with mr.Run(engine="processes") as run:
        model = effects.fit_effects(run, table, TREATMENT, OUTCOME)
    ours = np.corrcoef(model.tau, drawn.effect[model.kept])[0, 1]
    x = effects.features.encode(model.encoding, table)
    t, y = drawn.columns[TREATMENT], drawn.columns[OUTCOME]
    arms = []
    for arm in (0, 1):
        learner = lightgbm.LGBMRegressor(n_estimators=200, num_leaves=31, learning_rate=0.06, n_jobs=1, verbose=-1)
        arms.append(learner.fit(x[t == arm], y[t == arm]).predict(x))
    theirs = np.corrcoef(arms[1] - arms[0], drawn.effect)[0, 1]
    assert ours >= 0.90 and ours > theirs + 0.1, (ours, theirs)
