"""Two runs are compared per core-second; what makes that unfair is said, and what makes it senseless is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ledgers import attempt, written

from millrace.diagnose.case import Case, case_of
from millrace.diagnose.compare import comparison, differences

REPLICATES, TARGETS = {"replicates": 5}, {"targets": "prevalence"}


def run(
    path: Path, slots: int = 2, took: float = 100.0, each: int = 10, keys: str = "k", speed: float = 0.0, **header: Any
) -> Case:
    rows = [
        attempt(s, took * i, took * i, took * (i + 1), cpu=took, key=f"{keys}{s}/{i}")
        for s in range(slots)
        for i in range(each)
    ]
    history = written(path, slots, rows, (), took * each)
    history.header.update(header)
    if speed:
        history.records.append({"record": "speed", "index": speed})
    return case_of(history)


def test_the_same_run_twice_may_be_compared(tmp_path):
    told = comparison(run(tmp_path / "a"), run(tmp_path / "b"))
    assert (told.unlike, told.unfair, told.ratio) == ((), (), 1.0)


def test_it_goes_by_core_seconds_and_not_by_the_wall(tmp_path):
    told = comparison(run(tmp_path / "a", slots=2), run(tmp_path / "b", slots=4, took=120))
    assert told.ratio == pytest.approx(1 / 1.2)
    assert any(row[0] == "items a core-second" and row[3] == "0.83x" for row in told.rows)
    assert any(sentence.startswith("Workers: 2 in A, 4 in B") for sentence in told.unfair)


def test_across_hosts_each_has_its_reference_beside_it(tmp_path):
    host = {"name": "other", "processor": "p", "allowed_cores": 2}
    told = comparison(run(tmp_path / "a", speed=1.0), run(tmp_path / "b", took=200, speed=0.5, host=host))
    assert told.ratio == pytest.approx(0.5) and told.by_reference == pytest.approx(1.0)
    assert any(row[:3] == ("one core, of the reference", "1.00", "0.50") for row in told.rows)
    assert any("Host" in s for s in told.unfair) and any("Processor" in s for s in told.unfair)
    unknown = comparison(run(tmp_path / "a"), run(tmp_path / "b", host=host))
    assert unknown.by_reference is None and any(row[1:3] == ("not measured", "not measured") for row in unknown.rows)


@pytest.mark.parametrize(
    ("header", "unlike", "unfair"),
    [
        ({"analysis": "refute"}, "their items are not the same thing", ""),
        ({"spec": {"method": "auto", "replicates": 5}}, "replicates: None in A, 5 in B", ""),
        ({"spec": {"method": "auto", "targets": "deaths"}}, "targets: None in A, 'deaths' in B", ""),
        ({"versions": {"millrace": "1"}}, "", "Version of millrace: 0 in A, 1 in B"),
        ({"engine": "DaskEngine"}, "", "Engine: process in A, dask in B"),
        ({"budget": {"cores": 2, "private_bytes": 1 << 30}}, "", "Memory per worker: 1GiB in A, 512MiB in B"),
        ({"host": {"cores": 2, "allowed_cores": 8}}, "", "Cores of the host: None in A, 8 in B"),
        ({"seed": 1}, "", "Seed: 0 in A, 1 in B"),
    ],
)
def test_each_difference_is_named(tmp_path, header, unlike, unfair):
    found = differences(run(tmp_path / "a"), run(tmp_path / "b", **header))
    for said, wanted in zip(found, (unlike, unfair), strict=True):
        assert (wanted in " ".join(said)) if wanted else said == ()


def test_other_keys_for_the_same_question_are_other_code_or_data(tmp_path):
    (sentence,) = differences(run(tmp_path / "a"), run(tmp_path / "b", keys="other"))[1]
    assert sentence.startswith("Code or data")


def test_what_came_from_the_store_and_how_it_ended_are_said(tmp_path):
    b = run(tmp_path / "b")
    b.history.end["state"] = "paused"
    stored = [attempt(-1, 0, 0, 0, state="cached", key="x")]
    c = case_of(written(tmp_path / "c", 2, [*stored, attempt(0, 0, 0, 100, key="k0/0")], (), 100))
    assert any(s.startswith("From the store: 0 tasks of A, 1 of B") for s in differences(b, c)[1])
    assert differences(case_of(b.history), c)[1][-1] == "A ended as paused."


def test_the_command_refuses_what_is_not_alike(tmp_path):
    (tmp_path / "items.jsonl").write_text("1\n2\n3\n")
    (tmp_path / "own.py").write_text("def f(x):\n    return x\n\n\ndef g(x):\n    return -x\n")

    def millrace(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "millrace", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    for name, out in (("f", "a"), ("f", "b"), ("g", "c")):
        millrace(
            "run", f"own:{name}", "--items", "items.jsonl", "--engine", "inline", "--out", out, "--store", f"s-{out}"
        )
    alike = millrace("report", "a", "b")
    assert alike.returncode == 0 and "times as many items per core-second" in alike.stdout
    other = millrace("report", "a", "c")
    assert other.returncode == 2 and "do not compare" in other.stderr and "own:g" in other.stderr
    assert json.loads(millrace("report", "a", "c", "--anyway", "--json").stdout)["unlike"]
    assert millrace("report").returncode == 2
