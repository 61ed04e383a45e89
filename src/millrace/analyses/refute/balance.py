"""Pictures of overlap and of specifications: love plot, propensity by arm, specification curve. See `views`, which has the
others and finds these too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute import pictures
from millrace.analyses.refute.overlap import Overlap
from millrace.analyses.refute.pictures import BLUE, GREY, LIGHT_BLUE, ORANGE, RED, Spec, short, signed
from millrace.analyses.refute.verdicts import DEFAULTS, Thresholds
from millrace.analyses.refute.words import counted, figure, percent

Array = NDArray[np.float64]

LOVE_LANES = 25
SPECIFICATIONS = 60
FAR = 1.5


def love(found: Overlap, thresholds: Thresholds = DEFAULTS, *, most: int = LOVE_LANES) -> Spec:
    """Balance of the `most` least balanced confounders, before and after adjustment, with the bounds of a pass."""
    worst = np.maximum(np.abs(found.before), np.abs(found.after))
    shown = np.argsort(-np.nan_to_num(worst, posinf=1e300), kind="stable")[:most]
    what = "standardised difference" if found.kind == "smd" else "correlation with the treatment"
    good = int((np.abs(found.after) <= thresholds.smd_pass).sum())
    # A few that are far out would press all others together.
    end = float(
        min(max(FAR, thresholds.smd_warning), max(1.5 * thresholds.smd_pass, 1.1 * worst[shown].max(initial=0.0)))
    )
    rows = []
    for place, j in enumerate(shown.tolist()):
        for when, value in (("before", found.before[j]), ("after", found.after[j])):
            v = float(np.clip(value, -end, end))
            rows.append({"y": place + 0.5, "x": short(v), "when": when, "name": found.names[j],
                         "t": signed(float(value)) if np.isfinite(value) else "no overlap"})  # fmt: skip
    cut = int((worst[shown] > end).sum())
    names = [found.names[j] for j in shown]
    y = pictures.lanes(names)
    x = pictures.along("x", what, scale={"domain": [-short(end), short(end)]}, axis={"tickCount": 7})
    bounds = [{"x": -thresholds.smd_pass, "x2": thresholds.smd_pass}]
    key = {"field": "when", "type": "nominal", "title": None, "legend": {"orient": "top"}}
    order = ["before", "after"]
    colour = {**key, "scale": {"domain": order, "range": [ORANGE, BLUE]}}
    shape = {**key, "scale": {"domain": order, "range": ["diamond", "circle"]}}
    lines = [
        {"y": place + 0.5, "x": rows[2 * place]["x"], "x2": rows[2 * place + 1]["x"]} for place in range(len(names))
    ]
    tip = pictures.tooltip(("name", "confounder"), ("when", "when"), ("t", what))
    dot = {"filled": True, "opacity": 1}
    caption = f"Band: up to {figure(thresholds.smd_pass)} passes."
    rest = len(found.names) - len(shown)
    if rest:
        caption += (
            f" {counted(rest, 'more confounder', 'more confounders')}, all better balanced than these, not shown."
        )
    if cut:
        caption += f" {counted(cut, 'confounder')} beyond the axis at its edge."
    title = (
        f"{good:,} of {counted(len(found.names), 'confounder')} within {figure(thresholds.smd_pass)} after adjustment"
    )
    described = ", ".join(
        f"{found.names[j]} {figure(float(found.before[j]))} to {figure(float(found.after[j]))}" for j in shown
    )
    return pictures.spec(
        title, caption, f"Love plot, {what} before and after: {described}", height=max(60, 22 * len(names)),
        layer=[
            pictures.layer("rect", {"x": x, "x2": {"field": "x2"}}, bounds, color=GREY, opacity=0.18),
            *pictures.rule(0, strokeWidth=1, opacity=0.6),
            pictures.layer("rule", {"x": x, "x2": {"field": "x2"}, "y": y}, lines, color=GREY, strokeWidth=1.2),
            pictures.layer("point", {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tip}, rows, **dot, size=70),
        ],
    )  # fmt: skip


def propensity(found: Overlap) -> Spec | None:
    """Propensity of the treated (up) and of the others (down); None where there is none (a continuous treatment)."""
    if found.edges is None or found.histogram is None:
        return None
    rows = []
    for arm, (name, sign) in enumerate((("treated", 1), ("others", -1))):
        for a, b, share in zip(found.edges, found.edges[1:], found.histogram[arm], strict=False):
            rows.append({"x": short(float(a)), "x2": short(float(b)), "h": short(sign * float(share)), "zero": 0, "arm": name,
                         "t": percent(float(share)), "r": f"{figure(float(a))} to {figure(float(b))}"})  # fmt: skip
    top = short(1.12 * float(found.histogram.max(initial=0.01)))
    x = pictures.along(
        "x", "propensity: probability of being treated", scale={"domain": [0, 1]}, axis={"tickCount": 10}
    )
    axis = {"labelExpr": "format(abs(datum.value), '~%')", "tickCount": 6}
    y = pictures.along("h", "share of the arm", scale={"domain": [-top, top], "nice": False}, axis=axis)
    colour = {"field": "arm", "type": "nominal", "title": None, "legend": {"orient": "top"},
              "scale": {"domain": ["treated", "others"], "range": [BLUE, ORANGE]}}  # fmt: skip
    low, high = found.limits
    edges = [{"x": 0, "x2": low}, {"x": high, "x2": 1}]
    tip = pictures.tooltip(("arm", "arm"), ("r", "propensity"), ("t", "share"))
    bar = {"x": x, "x2": {"field": "x2"}, "y": y, "y2": {"field": "zero"}}
    share = f"{percent(found.outside)} of the rows" if found.outside is not None else "An unknown share of the rows"
    ess = " and ".join(f"{figure(e)} of {n:,}" for e, n in zip(found.ess, found.rows, strict=True))
    title = f"{share} lie outside propensities of {figure(low)} to {figure(high)}"
    caption = f"Red: outside these limits. After weighting the arms count as {ess} rows (treated and others)."
    return pictures.spec(
        title, caption, f"Mirrored histogram of propensities by arm. {title}.", height=240,
        layer=[
            pictures.layer("rect", {"x": x, "x2": {"field": "x2"}}, edges, color=RED, opacity=0.14),
            pictures.layer("bar", {**bar, "color": colour, "tooltip": tip}, rows, binSpacing=0.5),
            *pictures.rule(0, "y", strokeWidth=1, opacity=0.7),
        ],
    )  # fmt: skip


def specifications(
    labels: Sequence[str], effects: Array, errors: Array, estimate: float, unit: str, *, most: int = SPECIFICATIONS
) -> Spec:
    """Estimates of other specifications, sorted, with 95 % intervals; the question's own marked. With more than `most` the
    curve keeps its ends and a regular choice between."""
    effects, errors = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    order = np.argsort(effects, kind="stable")
    order = order[np.isfinite(effects[order])]
    shown = (
        order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int))]
        if len(order)
        else order
    )
    reach = 1.96 * np.where(np.isfinite(errors), errors, 0.0)
    rows = []
    for place, i in enumerate(shown.tolist()):
        low, high = float(effects[i] - reach[i]), float(effects[i] + reach[i])
        rows.append({"y": place + 0.5, "x": short(float(effects[i])), "lo": short(low), "hi": short(high), "name": labels[i],
                     "t": f"{signed(float(effects[i]))} ({signed(low)} to {signed(high)})"})  # fmt: skip
    names = [labels[i] for i in shown]
    many = len(names) > 30
    y = pictures.lanes([""] * len(names) if many else names)
    domain = pictures.room([v for row in rows for v in (row["lo"], row["hi"])] + [0.0, estimate], 0.05)
    x = {
        f: pictures.along(f, f"effect, in {unit}", scale={"domain": domain, "zero": False}, axis={"tickCount": 7})
        for f in ("x", "lo")
    }
    same = float(np.mean(np.sign(effects[order]) == np.sign(estimate))) if len(order) else 0.0
    title = f"{percent(same)} of {counted(len(order), 'specification')} have the sign of the estimate"
    caption = f"Sorted estimates with 95 % intervals; red: the question's own, {signed(estimate)}. "
    caption += "To look at: there is no verdict."
    if len(shown) < len(order):
        caption += f" {len(shown)} of {len(order):,} drawn."
    tip = pictures.tooltip(("name", "specification"), ("t", "effect"))
    dot = {"filled": True, "opacity": 1}
    return pictures.spec(
        title, caption, f"Specification curve of {len(order)} estimates. {title}.",
        height=max(60, (7 if many else 20) * len(names)),
        layer=[
            *pictures.rule(0, strokeWidth=1, opacity=0.6),
            *pictures.rule(estimate, color=RED, strokeWidth=2),
            pictures.layer("rule", {"x": x["lo"], "x2": {"field": "hi"}, "y": y}, rows, color=LIGHT_BLUE, strokeWidth=1.6),
            pictures.layer("point", {"x": x["x"], "y": y, "tooltip": tip}, rows, **dot, size=30 if many else 55, color=BLUE),
        ],
    )  # fmt: skip
