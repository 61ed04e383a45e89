"""Outcome and effects of a fitted model know the columns as twins have them: rare categories pooled, categories of numbers as
text; and `assess` tells what the intervals of the outcome hold of rows that nobody has seen."""

from __future__ import annotations

import numpy
import pandas
import pytest

import millrace as mr

SET = {"name": "set", "set": {"x": 1.0}, "effect": {"source": "structural"}}
GIFT = {"name": "gift", "effect": {"source": "learned"}}


def rows(n: int, seed: int = 0, rare: bool = True) -> pandas.DataFrame:
    """A category with two rare labels, one of numbers with a rare one, a treatment by lot, an outcome."""
    rng = numpy.random.default_rng(seed)
    kind = rng.choice(["a", "b", "c"], n).astype(object)
    plan = rng.integers(1, 4, n)
    if rare:
        kind[:2], kind[2:4], plan[4:6] = "hermit", "recluse", 77
    x, treated = rng.normal(size=n), rng.random(n) < 0.5
    y = x + 0.5 * treated + (kind == "a") + 0.3 * plan.clip(0, 4) + rng.normal(size=n)
    return pandas.DataFrame({"kind": kind, "plan": plan, "x": x, "treated": treated, "y": y})


@pytest.fixture(scope="module")
def learnt():
    schema = {"columns": {"plan": "category"}}
    asked = {"outcome": "y", "treatment": "treated", "schema": schema, "folds": 2, "joint": "plain", "engine": "inline"}
    return mr.twin.fit(rows(1_500), **asked)


def test_twins_of_rare_categories_have_their_outcomes_and_effects(learnt, tmp_path):
    twins = mr.twin.generate(learnt, 8_000, out=tmp_path / "t.parquet", engine="inline").to_pandas()
    assert {"(other)"} < set(twins["kind"]) and {"(other)"} < set(twins["plan"])
    assert twins[["twin_baseline", "twin_effect", "twin_propensity"]].notna().all().all()
    for intervention in (SET, GIFT):
        found = mr.twin.simulate(learnt, intervention, n=2_000, by=["kind", "plan"], engine="inline")
        assert "kind=(other)" in {g.name for g in found.groups} or len(found.groups) >= 6
    explained = mr.twin.explain(learnt, rows(200), engine="inline")
    assert len(explained.values) == 200


def test_no_rare_label_is_in_the_models_folder(learnt, tmp_path):
    folder = learnt.keep(tmp_path)
    held = b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file())
    assert b"hermit" not in held and b"recluse" not in held and b"(other)" in held
    again = mr.twin.load(folder)
    assert again.digest == learnt.digest and mr.twin.sample(again, 50).equals(mr.twin.sample(learnt, 50))


def test_a_label_that_is_new_is_named_where_nothing_was_pooled():
    plain = rows(600, rare=False)
    model = mr.twin.fit(plain, outcome="y", folds=2, joint="plain", engine="inline")
    with pytest.raises(Exception, match="'z'.*It knows 'a', 'b', 'c'"):
        mr.twin.explain(model, plain.assign(kind="z"), engine="inline")


def test_a_category_of_too_many_labels_is_said_to_be_no_feature():
    many = rows(4_000, rare=False).assign(place=[f"p{i % 1_100}" for i in range(4_000)])
    model = mr.twin.fit(many, outcome="y", folds=2, joint="plain", engine="inline", privacy="low")
    assert any("'place'" in note and "1,100 labels" in note for note in model.notes)


# -- coverage ----------------------------------------------------------------------------------------------------------
def test_an_assessment_measures_what_intervals_hold_of_rows_that_nobody_has_seen(learnt):
    found = mr.twin.assess(learnt, rows(1_500), holdout=rows(3_000, seed=1), engine="inline")
    assert found.coverage["rows"] == 3_000 and found.coverage["promised"] == 0.9
    assert found.coverage["held"] == pytest.approx(0.9, abs=0.025)
    assert any("promise 90% hold" in said for said in found.findings())
    far = rows(3_000, seed=1).assign(y=lambda t: t["y"] + 5)
    missed = mr.twin.assess(learnt, rows(1_500), holdout=far, rows=600, engine="inline")
    assert missed.coverage["held"] < 0.2 and missed.digest != found.digest
    assert mr.twin.assess(learnt, rows(1_500), rows=300, engine="inline").coverage is None


def test_two_values_are_covered_by_sets_and_rows_that_tell_nothing_are_counted():
    data, held = (rows(2_000, seed, rare=False) for seed in (2, 3))
    data["y"], held["y"] = data["y"] > 1.5, held["y"] > 1.5
    held.loc[:299, "kind"] = "z"
    model = mr.twin.fit(data, outcome="y", folds=2, joint="plain", engine="inline")
    found = mr.twin.assess(model, data, holdout=held, engine="inline")
    assert found.coverage["rows"] == 1_700 and found.coverage["held"] == pytest.approx(0.9, abs=0.03)
    assert any("300 held-out rows" in note for note in found.notes)
