"""Timing lines and samples: written when asked, read back by the report, and without effect on keys and values."""

from __future__ import annotations

import os

import chores
import pytest

from millrace import compose
from millrace.diagnose import logs, stacks
from millrace.diagnose.flame import flame
from millrace.engines.watching import Watch
from millrace.run.task import Task


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_workers_write_a_line_a_task_that_the_report_reads(tmp_path, capfd, monkeypatch, engine):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = compose.Machine(engine=engine, cores=2, store=tmp_path / "s", timing_log=True)
    answer = compose.map_function(chores.simulate, range(30), machine)
    assert answer.values == tuple(range(3, 33))
    log = logs.read(capfd.readouterr().err.splitlines())
    assert sorted(int(t.param_id) for t in log.timings) == list(range(30))
    assert {t.seed for t in log.timings} == {str(i) for i in range(30)}  # no seed was given: the item
    if engine == "processes":
        assert str(os.getpid()) not in {t.worker.rpartition("-")[2] for t in log.timings}
    again = compose.map_function(chores.simulate, range(30), compose.Machine(engine=engine, store=tmp_path / "s"))
    assert again.report.accounting.outcomes == {"cached": 30}
    assert capfd.readouterr().err == ""


def test_group_and_seed_name_trial_and_replicate(capfd):
    watch = Watch(True, None)
    for seed in (11, 12):
        task = watch(Task(chores.simulate, (5, seed), "k", group="trial 7"), 0, "simulate")
        assert task.fn(*task.args) == 5 + seed
    first, second = logs.read(capfd.readouterr().err.splitlines()).timings
    assert (first.param_id, first.seed, second.seed) == ("trial_7", "11", "12")


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_profile_finds_the_function_that_takes_the_time(tmp_path, monkeypatch, engine):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = compose.Machine(engine=engine, cores=2, profile=True)
    answer = compose.map_function(chores.shallow, range(6), machine)
    (profile,) = stacks.profiles(answer.report.folder)
    assert profile.kind == "shallow"
    name, own, whole = profile.top()[0]
    assert name == "_deep (chores.py)" and own == whole > 0.5 * profile.total_s
    assert all(stack[0] == "shallow (chores.py)" for stack in profile.seconds)
    assert "_deep" in stacks.lines([profile])[0]
    assert [s.title for s in stacks.sections([profile])] == ["Within shallow"]


def test_without_asking_nothing_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answer = compose.map_function(chores.simulate, range(3), compose.Machine(engine="inline"))
    assert [path.name for path in answer.report.folder.iterdir()] == ["ledger.jsonl"]


def test_a_flame_graph_adds_up_and_is_valid():
    import altair

    seconds = {("a", "b", "c"): 1.0, ("a", "b"): 2.0, ("a", "d"): 1.0, ("a", "b", "c", "a"): 4.0}
    spec = flame("kind", seconds)
    altair.Chart.from_dict(spec)
    rows = {(row["name"], row["depth"]): row for row in spec["data"]["values"]}
    assert rows["a", 0]["high"] - rows["a", 0]["low"] == 1
    assert rows["b", 1]["high"] - rows["b", 1]["low"] == pytest.approx(7 / 8)
    assert rows["a", 3]["own"] == 4 and rows["d", 1]["low"] == pytest.approx(7 / 8)
    profile = stacks.Profile("kind", seconds)
    assert profile.top(1) == [("a", 4.0, 8.0)]
