"""The plan of a simulation: pure, cut by the question alone, and saying what is too small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.analyses.twin.simulate_plan import Facts, plan_simulate
from millrace.run.budget import Budget
from millrace.run.errors import DoesNotFit

FACTS = st.builds(
    Facts, n=st.integers(100, 10**7), columns=st.integers(2, 300), model_bytes=st.integers(0, 10**8), trees=st.integers(0, 3_000),
    interventions=st.integers(1, 20), groups=st.integers(0, 6),
)  # fmt: skip


@given(FACTS, st.integers(1, 16))
def test_blocks_are_cut_by_the_question_alone(facts: Facts, cores: int) -> None:
    small, large = plan_simulate(facts, Budget(1, 1 << 40)), plan_simulate(facts, Budget(cores, 1 << 42))
    assert (small.tasks, small.block, small.core_s) == (large.tasks, large.block, large.core_s)
    assert large.slots <= cores and small.peak_bytes >= small.smallest_bytes
    assert small.tasks * small.block >= facts.n


@given(FACTS)
def test_more_twins_take_more(facts: Facts) -> None:
    from dataclasses import replace

    one = plan_simulate(facts, Budget(1, 1 << 42))
    two = plan_simulate(replace(facts, n=2 * facts.n), Budget(1, 1 << 42))
    assert two.core_s > one.core_s and two.driver_bytes >= one.driver_bytes


def test_a_budget_that_is_too_small_is_said() -> None:
    with pytest.raises(DoesNotFit, match="twin simulate"):
        plan_simulate(Facts(10**6, 100, 0, 500, 6, 2), Budget(1, 100 << 20))
