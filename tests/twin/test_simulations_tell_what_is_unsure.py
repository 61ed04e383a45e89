"""Simulations: effects near the truth, intervals that more twins do not narrow, groups, targeting, scenarios, refusals."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millrace as mr
from millrace.analyses.twin import simulate_measures as measures
from millrace.analyses.twin.intervention import read
from millrace.analyses.twin.model import TwinModel
from millrace.analyses.twin.simulate_answer import Simulation
from millrace.run.errors import WrongQuestion

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "twin_pharma"))
import world

EMAIL = {
    "name": "email",
    "eligible": "digital_engagement_score >= 30",
    "cost_per_unit": 2.0,
    "adoption": {"mean": 0.6, "sd": 0.05},
}
GUESS = {"name": "guess", "effect": {"source": "assumed", "mean": 0.1, "sd": 0.05, "because": "a guess"}}
PORTAL = {"name": "portal", "shift": {"digital_engagement_score": 10.0}, "effect": {"source": "structural"}}
N = 2_000


@pytest.fixture(scope="module")
def drawn() -> world.World:
    return world.draw(2_500, seed=5)


@pytest.fixture(scope="module")
def model(drawn: world.World) -> TwinModel:
    keep = (
        "specialty", "region", "decile", "digital_engagement_score", "adoption_stage", "preferred_channel", "contacted",
        "prescriptions",
    )  # fmt: skip
    return mr.twin.fit(
        pa.table({n: drawn.columns[n] for n in keep}), outcome="prescriptions", treatment="contacted", folds=2, joint="plain",
        engine="inline",
    )  # fmt: skip


def simulated(model: Any, intervention: Any = EMAIL, **more: Any) -> Simulation:
    return mr.twin.simulate(model, intervention, **{"n": N, "engine": "inline", **more})


# -- effects and their doubts ------------------------------------------------------------------------------------------
def test_a_learned_effect_is_near_the_truth(drawn: world.World, model: TwinModel) -> None:
    found = simulated(model)
    inside = drawn.columns["digital_engagement_score"] >= 30
    truth = 0.6 * drawn.effect[inside].mean()
    assert found.ate.low < truth < found.ate.high
    assert found.att.low < drawn.effect[inside].mean() < found.att.high
    assert found.ate.effect == pytest.approx(0.6 * found.att.effect)


@pytest.mark.parametrize("intervention", [EMAIL, GUESS, PORTAL], ids=["learned", "assumed", "structural"])
def test_ten_times_more_twins_do_not_make_it_ten_times_surer(model: TwinModel, intervention: dict[str, Any]) -> None:
    few, many = (simulated(model, intervention, n=n).ate for n in (N, 10 * N))
    assert many.high - many.low > 0.5 * (few.high - few.low)  # and not .32 of it
    if few.parts["twins"] > 1e-9:
        assert many.parts["twins"] == pytest.approx(few.parts["twins"] / math.sqrt(10), rel=0.15)


def test_each_source_says_what_it_is(model: TwinModel) -> None:
    found = simulated(model, [EMAIL, GUESS, PORTAL])
    labels = {s.name: s.intervention.label for s in found.scenarios}
    assert "learned" in labels["email"] and "a guess" in labels["guess"] and "not causal" in labels["portal"]
    assert {s.name: max(s.ate.parts, key=lambda n: s.ate.parts[n]) for s in found.scenarios}["guess"] == "effect"
    assert all(s.intervention.label in " ".join(found.findings()) for s in found.scenarios)


def test_intensity_and_adoption_scale_the_effect(model: TwinModel) -> None:
    one = simulated(model, {**GUESS, "intensity": 1.0})
    two = simulated(model, {**GUESS, "intensity": 2.0, "adoption": 0.5})
    assert two.ate.effect == pytest.approx(one.ate.effect) and two.att.effect == pytest.approx(2 * one.att.effect)
    assert one.ate.low == pytest.approx(0.1 - 1.96 * 0.05, abs=1e-3)


def test_assumed_effects_may_differ_by_a_column(model: TwinModel) -> None:
    effect = {**GUESS["effect"], "by": "region", "levels": {"north": 0.5}}
    found = simulated(model, {"name": "x", "effect": effect}, by=["region"])
    effects = {g.name: g.effect for g in found.groups}
    assert effects["region=north"] == pytest.approx(0.5) and effects["region=west"] == pytest.approx(0.1)


def test_lower_may_be_better(model: TwinModel) -> None:
    harm = {"name": "x", "effect": {"source": "assumed", "mean": -0.4, "sd": 0.02, "because": "a guess"}}
    assert simulated(model, harm, fidelity=0.9).recommendation.rule == "harmful"
    found = simulated(model, harm, goal="lower", fidelity=0.9)
    assert found.recommendation.action == "deploy" and not found.says_no
    assert found.ate.effect == pytest.approx(-0.4)
    assert simulated(model, harm, goal="lower").recommendation.rule == "unknown fidelity"


def test_what_costs_more_than_it_is_worth_is_skipped(model: TwinModel) -> None:
    dear = {**GUESS, "cost_per_unit": 50.0}
    found = simulated(model, dear, value_per_unit=100.0, fidelity=0.9)
    assert found.recommendation.action == "skip" and found.first.targeting.best == 0
    assert found.first.net == pytest.approx(0.1 * 100 - 50)


# -- groups ------------------------------------------------------------------------------------------------------------
def test_groups_are_corrected_for_their_number(model: TwinModel) -> None:
    alone = simulated(model, by=["region"])
    among = simulated(model, by=["region", "decile", "digital_engagement_score"])
    one = next(g for g in alone.groups if g.name == "region=west")
    same = next(g for g in among.groups if g.name == "region=west")
    assert (one.plain_low, one.plain_high) == (same.plain_low, same.plain_high)
    assert same.low < one.low < one.plain_low and same.high > one.high > one.plain_high
    assert same.p >= one.p
    assert sum(g.of for g in alone.groups) == alone.first.eligible


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_the_p_and_bonferroni(p: list[float]) -> None:
    found = measures.holm(p)
    for a, b in zip(p, found, strict=True):
        assert a <= b <= min(1.0, a * len(p)) + 1e-12
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.asarray(found)[order]) >= 0).all()


# -- targeting ---------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.floats(0, 1), st.none() | st.floats(0.5, 3),
    st.none() | st.floats(0.1, 10), st.floats(0.5, 3),
)  # fmt: skip
def test_the_best_are_treated_as_far_as_it_pays_and_the_budget_goes(
    effects: list[float], cost: float, value: float | None, budget: float | None, units: float
) -> None:
    effect = np.asarray(effects)
    found = measures.target(effect, np.arange(len(effect)), cost, value, budget, units)
    treated = effect[found.rows]
    rest = np.delete(effect, found.rows)
    assert not len(treated) or not len(rest) or treated.min() >= rest.max()
    if budget is not None and cost > 0:
        assert found.spent <= budget + 1e-6
    worth = (effect * value > cost) if value is not None else effect > 0
    assert found.best <= worth.sum()
    if budget is None or cost == 0:
        assert found.best == worth.sum()
    assert found.gain_total == pytest.approx(treated.sum() * units)
    assert found.gain[-1] == pytest.approx(effect.mean())


def test_a_budget_is_of_the_units_that_twins_stand_for(model: TwinModel) -> None:
    one = simulated(model, budget=200.0).first.targeting
    ten = simulated(model, budget=200.0, population=10 * N).first.targeting
    assert one.best == 100 and ten.best == 10
    assert ten.units == pytest.approx(100) and ten.spent <= 200


# -- scenarios ---------------------------------------------------------------------------------------------------------
def test_scenarios_share_their_random_numbers(model: TwinModel) -> None:
    """A little more effect is better for sure, although the intervals overlap nearly all."""
    more = {**GUESS, "name": "a little more", "intensity": 1.05}
    found = simulated(model, [GUESS, more])
    assert found.first.name == "a little more" and found.first.best > 0.95
    assert found.scenario("guess").ate.high > found.first.ate.low


def test_every_engine_and_a_file_of_twins_say_the_same(model: TwinModel, tmp_path: Path) -> None:
    asked = {"by": ["region"], "value_per_unit": 50.0, "budget": 900.0}
    one = simulated(model, [EMAIL, PORTAL], **asked)
    assert simulated(model, [EMAIL, PORTAL], engine="processes", cores=2, **asked).digest == one.digest
    twins = mr.twin.generate(model, N, out=tmp_path / "twins.parquet", engine="inline")
    assert {"twin_baseline", "twin_propensity", "twin_effect"} <= set(twins.columns)
    read_back = simulated(model, [EMAIL, PORTAL], twins=twins, **asked)
    assert [s.as_dict() for s in read_back.scenarios] == [s.as_dict() for s in one.scenarios]
    assert mr.twin.simulate(twins, EMAIL, model=model, engine="inline").ate == simulated(model).ate
    column = np.asarray(twins.table["twin_effect"])
    np.testing.assert_array_equal(column, model.effects.predict(twins.table).tau)


def test_what_was_finished_is_found_again(drawn: world.World, model: TwinModel, tmp_path: Path) -> None:
    from millrace.analyses.twin.effects import fit_effects

    table = pa.table({n: drawn.columns[n] for n in ("decile", "region", "contacted", "prescriptions")})
    told = []
    for _ in range(2):
        with mr.Run(engine="inline", store=tmp_path / "store") as run:
            learnt = fit_effects(run, table, "contacted", "prescriptions", folds=2)
            found = mr.twin.simulate(model, [EMAIL, PORTAL], n=N, run=run)
            told.append((learnt.digest, found.digest, run.computed, run.cached))
    assert told[0][:2] == told[1][:2]
    assert told[0][2] > 0 and told[1][2:] == (0, told[0][2])


def test_the_command_says_the_same(model: TwinModel, tmp_path: Path, capsys: Any) -> None:
    from millrace.cli.main import main

    folder = model.keep(tmp_path)
    (tmp_path / "email.toml").write_text(
        'name = "email"\neligible = "digital_engagement_score >= 30"\ncost_per_unit = 2.0\nadoption = {mean = 0.6, sd = 0.05}\n'
    )
    asked = [
        "--model",
        str(folder),
        "--intervention",
        str(tmp_path / "email.toml"),
        "--n",
        str(N),
        "--engine",
        "inline",
    ]
    place = ["--out", str(tmp_path / "out"), "--quiet"]
    assert main(["twin", "simulate", *asked, *place]) == 0
    said = (tmp_path / "out" / "result.json").read_text()
    assert simulated(model).digest in said
    assert main(["twin", "simulate", *asked, *place, "--fail-on-no"]) == 1  # nothing was ever compared
    effect = repr(simulated(model).ate.effect)
    tracked = ["--simulation", str(tmp_path / "out"), "--actual", effect, "--out", str(tmp_path / "track"), "--quiet"]
    assert main(["twin", "track", *tracked]) == 0
    assert main(["twin", "simulate", *asked, *place, "--smallest", "0.01"]) == 0
    assert '"fidelity": 1.0' in (tmp_path / "out" / "result.json").read_text()
    assert main(["twin", "simulate", *asked, "--by", "age", *place]) == 2
    capsys.readouterr()


def test_where_is_a_part_of_the_population(model: TwinModel) -> None:
    found = simulated(
        model, GUESS | {"effect": {**GUESS["effect"], "sd": 0.0}}, where="region == 'west'", by=["region"]
    )
    assert [g.name for g in found.groups] == ["region=west"] and found.first.eligible == N


def test_an_experiment_is_proposed(model: TwinModel) -> None:
    found = simulated(model, {**EMAIL, "starts_per_day": 20.0, "duration_days": 42.0}, power=0.9)
    made = found.first.experiment
    assert made is not None and made.power >= 0.9
    assert made.days == math.ceil(made.n / 20) - 1 + 42
    assert 0 < found.first.seen <= 1  # type: ignore[operator]


# -- kept, handed on, shown --------------------------------------------------------------------------------------------
def test_it_is_saved_and_its_result_tracked(model: TwinModel, tmp_path: Path) -> None:
    found = simulated(model, [EMAIL, GUESS], by=["region"], out=tmp_path / "sim")
    assert {"scenarios.parquet", "groups.parquet", "treat.parquet", "report.html", "uplift.svg"} <= {
        p.name for p in (tmp_path / "sim").iterdir()
    }
    record = tmp_path / "record.jsonl"
    effect = found.scenario("email").ate.effect
    with pytest.raises(WrongQuestion, match="say which"):
        mr.twin.track(found, effect, record=record)
    exact = mr.twin.track(found, effect, intervention="email", record=record)
    assert exact.grade == "excellent" and exact.fidelity == 1.0 and not exact.says_no
    again = mr.twin.track(tmp_path / "sim", 3 * effect, intervention="email", group="region=west", record=record)
    assert again.grade == "poor" and again.score.records == 2
    assert simulated(model, record=record).fidelity == pytest.approx(again.fidelity)
    with pytest.raises(WrongQuestion, match="no group"):
        mr.twin.track(found, 0.1, intervention="email", group="region=south-west", record=record)
    assert len(mr.twin.track(found, effect, intervention="email").history) == 1  # kept nowhere, and said
    assert set(exact.charts()) == {"history"}


def test_drift_of_the_population_is_seen(drawn: world.World, model: TwinModel) -> None:
    found = simulated(model, GUESS)
    old = pa.table({n: drawn.columns[n] for n in ("decile", "digital_engagement_score", "region")})
    old = old.slice(0, 600)
    other = old.set_column(1, "digital_engagement_score", pa.array(np.asarray(old["digital_engagement_score"]) + 30))
    assert mr.twin.track(found, 0.1, new=other, training=old).drift > 0.6  # type: ignore[operator]
    same = pa.table({n: world.draw(600, seed=6).columns[n] for n in old.column_names})
    assert mr.twin.track(found, 0.1, new=same, training=old).drift < 0.6  # type: ignore[operator]


def test_it_is_handed_to_refute(drawn: world.World, model: TwinModel) -> None:
    found = simulated(model)
    rows = pa.table({n: drawn.columns[n] for n in model.names})
    refuted = found.refute(rows, tests=["placebo"], simulations=20, engine="inline")
    assert refuted.estimator == "aipw" and abs(refuted.estimate.effect - drawn.effect.mean()) < 0.1
    with pytest.raises(WrongQuestion, match="nothing to refute"):
        simulated(model, GUESS).refute(rows)
    alone = found.refute(
        tests=["placebo"], simulations=20, engine="inline"
    )  # the rows are still there, and go with the model
    assert alone.digest == refuted.digest


def test_a_model_that_was_loaded_has_no_rows_to_refute_on(model: TwinModel, tmp_path: Path) -> None:
    found = simulated(model.keep(tmp_path))
    with pytest.raises(WrongQuestion, match=r"read from a folder.*\.refute\(rows\)"):
        found.refute()


def test_the_outcome_model_is_handed_to_explain(drawn: world.World, model: TwinModel) -> None:
    rows = pa.table({n: drawn.columns[n] for n in model.names}).slice(0, 200)
    found = mr.twin.explain(model, rows, engine="inline")
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base_values, model.outcome.predict(rows), atol=1e-9)
    assert found.feature_names == model.outcome.encoding.names
    with pytest.raises(WrongQuestion, match="no outcome model"):
        mr.twin.explain(replace(model, outcome=None), rows)


def test_pictures_say_what_was_found(model: TwinModel) -> None:
    import altair

    found = simulated(model, [EMAIL, GUESS], by=["region"], value_per_unit=50.0)
    made = found.charts()
    assert set(made) == {"scenarios", "doubts", "groups", "targeting", "uplift", "overlap"}
    for chart in made.values():
        altair.Chart.from_dict(chart, validate=True)
        assert chart["title"]["text"] and chart["description"]
    with pytest.raises(WrongQuestion, match="no picture"):
        found.plot("pie")


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("intervention", "more", "says"),
    [
        ({"name": "x", "eligible": "decile == 1 and region == 'north'"}, {"n": 100}, "100 are the least"),
        ({"name": "x", "eligible": "decil == 1"}, {}, "no column 'decil'"),
        ({"name": "x", "eligible": "region == 'moon'"}, {}, "no level 'moon'"),
        ({"name": "x", "shift": {"region": 1}}, {}, "only numbers"),
        ({"name": "x", "shift": {"age": 1}}, {}, "no column 'age'"),
        ({"name": "x", "set": {"region": "moon"}}, {}, "no level 'moon'"),
        ({"name": "x", "set": {"decile": "high"}}, {}, "is a number"),
        (EMAIL, {"by": ["age"]}, "no such column"),
        (EMAIL, {"smallest_money": 5.0}, "value_per_unit"),
        (EMAIL, {"twins": "nothing.parquet"}, "no file"),
    ],
)
def test_what_cannot_be_told_is_said(model: TwinModel, intervention: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongQuestion, match=says):
        simulated(model, intervention, **more)


def test_what_the_model_has_not_learnt_is_said(model: TwinModel) -> None:
    bare = replace(model, outcome=None, effects=None)
    with pytest.raises(WrongQuestion, match="has learned none"):
        simulated(bare)
    with pytest.raises(WrongQuestion, match="there is none"):
        simulated(bare, PORTAL)
    assert simulated(bare, GUESS).first.experiment is None


def test_columns_that_leave_what_was_seen_are_said(model: TwinModel) -> None:
    found = simulated(model, {**PORTAL, "shift": {"digital_engagement_score": 200.0}})
    assert any("all that the model has seen" in note for note in found.notes)


def test_eligible_twins_are_counted_when_they_are_too_few(model: TwinModel) -> None:
    with pytest.raises(WrongQuestion, match=r"x: \d+ of 2,000 twins are eligible"):
        simulated(
            model, {"name": "x", "eligible": "decile == 1 and region == 'north' and adoption_stage == 'innovator'"}
        )


def test_a_result_that_is_no_number_is_not_recorded(model: TwinModel, tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="finite"):
        mr.twin.track(simulated(model), math.nan, record=tmp_path / "record.jsonl")
    assert not (tmp_path / "record.jsonl").exists()


def test_a_wrong_file_is_no_simulation(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="no simulation"):
        mr.twin.track(tmp_path, 0.1)
    assert read(EMAIL).adoption.mean == 0.6
