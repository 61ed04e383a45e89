"""Pictures of the tiers as Vega-Lite specs; those of results and runs come from their own `views` and `charts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millrace.diagnose.charts import SCHEMA

BLUE, ORANGE, GREY = "#1f6fb4", "#e8890c", "#6e7681"
MOST_POINTS, SHORT_S = 300, 600
LINES = (("workers", "replicas", BLUE), ("running", "running", GREY), ("waiting", "queued", ORANGE))


def tier(name: str, history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Workers and jobs of a tier over time; None until there is something to see."""
    if len(history) < 2:
        return None
    step = -(-len(history) // MOST_POINTS)
    kept = [*history[:-1:step], history[-1]]
    rows = [{"at": round(s["at"] * 1000), "what": what, "n": s[field]} for s in kept for what, field, _ in LINES]
    most = max([1, *(row["n"] for row in rows)])
    ticks = sorted({0, most, *([most // 2] if most > 3 else [])})
    short = kept[-1]["at"] - kept[0]["at"] < SHORT_S
    axis = {
        "grid": False,
        "tickCount": 4,
        "format": "%H:%M:%S" if short else "%H:%M",
        "labelOverlap": "greedy",
        "labelSeparation": 12,
    }
    last = history[-1]
    told = f"{last['replicas']} workers, {last['running']} jobs that run and {last['queued']} that wait"
    return {
        "$schema": SCHEMA,
        "description": f"The tier {name} over time. Now: {told}. At most {max(s['queued'] for s in history)} waited.",
        "width": "container",
        "height": 120,
        "data": {"values": rows},
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
        "encoding": {
            "x": {"field": "at", "type": "temporal", "title": None, "axis": axis},
            "y": {"field": "n", "type": "quantitative", "title": None, "scale": {"domain": [0, most]},
                  "axis": {"values": ticks, "format": "d"}},
            "color": {
                "field": "what", "type": "nominal", "title": None,
                "scale": {"domain": [w for w, _, _ in LINES], "range": [c for _, _, c in LINES]},
                "legend": {"orient": "top", "symbolType": "stroke"},
            },
        },
    }  # fmt: skip
