"""Losses are the distances from a perfect fit that their definitions say, of one simulation and of many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from millrace.analyses.calibrate.kernels import losses

SHARES = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(0.2, 60))
def test_poisson_is_the_likelihood_below_that_of_the_saturated_model(counts: list[int], rate: float) -> None:
    y = np.array(counts, float)
    best = np.where(y > 0, stats.poisson.logpmf(y, np.maximum(y, 1e-12)), 0.0)
    wanted = np.mean(best - stats.poisson.logpmf(y, rate))
    assert losses.poisson(np.full(len(y), rate), y) == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(SHARES, st.integers(5, 500))
def test_binomial_differs_between_two_simulations_as_their_likelihoods_do(shares: list[float], of: int) -> None:
    k = np.round(np.array(shares) * of)
    observed = k / of
    edge = 0.5 / of
    one, other = np.full(len(k), 0.3), np.full(len(k), 0.6)
    wanted = np.mean(stats.binom.logpmf(k, of, other) - stats.binom.logpmf(k, of, one))
    inside = (observed >= edge) & (observed <= 1 - edge)
    if inside.all():
        found = losses.binomial(one, observed, of) - losses.binomial(other, observed, of)
        assert found == pytest.approx(wanted, rel=1e-7, abs=1e-9)
        assert losses.binomial(observed, observed, of) == 0


@pytest.mark.parametrize("people", [1, 10, 400])
def test_beta_binomial_differs_between_two_simulations_as_their_likelihoods_do(people: int) -> None:
    of, observed = np.array([20.0, 50.0]), np.array([0.25, 0.5])
    k = of * observed

    def log_pmf(share: float) -> float:
        return float(np.mean(stats.betabinom.logpmf(k, of, people * share + 1, people * (1 - share) + 1)))

    found = losses.beta_binomial(np.full(2, 0.2), observed, of, people) - losses.beta_binomial(
        np.full(2, 0.7), observed, of, people
    )
    assert found == pytest.approx(log_pmf(0.7) - log_pmf(0.2), rel=1e-9)
    lattice = [losses.beta_binomial(np.full(2, s), np.full(2, 0.3), of, people) for s in np.linspace(0, 1, 501)]
    assert 0 <= min(lattice) < 2e-3


def test_normal_squared_and_absolute_are_means() -> None:
    y, s = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 1.0])
    assert losses.squared(s, y) == pytest.approx((0.25 + 9) / 3)
    assert losses.absolute(s, y) == pytest.approx(3.5 / 3)
    assert losses.normal(s, y, np.array([0.5, 1.0, 3.0])) == pytest.approx((1 + 1) / 6)


@pytest.mark.parametrize("name", ["squared", "absolute", "normal", "poisson", "binomial", "beta_binomial"])
def test_many_simulations_at_once_are_each_of_them_and_nan_stays_nan(name: str) -> None:
    draws = np.random.default_rng(3)
    y, many = draws.uniform(0.2, 0.8, 5), draws.uniform(0.05, 0.95, (4, 5))
    more = {"normal": (0.3,), "binomial": (40.0,), "beta_binomial": (40.0, 100.0)}.get(name, ())
    loss = getattr(losses, name)
    together = loss(many, y, *more)
    assert together.shape == (4,)
    assert together == pytest.approx([float(loss(row, y, *more)) for row in many])
    assert (together >= 0).all()
    many[2, 1] = np.nan
    assert np.isnan(loss(many, y, *more)).tolist() == [False, False, True, False]
