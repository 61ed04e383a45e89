"""The emulator finds the optimum of what the simulator puts out on average, stays inside the bounds, and repeats itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.calibrate.kernels import surface
from millrace.analyses.calibrate.kernels.emulator import Dimension, Emulator
from millrace.run.errors import WrongQuestion

PLANE = [Dimension("rate", "log", 0.01, 1.0), Dimension("share", "logit", 0.05, 0.95)]
TRUTH = {"rate": 0.2, "share": 0.3}
OBSERVED = np.array([math.log(0.2), 0.3, 0.2 * 0.3])


def simulate(params: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    exact = np.array([math.log(params["rate"]), params["share"], params["rate"] * params["share"]])
    return exact + rng.normal(0, [0.1, 0.02, 0.005])


def loss(summaries: np.ndarray) -> np.ndarray:
    return np.square((np.atleast_2d(summaries) - OBSERVED) / [0.1, 0.02, 0.005]).sum(axis=1)


def searched(seed: int, budget: int = 48, in_flight: int = 4) -> tuple[Emulator, list[dict[str, float]]]:
    made, rng, asked, flight = Emulator(PLANE, seed, budget, loss), np.random.default_rng(seed), [], []
    for _ in range(budget):
        if len(flight) == in_flight:
            _tell(made, flight.pop(0), rng)
        flight += made.ask(1)
        asked.append(flight[-1])
    for params in flight:
        _tell(made, params, rng)
    return made, asked


def _tell(made: Emulator, params: dict[str, float], rng: np.random.Generator) -> None:
    y = simulate(params, rng)
    made.tell(params, y, float(loss(y)[0]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_what_the_data_came_from(seed):
    best = searched(seed)[0].best()
    assert best["rate"] == pytest.approx(0.2, rel=0.08) and best["share"] == pytest.approx(0.3, abs=0.03)


def test_waves_come_closer_than_the_even_third():
    _, asked = searched(3)
    far = [abs(math.log(p["rate"] / 0.2)) + abs(p["share"] - 0.3) for p in asked]
    assert np.median(far[-16:]) < 0.25 * np.median(far[:16])


def test_the_same_tells_in_the_same_order_give_the_same_asks():
    first, second = searched(4), searched(4)
    assert first[1] == second[1]
    assert first[0].finalists() == second[0].finalists() == first[0].finalists()
    assert searched(5)[1] != first[1]


def test_asking_several_at_once_gives_what_asking_one_by_one_gives():
    one, many = Emulator(PLANE, 7, 40, loss), Emulator(PLANE, 7, 40, loss)
    assert [one.ask(1)[0] for _ in range(12)] == many.ask(12)


def test_the_finish_gets_five_that_differ_and_the_optimum_is_the_first():
    made, _ = searched(6)
    found = made.finalists(5)
    assert found[0] == made.best() and len({tuple(p.values()) for p in found}) == 5


def test_failures_teach_to_stay_away():
    made, rng, asked = Emulator(PLANE, 8, 60, loss), np.random.default_rng(8), []
    for _ in range(60):
        params = made.ask(1)[0]
        asked.append(params)
        if params["share"] > 0.35:
            made.tell(params, None, math.inf)
        else:
            _tell(made, params, rng)
    assert sum(p["share"] > 0.4 for p in asked[-25:]) < sum(p["share"] > 0.4 for p in asked[:25]) / 2


def test_a_study_in_which_all_fail_goes_on_asking_and_has_no_best():
    made = Emulator(PLANE, 9, 40, loss)
    for _ in range(50):
        made.tell(made.ask(1)[0], [math.nan] * 3, math.nan)
    with pytest.raises(WrongQuestion, match="no simulation that worked"):
        made.best()


def test_of_few_simulations_the_best_told_is_the_best():
    made, rng = Emulator(PLANE, 10, 40, loss), np.random.default_rng(0)
    told = made.ask(4)
    for params in told:
        _tell(made, params, rng)
    assert made.best() in told


def test_replicates_count_as_simulations_at_one_place():
    """Two at each of 24 places use up the 48: the last places are near the optimum, as those of 48 single ones are."""
    made, rng, asked = Emulator(PLANE, 11, 48, loss), np.random.default_rng(0), []
    for _ in range(24):
        asked += made.ask(1)
        y = np.array([simulate(asked[-1], rng) for _ in range(2)])
        made.tell(asked[-1], y, float(loss(y).mean()))
    far = [abs(math.log(p["rate"] / 0.2)) + abs(p["share"] - 0.3) for p in asked]
    assert np.median(far[-6:]) < 0.25 * np.median(far[:8])
    assert made.best()["rate"] == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_or_too_many_parameters_are_refused(count):
    with pytest.raises(WrongQuestion, match="1 to 6"):
        Emulator([Dimension(str(i), "float", 0, 1) for i in range(count)], 0, 100, loss)


def test_a_budget_without_room_for_a_quadratic_is_refused():
    with pytest.raises(WrongQuestion, match="at least 12 simulations"):
        Emulator(PLANE, 0, 11, loss)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("float", 1, 1), ("log", 0, 1), ("logit", 0.1, 1), ("float", 0, math.inf)]
)
def test_bounds_that_cannot_be_are_refused(kind, low, high):
    with pytest.raises(WrongQuestion, match="'x'"):
        Dimension("x", kind, low, high)


# -- surfaces ------------------------------------------------------------------------------------------------------
@given(st.floats(0, 1), st.floats(0, 1))
def test_places_go_to_native_values_and_back(a, b):
    native = surface.to_native(PLANE, np.array([[a, b]]))
    assert 0.01 <= native[0, 0] <= 1.0 and 0.05 <= native[0, 1] <= 0.95
    assert surface.to_unit(PLANE, native) == pytest.approx(np.array([[a, b]]), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_surface_is_weighted_least_squares(seed):
    rng = np.random.default_rng(seed)
    x, w = rng.random((40, 2)), rng.uniform(0.1, 1, 40)
    y = rng.normal(size=(40, 3))
    made = surface.fit(x, y, w)
    f, root = surface.features(x), np.sqrt(w)[:, None]
    expected = np.linalg.lstsq(f * root, made.scales.forward(y) * root, rcond=None)[0]
    assert made.mean(x) == pytest.approx(f @ expected, abs=0.02)  # a slight ridge


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 0.8))
def test_alike_simulations_are_solved_as_their_whole_matrix_says(seed, correlation):
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 5, 30)
    rows = rng.normal(size=(30, 2))
    whole = (1 - correlation) * np.eye(30) + correlation * (seeds[:, None] == seeds)
    assert surface.Likeness(seeds, correlation).solved(rows) == pytest.approx(np.linalg.solve(whole, rows), abs=1e-8)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(lambda z: np.exp(z), "log"), (lambda z: z, "same"), (lambda z: (z + 3) ** 2, "root")],
)
def test_the_scale_is_chosen_on_which_a_quadratic_with_even_noise_fits(make, kind):
    rng = np.random.default_rng(1)
    x = rng.random((400, 1))
    y = make(2 * x - 3 * x**2 + rng.normal(0, 0.5, (400, 1)))
    assert surface.SCALES[surface.choose(x, y, np.ones(400)).kinds[0]] == kind


@given(st.lists(st.floats(0, 1), min_size=20, max_size=20))
def test_scales_go_there_and_back(values):
    y = np.array([values, values[::-1]]).T
    x = np.linspace(0, 1, 20)[:, None]
    for kind in range(4):
        made = surface.Scales(
            np.full(2, kind), np.full(2, 0.01 if kind else 0.0), np.full(2, -np.inf), np.full(2, np.inf)
        )
        assert made.back(made.forward(y)) == pytest.approx(y, abs=1e-9)
    chosen = surface.choose(x, y, np.ones(20))
    assert chosen.back(chosen.forward(y)) == pytest.approx(y, abs=1e-8)


def test_a_summary_that_never_varies_is_carried_along():
    x = np.random.default_rng(0).random((30, 2))
    made = surface.fit(x, np.column_stack([np.full(30, 7.0), np.zeros(30), x[:, 0]]), np.ones(30))
    assert made.scales.back(made.mean(x))[:, :2] == pytest.approx(np.array([[7.0, 0.0]] * 30), abs=0.02)
