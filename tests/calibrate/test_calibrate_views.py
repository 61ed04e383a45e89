"""Pictures of a calibration are valid, plain, bounded in size, say what was found, and are drawn from edge cases too."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import Any

import altair
import numpy as np
import pytest
import vl_convert

from millrace.analyses.calibrate import pictures, views
from millrace.analyses.calibrate.answer import Best, Calibration

LOG = {"kind": "log", "low": 0.01, "high": 1.0}
LINEAR = {"kind": "float", "low": -2.0, "high": 2.0}


def answer(trials: int = 60, shift: float = 0.0, **changed: Any) -> Calibration:
    """A bowl in `rate` (log) and `slope`, with noise; every third trial stopped, two failed."""
    rng = np.random.default_rng(5)
    rate, slope = np.exp(rng.uniform(np.log(0.01), 0, trials)), rng.uniform(-2, 2, trials)
    loss = np.exp(np.log(rate / 0.1) ** 2 + (slope - 0.5) ** 2 + rng.normal(0, 0.2, trials)) + shift
    state = np.where(np.arange(trials) % 3 == 1, "stopped", "complete").astype(object)
    state[[4, 11]], loss[[4, 11]] = "failed", np.nan
    best = int(np.nanargmin(np.where(state == "complete", loss, np.nan)))
    table = {
        "trial": list(range(trials)), "state": list(state), "replicates": [5] * trials, "loss": list(loss),
        "param_rate": list(rate), "param_slope": list(slope), "seeds": [[1]] * trials, "seconds": [0.1] * trials,
    }  # fmt: skip
    finish = {"trial": [best, 7], "replicates": [5, 5], "loss": [loss[best], loss[7]],
              "fresh_loss": [loss[best] + 0.5, 3.0 + shift],
              "fresh_low": [loss[best] + 0.2, 2.0 + shift], "fresh_high": [loss[best] + 0.9, 4.0 + shift]}  # fmt: skip
    x = np.arange(12.0)
    runs = np.sin(x / 3) + rng.normal(0, 0.2, (40, 12))
    made = Calibration(
        table=table,
        best=Best(best, {"rate": rate[best], "slope": slope[best]}, loss[best] + 0.5, (1.0, 2.0), loss[best], 10),
        finish=finish,
        predictive={"cases": {"x": x, "observed": np.sin(x / 3), "runs": runs}},
        intervals={"rate": (0.08, 0.13), "slope": (0.3, 0.8)},
        importance={"rate": 0.7, "slope": 0.3},
        parameters={"rate": LOG, "slope": LINEAR, "fixed": {"kind": "fixed", "value": 3}},
        targets=("cases",), verdicts=(), level=0.9, simulations=300, in_flight=8, order="reproducible",
    )  # fmt: skip
    return replace(made, **changed)


def drawn(spec: dict[str, Any]) -> str:
    """Valid Vega-Lite, plain JSON without NaN, and rendered."""
    text = json.dumps(spec, allow_nan=False)
    altair.Chart.from_dict(_brief(spec))
    assert len(text) < 400_000 and spec["description"]
    sized = {**spec, "width": 600} if spec.get("width") == "container" else spec
    return vl_convert.vegalite_to_svg(sized)


def _brief(spec: Any) -> Any:
    """Without most of its marks, of which Altair makes an object each."""
    if isinstance(spec, dict):
        return {k: v[:3] if k == "values" and isinstance(v, list) else _brief(v) for k, v in spec.items()}
    return [_brief(v) for v in spec] if isinstance(spec, list) else spec


def words_of(spec: dict[str, Any]) -> str:
    return " ".join([*spec["title"]["text"], *spec["title"]["subtitle"]]).replace("\u00a0", " ")


def rows_of(spec: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    return [row for layer in spec["layer"] if layer["mark"]["type"] == mark for row in layer["data"]["values"]]


def test_every_picture_of_an_answer_is_drawn():
    made = answer().charts()
    assert list(made) == ["history", "slices", "contour_rate_slope", "importance", "band_cases"]
    for spec in made.values():
        assert "<svg" in drawn(spec)
    assert answer(trials=12).plot("importance").to_dict()["layer"]


@pytest.mark.parametrize("kind", ["slices", "contour_rate_slope"])
def test_a_plot_is_the_picture_and_its_marks_are_no_objects(kind: str):
    a = answer()
    spec, plot = a.charts()[kind], a.plot(kind)
    assert all(isinstance(row, dict) for rows in plot.datasets.values() for row in rows)
    sized = spec if "concat" in spec else {**spec, "width": 640}
    assert vl_convert.vegalite_to_svg(plot.to_dict()) == vl_convert.vegalite_to_svg(sized)


def test_the_history_shows_every_trial_and_the_winners_curse():
    a = answer()
    spec = views.history(a)
    drawn(spec)
    marks = rows_of(spec, "point")
    assert len([m for m in marks if "state" in m]) == 58
    assert [m["trial"] for m in rows_of(spec, "tick")] == [4, 11]
    assert len([m for m in marks if "low" in m]) == 2
    best = a.best
    assert f"{best.in_sample / best.loss:.2f} of it" in words_of(spec) and "fresh" in words_of(spec)


def test_the_line_of_the_history_is_the_running_best_of_complete_trials():
    a = answer()
    line = rows_of(views.history(a), "line")
    losses = [v if s == "complete" else np.inf for v, s in zip(a.table["loss"], a.table["state"], strict=True)]
    for row in line:
        assert row["best"] == pytest.approx(min(losses[: row["trial"] + 1]), rel=1e-4)
    assert line[-1]["trial"] == 59


def test_many_trials_are_thinned_and_it_is_said_and_the_best_is_kept():
    a = answer(trials=4_000)
    spec = views.history(a)
    drawn(spec)
    assert "1,500 of 4,000 trials" in words_of(spec)
    assert a.best.trial in [m["trial"] for m in rows_of(spec, "point")]


def test_losses_that_may_be_negative_are_drawn_on_a_linear_scale():
    spec = views.history(answer(shift=-50.0))
    drawn(spec)
    assert "type" not in spec["layer"][0]["encoding"]["y"]["scale"]
    drawn(views.slices(answer(shift=-50.0)))
    drawn(views.contour(answer(shift=-50.0), "rate", "slope"))


def test_slices_shade_the_intervals_and_mark_the_best():
    spec = views.slices(answer())
    drawn(spec)
    assert [p["layer"][0]["data"]["values"][0] for p in spec["concat"]] == [
        {"low": 0.08, "high": 0.13},
        {"low": 0.3, "high": 0.8},
    ]
    assert "rate 0.08 to 0.13" in words_of(spec)


def test_the_contour_is_lowest_where_the_bowl_is():
    spec = views.contour(answer(trials=400), "rate", "slope")
    drawn(spec)
    lowest = [r for r in rows_of(spec, "rect") if r.get("step") == 0]
    assert 0.05 < np.median([r["x"] for r in lowest]) < 0.2 and 0 < np.median([r["y"] for r in lowest]) < 1


def test_a_ridge_is_named():
    a = answer(trials=300)
    rate, slope = np.log(np.array(a.table["param_rate"])), np.array(a.table["param_slope"])
    ridge = list(np.exp((rate + 2.3 + slope) ** 2))
    assert "make up for each other" in words_of(
        views.contour(answer(trials=300, table={**a.table, "loss": ridge}), "rate", "slope")
    )


def test_a_categorical_parameter_has_a_slice_and_no_contour():
    a = answer()
    table = {**a.table, "param_slope": ["steep" if v > 0 else "flat" for v in a.table["param_slope"]]}
    kinds = {"rate": LOG, "slope": {"kind": "categorical", "choices": ("flat", "steep")}}
    best = replace(a.best, params={"rate": 0.1, "slope": "steep"})
    made = answer(table=table, parameters=kinds, best=best, intervals={"rate": (0.08, 0.13)}).charts()
    assert "contour_rate_slope" not in made
    assert "steep" in drawn(made["slices"])


def test_a_band_counts_the_observations_inside_it():
    rng = np.random.default_rng(0)
    observed = np.array([0.0, 0.0, 9.0, -9.0, 0.5])
    runs = rng.normal(0, 1, (200, 5))
    runs[3, 2] = np.nan
    said = {"cases": {"x": [1, 2, 3, 4, 5], "observed": observed, "runs": runs}}
    spec = views.band(answer(predictive=said), "cases")
    drawn(spec)
    assert (
        "3 of 5 observations" in words_of(spec) and "199 runs" in words_of(spec) and "1 run with gaps" in words_of(spec)
    )


DAYS = [datetime.date(2026, 1, d) for d in (1, 2, 3)]


@pytest.mark.parametrize(
    ("x", "mark"),
    [
        ([1.0, 1.0, 2.0], "rule"),
        (["young", "old", "all"], "rule"),
        (DAYS, "rule"),
        (np.array(DAYS, dtype="datetime64[D]"), "rule"),
        ([1, 5, 9], "area"),
    ],
)
def test_a_band_stands_along_numbers_dates_and_names(x, mark):
    runs = np.random.default_rng(0).normal(0, 1, (30, 3))
    spec = views.band(answer(predictive={"cases": {"x": x, "observed": [0.1, 0.2, 0.3], "runs": runs}}), "cases")
    drawn(spec)
    assert mark in [layer["mark"]["type"] for layer in spec["layer"]]


def test_one_observation_and_no_runs_can_be_drawn():
    one = {"x": np.arange(1), "observed": [2.0], "runs": np.array([[1.0], [2.5]])}
    none = {"x": np.arange(2), "observed": [2.0, 3.0], "runs": np.zeros((0, 2))}
    assert "1 of 1 observation" in words_of(views.band(answer(predictive={"a": one}), "a"))
    drawn(views.band(answer(predictive={"a": one}), "a"))
    drawn(views.band(answer(predictive={"a": none}), "a"))


def test_a_study_of_one_trial_without_a_finish_is_drawn():
    a = answer()
    table = {name: column[:1] for name, column in a.table.items()}
    best = Best(0, {"rate": table["param_rate"][0], "slope": table["param_slope"][0]}, 2.0, None, 2.0, 0)
    made = answer(table=table, finish={}, intervals={}, importance={}, best=best).charts()
    assert "no fresh seeds" in words_of(made["history"])
    for spec in made.values():
        drawn(spec)


@pytest.mark.parametrize(("low", "high"), [(0.01, 1.0), (3.0, 20.0), (1e-9, 1e9), (2.1, 2.9)])
def test_ticks_of_a_logarithmic_axis_are_round_and_inside(low, high):
    found = pictures.ticks(low, high)
    assert 1 <= len(found) <= 22 and all(low <= v <= high for v in found)
