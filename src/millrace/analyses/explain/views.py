"""Pictures of an explanation as Vega-Lite specs (plain dicts): beeswarm, bars, waterfall, dependence.

Each takes plain arrays and returns a spec with a title that says the finding, a caption that says what was left out
(rows drawn from many, tails cut, missing values) and a `description` for those who cannot see it. Rows are drawn with a
seed, so the same answer gives the same picture. Colours: blue is low or lowers, red is high or raises, grey has no order
or is missing; they stay apart for colour-blind eyes. What is not data (type, text colour) is left to the page's theme.

Computes nothing that is not in a picture: see `importance`, whose functions are found here too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.analyses.explain import pictures
from millrace.analyses.explain.dependence import dependence
from millrace.analyses.explain.importance import directions, figure, importance, of_unit, sample, sentences
from millrace.analyses.explain.pictures import BLUE, GREY, RED, Categories, Spec
from millrace.run.errors import MissingExtra, WrongQuestion

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "all_charts", "bars", "beeswarm", "dependence", "directions", "importance", "plot", "sentences", "waterfall",
]  # fmt: skip

SWARM_MARKS = 4_000


# -- all rows ------------------------------------------------------------------------------------------------------
def beeswarm(
    values: NDArray[Any],
    data: NDArray[Any],
    feature_names: Sequence[str],
    unit: str,
    top: int = 12,
    *,
    mean_abs: NDArray[np.float64] | None = None,
    categories: Categories | None = None,
    seed: int = 0,
) -> Spec:
    """A dot a row for each of the `top` features: where its value lies, coloured by the feature's own value.

    values, data: (rows, features). `mean_abs`: (features,) over all rows; without it that of the rows drawn.
    """
    categories = categories or {}
    rows = sample(
        len(values), max(50, SWARM_MARKS // max(1, min(top, values.shape[1]))), pictures.draws(seed)
    )
    drawn, given = np.asarray(values[rows], dtype=np.float64), np.asarray(data[rows], dtype=np.float64)
    mean = np.abs(drawn).mean(axis=0) if mean_abs is None else np.asarray(mean_abs)
    shown = np.argsort(-mean, kind="stable")[:top]
    low, high, cut = pictures.limits(drawn[:, shown])
    marks: list[dict[str, Any]] = []
    for place, j in enumerate(shown.tolist()):
        at = drawn[:, j].clip(low, high)
        x = given[:, j]
        level = np.full(len(x), np.nan) if j in categories else pictures.level(x)
        kinds = np.where(~np.isfinite(x), "missing", "category" if j in categories else "number")
        for i, offset in enumerate(pictures.swarm(at, low, high)):
            mark = {"x": pictures.short(at[i]), "y": round(place + 0.5 + offset, 3), "r": int(rows[i])}
            mark |= {"d": pictures.told(x[i], j, categories)}
            mark |= {"c": round(float(level[i]), 2)} if np.isfinite(level[i]) else {"k": str(kinds[i])}
            marks.append(mark if low <= drawn[i, j] <= high else {**mark, "v": figure(drawn[i, j])})
    present = {mark.get("k", "number") for mark in marks}
    first = str(feature_names[shown[0]])
    caption = f"A dot is a row{pictures.of_all(rows, values, seed)}, right of zero where the feature raises the output."
    if "missing" in present:
        caption += " Hollow: the value is missing."
    if "category" in present:
        caption += " Grey: categories, which have no order."
    caption += pictures.cut_tails(cut, drawn[:, shown].size)
    title = f"{first} moves the output most: {figure(mean[shown[0]])}{of_unit(unit)} on average"
    dots = [
        pictures.dots(
            "number",
            {"filled": True},
            {"color": pictures.ramp("value of the feature", [0, 1], ["low", "high"])},
        ),
        pictures.dots("category", {"filled": True, "color": GREY}, {}),
        pictures.dots("missing", {"filled": False, "color": GREY, "strokeWidth": 1}, {}),
    ]
    names = [pictures.name_of(feature_names[j]) for j in shown]
    return pictures.spec(
        title, caption,
        f"Beeswarm of SHAP values of {len(rows)} rows for {len(shown)} features. {title}.",
        height=max(60, 30 * len(shown)),
        data={"values": marks},
        transform=[
            {"calculate": f"{json.dumps([str(feature_names[j]) for j in shown])}[floor(datum.y)]", "as": "f"},
            {"calculate": "datum.v || format(datum.x, '.3~g')", "as": "v"},
            {"calculate": "datum.k || 'number'", "as": "k"},
        ],
        encoding={
            "x": {"field": "x", "type": "quantitative", "title": f"SHAP value, in {unit}", "scale": {"domain": [low, high]}},
            "y": pictures.lanes(names),
            "tooltip": [{"field": "f", "title": "feature"}, {"field": "d", "title": "its value"},
                        {"field": "v", "title": "SHAP value"}, {"field": "r", "title": "row"}],
        },
        layer=[pictures.zero(), *(d for d, k in zip(dots, ("number", "category", "missing"), strict=True) if k in present)],
    )  # fmt: skip


def bars(
    mean_abs: Sequence[float] | NDArray[Any],
    low: Sequence[float] | NDArray[Any],
    high: Sequence[float] | NDArray[Any],
    feature_names: Sequence[str],
    unit: str,
    top: int = 12,
) -> Spec:
    """Global importance: mean |value| of the `top` features, with their 95 % bootstrap intervals. All: (features,)."""
    mean, low, high = (np.asarray(a, dtype=np.float64) for a in (mean_abs, low, high))
    shown = np.argsort(-mean, kind="stable")[:top]
    leading = shown[:3]
    share = mean[leading].sum() / mean.sum() if mean.sum() else 0.0
    names = [str(feature_names[j]) for j in leading]
    who = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    title = (
        f"{who} {'carry' if len(names) > 1 else 'carries'} {100 * share:.0f} % of all movement of the output"
    )
    rows = [
        {"f": str(feature_names[j]), "zero": 0, "y": place + 0.5, "top": place + 0.18, "bottom": place + 0.82, "m": pictures.short(mean[j]),
         "lo": pictures.short(low[j]), "hi": pictures.short(high[j]), "t": figure(mean[j]), "i": f"{figure(low[j])} to {figure(high[j])}"}
        for place, j in enumerate(shown.tolist())
    ]  # fmt: skip
    rest = len(mean) - len(shown)
    caption = "Mean of |SHAP value| over all rows; the line is the 95 % bootstrap interval."
    if rest:
        part = mean.sum() - mean[shown].sum()
        caption += f" {rest:,} more features move it by {figure(part)} together."
    x = {"type": "quantitative", "title": f"mean |SHAP value|, in {unit}",
         "scale": {"domain": [0, pictures.short(1.18 * high[shown].max(initial=0.0)) or 1]}}  # fmt: skip
    tip = [
        {"field": "f", "title": "feature"},
        {"field": "t", "title": "mean |value|"},
        {"field": "i", "title": "95 % interval"},
    ]
    return pictures.spec(
        title, caption,
        "Bars of mean absolute SHAP values: " + ", ".join(f"{row['f']} {row['t']}" for row in rows),
        height=max(60, 28 * len(rows)),
        data={"values": rows},
        encoding={"tooltip": tip},
        layer=[
            {"mark": {"type": "rect", "color": BLUE},
             "encoding": {"x": {"field": "zero", **x}, "x2": {"field": "m"}, "y": {**pictures.lanes([pictures.name_of(r["f"]) for r in rows]), "field": "top"},
                          "y2": {"field": "bottom"}}},
            {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {"x": {"field": "lo", **x}, "x2": {"field": "hi"}, "y": {"field": "y", "type": "quantitative"}}},
            {"mark": {"type": "text", "align": "left", "dx": 6}, "encoding": {"x": {"field": "hi", **x}, "y": {"field": "y", "type": "quantitative"}, "text": {"field": "t"}}},
        ],
    )  # fmt: skip


# -- one row -------------------------------------------------------------------------------------------------------
def waterfall(
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
    """From the base value to one row's prediction, the strongest feature first. values, data: (features,).

    What base + values lack to the prediction is drawn as a step of its own when it can be seen.
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(-np.abs(values), kind="stable")
    first, others = order[:top], order[top:]
    steps = [
        (
            f"{pictures.name_of(feature_names[j])} = {pictures.told(data[j], j, categories or {})}",
            float(values[j]),
        )
        for j in first.tolist()
    ]
    if len(others):
        steps.append((f"{len(others):,} other features", float(values[others].sum())))
    missing = float(prediction - base - values.sum())
    span = max(abs(float(prediction) - base), float(np.abs(values).max(initial=0.0)), 1e-300)
    if abs(missing) > 1e-3 * span:
        steps.append(("not explained", missing))
    ends = base + np.concatenate(([0.0], np.cumsum([step for _, step in steps])))
    low, high = float(ends.min()), float(ends.max())
    room = 0.22 * ((high - low) or 1.0)
    rows = [
        {"label": label, "top": i + 1.16, "y": i + 1.5, "bottom": i + 1.84, "from": pictures.short(ends[i], 7), "to": pictures.short(ends[i + 1], 7),
         "right": pictures.short(max(ends[i], ends[i + 1]), 7), "way": "raises" if step > 0 else "lowers", "t": ("+" if step > 0 else "−") + figure(abs(step)),
         "down": i + 2.16}
        for i, (label, step) in enumerate(steps)
    ]  # fmt: skip
    marks = [{"y": 0.5, "at": pictures.short(base, 7), "t": figure(base), "top": 0.16, "bottom": 1.16},
             {"y": len(steps) + 1.5, "at": pictures.short(prediction, 7), "t": figure(prediction), "top": len(steps) + 1.16, "bottom": len(steps) + 1.84}]  # fmt: skip
    names = ["base value", *(label for label, _ in steps), "prediction"]
    strongest = f"mostly by {steps[0][0]} ({rows[0]['t']})" if steps else "no feature moves it"
    title = f"{row_name}: {figure(prediction)}{of_unit(unit)}, {strongest}"
    x = {
        "type": "quantitative",
        "title": f"model output, in {unit}",
        "scale": {
            "domain": [pictures.short(low - 0.04 * (high - low), 7), pictures.short(high + room, 7)],
            "zero": False,
        },
    }
    colour = {"field": "way", "type": "nominal", "title": None, "scale": {"domain": ["raises", "lowers"], "range": [RED, BLUE]},
              "legend": {"orient": "top", "offset": 10}}  # fmt: skip
    y = {"type": "quantitative"}
    return pictures.spec(
        title, "From the base value (what is expected before anything is known) to the prediction, the strongest feature first.",
        f"Waterfall from {figure(base)} to {figure(prediction)}: " + ", ".join(f"{r['label']} {r['t']}" for r in rows),
        height=28 * len(names),
        data={"values": rows},
        layer=[
            {"mark": {"type": "rect", "cornerRadius": 1}, "encoding": {
                "x": {"field": "from", **x}, "x2": {"field": "to"}, "y": {**pictures.lanes(names), "field": "top"}, "y2": {"field": "bottom"},
                "color": colour, "tooltip": [{"field": "label", "title": "feature"}, {"field": "t", "title": "SHAP value"}]}},
            {"mark": {"type": "rule", "strokeWidth": 0.8}, "encoding": {"x": {"field": "to", **x}, "y": {"field": "bottom", **y}, "y2": {"field": "down"}}},
            {"mark": {"type": "text", "align": "left", "dx": 6}, "encoding": {"x": {"field": "right", **x}, "y": {"field": "y", **y}, "text": {"field": "t"}}},
            {"data": {"values": marks}, "mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {"x": {"field": "at", **x}, "y": {"field": "top", **y}, "y2": {"field": "bottom"}}},
            {"data": {"values": marks}, "mark": {"type": "text", "align": "left", "dx": 6, "fontWeight": 600},
             "encoding": {"x": {"field": "at", **x}, "y": {"field": "y", **y}, "text": {"field": "t"}}},
        ],
    )  # fmt: skip


# -- of an answer --------------------------------------------------------------------------------------------------
def all_charts(answer: Any) -> dict[str, Spec]:
    """Of an `Explanation`'s first output: beeswarm, bars, the waterfall of the row with the largest prediction, and
    dependence of the three strongest features. Nothing without rows."""
    if not len(answer):
        return {}
    table = answer.importance.to_pylist()
    strongest = [row["feature"] for row in table if row["output"] == answer.output_names[0]][:3]
    highest = int(np.asarray(answer.predictions[:, 0]).argmax())
    charts = {kind: _draw(answer, kind) for kind in ("beeswarm", "bars")}
    charts["waterfall"] = _draw(answer, "waterfall", row=highest)
    charts |= {f"dependence_{n}": _draw(answer, "dependence", feature=f) for n, f in enumerate(strongest, 1)}
    return charts


def plot(answer: Any, kind: str = "beeswarm", **options: Any) -> Any:
    """An Altair chart of an `Explanation`: beeswarm, bars, waterfall(row=0), dependence(feature=...); `output=`, `top=`."""
    try:
        import altair
    except ImportError as e:
        raise MissingExtra("altair", "report", "plot()") from e
    if not len(answer):
        raise WrongQuestion("There is nothing to draw: the explanation has no rows.")
    spec = {**_draw(answer, kind, **options), "width": 640}
    return altair.Chart.from_dict(spec, validate=False)


def _draw(answer: Any, kind: str, output: str | int = 0, top: int | None = None, **options: Any) -> Spec:
    k = answer.output_names.index(output) if output in answer.output_names else output
    values, names = answer.of(output), answer.feature_names
    unit = answer.unit if len(answer.output_names) == 1 else f"{answer.unit} of {answer.output_names[k]}"
    top = answer.top if top is None else top
    shared = {"categories": answer.categories, **options}
    table = {
        row["feature"]: row
        for row in answer.importance.to_pylist()
        if row["output"] == answer.output_names[k]
    }
    mean, low, high = (
        np.array([table[name][column] for name in names]) for column in ("mean_abs", "low", "high")
    )
    if kind == "beeswarm":
        return beeswarm(
            values, answer.data, names, unit, top, mean_abs=mean, **{"seed": answer.seed, **shared}
        )
    if kind == "bars":
        return bars(mean, low, high, names, unit, top, **options)
    if kind == "waterfall":
        row = int(shared.pop("row", 0))
        if not -len(answer) <= row < len(answer):
            raise WrongQuestion(f"There is no row {row}: the explanation has rows 0 to {len(answer) - 1}.")
        prediction = float(answer.predictions[row, k])
        named = {"row_name": f"Row {row % len(answer)}", **shared}
        return waterfall(
            float(answer.base_values[k]), values[row], answer.data[row], names, prediction, unit, top, **named
        )
    if kind == "dependence":
        feature = shared.pop("feature", max(table, key=lambda name: table[name]["mean_abs"]))
        return dependence(feature, values, answer.data, names, unit, **{"seed": answer.seed, **shared})
    raise WrongQuestion(f"There is no picture {kind!r}; there are beeswarm, bars, waterfall and dependence.")
