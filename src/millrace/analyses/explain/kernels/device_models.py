"""Models that can be asked on a device, by torch: PyTorch modules, and trees that were read into tables.

`form_of` says whether a function is one of them; trees are tried, not believed: on rows of the data they must say what the
function says. A form answers with the function's own outputs, in float64, for rows that are on the device already. torch is
imported when a form is laid out on a device, not before. Does not mix rows (see `device_game`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.blackbox import AGREE, Function
from millrace.analyses.explain.kernels.ensemble import (
    MEMBER_NAN_LEFT,
    MEMBER_NAN_RIGHT,
    NAN_LEFT,
    ZERO,
    ZERO_LEFT,
    ZERO_RIGHT,
    Ensemble,
    apply_link,
    predict,
)
from millrace.analyses.explain.kernels.modules import ModuleFunction
from millrace.analyses.explain.kernels.tree_probability import TreeProbability
from millrace.run.errors import ModelTrouble, NotSupported, WrongQuestion

TREES_AT_ONCE = 64
"""Trees that all rows of a call walk side by side: their places are what takes memory."""

Answer = Callable[[Any], Any]
"""rows[n, columns] on the device -> float64[n, outputs] there."""
Says = Literal["link", "both", "raw"]


@dataclass(frozen=True, slots=True)
class OfModule:
    """`column`, `sign`: as in `Function`."""

    model: ModuleFunction
    column: int
    sign: float

    @property
    def name(self) -> str:
        """What its time depends on, in words."""
        count = sum(parameter.numel() for parameter in self.model.module.parameters())
        return f"{type(self.model.module).__qualname__}, {count:,} parameters"

    @property
    def row_bytes(self) -> int:
        """What a row takes inside: what every layer gives."""
        return 8 * max(1, sum(p.shape[0] for p in self.model.module.parameters() if p.ndim > 1))

    def on(self, device: str) -> Answer:
        import torch

        module, kind = copy.deepcopy(self.model.module).to(device), self.model.kind

        def answer(rows: Any) -> Any:
            with torch.no_grad():
                found = module(rows.to(kind)).reshape(len(rows), -1).to(torch.float64)
            return found if self.column < 0 else self.sign * found[:, self.column : self.column + 1]

        return answer


@dataclass(frozen=True, slots=True)
class OfTrees:
    """`says`: the link's output, both it and its complement, or the raw output. `column`, `sign`: as in `Function`."""

    forest: Ensemble
    says: Says
    log_loss: bool
    column: int
    sign: float

    @property
    def name(self) -> str:
        return f"{self.forest.n_trees:,} trees of {self.forest.n_nodes:,} nodes"

    @property
    def row_bytes(self) -> int:
        return 8 * 8 * min(TREES_AT_ONCE, self.forest.n_trees)

    def on(self, device: str) -> Answer:
        import torch

        raw = _walker(self.forest, device)

        def answer(rows: Any) -> Any:
            found = raw(rows) if self.says == "raw" else _linked(self.forest.link, raw(rows))
            if self.says == "both":
                found = torch.cat([1.0 - found, found], dim=1)
            if self.log_loss:
                found = -torch.log(torch.clip(found, np.finfo(np.float64).eps, 1.0))
            return found if self.column < 0 else self.sign * found[:, self.column : self.column + 1]

        return answer


Form = OfModule | OfTrees


def form_of(function: Function, sample: NDArray[Any]) -> Form | None:
    """The function as what a device can be asked; None when it is neither. sample[n, columns]: rows to try trees on."""
    if isinstance(function.model, ModuleFunction) and not function.method:
        return OfModule(function.model, function.column, function.sign)
    if function.categories or function.labels:
        return None  # labels are turned into codes, and answers into labels, on the processor alone
    forest = _forest(function, sample)
    if forest is None:
        return None
    said = replace(function, output="auto", column=-1, sign=1.0).call(sample)
    raw = predict(forest, sample)
    told = apply_link(forest, raw)
    tried: list[tuple[Says, NDArray[np.float64]]] = [("link", told), ("raw", raw)]
    if told.shape[1] == 1:
        tried.append(("both", np.concatenate([1.0 - told, told], axis=1)))
    for says, found in tried:
        if found.shape == said.shape and np.abs(found - said).max() <= AGREE * np.abs(said).max():
            return OfTrees(forest, says, function.output == "log_loss", function.column, function.sign)
    return None


def _forest(function: Function, sample: NDArray[Any]) -> Ensemble | None:
    from millrace.analyses.explain.kernels.ensemble import check_rows
    from millrace.analyses.explain.kernels.tree_models import read_trees

    model = function.model if function.method else getattr(function.model, "__self__", None)
    if isinstance(model, TreeProbability):
        return model.forest
    try:
        forest = None if model is None else read_trees(model)
        if forest is not None:
            check_rows(forest, sample)
    except (NotSupported, ModelTrouble, WrongQuestion):
        return None  # then it is a function like others
    return forest


# -- trees -----------------------------------------------------------------------------------------------------------
def _walker(forest: Ensemble, device: str) -> Answer:
    """rows -> raw output: all rows go down a level of some trees at a time; a leaf is its own child."""
    import torch

    def there(values: Any) -> Any:
        return torch.from_numpy(np.array(values)).to(device)

    inner, places = forest.left >= 0, np.arange(forest.n_nodes)
    feature = there(np.where(inner, forest.feature, 0).astype(np.int64))
    left = there(np.where(inner, forest.left, places).astype(np.int64))
    right = there(np.where(inner, forest.right, places).astype(np.int64))
    value, roots = there(forest.value), there(forest.tree_start[:-1])
    base = there(forest.base)
    spread = there(np.eye(forest.n_outputs)[forest.tree_output])
    goes_left = _rules(forest, there)
    levels = [
        (a, min(a + TREES_AT_ONCE, forest.n_trees), _levels(forest, a, a + TREES_AT_ONCE))
        for a in range(0, forest.n_trees, TREES_AT_ONCE)
    ]

    def raw(rows: Any) -> Any:
        seen = (rows.to(torch.float32) if forest.float32_inputs else rows).to(torch.float64)
        out = base.repeat(len(rows), 1)
        for a, b, depth in levels:
            node = roots[a:b].expand(len(rows), -1)
            for _ in range(depth):
                node = torch.where(goes_left(seen.gather(1, feature[node]), node), left[node], right[node])
            # A number of a leaf goes to its tree's output; where a leaf has several, each is an output's.
            out += value[node, 0] @ spread[a:b] if forest.width == 1 else value[node].sum(dim=1)
        return out

    return raw


def _rules(forest: Ensemble, there: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """(z, node) -> whether it goes to the left, by the table of `ensemble`; only the rules that the trees have."""
    import torch

    threshold, modes = there(forest.threshold), set(np.unique(forest.mode).tolist())
    mode = there(forest.mode)
    start, count = there(forest.category_start), there(forest.category_count)
    member = there(forest.category_member)
    of_zero, of_sets = modes & {ZERO_RIGHT, ZERO_LEFT}, modes & {MEMBER_NAN_RIGHT, MEMBER_NAN_LEFT}

    def goes_left(z: Any, node: Any) -> Any:
        out = z <= threshold[node]
        if modes == {0}:
            return out
        rule, missing = mode[node], torch.isnan(z)
        if of_zero:
            nothing = (z.abs() <= ZERO) & ((rule == ZERO_RIGHT) | (rule == ZERO_LEFT))
            out = torch.where(nothing, rule == ZERO_LEFT, out)
        if of_sets:
            known = (z >= 0) & (z < count[node])
            place = start[node] + torch.where(known, z, torch.zeros_like(z)).to(torch.int64)
            inside = known & (member[place.clamp(max=len(member) - 1)] != 0)
            out = torch.where(rule >= MEMBER_NAN_RIGHT, inside, out)
        to_left = (rule == NAN_LEFT) | (rule == ZERO_LEFT) | (rule == MEMBER_NAN_LEFT)
        return torch.where(missing, to_left, out)

    return goes_left


def _levels(forest: Ensemble, first: int, last: int) -> int:
    """Edges of the longest path in trees first .. last - 1."""
    front, depth = forest.tree_start[:-1][first:last].astype(np.int64), 0
    while True:
        front = front[forest.left[front] >= 0]
        if not len(front):
            return depth
        front, depth = np.concatenate([forest.left[front], forest.right[front]]).astype(np.int64), depth + 1


def _linked(link: str, raw: Any) -> Any:
    """`ensemble.apply_link` on the device."""
    import torch

    name, _, scale = link.partition(":")
    if name in ("logit", "one_vs_all"):
        return 1.0 / (1.0 + torch.exp(-float(scale or 1.0) * raw))
    if name == "softmax":
        return torch.softmax(float(scale or 1.0) * raw, dim=1)
    if name == "log":
        return torch.exp(raw)
    if name == "log1p_exp":
        return torch.logaddexp(torch.zeros_like(raw), raw)
    if name == "isolation":
        return -torch.exp2(-raw / float(scale))
    if name == "signed_square":
        return raw * raw.abs()
    if name == "step":
        return (raw > 0).to(torch.float64)
    return raw
