"""Importance, directions and sentences say what the numbers say; pictures are valid, bounded, seeded, and hide nothing."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace
from typing import Any

import altair
import numpy as np
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.analyses.explain import views
from millrace.analyses.explain.dependence import partner
from millrace.analyses.explain.importance import figure, rank_correlation
from millrace.run.errors import WrongQuestion

UNIT = "log-odds of default"
NAMES = ("income", "age", "region", "noise")
CATEGORIES = {2: ("north", "south", "west")}


@pytest.fixture(scope="module")
def explained() -> tuple[np.ndarray, np.ndarray]:
    """(values, data): income lowers, more so for the old; age raises; region has no order; noise does nothing."""
    rng = np.random.default_rng(0)
    data = np.column_stack(
        [rng.lognormal(10, 1, 5000), rng.integers(18, 90, 5000), rng.integers(0, 3, 5000), rng.normal(size=5000)]
    ).astype(float)
    values = np.column_stack(
        [
            -0.4 * (np.log(data[:, 0]) - 10) * (1 + 0.8 * (data[:, 1] > 50)),
            0.01 * (data[:, 1] - 54),
            np.array([-0.3, 0.1, 0.2])[data[:, 2].astype(int)],
            np.zeros(5000),
        ]
    )
    data[:200, 0], values[:200, 0] = np.nan, 0.25
    values.flags.writeable = data.flags.writeable = False
    return values, data


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def drawn(spec: dict[str, Any]) -> str:
    """Validated against Vega-Lite's schema, plain JSON, and rendered."""
    altair.Chart.from_dict({**spec, "data": {"values": spec["data"]["values"][:5]}})
    json.dumps(spec, allow_nan=False)
    return vl_convert.vegalite_to_svg({**spec, "width": 600})


# -- importance ----------------------------------------------------------------------------------------------------
def test_importance_is_the_mean_of_absolute_values_strongest_first(explained):
    values, data = explained
    found = views.importance(values, data, NAMES, rng(), CATEGORIES)
    mean = np.abs(values).mean(axis=0)
    assert found["feature"] == [NAMES[j] for j in np.argsort(-mean, kind="stable")]
    assert found["mean_abs"] == pytest.approx(np.sort(mean)[::-1].tolist())
    assert all(a <= b <= c for a, b, c in zip(found["low"], found["mean_abs"], found["high"], strict=True))


def test_the_interval_of_a_few_rows_is_the_naive_bootstraps(explained):
    values = np.abs(explained[0][:150]) * np.linspace(0.1, 3, 150)[:, None]
    found = views.importance(values, explained[1][:150], NAMES, rng(), CATEGORIES)
    naive = rng()
    means = np.array([values[naive.integers(0, 150, 150)].mean(axis=0) for _ in range(4000)])
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    order = [NAMES.index(f) for f in found["feature"]]
    width = (high - low)[order][:3]
    assert np.abs(np.array(found["low"])[:3] - low[order][:3]).max() < 0.15 * width.max()
    assert np.abs(np.array(found["high"])[:3] - high[order][:3]).max() < 0.15 * width.max()


@pytest.mark.parametrize("ordered", [False, True], ids=["mixed rows", "sorted rows"])
def test_the_interval_of_many_rows_has_the_width_of_the_standard_error(ordered):
    values = np.random.default_rng(1).gamma(2.0, size=(30_000, 40))
    if ordered:
        values.sort(axis=0)
    found = views.importance(values, values, [str(j) for j in range(40)], rng())
    width = np.array(found["high"]) - np.array(found["low"])
    expected = 2 * 1.96 * np.sqrt(2 / 30_000)  # the variance of gamma(2) is 2
    assert np.mean(width) == pytest.approx(expected, rel=0.15)


def test_importance_reads_mapped_values_in_blocks_and_repeats_itself(tmp_path):
    values = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, (20_000, 60))
    values[:] = np.random.default_rng(2).normal(size=values.shape)
    names = [str(j) for j in range(60)]
    first = views.importance(values, values, names, rng())
    assert first == views.importance(values, values, names, rng())
    assert first["mean_abs"][0] == pytest.approx(np.abs(values.astype(float)).mean(axis=0).max(), rel=1e-12)


def test_directions_are_positive_negative_mixed_and_neutral(explained):
    values, data = explained
    words, correlation = views.directions(values, data, np.abs(values).mean(axis=0), rng(), CATEGORIES)
    assert words == ["negative", "positive", "mixed", "neutral"]
    assert correlation[1] == pytest.approx(1)
    assert np.isnan(correlation[2])  # categories have no order
    curve = np.linspace(-1, 1, 500)[:, None]
    assert views.directions(curve**2, curve, np.array([0.3]), rng())[0] == ["mixed"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=60))
def test_rank_correlation_is_scipys(pairs):
    from scipy.stats import rankdata

    x, y = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    a, b = rankdata(x), rankdata(y)
    found = rank_correlation(np.append(x, np.nan), np.append(y, 9.0))
    if a.std() and b.std():
        assert found == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    else:
        assert np.isnan(found)


def test_sentences_are_of_the_numbers_in_the_outputs_unit(explained):
    values, data = explained
    found = views.importance(values, data, NAMES, rng(), CATEGORIES)
    rows = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    said = views.sentences(rows, -1.234, UNIT)
    assert len(said) == 5
    assert said[0].startswith("All in log-odds of default: ") and said[0].endswith(" -1.23.")
    top = rows[0]
    assert f"income moves it by {figure(top['mean_abs'])} on average" in said[1]
    assert f"{figure(top['low'])} to {figure(top['high'])}" in said[1]
    assert "higher values lower the output" in said[1]
    assert said[4] == "noise: it does not move the output."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04213, "0.0421"),
        (52_300, "52,300"),
        (1.2e-7, "1.20e-07"),
        (0, "0"),
        (-3.14159, "-3.14"),
        (0.5, "0.5"),
        (1000, "1,000"),
    ],
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text


# -- beeswarm ------------------------------------------------------------------------------------------------------
def test_a_beeswarm_draws_few_of_many_rows_and_says_which(explained):
    values, data = explained
    spec = views.beeswarm(values, data, NAMES, UNIT, categories=CATEGORIES, seed=11)
    marks = spec["data"]["values"]
    assert len(marks) <= 4_000
    assert "1,000 of 5,000, drawn with seed 11" in " ".join(spec["title"]["subtitle"])
    assert spec == views.beeswarm(values, data, NAMES, UNIT, categories=CATEGORIES, seed=11)
    assert spec != views.beeswarm(values, data, NAMES, UNIT, categories=CATEGORIES, seed=12)
    assert "income moves the output most" in drawn(spec)
    for mark in marks[::97]:
        j = int(np.argsort(-np.abs(values).mean(axis=0), kind="stable")[int(mark["y"])])
        if "v" not in mark:
            assert mark["x"] == pytest.approx(values[mark["r"], j], rel=1e-3, abs=1e-9)


def test_missing_values_and_categories_are_not_coloured_as_numbers(explained):
    values, data = explained
    spec = views.beeswarm(values, data, NAMES, UNIT, categories=CATEGORIES)
    marks = spec["data"]["values"]
    for mark in marks:
        missing = mark["d"] == "missing"
        category = mark["d"] in CATEGORIES[2]
        assert mark.get("k", "number") == ("missing" if missing else "category" if category else "number")
        assert ("c" in mark) == (not missing and not category)
    assert sum(mark["d"] == "missing" for mark in marks) == pytest.approx(1000 * 200 / 5000, abs=25)
    assert {"Hollow: the value is missing.", "Grey: categories, which have no order."} <= {
        s.strip() + "." for s in " ".join(spec["title"]["subtitle"]).split(".")
    }


def test_heavy_tails_are_cut_and_counted(explained):
    values, data = (a.copy() for a in explained)
    values[5:10, 1] = 1e6
    spec = views.beeswarm(values[:300], data[:300], NAMES, UNIT, categories=CATEGORIES)
    low, high = spec["encoding"]["x"]["scale"]["domain"]
    assert high < 10
    assert "5 of 1,200 dots lie beyond the axis" in " ".join(spec["title"]["subtitle"])
    cut = [mark for mark in spec["data"]["values"] if "v" in mark]
    assert len(cut) == 5
    assert all(mark["v"] == "1,000,000" and low <= mark["x"] <= high for mark in cut)


def test_dots_of_a_lane_stay_in_it_and_dense_places_bulge(explained):
    values, data = explained
    marks = views.beeswarm(values, data, NAMES, UNIT, categories=CATEGORIES)["data"]["values"]
    offsets = np.array([mark["y"] % 1 - 0.5 for mark in marks])
    assert np.abs(offsets).max() <= 0.43
    assert np.abs(offsets).max() > 0.3
    places = [(mark["y"], mark["x"]) for mark in marks if mark["y"] < 1]
    assert len(set(places)) > 0.9 * len(places)


# -- bars and waterfall --------------------------------------------------------------------------------------------
def test_bars_show_the_strongest_with_their_intervals_and_what_is_left():
    mean = np.array([0.1, 0.4, 0.2, 0.3])
    spec = views.bars(mean, 0.9 * mean, 1.2 * mean, ("a", "b", "c", "d"), UNIT, top=3)
    rows = spec["data"]["values"]
    assert [row["f"] for row in rows] == ["b", "d", "c"]
    assert (rows[0]["m"], rows[0]["lo"], rows[0]["hi"]) == (0.4, 0.36, 0.48)
    assert spec["title"]["text"] == "b, d and c carry 90 % of all movement of the output"
    assert "1 more feature moves it by 0.1" in " ".join(spec["title"]["subtitle"])
    svg = drawn(spec)
    assert all(f">{name}<" in svg for name in "bdc")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(-1e3, 1e3), st.integers(1, 12))
def test_a_waterfall_steps_from_the_base_to_the_prediction(contributions, base, top):
    values = np.array(contributions)
    names = [f"f{j}" for j in range(len(values))]
    prediction = base + float(values.sum())
    spec = views.waterfall(base, values, np.arange(len(values)), names, prediction, UNIT, top)
    rows = spec["data"]["values"]
    assert rows[0]["from"] == pytest.approx(base, rel=1e-5, abs=1e-6)
    assert rows[-1]["to"] == pytest.approx(prediction, rel=1e-5, abs=1e-2)
    assert [row["from"] for row in rows[1:]] == [row["to"] for row in rows[:-1]]
    assert len(rows) == min(len(values), top) + (len(values) > top)
    assert not any(row["label"] == "not explained" for row in rows)


def test_a_waterfall_shows_what_does_not_add_up():
    spec = views.waterfall(0.0, np.array([1.0, -0.5]), np.array([3.0, np.nan]), ("a", "b"), 0.7, UNIT)
    labels = [row["label"] for row in spec["data"]["values"]]
    assert labels == ["a = 3", "b = missing", "not explained"]
    assert spec["data"]["values"][-1]["t"] == "+0.2"
    assert "This row: 0.7 log-odds of default, mostly by a = 3 (+1)" in drawn(spec)


def test_every_lane_of_a_waterfall_is_labelled_even_with_long_names():
    names = ["the number of late payments within two years"] + [f"f{j}" for j in range(9)]
    svg = drawn(views.waterfall(0.0, np.linspace(1, 0.1, 10), np.arange(10.0), names, 5.5, UNIT, top=10))
    assert "the number of lat… = 0" in svg
    assert all(f"f{j} = {j + 1}" in svg for j in range(9))


# -- dependence ----------------------------------------------------------------------------------------------------
def test_dependence_takes_the_colour_that_changes_the_effect(explained):
    values, data = explained
    spec = views.dependence("income", values, data, NAMES, UNIT, categories=CATEGORIES)
    assert spec["title"]["text"] == "income: higher values lower the output"
    caption = " ".join(spec["title"]["subtitle"])
    assert "Colour: age, which changes its effect most." in caption
    assert "1,200 of 5,000, drawn with seed 0" in caption
    assert "rows lack it" in caption
    assert "missing" in drawn(spec)
    places = {(m["d"] == "missing"): m["x"] for m in spec["data"]["values"]}
    assert places[True] < min(m["x"] for m in spec["data"]["values"] if m["d"] != "missing")


def test_a_feature_that_works_alone_has_no_colour(explained):
    values, data = explained
    for name in ("age", "region"):
        spec = views.dependence(name, values, data, NAMES, UNIT, categories=CATEGORIES)
        assert "No other feature changes much of it." in " ".join(spec["title"]["subtitle"])
        assert not any("c" in mark for mark in spec["data"]["values"])
        drawn(spec)


def test_categories_stand_side_by_side_and_colour_by_label(explained):
    values, data = explained
    spec = views.dependence("region", values, data, NAMES, UNIT, categories=CATEGORIES)
    assert spec["title"]["text"] == "region: west raises the output most, north least"
    svg = drawn(spec)
    assert all(f">{label}<" in svg for label in CATEGORIES[2])
    spec = views.dependence("age", values, data, NAMES, UNIT, "region", categories=CATEGORIES)
    assert {mark["c"] for mark in spec["data"]["values"]} == set(CATEGORIES[2])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_partner_is_the_feature_of_the_interaction_whatever_its_sign(sign):
    draw = np.random.default_rng(3)
    data = draw.normal(size=(1000, 8))
    value = sign * data[:, 2] * data[:, 5] + 0.1 * data[:, 1]
    assert partner(2, value, data, {}) == 5
    assert partner(2, data[:, 2] ** 3, data, {}) is None
    assert partner(2, value, data, {5: tuple(range(9))}) != 5  # codes of categories have no order


def test_unknown_features_and_rows_are_named(explained):
    values, data = explained
    with pytest.raises(WrongQuestion, match="no feature 'wealth'"):
        views.dependence("wealth", values, data, NAMES, UNIT)
    with pytest.raises(WrongQuestion, match="no feature number 4"):
        views.dependence(4, values, data, NAMES, UNIT)


# -- all of it -----------------------------------------------------------------------------------------------------
def answer(explained: tuple[np.ndarray, np.ndarray]) -> Any:
    import pyarrow

    values, data = explained
    both = np.stack([values, -values], axis=2)
    tables = []
    for k, name in enumerate(("no", "yes")):
        found = views.importance(both[:, :, k], data, NAMES, rng(), CATEGORIES)
        tables.append(pyarrow.table({**found, "output": [name] * 4}))
    return Told(
        of=lambda k: both[:, :, k if isinstance(k, int) else ("no", "yes").index(k)],
        data=data, feature_names=NAMES, output_names=("no", "yes"), unit="log-odds", top=3, seed=0, categories=CATEGORIES,
        importance=pyarrow.concat_tables(tables), predictions=both.sum(axis=1), base_values=np.zeros(2), drawn_from=0,
    )  # fmt: skip


class Told(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.data)


def test_all_charts_of_an_answer_are_drawn(explained):
    charts = views.all_charts(answer(explained))
    assert list(charts) == ["beeswarm", "bars", "waterfall", "dependence_1", "dependence_2", "dependence_3"]
    for spec in charts.values():
        drawn(spec)
        assert len(json.dumps(spec)) < 400_000


def test_plot_is_a_chart_for_notebooks_of_the_asked_output_and_row(explained):
    told = answer(explained)
    chart = views.plot(told, "waterfall", row=-1, output="yes")
    assert isinstance(chart, altair.LayerChart)
    assert chart.to_dict(validate=False)["title"]["text"].startswith("Row 4999")
    assert views.plot(told).to_dict(validate=False)["data"]
    assert "age" in views.plot(told, "dependence", feature="age").to_dict(validate=False)["title"]["text"]
    assert "top" not in views.plot(told, "bars", top=2).to_dict(validate=False)
    for wrong in ({"kind": "pie"}, {"kind": "waterfall", "row": 5000}, {"kind": "dependence", "feature": "wealth"}):
        with pytest.raises(WrongQuestion):
            views.plot(told, **wrong)


@pytest.mark.parametrize("rows", [1, 25])
@pytest.mark.parametrize("kind", ["zeros", "missing", "infinite", "tiny", "huge"])
def test_odd_values_are_drawn_too(rows, kind):
    draw = np.random.default_rng(rows)
    values = {"zeros": 0.0, "tiny": 1e-12, "huge": 1e12}.get(kind, 1.0) * draw.normal(size=(rows, 2))
    fill = {"missing": np.nan, "infinite": np.inf}.get(kind)
    data = draw.normal(size=(rows, 2)) if fill is None else np.full((rows, 2), fill)
    names = ['a "quoted" \\ name', "</script>"]
    for categories in ({}, {0: ("x",)}):
        found = views.importance(values, data, names, rng(), categories)
        mean = np.array(found["mean_abs"])
        specs = [
            views.beeswarm(values, data, names, UNIT, categories=categories),
            views.bars(mean, mean, mean, names, UNIT),
            views.waterfall(0.0, values[0], data[0], names, float(values[0].sum()), UNIT, categories=categories),
            views.dependence(0, values, data, names, UNIT, 1, categories=categories),
            views.dependence(1, values, data, names, UNIT, categories=categories),
        ]
        for spec in specs:
            json.dumps(spec, allow_nan=False)
            png = vl_convert.vegalite_to_png({**spec, "width": 300})
            assert min(struct.unpack(">II", png[16:24])) > 60
