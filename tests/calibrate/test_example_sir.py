"""The example runs starsim on every core, and finds the transmission rate by which its observations were made."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from millrace.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "calibrate_sir"
pytest.importorskip("starsim")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARSIM_INSTALL_FONTS", "0")
    monkeypatch.setenv("MILLRACE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["calibrate", "run", str(EXAMPLE / "study.toml"), "--out", "run", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_short_study_of_the_example_runs(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One worker: importing starsim is most of what this costs.
    answer = run(capsys, "--simulations", "8", "--finish", "1", "--fresh", "2", "--cores", "1")["answer"]
    assert answer["simulations"] == 8
    assert answer["verdicts"] == 0
    assert set(answer["best"]["params"]) == {"beta", "initial"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_example_recovers_the_transmission_rate(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys)["answer"]
    sys.path.insert(0, str(EXAMPLE))
    from epidemic import TRUE

    assert answer["simulations"] == 400
    assert answer["best"]["params"]["beta"] == pytest.approx(TRUE["beta"], rel=0.15)
    low, high = answer["intervals"]["beta"]
    assert 0.7 * TRUE["beta"] < low < TRUE["beta"] * 1.1
    assert 0.9 * TRUE["beta"] < high < TRUE["beta"] * 1.4
