"""What model libraries tell of a fitted model besides its trees: columns, categories, its own output.

By what the object can do, never by its class's name. Does not parse trees: see `tree_models`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble, apply_link, predict
from millrace.run.errors import ModelTrouble, WrongQuestion

SAMPLE_ROWS = 256
Labels = Mapping[int, tuple[Any, ...]]
"""Labels of coded columns, by column."""

PLACEHOLDER = re.compile(r"(Column_|f)\d+")


def column_names(model: Any) -> tuple[str, ...] | None:
    """The columns that the model was fitted on, None when it does not know names."""
    light, extreme = _lightgbm(model), _xgboost(model)
    if light is not None:
        names = light.feature_name()
    elif extreme is not None:
        names = extreme.feature_names
    elif _catboost(model):
        names = model.feature_names_ if model.is_fitted() else None
        if names is not None and list(names) == [str(j) for j in range(len(names))]:
            return None
    else:
        names = getattr(model, "feature_names_in_", None)
    if names is None or all(PLACEHOLDER.fullmatch(str(n)) for n in names):
        return None  # made up by the library, since the model was fitted on an array
    return tuple(map(str, names))


def n_columns(model: Any) -> int | None:
    """How many columns the model takes, None when it does not know."""
    light, extreme = _lightgbm(model), _xgboost(model)
    if light is not None:
        return int(light.num_feature())
    if extreme is not None:
        return int(extreme.num_features())
    if _catboost(model):  # one that was loaded from a file says 0
        return len(model.feature_names_) if model.is_fitted() else None
    known = getattr(model, "n_features_in_", None)
    return None if known is None else int(known)


def category_labels(model: Any, own: Labels) -> dict[int, tuple[Any, ...]] | None:
    """Labels of the model's codes for these columns of the data; None when the model does not remember any.

    own: the data's labels. CatBoost has no codes: its trees are read for those of the data.
    """
    if _catboost(model):
        return dict(own)
    columns = tuple(own)
    light, extreme = _lightgbm(model), _xgboost(model)
    if light is not None:
        known = light.pandas_categorical or []
        if len(known) != len(columns):
            return None
        return {j: tuple(labels) for j, labels in zip(sorted(columns), known, strict=True)}
    if extreme is not None and hasattr(extreme, "get_categories"):
        stored = extreme.get_categories(export_to_arrow=True).to_arrow() or []
        labels = {j: tuple(a.to_pylist()) for j, (_, a) in enumerate(stored) if a is not None}
        return {j: labels[j] for j in columns} if set(columns) <= set(labels) else None
    return None


def has_no_codes(model: Any) -> bool:
    """Whether the model takes labels, and its trees are read for those of the data."""
    return _catboost(model)


def check_own_output(model: Any, forest: Ensemble, rows: NDArray[Any], labels: Labels | None = None) -> None:
    """Compare the trees that were read with the model's own prediction on some rows; `ModelTrouble` when they differ.

    Additivity is checked on every row against the trees; this says that the trees are the model's.
    """
    step = max(1, len(rows) // SAMPLE_ROWS)
    sample = np.ascontiguousarray(rows[::step][:SAMPLE_ROWS])
    raw = predict(forest, sample)
    given = _with_labels(sample, labels) if labels and _catboost(model) else sample
    own, mine = _own_and_mine(model, forest, given, raw)
    scale = max(1.0, float(np.abs(own).max()))
    allowed = scale * (2e-5 if forest.float32_inputs or own.dtype == np.float32 else 1e-9)
    gap = np.abs(own - mine)
    if not gap.max() <= allowed:
        raise ModelTrouble(
            f"The trees that were read from the model do not give its own prediction: in a row of the data they differ by "
            f"{gap.max():.3g} (allowed {allowed:.1g}). The model may have been changed after fitting, or uses something that "
            "this release does not read. Use method='kernel', which only calls the model."
        )


def _with_labels(sample: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """The rows with their labels in place of codes."""
    given = sample.astype(object)
    for column, own in labels.items():
        given[:, column] = np.array(own, object)[sample[:, column].astype(np.int64)]
    return given


def _own_and_mine(model: Any, forest: Ensemble, sample: Any, raw: NDArray[Any]) -> tuple[Any, Any]:
    """The same quantity by the library and by the trees: raw output where the library tells it."""
    light, extreme = _lightgbm(model), _xgboost(model)
    if light is not None:
        return _columns(light.predict(sample, raw_score=True, num_threads=1)) / _summed(light), raw
    if extreme is not None:
        return _columns(_margin(model, extreme, sample)), raw
    if _catboost(model):
        return _columns(model.predict(sample, prediction_type="RawFormulaVal", thread_count=1)), raw
    mine = apply_link(forest, raw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        if forest.link.startswith("isolation"):
            return _columns(model.score_samples(sample)), mine
        if hasattr(model, "decision_function"):
            return _columns(model.decision_function(sample)).astype(np.float64), raw
        own = _columns(model.predict_proba(sample) if hasattr(model, "predict_proba") else model.predict(sample))
    if mine.shape[1] == 1 and own.shape[1] == 2:
        own = own[:, 1:]
    return own.astype(np.float64), mine


def _summed(booster: Any) -> int:
    """Of how many trees LightGBM's raw output is the sum where its prediction is their mean (boosting=rf), else 1."""
    if "\naverage_output\n" not in booster.model_to_string(num_iteration=1):
        return 1
    return int(booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration())


def _margin(model: Any, booster: Any, sample: NDArray[Any]) -> Any:
    import xgboost

    best = getattr(model, "best_iteration", None) if model is not booster else None
    rounds = (0, 0) if best is None else (0, int(best) + 1)
    try:
        matrix = xgboost.DMatrix(
            sample, feature_names=booster.feature_names, feature_types=booster.feature_types, nthread=1,
            enable_categorical=True,
        )  # fmt: skip
        return booster.predict(matrix, output_margin=True, iteration_range=rounds)
    except ValueError as e:  # xgboost's own error is one: infinite values, categories beyond those it knows
        first = str(e).strip().partition("\n")[0]
        raise WrongQuestion(f"XGBoost cannot predict on these rows: {first}.") from e


def _columns(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array


def _lightgbm(model: Any) -> Any:
    """The LightGBM booster of a model, None when it has none."""
    if hasattr(model, "model_to_string") and hasattr(model, "num_trees"):
        return model
    return model.booster_ if hasattr(type(model), "booster_") else None


def _catboost(model: Any) -> bool:
    return hasattr(model, "get_tree_leaf_counts") and hasattr(model, "calc_leaf_indexes")


def _xgboost(model: Any) -> Any:
    if hasattr(model, "save_raw") and hasattr(model, "num_boosted_rounds"):
        return model
    return model.get_booster() if hasattr(model, "get_booster") and hasattr(model, "get_xgb_params") else None
