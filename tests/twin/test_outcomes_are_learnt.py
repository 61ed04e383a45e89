"""Outcome models: how good they say they are, what their intervals hold, how they are kept, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, r2_score, roc_auc_score

import millrace as mr
from millrace.analyses.twin import features, outcome, outcome_measures, plan
from millrace.analyses.twin.kernels import learners
from millrace.run.errors import NotSupported, WrongQuestion

QUICK = {"trees": 30, "rate": 0.15}


def people(n: int = 1_500, seed: int = 0) -> pa.Table:
    """Numbers, text, a date, missing values; an outcome whose spread grows, and one of two labels."""
    rng = np.random.default_rng(seed)
    age, income = rng.integers(18, 90, n), np.exp(rng.normal(10, 0.5, n))
    region = rng.choice(["east", "west", "north"], n)
    spend = 2 + 0.05 * age + 2 * (region == "west") + rng.normal(size=n) * (0.3 + 0.03 * age)
    buys = rng.random(n) < 1 / (1 + np.exp(-(spend - 5)))
    frame = pandas.DataFrame({
        "age": age, "income": np.where(rng.random(n) < 0.1, np.nan, income), "region": region,
        "since": pandas.Timestamp("2024-01-01") + pandas.to_timedelta(rng.integers(0, 500, n), unit="D"),
        "spend": spend, "buys": np.where(buys, "yes", "no"), "always": 1,
    })  # fmt: skip
    return pa.Table.from_pandas(frame, preserve_index=False)


def fitted(table: pa.Table, name: str, **more: Any) -> outcome.OutcomeModel:
    with mr.Run(engine="inline") as run:
        return outcome.fit_outcome(run, table, name, **{"folds": 3, "options": QUICK, **more})


@pytest.fixture(scope="module")
def spend() -> outcome.OutcomeModel:
    return fitted(people().drop_columns("buys"), "spend")


# -- what it says of itself --------------------------------------------------------------------------------------------
def test_intervals_hold_new_rows_as_often_as_they_say(spend: outcome.OutcomeModel) -> None:
    new = people(4_000, 1)
    low, high = spend.intervals(new)
    y = np.asarray(new["spend"])
    assert abs(((y >= low) & (y <= high)).mean() - 0.9) < 0.02
    assert abs(spend.conformal.measured - 0.9) < 0.02
    wide = high - low
    old = np.asarray(new["age"]) > 70
    assert wide[old].mean() > 1.1 * wide[~old].mean()  # as wide as the outcome is spread


def test_what_it_scores_holds_on_new_rows(spend: outcome.OutcomeModel) -> None:
    new = people(4_000, 1)
    assert spend.scores["r2"] == pytest.approx(r2_score(new["spend"], spend.predict(new)), abs=0.06)


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 400).astype(float), np.round(rng.random(400), 2)
    found = outcome_measures.scores(y, p, "binary")
    assert found["auc"] == pytest.approx(roc_auc_score(y, p))
    assert found["log_loss"] == pytest.approx(log_loss(y, np.clip(p, 1e-15, 1 - 1e-15)))
    assert outcome_measures.scores(p, y, "number")["r2"] == pytest.approx(r2_score(p, y))


def test_two_labels_have_sets() -> None:
    model = fitted(people().drop_columns("spend"), "buys")
    new = people(4_000, 1)
    assert model.labels == ("no", "yes") and model.scores["auc"] > 0.6
    sets, said = model.sets(new), np.asarray(new["buys"]) == "yes"
    assert abs(sets[np.arange(4_000), said.astype(int)].mean() - 0.9) < 0.025
    with pytest.raises(NotSupported, match="sets"):
        model.intervals(new)


def test_few_rows_have_wider_intervals_and_it_is_said() -> None:
    model = fitted(people(300).drop_columns("buys"), "spend")
    assert model.conformal.widened > 1.02
    assert any("Only 300 rows" in note and "widened" in note for note in model.notes)
    held = []
    for seed in range(12):
        few = fitted(
            people(250, 50 + seed).select(["age", "region", "spend"]), "spend", options={"trees": 10, "rate": 0.2}
        )
        new = people(2_000, 100 + seed)
        low, high = few.intervals(new)
        held.append(((np.asarray(new["spend"]) >= low) & (np.asarray(new["spend"]) <= high)).mean())
    assert np.mean(np.asarray(held) >= 0.88) >= 0.8  # each holds what it says, not only their mean


def test_rows_without_the_outcome_are_left_out_and_counted() -> None:
    table = people(1_200).drop_columns("buys")
    y = np.where(np.arange(1_200) % 4 == 0, np.nan, np.asarray(table["spend"]))
    table = table.set_column(table.column_names.index("spend"), "spend", pa.array(y, from_pandas=True))
    model = fitted(table, "spend")
    assert model.rows == 900 and any("300 rows without spend" in note for note in model.notes)
    assert model.encoding.left_out == {"always": "the same in all rows"}


# -- learners, and how they are kept -----------------------------------------------------------------------------------
@pytest.mark.parametrize("learner", learners.NAMES)
@pytest.mark.parametrize("name", ["spend", "buys"])
def test_every_learner_is_kept_without_code_and_says_the_same_again(learner: str, name: str, tmp_path: Path) -> None:
    table = people(400).drop_columns("buys" if name == "spend" else "spend")
    model = fitted(table, name, learner=learner, folds=2, options={"trees": 12, "rate": 0.2})
    model.save(tmp_path)
    again = outcome.load(tmp_path)
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    np.testing.assert_array_equal(
        again.predict_matrix(again.matrix(table), 1), model.predict_matrix(model.matrix(table), 1)
    )
    assert again.digest == model.digest and again.describe() == model.describe()
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".pkl", ".joblib")]
    assert model.scores["r2" if name == "spend" else "auc"] > (0.15 if name == "spend" else 0.6)


@pytest.mark.parametrize(("estimator", "name"), [(Ridge(), "spend"), (LogisticRegression(max_iter=2_000), "buys")])
def test_an_estimator_object_works_in_memory_and_is_refused_on_disk(estimator: Any, name: str, tmp_path: Path) -> None:
    model = fitted(people(400).select(["age", "spend" if name == "spend" else "buys"]), name, learner=estimator)
    assert not hasattr(estimator, "coef_")  # the user's own stays as it was
    assert len(model.predict(people(400))) == 400
    with pytest.raises(NotSupported, match=f"{type(estimator).__name__}.*lightgbm"):
        model.save(tmp_path)


def test_a_saved_forest_with_something_else_in_it_is_not_read() -> None:
    import skops.io

    with pytest.raises(WrongQuestion, match="no forest of millrace"):
        learners.reader("random_forest", "number", skops.io.dumps(people))


def test_folders_that_are_no_models_are_said(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="not a whole outcome model"):
        outcome.load(tmp_path)


def test_every_engine_learns_the_same() -> None:
    table, found = people(500).drop_columns("buys"), []
    for engine, cores in (("inline", 1), ("processes", 2)):
        with mr.Run(engine=engine, cores=cores) as run:
            found.append(outcome.fit_outcome(run, table, "spend", folds=2, options=QUICK).digest)
    assert found[0] == found[1]


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        (np.ones(400), WrongQuestion, "single value"),
        (["a"] * 400, WrongQuestion, "single value"),
        (["a", "b", "c", "d"] * 100, NotSupported, "4 labels"),
        (np.full(400, np.nan), WrongQuestion, "no value"),
        (np.where(np.arange(400) < 250, np.nan, np.arange(400.0)), WrongQuestion, "more than half"),
        (np.where(np.arange(400) == 5, np.inf, np.arange(400.0)), WrongQuestion, "infinite"),
    ],
)
def test_an_outcome_that_cannot_be_learnt_is_said(values: Any, kind: type[Exception], says: str) -> None:
    table = people(400).append_column("y", pa.array(values, from_pandas=True))
    with pytest.raises(kind, match=says):
        fitted(table, "y")


def test_wrong_questions_are_said_before_any_work() -> None:
    table = people(400)
    for more, name, says in (
        ({}, "spent", "no column 'spent'"),
        ({"learner": "oracle"}, "spend", "there are lightgbm"),
        ({"options": {"trunks": 3}}, "spend", "no option 'trunks'"),
        ({"learner": object()}, "spend", "needs fit"),
    ):
        with pytest.raises(Exception, match=says):
            fitted(table, name, **more)
    with pytest.raises(WrongQuestion, match="199 rows"):
        fitted(table.slice(0, 199), "spend")


def test_what_a_model_has_not_seen_is_said(spend: outcome.OutcomeModel) -> None:
    table = people(50)
    odd = table.set_column(table.column_names.index("region"), "region", pa.array(["south"] * 50))
    with pytest.raises(WrongQuestion, match="'south'.*It knows 'east', 'north', 'west'"):
        spend.predict(odd)
    with pytest.raises(WrongQuestion, match="no column 'age'"):
        spend.predict(table.drop_columns("age"))
    texts = table.set_column(0, "age", pa.array(["old"] * 50))
    with pytest.raises(WrongQuestion, match="holds text"):
        spend.predict(texts)


def test_tables_of_every_kind_are_read_and_left_as_they_are() -> None:
    frame = people(50).to_pandas()
    before = frame.copy()
    found = features.as_table(frame)
    assert found.column_names == list(frame.columns)
    pandas.testing.assert_frame_equal(frame, before)
    assert features.as_table({"a": [1, 2]}).num_rows == 2
    with pytest.raises(WrongQuestion, match="mixed"):
        features.as_table(pandas.DataFrame({"a": [1, "x"]}))
    with pytest.raises(WrongQuestion, match="more than one column"):
        features.as_table(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_column_of_names_is_left_out() -> None:
    table = people(1_300).append_column("id", pa.array([f"p{i}" for i in range(1_300)]))
    assert "1,300 labels" in features.learn(table, ["id", "age"]).left_out["id"]


def test_long_forests_are_said_beforehand() -> None:
    assert plan.size_notes("random_forest", 1_000, 10, 100, 5) == []
    (said,) = plan.size_notes("random_forest", 1_000_000, 100, 500, 5)
    assert "core-hours" in said and "lightgbm_forest" in said


def test_trees_of_a_large_table_see_a_part_of_it_and_predict_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    table = people(4_000).select(["age", "region", "spend"])
    whole = fitted(table, "spend", folds=2)
    assert whole.notes == () and "[bagging_fraction: 1]" in whole.trained
    monkeypatch.setattr(plan, "LARGE_VALUES", 3_000)
    parts, again = (fitted(table, "spend", folds=2) for _ in range(2))
    assert "[bagging_fraction: 0.375]" in parts.trained
    assert parts.digest == again.digest
    assert any("38% of the rows" in note for note in parts.notes)
    assert parts.scores["r2"] > whole.scores["r2"] - 0.01


def test_lightgbms_own_forest_is_as_good_as_scikit_learns() -> None:
    """The same rows by both: within a hundredth or two of each other, and a probability where the outcome has two values."""
    for name, score, other in (("spend", "r2", "buys"), ("buys", "auc", "spend")):
        table = people(3_000).drop_columns(other)
        own, theirs = (
            fitted(table, name, learner=which, folds=2, options={"trees": 60})
            for which in ("lightgbm_forest", "random_forest")
        )
        assert own.scores[score] > theirs.scores[score] - 0.02
        if name == "buys":
            p, said = own.predict(people(3_000, 1)), np.asarray(people(3_000, 1)["buys"]) == "yes"
            assert ((p >= 0) & (p <= 1)).all() and p.mean() == pytest.approx(said.mean(), abs=0.03)
            assert said[p > 0.7].mean() > 0.65


def test_a_forest_of_lightgbms_is_handed_to_explain() -> None:
    table = people(600).select(["age", "region", "spend"])
    made = mr.twin.fit(table, outcome="spend", learner="lightgbm_forest", folds=2, joint="plain", engine="inline")
    found = mr.twin.explain(made, table.slice(0, 60), engine="inline")
    told = made.outcome.predict(table.slice(0, 60))
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base_values, told, atol=1e-9)
