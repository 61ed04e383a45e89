"""CatBoost's model document (its JSON) -> `Ensemble`.

What CatBoost predicts and this matches: inputs are float32 and x > border goes right; a missing value goes the way
that its column says (`nan_value_treatment`); leaves are multiplied by the model's scale and added to its bias. Trees
of all growing policies: symmetric ones become full binary trees, whose leaf k is reached by the bits of k, the first
split being the lowest. Covers are the sums of leaf weights, as CatBoost's own ShapValues count them.

Categorical, text and embedding columns are refused by name: their splits ask statistics of the training data, not
the row's value, so the trees are no function of the columns by themselves. The kernel method answers them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.assemble import Nodes, assemble
from millrace.analyses.explain.kernels.ensemble import NAN_LEFT, NAN_RIGHT, Ensemble
from millrace.run.errors import ModelTrouble, NotSupported

_LINKS = {
    "Logloss": "logit", "CrossEntropy": "logit", "MultiClass": "softmax", "MultiClassOneVsAll": "one_vs_all",
    "MultiLogloss": "one_vs_all", "MultiCrossEntropy": "one_vs_all", "Poisson": "log", "Tweedie": "log",
} | dict.fromkeys(
    ("RMSE", "MAE", "Quantile", "MultiQuantile", "LogLinQuantile", "Expectile", "LogCosh", "Lq", "MAPE", "Huber",
     "MultiRMSE", "QueryRMSE", "YetiRank", "YetiRankPairwise", "PairLogit", "PairLogitPairwise", "QuerySoftMax",
     "GroupQuantile"),
    "identity",
)  # fmt: skip


def read_catboost(model: Any) -> Ensemble:
    """Read a fitted CatBoost model (anything with `save_model(path, format="json")`).

    Raises `NotSupported` (columns that are not numbers, a loss of unknown link) and `ModelTrouble` (not fitted,
    damaged).
    """
    if not model.is_fitted():
        raise ModelTrouble(f"{type(model).__name__} is not fitted, so it has no trees. Call fit first.")
    for kind in ("cat", "text", "embedding"):
        ask = getattr(model, f"get_{kind}_feature_indices", None)
        columns = [] if ask is None else list(ask())
        if columns:
            word = {"cat": "categorical", "text": "text", "embedding": "embedding"}[kind]
            raise NotSupported(
                f"CatBoost's {word} columns (numbers {columns[:5]}) are split by statistics of the training data, which "
                "tree kernels cannot read. Explain the model with method='kernel', or fit it on numbers."
            )
    with tempfile.TemporaryDirectory() as folder:  # it writes files only
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        document = json.loads(path.read_bytes())
    try:
        return _read(document, getattr(model, "classes_", None))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, NotSupported | ModelTrouble):
            raise
        raise ModelTrouble(
            f"The CatBoost model lacks a part that every model has, or has it in another form "
            f"({type(error).__name__}: {error}). Save it anew with the CatBoost that fitted it."
        ) from error


def _read(document: dict[str, Any], classes: Any) -> Ensemble:
    scale, bias = document["scale_and_bias"]
    base = np.atleast_1d(np.asarray(bias, np.float64))
    width = len(base)
    parameters = document["model_info"].get("params", {})
    parameters = json.loads(parameters) if isinstance(parameters, str) else parameters
    loss = parameters.get("loss_function", {}).get("type", "")
    if loss not in _LINKS:
        raise NotSupported(
            f"CatBoost's loss function {loss!r} is not known here, so it is not known what its raw output means. "
            "Explain the model with method='kernel'."
        )
    floats = document["features_info"].get("float_features", [])
    if "oblivious_trees" in document:
        parts = [_symmetric(tree, floats, width) for tree in document["oblivious_trees"]]
    else:
        parts = [_grown(tree, floats, width) for tree in document["trees"]]
    length = np.array([len(part[0]) for part in parts], np.int64)
    root = np.cumsum(length) - length
    first = np.repeat(root, length)
    feature, threshold, mode, left, right, value, cover = (
        np.concatenate([np.asarray(part[k], np.float64) for part in parts]) for k in range(7)
    )
    none = np.zeros(len(feature), np.int64)
    names = tuple(str(name) for name in classes) if classes is not None and len(classes) else ()
    if len(names) == 2 and width == 1:
        names = names[1:]
    if len(names) != width:
        names = ("output",) if width == 1 else tuple(f"output {k}" for k in range(width))
    nodes = Nodes(
        feature=feature.astype(np.int64),
        threshold=threshold,
        left=np.where(left < 0, -1, left.astype(np.int64) + first),
        right=np.where(right < 0, -1, right.astype(np.int64) + first),
        value=float(scale) * value,
        cover=cover,
        mode=mode.astype(np.uint8),
        category_start=none,
        category_count=none,
        category_member=np.zeros(1, np.uint8),
    )
    return assemble(
        nodes,
        root,
        np.zeros(len(parts)),
        base,
        n_features=_n_columns(document["features_info"]),
        float32_inputs=True,
        link=_LINKS[loss],
        output_names=names,
    )


def _n_columns(features: dict[str, Any]) -> int:
    return 1 + max(int(column["flat_feature_index"]) for kind in features.values() if isinstance(kind, list)
                   for column in kind if "flat_feature_index" in column)  # fmt: skip


def _split(split: dict[str, Any], floats: list[dict[str, Any]]) -> tuple[int, float, int]:
    """(column, border, mode) of a split."""
    if split["split_type"] != "FloatFeature":
        raise NotSupported(
            f"CatBoost's splits of the kind {split['split_type']!r} ask statistics of the training data, which tree kernels "
            "cannot read. Explain the model with method='kernel'."
        )
    column = floats[split["float_feature_index"]]
    mode = NAN_RIGHT if column["nan_value_treatment"] == "AsTrue" else NAN_LEFT
    return int(column["flat_feature_index"]), float(np.float32(split["border"])), mode


Part = tuple[list[int], list[float], list[int], list[int], list[int], NDArray[np.float64], list[float]]


def _symmetric(tree: dict[str, Any], floats: list[dict[str, Any]], width: int) -> Part:
    """A full tree in heap order: the last split is the root's, since it is the highest bit of a leaf's number."""
    splits = [_split(split, floats) for split in reversed(tree.get("splits") or [])]
    inner, n = (1 << len(splits)) - 1, (2 << len(splits)) - 1
    value, cover = np.zeros((n, width)), [0.0] * n
    value[inner:] = np.asarray(tree["leaf_values"], np.float64).reshape(n - inner, width)
    cover[inner:] = [float(weight) for weight in tree["leaf_weights"]]
    if len(cover) != n:
        raise ValueError("a tree has not one weight for each leaf")
    for node in range(inner - 1, -1, -1):
        cover[node] = cover[2 * node + 1] + cover[2 * node + 2]
    level = [splits[(node + 1).bit_length() - 1] for node in range(inner)]
    tail = n - inner
    return (
        [split[0] for split in level] + [-1] * tail, [split[1] for split in level] + [0.0] * tail,
        [split[2] for split in level] + [0] * tail, [2 * node + 1 for node in range(inner)] + [-1] * tail,
        [2 * node + 2 for node in range(inner)] + [-1] * tail, value, cover,
    )  # fmt: skip


def _grown(tree: dict[str, Any], floats: list[dict[str, Any]], width: int) -> Part:
    """A tree of nested splits."""
    feature, threshold, mode, left, right = [], [], [], [], []  # type: ignore[var-annotated]
    values, cover = [], []
    waiting = [(tree, -1, False)]
    while waiting:
        node, above, is_right = waiting.pop()
        here = len(feature)
        if above >= 0:
            (right if is_right else left)[above] = here
        column, border, rule = (-1, 0.0, 0) if "split" not in node else _split(node["split"], floats)
        feature.append(column)
        threshold.append(border)
        mode.append(rule)
        left.append(-1)
        right.append(-1)
        values.append(np.zeros(width) if column >= 0 else np.broadcast_to(np.asarray(node["value"], float), width))
        cover.append(0.0 if column >= 0 else float(node["weight"]))
        if column >= 0:
            waiting += [(node["right"], here, True), (node["left"], here, False)]
    for here in range(len(feature) - 1, -1, -1):  # children come after their parents
        if left[here] >= 0:
            cover[here] = cover[left[here]] + cover[right[here]]
    return feature, threshold, mode, left, right, np.array(values).reshape(-1, width), cover
