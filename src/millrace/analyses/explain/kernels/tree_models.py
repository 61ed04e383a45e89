"""Which reader for which model: `read_trees`.

A model is chosen by what it can do (its attributes and methods), never by its class's name, so that subclasses,
wrappers and other packages' forests are read as well. Returns None for what is no tree model; refuses by name what is
one but is not supported. Does not load files: a LightGBM text goes to `read_lightgbm`, XGBoost's bytes to
`read_xgboost`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from millrace.analyses.explain.kernels import voting
from millrace.analyses.explain.kernels.catboost import read_catboost
from millrace.analyses.explain.kernels.ensemble import Ensemble
from millrace.analyses.explain.kernels.lightgbm import read_lightgbm
from millrace.analyses.explain.kernels.sklearn_trees import read_sklearn
from millrace.analyses.explain.kernels.xgboost import read_xgboost
from millrace.run.errors import ModelTrouble, NotSupported


def read_trees(model: Any, labels: Mapping[int, tuple[Any, ...]] | None = None) -> Ensemble | None:
    """The trees of a fitted model, exactly those that its own `predict` uses; None when it is no tree model.

    LightGBM and XGBoost Boosters and their scikit-learn classes, CatBoost, scikit-learn's trees, forests and boosting, and voting
    and stacking over these where they sum their outputs. labels: of codes of the data's text columns,
    which CatBoost is asked about. Raises
    `NotSupported` for tree models that cannot be read (said by name), `ModelTrouble` for one that is not fitted or
    is damaged.
    """
    if hasattr(model, "get_tree_leaf_counts") and hasattr(model, "calc_leaf_indexes"):
        return read_catboost(model, labels)
    if hasattr(model, "model_to_string") and hasattr(model, "num_trees"):
        return read_lightgbm(model)
    if hasattr(model, "save_raw") and hasattr(model, "num_boosted_rounds"):
        return read_xgboost(model)
    # On the class: asking the object calls a property, which raises AttributeError when the model is not fitted.
    if hasattr(type(model), "booster_"):
        return _named(read_lightgbm(_fitted(model, lambda: model.booster_)), model)
    if hasattr(model, "get_booster") and hasattr(model, "get_xgb_params"):
        return _named(_read_xgboost_estimator(model), model)
    voted = voting.members(model)
    return read_sklearn(model) if voted is None else _read_sum(model, voted)


def _read_sum(model: Any, voted: voting.Sum) -> Ensemble | None:
    """Voting or stacking whose members are all trees with the output that is summed; None when some are not."""
    try:
        parts = [read_trees(member) for member in voted.members]
    except NotSupported:
        return None
    known = [part for part in parts if part is not None]
    classes = getattr(model, "classes_", None)
    names = None if classes is None else tuple(str(name) for name in classes)
    return voting.sum_of_trees(known, voted, names) if len(known) == len(parts) else None


def _read_xgboost_estimator(model: Any) -> Ensemble:
    """XGBoost's scikit-learn classes: they stop at best_iteration, and have a marker of missing values."""
    booster = _fitted(model, model.get_booster)
    missing = getattr(model, "missing", np.nan)
    if missing is not None and not np.isnan(missing):
        raise NotSupported(
            f"{type(model).__name__} takes {missing!r} for a missing value; tree kernels know only NaN. Put NaN in "
            "its place in the data and set model.set_params(missing=float('nan'))."
        )
    best = getattr(model, "best_iteration", None)
    return read_xgboost(booster, None if best is None else int(best) + 1)


def _fitted(model: Any, ask: Any) -> Any:
    # Both libraries raise scikit-learn's NotFittedError, which is one of these; without scikit-learn, one of its own.
    try:
        return ask()
    except (AttributeError, ValueError) as error:
        raise ModelTrouble(
            f"{type(model).__name__} is not fitted, so it has no trees. Call fit first. ({error})"
        ) from error


def _named(ensemble: Ensemble, model: Any) -> Ensemble:
    """The same trees with the classes' names, where the model has classes: one raw output is that of the second."""
    classes = getattr(model, "classes_", None)
    if classes is None:
        return ensemble
    names = tuple(str(name) for name in classes)
    if ensemble.n_outputs == 1 and len(names) == 2:
        return dataclasses.replace(ensemble, output_names=names[1:])
    if ensemble.n_outputs == len(names):
        return dataclasses.replace(ensemble, output_names=names)
    return ensemble
