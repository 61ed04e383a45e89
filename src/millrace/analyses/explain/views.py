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

from millrace.analyses.explain import panels, pictures
from millrace.analyses.explain.dependence import dependence
from millrace.analyses.explain.importance import directions, figure, importance, of_unit, sample, sentences
from millrace.analyses.explain.pictures import GREY, LIGHT_BLUE, RED, Categories, Spec
from millrace.run.errors import MissingExtra, WrongQuestion

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "all_charts", "bars", "beeswarm", "dependence", "directions", "importance", "plot", "sentences", "waterfall",
]  # fmt: skip

SWARM_MARKS = 4_000
OF_ROWS = ("beeswarm", "dependence", "heatmap", "decision")
KINDS = ("beeswarm", "bars", "waterfall", "force", "dependence", "heatmap", "decision")


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
    rows = sample(len(values), max(50, SWARM_MARKS // max(1, min(top, values.shape[1]))), pictures.draws(seed))
    drawn, given = np.asarray(values[rows], dtype=np.float64), np.asarray(data[rows], dtype=np.float64)
    mean = np.abs(drawn).mean(axis=0) if mean_abs is None else np.asarray(mean_abs)
    shown = np.argsort(-mean, kind="stable")[:top]
    low, high, cut = pictures.limits(drawn[:, shown])
    marks: list[dict[str, Any]] = []
    for place, j in enumerate(shown.tolist()):
        at = drawn[:, j].clip(low, high)
        own = given[:, j]
        level = np.full(len(own), np.nan) if j in categories else pictures.level(own)
        kinds = np.where(~np.isfinite(own), "missing", "category" if j in categories else "number")
        for i, offset in enumerate(pictures.swarm(at, low, high)):
            mark: dict[str, Any] = {
                "x": min(max(pictures.short(at[i]), low), high),
                "y": round(place + 0.5 + offset, 3),
                "r": int(rows[i]),
            }
            mark |= {"d": pictures.told(own[i], j, categories)}
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
    looks: dict[str, tuple[Spec, Spec]] = {
        "number": (
            {"filled": True},
            {"color": pictures.ramp("value of the feature", [0, 1], ["low", "high"])},
        ),
        "category": ({"filled": True, "color": GREY}, {}),
        "missing": ({"filled": False, "color": GREY, "strokeWidth": 1}, {}),
    }
    dots = [
        {
            **pictures.layer("point", colour, size=20, opacity=0.85, **look),
            "transform": [{"filter": f"datum.k == '{k}'"}],
        }
        for k, (look, colour) in looks.items()
        if k in present
    ]
    names = [str(feature_names[j]) for j in shown]
    tip = pictures.tooltip(("f", "feature"), ("d", "its value"), ("v", "SHAP value"), ("r", "row"))
    x = pictures.along("x", title=f"SHAP value, in {unit}", scale={"domain": [low, high]}, axis={"tickCount": 8})
    return pictures.spec(
        title,
        caption,
        f"Beeswarm of SHAP values of {len(rows)} rows for {len(shown)} features. {title}.",
        height=max(60, 30 * len(shown)),
        data={"values": marks},
        transform=[
            {"calculate": f"{json.dumps(names)}[floor(datum.y)]", "as": "f"},
            {"calculate": "datum.v || format(datum.x, '.3~g')", "as": "v"},
            {"calculate": "datum.k || 'number'", "as": "k"},
        ],
        encoding={"x": x, "y": pictures.lanes(names), "tooltip": tip},
        layer=[pictures.zero(), *dots],
    )


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
    title = f"{who} {'carry' if len(names) > 1 else 'carries'} {100 * share:.0f} % of all movement of the output"
    rows: list[dict[str, Any]] = [
        {"f": str(feature_names[j]), "t": figure(mean[j]), "i": f"{figure(low[j])} to {figure(high[j])}", "zero": 0,
         "top": place + 0.18, "y": place + 0.5, "bottom": place + 0.82,
         "m": pictures.short(mean[j]), "lo": pictures.short(low[j]), "hi": pictures.short(high[j])}
        for place, j in enumerate(shown.tolist())
    ]  # fmt: skip
    rest = len(mean) - len(shown)
    caption = "Mean of |SHAP value| over all rows; the line is the 95 % bootstrap interval."
    if rest:
        part = mean.sum() - mean[shown].sum()
        caption += f" {rest:,} more feature{'s move' if rest > 1 else ' moves'} it by {figure(part)}{' together' * (rest > 1)}."
    widest = pictures.short(1.18 * high[shown].max(initial=0.0)) or 1
    on = {
        "title": f"mean |SHAP value|, in {unit}",
        "scale": {"domain": [0, widest]},
        "axis": {"tickCount": 6},
    }
    x = {field: pictures.along(field, **on) for field in ("zero", "lo", "hi")}
    y = {field: pictures.lanes([row["f"] for row in rows], field) for field in ("top", "y")}
    tip = pictures.tooltip(("f", "feature"), ("t", "mean |value|"), ("i", "95 % interval"))
    bar = {"x": x["zero"], "x2": {"field": "m"}, "y": y["top"], "y2": {"field": "bottom"}}
    return pictures.spec(
        title,
        caption,
        "Bars of mean absolute SHAP values: " + ", ".join(f"{row['f']} {row['t']}" for row in rows),
        height=max(60, 28 * len(rows)),
        data={"values": rows},
        encoding={"tooltip": tip},
        layer=[
            pictures.layer("rect", bar, color=LIGHT_BLUE),
            pictures.layer("rule", {"x": x["lo"], "x2": {"field": "hi"}, "y": y["y"]}, strokeWidth=1.5),
            pictures.label(x["hi"], y["y"]),
        ],
    )


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
    told = [pictures.told(data[j], j, categories or {}) for j in first.tolist()]
    steps = [
        (f"{pictures.name_of(feature_names[j], 18)} = {is_}", float(values[j]))
        for j, is_ in zip(first.tolist(), told, strict=True)
    ]
    if len(others):
        steps.append((f"{len(others):,} other features", float(values[others].sum())))
    missing = float(prediction - base - values.sum())
    span = max(abs(float(prediction) - base), float(np.abs(values).max(initial=0.0)))
    if abs(missing) > 1e-3 * span + 1e-12 * max(abs(base), abs(prediction)):
        steps.append(("not explained", missing))
    ends = base + np.concatenate(([0.0], np.cumsum([step for _, step in steps])))
    low, high = float(ends.min()), float(ends.max())
    room = 0.22 * ((high - low) or 1.0)
    rows = []
    for i, (label, step) in enumerate(steps):
        at = {"from": ends[i], "to": ends[i + 1], "right": max(ends[i], ends[i + 1])}
        row = {
            "label": label,
            "t": pictures.signed(step, plus=True),
            "way": "raises" if step > 0 else "lowers",
        }
        lane = {"top": i + 1.16, "y": i + 1.5, "bottom": i + 1.84, "down": i + 2.16}
        rows.append({**row, **lane, **{k: pictures.short(v, 7) for k, v in at.items()}})
    last = len(steps) + 1
    marks = [
        {"at": pictures.short(base, 7), "t": pictures.signed(base), "top": 0.16, "y": 0.5, "bottom": 1.16},
        {"at": pictures.short(prediction, 7), "t": pictures.signed(prediction),
         "top": last + 0.16, "y": last + 0.5, "bottom": last + 0.84},
    ]  # fmt: skip
    names = ["base value", *(label for label, _ in steps), "prediction"]
    strongest = f"mostly by {feature_names[first[0]]} = {told[0]} ({rows[0]['t']})" if told else "no feature moves it"
    title = f"{row_name}: {pictures.signed(prediction)}{of_unit(unit)}, {strongest}"
    domain = [pictures.short(low - 0.04 * (high - low), 7), pictures.short(high + room, 7)]
    on = {
        "title": f"model output, in {unit}",
        "scale": {"domain": domain, "zero": False},
        "axis": {"tickCount": 6},
    }
    x = {field: pictures.along(field, **on) for field in ("from", "to", "right", "at")}
    way = {"field": "way", "type": "nominal", "title": None, "legend": {"orient": "top", "offset": 10},
           "scale": {"domain": ["raises", "lowers"], "range": [RED, pictures.BLUE]}}  # fmt: skip
    y = {field: pictures.lanes(names, field) for field in ("top", "y", "bottom")}
    bar = {"x": x["from"], "x2": {"field": "to"}, "y": y["top"], "y2": {"field": "bottom"}, "color": way}
    tip = pictures.tooltip(("label", "feature"), ("t", "SHAP value"))
    joint = {"x": x["to"], "y": y["bottom"], "y2": {"field": "down"}}
    end = {"x": x["at"], "y": y["top"], "y2": {"field": "bottom"}}
    return pictures.spec(
        title,
        "From the base value (what is expected before anything is known) to the prediction, the strongest feature first.",
        f"Waterfall from {figure(base)} to {figure(prediction)}: " + ", ".join(f"{r['label']} {r['t']}" for r in rows),
        height=28 * len(names),
        data={"values": rows},
        layer=[
            pictures.layer("rect", {**bar, "tooltip": tip}, cornerRadius=1),
            pictures.layer("rule", joint, strokeWidth=0.8),
            pictures.label(x["right"], y["y"]),
            {"data": {"values": marks}, **pictures.layer("rule", end, strokeWidth=2)},
            {"data": {"values": marks}, **pictures.label(x["at"], y["y"], fontWeight=600)},
        ],
    )


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
    """An Altair chart of an `Explanation`: beeswarm, bars, waterfall(row=0), force(row=0),
    dependence(feature=...), heatmap, decision; `output=`, `top=`."""
    try:
        import altair
    except ImportError as e:
        raise MissingExtra("altair", "report", "plot()") from e
    if not len(answer):
        raise WrongQuestion("There is nothing to draw: the explanation has no rows.")
    spec = {**_draw(answer, kind, **options), "width": 640}
    # Altair makes an object of every mark of a spec, which takes seconds; its own data object it takes as it is.
    chart = altair.LayerChart.from_dict({**spec, "data": {"values": []}}, validate=False)
    chart.data = altair.InlineData(values=spec["data"]["values"])
    return chart


def _draw(answer: Any, kind: str, output: str | int = 0, top: int | None = None, **options: Any) -> Spec:
    chart = _drawn(answer, kind, output, top, **options)
    if answer.drawn_from and kind in OF_ROWS:
        chart["title"]["subtitle"].append(
            f"Its rows are {len(answer):,} of {answer.drawn_from:,}, drawn with seed {answer.seed}."
        )
    return chart


def _drawn(answer: Any, kind: str, output: str | int, top: int | None, **options: Any) -> Spec:
    k = answer.output_names.index(output) if output in answer.output_names else output
    values, names = answer.of(output), answer.feature_names
    unit = answer.unit if len(answer.output_names) == 1 else f"{answer.unit} of {answer.output_names[k]}"
    top = answer.top if top is None else top
    shared = {"categories": answer.categories, **options}
    table = {row["feature"]: row for row in answer.importance.to_pylist() if row["output"] == answer.output_names[k]}
    mean, low, high = (np.array([table[name][column] for name in names]) for column in ("mean_abs", "low", "high"))
    if kind == "beeswarm":
        return beeswarm(values, answer.data, names, unit, top, mean_abs=mean, **{"seed": answer.seed, **shared})
    if kind == "bars":
        return bars(mean, low, high, names, unit, top, **options)
    if kind == "waterfall":
        row = int(shared.pop("row", 0))
        if not -len(answer) <= row < len(answer):
            raise WrongQuestion(f"There is no row {row}: the explanation has rows 0 to {len(answer) - 1}.")
        prediction = float(answer.predictions[row, k])
        named = {"row_name": _name(answer, row), **shared}
        return waterfall(
            float(answer.base_values[k]), values[row], answer.data[row], names, prediction, unit, top, **named
        )
    if kind == "force":
        row = int(shared.pop("row", 0))
        if not -len(answer) <= row < len(answer):
            raise WrongQuestion(f"There is no row {row}: the explanation has rows 0 to {len(answer) - 1}.")
        named = {"row_name": _name(answer, row), **shared}
        return panels.force(
            float(answer.base_values[k]), values[row], answer.data[row], names, float(answer.predictions[row, k]), unit, top,
            **named,
        )  # fmt: skip
    if kind == "heatmap":
        return panels.heatmap(values, names, answer.predictions[:, k], unit, top, **{"seed": answer.seed, **options})
    if kind == "decision":
        given = (float(answer.base_values[k]), values, names, answer.predictions[:, k])
        return panels.decision(*given, unit, top, **{"seed": answer.seed, **options})
    if kind == "dependence":
        feature = shared.pop("feature", max(table, key=lambda name: table[name]["mean_abs"]))
        return dependence(feature, values, answer.data, names, unit, **{"seed": answer.seed, **shared})
    raise WrongQuestion(f"There is no picture {kind!r}; there are {', '.join(KINDS)}.")


def _name(answer: Any, row: int) -> str:
    return f"{'Drawn row' if answer.drawn_from else 'Row'} {row % len(answer)}"
