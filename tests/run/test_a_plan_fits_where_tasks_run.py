"""A plan under a budget: as many slots as it carries, and in the driver, one task and no process for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace import compose
from millrace.run.budget import Budget, Plan, fit
from millrace.run.errors import DoesNotFit

NEEDED = Plan("test", "plain", 40, 1, 1, 300, 100, 0, 0, 10.0, base_bytes=250)


@given(st.integers(1, 64), st.integers(0, 100_000), st.booleans())
def test_the_peak_is_within_the_budget_or_the_smallest_that_would_do_is_told(
    cores: int, private_bytes: int, isolates: bool
) -> None:
    budget = Budget(cores, private_bytes, isolates)
    smallest = 100 + (300 if isolates else 50)
    if private_bytes < smallest:
        with pytest.raises(DoesNotFit) as told:
            fit(NEEDED, budget)
        assert told.value.needs_bytes == smallest
    else:
        fitted = fit(NEEDED, budget)
        assert fitted.peak_bytes <= private_bytes
        assert 1 <= fitted.slots <= (cores if isolates else 1)


def test_in_the_driver_a_task_costs_what_it_adds() -> None:
    assert fit(NEEDED, Budget(4, 10_000)).peak_bytes == 100 + 4 * 300
    assert fit(NEEDED, Budget(4, 10_000, isolates=False)).peak_bytes == 100 + 50
    with pytest.raises(DoesNotFit, match=r"50.*in a task"):
        fit(NEEDED, Budget(4, 149, isolates=False))


@pytest.mark.parametrize(("engine", "isolates"), [("inline", False), ("processes", True), ("auto", True)])
def test_the_budget_knows_the_engine_that_was_asked_for(engine: str, isolates: bool) -> None:
    assert compose.budget_of(compose.load_settings({"engine": engine})).isolates is isolates
