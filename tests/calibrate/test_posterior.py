"""Intervals are those of the exact posterior where that is known, widen for what is not known, and say nothing of nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from millrace.analyses.calibrate.kernels.posterior import covariance, intervals
from millrace.analyses.calibrate.kernels.surface import Dimension, fit

LINE = [Dimension("a", "float", -10.0, 10.0)]
PLANE = [Dimension("a", "float", -10.0, 10.0), Dimension("b", "log", 0.1, 10.0)]


def line(n: int = 400, sd: float = 1.0, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """One summary that is the parameter, and noise."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-5, 5, (n, 1))
    return a, list(a + rng.normal(0, sd, (n, 1)))


def test_of_a_normal_mean_the_interval_is_the_exact_one():
    params, summaries = line()
    (low, high) = intervals(params, summaries, [1.0], LINE, [1.0], 0.90, noise=[0.0])["a"]
    assert (low, high) == pytest.approx((1 - 1.645, 1 + 1.645), abs=0.15)


def test_noise_of_observing_adds_to_that_of_simulating():
    params, summaries = line()
    (low, high) = intervals(params, summaries, [1.0], LINE, [1.0], 0.90, noise=[2.0])["a"]
    assert high - low == pytest.approx(2 * 1.645 * np.sqrt(5), rel=0.08)


def test_two_summaries_of_one_parameter_count_as_their_correlation_says():
    """(y1, y2) = a + noise with correlation .8: the mean's variance is .9, not .5."""
    rng = np.random.default_rng(1)
    a = rng.uniform(-5, 5, (600, 1))
    noise = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 600)
    (low, high) = intervals(a, list(a + noise), [0.0, 0.0], LINE, [0.0], 0.90, noise=[0.0, 0.0])["a"]
    assert (high - low) / (2 * 1.645) == pytest.approx(np.sqrt(0.9), rel=0.1)


def test_two_parameters_get_the_marginals_of_the_exact_posterior():
    rng = np.random.default_rng(2)
    a, b = rng.uniform(-3, 3, 600), np.exp(rng.uniform(-1, 1, 600))
    y = np.stack([a + np.log(b), a - np.log(b)], axis=1) + rng.normal(0, 0.4, (600, 2))
    found = intervals(np.stack([a, b], axis=1), list(y), [0.5, 0.5], PLANE, [0.5, 1.0], 0.90, noise=[0.0, 0.0])
    z = stats.norm.ppf(0.95) * 0.4 / np.sqrt(2)
    assert found["a"] == pytest.approx((0.5 - z, 0.5 + z), abs=0.08)
    assert np.log(found["b"]) == pytest.approx((-z, z), abs=0.08)


def test_few_simulations_widen_the_interval():
    many, few = ([*line(n, seed=3)] for n in (400, 14))
    wide = [intervals(p, s, [1.0], LINE, [1.0], noise=[0.0])["a"] for p, s in (few, many)]
    assert wide[0][1] - wide[0][0] > 1.1 * (wide[1][1] - wide[1][0])


def test_simulations_that_share_seeds_are_worth_less():
    """Four seeds whose luck is all of the noise: the surface is sure of nothing below the mean of four."""
    rng = np.random.default_rng(4)
    luck = rng.normal(0, 1, 4)
    a = rng.uniform(-5, 5, (60, 1))
    summaries = [np.array([[x[0] + luck[s] + rng.normal(0, 0.1)] for s in range(4)]) for x in a]
    seeds = [list(range(4))] * 60
    shared = intervals(a, summaries, [0.0], LINE, [0.0], noise=[0.0], seeds=seeds)["a"]
    alone = intervals(a, summaries, [0.0], LINE, [0.0], noise=[0.0])["a"]
    assert shared[1] - shared[0] > 1.15 * (alone[1] - alone[0])


def test_without_the_noise_of_observing_misfit_widens_the_interval():
    """Three summaries of one parameter that contradict each other by ten standard deviations."""
    rng = np.random.default_rng(5)
    a = rng.uniform(-8, 8, (400, 1))
    y = list(a + rng.normal(0, 0.2, (400, 3)))
    fits = intervals(a, y, [1.0, 1.1, 0.9], LINE, [1.0])["a"]
    torn = intervals(a, y, [-1.0, 1.0, 3.0], LINE, [1.0])["a"]
    assert torn[1] - torn[0] > 4 * (fits[1] - fits[0]) and torn[0] < 1.0 < torn[1]


def test_intervals_stay_inside_the_bounds():
    params, summaries = line(sd=6.0)
    low, high = intervals(params, summaries, [9.0], LINE, [9.0], noise=[0.0])["a"]
    assert -10 <= low < high <= 10


def test_of_too_few_simulations_or_one_seed_nothing_is_known():
    params, summaries = line(6)
    assert intervals(params, summaries, [1.0], LINE, [1.0]) == {}
    params, summaries = line(50)
    assert intervals(params, summaries, [1.0], LINE, [1.0], seeds=[[3]] * 50) == {}
    assert intervals(np.ones((50, 1)), summaries, [1.0], LINE, [1.0]) == {}


def test_simulations_with_gaps_are_left_out_and_the_answer_repeats():
    params, summaries = line()
    gaps = [s if i % 10 else np.array([np.nan]) for i, s in enumerate(summaries)]
    first = intervals(params, gaps, [1.0], LINE, {"a": 1.0})
    assert first == intervals(params, gaps, [1.0], LINE, {"a": 1.0})
    assert first["a"] == pytest.approx((1 - 1.645, 1 + 1.645), abs=0.25)


def test_the_covariance_is_found_again_and_positive_where_summaries_outnumber_simulations():
    rng = np.random.default_rng(6)
    truth = np.array([[1.0, 0.6], [0.6, 2.0]])
    x = rng.random((2000, 1))
    found = covariance(fit(x, rng.multivariate_normal([0, 0], truth, 2000) + 50, np.ones(2000)))
    slopes = np.sqrt(np.diag(found))
    assert found[0, 1] / slopes.prod() == pytest.approx(0.6 / np.sqrt(2), abs=0.05)
    many = covariance(fit(x[:30], rng.normal(size=(30, 80)), np.ones(30)))
    assert np.linalg.eigvalsh(many).min() > 0
