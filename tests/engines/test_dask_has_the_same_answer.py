"""Through every face: the answer on a Dask cluster is the inline engine's, and the page about it does as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lightgbm
import local_dask
import numpy as np
import polars as pl
import pytest

import millrace as mr
from millrace import compose

PAGE = (Path(__file__).parents[2] / "docs" / "dask.md").read_text()


def engine() -> str:
    return f"dask={local_dask.address()}"


def worlds(rows: int = 3000) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, rows))
    t = (rng.random(rows) < 1 / (1 + np.exp(-a))).astype(int)
    return pl.DataFrame({"a": a, "b": b, "t": t, "y": a + 0.5 * b + 0.3 * t + rng.normal(size=rows)})


def test_explain_has_the_inline_digest() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(4000, 6))
    labels = rows[:, 0] * rows[:, 1] + rows[:, 2]
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, labels), 20)
    inline = mr.explain(model, rows, engine="inline")
    assert mr.explain(model, rows, engine=engine()).digest == inline.digest


@pytest.mark.slow
def test_refute_has_the_inline_digest() -> None:
    question = {"treatment": "t", "outcome": "y", "common_causes": ["a", "b"], "simulations": 100}
    inline = mr.refute(worlds(), engine="inline", **question)
    assert mr.refute(worlds(), engine=engine(), **question).digest == inline.digest


def test_the_snippet_of_the_page_does_as_it_says() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {"address": local_dask.address(), "__name__": "__main__"}
    exec(compile(snippet, "docs/dask.md", "exec"), names)
    assert names["means"] == [float(mr.rng(seed, 0).standard_normal(100_000).mean()) for seed in range(40)]


def test_the_commands_of_the_page_do_as_they_say(tmp_path: Path) -> None:
    (command,) = re.findall(r"^\$ (millrace run .*)$", PAGE, re.MULTILINE)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "simulate.py").write_text("def one(seed):\n    return int(seed) * 2\n")
    (tmp_path / "seeds.txt").write_text("1\n2\n3\n")
    words = command.replace("tcp://10.0.0.5:8786", local_dask.address()).split()[1:]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "millrace",
            *words,
            "--json",
            "--dask-report",
            "dask.html",
            "--store",
            str(tmp_path / "s"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["analysis"] == "run", done.stdout
    (out,) = (tmp_path / "millrace-runs").iterdir()
    assert (out / "results.jsonl").read_text() == "2\n4\n6\n"
    assert (tmp_path / "dask.html").stat().st_size > 10_000


def test_an_engine_is_known_by_its_name_and_dask_by_its_address_too() -> None:
    assert compose.is_engine("dask=tcp://h:1") and compose.is_engine("dask") and not compose.is_engine("das=tcp://h:1")
