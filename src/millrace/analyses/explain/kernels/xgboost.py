"""XGBoost's model document (UBJSON or JSON) -> `Ensemble`.

A Booster is asked for its UBJSON, whose arrays are raw bytes that numpy takes as they are; model files in either
form are read too. Needs numpy alone.

What XGBoost predicts and this matches: inputs and thresholds are float32 and x < threshold goes left (so the
threshold here is the float32 below it); a missing value goes the default way; a category in the node's set goes
RIGHT and everything else left, one-hot splits too (the children are swapped here: sets go left); dart's weights
multiply leaves; `base_score` is a prediction, brought to the margin as the objective does it, for each output since
XGBoost 3.1. Sums here are float64, XGBoost's are float32: its margin differs by at most n_trees 2^-24 of the largest
partial sum. Covers are hessian sums, which is what its own `pred_contribs` uses.

Which trees: a Booster's `predict` uses all of them, whatever its attribute `best_iteration` says; the scikit-learn
classes stop at it. So `read_xgboost` reads all, or the first `n_iterations`.

Not here: gblinear, vector leaves (multi_output_tree), `missing=` other than NaN: refused by name, the last in
`tree_models`.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.assemble import MOST_OUTPUTS, Nodes, assemble, member_sets
from millrace.analyses.explain.kernels.ensemble import Ensemble
from millrace.run.errors import ModelTrouble, NotSupported

_LINKS = {
    "reg:squarederror": "identity",
    "reg:linear": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "binary:logitraw": "identity",
    "binary:hinge": "step",
    "binary:logistic": "logit",
    "reg:logistic": "logit",
    "count:poisson": "log",
    "reg:gamma": "log",
    "reg:tweedie": "log",
    "survival:cox": "log",
    "survival:aft": "log",
    "multi:softprob": "softmax",
    # Its own predict gives the number of the class; the link gives the probabilities that it is the largest of.
    "multi:softmax": "softmax",
}
_OF_NODES = (
    "left_children", "right_children", "split_indices", "split_conditions", "default_left", "sum_hessian",
)  # fmt: skip
_OF_SETS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def read_xgboost(model: Any, n_iterations: int | None = None) -> Ensemble:
    """Read a Booster (anything with `save_raw`) or the bytes of a JSON or UBJSON model file.

    n_iterations: the first so many boosting rounds; None is all. Raises `NotSupported` (gblinear, vector leaves, an
    objective of unknown link) and `ModelTrouble` (not an XGBoost model, cut short, damaged).
    """
    content = model if isinstance(model, bytes | bytearray | memoryview) else model.save_raw(raw_format="ubj")
    document = _document(bytes(content))
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by `assemble`
            return _read(document["learner"], n_iterations)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, NotSupported | ModelTrouble):
            raise
        raise ModelTrouble(
            f"The XGBoost model lacks a part that every model has, or has it in another form "
            f"({type(error).__name__}: {error}). Save it anew with booster.save_model('model.ubj')."
        ) from error


def _read(learner: dict[str, Any], n_iterations: int | None) -> Ensemble:
    booster = learner["gradient_booster"]
    kind = booster["name"]
    if kind == "gblinear":
        raise NotSupported(
            "XGBoost's gblinear is a linear model, not trees, and is not supported; fit with booster='gbtree', or "
            "explain it with method='kernel'."
        )
    if kind not in ("gbtree", "dart"):
        raise NotSupported(f"XGBoost's booster {kind!r} is not supported; gbtree and dart are.")
    forest = (booster["gbtree"] if kind == "dart" else booster)["model"]
    parameters = learner["learner_model_param"]
    n_outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", "1")))
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise NotSupported(
            f"XGBoost's objective {objective!r} is not known here, so it is not known what its raw output means. "
            "Explain the model with method='kernel'."
        )
    if not n_outputs <= max(len(forest["trees"]), MOST_OUTPUTS):
        raise ModelTrouble(f"The XGBoost model has {n_outputs} outputs but fewer trees; the file is damaged.")
    kept = _kept(forest, n_iterations, n_outputs)
    trees = forest["trees"][:kept]
    weights = np.asarray(booster["weight_drop"][:kept] if kind == "dart" else np.ones(kept), np.float32)
    nodes, root = _nodes(trees, weights)
    return assemble(
        nodes,
        root,
        np.asarray(forest["tree_info"], np.int64)[:kept],
        _base(parameters["base_score"], objective, n_outputs),
        n_features=int(parameters["num_feature"]),
        float32_inputs=True,
        link=_LINKS[objective],
        output_names=("output",) if n_outputs == 1 else tuple(str(k) for k in range(n_outputs)),
    )


def _kept(forest: dict[str, Any], n_iterations: int | None, n_outputs: int) -> int:
    """Trees in the first n_iterations rounds."""
    n_trees = len(forest["trees"])
    if n_trees != len(forest["tree_info"]):
        raise ModelTrouble("The XGBoost model does not say which output each tree adds to; the file is damaged.")
    if n_iterations is None:
        return n_trees
    if "iteration_indptr" in forest:
        bounds = forest["iteration_indptr"]
        return int(bounds[min(n_iterations, len(bounds) - 1)])
    parallel = int(forest["gbtree_model_param"]["num_parallel_tree"])
    return min(n_trees, n_iterations * n_outputs * parallel)


def _base(text: str, objective: str, n_outputs: int) -> NDArray[np.float64]:
    """`base_score` in the margin. A list since XGBoost 3.1, else one number; in float32, as XGBoost does it."""
    score = np.atleast_1d(np.asarray(json.loads(text), np.float32))
    if _LINKS[objective] == "logit":
        if not ((score >= 0) & (score <= 1)).all():
            raise ModelTrouble(f"XGBoost's base_score is {text} for {objective}; it must be between 0 and 1.")
        # Labels that are all the same give 0 or 1; XGBoost keeps away from the ends by 1e-6.
        score = np.clip(score, np.float32(1e-6), np.float32(1) - np.float32(1e-6))
        score = -np.log(np.float32(1) / score - np.float32(1))
    elif _LINKS[objective] == "log":
        if not (score > 0).all():
            raise ModelTrouble(
                f"XGBoost's base_score is {text} for {objective}, whose logarithm is not finite, so the model's "
                "output is not either (labels that are all 0 do this). There is nothing to explain."
            )
        score = np.log(score)
    return np.broadcast_to(score.astype(np.float64), (n_outputs,))


def _nodes(trees: list[dict[str, Any]], weights: NDArray[np.float32]) -> tuple[Nodes, NDArray[np.int64]]:
    """All trees' nodes one after the other, children swapped at category splits; and the roots."""
    if any(int(tree["tree_param"].get("size_leaf_vector", "1")) > 1 for tree in trees):
        raise NotSupported(
            "XGBoost's vector leaves (multi_strategy='multi_output_tree') are not supported. Fit with "
            "multi_strategy='one_output_per_tree', or explain the model with method='kernel'."
        )
    length = np.array([len(tree["left_children"]) for tree in trees], np.int64)
    root = np.cumsum(length) - length
    owner = np.repeat(np.arange(len(trees)), length)
    part = {key: _joined(trees, key) for key in _OF_NODES}
    if any(len(array) != len(owner) for array in part.values()) or (length == 0).any():
        raise ModelTrouble("The XGBoost model's trees have arrays of unequal length; the file is damaged.")
    leaf = part["left_children"] < 0
    left, right = (
        np.where(leaf, -1, part[side].astype(np.int64) + root[owner]) for side in ("left_children", "right_children")
    )
    outside = ~leaf & ((left >= (root + length)[owner]) | (right >= (root + length)[owner]))
    left[outside] = 1 << 40  # no node: `assemble` says that the trees are damaged
    condition = part["split_conditions"].astype(np.float32)
    mode = (part["default_left"] != 0).astype(np.int64)
    at, sizes, members = _sets(trees, root)
    start, count, member = member_sets(at, sizes, members, len(owner))
    left[at], right[at] = right[at], left[at]
    mode[at] = np.where(mode[at] == 1, 4, 5)
    return Nodes(
        feature=np.where(leaf, -1, part["split_indices"].astype(np.int64)),
        threshold=np.nextafter(condition, np.float32(-np.inf)).astype(np.float64),
        left=left,
        right=right,
        value=(condition.astype(np.float64) * weights[owner])[:, None],
        cover=part["sum_hessian"].astype(np.float32),
        mode=mode,
        category_start=start,
        category_count=count,
        category_member=member,
    ), root


def _joined(trees: list[dict[str, Any]], key: str) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, np.float32), *(np.asarray(tree[key]) for tree in trees)])


def _sets(
    trees: list[dict[str, Any]], root: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(nodes that split by category, sizes of their sets, all members in that order); trees have none before 1.5."""
    at, sizes, members = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for tree, first in zip(trees, root, strict=True):
        if not len(tree.get("categories_nodes", ())):
            continue
        codes, nodes, begins, lengths = (np.asarray(tree[key], np.int64) for key in _OF_SETS)
        inside = (nodes >= 0) & (nodes < len(tree["left_children"])) & (lengths >= 0) & (begins >= 0)
        if not (inside & (begins <= len(codes)) & (lengths <= len(codes) - begins)).all():
            raise ModelTrouble("The XGBoost model has category sets that are cut short; the file is damaged.")
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at.append(nodes + first)
        sizes.append(lengths)
        members.append(codes[np.repeat(begins, lengths) + within])
    return np.concatenate(at), np.concatenate(sizes), np.concatenate(members)


def _document(content: bytes) -> dict[str, Any]:
    """The model as nested mappings, from JSON or UBJSON."""
    try:
        if content[:1] == b"{" and content[1:64].lstrip()[:1] in (b'"', b"}"):
            document = json.loads(content)
        else:
            document, _ = _ubjson(content, 1, content[:1])
    except (ValueError, IndexError, struct.error, RecursionError) as error:
        raise ModelTrouble(
            f"This is not a whole XGBoost model in JSON or UBJSON ({type(error).__name__}: {error}). Files in the "
            "binary format of before 2.1 must be loaded with the XGBoost that wrote them and saved anew with "
            "booster.save_model('model.ubj')."
        ) from error
    if not isinstance(document, dict) or "learner" not in document:
        raise ModelTrouble(
            "This document is not an XGBoost model: it has no 'learner'. Save the model with "
            "booster.save_model('model.ubj'), not with dump_model."
        )
    return document


_NUMBERS = {
    b"U": (">u1", 1),
    b"i": (">i1", 1),
    b"I": (">i2", 2),
    b"l": (">i4", 4),
    b"L": (">i8", 8),
    b"d": (">f4", 4),
    b"D": (">f8", 8),
}
_CONSTANTS = {b"Z": None, b"T": True, b"F": False}


def _ubjson(content: bytes, at: int, marker: bytes) -> tuple[Any, int]:
    """(value, next position) of the UBJSON value whose marker was read; arrays of one number type as numpy arrays.

    The format: https://ubjson.org; all numbers are big-endian. ValueError, IndexError or struct.error when it ends
    early or is something else.
    """
    if marker in _NUMBERS:
        kind, size = _NUMBERS[marker]
        piece = content[at : at + size]
        if len(piece) != size:
            raise ValueError(f"it ends at byte {len(content)}, within a number")
        if marker in b"dD":
            return struct.unpack(kind.replace("f4", "f").replace("f8", "d"), piece)[0], at + size
        return int.from_bytes(piece, "big", signed=marker != b"U"), at + size
    if marker in _CONSTANTS:
        return _CONSTANTS[marker], at
    if marker == b"C":
        return content[at : at + 1].decode(), at + 1
    if marker in (b"S", b"H"):
        return _string(content, at)
    if marker == b"[":
        return _array(content, at)
    if marker == b"{":
        return _mapping(content, at)
    raise ValueError(f"byte {at - 1} is {marker!r}, where a value should begin")


def _string(content: bytes, at: int) -> tuple[str, int]:
    if content[at : at + 1] == b"L":  # XGBoost writes all its lengths so; the calls took a quarter of the reading
        length, at = int.from_bytes(content[at + 1 : at + 9], "big"), at + 9
    else:
        length, at = _ubjson(content, at + 1, content[at : at + 1])
    if not isinstance(length, int) or not 0 <= length <= len(content) - at:
        raise ValueError(f"it has a string of length {length} at byte {at}")
    return content[at : at + length].decode(), at + length


def _sized(content: bytes, at: int) -> tuple[bytes, int | None, int]:
    """(type of all members or b"", number of members or None, next position): the head of a container."""
    kind, count = b"", None
    if content[at : at + 1] == b"$":
        kind, at = content[at + 1 : at + 2], at + 2
    if content[at : at + 1] == b"#":
        count, at = _ubjson(content, at + 2, content[at + 1 : at + 2])
        if not isinstance(count, int) or not 0 <= count <= len(content):
            raise ValueError(f"it has a container of {count} members at byte {at}")
    elif kind:
        raise ValueError(f"it has a typed container without a length at byte {at}")
    return kind, count, at


def _array(content: bytes, at: int) -> tuple[Any, int]:
    kind, count, at = _sized(content, at)
    if kind in _NUMBERS and count is not None:
        dtype, size = _NUMBERS[kind]
        return np.frombuffer(content, dtype, count, at), at + count * size
    members: list[Any] = []
    while len(members) != count:
        marker = kind or content[at : at + 1]
        at += 0 if kind else 1
        if marker == b"]" and count is None:
            break
        member, at = _ubjson(content, at, marker)
        members.append(member)
    return members, at


def _mapping(content: bytes, at: int) -> tuple[dict[str, Any], int]:
    kind, count, at = _sized(content, at)
    members: dict[str, Any] = {}
    read = 0
    while read != count:
        if count is None and content[at : at + 1] == b"}":
            at += 1
            break
        name, at = _string(content, at)
        marker = kind or content[at : at + 1]
        members[name], at = _ubjson(content, at if kind else at + 1, marker)
        read += 1
    return members, at
