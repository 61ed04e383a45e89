"""The permutation and sampling methods: unbiased, adding up, honest about their errors, for any number of features."""

from __future__ import annotations

import numpy as np
import pytest

import millrace as mr
from millrace.analyses.explain.kernels import coalitions
from millrace.analyses.explain.kernels.coalitions import design, explain_rows
from millrace.run.errors import DoesNotFit

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((60, 13))
WEIGHT = RNG.standard_normal(13)
SCHEMES = ("permutation", "sampling")


def curved(rows: np.ndarray) -> np.ndarray:
    out = np.sin(2 * rows[:, :13]) @ WEIGHT + rows[:, 0] * rows[:, 1] * (rows[:, 2] > 0) + rows[:, 3:6].prod(axis=1)
    return out  # type: ignore[no-any-return]


EXACT = explain_rows(curved, ROWS[:10], ROWS[50:], None, design(13, 2**13 - 2, np.random.default_rng(1)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_estimates_are_near_the_exact_values_by_their_own_standard_errors(scheme: str) -> None:
    away, inside = [], []
    for seed in range(12):
        plan = design(13, 1200, np.random.default_rng(seed), scheme)
        found = explain_rows(curved, ROWS[:10], ROWS[50:], None, plan)
        np.testing.assert_allclose(found.base + found.values.sum(axis=1), found.prediction, atol=1e-12)
        gap = found.values - EXACT.values
        away.append(gap)
        inside.append(np.abs(gap) <= 2 * found.standard_errors + 1e-12)
    assert np.mean(inside) > 0.9
    spread = np.std(away, axis=0) / np.sqrt(len(away))
    assert (np.abs(np.mean(away, axis=0)) <= 5 * spread + 1e-12).mean() > 0.97  # unbiased


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_does_nothing_gets_nothing_and_a_sum_is_exact(scheme: str) -> None:
    plan = design(20, 400, np.random.default_rng(0), scheme)
    rows = RNG.standard_normal((6, 20))
    added = explain_rows(lambda z: z[:, :19] @ np.arange(19.0), rows[:2], rows[2:], None, plan)
    expected = np.append((rows[:2, :19] - rows[2:, :19].mean(axis=0)) * np.arange(19.0), np.zeros((2, 1)), axis=1)
    np.testing.assert_allclose(added.values[:, :, 0], expected, atol=1e-10)
    assert np.abs(added.standard_errors).max() < 1e-10


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_design_is_what_was_said_of_it_and_comes_back_from_plain_arrays(scheme: str) -> None:
    for features, evaluations in ((13, 1200), (300, None), (40, 10)):
        plan = design(features, evaluations, np.random.default_rng(0), scheme)
        assert coalitions.shape_of(features, evaluations, scheme) == (len(plan.masks), False)
        kept = plan.masks.nbytes + plan.solver.nbytes
        assert kept <= 1.3 * coalitions.design_bytes(features, evaluations, scheme)[0] <= 1.7 * kept
        again = coalitions.Design.from_arrays(plan.arrays())
        assert again.scheme == scheme and again.at(features) is again
    assert design(8, None, np.random.default_rng(0), scheme).exact


@pytest.mark.parametrize("method", SCHEMES)
def test_they_are_methods_by_name(method: str) -> None:
    answer = mr.explain(curved, ROWS[:4], background=ROWS[50:], method=method, engine="inline")
    assert answer.method == method and not answer.exact and (answer.standard_errors > 0).any()
    np.testing.assert_allclose(answer.values, EXACT.values[:4, :, 0], atol=8 * answer.standard_errors.max())


def test_many_features_go_to_the_permutation_method_by_themselves() -> None:
    rows = RNG.standard_normal((3, 2100))
    answer = mr.explain(curved, rows[:1], background=rows[1:], engine="inline")
    assert answer.method == "permutation" and answer.additivity_error < 1e-9
    assert np.abs(answer.values[0, 13:]).max() < 1e-9


def test_a_hundred_thousand_features_are_refused_before_any_design_is_made() -> None:
    rows = np.zeros((3, 100_000))
    rows[0] = 1.0
    with pytest.raises(DoesNotFit, match="--memory"):
        mr.explain(curved, rows[:1], background=rows[1:], engine="inline")
