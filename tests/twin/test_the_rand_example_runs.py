"""examples/twin_rand: real people, whose plans were given by lot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from pyarrow import parquet

import millrace as mr

FILE = Path(__file__).parents[2] / "examples" / "twin_rand" / "run.py"


@pytest.mark.slow
def test_it_runs_and_free_care_brings_visits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("twin_rand", FILE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(tmp_path, 6_000)
    said = capsys.readouterr().out
    assert "No twin breaks a constraint" in said and "free_care" in said and "hold" in said
    ill = parquet.read_table(tmp_path / "twins.parquet").to_pandas()
    assert len(ill) == 2_000 and (ill.disea > 15).all() and ((ill.hlthf == 1) | (ill.hlthp == 1)).all()
    model = mr.twin.load(tmp_path / "model")
    low, _ = model.effects.interval()
    assert low > 0  # the experiment's own finding
    for name in ("model", "fidelity", "free"):
        assert (tmp_path / name / "report.html").exists()
