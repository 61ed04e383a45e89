"""What the numerics promise, over seeded worlds of a fast simulator: in short here, in full where it is slow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))
import studies
from epidemics import World


def searched(found: list[studies.Found]) -> int:
    return sum(f.searched for f in found)


def held_out(found: list[studies.Found]) -> list[float]:
    return [f.held_out for f in found]


def test_early_stopping_halves_the_simulations_in_a_few_worlds():
    found = studies.stopping(8, trials=50, arms=("five fixed", "stopped early"))
    assert searched(found["stopped early"]) <= 0.5 * searched(found["five fixed"])
    assert studies.ratio(held_out(found["stopped early"]), held_out(found["five fixed"]))[0] < 1.3


def test_emulate_is_level_with_tpe_at_a_third_of_the_simulations_in_a_few_worlds():
    ours, theirs = (studies.sampler(name, 6, 2) for name in ("emulate", "TPE, 3 replicates"))
    assert {f.simulations for f in ours} == {80} and {f.simulations for f in theirs} == {230}
    assert studies.ratio(held_out(ours), held_out(theirs))[0] < 1.25


def test_intervals_hold_most_truths_in_a_few_worlds():
    found = studies.coverage(8, 2, 40)["known"]
    assert found.held.mean() >= 0.75 and 0.02 < found.widths.mean() < 0.6


def test_a_world_is_the_same_every_time_and_seeds_make_noise():
    first, second = World(3, 4), World(3, 4)
    assert (first.observed == second.observed).all()
    assert (first.run(first.truth, 5) == second.run(first.truth, 5)).all()
    assert (first.run(first.truth, 5) != first.run(first.truth, 6)).any()


@pytest.mark.slow
def test_early_stopping_takes_half_the_simulations_and_costs_less_than_15_per_cent_of_hold_out_loss():
    found = studies.stopping(150, arms=("five fixed", "stopped early"))
    assert searched(found["stopped early"]) <= 0.5 * searched(found["five fixed"])
    assert studies.ratio(held_out(found["stopped early"]), held_out(found["five fixed"]))[1] < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", studies.BUDGETS)
def test_emulate_needs_less_than_half_of_the_simulations_of_tpe(dimensions):
    ours = studies.sampler("emulate", 40, dimensions)
    for name in ("TPE, 3 replicates", "TPE, stopped early"):
        theirs = studies.sampler(name, 40, dimensions)
        assert 2 * np.mean([f.simulations for f in ours]) <= np.mean([f.simulations for f in theirs])
        middle, bound = studies.ratio(held_out(ours), held_out(theirs))
        assert middle <= 1.05 and bound < 1.15, name


@pytest.mark.slow
@pytest.mark.parametrize(("dimensions", "simulations"), [(2, 60), (4, 110)])
def test_intervals_cover_what_they_say(dimensions, simulations):
    found = studies.coverage(60, dimensions, simulations)["known"]
    assert 0.85 <= found.held.mean() <= 0.95
