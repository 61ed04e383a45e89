"""Kernel SHAP beside shap.KernelExplainer and beside the model's own time: one core, the same evaluations.

`python -m bench.explain_kernel [--quick]`. shap is asked for all features (its default keeps ten) and gets few rows,
scaled. Ours counts the making of the design. Errors are against exact values: all coalitions, and trees.
"""

from __future__ import annotations

import os
import sys

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import logging
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import shap
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC, SVR

from bench.harness import Bench, timed
from millrace.analyses.explain.kernels.coalitions import BATCH_ROWS, Estimate, design, explain_rows

Predict = Callable[[np.ndarray], np.ndarray]


def data(features: int, rows: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, features))
    y = x @ (rng.standard_normal(features) * np.exp(-np.arange(features) / (features / 4)))
    return x, y + 2 * x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) * x[:, 3] + 1.5 * x[:, 0] * x[:, 1] * (x[:, 4] > 0)


def ours(
    predict: Predict, x: np.ndarray, background: np.ndarray, evaluations: int | None = None, seed: int = 0
) -> Estimate:
    return explain_rows(predict, x, background, None, design(x.shape[1], evaluations, np.random.default_rng(seed)))


def theirs(
    predict: Predict, x: np.ndarray, background: np.ndarray, evaluations: Any = "auto", seed: int = 0
) -> np.ndarray:
    np.random.seed(seed)
    explainer = shap.KernelExplainer(predict, background)
    return np.asarray(explainer.shap_values(x, nsamples=evaluations, l1_reg=False, silent=True))


def network(features: int) -> tuple[Predict, np.ndarray]:
    x, y = data(features)
    return MLPClassifier(hidden_layer_sizes=(100,), max_iter=15, random_state=0).fit(x, y > 0).predict_proba, x


def speed(bench: Bench, turns: int) -> None:
    for case in ((50, 100, 12, 2, 1.8), (50, 10, 100, 4, None), (50, 1, 800, 10, 15), (500, 100, 2, 1, 4)):
        one_shape(bench, turns, *case)


def one_shape(
    bench: Bench, turns: int, features: int, background: int, rows: int, few: int, hold: float | None
) -> None:
    """The design is made once for all rows of a run, so its time is told apart from that of rows."""
    predict, x = network(features)
    part, back = x[-rows:], x[:background]
    said = f"kernel: MLP, {features} features, background {background}"
    plan = design(features, None, np.random.default_rng(0))
    batch = np.tile(x, (-(-BATCH_ROWS // len(x)), 1))[:BATCH_ROWS]
    calls = max(1, round((2 * features + 2048) * background * few / BATCH_ROWS))
    scale = (2 * features + 2048) * background * rows / (calls * BATCH_ROWS)
    peers: dict[str, Any] = {
        "shap": (lambda: theirs(predict, part[:few], back), rows / few, hold),
        "the model alone": (
            lambda: [predict(batch) for _ in range(calls)], scale, 1 / 1.2 if background == 100 else None
        ),
    }  # fmt: skip
    how = f"shap on {few} rows, scaled"
    took = bench.against(
        f"{said}, {rows} rows", lambda: explain_rows(predict, part, back, None, plan), peers, turns, how
    )
    bench.figure(f"{said}: one row", took / rows * 1e3, "ms")
    peak = peak_mib(lambda: explain_rows(lambda z: z[:, :2], part[:1], back, None, plan))
    bench.figure(f"{said}: peak beside model and design", peak, "MiB", 16)


def peak_mib(work: Callable[[], object]) -> float:
    """MiB that numpy holds at most at once."""
    work()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def kinds(features: int) -> dict[str, Predict]:
    x, y = data(features)
    process = GaussianProcessRegressor(RBF(features**0.5) + WhiteKernel(0.1), optimizer=None, normalize_y=True)
    margin = SVC(gamma=1 / features).fit(x[:500], y[:500] > 0)
    classifier = MLPClassifier(hidden_layer_sizes=(50,), max_iter=30, random_state=0).fit(x, y > 0)
    return {
        "MLP": MLPRegressor(hidden_layer_sizes=(50, 50), max_iter=40, random_state=0).fit(x, y).predict,
        "MLP probability": lambda rows: classifier.predict_proba(rows)[:, 1],
        "SVR": SVR(C=10, gamma=1 / features).fit(x[:500], y[:500]).predict,
        "SVC margin": margin.decision_function,
        "kNN": KNeighborsRegressor(8).fit(x[:500], y[:500]).predict,
        "GP": process.fit(x[:400], y[:400]).predict,
        "LightGBM": lightgbm.LGBMRegressor(n_estimators=100, verbose=-1, n_jobs=1).fit(x, y).predict,
        "random forest": RandomForestRegressor(20, max_depth=9, random_state=0).fit(x, y).predict,
    }


def designs(bench: Bench) -> None:
    for features in (50, 500):
        took = min(timed(lambda: design(features, None, np.random.default_rng(0))) for _ in range(3))  # noqa: B023
        bench.figure(f"kernel: the design for {features} features, once a run", took, "s")


def errors(bench: Bench, turns: int) -> None:
    """Mean absolute error of ours over that of shap, at the same evaluations."""
    features = 13
    x, _ = data(features)
    ratios = []
    for kind, predict in kinds(features).items():
        exact = ours(predict, x[-3:], x[:3], 2**features - 2).values[:, :, 0]
        ratios.append(_ratio(predict, x[-3:], x[:3], exact, turns))
        bench.figure(f"kernel: error over shap's, 13 features, {kind}", ratios[-1], "x")
    bench.figure("kernel: error over shap's, 13 features, mean of all kinds", float(np.mean(ratios)), "x", 0.75)
    for features in (30, 100):
        x, y = data(features)
        trees = {
            "boosting": GradientBoostingRegressor(n_estimators=60, max_depth=5, random_state=0).fit(x, y),
            "random forest": RandomForestRegressor(20, max_depth=9, max_features=0.3, random_state=0).fit(x, y),
            "LightGBM": lightgbm.LGBMRegressor(n_estimators=100, verbose=-1, n_jobs=1).fit(x, y),
        }
        ratios = []
        for kind, model in trees.items():
            explainer = shap.TreeExplainer(model, x[:3], feature_perturbation="interventional")
            exact = explainer.shap_values(x[-3:], check_additivity=False)
            ratios.append(_ratio(model.predict, x[-3:], x[:3], exact, turns))
            bench.figure(f"kernel: error over shap's, {features} features, {kind}", ratios[-1], "x")
        bench.figure(
            f"kernel: error over shap's, {features} features, mean of all kinds", float(np.mean(ratios)), "x", 0.75
        )


def _ratio(predict: Predict, x: np.ndarray, background: np.ndarray, exact: np.ndarray, turns: int) -> float:
    evaluations = 2 * x.shape[1] + 2048
    mine, other = [], []
    for seed in range(turns):
        mine.append(np.abs(ours(predict, x, background, evaluations, seed).values[:, :, 0] - exact).mean())
        other.append(np.abs(theirs(predict, x, background, evaluations, seed) - exact).mean())
    return float(np.mean(mine) / np.mean(other))


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("shap").setLevel(logging.ERROR)
    turns = 1 if "--quick" in sys.argv else 3
    bench = Bench("explain_kernel")
    speed(bench, turns)
    designs(bench)
    errors(bench, turns)
    bench.write()


if __name__ == "__main__":
    main()
