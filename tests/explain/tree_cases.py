"""Data, and fitted LightGBM and XGBoost models, that the tests of tree models share."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from random_trees import random_rows

from millrace.analyses.explain.kernels.ensemble import Ensemble

Rows = NDArray[Any]
# Columns 4 (codes 0-69) and 5 (codes 0-5) are categories where a model has any.
N, P, CATEGORY, FEW = 300, 6, 4, 5


def table(missing: float = 0.1) -> Rows:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((N, P))
    rows[:, 3] = rng.poisson(0.7, N)  # many zeros
    rows[:, CATEGORY] = rng.choice([0, 1, 2, 3, 5, 8, 13, 21, 31, 32, 33, 40, 63, 64, 69], N)
    rows[:, FEW] = rng.integers(0, 6, N)
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def target(rows: Rows) -> Rows:
    known = np.nan_to_num(rows)
    odd = np.isin(known[:, CATEGORY], [2, 5, 33, 64]) + 0.5 * (known[:, FEW] % 2) - np.isnan(rows[:, 0])
    return np.asarray(known[:, 0] * known[:, 1] + np.sin(known[:, 2]) + odd + 0.3 * known[:, 3])


def three(values: Rows) -> Rows:
    return np.digitize(values, [0.3, 1.2])


def hostile(model: Ensemble, most: float = np.inf, missing: bool = True) -> Rows:
    """Rows on the thresholds and beside them, far away (not beyond `most`), unknown and negative categories, NaN."""
    rows = random_rows(np.random.default_rng(11), model, 400, 0.15 if missing else 0.0)
    return np.clip(rows, -most, most)


def close(ours: Rows, theirs: Any, tolerance: float = 1e-12) -> None:
    theirs = np.asarray(theirs, np.float64).reshape(ours.shape)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


Y = target(table())
POSITIVE = np.exp(Y / 3)
SHARE = 1 / (1 + np.exp(-Y))
WEIGHTS = np.random.default_rng(2).random(N) * (np.arange(N) % 3)


def lightgbm_model(
    rounds: int = 12, categories: bool = False, label: Any = None, weight: Any = None, **parameters: Any
) -> lightgbm.Booster:
    rows = table(0.0 if parameters.get("zero_as_missing") else 0.1)
    if parameters.get("zero_as_missing"):
        rows[np.abs(rows) < 0.3] = 0.0
    label = target(rows) if label is None else label
    data = lightgbm.Dataset(
        rows,
        label,
        weight=weight,
        categorical_feature=[CATEGORY, FEW] if categories else [],
        free_raw_data=False,
    )
    usual = {
        "verbose": -1, "num_leaves": 15, "min_data_in_leaf": 3, "min_data_per_group": 3, "cat_smooth": 1, "seed": 1,
        "num_threads": 1,
    }  # fmt: skip
    return lightgbm.train(usual | parameters, data, rounds)


def xgboost_data(rows: Rows, label: Any = None, categories: bool = False, **more: Any) -> xgboost.DMatrix:
    kinds = ["c" if categories and column in (CATEGORY, FEW) else "q" for column in range(P)]
    return xgboost.DMatrix(rows, label, feature_types=kinds, enable_categorical=categories, **more)


def xgboost_model(
    rounds: int = 12, categories: bool = False, label: Any = None, weight: Any = None, **parameters: Any
) -> xgboost.Booster:
    label = Y if label is None else label
    data = xgboost_data(table(), label, categories, weight=weight)
    if parameters.get("objective") == "survival:aft":
        data = xgboost_data(table(), None, categories)
        data.set_float_info("label_lower_bound", label)
        data.set_float_info("label_upper_bound", label * 1.5)
    return xgboost.train({"max_depth": 4, "nthread": 1, "seed": 1} | parameters, data, rounds)
