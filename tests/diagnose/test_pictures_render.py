"""Pictures of a run are valid Vega-Lite, are drawn by the real renderer, stay small, and show what was accounted."""

from __future__ import annotations

import itertools
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import altair
import numpy as np
import pytest
from ledgers import attempt, busy_run, span, written

from millrace.diagnose import charts
from millrace.diagnose.accounting import PARTS, account
from millrace.diagnose.timeline import KINDS, lay_out
from millrace.run.ledger import History

SVG = "{http://www.w3.org/2000/svg}"


def all_of(history: History) -> dict[str, charts.Spec]:
    timeline = lay_out(history)
    told = account(history, timeline)
    return {
        "core-seconds": charts.core_seconds(told),
        "lanes": charts.lanes(timeline, history),
        "utilisation": charts.utilisation(timeline),
        "durations": charts.durations(history, told),
    }


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> History:
    return busy_run(tmp_path_factory.mktemp("usual") / "l", 4, 120)


@pytest.mark.parametrize("name", ["core-seconds", "lanes", "utilisation", "durations"])
def test_a_picture_is_valid_and_becomes_png_and_svg(usual, tmp_path, name):
    spec = all_of(usual)[name]
    altair.Chart.from_dict(spec)  # checks it against Vega-Lite's schema
    png, svg = charts.save_chart(spec, tmp_path / "deep" / name)
    assert (png.name, svg.name) == (f"{name}.png", f"{name}.svg")
    image = png.read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    drawn = ElementTree.fromstring(svg.read_text())
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    assert struct.unpack(">II", image[16:24]) == pytest.approx((2 * width, 2 * height), abs=2)
    words = " ".join(t.text or "" for t in drawn.iter(f"{SVG}text"))
    assert spec["title"]["text"] in words
    assert spec["description"]


def test_every_part_and_kind_has_a_colour_of_its_own():
    colours = [charts.COLOURS[part] for part in PARTS]
    assert len(set(colours)) == len(colours)
    assert set(KINDS) <= set(charts.COLOURS)
    assert set(KINDS) == set(charts.KIND_LABELS)


SIGHT = {  # Machado, Oliveira and Fernandes, 2009, severity 1
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def seen(colour: str, sight: list[list[float]]) -> np.ndarray:
    """CIE Lab of an sRGB colour as these eyes see it."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.array(sight) @ linear, 0, 1) / (0.9505, 1, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_kinds_that_only_a_legend_names_stay_apart_for_all_eyes(sight):
    places = {kind: seen(charts.COLOURS[kind], SIGHT[sight]) for kind in KINDS}
    near = {(a, b): float(np.linalg.norm(places[a] - places[b])) for a, b in itertools.combinations(KINDS, 2)}
    assert min(near.values()) > 12, min(near, key=near.__getitem__)


def test_the_bar_of_core_seconds_is_whole_and_names_every_part(usual):
    told = account(usual)
    rows = charts.core_seconds(told)["data"]["values"]
    assert rows[0]["low"] == 0
    assert rows[-1]["high"] == pytest.approx(1, abs=1e-4)
    assert [a["high"] for a in rows[:-1]] == [b["low"] for b in rows[1:]]
    assert {row["part"] for row in rows} == {p for p in PARTS if told.parts_ns[p]} | {"unexplained"}


def test_few_pieces_are_drawn_one_by_one_with_the_task_that_they_are(usual):
    rows = charts.lanes(lay_out(usual), usual)["data"]["values"]
    assert sum(row["label"] == "in a task" for row in rows) == 120
    assert {row["name"].rsplit(" ", 1)[0] for row in rows if row["label"] == "in a task"} == {
        "explain rows",
        "build tables",
    }


@pytest.mark.parametrize(("slots", "tasks"), [(2, 12_000), (16, 8_000), (100, 5_000)])
def test_however_many_tasks_there_were_marks_are_few_and_show_the_same_shares(tmp_path, slots, tasks):
    history = busy_run(tmp_path / "l", slots, tasks, task_ms=20)
    specs = all_of(history)
    for spec in specs.values():
        assert len(spec["data"]["values"]) <= charts.MARKS
    timeline = lay_out(history)
    task = sum(lane.total_ns("task") for lane in timeline.lanes) / (timeline.wall_ns * slots)
    rows = specs["lanes"]["data"]["values"]
    area = dict.fromkeys(charts.KIND_LABELS.values(), 0.0)
    for row in rows:
        area[row["label"]] += (row["to"] - row["from"]) * (row["high"] - row["low"])
    assert area["in a task"] / sum(area.values()) == pytest.approx(task, abs=0.02)
    shown = sum(row["share"] for row in specs["utilisation"]["data"]["values"] if row["label"] == "in a task") / 120
    assert shown == pytest.approx(task, abs=0.005)


def test_the_histogram_counts_every_attempt_once(tmp_path):
    history = busy_run(tmp_path / "l", 2, 5_000, task_ms=20)
    rows = charts.durations(history, account(history))["data"]["values"]
    assert sum(row["count"] for row in rows) == 5_000


@pytest.mark.parametrize(
    "attempts",
    [[], [attempt(0, 0, 0, 0)], [attempt(0, 0, 5, 10)], [attempt(0, 0, 0, 86_400_000.0)]],
    ids=["none", "instant", "one", "a day"],
)
def test_odd_runs_are_drawn_too(tmp_path, attempts):
    end = max([0.0, *((a["measures"].ended_ns - a["measures"].started_ns) / 1e6 + 10 for a in attempts)])
    history = written(tmp_path / "l", 1, attempts, [span(0, "tail", 0, 0)], end)
    for name, spec in all_of(history).items():
        charts.save_chart(spec, Path(tmp_path) / name)
