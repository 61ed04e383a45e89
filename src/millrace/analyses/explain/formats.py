"""What one explained row looks like outside: full, top_k, narrative, minimal. Pure functions of a `RowAnswer`.

Plain mappings, lists, numbers and text, so that any service may send them. Sums are of all features, never of the ones
that are shown; sentences say nothing that is not in the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.explain.importance import figure, of_unit
from millrace.analyses.explain.pictures import told

if TYPE_CHECKING:
    from millrace.analyses.explain.warm import RowAnswer

FORMATS = ("full", "top_k", "narrative", "minimal")


def formatted(answer: RowAnswer, form: str = "full", top: int = 5) -> dict[str, Any]:
    """The answer in one of `FORMATS`; `ValueError` for another."""
    makers = {"full": full, "minimal": minimal}
    if form in makers:
        return makers[form](answer)
    if form == "top_k":
        return top_k(answer, top)
    if form == "narrative":
        return narrative(answer, top)
    raise ValueError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")


def full(answer: RowAnswer) -> dict[str, Any]:
    """Every feature with its value and its share of every output."""
    return _head(answer) | {
        "outputs": [
            _output(answer, k) | {"features": [_feature(answer, j, k) for j in range(len(answer.feature_names))]}
            for k in range(len(answer.output_names))
        ]
    }


def top_k(answer: RowAnswer, top: int = 5) -> dict[str, Any]:
    """The strongest features of every output; `others` is the sum of the rest, so that all still adds up."""
    outputs = []
    for k in range(len(answer.output_names)):
        first = _strongest(answer, k)[:top]
        rest = float(answer.values[:, k].sum() - answer.values[first, k].sum())
        outputs.append(
            _output(answer, k) | {"features": [_feature(answer, j, k) for j in first], "others": rest,
                                  "other_features": len(answer.feature_names) - len(first)}
        )  # fmt: skip
    return _head(answer) | {"outputs": outputs}


def narrative(answer: RowAnswer, top: int = 5) -> dict[str, Any]:
    """One sentence about the prediction and one a feature, in the unit of the output."""
    said = []
    for k, name in enumerate(answer.output_names):
        of = "" if len(answer.output_names) == 1 else f" of {name}"
        unit = of_unit(answer.unit)
        said.append(
            f"The prediction{of} is {figure(answer.predictions[k])}{unit}, where {figure(answer.base_values[k])} is expected "
            "before anything is known."
        )
        shown = [j for j in _strongest(answer, k)[:top] if answer.values[j, k] != 0.0]
        for j in shown:
            moved = float(answer.values[j, k])
            way = "raises" if moved > 0 else "lowers"
            doubt = (
                "" if answer.standard_errors is None else f" (standard error {figure(answer.standard_errors[j, k])})"
            )
            said.append(
                f"{answer.feature_names[j]} = {told(answer.data[j], j, answer.categories)} {way} it by "
                f"{figure(abs(moved))}{unit}{doubt}."
            )
        rest = len(answer.feature_names) - len(shown)
        if rest:
            left = float(answer.values[:, k].sum() - answer.values[shown, k].sum())
            said.append(f"The other {rest} features together move it by {figure(left)}{unit}.")
    return _head(answer) | {"sentences": said}


def minimal(answer: RowAnswer) -> dict[str, Any]:
    """Predictions, base values and values, in the order of the names; nothing else."""
    return {
        "predictions": answer.predictions.tolist(),
        "base_values": answer.base_values.tolist(),
        "values": answer.values.T.tolist(),
    }


def _head(answer: RowAnswer) -> dict[str, Any]:
    return {
        "unit": answer.unit,
        "method": answer.method,
        "exact": answer.exact,
        "additivity_error": answer.additivity_error,
        "model_digest": answer.model_digest,
    }


def _output(answer: RowAnswer, k: int) -> dict[str, Any]:
    return {
        "name": answer.output_names[k],
        "prediction": float(answer.predictions[k]),
        "base_value": float(answer.base_values[k]),
        "sum_of_values": float(answer.values[:, k].sum()),
    }


def _feature(answer: RowAnswer, j: int, k: int) -> dict[str, Any]:
    own = float(answer.data[j])
    labels = answer.categories.get(j)
    shown: Any = None if np.isnan(own) else labels[int(own)] if labels is not None else own
    found = {"feature": answer.feature_names[j], "data": shown, "value": float(answer.values[j, k])}
    if answer.standard_errors is not None:
        found["standard_error"] = float(answer.standard_errors[j, k])
    return found


def _strongest(answer: RowAnswer, k: int) -> list[int]:
    return np.argsort(-np.abs(answer.values[:, k]), kind="stable").tolist()
