"""The decision table: every rule, their order, and what must hold whatever the figures are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.analyses.twin.recommend import Evidence, decide

FIGURES = st.floats(-10, 10, allow_nan=False)
SHARES = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize(
    ("effect", "low", "high", "fidelity", "action", "rule"),
    [
        (-0.3, -0.4, -0.2, 0.9, "skip", "harmful"),
        (-0.01, -0.02, -0.005, 0.9, "skip", "harmful"),
        (0.04, 0.03, 0.05, 0.9, "skip", "small"),
        (-0.04, -0.1, 0.02, 0.9, "skip", "small"),
        (0.2, -0.1, 0.5, 0.9, "refine", "unsure"),
        (0.2, 0.0, 0.4, 0.9, "refine", "unsure"),
        (-0.2, -0.5, 0.1, 0.9, "refine", "unsure"),
        (0.2, 0.05, 0.4, 0.9, "refine", "wide"),
        (0.2, 0.15, 0.25, None, "refine", "unknown fidelity"),
        (0.2, 0.15, 0.25, 0.69, "refine", "low fidelity"),
        (0.2, 0.15, 0.25, math.nan, "refine", "low fidelity"),
        (0.2, 0.15, 0.25, 0.70, "deploy", "good"),
        (0.05, 0.04, 0.06, 0.9, "deploy", "good"),
    ],
)
def test_each_rule_has_its_place(
    effect: float, low: float, high: float, fidelity: float | None, action: str, rule: str
) -> None:
    found = decide(Evidence(effect, low, high, 0.05, fidelity))
    assert (found.action, found.rule) == (action, rule)
    assert found.sentence.lower().startswith(action)


@given(FIGURES, st.floats(0, 5), st.floats(0, 5), st.floats(0, 2), st.none() | SHARES)
def test_what_is_deployed_is_sure_large_and_borne_out(
    effect: float, below: float, above: float, smallest: float, fidelity: float | None
) -> None:
    low, high = effect - below, effect + above
    found = decide(Evidence(effect, low, high, smallest, fidelity))
    good = (
        low > 0 and abs(effect) >= smallest and high - low <= abs(effect) and fidelity is not None and fidelity >= 0.7
    )
    assert (found.action == "deploy") == good
    assert (found.action == "skip") == (high < 0 or abs(effect) < smallest)


@given(FIGURES, st.floats(0, 5), st.floats(0, 5), st.none() | SHARES, st.floats(0.0, 5))
def test_more_doubt_never_leads_to_deploying(
    effect: float, below: float, above: float, fidelity: float | None, more: float
) -> None:
    narrow = decide(Evidence(effect, effect - below, effect + above, 0.05, fidelity))
    wide = decide(Evidence(effect, effect - below - more, effect + above + more, 0.05, fidelity))
    assert not (wide.action == "deploy" and narrow.action != "deploy")
    unknown = decide(Evidence(effect, effect - below, effect + above, 0.05, None))
    assert unknown.action != "deploy"


@pytest.mark.parametrize("at", ["effect", "low", "high"])
def test_what_is_no_number_is_never_deployed(at: str) -> None:
    given_figures = {"effect": 0.2, "low": 0.15, "high": 0.25} | {at: math.nan}
    assert decide(Evidence(**given_figures, fidelity=1.0)).action == "refine"
