"""Power and sample sizes beside statsmodels (equal variances), simulated experiments (unequal ones), and their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from millrace.analyses.twin.power import duration_days, power, sample_size
from millrace.run.errors import WrongQuestion


@pytest.mark.parametrize("effect", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_equal_variances_are_as_in_statsmodels(effect: float, ratio: float) -> None:
    from statsmodels.stats.power import TTestIndPower

    wanted = TTestIndPower().solve_power(effect, alpha=0.05, power=0.8, ratio=ratio)
    found = sample_size(effect, 1.0, 1.0, ratio=ratio)
    assert found is not None
    assert abs(found.n_treated - wanted) <= 2
    assert found.power >= 0.8


def test_unequal_variances_are_as_in_simulated_experiments() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 2.0, (4000, 60)), rng.normal(0.0, 0.7, (4000, 30))
    seen = float((stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05).mean())
    assert abs(power(0.5, 60, 30, 2.0, 0.7) - seen) < 0.02


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 2), st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.5, 0.95), st.floats(0, 0.6))
def test_the_experiment_is_the_smallest_that_is_enough(
    effect: float, treated: float, control: float, wanted: float, attrition: float
) -> None:
    found = sample_size(effect, treated, control, wanted=wanted, attrition=attrition)
    assert found is not None and found.power >= wanted
    staying = round(found.n_treated * (1 - attrition))
    if staying > 4:
        assert power(effect, staying - 2, staying - 2, treated, control) < wanted + 0.02
    assert found.n_treated >= sample_size(effect, treated, control, wanted=wanted).n_treated  # type: ignore[union-attr]


def test_no_sample_sees_nothing() -> None:
    assert sample_size(0.0, 1.0, 1.0) is None
    assert power(0.5, 1, 1, 1.0, 1.0) == 0.0
    assert power(50.0, 1000, 1000, 1.0, 1.0) == 1.0
    with pytest.raises(WrongQuestion, match="above 0"):
        power(0.5, 10, 10, 0.0, 1.0)
    with pytest.raises(WrongQuestion, match="attrition"):
        sample_size(0.5, 1.0, 1.0, attrition=1.0)


def test_days_are_enrolment_and_what_follows() -> None:
    assert duration_days(100, 30.0, None) == 30
    assert duration_days(100, 30.0, 10.0) == 39
