"""The order of service: who can overtake whom, and who makes room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.run.order import PRIORITY_S, WEIGHT, remaining_s, service_key, yields

times = st.floats(0, 1e6)


@given(times, times)
def test_something_is_always_left_to_run(predicted: float, attained: float) -> None:
    left = remaining_s(predicted, attained)
    assert left >= 1.0
    assert left >= predicted - attained


@given(times, times, st.floats(0, 1e6))
def test_more_attained_work_never_means_more_left_until_the_prediction_is_in_doubt(
    a: float, b: float, p: float
) -> None:
    low, high = sorted((a, b))
    if high <= 0.67 * p:
        assert remaining_s(p, high) <= remaining_s(p, low)


def test_a_job_that_outlives_its_prediction_is_two_thirds_through() -> None:
    assert remaining_s(100, 200) == 100
    assert remaining_s(100, 80) == 40
    assert remaining_s(100, 60) == 40
    assert remaining_s(0, 0) == 1


@given(times, st.floats(1, 1e5), st.floats(0, 1e6), st.floats(1, 1e5))
def test_only_what_comes_within_the_weight_times_its_length_overtakes(
    at: float, left: float, later: float, other: float
) -> None:
    """Of equal priority: who is queued more than 4 x what is left of a job after it does not go before it."""
    if later > WEIGHT * left:
        assert service_key(at + later, other) > service_key(at, left)


def test_a_step_of_priority_is_worth_an_hour() -> None:
    assert service_key(PRIORITY_S, 10, 1) == service_key(0, 10, 0)


@given(st.floats(0, 1e9), st.none() | st.floats(0, 1e9))
def test_nobody_yields_without_one_who_outranks(own: float, best: float | None) -> None:
    assert yields(own, best) == (best is not None and best < own)
