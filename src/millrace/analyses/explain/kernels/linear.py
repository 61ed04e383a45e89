"""Linear models in closed form: value = coefficient times distance from the background's mean.

For f(x) = c . x + b and any background, the interventional Shapley value of column j is c_j (x_j - mean_j): exact,
with nothing sampled. What counts is what the object does, not what its class is called: it has `coef_` and
`intercept_`, and on rows drawn here its `decision_function` or `predict` is that sum, or the exponential of it (a
generalised linear model with log link, whose raw output is the sum). An object that has coefficients but computes
something else is not a linear model here (None), and `blackbox` takes it.

Explains raw output only: a probability is not linear in the columns. Pipelines go to `blackbox`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TRIED_ROWS = 16
_SEED = 20_240_229


@dataclass(frozen=True, slots=True)
class Linear:
    """coefficients: (outputs, columns); intercepts: (outputs,). unit: of the output, in words."""

    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    output_names: tuple[str, ...]
    unit: str

    def raw(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """rows[n, columns] -> (n, outputs). Sums column by column, so a row's output does not depend on the others."""
        out = np.empty((len(rows), len(self.intercepts)))
        for k, row in enumerate(self.coefficients):
            out[:, k] = np.add.reduce(rows * row, axis=1) + self.intercepts[k]
        return out

    def arrays(self) -> dict[str, Any]:
        """Plain values by name: what a store keeps."""
        return {
            "coefficients": self.coefficients,
            "intercepts": self.intercepts,
            "output_names": list(self.output_names),
            "unit": self.unit,
        }

    @classmethod
    def from_arrays(cls, mapping: Mapping[str, Any]) -> Linear:
        """The inverse of `arrays`; other names in the mapping are left alone."""
        names = tuple(str(name) for name in mapping["output_names"])
        return cls(mapping["coefficients"], mapping["intercepts"], names, str(mapping["unit"]))


def read_linear(model: Any) -> Linear | None:
    """The linear function that a fitted model computes, checked against the model itself; None when it is not one.

    Least squares, ridge, lasso and their like, linear support vectors, and the raw scores of linear classifiers
    (`decision_function`: log-odds for logistic regression; with two classes one score, for the second). Generalised
    linear models with log link: the logarithm of what they predict.
    """
    coefficients, intercepts = getattr(model, "coef_", None), getattr(model, "intercept_", None)
    if coefficients is None or intercepts is None:
        return None
    coefficients = coefficients.toarray() if hasattr(coefficients, "toarray") else coefficients
    try:
        coefficients = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
        intercepts = np.asarray(intercepts, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    if coefficients.ndim != 2 or not coefficients.size:
        return None
    if len(intercepts) == 1:  # fit_intercept=False leaves a single 0
        intercepts = np.repeat(intercepts, len(coefficients))
    if len(intercepts) != len(coefficients) or not (np.isfinite(coefficients).all() and np.isfinite(intercepts).all()):
        return None
    names, unit = _outputs(model, len(coefficients))
    linear = Linear(np.ascontiguousarray(coefficients), intercepts, names, unit)
    link = _link(model, linear)
    if link is None:
        return None
    return linear if link == "identity" else Linear(linear.coefficients, intercepts, names, f"log of {unit}")


def explain_linear(
    linear: Linear,
    rows: NDArray[Any],
    background_mean: NDArray[Any],
    player_of: NDArray[np.int64] | None = None,
    players: int = 0,
) -> NDArray[np.float64]:
    """Shapley values (n, players, outputs) of rows[n, columns] against a background of this (weighted) mean[columns].

    player_of: each column's player, None: itself; the value of several columns together is the sum of theirs. The base
    value is `linear.raw(mean)`; base and values add up to `linear.raw(rows)`.
    """
    away = np.asarray(rows, dtype=np.float64) - background_mean
    each = away[:, :, None] * np.ascontiguousarray(linear.coefficients.T)
    return each if player_of is None else by_player(each, player_of, players)


def by_player(each: NDArray[np.float64], player_of: NDArray[np.int64], players: int) -> NDArray[np.float64]:
    """Values (n, columns, outputs) as (n, players, outputs): those of a player's columns are summed."""
    if np.array_equal(player_of, np.arange(players)):
        return each
    values = np.zeros((len(each), players, each.shape[2]))
    for column, player in enumerate(player_of.tolist()):
        values[:, player] += each[:, column]
    return values


def _outputs(model: Any, count: int) -> tuple[tuple[str, ...], str]:
    """(names, unit): of the classes where there is one score for each, or one for the second of two."""
    classes = getattr(model, "classes_", None)
    if classes is None or isinstance(classes, list):
        return ("output",) if count == 1 else tuple(f"output {k}" for k in range(count)), "the model's output"
    names = tuple(str(name) for name in np.asarray(classes).ravel())
    names = names[1:] if count == 1 and len(names) == 2 else names
    if len(names) != count:
        names = ("output",) if count == 1 else tuple(f"output {k}" for k in range(count))
    kind = "log-odds" if callable(getattr(model, "predict_log_proba", None)) else "score"
    return names, f"{kind} of {names[0]}" if count == 1 else kind


def _link(model: Any, linear: Linear) -> str | None:
    """'identity' when the model's own output is the linear sum, 'log' when its logarithm is, None when neither."""
    ask = getattr(model, "decision_function", None) or getattr(model, "predict", None)
    if not callable(ask):
        return None
    rows = _trial_rows(linear)
    expected, found = linear.raw(rows), _ask(ask, rows)
    if found is None or found.shape != expected.shape:
        return None
    # Close to what the model itself computes in: a wider margin would hide a bend behind a large intercept.
    precision = 1e-6 if np.asarray(model.coef_).dtype == np.float32 else 1e-11
    allowed = precision * (np.ptp(expected, axis=0).max() + np.abs(expected).max())
    if np.abs(found - expected).max() <= allowed:
        return "identity"
    return "log" if (found > 0).all() and np.abs(np.log(found) - expected).max() <= allowed else None


def _ask(ask: Any, rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
    with warnings.catch_warnings():
        # The rows are in the coefficients' order, and a model that was fitted on a table may say that it misses names.
        warnings.filterwarnings("ignore", message=".*feature names.*")
        try:
            found = np.asarray(ask(rows))
        except (TypeError, ValueError, AttributeError):  # takes something else than rows of numbers
            return None
    sound = found.dtype.kind in "fiu" and found.ndim in (1, 2) and len(found) == len(rows)
    return found.reshape(len(rows), -1).astype(np.float64) if sound and np.isfinite(found).all() else None


def _trial_rows(linear: Linear) -> NDArray[np.float64]:
    """Rows on which every column matters and the sum moves by about 1, so that its exponential is no trouble."""
    rng = np.random.default_rng(_SEED)
    scale = np.abs(linear.coefficients).max(axis=0)
    steps = rng.normal(size=(_TRIED_ROWS, linear.coefficients.shape[1]))
    return steps / np.where(scale > 0, scale, 1.0) / np.sqrt(steps.shape[1])
