"""A tree model's probabilities as a function of rows, where the model object has none (a Booster read from a file)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble, apply_link, predict


@dataclass(frozen=True)
class TreeProbability:
    """`forest` with a link that gives probabilities; `classes_`: their names."""

    forest: Ensemble
    classes_: tuple[str, ...]

    def predict_proba(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """rows[n, features] -> (n, classes)."""
        told = apply_link(self.forest, predict(self.forest, rows))
        return np.concatenate([1.0 - told, told], axis=1) if told.shape[1] == 1 else told


def tree_probability(forest: Ensemble) -> TreeProbability | None:
    """None when the link gives no probabilities."""
    if forest.link.partition(":")[0] not in ("logit", "softmax", "one_vs_all"):
        return None
    names = forest.output_names
    if len(names) == 1:
        names = ("0", "1") if names[0] == "output" else (f"not {names[0]}", names[0])
    return TreeProbability(forest, names)
