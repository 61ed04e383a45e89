"""Pictures of a calibration as Vega-Lite specs (plain dicts): loss history, parameter slices, pair contours, importance of the
parameters, bands of the targets over what was observed.

Each says its finding in the title, how it is read and what was left out in the caption, and has a `description` for those who
cannot see it. A band is the ensemble of good trials, not the best alone. Computes nothing that is not in a picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.calibrate import pictures
from millrace.analyses.calibrate.answer import Calibration
from millrace.analyses.calibrate.pictures import BLUE, LIGHT_BLUE, ORANGE, RED, Spec, counted, figure, short

Array = NDArray[np.float64]

PAIRS = 3
GRID, STEPS, REACH, NEIGHBOURS = 32, 7, 0.15, 8
SHADES = ["#123f6b", "#1f6099", "#3f86c2", "#74aad6", "#a5c8e4", "#cfe0ee", "#e9eef2"]
PANEL = 290


def charts(answer: Calibration) -> dict[str, Spec]:
    """By name: `history`, `slices`, `contour_<a>_<b>` of the pairs that matter most, `importance`, `band_<target>`."""
    made = {"history": history(answer)}
    free = _free(answer)
    if free and np.isfinite(_losses(answer)).any():
        made["slices"] = slices(answer)
        for a, b in _pairs(answer)[:PAIRS]:
            made[f"contour_{a}_{b}"] = contour(answer, a, b)
    if len(answer.importance) > 1:
        made["importance"] = importance(answer)
    for name in answer.predictive:
        made[f"band_{name}"] = band(answer, name)
    return made


# -- trials --------------------------------------------------------------------------------------------------------
def history(answer: Calibration) -> Spec:
    """A mark for each trial by its loss in sample, the best so far as a line, the finalists on fresh seeds."""
    losses, best = _losses(answer), answer.best
    again = _again(answer)
    every = np.concatenate([losses, [row[c] for row in again for c in ("loss", "low", "high")]])
    edge, shown = pictures.reach(every), pictures.thinned(losses)
    last = max([len(losses), *(row["trial"] + 1 for row in again)])
    x = pictures.along("trial", "trial", scale={"nice": False, "domain": [-1, last]}, axis={"tickMinStep": 1})
    y = {f: pictures.along(f, **pictures.loss_axis(every)) for f in ("loss", "low", "best")}
    rows = [_row(answer, i, edge) for i in shown.tolist() if np.isfinite(losses[i])]
    state = pictures.by_state([row["state"] for row in rows])
    tip = pictures.tooltip(("trial", "trial"), ("tip", "loss"), ("state", "state"), ("replicates", "replicates"))
    line = _best_so_far(answer, losses, edge)
    failed = [{"trial": int(answer.table["trial"][i])} for i in shown.tolist() if not np.isfinite(losses[i])]
    layers = [
        pictures.layer("point", {"x": x, "y": y["loss"], **state, "tooltip": tip}, rows, filled=True, size=34, opacity=0.75),
        pictures.layer("line", {"x": x, "y": y["best"]}, line, color=BLUE, interpolate="step-after", strokeWidth=1.5),
        *(_finalists(x, y, again, edge) if again else []),
    ]  # fmt: skip
    if failed:
        place = {"x": x, "y": {"value": 4}}
        layers.append(pictures.layer("tick", place, failed, orient="vertical", color=RED, thickness=1.5))
    caption = "Losses are means over a trial's replicates; the line is the best complete trial so far, in sample."
    caption += f" Orange: finalists on fresh seeds, with {100 * answer.level:g} % intervals." if again else ""
    caption += f" Red ticks at the top: {counted(len(failed), 'failed trial')}." if failed else ""
    caption += _beyond(losses[shown], edge) + pictures.of_all(len(shown), len(losses))
    told = f"Loss of {counted(len(losses), 'trial')}. Best is trial {best.trial} with {figure(best.loss)}."
    return pictures.spec(_headline(answer), caption, told, height=280, layer=layers)


def _again(answer: Calibration) -> list[Spec]:
    """The finalists' rows."""
    columns = [list(answer.finish.get(c, ())) for c in ("trial", "fresh_loss", "fresh_low", "fresh_high")]
    return [
        {"trial": int(t), "low": short(low), "high": short(high), "loss": short(v), "tip": figure(v)}
        for t, v, low, high in zip(*columns, strict=True)
        if all(map(math.isfinite, (v, low, high)))
    ]


def _finalists(x: Spec, y: Mapping[str, Spec], again: list[Spec], edge: float) -> list[Spec]:
    inside = [{**row, **{c: min(row[c], edge) for c in ("loss", "low", "high")}} for row in again]
    bars = {"x": x, "y": y["low"], "y2": {"field": "high"}}
    dots = {"x": x, "y": y["loss"], "tooltip": pictures.tooltip(("trial", "trial"), ("tip", "loss on fresh seeds"))}
    look = {"shape": "diamond", "filled": True, "size": 80, "opacity": 1}
    return [
        pictures.layer("rule", bars, inside, color=ORANGE, strokeWidth=1.5),
        pictures.layer("point", dots, inside, color=ORANGE, **look),
    ]


def _headline(answer: Calibration) -> str:
    best = answer.best
    if not best.fresh:
        return f"Trial {best.trial} fits best: loss {figure(best.loss)} in sample, on no fresh seeds"
    said = f"Trial {best.trial} fits best: loss {figure(best.loss)} on {counted(best.fresh, 'fresh seed')}"
    if not math.isfinite(best.in_sample):
        return said
    said += f"; in sample {figure(best.in_sample)}"
    return f"{said}, {best.in_sample / best.loss:.2f} of it" if best.loss > 0 and best.in_sample > 0 else said


def _beyond(losses: Array, edge: float) -> str:
    n = int((losses > edge).sum())
    return f" {counted(n, 'trial')} beyond the axis stand{'s' if n == 1 else ''} at its edge." if n else ""


def _best_so_far(answer: Calibration, losses: Array, edge: float) -> list[Spec]:
    """Steps of the running minimum over complete trials, and its end."""
    whole = np.array([s == "complete" for s in answer.table["state"]]) & np.isfinite(losses)
    running = np.minimum.accumulate(np.where(whole, losses, np.inf))
    found = [i for i in range(len(losses)) if np.isfinite(running[i]) and (i == 0 or running[i] < running[i - 1])]
    if found and found[-1] != len(losses) - 1:
        found.append(len(losses) - 1)
    return [{"trial": int(answer.table["trial"][i]), "best": short(min(running[i], edge))} for i in found]


def slices(answer: Calibration) -> Spec:
    """A panel for each free parameter: loss of the trials along it, its interval shaded, the best marked."""
    losses = _losses(answer)
    shown = [i for i in pictures.thinned(losses, 800).tolist() if np.isfinite(losses[i])]
    free, edge = _free(answer), pictures.reach(losses[shown])
    y = pictures.along("loss", **pictures.loss_axis(losses[shown]))
    panels = [_slice(answer, name, shown, y, edge) for name in free]
    told = [f"{n} {figure(a)} to {figure(b)}" for n, (a, b) in answer.intervals.items()]
    title = f"Best: {', '.join(f'{n} {figure(answer.best.params[n])}' for n in free)}"
    caption = "A mark is a trial. The line is the best."
    if told:
        caption += f" Shaded: {100 * answer.level:g} % intervals by synthetic likelihood: {', '.join(told)}."
    caption += _beyond(losses[shown], edge) + pictures.of_all(len(shown), int(np.isfinite(losses).sum()))
    return pictures.spec(title, caption, f"Loss along {', '.join(free)}. {title}.", concat=panels,
                         columns=2, spacing=24)  # fmt: skip


def _slice(answer: Calibration, name: str, shown: list[int], y: Spec, edge: float) -> Spec:
    column = answer.table[f"param_{name}"]
    axis = pictures.parameter_axis(answer.parameters[name], [column[i] for i in shown])
    numeric = axis["type"] == "quantitative"
    rows = [
        {**_row(answer, i, edge), "at": short(column[i], 6) if numeric else pictures.name_of(column[i])} for i in shown
    ]
    x = {f: {"field": f, "title": name, **axis} for f in ("at", "low")}
    tip = pictures.tooltip(("trial", "trial"), ("at", name), ("tip", "loss"), ("replicates", "replicates"))
    state = pictures.by_state([row["state"] for row in rows])
    best = answer.best.params[name]
    layers = []
    if name in answer.intervals:
        low, high = answer.intervals[name]
        span = [{"low": short(low, 6), "high": short(high, 6)}]
        layers.append(
            pictures.layer("rect", {"x": x["low"], "x2": {"field": "high"}}, span, color=LIGHT_BLUE, opacity=0.22)
        )
    dots = {"x": x["at"], "y": y, **state, "tooltip": tip}
    layers.append(pictures.layer("point", dots, rows, filled=True, size=26, opacity=0.7))
    mark = [{"at": short(best, 6) if numeric else pictures.name_of(best)}]
    layers.append(pictures.layer("rule", {"x": x["at"]}, mark, color=BLUE, strokeWidth=1.5))
    return {"width": PANEL, "height": 190, "layer": layers}


# -- pairs ---------------------------------------------------------------------------------------------------------
def contour(answer: Calibration, a: str, b: str) -> Spec:
    """Steps of the loss over two parameters, smoothed over the trials around: a mean of log losses (of losses where some are not
    above 0) with bell weights, blank where no trial is near. The other parameters are averaged as the trials had them."""
    losses = _losses(answer)
    known = np.isfinite(losses)
    logarithmic = bool((losses[known] > 0).all())
    scaled = np.log(losses[known]) if logarithmic else losses[known]
    places = np.stack([_unit(answer, n)[known] for n in (a, b)], axis=1)
    axes = [pictures.parameter_axis(answer.parameters[n], list(answer.table[f"param_{n}"])) for n in (a, b)]
    x = {f: {"field": f, "title": a, **axes[0]} for f in ("x", "at")}
    y = {f: {"field": f, "title": b, **axes[1]} for f in ("y", "to")}
    on, best = {"x": x["at"], "y": y["to"]}, answer.best.params
    cross = {"shape": "cross", "size": 170, "filled": True, "opacity": 1, "stroke": "white", "strokeWidth": 1}
    layers = [
        _steps(x["x"], y["y"], _cells(answer, a, b, places, scaled, logarithmic)),
        pictures.layer("point", on, _dots(answer, a, b, known), size=9, filled=True, color="#20262e", opacity=0.55),
        pictures.layer("point", on, [{"at": short(best[a], 6), "to": short(best[b], 6)}], color=ORANGE, **cross),
        *_box(answer, a, b, x["at"], y["to"]),
    ]
    caption = "Seven steps of the trials' losses, of equal area; each place is a mean over its eight nearest trials."
    caption += " Blank: none is near. Cross: the best."
    caption += f" Dashed: {100 * answer.level:g} % intervals." if len(layers) > 3 else ""
    title = _ridge(answer, a, b, places, scaled)
    return pictures.spec(title, caption, f"Loss over {a} and {b}. {title}.", height=360, layer=layers)


def _cells(answer: Calibration, a: str, b: str, places: Array, scaled: Array, logarithmic: bool) -> list[Spec]:
    level, near = _smoothed(places, scaled)
    edges = np.quantile(level[near], np.linspace(0, 1, STEPS + 1)[1:-1])
    x, y = (_native(answer, n, np.linspace(0, 1, GRID + 1)) for n in (a, b))
    return [
        {"x": short(x[i]), "x2": short(x[i + 1]), "y": short(y[j]), "y2": short(y[j + 1]),
         "step": int(np.searchsorted(edges, level[i, j])), "tip": figure(np.exp(level[i, j]) if logarithmic else level[i, j])}
        for i, j in np.argwhere(near).tolist()
    ]  # fmt: skip


def _steps(x: Spec, y: Spec, cells: list[Spec]) -> Spec:
    named = f"datum.value == 0 ? 'low' : datum.value == {STEPS - 1} ? 'high' : ''"
    colour = {"field": "step", "type": "ordinal", "title": "loss", "scale": {"domain": list(range(STEPS)), "range": SHADES},
              "legend": {"orient": "top", "labelExpr": named, "columnPadding": 4}}  # fmt: skip
    tip = pictures.tooltip(("tip", "loss, smoothed"))
    at = {"x": x, "x2": {"field": "x2"}, "y": y, "y2": {"field": "y2"}, "color": colour, "tooltip": tip}
    return pictures.layer("rect", at, cells, strokeWidth=0)


def _smoothed(places: Array, values: Array) -> tuple[Array, NDArray[np.bool_]]:
    """(GRID, GRID) weighted means at the cells' middles, the bell as wide as the distance to the eighth nearest trial, and which
    cells have a trial within REACH."""
    middles = (np.arange(GRID) + 0.5) / GRID
    apart = [np.square(middles[:, None] - places[None, :, k]) for k in (0, 1)]
    distance = apart[0][:, None, :] + apart[1][None, :, :]
    ordered = np.sort(distance, axis=2)
    width = np.clip(ordered[:, :, min(NEIGHBOURS, len(values)) - 1], 0.015**2, 0.15**2)
    weights = np.exp(-(distance - ordered[:, :, :1]) / (2 * width[:, :, None]))
    return (weights @ values) / weights.sum(axis=2), ordered[:, :, 0] <= REACH**2


def _ridge(answer: Calibration, a: str, b: str, places: Array, values: Array) -> str:
    """Whether good values of one go with values of the other: the rank correlation among the best fifth."""
    best = np.argsort(values, kind="stable")[: max(8, len(values) // 5)]
    said = f"{a} {figure(answer.best.params[a])} and {b} {figure(answer.best.params[b])} fit best"
    if len(best) < 8 or np.ptp(places[best], axis=0).min() == 0:
        return said
    ranks = np.argsort(np.argsort(places[best], axis=0, kind="stable"), axis=0, kind="stable").astype(float)
    r = float(np.corrcoef(ranks.T)[0, 1])
    how = "are not told apart well: they rise together" if r > 0.6 else "make up for each other" if r < -0.6 else ""
    return f"{said}; {a} and {b} {how} (rank correlation {figure(r)})" if how else said


def _dots(answer: Calibration, a: str, b: str, known: NDArray[np.bool_]) -> list[Spec]:
    losses = np.where(known, _losses(answer), np.inf)
    shown = [i for i in pictures.thinned(losses, 800).tolist() if known[i]]
    return [{"at": short(answer.table[f"param_{a}"][i]), "to": short(answer.table[f"param_{b}"][i])} for i in shown]


def _box(answer: Calibration, a: str, b: str, x: Spec, y: Spec) -> list[Spec]:
    if not (a in answer.intervals and b in answer.intervals):
        return []
    (left, right), (low, high) = answer.intervals[a], answer.intervals[b]
    row = [{"at": short(left, 6), "right": short(right, 6), "to": short(low, 6), "high": short(high, 6)}]
    box = {"x": x, "x2": {"field": "right"}, "y": y, "y2": {"field": "high"}}
    return [pictures.layer("rect", box, row, filled=False, stroke=ORANGE, strokeDash=[5, 3], strokeWidth=1.5)]


def _pairs(answer: Calibration) -> list[tuple[str, str]]:
    """Of numeric parameters, those that matter most first."""
    numeric = [n for n in _free(answer) if answer.parameters[n].get("kind") in ("float", "int", "log", "logit")]
    weight = {n: answer.importance.get(n, 0.0) for n in numeric}
    pairs = list(itertools.combinations(numeric, 2))
    return sorted(pairs, key=lambda pair: -(weight[pair[0]] + weight[pair[1]]))


def _unit(answer: Calibration, name: str) -> Array:
    low, high = (_bent(answer.parameters[name], float(answer.parameters[name][end])) for end in ("low", "high"))
    values = np.array([float(v) for v in answer.table[f"param_{name}"]])
    return np.array([(_bent(answer.parameters[name], v) - low) / (high - low) for v in values])


def _native(answer: Calibration, name: str, unit: Array) -> Array:
    said = answer.parameters[name]
    low, high = (_bent(said, float(said[end])) for end in ("low", "high"))
    at = low + (high - low) * unit
    made = np.exp(at) if said["kind"] == "log" else 1 / (1 + np.exp(-at)) if said["kind"] == "logit" else at
    return np.clip(made, float(said["low"]), float(said["high"]))


def _bent(said: Mapping[str, Any], x: float) -> float:
    kind = said["kind"]
    return math.log(x) if kind == "log" else math.log(x / (1 - x)) if kind == "logit" else x


# -- importance ----------------------------------------------------------------------------------------------------
def importance(answer: Calibration) -> Spec:
    """Bars: how much each parameter decides whether a trial is good."""
    ranked = sorted(answer.importance.items(), key=lambda pair: -pair[1])
    rows = [
        {"name": pictures.name_of(n), "share": short(v), "zero": 0, "t": f"{100 * v:.0f}\u00a0%"} for n, v in ranked
    ]
    first, share = ranked[0]
    title = f"{first} decides most whether a trial is good: {100 * share:.0f} %"
    top = short(1.15 * max(row["share"] for row in rows)) or 1
    x = pictures.along(
        "share", "share of what decides", scale={"domain": [0, top]}, axis={"format": ".0%", "tickCount": 6}
    )
    y = {"field": "name", "type": "nominal", "title": None, "sort": [row["name"] for row in rows]}
    return pictures.spec(
        title,
        "PED-ANOVA (Watanabe, Bansal and Hutter 2023): how far the best trials' values of a parameter differ from all trials'. "
        "Shares add up to one; what two parameters do together is not in them.",
        "Importance of the parameters: " + ", ".join(f"{n} {v:.2f}" for n, v in ranked),
        height=max(60, 30 * len(rows)),
        data={"values": rows},
        layer=[
            pictures.layer("bar", {"x": x, "y": y, "tooltip": pictures.tooltip(("name", "parameter"), ("t", "share"))},
                           color=LIGHT_BLUE, height={"band": 0.65}),
            pictures.layer("text", {"x": x, "y": y, "text": {"field": "t"}}, align="left", dx=6),
        ],
    )  # fmt: skip


# -- targets -------------------------------------------------------------------------------------------------------
def band(answer: Calibration, target: str) -> Spec:
    """What the ensemble of good trials puts out (middle 50 % and 90 %, median) over what was observed."""
    said = answer.predictive[target]
    runs, observed = np.asarray(said["runs"], dtype=np.float64), np.asarray(said["observed"], dtype=np.float64)
    known = np.isfinite(runs).all(axis=1) if runs.size else np.zeros(len(runs), bool)
    found = (
        np.quantile(runs[known], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        if known.any()
        else np.full((5, len(observed)), np.nan)
    )
    kind, places = _places(said["x"], len(observed))
    rows = [
        {"x": places[i], "p5": short(q[0]), "p25": short(q[1]), "p50": short(q[2]), "p75": short(q[3]), "p95": short(q[4]),
         "tip": f"{figure(q[0])} to {figure(q[4])}"}
        for i, q in enumerate(found.T) if np.isfinite(q).all()
    ]  # fmt: skip
    seen = [{"x": places[i], "seen": short(v), "tip": figure(v)} for i, v in enumerate(observed) if np.isfinite(v)]
    with np.errstate(invalid="ignore"):
        inside = int(((observed >= found[0]) & (observed <= found[4])).sum())
    scale = {"domain": pictures.room(np.concatenate([found.ravel(), observed])), "zero": False, "nice": False}
    y = {f: pictures.along(f, target, scale=scale) for f in ("p5", "p25", "p50", "seen")}
    x = {"field": "x", "title": said.get("x_name"), **kind}
    tip = pictures.tooltip(("x", "at"), ("tip", "middle 90 % of runs"))
    layers = [
        *_ensemble(x, y, rows, tip, smooth=kind["type"] == "quantitative" and len(rows) > 1 and _rises(places)),
        pictures.layer("point", {"x": x, "y": y["seen"], "tooltip": pictures.tooltip(("x", "at"), ("tip", "observed"))}, seen,
                       filled=True, size=46, color=RED, opacity=1),
    ]  # fmt: skip
    title = f"{target}: {inside} of {counted(len(seen), 'observation')} lie inside the middle 90 % of the runs"
    caption = (
        f"{counted(int(known.sum()), 'run')} of good trials: middle 90 % (light), middle 50 % (dark), median (line)."
    )
    caption += " Red: observed."
    caption += f" {counted(int((~known).sum()), 'run')} with gaps left out." if (~known).any() else ""
    return pictures.spec(title, caption, f"Band of {target} over its observations. {title}.", height=260, layer=layers)


def _ensemble(x: Spec, y: Mapping[str, Spec], rows: list[Spec], tip: list[Spec], smooth: bool) -> list[Spec]:
    """Areas along a number; upright bars where places are names, or too few for an area."""
    wide = {"x": x, "y": y["p5"], "y2": {"field": "p95"}, "tooltip": tip}
    narrow = {"x": x, "y": y["p25"], "y2": {"field": "p75"}}
    middle = {"x": x, "y": y["p50"]}
    if smooth:
        return [
            pictures.layer("area", wide, rows, color=LIGHT_BLUE, opacity=0.25),
            pictures.layer("area", narrow, rows, color=LIGHT_BLUE, opacity=0.45),
            pictures.layer("line", middle, rows, color=BLUE, strokeWidth=1.5),
        ]
    return [
        pictures.layer("rule", wide, rows, color=LIGHT_BLUE, strokeWidth=3, opacity=0.5),
        pictures.layer("rule", narrow, rows, color=LIGHT_BLUE, strokeWidth=9, opacity=0.7),
        pictures.layer("tick", middle, rows, color=BLUE, thickness=2, size=22, orient="horizontal"),
    ]


def _places(x: Any, n: int) -> tuple[Spec, list[Any]]:
    """The axis of observations: numbers, dates, or names in their order."""
    given = np.asarray(x)
    if np.issubdtype(given.dtype, np.datetime64):
        return {"type": "temporal", "scale": {"padding": 14}, "axis": {"tickCount": 8}}, [
            str(v)[:19] for v in given.astype("datetime64[s]")
        ]
    if np.issubdtype(given.dtype, np.number) and n > 1:
        numbers = given.astype(np.float64)
        scale = {"domain": pictures.room(numbers, 0.02), "zero": False, "nice": False}
        return {"type": "quantitative", "scale": scale, "axis": {"tickCount": 8}}, [short(v, 9) for v in numbers]
    names = [pictures.name_of(v.isoformat() if hasattr(v, "isoformat") else v) for v in given.tolist()]
    return {"type": "nominal", "sort": None, "axis": {"labelAngle": 0 if n <= 8 else -45}}, names


def _rises(places: list[Any]) -> bool:
    """A place that comes twice (two groups at one time) has no single band."""
    return all(a < b for a, b in itertools.pairwise(places))


# -- of the answer -------------------------------------------------------------------------------------------------
def _free(answer: Calibration) -> list[str]:
    return [n for n, said in answer.parameters.items() if said.get("kind") != "fixed"]


def _losses(answer: Calibration) -> Array:
    return np.array([np.nan if v is None else float(v) for v in answer.table["loss"]], dtype=np.float64)


def _row(answer: Calibration, i: int, edge: float) -> Spec:
    """A trial's mark; beyond the edge of the axis it stands at the edge."""
    table = answer.table
    loss = float(table["loss"][i])
    return {"trial": int(table["trial"][i]), "loss": short(min(loss, edge)), "tip": figure(loss), "state": str(table["state"][i]),
            "replicates": int(table["replicates"][i])}  # fmt: skip
