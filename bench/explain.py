"""explain beside shap, the libraries' own contributions and woodelf: one core, everything counted.

`python -m bench.explain [--quick] [PART ...]`; parts are boosted, backgrounds, forests, deep, rows, shapes, first, streamed, each
of some minutes at most; without names all of them. What a call does not measure stays as an earlier one left it. Peers that
would take hours get fewer rows, and their time is scaled; the line says so. Peers are given what makes them right: shap's
background is not cut to 100 rows. Times are processor time of this process, in which both work with one thread: the
machine may be shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import lightgbm
import numpy as np
import shap
import xgboost
from sklearn.ensemble import RandomForestRegressor

import millrace as mr
from bench.harness import Bench, timed

ROWS, FEATURES = 10_000, 500
CAUGHT: dict[str, Any] = {"capture_output": True, "check": True, "text": True}


def data(rows: int = ROWS, features: int = FEATURES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    y = x[:, :20] @ rng.standard_normal(20) + x[:, 20] * x[:, 21] + np.sin(3 * x[:, 22]) + rng.standard_normal(rows)
    return x, y


def ours(model: Any, x: np.ndarray, background: np.ndarray | None = None) -> mr.Explanation:
    """As a user calls it, on one core in this process."""
    return mr.explain(model, x, background=background, precision="float32", engine="inline", cores=1)


ALONE = """
import sys, warnings
import joblib
warnings.simplefilter("ignore")
from bench.explain import ours
from bench.harness import peak_bytes
model, x, background = joblib.load(sys.argv[1])
ours(model, x[:2], background)
print(peak_bytes(lambda: ours(model, x, background)))
"""


def peak_alone(model: Any, x: np.ndarray, background: np.ndarray | None = None) -> int:
    """Growth of a process of its own that holds model, data and kernels: this one has memory that earlier work left it."""
    import joblib

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        joblib.dump((model, x, background), f"{folder}/question")
        return int(subprocess.run([sys.executable, "-c", ALONE, f"{folder}/question"], **CAUGHT).stdout)


def shap_path(model: Any, x: np.ndarray) -> object:
    return shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(x, check_additivity=False)


def shap_background(model: Any, x: np.ndarray, background: np.ndarray) -> object:
    masker = shap.maskers.Independent(background, max_samples=len(background))
    return shap.TreeExplainer(model, masker, feature_perturbation="interventional").shap_values(
        x, check_additivity=False
    )


def woodelf_values(model: Any, x: Any, background: Any = None) -> object:
    """woodelf wants frames; without the GPU."""
    from woodelf import WoodelfExplainer

    kind = "tree_path_dependent" if background is None else "interventional"
    return WoodelfExplainer(model, background, feature_perturbation=kind).shap_values(x, verbose=False)


def models(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    light = lightgbm.LGBMRegressor(n_estimators=300, num_leaves=31, n_jobs=1, verbose=-1).fit(x, y)
    return light, xgboost.XGBRegressor(n_estimators=300, max_depth=6, n_jobs=1).fit(x, y)


def boosted(bench: Bench, turns: int) -> None:
    x, y = data()
    frame = _frame(x)
    light, extreme = models(x, y)
    booster, matrix = extreme.get_booster(), xgboost.DMatrix(x[:1000], nthread=1)
    bench.against(
        "LightGBM 300 x 31, path-dependent",
        lambda: ours(light, x),
        {
            "LightGBM's own": (lambda: light.booster_.predict(x[:1000], pred_contrib=True, num_threads=1), 10, 25),
            "shap": (lambda: shap_path(light, x[:1000]), 10, 20),
            "woodelf": (lambda: woodelf_values(light, frame), 1, 5),
        },
        turns,
        "own and shap on 1,000 rows, scaled",
    )
    bench.against(
        "XGBoost 300 x depth 6, path-dependent",
        lambda: ours(extreme, x),
        {
            "XGBoost's own": (lambda: booster.predict(matrix, pred_contribs=True), 10, 60),
            "shap": (lambda: shap_path(extreme, x[:1000]), 10, 40),
            "woodelf": (lambda: woodelf_values(extreme, frame), 1, 12),
        },
        turns,
        "own and shap on 1,000 rows, scaled",
    )
    peak = peak_alone(light, x) - x.size * 4
    bench.figure("LightGBM 300 x 31: peak private memory beyond the answer", peak / 2**20, "MiB", 64 + 51)


def with_backgrounds(bench: Bench, turns: int) -> None:
    x, y = data()
    frame = _frame(x)
    for name, model, hold in zip(("LightGBM", "XGBoost"), models(x, y), (None, 10), strict=True):
        backgrounds(bench, name, model, x, frame, hold, turns)


def backgrounds(bench: Bench, name: str, model: Any, x: np.ndarray, frame: Any, hold: float | None, turns: int) -> None:
    few = 50
    peers: dict[str, Any] = {"shap": (lambda: shap_background(model, x[:few], x[:100]), ROWS / few, 200)}
    peers["woodelf"] = (lambda: woodelf_values(model, frame, frame[:100]), 1, hold)
    how = f"shap on {few} rows, scaled"
    first = bench.against(f"{name}, interventional, background 100", lambda: ours(model, x, x[:100]), peers, turns, how)
    few = 10
    bench.against(
        f"{name}, interventional, background 1,000",
        lambda: ours(model, x, x[:1000]),
        {"shap": (lambda: shap_background(model, x[:few], x[:1000]), ROWS / few, 1000)},
        turns,
        f"shap on {few} rows, scaled",
    )
    last = min(timed(lambda: ours(model, x, x), bench.clock) for _ in range(turns))
    bench.figure(f"{name}: time at background 10,000 over that at 100", last / first, "x", 4)


def forests(bench: Bench, turns: int) -> None:
    x, y = data()
    forest = RandomForestRegressor(100, max_depth=10, max_features=0.1, n_jobs=2, random_state=0).fit(x, y)
    few = 100
    bench.against(
        "random forest 100 x depth 10, path-dependent",
        lambda: ours(forest, x),
        {"shap": (lambda: shap_path(forest, x[:few]), ROWS / few, 20)},
        max(1, turns - 1),
        f"shap on {few} rows, scaled",
    )
    bench.figure("random forest 100 x depth 10: peak private memory", peak_alone(forest, x) / 2**20, "MiB", 400)


def deep_forests(bench: Bench, turns: int) -> None:
    x, y = data()
    deep = RandomForestRegressor(20, max_features=0.1, n_jobs=2, random_state=0).fit(x, y)
    part = x[:64]
    bench.against(
        "random forest 20 x unlimited depth, path-dependent",
        lambda: ours(deep, part),
        {"shap": (lambda: shap_path(deep, part[:8]), 8, 30)},
        max(1, turns - 1),
        "64 rows; shap on 8 rows, scaled",
    )
    bench.against(
        "random forest 20 x unlimited depth, background 100",
        lambda: ours(deep, part, x[:100]),
        {"shap": (lambda: shap_background(deep, part[:8], x[:100]), 8, 1)},
        max(1, turns - 1),
        "64 rows; shap on 8 rows, scaled",
    )


def one_row(bench: Bench, turns: int) -> None:
    """Warm, as a service asks: the model read and laid out before; numbers in, a checked answer out."""
    x, y = data()
    model = lightgbm.LGBMRegressor(n_estimators=300, num_leaves=31, n_jobs=1, verbose=-1).fit(x, y)
    explainer, row, behind = mr.explainer(model, digest="bench"), x[:1], x[:100]
    peers = {
        "LightGBM's own": (
            lambda: [model.booster_.predict(row, pred_contrib=True, num_threads=1) for _ in range(50)],
            1,
            2,
        ),
        "shap": (partial(_repeat, shap.TreeExplainer(model).shap_values, row), 1, 1.7),
    }
    took = bench.against(
        "one row, LightGBM 300 trees, warm (50 times)", lambda: [explainer.row(row[0]) for _ in range(50)], peers, 5
    )
    bench.figure("one row, LightGBM 300 trees, warm", took / 50 * 1e3, "ms", 1)
    known = mr.explainer(model, digest="bench", background=behind)
    masker = shap.maskers.Independent(behind, max_samples=len(behind))
    theirs = shap.TreeExplainer(model, masker, feature_perturbation="interventional")
    took = bench.against(
        "one row, the same, background 100 (50 times)",
        lambda: [known.row(row[0]) for _ in range(50)],
        {"shap": (partial(_repeat, partial(theirs.shap_values, check_additivity=False), row), 1, None)},
        3,
    )
    bench.figure("one row, LightGBM 300 trees, background 100, warm", took / 50 * 1e3, "ms", 1)
    pairs(bench, x)


def pairs(bench: Bench, x: np.ndarray) -> None:
    """Interaction values, on few features: the answer has their square."""
    y = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2])
    few = np.ascontiguousarray(x[:, :30])
    small = lightgbm.LGBMRegressor(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1).fit(few, y)
    part, explainer = few[:50], shap.TreeExplainer(small)
    bench.against(
        "LightGBM 100 x 31, 30 features, interactions, 2,000 rows",
        lambda: mr.explain(small, few[:2000], interactions=True, precision="float32", engine="inline", cores=1),
        {"shap": (lambda: explainer.shap_interaction_values(part), 2000 / len(part), None)},
        2,
        "shap on 50 rows, scaled",
    )


def _repeat(call: Callable[[np.ndarray], object], row: np.ndarray) -> None:
    for _ in range(50):
        call(row)


def _frame(x: np.ndarray) -> Any:
    import pandas

    return pandas.DataFrame(x, columns=[f"Column_{j}" for j in range(x.shape[1])])


FIRST = """
import sys, time
import numpy as np
rng = np.random.default_rng(0)
x = rng.standard_normal((500, 20)).astype("float32")
import lightgbm, millrace as mr
model = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1, n_jobs=1).fit(x, x[:, 0] * x[:, 1])
function = lambda z: z[:, 0] * z[:, 1]
question = {"path": (model, None), "tables": (model, x[:50]), "function": (function, x[:5])}[sys.argv[1]]
begun = time.process_time()
mr.explain(question[0], x[:20], background=question[1], engine="inline", precision="float32")
print(time.process_time() - begun)
"""


def first_use(bench: Bench, turns: int) -> None:
    """Processor time of the first call ever, with nothing compiled; and of the whole command when all is."""
    for kind in ("path", "tables", "function"):
        with tempfile.TemporaryDirectory() as cache:
            call = [sys.executable, "-c", FIRST, kind]
            took = [
                float(subprocess.run(call, env=os.environ | {"NUMBA_CACHE_DIR": cache}, **CAUGHT).stdout)
                for _ in range(2)
            ]
        bench.figure(f"first use, {kind}: processor time beyond a second use", took[0] - took[1], "s", 20)
    x, y = data()
    light, _ = models(x, y)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        light.booster_.save_model(f"{folder}/model.txt")
        np.save(f"{folder}/rows.npy", x)
        code = (
            "import sys, json, millrace as mr; a = mr.explain(sys.argv[1] + '/model.txt', sys.argv[1] + '/rows.npy', "
            "precision='float32', cores=2, engine='processes'); print(a.report.accounting.memory_bytes)"
        )
        took, memory = [], 0
        for _ in range(turns):
            begun = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code, folder], **CAUGHT)
            took.append(time.perf_counter() - begun)
            memory = max(memory, int(done.stdout))
    bench.figure("LightGBM 300 x 31, 10,000 x 500, 2 cores, process start included", min(took), "s", 2)
    bench.figure("the same: peak private memory of all processes", memory / 2**20, "MiB", 500)


def shapes(bench: Bench, turns: int) -> None:
    """Seconds and memory by the number of features and of background rows: 10,000 rows, LightGBM 300 x 31."""
    for features in (50, 500, 2_000):
        x, y = data(features=features)
        model = lightgbm.LGBMRegressor(n_estimators=300, num_leaves=31, n_jobs=1, verbose=-1).fit(x, y)
        for known in (0, 100, 1_000):
            background = x[:known] if known else None
            said = f"{features:,} features, {f'background {known:,}' if known else 'path-dependent'}"
            took = min(timed(lambda: ours(model, x, background), bench.clock) for _ in range(turns))  # noqa: B023
            bench.figure(f"10,000 rows x {said}", took, "s")
            answer = x.nbytes if x.nbytes <= 64 << 20 else 0  # a larger one lies in a mapped file
            peak = (peak_alone(model, x, background) - answer) / 2**20
            bench.figure(f"10,000 rows x {said}: peak beyond model, rows and answer", peak, "MiB")


def streamed(bench: Bench, turns: int) -> None:
    """Parquet to Parquet on two cores: seconds, memory, and how much of the work is reading and writing."""
    from bench import explain_stream

    explain_stream.measure(bench, 1_000_000 if turns == 1 else 10_000_000)


PARTS = {
    "boosted": boosted, "backgrounds": with_backgrounds, "forests": forests, "deep": deep_forests, "rows": one_row,
    "shapes": shapes, "first": first_use, "streamed": streamed,
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    turns = 1 if "--quick" in sys.argv else 3
    asked = [name for name in sys.argv[1:] if not name.startswith("--")] or list(PARTS)
    bench = Bench("explain", clock=time.process_time)
    for name in asked:
        PARTS[name](bench, turns)
        bench.keep()
        bench.write()  # what was measured stays, whatever becomes of the next part


if __name__ == "__main__":
    main()
