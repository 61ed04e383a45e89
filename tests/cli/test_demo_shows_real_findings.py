"""The demo: real data, real findings, everything written, in seconds."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from terminal import Ended, millrace

PEOPLE = 20_190


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path, float]:
    at = tmp_path_factory.mktemp("demo")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = millrace("demo", "--out", "demo", at=at, timeout_s=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, at / "demo", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_it_explains_everybody_and_says_what_it_found(shown: tuple[Ended, Path, float]) -> None:
    done, folder, _ = shown
    assert done.code == 0, done.err
    assert f"{PEOPLE:,} people" in done.out
    said = json.loads((folder / "result.json").read_text())
    assert said["answer"]["rows"] == PEOPLE
    assert said["answer"]["exact"] is True
    assert said["answer"]["additivity_error"] < 1e-9
    assert len(said["findings"]) >= 5
    for sentence in said["findings"]:
        assert sentence in done.out


def test_the_findings_are_those_of_the_experiment(shown: tuple[Ended, Path, float]) -> None:
    """What the experiment is known for: the sicker go more often, and those who pay go less often."""
    _, folder, _ = shown
    ranked = json.loads((folder / "result.json").read_text())["answer"]["importance"]
    by_name = {one["feature"]: one for one in ranked}
    assert ranked[0]["feature"] == "chronic_diseases"
    assert by_name["chronic_diseases"]["direction"] == "positive"
    assert by_name["coinsurance"]["direction"] == "negative"


def test_every_file_is_there_and_is_named(shown: tuple[Ended, Path, float]) -> None:
    done, folder, _ = shown
    names = {path.name for path in folder.iterdir() if path.is_file() and not path.name.endswith(".vl.json")}
    assert {"report.html", "result.json", "ledger.jsonl", "values.parquet", "importance.parquet"} <= names
    assert {Path(name).suffix for name in names} >= {".png", ".svg"}
    for name in names:
        assert name in done.out


def test_it_takes_seconds(shown: tuple[Ended, Path, float]) -> None:
    assert shown[2] < 60  # of the processor, kernels compiled on the way included


def test_it_tries_to_break_an_effect_and_says_what_the_tests_mean(shown: tuple[Ended, Path, float]) -> None:
    """Free care brings people to the doctor: the experiment's own finding."""
    done, folder, _ = shown
    said = json.loads((folder / "refute" / "result.json").read_text())
    (estimate,) = said["answer"]["estimates"]
    assert 0.4 < estimate["interval"][0] < estimate["effect"] < estimate["interval"][1] < 0.9
    assert [t["details"]["simulations"] for t in estimate["tests"]].count(1000) == 4
    assert "says nothing about hidden confounding" in done.out
    for sentence in said["findings"]:
        assert sentence in done.out
