"""--fit takes the largest question that fits the memory and the deadline, says so, and never acts unasked."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow
import pytest

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
    machine = compose.Machine(cores=1, deadline=f"{0.6 * whole:.4f}s")
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
