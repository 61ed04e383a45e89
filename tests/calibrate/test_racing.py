"""Replicates stop when a trial is worse beyond doubt: by the formulas, on any losses, and never the incumbent."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.analyses.calibrate.kernels.racing import TrialLosses, finalists, noise, stop

INCUMBENT = TrialLosses(0, (10.0, 12.0, 8.0, 11.0, 9.0))
losses = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5).map(tuple)


def times(factor: float, n: int, number: int = 9) -> TrialLosses:
    return TrialLosses(number, tuple(factor * v for v in INCUMBENT.losses[:n]))


@pytest.mark.parametrize(("factor", "n", "stops"), [
    (5.0, 1, True),  # log 5 = 1.609 > 2 x .8
    (4.9, 1, False),  # log 4.9 = 1.589
    (2.8, 2, True),  # v = 4 x .64 / 5, 2 sqrt(v / 2) = 1.012 < log 2.8 = 1.030
    (2.7, 2, False),  # log 2.7 = .993
    (1.1, 4, False),
    (0.5, 1, False),
])  # fmt: skip
def test_the_rule_on_exact_ratios_is_as_computed_by_hand(factor, n, stops):
    assert stop([], times(factor, n), INCUMBENT, positive=True) is stops


@given(losses, st.integers(0, 100))
def test_the_rule_equals_its_formula(given_losses, seed):
    rng = np.random.default_rng(seed)
    history = [TrialLosses(i, tuple(np.exp(rng.normal(3, 1, rng.integers(1, 6))))) for i in range(1, 9)]
    trial = TrialLosses(9, given_losses)
    n = len(given_losses)
    d = [math.log(a / b) for a, b in zip(given_losses, INCUMBENT.losses, strict=False)]
    s = noise([*history, trial], INCUMBENT)
    v = (4 * s**2 + sum((x - statistics.fmean(d)) ** 2 for x in d)) / (n + 3)
    margin = statistics.fmean(d) - 2 * math.sqrt(v / n)
    if abs(margin) > 1e-9:
        assert stop(history, trial, INCUMBENT, positive=True) is (margin > 0)


@given(losses, st.floats(1e-3, 1e3))
def test_the_unit_of_a_positive_loss_does_not_matter(given_losses, unit):
    trial, scaled = TrialLosses(9, given_losses), TrialLosses(9, tuple(unit * v for v in given_losses))
    incumbent = TrialLosses(0, tuple(unit * v for v in INCUMBENT.losses))
    # A ratio on the very edge may round either way.
    nearer = TrialLosses(9, tuple(v * 1.0001 for v in given_losses))
    both = {stop([], t, INCUMBENT, positive=True) for t in (trial, nearer)}
    assert len(both) > 1 or stop([], scaled, incumbent, positive=True) in both


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5).map(tuple), st.floats(-1e3, 1e3))
def test_nothing_stops_on_its_first_replicate_or_for_being_better_when_losses_may_be_negative(given_losses, shift):
    incumbent = TrialLosses(0, tuple(v + shift for v in (1.0, 2.0, 3.0, 4.0, 5.0)))
    trial = TrialLosses(9, given_losses)
    stops = stop([], trial, incumbent, positive=False)
    worse = statistics.fmean(given_losses) > statistics.fmean(incumbent.losses[: len(given_losses)])
    assert not stops or (len(given_losses) >= 2 and worse)


def test_raw_losses_stop_beyond_three_errors():
    def apart(*d: float) -> TrialLosses:
        return TrialLosses(9, tuple(a + b for a, b in zip(INCUMBENT.losses, d, strict=False)))

    assert stop([], apart(4.0, 5.0, 6.0), INCUMBENT, positive=False)  # mean 5; 3 errors are 3 / sqrt(3)
    assert not stop([], apart(0.0, 1.0, 2.0), INCUMBENT, positive=False)  # mean 1


def test_the_noise_is_found_again_whatever_the_level_of_each_trial():
    rng = np.random.default_rng(1)
    history = [TrialLosses(0, (1.0,) * 5)]
    history += [TrialLosses(i, tuple(np.exp(rng.normal(2, 1) + rng.normal(0, 0.3, 5)))) for i in range(1, 40)]
    assert noise(history, history[0]) == pytest.approx(0.3, rel=0.25)
    found = [TrialLosses(t.number, tuple(math.log(v) - 5 for v in t.losses)) for t in history]
    assert noise(found, found[0], positive=False) == pytest.approx(noise(history, history[0]))


def test_until_five_differences_exist_the_noise_is_the_prior():
    few = [INCUMBENT, times(2.0, 5, 1)]
    assert noise(few) == 0.8 and noise([]) == 0.8 and noise([], positive=False) is None
    assert noise([*few, TrialLosses(2, (1.0, 20.0))]) != 0.8


def test_only_the_last_sixty_differences_count():
    rng = np.random.default_rng(2)
    old = [TrialLosses(i, tuple(np.exp(rng.normal(0, 3, 5)))) for i in range(1, 40)]
    new = [TrialLosses(i, tuple(np.exp(rng.normal(0, 0.1, 5)))) for i in range(40, 60)]
    first = TrialLosses(0, (1.0,) * 5)
    assert noise([first, *old, *new], first) < 0.2


def test_a_perfect_loss_and_a_broken_one_are_taken():
    assert not stop([], TrialLosses(9, (0.0,)), INCUMBENT, positive=True)
    assert stop([], TrialLosses(9, (1.0,)), TrialLosses(0, (0.0,)), positive=True)
    assert stop([], TrialLosses(9, (math.nan,)), INCUMBENT, positive=True)
    assert stop([], TrialLosses(9, (math.inf,)), INCUMBENT, positive=False)
    assert not stop([], INCUMBENT, INCUMBENT, positive=True)


def test_a_finalist_that_was_lucky_once_ranks_behind_one_that_was_good_five_times():
    trials = [TrialLosses(0, (10.0,) * 5), TrialLosses(1, (9.0,)), TrialLosses(2, (20.0,) * 5), TrialLosses(3, (math.nan,)),
              TrialLosses(4, ())]  # fmt: skip
    assert finalists(trials, positive=True) == [0, 1, 2]
    assert finalists(trials, 1, positive=True) == [0]
    assert finalists([TrialLosses(0, (6.0,)), TrialLosses(1, (10.0,) * 5)], positive=True) == [0, 1]
    assert finalists([TrialLosses(0, (-3.0, -1.0)), TrialLosses(1, (5.0, 4.0))], positive=False) == [0, 1]
