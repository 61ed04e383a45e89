"""Timing lines of worker logs, with whatever prefix, become a report that names the causes and what it cannot know."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import Line, usual_pattern

from millrace.diagnose.case import case_of
from millrace.diagnose.findings import findings
from millrace.diagnose.logs import history, joined, read
from millrace.run.errors import WrongQuestion

EPOCH = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def when(line: Line) -> datetime.datetime:
    return EPOCH + datetime.timedelta(seconds=line.at_s)


PREFIXES = {
    "none": lambda line: line.text,
    "kubectl --prefix --timestamps": lambda line: (
        f"[pod/dask-{line.worker}-7d9f/worker] {when(line):%Y-%m-%dT%H:%M:%S.%f}123Z {line.text}"
    ),
    "python logging": lambda line: (
        f"{when(line):%Y-%m-%d %H:%M:%S},{when(line).microsecond // 1000:03d} - sim - INFO - {line.text}"
    ),
    "json": lambda line: json.dumps({"log": line.text + "\n", "time": f"{when(line):%Y-%m-%dT%H:%M:%S.%f}Z"}),
    "coloured": lambda line: f"\x1b[32m{when(line):%Y-%m-%dT%H:%M:%S.%f}Z INFO\x1b[0m {line.text}\x1b[0m",
}


@pytest.mark.parametrize("prefix", list(PREFIXES))
def test_the_causes_are_found_by_name_whatever_stands_before_a_line(prefix):
    lines = [PREFIXES[prefix](line) for line in usual_pattern()]
    log = read(["starting worker", *lines, "goodbye"])
    assert len(log.timings) == 12 * 12
    case = case_of(history(log, Path("worker.log")))
    told = {f.rule: f for f in findings(case)}
    assert {"duplicate simulations", "aggregation tasks", "fixed replicates"} <= set(told)
    assert told["duplicate simulations"].figures["duplicates"] == 60
    assert told["duplicate simulations"].gain == pytest.approx(0.47, abs=0.08)
    assert told["aggregation tasks"].figures == {"per_trial": 2.0, "tasks_per_trial": 12.0, "targets": 2}
    assert told["fixed replicates"].figures == {"replicates": 5, "trials": 12}
    timed = prefix != "none"
    assert told["a thread per trial"].figures["trials"] == 12
    assert (told["a thread per trial"].figures["open"] > 8) == timed
    assert bool(case.history.header["untimed"]) == (not timed)


def test_a_calibration_that_simulates_once_in_one_loop_has_none_of_them():
    log = read([PREFIXES["python logging"](line) for line in usual_pattern(once=True)])
    told = {f.rule for f in findings(case_of(history(log, Path("w"))))}
    assert not told & {"duplicate simulations", "aggregation tasks", "duplicate tasks", "a thread per trial"}


def test_times_of_day_put_tasks_where_they_were():
    lines = usual_pattern(workers=3)
    case = case_of(history(read([PREFIXES["coloured"](line) for line in lines]), Path("w")))
    assert case.accounting.slots == 3
    total = sum(float(line.text.split("duration_ms=")[1].split()[0]) for line in lines) / 1e3
    assert case.accounting.share("on_cpu") * case.accounting.core_ns / 1e9 == pytest.approx(total, rel=0.01)
    assert case.accounting.wall_ns / 1e9 == pytest.approx(lines[-1].at_s, rel=0.05)
    assert sum(case.accounting.parts_ns.values()) == case.accounting.core_ns


def test_what_lines_cannot_tell_is_unknown():
    case = case_of(history(read([line.text for line in usual_pattern()]), Path("w")))
    plain = case.accounting.as_dict()
    assert plain["parts_s"]["transfer"] is None and plain["shares"]["tail"] is None
    assert plain["parts_s"]["on_cpu"] > 0
    assert "--timestamps" in case.accounting.notes[0]


def test_lines_are_joined_by_param_id_and_worker():
    said = dict(joined(read([line.text for line in usual_pattern()])))
    assert said["lines"].startswith("120 simulations and 24 aggregations")
    assert said["trials"].startswith("12 by param_id, 12 tasks each")
    assert said["simulations"] == "60 distinct (param_id, seed), 60 repeated"
    assert said["targets"] == "2: deaths, prevalence"
    assert "another worker" in said["aggregated"] and said["workers"].startswith("4;")


def test_a_worker_that_is_not_named_is_the_pod():
    line = "[pod/sim-abc/main] SIM_TIMING: param_id=1 seed=2 duration_ms=30"
    assert read([line]).timings[0].worker == "sim-abc"
    assert read([line.partition("] ")[2]]).timings[0].worker == "unknown"


def test_a_worker_with_several_tasks_at_a_time_has_several_slots():
    lines = [f"2026-03-01T12:00:0{i}.5Z SIM_TIMING: param_id={i} seed=1 duration_ms=2500 worker=w" for i in range(5)]
    assert case_of(history(read(lines), Path("w"))).accounting.slots == 3


def test_none_is_said_plainly_with_the_first_lines():
    with pytest.raises(WrongQuestion, match=r"None of 2 lines.*right pod.*first were: hello \| INFO nothing"):
        read(["hello\n", "INFO nothing\n"])
    with pytest.raises(WrongQuestion, match="no line at all"):
        read([])
    with pytest.raises(WrongQuestion, match="that is whole.*seed=3"):
        read(["x", "SIM_TIMING: seed=3 worker=w"])


def test_the_command_reads_a_pipe(tmp_path):
    text = "\n".join(PREFIXES["kubectl --prefix --timestamps"](line) for line in usual_pattern())
    command = [sys.executable, "-m", "millrace", "report", "--logs", "-", "--html", "page.html"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "duplicate simulations" in done.stdout and "a thread per trial" in done.stdout and "unknown" in done.stdout
    assert (tmp_path / "page.html").stat().st_size > 100_000
    silent = subprocess.run(
        command, input="no\n", capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert silent.returncode == 2 and "right pod" in silent.stderr
