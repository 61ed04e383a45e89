"""refute as its users meet it: the laws of an analysis, verdicts that follow the world, decisions that are said, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import millrace as mr
from millrace.analyses.refute.oracle import simulate_plainly
from millrace.run.errors import WrongQuestion
from millrace.testing.analyses import LAWS

CAUSES = ["a", "b", "c", "d"]


def world(rows: int = 1500, *, effect: float = 1.0, hidden: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """A binary treatment with a known effect; `hidden` is the strength of a confounder that is not in the table."""
    rng = np.random.default_rng(seed)
    w, u = rng.standard_normal((rows, 4)), rng.standard_normal(rows)
    chance = 1 / (1 + np.exp(-(0.6 * w[:, 0] - 0.4 * w[:, 1] + hidden * u)))
    drug = (rng.random(rows) < chance).astype(float)
    y = effect * drug + w @ [1.0, 0.5, 0.3, 0.0] + hidden * u + rng.standard_normal(rows)
    before = w @ [0.5, 0.5, 0.0, 0.0] + hidden * u + rng.standard_normal(rows)
    table = pd.DataFrame(w, columns=CAUSES)
    return table.assign(
        drug=drug, y=y, before=before, group=rng.integers(0, 60, rows), weight=rng.uniform(0.5, 2, rows)
    )


WORLD = world()


def ask(estimator: Any, **machine: Any) -> Any:
    from millrace import compose

    question = {
        "data": WORLD, "treatment": "drug", "outcome": "y", "common_causes": CAUSES, "simulations": 100,
        "negative_outcomes": ["before"], "estimator": estimator,
    }  # fmt: skip
    return compose.carry_out("refute", question, compose.Machine(**machine))


def difference(table: Any) -> tuple[float, float]:
    """A user's own estimator: adjusted by least squares on the first confounder alone."""
    x = np.column_stack([np.ones(len(table)), table["drug"], table["a"]])
    solution, left = np.linalg.lstsq(x, np.asarray(table["y"]), rcond=None)[:2]
    return float(solution[1]), float(np.sqrt(left[0] / len(x) * np.linalg.inv(x.T @ x)[1, 1]))


def ols(**machine: Any) -> Any:
    return ask("ols", **machine)


def aipw(**machine: Any) -> Any:
    return ask("aipw", **machine)


def own(**machine: Any) -> Any:
    return ask(difference, **machine)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("asked", [ols, aipw, own])
def test_law(law: Any, asked: Any, tmp_path: Path) -> None:
    law(asked, tmp_path)


def refuted(table: Any, **more: Any) -> Any:
    given = {"common_causes": CAUSES, "simulations": 100, "engine": "inline", **more}
    return mr.refute(table, "drug", "y", **given)


# -- verdicts --------------------------------------------------------------------------------------------------------
def test_a_right_estimate_proceeds_and_says_so() -> None:
    answer = refuted(world(4000, seed=3), negative_outcomes=["before"])
    assert abs(answer.estimate.effect - 1) < 4 * answer.estimate.se
    assert answer.gate.decision == "proceed", answer.summary()
    assert {t.status for t in answer.tests} == {"passed"}
    assert "says nothing about hidden confounding" in answer.summary()
    low, high = answer.parts[0].interval
    assert low < 1 < high


def test_a_hidden_confounder_is_found_by_the_negative_control_alone() -> None:
    answer = refuted(world(4000, hidden=1.0), negative_outcomes=["before"])
    assert answer.parts[0].test("negative_control").status == "failed"
    assert answer.parts[0].test("bootstrap").status == "passed"
    assert answer.gate.decision == "block"
    assert answer.says_no


def test_without_overlap_the_answer_is_no() -> None:
    table = world(3000)
    table["drug"] = (table["a"] + 0.05 * table["b"] > 0).astype(float)
    answer = refuted(table)
    assert answer.parts[0].test("overlap").status == "failed"
    assert answer.gate.decision == "block"


@pytest.mark.parametrize("estimator", ["ols", "ols_interacted", "ipw", "aipw", "matching"])
def test_a_change_of_units_changes_no_verdict(estimator: str) -> None:
    plain = refuted(WORLD, estimator=estimator)
    other = refuted(WORLD.assign(y=1000 * WORLD["y"] + 5), estimator=estimator)
    assert [t.status for t in plain.tests] == [t.status for t in other.tests]
    assert plain.gate.decision == other.gate.decision
    assert plain.gate.score == pytest.approx(other.gate.score)
    assert other.estimate.effect == pytest.approx(1000 * plain.estimate.effect, rel=1e-6)


# -- the same as the naive way ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("estimator", ["ols", "ols_interacted", "ipw", "aipw", "matching", "dml"])
def test_simulations_are_those_of_real_refits(estimator: str) -> None:
    options = {"trees": 8} if estimator == "dml" else {}
    # Matches jump by float32's last bits, so matching is compared in float64.
    precision, share = ("exact", 0.2) if estimator == "matching" else ("fast", 0.8)
    answer = refuted(WORLD, estimator=estimator, simulations=50, options=options, precision=precision)
    for test, found in answer.parts[0].effects.items():
        for i in (0, 17, 49) if len(found) == 50 else ():
            plain = simulate_plainly(estimator, test, i, WORLD, "drug", "y", CAUSES, fraction=share, options=options)
            assert abs(found[i, 0] - plain) <= 2e-4 * answer.estimate.se, (test, i)


def test_the_first_simulations_are_those_of_a_smaller_run(tmp_path: Path) -> None:
    few, many = refuted(WORLD, simulations=70, store=tmp_path), refuted(WORLD, simulations=200, store=tmp_path)
    for test, found in few.parts[0].effects.items():
        assert len(found) == 70
        assert np.array_equal(found, many.parts[0].effects[test][:70], equal_nan=True)


def test_an_own_estimator_stops_early_and_tells_how_many_ran() -> None:
    answer = refuted(WORLD, estimator=difference, simulations=2000)
    ran = {test: len(found) for test, found in answer.parts[0].effects.items()}
    assert max(ran.values()) < 2000
    assert all(n % 50 == 0 for n in ran.values())
    assert any("certain after" in note for note in answer.notes)


def fails_sometimes(table: Any) -> float:
    if len(table) < 1500:
        raise ValueError("too few rows for me")
    return difference(table)[0]


def test_failed_simulations_are_counted_and_fail_the_test() -> None:
    answer = refuted(WORLD, estimator=fails_sometimes, tests=["placebo", "subset"])
    assert answer.parts[0].test("subset").status == "failed"
    assert answer.parts[0].test("subset").failed_simulations == answer.parts[0].test("subset").simulations
    assert answer.parts[0].test("placebo").status == "passed"
    assert any("too few rows for me" in note for note in answer.notes)


# -- what is asked ---------------------------------------------------------------------------------------------------
def test_several_outcomes_and_labels_are_estimates_with_corrected_p_values() -> None:
    table = WORLD.assign(
        drug=np.where(WORLD["a"] > 1, "high", np.where(WORLD["drug"] > 0, "low", "none")), z=WORLD["y"] + 1
    )
    answer = mr.refute(
        table, "drug", ["y", "z"], common_causes=["b", "c"], reference="none", simulations=50, engine="inline",
        tests=["blocks", "placebo"],
    )  # fmt: skip
    assert [p.label for p in answer.parts] == [
        "y high against none", "z high against none", "y low against none", "z low against none",
    ]  # fmt: skip
    found = answer.parts[0].test("blocks")
    assert found.p_value >= found.details["p_uncorrected"]
    assert len(answer.records) == 8
    assert {r["estimate"] for r in answer.records} == {p.label for p in answer.parts}


def test_a_graph_chooses_what_is_adjusted_for() -> None:
    edges = "digraph { a -> drug; a -> y; drug -> y; drug -> m; m -> y; b -> y }"
    table = WORLD.assign(m=WORLD["drug"] + 0.1)
    answer = mr.refute(table, "drug", "y", graph=edges, simulations=50, tests=["placebo"], engine="inline")
    assert answer.common_causes == ("a",)
    with pytest.raises(WrongQuestion, match="mediator"):
        mr.refute(table, "drug", "y", graph=edges, common_causes=["a", "m"], engine="inline")


def test_missing_values_and_categories_are_named_decisions() -> None:
    table = WORLD.assign(
        site=np.where(np.arange(len(WORLD)) % 3 == 0, "x", np.where(np.arange(len(WORLD)) % 3 == 1, "y", "z"))
    )
    table.loc[:9, "a"] = np.nan
    answer = refuted(table, common_causes=[*CAUSES, "site"])
    assert answer.parts[0].rows == len(table) - 10
    assert any("10 of 1,500 rows have missing values" in note for note in answer.notes)
    kept = refuted(table, common_causes=[*CAUSES, "site"], missing="indicator")
    assert kept.parts[0].rows == len(table)
    assert "a missing" in kept.parts[0].overlap.names
    assert {"site=x", "site=y", "site=z"} & set(kept.parts[0].overlap.names)
    assert set(kept.parts[0].sensitivity.shares) <= {*CAUSES, "site"}


def test_clusters_and_weights_reach_the_estimate() -> None:
    answer = refuted(WORLD, clusters="group", weights="weight")
    assert answer.estimate.how == "cluster"
    assert answer.gate.decision in ("proceed", "review")
    few = refuted(WORLD.assign(group=WORLD["group"] % 8), clusters="group")
    assert any("8 clusters are few" in note for note in few.notes)
    assert any("wild cluster bootstrap" in note for note in few.notes)


def test_a_continuous_treatment_has_no_propensity_and_is_looked_at_all_the_same() -> None:
    rng = np.random.default_rng(0)
    dose = WORLD["a"] * 0.5 + rng.standard_normal(len(WORLD))
    answer = refuted(WORLD.assign(drug=dose, y=dose + WORLD["a"] + rng.standard_normal(len(WORLD))))
    assert answer.parts[0].treated is None
    assert answer.parts[0].overlap.kind == "correlation"
    assert np.abs(answer.parts[0].overlap.after).max() < np.abs(answer.parts[0].overlap.before).max()


def test_tables_of_every_library_give_one_answer() -> None:
    plain = refuted(WORLD).digest
    assert refuted(pa.Table.from_pandas(WORLD, preserve_index=False)).digest == plain


def test_everything_asked_for_is_there(tmp_path: Path) -> None:
    tests = ["placebo", "random_common_cause", "subset", "bootstrap", "blocks", "overlap", "sensitivity", "negative_control",
             "estimators", "specification"]  # fmt: skip
    answer = refuted(WORLD, tests=tests, negative_outcomes=["before"], out=tmp_path / "out")
    assert [t.name for t in answer.tests] == tests
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "report.html",
        "result.json",
        "tests.parquet",
        "simulations.parquet",
        "balance.parquet",
        "contour.png",
    } <= made
    assert set(answer.charts()) >= {
        "tests",
        "placebo",
        "contour",
        "tipping_point",
        "balance",
        "overlap",
        "specifications",
    }
    classic = refuted(WORLD, gate="classic")
    assert "e_value" in {t.name for t in classic.tests}


# -- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        ({}, {"common_causes": ["a", "y"]}, "is the outcome"),
        ({}, {"common_causes": ["a", "ageing"]}, "no column 'ageing'"),
        ({"drug": 1.0}, {}, "same in all rows"),
        ({"y": 2.0}, {}, "same in all"),
        ({"y": np.inf}, {}, "infinite"),
        ({}, {"common_causes": None}, "common_causes"),
        ({"weight": -1.0}, {"weights": "weight"}, "below 0"),
        ({}, {"limit": 6}, "too few"),
        ({}, {"tests": ["placebo", "magic"]}, "no test 'magic'"),
        ({}, {"estimator": "magic"}, "no estimator 'magic'"),
        ({}, {"thresholds": {"smd_pas": 0.1}}, "smd_pass"),
        ({}, {"reference": "7"}, "no value '7'"),
        ({"a": np.nan}, {}, "'a' is missing in all of them"),
        ({"group": 1}, {"clusters": "group"}, "one cluster of 'group'"),
        ({}, {"estimator": lambda table: "much"}, "gave 'much'"),
    ],
)
def test_bad_input_is_one_clear_paragraph(change: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongQuestion) as told:
        refuted(WORLD.assign(**change), **more)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("estimator", "more", "said"),
    [
        ("ipw", {}, "binary treatment"),
        ("matching", {}, "binary treatment"),
        ("dml", {"target": "att"}, "partially linear"),
        ("ols", {"effect_modifiers": ["d"]}, "effect modifiers"),
    ],
)
def test_what_an_estimator_cannot_do_is_said_before_the_work(estimator: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongQuestion, match=said):
        refuted(WORLD.assign(drug=WORLD["a"]), common_causes=["b", "c"], estimator=estimator, **more)


def test_separated_arms_are_named_by_the_estimators_that_need_overlap() -> None:
    table = WORLD.assign(drug=(WORLD["a"] > 0).astype(float))
    with pytest.raises(WrongQuestion, match="`a`"):
        refuted(table, estimator="ipw", tests=["placebo"])
    assert refuted(table, tests=["overlap"]).parts[0].test("overlap").status == "failed"


def test_a_placebo_centres_on_0_where_treatments_differ_between_clusters_and_strata() -> None:
    rng = np.random.default_rng(5)
    level = rng.standard_normal(60)
    drug = (rng.random(len(WORLD)) < 1 / (1 + np.exp(-2 * level[WORLD["group"]]))).astype(float)
    table = WORLD.assign(
        drug=drug, y=3 * drug + WORLD["a"] + rng.standard_normal(len(WORLD)), stratum=WORLD["group"] % 6
    )
    for more in ({"clusters": "group"}, {"strata": "stratum"}):
        found = refuted(table, tests=["placebo"], simulations=400, **more).parts[0].test("placebo")
        assert found.status in ("passed", "warning"), found.sentence
        assert abs(found.details["mean"]) < 0.5 * found.details["sd"]


def test_a_control_that_is_adjusted_for_is_refused() -> None:
    with pytest.raises(WrongQuestion, match="negative control"):
        refuted(WORLD, negative_outcomes=["a"])


def test_collinear_columns_are_left_out_and_named() -> None:
    answer = refuted(WORLD.assign(double=2 * WORLD["a"]), common_causes=[*CAUSES, "double"])
    assert any("double" in note for note in answer.notes)
    assert answer.gate.decision == "proceed"


def test_other_estimators_are_asked_on_the_same_rows_and_say_where_they_cannot() -> None:
    found = refuted(WORLD, tests=["estimators"], estimator=difference).parts[0].test("estimators")
    assert [row["estimator"] for row in found.details["estimators"]] == ["ols", "aipw", "dml"]
    assert found.status == "failed"  # one confounder is not enough
    assert refuted(WORLD, tests=["estimators"], estimator="matching").parts[0].test("estimators").status == "passed"
    apart = WORLD.assign(a=np.where(WORLD["drug"] > 0, 1.0, -1.0) + 0.1 * WORLD["a"])
    answer = refuted(apart, tests=["estimators"])
    assert [row["estimator"] for row in answer.parts[0].test("estimators").details["estimators"]] == ["dml"]
    assert any("aipw is not among the estimators compared: Treated and untreated" in note for note in answer.notes)
    of_treated = refuted(WORLD, tests=["estimators"], target="att", estimator="aipw")
    assert any("one effect for everybody" in note for note in of_treated.notes)


def test_matching_says_how_much_hidden_bias_its_pairs_bear() -> None:
    found = refuted(WORLD, tests=["sensitivity"], estimator="matching").parts[0].test("sensitivity")
    assert found.details["gamma"] > 1.5
    assert "hidden bias that changes the odds of treatment" in found.sentence
    assert "gamma" not in refuted(WORLD, tests=["sensitivity"]).parts[0].test("sensitivity").details


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [(1e90, 0.0, "in another unit"), (1e-30, 0.0, "in another unit"), (1e-3, 1e12, "from rounding")],
)
def test_values_that_cannot_be_computed_with_are_refused(scale: float, shift: float, said: str) -> None:
    with pytest.raises(WrongQuestion, match=said):
        refuted(WORLD.assign(y=WORLD["y"] * scale + shift))


def test_what_alone_decides_the_answer_is_said() -> None:
    answer = refuted(WORLD.assign(y=WORLD["y"].where(WORLD.index != 5, 1e9)), tests=["placebo"])
    assert any("value of 1e+09" in note for note in answer.notes)
    notes = refuted(WORLD.assign(group=WORLD["group"] % 9), clusters="group", estimator="aipw", tests=["placebo"]).notes
    assert any("adds a wild cluster bootstrap" in note for note in notes)
    assert any("one effect for everybody" in note for note in refuted(WORLD, target="att", tests=["placebo"]).notes)


@pytest.mark.parametrize("scale", [1e-11, 1e13])
def test_values_near_the_edge_are_computed_right(scale: float) -> None:
    for estimator in ("ols", "aipw", "matching"):
        plain = refuted(WORLD, estimator=estimator)
        scaled = refuted(WORLD.assign(y=WORLD["y"] * scale), estimator=estimator)
        assert [t.status for t in scaled.tests] == [t.status for t in plain.tests]
        assert scaled.estimate.se == pytest.approx(plain.estimate.se * scale, rel=1e-6)
        for test, effects in plain.parts[0].effects.items():
            np.testing.assert_allclose(
                scaled.parts[0].effects[test][:, 0] / scale, effects[:, 0], atol=0.05 * plain.estimate.se
            )
