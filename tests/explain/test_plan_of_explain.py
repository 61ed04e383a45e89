"""A plan of explain says what the question takes: never too little memory, never twice too much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import json, sys
import numpy
import millrace as mr
family, rows, columns, size, background, engine = json.loads(sys.argv[1])
rng = numpy.random.default_rng(0)
data = numpy.empty((rows, columns), numpy.float32)
for begin in range(0, rows, 10_000):
    data[begin : begin + 10_000] = rng.standard_normal((len(data[begin : begin + 10_000]), columns))
few, target = data[:2000], data[:2000, 0] * data[:2000, 1] + numpy.sin(2 * data[:2000, 2])
numpy.save(sys.argv[2] + "/data.npy", data)
if background:
    numpy.save(sys.argv[2] + "/background.npy", data[:background])
del data
if family == "lightgbm":
    import lightgbm
    model = lightgbm.LGBMRegressor(n_estimators=size, num_leaves=31, n_jobs=1, verbose=-1).fit(few, target)
elif family == "xgboost":
    import xgboost
    model = xgboost.XGBRegressor(n_estimators=size, max_depth=6, n_jobs=1).fit(few, target)
elif family == "forest":
    from sklearn.ensemble import RandomForestRegressor
    model = RandomForestRegressor(20, max_depth=size, max_features=0.3, n_jobs=1, random_state=0).fit(few, target)
elif family == "linear":
    from sklearn.linear_model import Ridge
    model = Ridge().fit(few.astype(float), target)
else:
    model = lambda z: numpy.tanh(z[:, 0] * z[:, 1]) + z[:, 2]
answer = mr.explain(
    model, sys.argv[2] + "/data.npy", background=sys.argv[2] + "/background.npy" if background else None,
    precision="float32", engine=engine, cores=1 if engine == "inline" else 2,
    max_evaluations=size if family == "function" else None,
)
told, found = answer.report.plan, answer.report.accounting
print(json.dumps({
    "predicted_bytes": told["peak_bytes"], "worker_bytes": told["worker_bytes"], "driver_bytes": told["driver_bytes"],
    "peak_bytes": found.memory_bytes, "task_peak_bytes": found.task_peak_bytes,
}))
"""
FAMILIES = [  # family, rows, columns, trees (depth, evaluations), background
    ("lightgbm", 1_000, 20, 50, 0), ("lightgbm", 20_000, 200, 100, 0), ("lightgbm", 5_000, 1_000, 100, 0),
    ("lightgbm", 20_000, 50, 100, 100), ("lightgbm", 5_000, 200, 300, 2_000),
    ("xgboost", 20_000, 100, 100, 0), ("xgboost", 20_000, 100, 100, 1_000),
    ("forest", 2_000, 50, 10, 0), ("forest", 2_000, 50, 10, 100), ("forest", 300, 50, 40, 100),
    ("linear", 50_000, 200, 0, 100), ("function", 100, 20, 1_000, 50), ("function", 50, 300, 1_000, 20),
]  # fmt: skip


def measured(folder: Path, *question: object) -> dict[str, float]:
    call = [sys.executable, "-c", MEASURE, json.dumps(question), str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_two_processes_take_what_was_predicted(tmp_path: Path) -> None:
    found = measured(tmp_path, *FAMILIES[0], "processes")
    assert found["peak_bytes"] <= found["predicted_bytes"] <= 2 * found["peak_bytes"]
    assert found["task_peak_bytes"] <= found["worker_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("question", FAMILIES, ids=lambda q: " ".join(map(str, q)))
def test_a_grid_of_questions_on_two_processes(question: tuple[object, ...], tmp_path: Path) -> None:
    found = measured(tmp_path, *question, "processes")
    assert found["peak_bytes"] <= found["predicted_bytes"] <= 2 * found["peak_bytes"]
    assert found["task_peak_bytes"] <= found["worker_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("question", FAMILIES[::3], ids=lambda q: " ".join(map(str, q)))
def test_in_one_process_the_plan_is_a_bound(question: tuple[object, ...], tmp_path: Path) -> None:
    """Loose by the worker that is not there: its kernels are the driver's own."""
    found = measured(tmp_path, *question, "inline")
    assert found["peak_bytes"] <= found["predicted_bytes"]
