"""A plan says of each tier whether the question fits, how long it takes and what that costs, once and a month."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import millrace as mr
from millrace import compose, quotes
from millrace.autoscale.traces import Arrival, write_trace
from millrace.forecast import forecast
from millrace.run.budget import Budget, Plan, fit
from millrace.run.errors import WrongQuestion
from millrace.tiers import Tiers, load_tiers

GIB = 1 << 30
HERE = Budget(2, 4 * GIB)


def plan(budget: Budget) -> Plan:
    """A hundred tasks of 36 s and 3 GiB each."""
    return fit(Plan("explain", "trees", 100, 1, 1, 3 * GIB, GIB // 2, 0, 0, 3600.0), budget)


def tiers(folder: Path, text: str = "") -> Tiers:
    (folder / "tiers.toml").write_text(text)
    return load_tiers(folder / "tiers.toml")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A model and its rows; nobody has run anything yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sklearn, joblib = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("joblib")
    table = np.random.default_rng(0).normal(size=(5000, 8))
    joblib.dump(sklearn.LinearRegression().fit(table, table[:, 0]), tmp_path / "model.joblib")
    np.save(tmp_path / "rows.npy", table)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_tier_has_its_slots_wall_peak_and_money(tmp_path):
    told = {q.tier: q for q in quotes.quotes(tiers(tmp_path), plan, HERE, 0.08)}
    assert list(told) == ["light", "medium", "heavy"]  # the tier gpu may have no worker
    assert not told["light"].fits and told["light"].needs_bytes == 3 * GIB + GIB // 2
    medium, heavy = told["medium"], told["heavy"]
    assert (medium.slots, medium.cores, medium.alone) == (1, 2, False)  # a slot of 2 cores and 4 GiB
    assert medium.wall_s == 3600 and medium.money == pytest.approx(2 * 0.08)
    assert (heavy.slots, heavy.cores, heavy.alone) == (5, 8, False)  # 16 GiB carry five of 3 GiB and the driver
    assert heavy.wall_s == 720 and heavy.money == pytest.approx(8 * 0.08 / 5)
    assert heavy.peak_bytes == 5 * 3 * GIB + GIB // 2 <= 16 * GIB
    assert all(q.month_money is None and q.schedule_money is None for q in told.values())


def test_what_fits_no_slot_has_a_worker_to_itself_and_pays_for_it(tmp_path):
    told = {q.tier: q for q in quotes.quotes(tiers(tmp_path, '[tiers.light]\nmemory = "5GiB"\n'), plan, HERE, 0.08)}
    light = told["light"]
    assert light.fits and light.alone and light.cores == 2 and light.slots == 1
    assert light.money == pytest.approx(2 * 0.08)
    assert "a worker to itself" in quotes.table([light])[1][-1]


def test_prices_of_the_tiers_file_go_before_the_price_of_a_core(tmp_path):
    priced = tiers(tmp_path, "[prices]\ncore_hour = 0.5\ngib_hour = 0.25\n")
    heavy = {q.tier: q for q in quotes.quotes(priced, plan, HERE, 0.08)}["heavy"]
    assert heavy.money == pytest.approx((16 * 0.5 + 32 * 0.25) / 2 / 5)


def test_a_tier_without_sizes_has_those_of_its_host(tmp_path):
    own = tiers(tmp_path, "[tiers.gpu]\nmost = 1\n")
    gpu = {q.tier: q for q in quotes.quotes(own, plan, HERE, 0.08)}["gpu"]
    assert gpu.fits and gpu.cores == 2 and gpu.money == pytest.approx(2 * 0.08)


def test_a_month_is_known_from_an_interval_or_from_a_trace(tmp_path):
    hourly = quotes.every("1h")
    assert hourly.a_month == pytest.approx(365.25 / 12 * 24)
    medium = quotes.quotes(tiers(tmp_path), plan, HERE, 0.08, hourly)[1]
    assert medium.month_money == pytest.approx(hourly.a_month * medium.money)
    arrivals = [Arrival(3600.0 * hour, queue, 5.0) for hour in range(40) for queue in ("shap", "causal")]
    often = quotes.as_in_trace(arrivals, "shap")
    assert often is not None and often.a_month == pytest.approx(20 * 365.25 / 12)  # forty in two days
    assert quotes.as_in_trace(arrivals, "twins") is None
    with pytest.raises(WrongQuestion, match="without end"):
        quotes.every(0)


def test_a_schedule_costs_what_it_keeps_whatever_comes(tmp_path):
    kept = tiers(
        tmp_path,
        '[tiers.heavy]\nschedule = [{ days = "mon-fri", hours = [8, 18], replicas = 2 }]\n[tiers.medium]\nleast = 0\n'
        "schedule = [{ replicas = 1 }]\n",
    )
    told = {q.tier: q for q in quotes.quotes(kept, plan, HERE, 0.1)}
    weeks = 365.25 / 12 / 7
    assert told["heavy"].schedule_money == pytest.approx(weeks * 5 * 10 * 2 * 16 * 0.1)
    assert told["medium"].schedule_money == pytest.approx(weeks * 168 * 4 * 0.1)
    assert told["light"].schedule_money is None


def test_a_question_is_quoted_on_the_tiers_of_the_settings_and_marked_where_a_job_of_it_goes(desk, monkeypatch):
    (desk / "tiers.toml").write_text('[tiers.tiny]\ncores = 1\nmemory = "64MiB"\nqueues = ["tiny"]\n')
    monkeypatch.setenv("MILLRACE_TIERS", str(desk / "tiers.toml"))
    write_trace(desk / "arrivals.csv", [Arrival(10.0, "default", 1.0)])
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    told = forecast("explain", question, compose.Machine(), trace=desk / "arrivals.csv")
    by_name = {q.tier: q for q in told.tiers}
    assert by_name["light"].chosen and by_name["light"].fits and not by_name["tiny"].fits
    assert sum(q.chosen for q in told.tiers) == 1
    assert told.often is not None and told.month_money == pytest.approx(told.often.a_month * told.money)
    assert forecast("explain", question, compose.Machine()).month_money is None
    with pytest.raises(WrongQuestion, match="one of every and trace"):
        forecast("explain", question, compose.Machine(), every="1h", trace=desk / "arrivals.csv")


def test_python_shows_what_the_command_shows(desk):
    question = {"model": str(desk / "model.joblib"), "data": str(desk / "rows.npy")}
    planned = mr.plan.explain(question["model"], question["data"], cores=1, memory="2GiB", every="1h")
    command = [sys.executable, "-m", "millrace", "plan", "explain", "--model", "model.joblib", "--data", "rows.npy",
               "--cores", "1", "--memory", "2GiB", "--every", "1h"]  # fmt: skip
    told = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=True)
    assert [line.split()[:2] for line in told.stdout.splitlines()] == [line.split()[:2] for line in planned.lines()]
    assert "a month" in told.stdout and "a job of it goes here" in told.stdout
    done = subprocess.run([*command, "--json"], cwd=desk, capture_output=True, text=True, check=True)
    as_json = json.loads(done.stdout)
    assert {q["tier"] for q in as_json["tiers"]} == {q.tier for q in planned.tiers}
    assert as_json["often"]["a_month"] == planned.often.a_month and as_json["month_money"] > 0
    assert planned.tasks == planned.plan.tasks and str(planned) == "\n".join(planned.lines())
    assert pickle.loads(pickle.dumps(planned)) == copy.copy(planned) == planned
    with pytest.raises(AttributeError):
        _ = planned.nothing_of_the_kind


def test_a_function_that_has_run_is_quoted_too(desk):
    (desk / "work.py").write_text(
        "import time\n\ndef one(x):\n    time.sleep(0.01)\n    return sum(range(20000)) * x\n"
    )
    (desk / "items.jsonl").write_text("\n".join(map(str, range(40))))
    told = [sys.executable, "-m", "millrace"]
    asked = ["run", "work:one", "--items", "items.jsonl", "--store", str(desk / "store")]
    before = subprocess.run([*told, "plan", *asked, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(before.stdout)["tiers"] == []
    subprocess.run([*told, *asked, "--quiet", "--engine", "inline"], capture_output=True, text=True, check=True)
    (desk / "items.jsonl").write_text("\n".join(map(str, range(40, 140))))
    after = subprocess.run(
        [*told, "plan", *asked, "--every", "1d", "--json"], capture_output=True, text=True, check=True
    )
    as_json = json.loads(after.stdout)
    assert [q["tier"] for q in as_json["tiers"] if q["chosen"]] == ["light"]
    assert as_json["month_money"] == pytest.approx(as_json["money"] * 365.25 / 12)
    shown = subprocess.run([*told, "plan", *asked, "--every", "1d"], capture_output=True, text=True, check=True)
    assert "money, a month" in shown.stdout and "heavy" in shown.stdout
