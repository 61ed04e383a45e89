"""Pictures in which rows are lines or columns: force (one row), heat map of clustered rows, decision plot.

As in `views`: plain arrays in, a Vega-Lite spec out, with a title that says the finding and a caption that says what was
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.explain import pictures
from millrace.analyses.explain.importance import figure, of_unit, sample
from millrace.analyses.explain.pictures import BLUE, RED, Categories, Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAT_ROWS, DECISION_ROWS = 240, 60
LABEL_SHARE = 0.09
"""A part of the force picture that is narrower than this share of it has its label in the tooltip alone."""


def force(
    base: float,
    values: NDArray[Any],
    data: NDArray[Any],
    feature_names: Sequence[str],
    prediction: float,
    unit: str,
    top: int = 10,
    *,
    categories: Categories | None = None,
    row_name: str = "This row",
) -> Spec:
    """One row as two forces that meet at its prediction: what raises it from the left, what lowers it from the right.

    values, data: (features,). The strongest features stand next to the prediction; the rest of each side is one part.
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(-np.abs(values), kind="stable")
    marks: list[dict[str, Any]] = []
    ends = []
    for sign, colour in ((1.0, RED), (-1.0, BLUE)):
        own = [j for j in order.tolist() if values[j] * sign > 0]
        parts = [
            (f"{pictures.name_of(feature_names[j], 18)} = {pictures.told(data[j], j, categories or {})}", values[j])
            for j in own[:top]
        ]
        if len(own) > top:
            parts.append((f"{len(own) - top:,} others", float(values[own[top:]].sum())))
        at = float(prediction)
        for name, moved in parts:
            marks.append(
                {"a": at - moved, "b": at, "f": name, "v": pictures.signed(float(moved), plus=True), "k": colour}
            )
            at -= float(moved)
        ends.append(at)
    span = max(ends[1] - ends[0], 1e-300)
    for mark in marks:
        mark["t"] = mark["f"] if abs(mark["b"] - mark["a"]) >= LABEL_SHARE * span else ""
        mark["m"] = (mark["a"] + mark["b"]) / 2
    low, high = min(ends[0], base), max(ends[1], base)
    x = {f: pictures.along(f, title=unit, scale={"domain": [low, high], "nice": False}) for f in ("a", "b", "m", "x")}
    title = f"{row_name}: {figure(base)} is expected, {figure(prediction)}{of_unit(unit)} is predicted"
    lines = [
        {"x": float(base), "t": f"expected {figure(base)}"},
        {"x": float(prediction), "t": f"predicted {figure(prediction)}"},
    ]
    tip = pictures.tooltip(("f", "feature"), ("v", "SHAP value"))
    bar = {"x": x["a"], "x2": {"field": "b"}, "y": {"value": 60}, "y2": {"value": 95},
           "color": {"field": "k", "type": "nominal", "scale": None}, "tooltip": tip}  # fmt: skip
    names = {"x": x["m"], "y": {"value": 112}, "text": {"field": "t"}, "tooltip": tip}
    rule = {"x": x["x"], "y": {"value": 40}, "y2": {"value": 100}}
    said = {
        "x": x["x"],
        "y": {"field": "y", "type": "quantitative", "scale": None, "axis": None},
        "text": {"field": "t"},
    }
    lines[0]["y"], lines[1]["y"] = 30, 12
    return pictures.spec(
        title,
        "Red parts raise the prediction and blue ones lower it; the strongest stand next to it.",
        f"Force picture of one row. {title}. " + ", ".join(f"{m['f']} {m['v']}" for m in marks),
        height=130,
        data={"values": marks},
        layer=[
            pictures.layer("rect", bar, stroke="white", strokeWidth=1),
            {**pictures.layer("rule", rule, strokeWidth=2), "data": {"values": lines}},
            {**pictures.layer("text", said, fontWeight="bold"), "data": {"values": lines}},
            pictures.layer("text", names, limit=150, fontSize=10),
        ],
    )


def heatmap(
    values: NDArray[Any],
    feature_names: Sequence[str],
    predictions: NDArray[Any],
    unit: str,
    top: int = 12,
    *,
    seed: int = 0,
) -> Spec:
    """Rows side by side, those that are explained alike together; a lane for each of the `top` features.

    values: (rows, features); predictions: (rows,). Rows are ordered by Ward's clustering of their values.
    """
    rows = sample(len(values), HEAT_ROWS, pictures.draws(seed))
    drawn = np.asarray(values[rows], dtype=np.float64)
    shown = np.argsort(-np.abs(drawn).mean(axis=0), kind="stable")[:top]
    order = _alike(drawn)
    bound = float(np.quantile(np.abs(drawn[:, shown]), 0.99)) or float(np.abs(drawn).max()) or 1.0
    names = [str(feature_names[j]) for j in shown]
    marks = [
        {"x": place, "x2": place + 1, "y": lane, "y2": lane + 1, "f": names[lane], "r": int(rows[i]),
         "c": pictures.short(min(max(drawn[i, j], -bound), bound)), "v": figure(drawn[i, j]), "p": figure(predictions[rows[i]])}
        for place, i in enumerate(order.tolist()) for lane, j in enumerate(shown.tolist())
    ]  # fmt: skip
    title = f"{names[0]} moves most rows most; rows that are explained alike stand together"
    caption = (
        f"A column is a row{pictures.of_all(rows, values, seed)}. Red raises the output, blue lowers it, white leaves it; "
        f"beyond {figure(bound)} the colour stays the same."
    )
    colour = pictures.along(
        "c", title=f"SHAP value, in {unit}",
        scale={"domain": [-bound, 0, bound], "range": [BLUE, "#f7f7f7", RED], "interpolate": "lab"},
        legend={"orient": "top", "gradientLength": 160, "gradientThickness": 8, "titleLimit": 500},
    )  # fmt: skip
    tip = pictures.tooltip(("f", "feature"), ("v", "SHAP value"), ("p", "prediction"), ("r", "row"))
    across = pictures.along("x", title="rows", axis={"labels": False, "ticks": False, "grid": False},
                            scale={"domain": [0, len(rows)], "nice": False})  # fmt: skip
    cell = {"x": across, "x2": {"field": "x2"}, "y": pictures.lanes(names), "y2": {"field": "y2"}, "color": colour,
            "tooltip": tip}  # fmt: skip
    return pictures.spec(
        title, caption, f"Heat map of SHAP values of {len(rows)} rows for {len(shown)} features. {title}.",
        height=max(60, 26 * len(shown)), data={"values": marks}, layer=[pictures.layer("rect", cell)],
    )  # fmt: skip


def decision(
    base: float,
    values: NDArray[Any],
    feature_names: Sequence[str],
    predictions: NDArray[Any],
    unit: str,
    top: int = 12,
    *,
    seed: int = 0,
) -> Spec:
    """A line a row, from the base value at the bottom to its prediction at the top, feature by feature.

    values: (rows, features). The weakest of the `top` features come first; all others are the first step together.
    """
    rows = sample(len(values), DECISION_ROWS, pictures.draws(seed))
    drawn = np.asarray(values[rows], dtype=np.float64)
    strongest = np.argsort(-np.abs(drawn).mean(axis=0), kind="stable")
    shown, others = strongest[:top], strongest[top:]
    names = [str(feature_names[j]) for j in shown] + [f"{len(others):,} others"] * bool(len(others))
    steps = drawn[:, shown[::-1]]
    if len(others):
        steps = np.concatenate([drawn[:, others].sum(axis=1, keepdims=True), steps], axis=1)
    at = base + np.concatenate([np.zeros((len(rows), 1)), np.cumsum(steps, axis=1)], axis=1)
    lanes = len(names)
    level = pictures.level(np.asarray(predictions, np.float64)[rows])
    marks = [
        {"x": pictures.short(at[i, k], 6), "y": lanes - k, "r": int(rows[i]), "c": round(float(level[i]), 2), "o": k,
         "p": figure(predictions[rows[i]])}
        for i in range(len(rows)) for k in range(lanes + 1)
    ]  # fmt: skip
    title = f"From {figure(base)} to each prediction: {names[0]} decides last and most"
    caption = (
        f"A line is a row{pictures.of_all(rows, values, seed)}. From the bottom up each feature's value is added, the weakest "
        "first; a line ends at its prediction."
    )
    x = pictures.along("x", title=f"output, in {unit}", scale={"zero": False}, axis={"tickCount": 8})
    line = {
        "x": x, "y": pictures.lanes(names), "detail": {"field": "r"}, "order": {"field": "o"},
        "color": pictures.ramp("prediction", [0, 1], ["low", "high"]),
        "tooltip": pictures.tooltip(("r", "row"), ("p", "prediction")),
    }  # fmt: skip
    start = {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "opacity": 0.6},
        "encoding": {"x": {"datum": float(base)}},
    }
    return pictures.spec(
        title, caption, f"Decision picture of {len(rows)} rows over {len(shown)} features. {title}.",
        height=max(80, 28 * lanes), data={"values": marks},
        layer=[start, pictures.layer("line", line, opacity=0.7, strokeWidth=1.2)],
    )  # fmt: skip


def _alike(drawn: NDArray[np.float64]) -> NDArray[np.int64]:
    """An order of rows in which those of like values are neighbours."""
    if len(drawn) < 3:
        return np.arange(len(drawn))
    from scipy.cluster.hierarchy import leaves_list, linkage

    return np.asarray(leaves_list(linkage(drawn, "ward")), np.int64)
