"""scikit-learn's tree models -> `Ensemble`.

DecisionTree*, ExtraTree*, RandomForest*, ExtraTrees* (raw output is `predict`, or `predict_proba` of a classifier:
forests average, so a leaf holds its part of the average), GradientBoosting* and HistGradientBoosting* (raw output is
`decision_function`, or `predict` before its link). Bagging of trees is an average too, each tree in its own columns;
AdaBoost's classifier is a sum of votes (`decision_function`). A model is known by what it can do, never by its class's name.

What scikit-learn predicts and this matches: trees and GradientBoosting round inputs to float32 and compare with
float64 thresholds; HistGradientBoosting compares in float64, sends missing values its own way at each split, and
treats categories that it never saw, and negative ones, as missing. Covers are `weighted_n_node_samples`, and in
HistGradientBoosting, which keeps no weights, the count of rows.

Refused by name: AdaBoost's regressor (a median) and IsolationForest (a power), classifiers of several targets,
GradientBoosting upon an `init` that is not constant, HistGradientBoosting over categories that are not codes. Voting and stacking
are no tree models here: they are explained as what they combine, or as functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.assemble import Nodes, assemble, member_sets
from millrace.analyses.explain.kernels.ensemble import Ensemble
from millrace.run.errors import NotSupported


def read_sklearn(model: Any) -> Ensemble | None:
    """Read a fitted scikit-learn tree model; None when it is none. Raises `NotSupported` as the docstring says."""
    if hasattr(model, "_predictors") and hasattr(model, "_baseline_prediction"):
        return _read_histogram_boosting(model)
    if _is_tree(model):
        return _read_average(model, [model])
    parts = getattr(model, "estimators_", None)
    if parts is None or not len(parts) or not all(_is_tree(tree) for tree in np.ravel(np.asarray(parts, object))):
        return None
    if hasattr(model, "init_") and hasattr(model, "learning_rate"):
        return _read_boosting(model)
    if hasattr(model, "estimator_weights_"):
        return _read_weighted_votes(model)
    if hasattr(model, "offset_") and hasattr(model, "score_samples"):
        raise NotSupported(
            f"{type(model).__name__}'s score is a power of its mean path length, which is not a sum over leaves. Explain it "
            "with method='kernel'."
        )
    if hasattr(model, "estimators_features_"):
        return _read_average(model, list(parts), [np.asarray(columns) for columns in model.estimators_features_])
    # `decision_path` over all trees is what forests can do and voting, stacking and their like cannot.
    if hasattr(model, "decision_path") and hasattr(model, "predict"):
        return _read_average(model, list(parts))
    return None


def _is_tree(model: Any) -> bool:
    return hasattr(getattr(model, "tree_", None), "children_left")


def _read_average(model: Any, trees: list[Any], columns: list[NDArray[np.int64]] | None = None) -> Ensemble:
    """One tree, or the mean of several. `columns`: which of the model's columns each tree sees (bagging)."""
    classes = getattr(model, "classes_", None)
    n_targets = int(getattr(model, "n_outputs_", trees[0].n_outputs_))
    if classes is not None and n_targets > 1:
        raise NotSupported(
            f"{type(model).__name__} with {n_targets} targets is not supported: fit one classifier a target, or "
            "explain one target's predict_proba with method='kernel'."
        )
    width = len(classes) if classes is not None else n_targets
    values = [_spread(tree, None if columns is None else classes) for tree in trees]
    # Values are (nodes, targets, classes); one of the last two is 1.
    if any(value.shape[1:] != ((1, width) if classes is not None else (width, 1)) for value in values):
        raise NotSupported(
            f"The leaves of {type(model).__name__} do not hold one number for each output, so its output is not the "
            "average of its leaves. Explain it with method='kernel'."
        )
    nodes, root = _nodes(trees, [value.reshape(-1, width) / len(trees) for value in values], columns)
    names = classes if classes is not None else range(width)
    return assemble(
        nodes,
        root,
        np.zeros(len(trees)),
        np.zeros(width),
        n_features=int(model.n_features_in_),
        float32_inputs=True,
        link="probability" if classes is not None else "identity",
        output_names=("output",) if width == 1 and classes is None else tuple(str(name) for name in names),
    )


def _spread(tree: Any, classes: Any) -> NDArray[np.float64]:
    """A tree's values; in bagging, a classifier's columns put to their places among all classes: a sample may lack some."""
    value: NDArray[np.float64] = tree.tree_.value
    if classes is None or value.shape[2] == len(classes):
        return value
    wide = np.zeros((len(value), 1, len(classes)))
    wide[:, :, np.asarray(tree.classes_, np.int64)] = value  # bagging gives its trees the numbers of the classes
    return wide


def _read_weighted_votes(model: Any) -> Ensemble:
    """AdaBoost (SAMME): each tree votes by its weight for its class and against the others; `decision_function`."""
    classes = getattr(model, "classes_", None)
    if classes is None or not hasattr(model, "decision_function"):
        raise NotSupported(
            f"{type(model).__name__} predicts a weighted median of its trees, which is not a sum over leaves. Explain it "
            "with method='kernel'."
        )
    count = len(classes)
    trees = list(model.estimators_)
    weights = np.asarray(model.estimator_weights_, np.float64)[: len(trees)] / np.sum(model.estimator_weights_)
    values = []
    for tree, weight in zip(trees, weights, strict=True):
        chosen = np.searchsorted(classes, tree.classes_[tree.tree_.value[:, 0, :].argmax(axis=1)])
        votes = np.where(chosen[:, None] == np.arange(count), weight, -weight / max(count - 1, 1))
        values.append(votes[:, 1:] - votes[:, :1] if count == 2 else votes)
    nodes, root = _nodes(trees, values)
    width = 1 if count == 2 else count
    return assemble(
        nodes,
        root,
        np.zeros(len(trees)),
        np.zeros(width),
        n_features=int(model.n_features_in_),
        float32_inputs=True,
        link="logit" if count == 2 else f"softmax:{1 / (count - 1)!r}",
        output_names=_names(model, width),
    )


def _read_boosting(model: Any) -> Ensemble:
    grid = np.asarray(model.estimators_, object)
    trees = list(grid.ravel())
    nodes, root = _nodes(trees, [model.learning_rate * tree.tree_.value.reshape(-1, 1) for tree in trees])
    n_outputs = grid.shape[1]
    if not _is_constant(model.init_):
        raise NotSupported(
            f"{type(model).__name__} was fitted upon init={type(model.init_).__name__}, whose output differs from "
            "row to row and is no part of the trees. Fit without init, or explain it with method='kernel'."
        )
    return assemble(
        nodes,
        root,
        np.tile(np.arange(n_outputs), len(grid)),
        # Its own arithmetic from the init estimator to the raw score; the row does not matter for a constant.
        model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0],
        n_features=int(model.n_features_in_),
        float32_inputs=True,
        # The exponential loss models half the log-odds.
        link=_link(model, n_outputs, "2.0" if model.loss == "exponential" else ""),
        output_names=_names(model, n_outputs),
    )


def _is_constant(init: Any) -> bool:
    """The same output for every row: "zero", a dummy regressor, or a dummy classifier that does not draw lots."""
    return (
        (isinstance(init, str) and init == "zero")
        or (hasattr(init, "constant_") and hasattr(init, "strategy"))
        or (hasattr(init, "class_prior_") and init.strategy in ("prior", "most_frequent", "constant"))
    )


def _link(model: Any, n_outputs: int, scale: str = "") -> str:
    if hasattr(model, "predict_proba"):
        return "softmax" if n_outputs > 1 else f"logit:{scale}" if scale else "logit"
    return "log" if model.loss in ("poisson", "gamma") else "identity"


def _names(model: Any, n_outputs: int) -> tuple[str, ...]:
    classes = getattr(model, "classes_", None)
    if classes is None:
        return ("output",)
    return tuple(str(name) for name in (classes if n_outputs > 1 else classes[1:2]))


def _nodes(
    trees: list[Any], values: list[NDArray[np.float64]], columns: list[NDArray[np.int64]] | None = None
) -> tuple[Nodes, NDArray[np.int64]]:
    """All nodes of fitted trees one after the other, with the given values; and the roots."""
    length = np.array([tree.tree_.node_count for tree in trees], np.int64)
    root = np.cumsum(length) - length
    first = np.repeat(root, length)

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree.tree_, name) for tree in trees])

    left, right = joined("children_left"), joined("children_right")
    feature = joined("feature")
    if columns is not None:
        feature = np.concatenate(
            [own[np.maximum(tree.tree_.feature, 0)] for own, tree in zip(columns, trees, strict=True)]
        )
    none = np.zeros(len(first), np.int64)
    return Nodes(
        feature=np.where(left < 0, -1, feature),
        threshold=joined("threshold"),
        left=np.where(left < 0, -1, left + first),
        right=np.where(left < 0, -1, right + first),
        value=np.concatenate(values),
        cover=joined("weighted_n_node_samples"),
        mode=(joined("missing_go_to_left") != 0).astype(np.uint8),
        category_start=none,
        category_count=none,
        category_member=np.zeros(1, np.uint8),
    ), root


def _read_histogram_boosting(model: Any) -> Ensemble:
    if not isinstance(model.loss, str):
        raise NotSupported(
            f"{type(model).__name__} was fitted with a loss object of its own, so it is not known what its raw "
            "output means. Fit it with a named loss, or explain it with method='kernel'."
        )
    predictors = [predictor for iteration in model._predictors for predictor in iteration]
    n_outputs = int(model.n_trees_per_iteration_)
    length = np.array([len(predictor.nodes) for predictor in predictors], np.int64)
    root = np.cumsum(length) - length
    nodes = np.concatenate([predictor.nodes for predictor in predictors])
    first = np.repeat(root, length)
    leaf = nodes["is_leaf"] != 0
    left = np.where(leaf, -1, nodes["left"].astype(np.int64) + first)
    right = np.where(leaf, -1, nodes["right"].astype(np.int64) + first)
    mode = (nodes["missing_go_to_left"] != 0).astype(np.int64)
    column, codes = _columns(model)
    feature = column[np.where(leaf, 0, nodes["feature_idx"])]

    at = np.flatnonzero(~leaf & (nodes["is_categorical"] != 0))
    owner = np.repeat(np.arange(len(predictors)), length)[at]
    sets: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for node, tree in zip(at, owner, strict=True):
        known = _codes(model, int(feature[node]), codes)
        words = predictors[tree].raw_left_cat_bitsets[nodes["bitset_idx"][node]].astype("<u4")
        goes_left = np.unpackbits(words.view(np.uint8), bitorder="little")[: len(known)] != 0
        # Unknown categories go where a missing value goes. Members alone go left here, so the set is of those
        # that go the other way, and the children are swapped where missing goes left.
        sets.append(known[goes_left != (mode[node] == 1)])
    swapped = at[mode[at] == 1]
    left[swapped], right[swapped] = right[swapped], left[swapped]
    mode[at] = 4
    members = np.concatenate(sets)
    start, count, member = member_sets(at, np.array([len(s) for s in sets[1:]]), members, len(nodes))
    return assemble(
        Nodes(
            feature=np.where(leaf, -1, feature),
            threshold=np.where(nodes["is_categorical"] != 0, 0.0, nodes["num_threshold"]),
            left=left,
            right=right,
            value=nodes["value"][:, None],
            cover=nodes["count"],
            mode=mode,
            category_start=start,
            category_count=count,
            category_member=member,
        ),
        root,
        np.tile(np.arange(n_outputs), len(model._predictors)),
        np.ravel(model._baseline_prediction),
        n_features=int(model.n_features_in_),
        float32_inputs=False,
        link=_link(model, n_outputs),
        output_names=_names(model, n_outputs),
    )


def _columns(model: Any) -> tuple[NDArray[np.int64], dict[int, NDArray[Any]]]:
    """(the input's column of each column that the trees see, categories by the input's column).

    Its own encoder puts the category columns first and numbers their categories in sorted order.
    """
    if model.is_categorical_ is None:
        return np.arange(model.n_features_in_), {}
    first, rest = np.flatnonzero(model.is_categorical_), np.flatnonzero(~model.is_categorical_)
    known = model._preprocessor.named_transformers_["encoder"].categories_ if len(first) else []
    return np.concatenate([first, rest]), dict(zip(first.tolist(), known, strict=True))


def _codes(model: Any, column: int, categories: dict[int, NDArray[Any]]) -> NDArray[np.int64]:
    """The known categories of a column as codes, in the encoder's order (a NaN comes last and is left out)."""
    known = categories[column]
    if known.dtype.kind in "iufb":
        numbers = known.astype(np.float64)
        numbers = numbers[~np.isnan(numbers)]
        if (numbers >= 0).all() and (np.trunc(numbers) == numbers).all() and (numbers < 2.0**53).all():
            return numbers.astype(np.int64)
    raise NotSupported(
        f"Column {column} of {type(model).__name__} has the categories {known[:5].tolist()} ...; tree kernels need "
        "codes 0, 1, 2, ... (whole numbers, not negative). Encode the column before fitting, or explain the model "
        "with method='kernel'."
    )
