"""Integrated gradients of PyTorch modules: they add up, are what the integral says, and are SHAP values where both agree."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import millrace as mr
from millrace.run.errors import NotSupported

needs_torch = pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("captum")),
    reason="torch and captum, some gigabytes, are no part of the set-up: pip install 'millrace[torch]'",
)
RNG = np.random.default_rng(0)
ROWS, OTHERS = RNG.normal(size=(12, 5)), RNG.normal(size=(7, 5))


def network(outputs=1, layer="Tanh", kind="float64"):
    import torch

    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(5, 16), getattr(torch.nn, layer)(), torch.nn.Linear(16, outputs))
    return made.to(getattr(torch, kind))


def integral(model, row, other, output, points=4000):
    """The naive way: the mean of many gradients on the line."""
    import torch

    total = torch.zeros(5, dtype=torch.float64)
    for share in (np.arange(points) + 0.5) / points:
        at = torch.tensor(other + share * (row - other), requires_grad=True)
        (gradient,) = torch.autograd.grad(model(at[None, :])[0, output], at)
        total += gradient
    return (row - other) * total.numpy() / points


def test_a_model_without_gradients_is_told_so():
    with pytest.raises(NotSupported, match="needs a PyTorch module"):
        mr.explain(lambda rows: rows[:, 0], ROWS, background=OTHERS, method="gradient", engine="inline")


@needs_torch
def test_values_are_the_integral_averaged_over_the_background():
    model = network(2)
    answer = mr.explain(model, ROWS[:2], background=OTHERS, method="gradient", tolerance=1e-7, engine="inline")
    for k in range(2):
        for i in range(2):
            naive = np.mean([integral(model, ROWS[i], other, k) for other in OTHERS], axis=0)
            assert np.abs(answer.values[i, :, k] - naive).max() < 1e-6
    assert not answer.exact and answer.standard_errors.shape == answer.values.shape
    assert answer.additivity_error < 1e-9


@needs_torch
def test_where_features_do_not_interact_they_are_shapley_values():
    import torch

    class Apart(torch.nn.Module):
        def forward(self, rows):
            return torch.sin(rows) @ torch.arange(1.0, 6.0, dtype=rows.dtype)

    gradients = mr.explain(Apart(), ROWS, background=OTHERS, method="gradient", tolerance=1e-6, engine="inline")
    kernel = mr.explain(Apart(), ROWS, background=OTHERS, engine="inline")
    assert kernel.method == "kernel" and kernel.exact
    assert np.abs(gradients.values - kernel.values).max() < 1e-5


@needs_torch
def test_kinks_take_more_points_until_the_row_adds_up():
    model = network(layer="ReLU", kind="float32")
    answer = mr.explain(model, 3 * ROWS, background=OTHERS, method="gradient", engine="inline")
    assert answer.additivity_error < 1e-3 * max(1.0, np.abs(answer.predictions).max())
    assert (answer.standard_errors > 0).any()


@needs_torch
def test_one_output_groups_and_engines():
    model, groups = network(3), {"first": ["x0", "x1"]}
    asked = {"background": OTHERS, "method": "gradient", "output": "output 1"}
    whole = mr.explain(model, ROWS, engine="inline", **asked)
    joined = mr.explain(model, ROWS, engine="inline", groups=groups, **asked)
    assert whole.output_names == ("output 1",) and joined.values.shape == (12, 4)
    first = joined.feature_names.index("first")
    assert np.abs(joined.values[:, first] - whole.values[:, :2].sum(axis=1)).max() < 1e-12
    apart = mr.explain(model, ROWS, engine="processes", cores=2, **asked)
    assert apart.digest == whole.digest and (apart.values == whole.values).all()


@needs_torch
def test_dropout_is_switched_off_and_the_users_module_stays_as_it_is():
    import torch

    model = torch.nn.Sequential(network(), torch.nn.Dropout(0.5))
    answer = mr.explain(model, ROWS, background=OTHERS, method="gradient", engine="inline")
    assert any("evaluation mode" in note for note in answer.notes) and model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
