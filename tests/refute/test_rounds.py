"""Simulations stop at whole rounds, in item order, and only when the verdict is certain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.refute import rounds, rules
from millrace.analyses.refute.study import Fit
from millrace.run.errors import WrongQuestion

FIT = Fit(0.5, 0.1, 0.1, 400, "HC3", {})


def normal(b: int, mean: float, sd: float) -> np.ndarray:
    """Exactly this mean and sd, so that a verdict does not hang on the draw."""
    x = np.random.default_rng(0).normal(size=b)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


def test_rounds_are_whole_and_of_tests_made_of_simulations():
    with pytest.raises(WrongQuestion, match="whole rounds of 50"):
        rounds.until("bootstrap", np.ones(60), FIT)
    with pytest.raises(WrongQuestion, match="not made of simulations"):
        rounds.until("blocks", normal(50, 0, 1), FIT)


def test_a_clear_spread_stops_early_and_a_doubtful_one_does_not():
    rng = np.random.default_rng(0)
    clear = rounds.stop_at("bootstrap", rng.normal(0.5, 0.1, 1000), FIT)
    assert clear is not None and 100 <= clear <= 800
    assert rounds.stop_at("bootstrap", rng.normal(0.5, 0.3, 1000), FIT) < clear  # type: ignore[operator]
    assert rounds.stop_at("bootstrap", normal(1000, 0.5, 0.125), FIT) is None


def test_a_stop_depends_on_the_simulations_before_it_only():
    effects = np.random.default_rng(1).normal(0, 0.1, 2000)
    errors = np.full(2000, 0.1)
    at = rounds.stop_at("placebo", effects, FIT, errors=errors)
    assert at is not None and rounds.stop_at("placebo", effects[:at], FIT, errors=errors[:at]) == at
    changed = np.concatenate([effects[:at], effects[at:] * 50])
    assert rounds.stop_at("placebo", changed, FIT, errors=errors) == at


def test_the_monte_carlo_error_of_p_can_be_asked_for():
    effects, errors = np.random.default_rng(2).normal(0, 0.1, 5000), np.full(5000, 0.1)
    middling = replace(FIT, effect=0.1)
    loose = rounds.stop_at("placebo", effects, middling, errors=errors)
    tight = rounds.stop_at("placebo", effects, middling, errors=errors, p_error_below=0.01)
    assert loose is not None and tight is not None and tight > loose
    at = rounds.until("placebo", effects[:tight], middling, errors=errors[:tight])
    assert at.p_error is not None and at.p_error <= 0.01
    assert at.p_error == pytest.approx(
        rules.placebo(effects[:tight], errors[:tight], middling).details["p_monte_carlo_error"]
    )


def test_failures_are_watched_too():
    effects = normal(200, 0.5, 0.1)
    effects[::3] = np.nan
    found = rounds.until("subset", effects, FIT)
    assert found.certain and found.of == "failed share" and rules.subset(effects, FIT).status == "failed"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.4, 2.0))
def test_an_early_verdict_is_that_of_all_simulations(seed, ratio):
    """With a 1 in 1,000 chance of another one for each test; two sds that lie on an edge are never certain."""
    effects = np.random.default_rng(seed).normal(0.5, 0.1 * ratio, 2000)
    at = rounds.stop_at("bootstrap", effects, FIT)
    if at is not None:
        edges = np.array([0.67, 0.8, 1.25, 1.5])
        truth = np.searchsorted(edges, ratio)
        assert np.searchsorted(edges, effects[:at].std(ddof=1) / 0.1) == truth or np.abs(edges - ratio).min() < 0.02


def test_bounds_hold_at_all_rounds_at_once():
    wrong = 0
    for seed in range(300):
        hits = np.cumsum(np.random.default_rng(seed).random(1000) < 0.05)
        bad = False
        for turn in range(1, 21):
            low, high = rounds.proportion_bounds(int(hits[50 * turn - 1]), 50 * turn, 0.05 / (turn * (turn + 1)))
            bad |= not low <= 0.05 <= high
        wrong += bad
    assert wrong / 300 < 0.05
