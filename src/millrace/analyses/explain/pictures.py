"""Parts that the pictures of an explanation share: lanes, dots, ramps, captions, and how figures become labels.

Colours: blue is low or lowers, red is high or raises, grey has no order or is missing; they stay apart for colour-blind
eyes. What is not data (type, text colour) is left to the page's theme. See `views`, `dependence`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.explain.importance import figure
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from numpy.typing import NDArray

Spec = dict[str, Any]
Categories = Mapping[int, Sequence[Any]]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
TAIL = 2.0
BLUE, LIGHT_BLUE, RED, GREY = "#1f6fb4", "#5a97cf", "#c63f17", "#8b94a1"
RAMP = [BLUE, "#a9a0bb", RED]


def draws(seed: int, *index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=index)))


def limits(v: NDArray[np.float64]) -> tuple[float, float, NDArray[np.bool_]]:
    """The shown range, and what lies outside: heavy tails are cut where they are over TAIL times as wide as the rest."""
    known = v[np.isfinite(v)]
    if not known.size:
        return -1.0, 1.0, np.zeros(v.shape, bool)
    lowest, highest = float(known.min()), float(known.max())
    low, high = np.percentile(known, (0.5, 99.5)).tolist()
    reach = TAIL * (high - low)
    low = low - 0.1 * (high - low) if high > low and low - lowest > reach else lowest
    high = high + 0.1 * (high - low) if high > low and highest - high > reach else highest
    pad = 0.02 * (high - low) or max(abs(high), 1.0) * 0.05
    with np.errstate(invalid="ignore"):
        cut = (v < low) | (v > high)
    return short(low - pad, 6), short(high + pad, 6), cut


def swarm(at: NDArray[np.float64], low: float, high: float) -> list[float]:
    """Offsets from the lane's middle, so that dots of like value stand side by side: dense places bulge."""
    bins = ((at - low) / ((high - low) or 1.0) * 120).astype(int)
    order = np.argsort(bins, kind="stable")
    first = np.unique(bins[order], return_index=True)[1]
    place = np.arange(len(bins)) - np.repeat(first, np.diff(np.append(first, len(bins))))
    layer = np.where(place % 2, (place + 1) // 2, -(place // 2))
    offsets = np.empty(len(bins))
    offsets[order] = layer * min(0.07, 0.42 / max(1, int(np.abs(layer).max(initial=0))))
    return offsets.tolist()


def level(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 to 1 by rank among the rows drawn (outliers would bleach all others); NaN stays."""
    known = np.isfinite(x)
    found = np.full(len(x), np.nan)
    ordered = np.sort(x[known])
    middle = np.searchsorted(ordered, x[known], "left") + np.searchsorted(ordered, x[known], "right")
    found[known] = middle / 2 / max(1, len(ordered))
    return found


def tooltip(*told: tuple[str, str]) -> list[Spec]:
    """(field, title) pairs. Vega-Lite puts titles into an expression and does not escape backslashes in them."""
    return [{"field": field, "title": title.replace("\\", "/")} for field, title in told]


def along(field: str, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", **more}


def layer(kind: str, encoding: Mapping[str, Any], **mark: Any) -> Spec:
    return {"mark": {"type": kind, "aria": False, **mark}, "encoding": dict(encoding)}


def label(x: Mapping[str, Any], y: Mapping[str, Any], **mark: Any) -> Spec:
    """The text `t` to the right of a place."""
    return layer("text", {"x": x, "y": y, "text": {"field": "t"}}, align="left", dx=6, **mark)


def ramp(title: str, ends: list[float], labels: list[str]) -> Spec:
    shown = f"datum.value == {ends[0]!r} ? {json.dumps(labels[0])} : {json.dumps(labels[1])}"
    legend = {
        "orient": "top",
        "gradientLength": 120,
        "gradientThickness": 8,
        "offset": 8,
        "values": ends,
        "labelExpr": shown,
    }
    return along("c", title=title, scale={"domain": ends, "range": RAMP, "interpolate": "lab"}, legend=legend)


def lanes(names: Sequence[str], field: str = "y") -> Spec:
    """A y axis of lanes 0..n, the first at the top, each with its name in the middle.

    Every layer of a picture needs it: Vega-Lite merges the axes of layers, and a plain one would let labels fall out.
    """
    shown = f"{json.dumps([name_of(n) for n in names])}[floor(datum.value)]"
    axis = {
        "values": [i + 0.5 for i in range(len(names))],
        "labelExpr": shown,
        "labelOverlap": False,
        "grid": False,
    }
    return along(
        field,
        title=None,
        axis=axis,
        scale={"domain": [0, max(1, len(names))], "reverse": True, "nice": False},
    )


def zero(axis: str = "x") -> Spec:
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "strokeWidth": 1, "opacity": 0.6},
        "encoding": {axis: {"datum": 0}},
    }


def number(feature: int | str, names: Sequence[str]) -> int:
    if isinstance(feature, str):
        if feature not in names:
            raise WrongQuestion(f"There is no feature {feature!r}; there are {', '.join(map(str, names[:20]))}.")
        return list(names).index(feature)
    if not 0 <= feature < len(names):
        raise WrongQuestion(f"There is no feature number {feature}; there are 0 to {len(names) - 1}.")
    return int(feature)


def told(value: Any, j: int, categories: Categories) -> str:
    """A feature's value as people read it: its label, its figure, or that it is missing."""
    value = float(value)
    if not np.isfinite(value):
        return "missing" if np.isnan(value) else str(value)
    if j in categories:
        labels = categories[j]
        return str(labels[int(value)]) if 0 <= value < len(labels) else f"code {int(value)}"
    return f"{value:,.0f}".replace("-", "−") if value == int(value) and abs(value) < 1e15 else signed(value)


def signed(value: float, plus: bool = False) -> str:
    """A figure with a true minus sign, and a plus where asked for."""
    text = figure(value).replace("-", "−", 1) if value < 0 else figure(value)
    return f"+{text}" if plus and value > 0 else text


def name_of(name: Any, most: int = 28) -> str:
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short(value: float, digits: int = 4) -> float:
    """What a picture needs of a figure; specs are text, and most of it is digits."""
    return float(f"{value:.{digits}g}")


def of_all(rows: NDArray[np.int64], values: NDArray[Any], seed: int) -> str:
    return f" ({len(rows):,} of {len(values):,}, drawn with seed {seed})" if len(rows) < len(values) else ""


def cut_tails(cut: NDArray[np.bool_], of: int) -> str:
    count = int(cut.sum())
    return f" {count:,} of {of:,} dots lie beyond the axis and stand at its edge." if count else ""


def spec(title: str, caption: str, description: str, **rest: Any) -> Spec:
    return {
        "$schema": SCHEMA,
        "title": {"text": title, "subtitle": textwrap.wrap(caption, 105)},
        "description": description,
        "width": "container",
        **rest,
    }
