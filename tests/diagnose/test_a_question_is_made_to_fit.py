"""--fit takes the largest question that fits the memory and the deadline, says so, and never acts unasked."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow
import pytest

import millrace as mr
from millrace import compose
from millrace.fitting import fitted
from millrace.forecast import forecast
from millrace.run.errors import DoesNotFit
from millrace.run.units import parse_duration

ROWS = 40_000


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sklearn = pytest.importorskip("sklearn.linear_model")
    joblib = pytest.importorskip("joblib")
    rng = np.random.default_rng(0)
    table = rng.normal(size=(ROWS, 30))
    joblib.dump(sklearn.LinearRegression().fit(table, table[:, 0]), tmp_path / "model.joblib")
    np.save(tmp_path / "rows.npy", table)
    return tmp_path


def half_way(question: dict[str, object]) -> int:
    """Bytes that carry a part of the rows: between what few of them need and what all do."""
    told = []
    for rows in (1_000, ROWS):
        with pytest.raises(DoesNotFit) as failed:
            forecast("explain", {**question, "limit": rows}, compose.Machine(memory="1MiB"))
        told.append(failed.value.needs_bytes)
    assert told[0] < told[1]
    return sum(told) // 2


def test_what_fits_is_left_alone(desk):
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    assert fitted("explain", question, compose.Machine(memory="4GiB")) == (question, ())


def test_rows_are_as_many_as_fit_the_memory(desk):
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    machine = compose.Machine(memory=half_way(question))
    with pytest.raises(DoesNotFit):
        forecast("explain", question, machine)
    asked, (said,) = fitted("explain", question, machine)
    assert 0 < asked["limit"] < ROWS and f"{ROWS:,} rows do not fit" in said
    forecast("explain", asked, machine)
    with pytest.raises(DoesNotFit):
        forecast("explain", {**asked, "limit": int(asked["limit"] * 1.03) + 2}, machine)
    with pytest.raises(DoesNotFit, match="explain does not fit"):
        fitted("explain", question, compose.Machine(memory="8MiB"))


def test_background_rows_are_made_fewer_before_rows_and_only_those_that_were_not_given(desk):
    svm, joblib = pytest.importorskip("sklearn.svm"), pytest.importorskip("joblib")
    table = np.load(desk / "rows.npy")[:60, :5]
    joblib.dump(svm.SVR().fit(table, table[:, 0]), desk / "svm.joblib")
    np.save(desk / "few.npy", np.load(desk / "rows.npy")[:, :5])
    question = {"model": str(desk / "svm.joblib"), "data": str(desk / "few.npy"), "limit": 400}
    auto = {**question, "background": "auto"}
    whole = forecast("explain", auto, compose.Machine(cores=1)).plan.wall_s
    machine = compose.Machine(cores=1, deadline=f"{0.5 * whole:.4f}s")
    asked, (said,) = fitted("explain", auto, machine)
    assert 20 <= asked["background_rows"] < 100 and asked["limit"] == 400 and "100 background rows do not fit" in said
    assert forecast("explain", asked, machine).plan.wall_s <= parse_duration(machine.deadline)
    given, (said,) = fitted("explain", {**question, "background": table}, machine)
    assert "background_rows" not in given and "400 rows do not fit" in said


def test_simulations_are_as_many_as_fit_the_deadline(desk):
    rng = np.random.default_rng(1)
    rows = {"w": rng.normal(size=20_000), "t": rng.integers(0, 2, 20_000), "y": rng.normal(size=20_000)}
    question = {
        "data": pyarrow.table(rows),
        "treatment": "t",
        "outcome": "y",
        "common_causes": "w",
        "simulations": 100_000,
    }
    whole = forecast("refute", question, compose.Machine(cores=1)).plan.wall_s
    machine = compose.Machine(cores=1, deadline=f"{whole / 3:.3f}s")
    asked, (said,) = fitted("refute", question, machine)
    assert 20 <= asked["simulations"] < 60_000 and "100,000 simulations do not fit" in said
    assert forecast("refute", asked, machine).plan.wall_s <= parse_duration(machine.deadline)
    with pytest.raises(DoesNotFit, match="smallest question"):
        fitted("refute", question, compose.Machine(cores=1, deadline="1ms"))


def test_the_command_says_so_in_the_answer_and_never_by_itself(desk):
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    command = [sys.executable, "-m", "millrace", "explain", "--model", "model.joblib", "--data", "rows.npy",
               "--memory", str(half_way(question)), "--json"]  # fmt: skip
    plain = subprocess.run(command, cwd=desk, capture_output=True, text=True, timeout=300, check=False)
    assert plain.returncode == 3 and "does not fit" in plain.stderr
    done = subprocess.run([*command, "--fit"], cwd=desk, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert any("rows do not fit" in note and "--fit" in note for note in told["notes"])


def test_python_fits_alike_and_says_so(desk):
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    memory = half_way(question)
    with pytest.raises(DoesNotFit):
        mr.explain(question["model"], question["data"], memory=memory)
    answer = mr.explain(question["model"], question["data"], memory=memory, fit=True)
    (said,) = [note for note in answer.notes if "rows do not fit" in note]
    assert "as fit=True allows" in said and len(answer.values) < ROWS
    assert len(answer.values) == fitted("explain", question, compose.Machine(memory=memory))[0]["limit"]
    whole = mr.explain(question["model"], question["data"], memory="4GiB", fit=True)
    assert len(whole.values) == ROWS and not any("do not fit" in note for note in whole.notes)


def test_an_open_run_is_fitted_to_its_own_budget(desk):
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    with mr.Run(engine="inline", memory=half_way(question) - (100 << 20)) as run:
        answer = mr.explain(question["model"], question["data"], fit=True, run=run)
    assert len(answer.values) < ROWS and any("as fit=True allows" in note for note in answer.notes)


def simulate(params: dict[str, float], seed: int) -> dict[str, list[float]]:
    return {"y": [params["a"] + np.random.default_rng(seed).normal()]}


def test_simulations_of_a_study_are_made_fewer_but_never_fewer_than_a_study_has(desk):
    question = {
        "simulate": simulate,
        "parameters": {"a": (0, 2)},
        "targets": {"y": {"data": [1.0]}},
        "finish": 2,
        "fresh": 5,
    }
    whole = forecast("calibrate", question, compose.Machine(cores=2)).plan
    machine = compose.Machine(cores=2, deadline=whole.wall_s / 3)
    asked, (said,) = fitted("calibrate", question, machine)
    assert 10 < asked["simulations"] < whole.tasks / 2 and f"{whole.tasks:,} simulations do not fit" in said
    with pytest.raises(DoesNotFit, match="smallest question"):
        fitted("calibrate", question, compose.Machine(cores=2, deadline="2s"))
    answer = mr.calibrate(**question, engine="inline", deadline="60s", fit=True)  # taken for a second each: 15 at least
    assert len(answer.table["trial"]) >= 1 and any("as fit=True allows" in note for note in answer.notes)


def test_candidates_are_made_fewer(desk):
    programs = [f"def f(x):\n    return x + {n}\n" for n in range(20_000)]
    (desk / "cases.jsonl").write_text('{"input": 1, "expected": 3}\n')
    question = {"candidates": programs, "cases": str(desk / "cases.jsonl")}
    whole = forecast("validate", question, compose.Machine(cores=1)).plan.wall_s
    asked, (said,) = fitted("validate", question, compose.Machine(cores=1, deadline=whole / 2))
    assert 9_000 < asked["limit"] < 11_000 and "20,000 candidates do not fit" in said
    unknown = {**question, "candidates": iter(programs)}
    with pytest.raises(DoesNotFit, match="smallest question"):
        fitted("validate", unknown, compose.Machine(cores=1, deadline="1ms"))


def test_twins_are_made_fewer(desk):
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(2)
    a = rng.normal(size=400)
    learnt = mr.twin.fit(pyarrow.table({"a": a, "b": a + rng.normal(size=400)}), out=desk / "twin", engine="inline")
    question = {"model": learnt, "n": 2_000_000}
    whole = forecast("twin generate", question, compose.Machine(cores=1)).plan.wall_s
    asked, (said,) = fitted("twin generate", question, compose.Machine(cores=1, deadline=whole / 2))
    assert 0 < asked["n"] < 1_100_000 and "2,000,000 twins do not fit" in said
