"""A flame graph as a Vega-Lite spec: widths are seconds, what is above was called by what is below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millrace.diagnose.charts import SCHEMA
from millrace.diagnose.words import duration, percent

LEAST_SHARE, MOST_DEPTH, LEAST_NAMED = 0.003, 40, 0.08
WARM = ("#f0b95b", "#e8a13a", "#dd8452", "#e6c36a", "#d9734e", "#efd08a")


def flame(kind: str, seconds: Mapping[tuple[str, ...], float]) -> dict[str, Any]:
    """One picture of all stacks of a kind of task."""
    total = sum(seconds.values())
    rows: list[dict[str, Any]] = []
    _grow(seconds, 0, 0.0, total, rows)
    deepest = max((row["depth"] for row in rows), default=0) + 1
    hottest = max(rows, key=lambda row: row["own"], default=None)
    said = (
        f"{hottest['name']} took {percent(hottest['own'] / total)} of {kind} in itself"
        if hottest
        else f"Nothing was sampled of {kind}"
    )
    encoding = {
        "x": {"field": "low", "type": "quantitative", "title": "share of sampled time",
              "scale": {"domain": [0, 1], "nice": False}, "axis": {"format": "%", "tickCount": 4, "grid": False}},
        "y": {"field": "depth", "type": "quantitative", "axis": None, "scale": {"domain": [0, deepest], "nice": False}},
    }  # fmt: skip
    tip = [{"field": "name", "title": "function"}, {"field": "time", "title": "with what it calls"},
           {"field": "alone", "title": "in itself"}]  # fmt: skip
    return {
        "$schema": SCHEMA,
        "title": {"text": said, "subtitle": "Widths are time; what stands above was called by what is below it."},
        "description": f"Flame graph of {kind}: {said}",
        "width": "container",
        "height": 20 * deepest,
        "data": {"values": rows},
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "rect", "aria": False, "stroke": "white", "strokeWidth": 0.7},
             "encoding": {"x2": {"field": "high"}, "y2": {"field": "top"}, "tooltip": tip,
                          "color": {"field": "hue", "type": "nominal", "legend": None, "scale": {"range": list(WARM)}}}},
            {"transform": [{"filter": f"datum.high - datum.low > {LEAST_NAMED}"}],
             "mark": {"type": "text", "align": "left", "dx": 4, "color": "#1c2127", "fontSize": 11, "aria": False,
                      "limit": {"expr": "max(10, (datum.high - datum.low) * width - 8)"}},
             "encoding": {"y": {"field": "middle", "type": "quantitative"}, "text": {"field": "name"}}},
        ],
    }  # fmt: skip


def _grow(
    seconds: Mapping[tuple[str, ...], float], depth: int, low: float, total: float, rows: list[dict[str, Any]]
) -> None:
    """Rectangles of the stacks that agree up to `depth`, from `low` on."""
    below: dict[str, dict[tuple[str, ...], float]] = {}
    for stack, taken in seconds.items():
        if len(stack) > depth:
            below.setdefault(stack[depth], {})[stack] = taken
    for word, inner in sorted(below.items()):
        whole = sum(inner.values())
        width = whole / total if total else 0.0
        if width >= LEAST_SHARE and depth < MOST_DEPTH:
            own = sum(taken for stack, taken in inner.items() if len(stack) == depth + 1)
            rows.append({
                "name": word, "depth": depth, "top": depth + 1, "middle": depth + 0.5, "low": round(low, 5),
                "high": round(low + width, 5), "time": duration(whole), "alone": duration(own), "own": own,
                "hue": sum(map(ord, word)) % len(WARM),
            })  # fmt: skip
            _grow(inner, depth + 1, low, total, rows)
        low += width
