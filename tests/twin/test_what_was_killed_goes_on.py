"""A fit and a generation whose process is killed at any moment: no half file under its name, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import populations
import pytest
from pyarrow import parquet

import millrace as mr
from millrace.folder import history

ROWS, TWINS = 6_000, 3_000_000
GIVE_UP_S = 240.0


def command(folder: Path, out: str, *words: str) -> list[str]:
    shared = ["--store", str(folder / "store"), "--engine", "processes", "--cores", "2", "--out", str(folder / out)]
    return [sys.executable, "-m", "millrace", "twin", *words, *shared]


def killed(folder: Path, *words: str, after: int) -> None:
    """Start it, and kill it when that many tasks have ended."""
    process = subprocess.Popen(
        command(folder, "killed", *words), cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    ledger, give_up = folder / "killed" / "ledger.jsonl", time.monotonic() + GIVE_UP_S
    while process.poll() is None and not (ledger.exists() and ledger.read_text().count("\n") > after):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert process.poll() is None, "it was done before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def again(folder: Path, *words: str) -> dict[str, Any]:
    """The same command once more: its result."""
    done = subprocess.run(
        command(folder, "again", *words), cwd=folder, capture_output=True, text=True, timeout=GIVE_UP_S
    )
    assert done.returncode == 0, done.stderr
    assert history(folder / "again").end["cached"] > 0
    return json.loads((folder / "again" / "result.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_generation(tmp_path: Path) -> None:
    model = mr.twin.fit(populations.people(1_000), schema=populations.KEYED, joint="plain", engine="inline")
    place = model.keep(tmp_path)
    words = ("generate", "--model", str(place), "--n", str(TWINS), "--file", str(tmp_path / "twins.parquet"))
    killed(tmp_path, *words, after=25)
    assert not (tmp_path / "twins.parquet").exists()
    (left,) = tmp_path.glob(".twins.parquet-*")
    os.utime(left, (time.time() - 3_600, time.time() - 3_600))
    result = again(tmp_path, *words)
    file = parquet.ParquetFile(tmp_path / "twins.parquet")
    assert file.metadata.num_rows == TWINS == result["answer"]["rows"]
    first = next(file.iter_batches(300))
    assert list(tmp_path.glob(".twins.parquet-*")) == []
    assert first.to_pylist() == mr.twin.sample(model, 300).to_pylist()


@pytest.mark.slow
def test_a_fit(tmp_path: Path) -> None:
    parquet.write_table(populations.people(ROWS).drop_columns(["id"]), tmp_path / "people.parquet")
    words = ("fit", "--data", str(tmp_path / "people.parquet"), "--outcome", "spent")
    killed(tmp_path, *words, after=20)
    assert list((tmp_path / "killed").glob("twin-*")) == []
    result = again(tmp_path, *words)
    whole = mr.twin.fit(tmp_path / "people.parquet", outcome="spent", engine="inline")
    assert result["digest"] == whole.digest
