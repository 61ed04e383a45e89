"""Parts that the pictures of a refutation share: axes, lanes, labels, colours, and the frame around them.

Colours: blue is good or "after", orange doubtful, red bad or "before", grey without a verdict; shapes and words say the same
for those who cannot tell them apart. What is not data (type, text colour, background) is left to the page's theme, so that
a picture stands on light and on dark. See `views`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.words import figure

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
BLUE, LIGHT_BLUE, ORANGE, RED, GREY = "#2f7fc4", "#5a97cf", "#bd7400", "#d0481f", "#8b94a1"
STATUS_COLOURS = {"passed": BLUE, "warning": ORANGE, "failed": RED, "skipped": GREY, "shown": GREY}
STATUS_SHAPES = {
    "passed": "circle",
    "warning": "triangle-up",
    "failed": "cross",
    "skipped": "square",
    "shown": "diamond",
}


def along(field: str, title: str | None = None, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def layer(kind: str, encoding: Mapping[str, Any], values: Sequence[Spec] | None = None, **mark: Any) -> Spec:
    made: Spec = {"mark": {"type": kind, "aria": False, **mark}, "encoding": dict(encoding)}
    return made if values is None else {"data": {"values": list(values)}, **made}


def tooltip(*told: tuple[str, str]) -> list[Spec]:
    return [{"field": field, "title": title.replace("\\", "/")} for field, title in told]


def lanes(names: Sequence[str], field: str = "y", most: int = 28) -> Spec:
    """A y axis of lanes 0..n, the first at the top, each with its name in the middle. Every layer needs it, because Vega-Lite
    merges the axes of layers."""
    shown = f"{json.dumps([name_of(n, most) for n in names])}[floor(datum.value)]"
    axis = {"values": [i + 0.5 for i in range(len(names))], "labelExpr": shown, "labelOverlap": False, "grid": False,
            "labelLimit": 220, "ticks": False}  # fmt: skip
    return along(field, axis=axis, scale={"domain": [0, max(1, len(names))], "reverse": True, "nice": False})


def rule(at: float, axis: str = "x", label: str = "", **mark: Any) -> list[Spec]:
    """A line across the picture, at a place that is a figure."""
    return [{"data": {"values": [{"at": short(at, 6), "label": label}]},
             "mark": {"type": "rule", "aria": False, **mark},
             "encoding": {axis: {"field": "at", "type": "quantitative"}}}]  # fmt: skip


def short(value: float, digits: int = 5) -> float:
    """What a picture needs of a figure; specs are text, and most of it is digits."""
    return float(f"{value:.{digits}g}") + 0.0


def name_of(name: Any, most: int = 28) -> str:
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def signed(value: float) -> str:
    """A figure with a true minus sign."""
    return figure(value).replace("-", "−", 1) if value < 0 else figure(value)


def room(values: Sequence[float] | NDArray[Any], share: float = 0.04) -> list[float]:
    """A domain around all finite values, with room at its ends."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    pad = share * (high - low) or max(abs(high), 1e-12) * 0.05
    return [short(low - pad, 6), short(high + pad, 6)]


def apart(places: Sequence[float], least: float) -> list[float]:
    """The places moved as little as need be so that neighbours are `least` apart, in the order given: for labels."""
    groups: list[list[int]] = []
    for i in np.argsort(np.asarray(places), kind="stable").tolist():
        groups.append([i])
        while len(groups) > 1:
            low, high = groups[-2], groups[-1]
            if _centre(high, places) - _centre(low, places) >= least * (len(low) + len(high)) / 2:
                break
            groups[-2:] = [low + high]
    found = [0.0] * len(places)
    for group in groups:
        for k, i in enumerate(group):
            found[i] = _centre(group, places) + least * (k - (len(group) - 1) / 2)
    return found


def _centre(group: Sequence[int], places: Sequence[float]) -> float:
    return float(np.mean([places[i] for i in group]))


def stacked(spans: Sequence[tuple[float, float]]) -> list[int]:
    """A row for each span, the lowest in which it touches no span before it: for labels side by side."""
    rows: list[list[tuple[float, float]]] = []
    found = []
    for low, high in spans:
        free = next((r for r, its in enumerate(rows) if all(high < a or low > b for a, b in its)), len(rows))
        if free == len(rows):
            rows.append([])
        rows[free].append((low, high))
        found.append(free)
    return found


def held(text: str) -> str:
    """Figures stay beside their per cent sign and their error when lines are broken; names are in quotes, minus signs true."""
    text = re.sub(r"(?<![\w.])-(?=[\d.])", "−", re.sub(r"`([^`]*)`", r"“\1”", text))
    return text.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0").replace(" to 0", " to\u00a00")


def spec(title: str, caption: str, description: str, **rest: Any) -> Spec:
    """The frame: the finding, what was left out, and what those are told who cannot see it."""
    return {
        "$schema": SCHEMA,
        "title": {
            "text": textwrap.wrap(held(title), 84),
            "subtitle": textwrap.wrap(held(caption), 105),
            "anchor": "start",
            "offset": 12,
        },
        "description": description,
        "width": "container",
        **rest,
    }
