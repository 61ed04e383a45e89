"""The verbs of calibrate on the command line, on a study that lies in a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import simulators
from pyarrow import csv

from millrace.cli.main import main
from millrace.folder import history

STUDY = """
simulate = "simulators:raises"
sampler = "random"
trials = 8
finish = 2
fresh = 3
replicates = 2

[parameters]
a = {low = 0.5, high = 5.0}
b = {kind = "log", low = 0.05, high = 2.0}

[targets.curve]
data = "curve.csv"
on = ["t"]

[targets.total]
data = "total.csv"
on = ["t"]
weight = 0.1
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLRACE_STORE", str(tmp_path / "store"))
    for name, target in simulators.observed().items():
        csv.write_csv(pyarrow.table(target["data"]), tmp_path / f"{name}.csv")
    shutil.copy(simulators.__file__, tmp_path / "simulators.py")
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_run_rescore_replay_logs_and_probe(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "run", "study.toml", "--engine", "inline", "--out", "first", "--json"]) == 0
    first = said(capsys)
    assert first["answer"]["trials"] == 8
    assert first["answer"]["best"]["fresh_seeds"] == 3
    assert {"trials.parquet", "finish.parquet", "verdicts.parquet"} <= set(first["files"])
    assert {"history", "slices", "importance", "band_curve"} <= set(first["charts"])

    assert main(["calibrate", "rescore", "first", "--weights", "curve=0,total=2", "--out", "second", "--json"]) == 0
    second = said(capsys)
    assert second["answer"]["trials"] == 8
    assert history(study / "second").end["computed"] == 0

    failed = first["notes"][0]
    assert "millrace calibrate replay first --trial" in failed
    words = failed.split("`")[1].split()[1:]
    assert main([*words, "--quiet", "--out", "third"]) == 4
    assert "unlucky a" in capsys.readouterr().err
    assert main(["logs", "first", "--json"]) == 0
    records = said(capsys)["records"]
    assert {r["record"] for r in records} == {"printed", "verdict"}

    assert (
        main(["calibrate", "probe", "study.toml", "--engine", "inline", "--out", "fourth", "--json", "--trials", "4"])
        == 0
    )
    parts = said(capsys)["answer"]["parts"]
    assert [p["name"] for p in parts] == ["simulations only", "one target", "all targets"]
    assert [p["simulations"] for p in parts] == [parts[0]["simulations"]] * 3


def test_an_option_takes_the_place_of_what_the_file_says(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "calibrate", "run", "study.toml", "--simulations", "300", "--json"]) == 0
    assert said(capsys)["tasks"] == 22  # eight trials of two, and the finish


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("trials = 8", "trails = 8"), "says 'trails', which is no part of the question"),
        (("curve.csv", "curves.csv"), "curves.csv"),
        (("low = 0.5, high = 5.0", "low = 5.0, high = 0.5"), "inverted"),
        (('on = ["t"]', "on = [t]"), "is not TOML"),
        (("simulators:raises", "simulators:rises"), "has no 'rises'"),
    ],
)
def test_a_wrong_study_is_one_paragraph(
    change: tuple[str, str], words: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "study.toml").write_text(STUDY.replace(*change, 1))
    assert main(["calibrate", "run", "study.toml"]) == 2
    assert words in capsys.readouterr().err
