"""Ensembles of models by linearity: the weighted mean of members whose outputs are sums is a sum again.

Voting regressors, voting classifiers that average probabilities, and stacking whose last model is linear in what its members
predict: members that are all trees with that output, or all linear. Mixed members, votes of labels and stacking of classes
are no sums here (None), and are explained as functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble
from millrace.analyses.explain.kernels.linear import Linear, read_linear


@dataclasses.dataclass(frozen=True, slots=True)
class Sum:
    """Fitted members, the share of each, and what is added to their weighted sum."""

    members: list[Any]
    shares: NDArray[np.float64]
    constant: float = 0.0


def members(model: Any) -> Sum | None:
    """What predicts a weighted sum of its members; None for all else.

    Known by what it has: named members that were fitted, and weights, or a linear model that learnt from theirs.
    """
    fitted, named = getattr(model, "estimators_", None), getattr(model, "named_estimators_", None)
    if not isinstance(fitted, list) or named is None:
        return None
    if hasattr(model, "final_estimator_"):
        return _stacked(model, fitted)
    if not hasattr(model, "weights") or getattr(model, "voting", "soft") != "soft":
        return None
    if model.weights is None:
        return Sum(fitted, np.full(len(fitted), 1.0 / len(fitted)))
    kept = [w for (_, one), w in zip(model.estimators, model.weights, strict=True) if not _is_dropped(one)]
    return Sum(fitted, np.asarray(kept, np.float64) / np.sum(kept))


def _stacked(model: Any, fitted: list[Any]) -> Sum | None:
    """A stack of regressors under a linear model that sees their predictions alone."""
    if hasattr(model, "classes_") or getattr(model, "passthrough", True) or set(model.stack_method_) != {"predict"}:
        return None
    line = read_linear(model.final_estimator_)
    if line is None or line.coefficients.shape != (1, len(fitted)) or line.unit.startswith("log of"):
        return None
    return Sum(fitted, line.coefficients[0], float(line.intercepts[0]))


def _is_dropped(estimator: Any) -> bool:
    return isinstance(estimator, str)


def sum_of_trees(parts: Sequence[Ensemble], voted: Sum, names: tuple[str, ...] | None) -> Ensemble | None:
    """The members' trees as one ensemble; None when their raw outputs are not what is averaged."""
    links = {part.link for part in parts}
    if len({(part.width, part.n_outputs, part.n_features) for part in parts}) != 1 or len(links) != 1:
        return None
    if links - {"identity", "probability"}:
        return None
    mixed = len({part.float32_inputs for part in parts}) > 1
    parts = [comparing_in_float64(part) if mixed and part.float32_inputs else part for part in parts]
    nodes = np.cumsum([0, *(part.n_nodes for part in parts)])
    sets = np.cumsum([0, *(len(part.category_member) for part in parts)])

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def moved(name: str, by: NDArray[np.int64]) -> NDArray[Any]:
        own = [np.where(getattr(p, name) >= 0, getattr(p, name) + k, -1) for p, k in zip(parts, by, strict=False)]
        return np.concatenate(own)

    return dataclasses.replace(
        parts[0],
        **{name: joined(name) for name in (
            "feature", "threshold", "cover", "mode", "category_count", "category_member", "tree_output",
        )},
        left=moved("left", nodes), right=moved("right", nodes), category_start=moved("category_start", sets),
        value=np.concatenate([share * part.value for part, share in zip(parts, voted.shares, strict=True)]),
        tree_start=np.concatenate([*(p.tree_start[:-1] + k for p, k in zip(parts, nodes, strict=False)), nodes[-1:]]),
        base=voted.constant + sum(share * part.base for part, share in zip(parts, voted.shares, strict=True)),
        output_names=names or parts[0].output_names,
    )  # fmt: skip


def sum_of_lines(parts: Sequence[Linear], voted: Sum) -> Linear | None:
    """The members' linear functions as one; None when they are not of one shape, or some are logarithms."""
    if len({part.coefficients.shape for part in parts}) != 1 or any(p.unit != parts[0].unit for p in parts):
        return None
    if parts[0].unit.startswith("log of"):
        return None
    return dataclasses.replace(
        parts[0],
        coefficients=sum(share * part.coefficients for part, share in zip(parts, voted.shares, strict=True)),
        intercepts=voted.constant
        + sum(share * part.intercepts for part, share in zip(parts, voted.shares, strict=True)),
    )


def comparing_in_float64(ensemble: Ensemble) -> Ensemble:
    """The same decisions without rounding inputs: z rounds to a float32 that is not above the threshold exactly when z is
    not above the middle between the largest such float32 and the next (the tie goes to the even one of the two)."""
    with np.errstate(over="ignore"):
        largest = ensemble.threshold.astype(np.float32)
    largest = np.where(largest > ensemble.threshold, np.nextafter(largest, np.float32(-np.inf)), largest)
    wide = largest.astype(np.float64)
    above = np.nextafter(largest, np.float32(np.inf)).astype(np.float64)
    # Beyond the last float32 the next would be 2^128, which rounding treats as if it were there.
    above = np.where(np.isinf(above), np.copysign(2.0**128, above), above)
    below_all = largest == -np.inf
    middle = np.where(np.isfinite(wide), wide / 2 + above / 2, np.where(below_all, -(2.0**128 - 2.0**103), wide))
    even = largest.astype(np.float32).view(np.uint32) % 2 == 0
    bound = np.where(even | ~np.isfinite(wide), middle, np.nextafter(middle, -np.inf))
    numbers = (ensemble.feature >= 0) & (ensemble.mode < 4)
    return dataclasses.replace(ensemble, threshold=np.where(numbers, bound, ensemble.threshold), float32_inputs=False)
