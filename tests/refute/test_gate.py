"""The gate adds up as it says, blocks on critical failures, never lets an unrun test pass, and does not see the units."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.refute import gate, rules
from millrace.run.errors import WrongQuestion

sys.path.insert(0, os.fspath(Path(__file__).parent))
import worlds

DEFAULT = ("sensitivity", "placebo", "overlap", "negative_control", "blocks", "estimators", "bootstrap", "subset")
USUAL = ("placebo", "random_common_cause", "subset", "bootstrap", "blocks", "overlap", "sensitivity")


def results(*names: str, **statuses: str) -> list[rules.TestResult]:
    made = []
    for name in dict.fromkeys([*names, *statuses]):
        plain = rules.skipped(name, "no reason")
        status = statuses.get(name, "passed")
        made.append(plain if status == "skipped" else replace(plain, status=status, reason=f"{name} says so"))  # type: ignore[arg-type]
    return made


def test_weights_are_those_of_the_table_and_are_renormalised_over_what_was_asked_for():
    assert sum(gate.RULES["default"].weights.values()) == pytest.approx(1)
    assert sum(gate.RULES["classic"].weights.values()) == pytest.approx(1)
    found = gate.decide(results(*USUAL))
    assert found.score == 1 and found.decision == "proceed"
    assert found.weights == pytest.approx(
        {
            "sensitivity": 0.375,
            "placebo": 0.1875,
            "overlap": 0.1875,
            "blocks": 0.125,
            "bootstrap": 0.0625,
            "subset": 0.0625,
        }
    )


@pytest.mark.parametrize(
    ("statuses", "score", "decision"),
    [
        ({}, 1.0, "proceed"),
        ({"sensitivity": "warning"}, 0.88, "proceed"),
        ({"sensitivity": "warning", "placebo": "warning", "overlap": "warning"}, 0.76, "proceed"),
        ({"sensitivity": "warning", "placebo": "warning", "overlap": "warning", "blocks": "failed"}, 0.66, "review"),
        (dict.fromkeys(DEFAULT, "warning"), 0.6, "review"),
        (
            dict.fromkeys(DEFAULT, "warning") | {"blocks": "failed", "subset": "failed", "bootstrap": "failed"},
            0.48,
            "block",
        ),
        ({"blocks": "failed", "estimators": "failed", "bootstrap": "failed", "subset": "failed"}, 0.75, "proceed"),
        ({"placebo": "failed"}, 0.85, "block"),
        ({"negative_control": "failed"}, 0.85, "block"),
        ({"sensitivity": "failed"}, 0.70, "block"),
        ({"blocks": "skipped", "estimators": "skipped"}, 0.85, "proceed"),
        ({"overlap": "skipped"}, 0.85, "review"),
        ({"sensitivity": "skipped"}, 0.70, "review"),
        ({"negative_control": "skipped"}, 0.85, "review"),
    ],
)
def test_scores_and_decisions(statuses, score, decision):
    found = gate.decide(results(*DEFAULT, **statuses))
    assert found.score == pytest.approx(score) and found.decision == decision


def test_a_skipped_test_counts_nothing_and_is_named():
    found = gate.decide(results(*DEFAULT, blocks="skipped"))
    assert found.skipped == ("blocks",) and found.score == pytest.approx(0.9)
    assert "blocks could not be run" in found.sentence and any("counts 0" in r for r in found.reasons)


def test_a_critical_test_that_was_not_asked_for_leaves_review_at_best():
    found = gate.decide(results("placebo", "sensitivity", "bootstrap"))
    assert found.missing == ("overlap",) and found.score == 1 and found.decision == "review"
    assert "review at best" in found.sentence
    assert gate.decide(results(*USUAL)).missing == ()  # a negative control need not be there


def test_nothing_that_counts_is_no_score():
    found = gate.decide(results("random_common_cause"))
    assert found.score is None and found.decision == "review"


def test_the_classic_gate_has_its_own_weights():
    names = ("placebo", "random_common_cause", "e_value", "subset", "bootstrap")
    assert gate.decide(results(*names), "classic").decision == "proceed"
    assert gate.decide(results(*names, subset="failed", bootstrap="failed"), "classic").score == pytest.approx(0.75)
    assert gate.decide(results(*names, random_common_cause="failed"), "classic").decision == "block"
    assert gate.decide(results(*names[:2], *names[3:]), "classic").decision == "review"
    with pytest.raises(WrongQuestion, match="no gate 'strict'"):
        gate.decide([], "strict")
    with pytest.raises(WrongQuestion, match="one result of each"):
        gate.decide(results("placebo") * 2)


def test_the_answer_says_why_and_what_it_does_not_say():
    found = gate.decide(worlds.all_results(worlds.world(3), 3))
    assert found.sentence.startswith(found.decision) and found.sentence.endswith(gate.CAUTION)
    assert "nothing about hidden confounding" in found.sentence and found.reasons[-1] == gate.CAUTION
    assert "arithmetic" not in found.sentence  # a check that cannot fail is no argument
    assert "but the negative control" in found.sentence


@settings(deadline=None)
@given(st.lists(st.sampled_from(["passed", "warning", "failed", "skipped"]), min_size=8, max_size=8), st.integers(0, 7))
def test_a_worse_result_never_helps(statuses, at):
    ladder = ["skipped", "failed", "warning", "passed"]
    now = gate.decide(results(**dict(zip(DEFAULT, statuses, strict=True))))
    order = ["block", "review", "proceed"]
    for worse in ladder[1 : ladder.index(statuses[at])]:
        then = gate.decide(results(**dict(zip(DEFAULT, [*statuses[:at], worse, *statuses[at + 1 :]], strict=True))))
        assert then.score <= now.score + 1e-12 and order.index(then.decision) <= order.index(now.decision)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 10_000), st.sampled_from([0.0, 0.5]), st.floats(-1e4, 1e4), st.sampled_from([1000.0, 1e-3, -1000.0])
)
def test_the_gate_does_not_depend_on_the_units_of_the_outcome(seed, hidden, shift, scale):
    its = worlds.world(seed, hidden=hidden)
    other = replace(
        its, outcome=its.outcome * scale + shift * abs(scale), control=its.control * scale + shift * abs(scale)
    )
    before, after = worlds.all_results(its, seed, 60), worlds.all_results(other, seed, 60)
    assert [r.status for r in after] == [r.status for r in before]
    for a, b in zip(before, after, strict=True):
        assert (b.p_value is None) == (a.p_value is None)
        assert np.allclose(b.p_value or 0, a.p_value or 0, rtol=1e-4, atol=1e-9)
        assert np.allclose(b.statistic, a.statistic, rtol=1e-4, atol=1e-6)
    for kind in ("default", "classic"):
        x, y = gate.decide(before, kind), gate.decide(after, kind)
        assert (x.decision, x.score) == (y.decision, y.score)
    assert np.isfinite(x.score or 0)
