"""CatBoost's model document (its JSON) -> `Ensemble`.

What CatBoost predicts and this matches: inputs are float32 and x > border goes right; a missing value goes the way
that its column says (`nan_value_treatment`); leaves are multiplied by the model's scale and added to its bias. Trees
of all growing policies: symmetric ones become full binary trees, whose leaf k is reached by the bits of k, the first
split being the lowest. Covers are the sums of leaf weights, as CatBoost's own ShapValues count them.

Categories are split by statistics of the training data, or one by one; either way a split of one column is a set of its
labels, and which those are is asked of the model itself: the bits of the leaf that a row with this label comes to are the
answers of its tree's splits. So each label of the data is one row of a question. Splits of several columns together, trees
that are not symmetric, text and embedding columns are refused by name; the kernel method answers them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.assemble import Nodes, assemble, member_sets
from millrace.analyses.explain.kernels.ensemble import MEMBER_NAN_RIGHT, NAN_LEFT, NAN_RIGHT, Ensemble
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


Labels = Mapping[int, tuple[Any, ...]]


def read_catboost(model: Any, labels: Labels | None = None) -> Ensemble:
    """Read a fitted CatBoost model (anything with `save_model(path, format="json")`). labels: of the data's codes, by column;
    the ensemble is of these codes.

    Raises `NotSupported` (columns that cannot be read, a loss of unknown link) and `ModelTrouble` (not fitted,
    damaged).
    """
    if not model.is_fitted():
        raise ModelTrouble(f"{type(model).__name__} is not fitted, so it has no trees. Call fit first.")
    labels = labels or {}
    for kind in ("cat", "text", "embedding"):
        ask = getattr(model, f"get_{kind}_feature_indices", None)
        columns = [] if ask is None else list(ask())
        if kind == "cat" and columns and set(columns) == set(labels):
            if any(not isinstance(label, str) for own in labels.values() for label in own):
                raise NotSupported("CatBoost's categorical columns hold labels that are not text: write them as text.")
            continue
        if columns:
            word = {"cat": "categorical", "text": "text", "embedding": "embedding"}[kind]
            raise NotSupported(
                f"CatBoost's {word} columns (numbers {columns[:5]}) are split by statistics of the training data, which "
                "tree kernels read where the data have these columns as text. Give them as text, explain the model with "
                "method='kernel', or fit it on numbers."
            )
    with tempfile.TemporaryDirectory() as folder:  # it writes files only
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        document = json.loads(path.read_bytes())
    try:
        return _read(document, getattr(model, "classes_", None), _asked(model, document, labels))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, NotSupported | ModelTrouble):
            raise
        raise ModelTrouble(
            f"The CatBoost model lacks a part that every model has, or has it in another form "
            f"({type(error).__name__}: {error}). Save it anew with the CatBoost that fitted it."
        ) from error


Sets = dict[tuple[int, int], tuple[int, NDArray[np.int64]]]
"""By tree and place of a split in it: the column, and the codes whose labels it sends to the left."""


def _asked(model: Any, document: dict[str, Any], labels: Labels) -> Sets:
    """The splits of categories, as the model answers them."""
    if not labels:
        return {}
    if "oblivious_trees" not in document:
        raise NotSupported(
            "CatBoost's trees over categories are read where they are symmetric. Explain the model with method='kernel'."
        )
    about = document["features_info"]
    flat = [int(column["flat_feature_index"]) for column in about["categorical_features"]]
    numbers = sum(len(column.get("borders") or []) for column in about.get("float_features", []))
    single = sum(len(column.get("values") or []) for column in about["categorical_features"])
    owner = [ctr["elements"] for ctr in about.get("ctrs", []) for _ in ctr["borders"]]
    found: dict[int, list[tuple[int, int]]] = {}
    for t, tree in enumerate(document["oblivious_trees"]):
        for place, split in enumerate(tree.get("splits") or []):
            if split["split_type"] == "FloatFeature":
                continue
            parts = [split] if "cat_feature_index" in split else owner[split["split_index"] - numbers - single]
            if len(parts) != 1 or "cat_feature_index" not in parts[0]:
                raise NotSupported(
                    "CatBoost's trees have splits of several categorical columns together, which are no splits of one column. "
                    "Explain the model with method='kernel', or fit it with max_ctr_complexity=1."
                )
            found.setdefault(flat[parts[0]["cat_feature_index"]], []).append((t, place))
    sets: Sets = {}
    width = _n_columns(about)
    for column, splits in found.items():
        rows = np.zeros((len(labels[column]), width), object)
        for other, own in labels.items():
            rows[:, other] = own[0]
        rows[:, column] = labels[column]
        leaves = np.asarray(model.calc_leaf_indexes(rows, thread_count=1)).astype(np.int64)
        for t, place in splits:
            sets[t, place] = (column, np.flatnonzero(leaves[:, t] >> place & 1 == 0))
    return sets


def _read(document: dict[str, Any], classes: Any, sets: Sets) -> Ensemble:
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
        parts = [_symmetric(tree, floats, width, sets, t) for t, tree in enumerate(document["oblivious_trees"])]
    else:
        parts = [_grown(tree, floats, width) for tree in document["trees"]]
    length = np.array([len(part[0]) for part in parts], np.int64)
    root = np.cumsum(length) - length
    first = np.repeat(root, length)
    feature, threshold, mode, left, right, value, cover = (
        np.concatenate([np.asarray(part[k], np.float64) for part in parts]) for k in range(7)
    )
    start, count, member = _members(np.flatnonzero(mode == MEMBER_NAN_RIGHT), threshold, sets, len(feature))
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
        category_start=start,
        category_count=count,
        category_member=member,
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


def _members(
    nodes: NDArray[np.int64], threshold: NDArray[np.float64], sets: Sets, n_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """The category sets of the nodes, whose thresholds are the numbers of their sets."""
    known = [codes for _, codes in sets.values()]
    mine = [known[int(threshold[node])] for node in nodes.tolist()]
    codes = np.concatenate(mine) if mine else np.zeros(0, np.int64)
    return member_sets(nodes, np.array([len(own) for own in mine], np.int64), codes, n_nodes)


Part = tuple[list[int], list[float], list[int], list[int], list[int], NDArray[np.float64], list[float]]


def _symmetric(tree: dict[str, Any], floats: list[dict[str, Any]], width: int, sets: Sets, number: int) -> Part:
    """A full tree in heap order: the last split is the root's, since it is the highest bit of a leaf's number."""
    place_of = {key: float(at) for at, key in enumerate(sets)}
    splits = [
        (sets[number, place][0], place_of[number, place], MEMBER_NAN_RIGHT)
        if (number, place) in sets
        else _split(split, floats)
        for place, split in enumerate(tree.get("splits") or [])
    ][::-1]
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
