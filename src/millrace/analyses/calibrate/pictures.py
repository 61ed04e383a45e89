"""Parts that the pictures of a calibration share: axes, layers, colours by a trial's state, and the frame around them.

Blue is what was found, light blue what surrounds it, red what was observed, grey what failed or was given up; shapes say the
same for those who cannot tell colours apart. What is not data (type, text colour, background) is left to the page's theme.
See `views`.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.run.errors import MissingExtra
from millrace.run.units import format_figure

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
BLUE, LIGHT_BLUE, ORANGE, RED, GREY = "#2f7fc4", "#5a97cf", "#bd7400", "#d0481f", "#8b94a1"
STATES = ("complete", "stopped", "failed")
COLOURS = {"complete": BLUE, "stopped": GREY, "failed": RED}
SHAPES = {"complete": "circle", "stopped": "triangle-down", "failed": "cross"}
DOTS = 1_500


def along(field: str, title: str | None = None, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def layer(kind: str, encoding: Mapping[str, Any], values: Sequence[Spec] | None = None, **mark: Any) -> Spec:
    made: Spec = {"mark": {"type": kind, "aria": False, **mark}, "encoding": dict(encoding)}
    return made if values is None else {"data": {"values": list(values)}, **made}


def tooltip(*told: tuple[str, str]) -> list[Spec]:
    """(field, title) pairs; Vega-Lite does not escape backslashes in titles."""
    return [{"field": field, "title": title.replace("\\", "/")} for field, title in told]


def by_state(states: Sequence[str]) -> dict[str, Spec]:
    """Colour and shape channels for the states that there are."""
    shown = [s for s in STATES if s in set(states)]
    key = {"orient": "top", "title": None, "offset": 4}
    return {
        "color": {"field": "state", "type": "nominal", "title": None, "legend": key,
                  "scale": {"domain": shown, "range": [COLOURS[s] for s in shown]}},
        "shape": {"field": "state", "type": "nominal", "title": None, "legend": key,
                  "scale": {"domain": shown, "range": [SHAPES[s] for s in shown]}},
    }  # fmt: skip


def loss_axis(losses: NDArray[Any]) -> Spec:
    """What loss channels share: logarithmic where all are above 0 and they spread over more than a factor of 5."""
    known = losses[np.isfinite(losses)]
    if known.size and known.min() > 0 and known.max() / known.min() > 5:
        low, high = short(known.min() / 1.15), short(known.max() * 1.15)
        return {
            "title": "loss, on a logarithmic scale",
            "axis": {"values": ticks(low, high), "format": "~g"},
            "scale": {"type": "log", "domain": [low, high], "nice": False},
        }
    shown = known[known <= reach(losses)]
    return {"title": "loss", "scale": {"domain": room(shown), "zero": False, "nice": False}, "axis": {"tickCount": 6}}


def reach(losses: NDArray[Any]) -> float:
    """Where a loss axis ends: on a linear one, bad trials (beyond the upper quartile by three times its distance from the best)
    would leave no room for the good ones."""
    known = losses[np.isfinite(losses)]
    if not known.size or (known.min() > 0 and known.max() / known.min() > 5):
        return math.inf
    return float(np.quantile(known, 0.75) * 4 - known.min() * 3)


def ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis: decades, with more between them where these are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: tuple[int, ...] = (1, 2, 5) if len(decades) <= 4 else (1, 3) if len(decades) <= 7 else (1,)
    steps = (1, 2, 3, 5, 7) if high / low < 12 else steps
    found = [short(s * 10.0**d) for d in decades for s in steps]
    return [v for v in found if low <= v <= high] or [low, high]


def parameter_axis(said: Mapping[str, Any], values: Sequence[Any]) -> Spec:
    """What channels of a parameter share: its bounds and its scale; categories are nominal."""
    if said.get("kind") == "categorical" or not all(isinstance(v, int | float | np.number) for v in values):
        return {
            "type": "nominal",
            "axis": {"labelAngle": 0},
            "sort": [name_of(c) for c in said.get("choices") or sorted(set(map(str, values)))],
        }
    low, high = said.get("low"), said.get("high")
    known = [float(v) for v in values]
    low, high = (min(known) if low is None else low), (max(known) if high is None else high)
    scale: Spec = {"domain": [short(low, 7), short(high, 7)], "zero": False, "nice": False}
    axis: Spec = {"tickCount": 6, "format": "~g", "labelOverlap": True}
    if said.get("kind") == "log":
        scale["type"], axis["values"] = "log", ticks(low, high)
    return {"type": "quantitative", "scale": scale, "axis": axis}


def thinned(losses: NDArray[Any], most: int = DOTS) -> NDArray[np.int64]:
    """Rows to draw of many: the best half of `most`, and others evenly by number."""
    if len(losses) <= most:
        return np.arange(len(losses))
    order = np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")
    rest = np.sort(order[most // 2 :])
    return np.sort(np.concatenate([order[: most // 2], rest[np.linspace(0, len(rest) - 1, most // 2).astype(int)]]))


def of_all(shown: int, of: int) -> str:
    return f" {shown:,} of {of:,} trials are drawn: the best, and others evenly." if shown < of else ""


def short(value: float, digits: int = 5) -> float:
    """What a picture needs of a figure; specs are text, and most of it is digits."""
    return float(f"{float(value):.{digits}g}") + 0.0


def room(values: Sequence[float] | NDArray[Any], share: float = 0.05) -> list[float]:
    """A domain around all finite values, with room at its ends."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    pad = share * (high - low) or max(abs(high), 1e-12) * 0.05
    return [short(low - pad, 6), short(high + pad, 6)]


def name_of(name: Any, most: int = 28) -> str:
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def figure(value: Any) -> str:
    """As people read it, with a true minus sign; a category is its name."""
    if isinstance(value, str | bool) or not isinstance(value, int | float | np.number):
        return name_of(value)
    if not np.isfinite(value):
        return "unknown"
    return format_figure(float(value)).replace("-", "−", 1) if value < 0 else format_figure(float(value))


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def held(text: str) -> str:
    """Figures stay beside their per cent sign when lines are broken."""
    return re.sub(r"(?<=\d) %", "\u00a0%", text)


def spec(title: str, caption: str, description: str, **rest: Any) -> Spec:
    """The frame: the finding, how to read it and what was left out, and what those are told who cannot see it."""
    frame: Spec = {
        "$schema": SCHEMA,
        "title": {
            "text": textwrap.wrap(held(title), 84),
            "subtitle": textwrap.wrap(held(caption), 105),
            "anchor": "start",
            "offset": 12,
        },
        "description": description,
    }
    return {**frame, **({} if "concat" in rest else {"width": "container"}), **rest}


def chart(made: Spec) -> Any:
    """The Altair chart of a spec. Altair makes an object of every mark of what it reads, which takes seconds; so marks stay out
    of what it reads, and are handed over as named data, which it takes as they are."""
    try:
        import altair
    except ImportError as e:
        raise MissingExtra("altair", "report", "plot()") from e
    marks: dict[str, Any] = {}
    bare = _named(made, marks)
    width = {} if "concat" in made else {"width": 640}
    drawn = altair.Chart.from_dict({**bare, **width})
    drawn.datasets = marks
    return drawn


def _named(part: Any, marks: dict[str, Any]) -> Any:
    """The spec with the values of every layer taken out into `marks`, and their name in their place."""
    if isinstance(part, list):
        return [_named(p, marks) for p in part]
    if not isinstance(part, dict):
        return part
    found = {}
    for key, value in part.items():
        if key == "data" and "values" in value:
            name = f"marks_{len(marks)}"
            marks[name] = value["values"]
            found[key] = {"name": name}
        else:
            found[key] = _named(value, marks)
    return found
