"""A PyTorch module as a function of rows, and its integrated gradients, by captum.

A module is what can give its state and parameters and go forward; it is copied to the processor and put in evaluation mode, so
that dropout and batch statistics do not make it random. torch and captum are imported here alone, on first use.

Integrated gradients of a row against one row of the background are (row - other) times the mean gradient on the line between
the two (Sundararajan et al. 2017, arXiv:1703.01365); `explain_rows` takes their weighted mean over the whole background, which
the literature calls expected gradients (Erion et al. 2021, arXiv:1906.10670). They add up as SHAP values do; they equal them
where features do not interact, and are Aumann-Shapley values, a different fair division, where they do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.linear import by_player
from millrace.run.errors import MissingExtra, NotSupported

BATCH = 8_192
"""Points on lines that go through the module at once."""
POINTS = (8, 16, 32, 64, 128)
"""Gauss-Legendre points on each line, until a row adds up. The difference from the round before is told as its error."""
GAP = 1e-3
"""A row adds up when base + values differ from the output by this share of the largest output."""
LIBRARY_BYTES = 320 << 20
"""Private memory of a process that has loaded torch and captum."""


def is_module(model: Any) -> bool:
    """Whether it is a PyTorch module, by what it can do."""
    return all(callable(getattr(model, name, None)) for name in ("forward", "state_dict", "parameters", "eval"))


@dataclass(frozen=True)
class ModuleFunction:
    """module: a copy on the processor, in evaluation mode. Called with rows[n, columns] it gives (n, outputs)."""

    module: Any

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        import torch

        with torch.no_grad():
            return self.outputs(self.tensor(rows)).numpy()  # type: ignore[no-any-return]

    def tensor(self, rows: NDArray[Any]) -> Any:
        """In the numbers that the module calculates with."""
        import torch

        return torch.from_numpy(np.array(rows, dtype=np.float64, order="C")).to(self.kind)

    @property
    def kind(self) -> Any:
        """Of the numbers that the module calculates with."""
        import torch

        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    def outputs(self, rows: Any) -> Any:
        found = self.module(rows)
        return found.reshape(len(rows), -1)

    @property
    def held_bytes(self) -> int:
        """Private bytes of a process that calls it: the library, the parameters, what every layer gives for a batch."""
        parameters = list(self.module.parameters())
        widths = sum(p.shape[0] for p in parameters if p.ndim > 1)
        own = sum(p.numel() * p.element_size() for p in parameters)
        return LIBRARY_BYTES + 2 * own + 4 * BATCH * 4 * max(1, widths)


def open_module(module: Any, note: Callable[[str], None]) -> ModuleFunction:
    """The function of a module; the module itself stays as it is."""
    if module.training:
        note("The module was in training mode: a copy of it in evaluation mode is explained.")
    taken = copy.deepcopy(module).to("cpu").eval()
    for parameter in taken.parameters():
        parameter.requires_grad_(False)
    return ModuleFunction(taken)


@dataclass(frozen=True, slots=True)
class Found:
    """values and errors: (rows, players, outputs); prediction: (rows, outputs); base: (outputs,). Errors are how far the values
    moved when the points on each line were doubled."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    prediction: NDArray[np.float64]
    base: NDArray[np.float64]


def explain_rows(
    function: Any,
    rows: NDArray[Any],
    background: NDArray[Any],
    weights: NDArray[Any],
    player_of: NDArray[Any],
    players: int,
    tolerance: float = 0.0,
) -> Found:
    """Expected gradients of rows[n, columns] over background[m, columns] with weights that sum to 1.

    function: a `blackbox.Function` of a `ModuleFunction`; its chosen output, or all. Rounds of more points go on for rows that do
    not add up, or (tolerance > 0) whose errors are not all below it.
    """
    model: ModuleFunction = function.model
    prediction, base = function.call(rows), weights @ function.call(background)
    chosen = range(prediction.shape[1]) if function.column < 0 else [function.column]
    allowed = GAP * max(1.0, float(np.abs(prediction).max()))
    shape = (len(rows), players, len(chosen))
    values, errors, left = np.zeros(shape), np.full(shape, np.inf), np.arange(len(rows))
    for points in POINTS:
        each = np.stack([_integrated(model, rows[left], background, weights, k, points) for k in chosen], axis=2)
        found = by_player(each, player_of, players)
        errors[left], values[left] = np.abs(found - values[left]), found
        if points == POINTS[0]:
            continue
        gap = np.abs(values[left].sum(axis=1) + base - prediction[left]).max(axis=1)
        moved = errors[left].max(axis=(1, 2))
        left = left[(gap > allowed) | ((moved > tolerance) & (tolerance > 0))]
        if not len(left):
            break
    return Found(values, errors, prediction, base)


def _integrated(
    model: ModuleFunction,
    rows: NDArray[Any],
    background: NDArray[Any],
    weights: NDArray[Any],
    output: int,
    points: int,
) -> NDArray[np.float64]:
    """(rows, columns): the weighted mean over the background. As many rows at a time as fit a batch, at least one."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError as e:
        raise MissingExtra("captum", "torch", "The method 'gradient'") from e
    method = IntegratedGradients(lambda given: model.outputs(given)[:, output])
    others, found = model.tensor(background), np.empty(rows.shape)
    size = max(1, BATCH // (len(background) * points))
    for at in range(0, len(rows), size):
        part = model.tensor(rows[at : at + size])
        pairs = part.repeat_interleave(len(others), 0), others.repeat(len(part), 1)
        given = method.attribute(*pairs, n_steps=points, method="gausslegendre", internal_batch_size=BATCH)
        given = given.detach().numpy().reshape(len(part), len(others), -1)
        found[at : at + size] = np.einsum("rbc,b->rc", given.astype(np.float64), weights)
    return found


def check_gradient(model: Any, categories: Any) -> None:
    """`NotSupported` where there are no gradients."""
    if not isinstance(model, ModuleFunction):
        raise NotSupported(
            f"The method 'gradient' needs a PyTorch module, and the model is a {type(model).__qualname__}. Use 'kernel' (any "
            "model, with standard errors), or leave method='auto'."
        )
    if categories:
        raise NotSupported("The method 'gradient' needs numbers in all columns: there are no gradients along labels.")
