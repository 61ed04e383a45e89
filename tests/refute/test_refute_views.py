"""Pictures are valid, plain, bounded in size, hide nothing, and are drawn from edge cases too."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair
import numpy as np
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.refute import overlap, pictures, rules, sensitivity, views
from millrace.analyses.refute.study import Fit

sys.path.insert(0, os.fspath(Path(__file__).parent))
import worlds

DARFUR = sensitivity.measure(
    0.09731582, 0.02325654, 783, {"female": (0.009082, 0.10903), "age": (0.003, 0.02), "voted": (0.01, 0.012)}
)
FIT = Fit(0.5, 0.1, 0.1, 400, "HC3", {})


def drawn(spec: dict[str, Any]) -> str:
    """Valid Vega-Lite, plain JSON without NaN, and rendered."""
    text = json.dumps(spec, allow_nan=False)
    altair.LayerChart.from_dict(spec)
    assert len(text) < 200_000 and spec["description"] and spec["width"] == "container"
    return vl_convert.vegalite_to_svg({**spec, "width": 600})


def words_of(spec: dict[str, Any]) -> str:
    return " ".join([*spec["title"]["text"], *spec["title"]["subtitle"]]).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def results() -> list[rules.TestResult]:
    return worlds.all_results(worlds.world(3), 3)


def test_the_overview_shows_every_test_with_its_status_in_words(results):
    found = [*results, rules.skipped("matching", "there is no propensity, and " * 12)]
    svg = drawn(views.overview(found, "block", 0.81))
    for r in found:
        assert f">{r.name}<" in svg and f">{r.status}<" in svg
    assert "block (score 0.81): 7 passed" in words_of(views.overview(found, "block", 0.81))


def test_the_distribution_of_a_tests_effects_holds_them_all_and_marks_the_estimate(results):
    effects = np.random.default_rng(0).normal(0, 0.05, 1000)
    effects[:20] = np.nan
    result = replace(results[0], failed_simulations=20)
    spec = views.effects(result, effects, 0.353, "points", promised_sd=0.05)
    svg = drawn(spec)
    assert sum(row["n"] for row in spec["layer"][0]["data"]["values"]) == 980
    assert "estimate 0.353" in svg and "no effect" in svg
    assert "20 more failed" in words_of(spec)


@pytest.mark.parametrize(
    "effects", [np.full(50, 0.5), np.array([]), np.array([1e-12, 2e-12]), np.array([1e9, -1e9, 0.0])]
)
def test_effects_of_any_size_can_be_drawn(effects):
    drawn(views.effects(rules.skipped("subset", "x"), effects, 0.5, "points", promised_sd=0.1))


def test_the_contour_names_its_benchmarks_with_what_would_be_left():
    svg = drawn(views.contour(DARFUR, "points"))
    for label in (
        "female: 0.0752",
        "2 × female: 0.0529",
        "3 × female: 0.0304",
        "no effect left",
        "no longer significant",
    ):
        assert label in svg
    assert "13.9 %" in words_of(views.contour(DARFUR, "points"))


def test_lines_of_the_contour_lie_where_the_formulas_say():
    spec = views.contour(DARFUR, "points")
    lines = next(layer for layer in spec["layer"] if "strokeDash" in layer["encoding"])["data"]["values"]
    for row in lines:
        left = sensitivity.adjusted_estimate(DARFUR.effect, DARFUR.se, DARFUR.df, row["x"], row["y"])
        error = sensitivity.adjusted_se(DARFUR.se, DARFUR.df, row["x"], row["y"])
        wanted = 0 if row["kind"] == "no effect left" else sensitivity.critical(DARFUR.df - 1) * error
        assert left == pytest.approx(wanted, abs=2e-4)


@settings(deadline=None, max_examples=60)
@given(
    effect=st.floats(1e-6, 1e6), sign=st.sampled_from([-1, 1]), t=st.floats(0.2, 60), df=st.integers(5, 10**6),
    a=st.floats(0.0, 0.99), b=st.floats(0.0, 0.99),
)  # fmt: skip
def test_any_estimate_has_a_contour_and_a_tipping_curve(effect, sign, t, df, a, b):
    shares = {"a name that is quite long for a label": (a, b), "b": (b / 2, a / 3)}
    found = sensitivity.measure(sign * effect, effect / t, df, shares)
    contour = views.contour(found, "euros")
    for spec in (contour, views.tipping(found, "euros")):
        json.dumps(spec, allow_nan=False)
    rows = [row for layer in contour["layer"] for row in layer.get("data", {}).get("values", [])]
    most = {c: contour["layer"][-1]["encoding"][c]["scale"]["domain"][1] for c in "xy"}
    assert all(0 <= row[c] <= most[c] * (1 + 1e-6) for row in rows for c in "xy")


def test_multiples_beyond_the_picture_are_named():
    found = sensitivity.measure(0.353, 0.05, 493, {"w1": (0.162, 0.140)})
    assert "Beyond the picture: 3 × w1" in words_of(views.contour(found, "points"))


def test_without_confounders_there_are_still_pictures():
    bare = sensitivity.measure(0.5, 0.1, 100, {})
    drawn(views.contour(bare, "points"))
    drawn(views.tipping(bare, "points"))


def balance(p: int = 30, continuous: bool = False) -> overlap.Overlap:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, p))
    propensity = 1 / (1 + np.exp(-x[:, 0]))
    t = (rng.random(3000) < propensity).astype(float)
    names = [f"feature {j}" for j in range(p)]
    if continuous:
        return overlap.measure(x, x[:, 0] + rng.normal(size=3000), names, binary=False)
    return overlap.measure(x, t, names, propensity=propensity, weights=t / propensity + (1 - t) / (1 - propensity))


def test_the_love_plot_says_how_many_are_balanced_and_how_many_it_leaves_out():
    found = balance()
    spec = views.love(found)
    svg = drawn(spec)
    assert (
        ">feature 0<" in svg
        and "30 of 30 confounders within 0.1" in words_of(spec)
        and "5 more confounders" in words_of(spec)
    )
    drawn(views.love(balance(continuous=True)))


def test_a_difference_without_bound_stands_at_the_edge_and_is_said():
    found = replace(balance(3), before=np.array([np.inf, 0.3, -4.0]))
    spec = views.love(found)
    drawn(spec)
    assert "2 confounders beyond the axis" in words_of(spec)


def test_propensities_are_mirrored_and_absent_for_a_continuous_treatment():
    found = balance()
    spec = views.propensity(found)
    assert spec is not None
    drawn(spec)
    rows = spec["layer"][1]["data"]["values"]
    assert sum(r["h"] for r in rows if r["arm"] == "treated") == pytest.approx(1, abs=1e-3)
    assert sum(r["h"] for r in rows if r["arm"] == "others") == pytest.approx(-1, abs=1e-3)
    assert views.propensity(balance(continuous=True)) is None


@pytest.mark.parametrize("m", [0, 1, 12, 500])
def test_a_specification_curve_is_sorted_and_keeps_its_ends(m):
    rng = np.random.default_rng(1)
    effects = rng.normal(0.5, 0.2, m)
    spec = views.specifications([f"s{i}" for i in range(m)], effects, np.full(m, 0.1), 0.5, "points")
    drawn(spec)
    shown = [row["x"] for row in spec["layer"][-1]["data"]["values"]]
    assert shown == sorted(shown) and len(shown) == min(m, 60)
    if m:
        assert (shown[0], shown[-1]) == pytest.approx((effects.min(), effects.max()), rel=1e-4)
    assert "there is no verdict" in words_of(spec) and (m <= 60 or "60 of 500 drawn" in words_of(spec))


def test_labels_are_moved_apart_as_little_as_need_be():
    assert pictures.apart([0.1, 0.5, 0.9], 0.2) == pytest.approx([0.1, 0.5, 0.9])
    assert pictures.apart([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    found = pictures.apart([0.1, 0.12, 0.13, 0.9], 0.1)
    assert np.diff(sorted(found)).min() >= 0.1 - 1e-12 and found[3] == 0.9
    assert pictures.stacked([(0, 2), (1, 3), (2.5, 4), (5, 6)]) == [0, 1, 0, 0]
