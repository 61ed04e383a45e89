"""A plan of twin says what a question takes: it grows with the question, and many twins take no more memory than some."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import millrace as mr
from millrace.analyses.twin.facts import facts_of_fit, facts_of_generate
from millrace.analyses.twin.plan import FitFacts, GenerateFacts, block_rows, plan_fit, plan_generate
from millrace.analyses.twin.spec import Fit, Generate
from millrace.run.budget import Budget
from millrace.run.errors import DoesNotFit

AMPLE = Budget(2, 1 << 40)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(200, 5_000_000), columns=st.integers(1, 300), more=st.integers(2, 4))
def test_more_rows_or_columns_never_take_less(rows, columns, more):
    small = plan_fit(FitFacts(rows, columns, 8 * columns, 20, True), AMPLE)
    for n, d in ((rows * more, columns), (rows, columns * more)):
        large = plan_fit(FitFacts(n, d, 8 * d, 20, True), AMPLE)
        assert large.worker_bytes >= small.worker_bytes
        assert large.driver_bytes > small.driver_bytes
        assert large.core_s > small.core_s


@settings(max_examples=60, deadline=None)
@given(columns=st.integers(1, 2_000))
def test_blocks_are_powers_of_two_by_the_columns_alone(columns):
    rows = block_rows(columns)
    assert rows & (rows - 1) == 0
    assert 1_024 <= rows <= 65_536
    few, many = (plan_generate(GenerateFacts(n, columns, 1 << 20), AMPLE) for n in (rows, 1_000 * rows))
    assert (few.tasks, many.tasks) == (1, 1_000)
    assert few.worker_bytes == many.worker_bytes
    assert few.driver_bytes == many.driver_bytes


def test_a_million_rows_of_a_hundred_columns_fit_the_memory_that_is_promised():
    budget = Budget(2, int(1.6 * 2**30))
    assert plan_fit(FitFacts(1_000_000, 100, 400, 20, True), budget).slots == 2
    assert plan_generate(GenerateFacts(10_000_000, 100, 400 << 20), budget).slots == 2


def test_a_budget_that_is_too_small_is_told_before_the_work(table):
    with pytest.raises(DoesNotFit, match="Give --memory"):
        mr.twin.fit(table, drop=["id"], memory="40MiB", engine="processes")


def test_facts_are_read_from_headers(table, tmp_path, model):
    parquet.write_table(table, tmp_path / "t.parquet")
    found = facts_of_fit(Fit(data=tmp_path / "t.parquet", drop=("id",)))
    assert (found.rows, found.columns) == (3_000, 11)
    assert facts_of_generate(Generate(model=model, n=5)).columns == 12


def test_python_is_told_the_same_plan(table, model):
    assert mr.plan.twin_fit(table, drop=["id"]).plan.tasks == 2 * 11 + 1 + 1
    assert mr.plan.twin_generate(model, 1_000_000).plan.tasks == -(-1_000_000 // block_rows(12))


def test_outcome_and_effects_are_part_of_the_plan_and_a_slow_learner_is_named():
    facts = FitFacts(1_000_000, 100, 800, 20, False)
    alone = plan_fit(facts, AMPLE)
    outcome = plan_fit(replace(facts, learner="lightgbm"), AMPLE)
    both = plan_fit(replace(facts, learner="lightgbm", effects=True), AMPLE)
    forest = plan_fit(replace(facts, learner="random_forest"), AMPLE)
    assert alone.core_s < outcome.core_s < both.core_s < forest.core_s
    assert (outcome.tasks - alone.tasks, both.tasks - outcome.tasks) == (6, 39)
    assert outcome.driver_bytes > alone.driver_bytes
    assert forest.core_s > 3 * 3600
    (told,) = (reason for reason in forest.why if "core-hours" in reason)
    assert "learner='lightgbm_forest'" in told and "learner='lightgbm'" in told
    own = plan_fit(replace(facts, learner="lightgbm_forest"), AMPLE)
    assert outcome.core_s < own.core_s < forest.core_s / 3
    with pytest.raises(
        DoesNotFit, match="learner='lightgbm_forest'"
    ):  # six forests of a million rows are tens of gigabytes; LightGBM's are not
        plan_fit(replace(facts, learner="random_forest"), Budget(2, 16 << 30))
    assert plan_fit(replace(facts, learner="lightgbm_forest"), Budget(2, 16 << 30)).slots == 2
    assert not any("core-hours" in reason for reason in outcome.why)


@pytest.mark.slow
def test_a_fit_with_outcome_holds_what_was_planned_at_most(tmp_path):
    rng = numpy.random.default_rng(0)
    X = rng.normal(size=(60_000, 20))
    y = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=60_000)
    t = (rng.random(60_000) < 0.5).astype(float)
    parquet.write_table(
        pyarrow.table({f"x{j}": X[:, j] for j in range(20)} | {"t": t, "y": y + t}), tmp_path / "t.parquet"
    )
    asked = {"outcome": "y", "treatment": "t", "folds": 2, "joint": "plain", "find": False}
    made = plan_fit(facts_of_fit(Fit(data=tmp_path / "t.parquet", **asked)), AMPLE)
    model = mr.twin.fit(tmp_path / "t.parquet", **asked, engine="processes", cores=2)
    held = model.report.accounting.as_dict()["memory"]["at_most_bytes"]
    assert held <= made.peak_bytes <= 2 * held
