"""The picture of a comparison as a Vega-Lite spec (a plain dict): a lane a contender, what jobs wait and what machines run.

No colours for text or background: those are the page's. Computes nothing (see `compare`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millrace.autoscale.compare import Row
from millrace.autoscale.figures import Estimate

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
KINDS = {"millrace": "#2f7fc4", "kills no job": "#8b94a1", "kills jobs": "#d0481f"}
SHAPES = ("circle", "square", "cross")
PANEL_PX, LANE_PX, LABEL_PX = 300, 30, 320


def waiting_and_machines(rows: Sequence[Row]) -> dict[str, Any]:
    """The picture of one tier. Left: the 95th percentile of turnaround - size; right: replica-hours, with a grey tick where
    a clairvoyant would be. Lines are 95 % intervals; red crosses kill jobs that run."""
    values = [_mark(row) for row in rows]
    kills, seeds = sum(row.mean("kills") > 0 for row in rows), rows[0].seeds
    subtitle = f"{f'{seeds} seeds' if seeds > 1 else 'one seed'}; {kills} of {len(rows)} rules kill jobs that run"
    told = "; ".join(f"{v['name']}: delay {v['delay']:.0f} s, {v['hours']:.0f} replica-hours, {v['kills']:.0f} kills"
                     for v in values)  # fmt: skip
    bound = {"mark": {"type": "tick", "thickness": 2, "color": "#8b94a1"},
             "encoding": {"x": {"field": "bound", "type": "quantitative"}, "y": _lane(values, False)}}  # fmt: skip
    delay = _panel(values, "delay", "waited beyond its own length, p95, s", {"type": "log", "nice": True}, True, [])
    hours = _panel(values, "hours", "replica-hours (tick: clairvoyant)", {"zero": True}, False, [bound])
    return {
        "$schema": SCHEMA,
        "title": {"text": f"{rows[0].tier}: what jobs wait and what machines run", "subtitle": subtitle},
        "description": told,
        "data": {"values": values},
        "hconcat": [delay, hours],
    }


def _panel(
    values: list[dict[str, Any]], field: str, title: str, scale: dict[str, Any], named: bool, more: list[Any]
) -> dict[str, Any]:
    axis = {"tickCount": 5, "format": "~s"}
    x = {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}
    y, names = _lane(values, named), list(KINDS)
    colour = {"field": "does", "type": "nominal", "title": None,
              "scale": {"domain": names, "range": list(KINDS.values())}}  # fmt: skip
    shape = {**colour, "scale": {"domain": names, "range": list(SHAPES)}}
    tips = [{"field": f, "title": t} for f, t in (("name", "rule"), ("delay", "delay p95, s"), ("hours", "replica-hours"),
                                                  ("kills", "kills"), ("never", "jobs never done"))]  # fmt: skip
    ends = {"x": {**x, "field": f"{field}_low"}, "x2": {"field": f"{field}_high"}, "y": y, "color": colour}
    point = {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tips}
    return {
        "width": PANEL_PX,
        "height": LANE_PX * len(values),
        "layer": [
            *more,
            {"mark": {"type": "rule", "aria": False}, "encoding": ends},
            {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 1}, "encoding": point},
        ],
    }


def _lane(values: list[dict[str, Any]], named: bool) -> dict[str, Any]:
    axis = {"labelLimit": LABEL_PX, "grid": True, "ticks": False, "labels": named}
    return {"field": "name", "type": "nominal", "title": None, "sort": [v["name"] for v in values], "axis": axis}


def _mark(row: Row) -> dict[str, Any]:
    hours, delay = row.figures["replica_hours"], row.figures["delay_p95_s"]
    ours = row.contender.startswith("millrace")
    does = "kills jobs" if row.mean("kills") > 0 else "millrace" if ours else "kills no job"
    return {
        "name": row.contender, "does": does, "bound": round(row.mean("bound_hours"), 1),
        "kills": round(row.mean("kills"), 1), "never": round(row.mean("never"), 1),
        **_spread("hours", hours, 0.0), **_spread("delay", delay, 1.0),
    }  # fmt: skip


def _spread(name: str, one: Estimate, least: float) -> dict[str, float]:
    """`least`: a logarithmic axis has no zero; a second is as good as none."""
    low, high = max(least, one.mean - one.half), max(least, one.mean + one.half)
    return {name: round(max(least, one.mean), 1), f"{name}_low": round(low, 1), f"{name}_high": round(high, 1)}
