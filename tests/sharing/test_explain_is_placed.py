"""Kernel SHAP of modules and trees goes where it is fast, and its answer says the same."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from devices import CPU_WINS, GPU_WINS, Host
from sklearn.svm import SVR

import millrace as mr
from millrace.analyses.explain import placing
from millrace.diagnose.accounting import account
from millrace.run.errors import MissingExtra, WrongQuestion
from millrace.run.ledger import replay
from millrace.run.placement import crossover

has_torch = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(
    not has_torch, reason="torch, some gigabytes, is no part of the set-up: pip install torch"
)
RNG = np.random.default_rng(0)
ROWS, OTHERS = RNG.standard_normal((90, 6)), RNG.standard_normal((20, 6))
LABELS = (ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2] > 0).astype(int)
TREES = lightgbm.train(
    {"objective": "binary", "verbose": -1, "num_leaves": 7, "min_data_in_leaf": 5},
    lightgbm.Dataset(ROWS, LABELS),
    num_boost_round=15,
)
ASKED = {"background": OTHERS, "output": "probability"}


def explained(place: Host | None, store: Path | None = None, engine: str = "inline", model: Any = TREES, **more: Any):
    """(answer, run): the question with this host's place."""
    asked = {"data": ROWS, **(ASKED if model is TREES else {"background": OTHERS}), **more}
    data = asked.pop("data")
    with mr.Run(engine=engine, cores=2, store=store) as run:
        if place is not None:
            run.sharing = dataclasses.replace(run.sharing, place=place)
        return mr.explain(model, data, run=run, **asked), run


def network(kind: str = "float32") -> Any:
    import torch

    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    return torch.nn.Sequential(*layers).to(getattr(torch, kind))


def test_without_a_gpu_and_with_one_that_must_not_be_used_the_answer_is_the_same(tmp_path: Path) -> None:
    plain, _ = explained(None, tmp_path)
    assert plain.method == "kernel"
    for place in (Host(count=0), Host("cpu"), Host(count=0, as_if=GPU_WINS)):
        again, run = explained(place, tmp_path)
        assert again.digest == plain.digest and run.computed == 0  # every key is the same


def test_a_gpu_that_is_wished_for_and_not_there_is_refused() -> None:
    with pytest.raises(WrongQuestion, match="there is none here"):
        explained(Host("gpu", count=0))


def test_a_model_that_no_device_can_be_asked_runs_on_the_cpu_and_says_so() -> None:
    model = SVR().fit(ROWS, LABELS)
    answer, _ = explained(Host("gpu"), model=model)
    assert answer.digest == explained(None, model=model)[0].digest
    assert any("cannot be asked on a GPU" in note for note in answer.notes)


def test_exact_trees_do_not_ask_where_the_gpu_is() -> None:
    answer, _ = explained(Host("gpu", count=0), output="raw")
    assert answer.method == "interventional"


@pytest.mark.skipif(has_torch, reason="torch is installed here")
def test_without_torch_a_gpu_is_left_alone_or_its_library_named() -> None:
    assert explained(Host(as_if=GPU_WINS))[0].digest == explained(None)[0].digest
    with pytest.raises(MissingExtra, match="torch"):
        explained(Host("gpu"))


def test_nothing_imports_torch_where_there_is_no_gpu() -> None:
    code = (
        "import sys, numpy as np, lightgbm, millrace as mr\n"
        "rows = np.random.default_rng(0).standard_normal((80, 4))\n"
        "model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(rows, rows[:, 0] > 0)\n"
        "mr.explain(model, rows[:3], background=rows[:9], output='probability', engine='inline')\n"
        "mr.refute(np.hstack([rows, rows[::-1, :2]]), 'x4', 'x5', common_causes=['x0'], simulations=50, engine='inline')\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


@needs_torch
@pytest.mark.parametrize("engine", ["inline", "processes"])
@pytest.mark.parametrize("which", ["trees", "module", "module of doubles"])
def test_a_run_is_given_to_the_gpu_and_agrees(tmp_path: Path, engine: str, which: str) -> None:
    model = TREES if which == "trees" else network("float64" if "doubles" in which else "float32")
    plain, before = explained(None, tmp_path, model=model)
    answer, run = explained(Host("gpu"), tmp_path, engine, model=model)
    assert run.computed == before.computed and run.cached == 0  # the keys of the GPU's body are its own
    tolerance = 1e-6 if which == "module" else 1e-12
    for name in ("values", "base_values", "predictions"):
        assert np.abs(getattr(answer, name) - getattr(plain, name)).max() < tolerance
    assert answer.exact and answer.method == plain.method and answer.model_digest == plain.model_digest
    assert set(account(replay(run.ledger.path)).gpu_ns) == {"0"}
    again, run = explained(Host("gpu"), tmp_path, model=model)
    assert run.computed == 0 and again.digest == answer.digest


@needs_torch
def test_both_bodies_are_measured_once_and_the_lines_decide(tmp_path: Path) -> None:
    host = Host(as_if=GPU_WINS)
    answer, _ = explained(host, tmp_path / "a")
    ((name, lines),) = host.measured.items()
    assert "15 trees of" in name and "6 columns" in name
    assert all(line.at(10_000) > 0 for line in lines)
    assert any("runs on the GPU in batches of" in note for note in answer.notes)
    host.measured.clear()
    again, _ = explained(host, tmp_path / "b")
    assert again.digest == answer.digest and not host.measured
    stays, _ = explained(Host(as_if=CPU_WINS), tmp_path / "c")
    assert stays.digest == explained(None, tmp_path / "c")[0].digest
    calls = (2**6 - 1) * len(OTHERS)
    least, more = Host(known_from={name: calls}), Host(known_from={name: calls + 1})
    assert explained(least, tmp_path / "a")[1].computed == 0  # as large as it must be: the GPU's keys
    assert explained(more, tmp_path / "c")[1].computed == 0


@needs_torch
def test_what_is_learnt_is_what_was_measured() -> None:
    host = Host()
    explained(host)
    ((name, lines),) = host.measured.items()
    assert host.known_from[name] == crossover(*lines)


def test_few_rows_are_not_measured_for() -> None:
    host = Host(as_if=GPU_WINS)
    answer, _ = explained(host, data=ROWS[: placing.LEAST_ROWS - 1])
    assert not host.measured and answer.digest == explained(None, data=ROWS[: placing.LEAST_ROWS - 1])[0].digest


@needs_torch
def test_rounds_of_a_tolerance_and_groups(tmp_path: Path) -> None:
    rows = RNG.standard_normal((6, 20))
    model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, min_child_samples=2)
    seen = RNG.standard_normal((200, 20))
    model.fit(seen, seen[:, 0] * seen[:, 1] > 0)
    asked = {
        "data": rows, "model": model, "background": seen[:15], "output": "probability", "tolerance": 1e-3,
        "max_evaluations": 400, "groups": {"first": ["x0", "x1"]},
    }  # fmt: skip
    plain, answer = explained(None, **asked)[0], explained(Host("gpu"), **asked)[0]
    assert not answer.exact and answer.values.shape == plain.values.shape == (6, 19, 2)
    assert np.abs(answer.values - plain.values).max() < 1e-10
    assert np.abs(answer.standard_errors - plain.standard_errors).max() < 1e-6


@needs_torch
@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_streamed_rows_are_placed_too(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({f"x{j}": ROWS[:, j] for j in range(6)}), file, row_group_size=40)
    values = []
    for place in (None, Host("gpu")):
        with mr.Run(engine=engine, cores=2, out=tmp_path / f"out {place is None}") as run:
            if place is not None:
                run.sharing = dataclasses.replace(run.sharing, place=place)
            answer = mr.explain(TREES, file, stream=True, run=run, **ASKED)
        values.append(np.concatenate([_values(part) for part in answer.files]))
    assert set(account(replay(run.ledger.path)).gpu_ns) == {"0"}
    assert values[0].shape[0] == len(ROWS) and np.abs(values[0] - values[1]).max() < 1e-12


def _values(part: Path) -> np.ndarray:
    return np.column_stack([c.to_numpy() for c in pyarrow.parquet.read_table(part).columns])
