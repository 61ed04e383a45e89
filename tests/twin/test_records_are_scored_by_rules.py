"""The record of a model: errors, grades, fidelity, and the advice to fit it anew; the file survives whatever happens to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.analyses.twin import track_record
from millrace.analyses.twin.track_record import Result, advice, compare, grade_of, score
from millrace.run.errors import WrongQuestion


def result(predicted: float, actual: float, half: float = 0.1, at: str = "2026-01-01T00:00:00+00:00") -> Result:
    return compare(at, "email", "", (predicted, predicted - half, predicted + half), actual, 0.0, 0.01)


@given(st.floats(-1e6, 1e6))
def test_exact_agreement_is_excellent(effect: float) -> None:
    found = result(effect, effect)
    assert (found.error, found.grade, found.covered) == (0.0, "excellent", True)


@pytest.mark.parametrize(
    ("error", "grade"),
    [
        (0.0, "excellent"), (0.0999, "excellent"), (0.1, "good"), (0.1999, "good"), (0.2, "fair"), (0.3499, "fair"),
        (0.35, "poor"), (9, "poor"),
    ],
)  # fmt: skip
def test_grades_have_their_bounds(error: float, grade: str) -> None:
    assert grade_of(error) == grade


def test_errors_are_relative_but_near_zero() -> None:
    assert result(0.3, 0.2).error == pytest.approx(0.5)
    assert result(0.05, 0.0).error == pytest.approx(0.05)
    assert result(0.05, 0.005).error == pytest.approx(0.045)
    assert result(-0.3, 0.3).error == pytest.approx(2.0)


def test_the_real_effects_own_error_is_allowed_for() -> None:
    assert not compare("2026-01-01", "x", "", (0.2, 0.1, 0.3), 0.35, 0.0, 0.01).covered
    assert compare("2026-01-01", "x", "", (0.2, 0.1, 0.3), 0.35, 0.06, 0.01).covered


def test_fidelity_is_of_errors_and_coverage() -> None:
    found = score([result(0.2, 0.2), result(0.3, 0.2), result(0.2, 0.5)])
    assert found.mean_error == pytest.approx((0 + 0.5 + 0.6) / 3)
    assert found.coverage == pytest.approx(2 / 3)
    assert found.fidelity == pytest.approx(0.7 * (1 - found.mean_error) + 0.3 * found.coverage)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=8))
def test_fidelity_lies_between_none_and_all(pairs: list[tuple[float, float]]) -> None:
    assert 0 <= score([result(p, a) for p, a in pairs]).fidelity <= 1


def test_advice_has_its_rules_and_comes_once_a_day() -> None:
    bad, good = [result(0.4, 0.2)] * 5, [result(0.2, 0.2)] * 5
    assert not advice(bad[:4], None, "2026-01-02").due
    found = advice(bad, None, "2026-01-02")
    assert found.due and len(found.reasons) == 3
    assert not advice(good, 0.59, "2026-01-02").due
    assert advice(good, 0.61, "2026-01-02").due
    assert not advice(good[:2], 0.9, "2026-01-02").due and "drifted" in advice(good[:2], 0.9, "2026-01-02").waiting
    told = [*bad, replace(bad[0], at="2026-01-02T08:00:00+00:00", advised=True)]
    again = advice(told, None, "2026-01-02T20:00:00+00:00")
    assert not again.due and again.reasons and "once a day" in again.waiting
    assert advice(told, None, "2026-01-03T08:00:00+00:00").due


def test_each_reason_alone_is_enough() -> None:
    wide = [result(0.28, 0.2, half=1.0)] * 5  # covered, 40 % off
    assert advice(wide, None, "2026-01-02").reasons == ("its mean error is 40%, above 25%",)
    narrow = [result(0.2, 0.2)] * 3 + [result(0.21, 0.2, half=0.001)] * 2
    assert advice(narrow, None, "2026-01-02").reasons == ("its intervals held 60%, less than 80%",)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.jsonl"
    assert track_record.read(path) == ()
    results = [result(0.1 * i, 0.2) for i in range(3)]
    for one in results:
        track_record.append(path, one)
    assert track_record.read(path) == tuple(results)
    path.write_bytes(path.read_bytes()[:-10])  # the process died while it wrote the last line
    assert track_record.read(path) == tuple(results[:2])
    track_record.append(path, results[2])
    assert track_record.read(path) == tuple(results)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(WrongQuestion, match="Line 1"):
        track_record.read(path)


def test_dates_that_are_none_are_refused() -> None:
    with pytest.raises(WrongQuestion, match="no date"):
        advice([result(0.4, 0.2)] * 4 + [replace(result(0.4, 0.2), advised=True)], None, "yesterday")
