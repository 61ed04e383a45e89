"""A plan is as good as what past runs taught: within 2 after one, within 1.3 after five, in processor time."""

from __future__ import annotations

import chores
import numpy as np
import pytest

import millrace as mr
from millrace import compose, forecast, lessons
from millrace.diagnose.forecast import Lesson, corrected, money, weighted_median
from millrace.run.budget import Plan

PLAN = Plan("explain", "trees", 40, 256, 2, 1, 1, 0, 0, 10.0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user of this host who has never run anything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MILLRACE_STORE", raising=False)
    return tmp_path


def taught(planned: float, cpu: float, fixed: float = 1.0, slots: int = 2, **more) -> Lesson:
    return Lesson(
        "explain", "trees", planned, cpu, cpu * 1.1, fixed + cpu * 1.1 / slots, fixed, slots, 40, 0, 0, **more
    )


def test_without_a_run_the_constants_are_scaled_by_the_speed_of_a_core():
    assert corrected(PLAN, [], 0.5).core_s == 20
    assert corrected(PLAN, [], 2.0).wall_s == 2.5
    assert "no run of this kind here yet" in corrected(PLAN, []).why[-1]


def test_runs_teach_core_seconds_waiting_and_what_is_beside_tasks():
    made = corrected(PLAN, [taught(10, 30)])
    assert made.core_s == 30 and made.wall_s == pytest.approx(1 + 1.1 * 30 / 2)
    assert "learnt from 1 run " in made.why[-1]
    assert money(made, 0.08) == pytest.approx(2 * made.wall_s / 3600 * 0.08)


def test_lessons_near_in_size_and_time_count_most():
    small, large = taught(0.1, 1.0), taught(10, 20)
    assert corrected(PLAN, [small, small, large]).core_s == 20
    assert corrected(PLAN, [taught(10, 50), *[taught(10, 20)] * 3]).core_s == 20
    assert weighted_median([1, 2, 3], [1, 1, 1]) == 2
    assert weighted_median([1, 2], [1, 1]) == 1.5


def test_small_questions_have_the_slots_that_they_had():
    one = taught(10, 10, slots=1)
    assert corrected(PLAN, [one]).wall_s == pytest.approx(1 + 11)


def measured(run: int, count: int) -> float:
    """Core-seconds of a real run of `burn` on items that nobody had yet."""
    items = range(1000 * run, 1000 * run + count)
    answer = compose.map_function(chores.burn, items, compose.Machine(engine="processes", cores=2))
    return sum(f.cpu_s for f in answer.report.accounting.tasks)


def test_a_function_is_foretold_within_2_after_one_run_and_within_1_3_after_five():
    folder = lessons.place(compose.load_settings({}).cache)

    def foretold(count: int) -> float:
        plan = Plan("run", "", count, 1, 2, 0, 0, 0, 0, float(count))
        return corrected(plan, lessons.lessons(folder, "run", lessons.method_of(chores.burn))).core_s

    measured(0, 10)
    assert foretold(25) == pytest.approx(measured(1, 25), rel=1.0)
    for run in (2, 3, 4):
        measured(run, 10)
    real = measured(5, 30)
    assert 1 / 1.3 < foretold(30) / real < 1.3


def test_an_analysis_is_foretold_by_its_last_run_and_knows_what_is_in_the_store(home, monkeypatch):
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    table = rng.normal(size=(3000, 8))
    model = lightgbm.LGBMRegressor(n_estimators=120, num_leaves=31, n_jobs=1, verbose=-1).fit(
        table, table[:, 0] * table[:, 1]
    )
    model.booster_.save_model(home / "model.txt")
    np.save(home / "rows.npy", table)
    question = {"model": str(home / "model.txt"), "data": str(home / "rows.npy")}
    machine = compose.Machine(engine="inline", store=home / "store")
    first = forecast.forecast("explain", question, machine)
    assert first.in_store == 0 and first.runs == 0 and first.example
    answer = compose.carry_out("explain", question, machine)
    cpu_s = sum(f.cpu_s for f in answer.report.accounting.tasks)
    again = forecast.forecast("explain", question, machine)
    assert again.runs == 1 and again.in_store == sum(answer.report.accounting.outcomes.values())
    assert again.plan.core_s == pytest.approx(cpu_s, rel=0.01)
    compose.carry_out("explain", question, machine)  # all from the store: it teaches nothing
    assert forecast.forecast("explain", question, machine).runs == 1
    elsewhere = compose.Machine(engine="inline", store=home / "empty")
    assert forecast.forecast("explain", question, elsewhere).in_store == 0
    assert forecast.forecast("explain", question | {"data": table}, machine).in_store is None
    assert mr.plan.explain(model, table).core_s == pytest.approx(cpu_s, rel=0.2)
    monkeypatch.setenv("MILLRACE_CORE_HOUR_PRICE", "2.5")
    priced = forecast.forecast("explain", question, machine)
    assert priced.price == 2.5 and not priced.example


def test_lessons_that_cannot_be_kept_or_read_cost_nothing(tmp_path):
    lessons.learn(tmp_path / "file" / "x", taught(1, 1))
    (tmp_path / "plain").write_text("")
    lessons.learn(tmp_path / "plain" / "x", taught(1, 1))
    assert len(lessons.lessons(tmp_path / "file" / "x", "explain", "trees")) == 1
    with (tmp_path / "file" / "x" / "lessons.jsonl").open("a") as file:
        file.write('{"analysis": "explain"}\nnonsense\n[1]\n{"torn')
    assert len(lessons.lessons(tmp_path / "file" / "x", "explain")) == 1
    assert lessons.lessons(tmp_path / "nowhere", "explain") == []


def test_the_file_of_lessons_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "MOST_BYTES", 20_000)
    for run in range(400):
        lessons.learn(tmp_path, taught(1.0, float(run)))
    kept = lessons.lessons(tmp_path, "explain")
    assert kept[-1].cpu_s == 399 and len(kept) < 350


def test_the_speed_of_a_core_is_measured_once(tmp_path):
    first = lessons.speed(tmp_path)
    assert first["index"] > 0 and lessons.speed(tmp_path) == first
