"""Force, heat map and decision pictures show the numbers that they were given, and draw."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.analyses.explain import panels, pictures

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((400, 15)) * np.linspace(3, 0.1, 15)
NAMES = [f"x{j}" for j in range(15)]
PREDICTIONS = 1.0 + VALUES.sum(axis=1)


def test_the_forces_of_a_row_meet_at_its_prediction() -> None:
    values = VALUES[0]
    spec = panels.force(1.0, values, np.arange(15.0), NAMES, float(PREDICTIONS[0]), "euro", top=4)
    marks = spec["data"]["values"]
    assert sum(m["b"] - m["a"] for m in marks) == pytest.approx(values.sum())
    ends = [m for m in marks if m["b"] == pytest.approx(PREDICTIONS[0])]
    assert {m["f"].partition(" ")[0] for m in ends} == {NAMES[values.argmax()], NAMES[values.argmin()]}
    assert any("others" in m["f"] for m in marks)


def test_rows_of_a_heat_map_are_each_there_once_in_every_lane() -> None:
    spec = panels.heatmap(VALUES, NAMES, PREDICTIONS, "euro", top=5)
    marks = spec["data"]["values"]
    assert len(marks) == 5 * panels.HEAT_ROWS
    for lane in range(5):
        own = [m for m in marks if m["y"] == lane]
        assert len({m["r"] for m in own}) == panels.HEAT_ROWS
    bound = max(m["c"] for m in marks)
    one = marks[7]
    wanted = np.clip(VALUES[one["r"], NAMES.index(one["f"])], -bound, bound)
    assert one["c"] == pytest.approx(wanted, rel=1e-3)


def test_lines_of_a_decision_picture_end_at_the_predictions() -> None:
    spec = panels.decision(1.0, VALUES, NAMES, PREDICTIONS, "euro", top=5)
    marks = spec["data"]["values"]
    last = {m["r"]: m["x"] for m in marks if m["y"] == 0}
    assert len(last) == panels.DECISION_ROWS
    for row, x in last.items():
        assert x == pytest.approx(PREDICTIONS[row], rel=1e-4, abs=1e-4)
    assert {m["x"] for m in marks if m["o"] == 0} == {1.0}


def test_one_row_and_one_feature_are_enough() -> None:
    for spec in (
        panels.force(0.0, np.array([0.0]), np.zeros(1), ["a"], 0.0, "euro"),
        panels.heatmap(np.zeros((1, 1)), ["a"], np.zeros(1), "euro"),
        panels.decision(0.0, np.zeros((1, 1)), ["a"], np.zeros(1), "euro"),
    ):
        import vl_convert

        assert spec["$schema"] == pictures.SCHEMA and vl_convert.vegalite_to_svg(spec).startswith("<svg")
