"""Pictures of the sensitivity: Cinelli and Hazlett's contour with benchmarks, and the tipping-point curve. See `views`, which
finds these too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute import pictures, sensitivity
from millrace.analyses.refute.pictures import BLUE, GREY, LIGHT_BLUE, ORANGE, RED, Spec, short, signed
from millrace.analyses.refute.words import figure, percent

Array = NDArray[np.float64]

CURVE = 121
LETTER = 0.0125
"""Width of a letter in a label, as a share of the picture's width on a page of usual width."""


def contour(
    found: sensitivity.Sensitivity, unit: str, *, multiples: Sequence[float] = (1, 2, 3), most: int = 3
) -> Spec:
    """Lines on which the adjusted estimate is the same, over a hidden confounder's shares of treatment and outcome; where it is
    0, and where it stops being significant; and the `most` strongest observed confounders, the strongest in `multiples`."""
    points, beyond, end_x, end_y = _points(found, multiples, most)
    x, y = _share_axis("x", "treatment", end_x), _share_axis("y", "outcome", end_y)
    layers, labels = [], []
    for level in _levels(found.effect, found.se, found.df, end_x, end_y):
        line = _line(found, end_x, end_y, level)
        if len(line) < 2:
            continue
        layers.append(pictures.layer("line", {"x": x, "y": y}, line, color=GREY, strokeWidth=1, opacity=0.8))
        labels.append({**min(line, key=lambda at: abs(at["x"] / end_x - at["y"] / end_y)), "t": signed(level)})
    text = {"x": x, "y": y, "text": {"field": "t"}}
    kinds = [("no effect left", _line(found, end_x, end_y), RED, [1, 0])]
    if found.rv_alpha > 0:
        lost = _line(found, end_x, end_y, alpha=found.alpha)
        kinds.append((f"no longer significant ({percent(found.alpha)})", lost, ORANGE, [6, 3]))
    layers.append(_named_lines(kinds, x, y))
    dots, taken = _benchmarks(points, found, x, y, end_x, end_y)
    kept = [row for k, row in enumerate(labels) if not k or abs(row["x"] - labels[k - 1]["x"]) > 0.03 * end_x]
    kept = [row for row in kept if not any(a < row["x"] < b and c < row["y"] < d for a, b, c, d in taken)]
    kept = [row for row in kept if not any(_touches(row, line, end_x, end_y) for _, line, _, _ in kinds)]
    layers.append(pictures.layer("text", text, kept, color=GREY, fontSize=10, align="left", baseline="bottom", dx=3))
    layers += dots
    caption = f"Grey lines: the estimate, in {unit}, had a hidden confounder with these shares been adjusted for"
    caption += f"; now it is {signed(found.effect)}"
    caption += "." if found.rv_alpha > 0 else ", which is not significant."
    caption += " Dots: one as strong as the observed confounder that is named, or a multiple of it."
    caption += f" Beyond the picture: {', '.join(beyond)}." if beyond else ""
    told = "Contour of the adjusted estimate over a hidden confounder's partial R2 with treatment and outcome."
    return pictures.spec(_title(found), caption, f"{told} {_title(found)}.", height=340, layer=layers)


def _touches(label: Spec, line: Sequence[Spec], end_x: float, end_y: float) -> bool:
    """Does a line run through a grey label, which stands a little right of and above its place?"""
    across = (0.005 * end_x, 0.06 * end_x)
    return any(
        across[0] < at["x"] - label["x"] < across[1] and -0.005 * end_y < at["y"] - label["y"] < 0.045 * end_y
        for at in line
    )


def _title(found: sensitivity.Sensitivity) -> str:
    start = f"A hidden confounder must explain {percent(found.rv)} of treatment and outcome to bring the effect to 0"
    return (
        f"{start}; the strongest observed one explains {percent(found.strongest_strength)}"
        if found.strongest
        else start
    )


def _points(
    found: sensitivity.Sensitivity, multiples: Sequence[float], most: int
) -> tuple[list[tuple[str, sensitivity.Benchmark]], list[str], float, float]:
    """Labelled benchmarks in the picture, labels of those beyond it, and where the picture ends. What was observed and the
    tipping point are always inside; multiples only where they do not press all else into a corner."""
    names = sorted(found.shares, key=lambda n: -sensitivity.strength(*found.shares[n]))[:most]
    made, beyond = [], []
    for n in names:
        for k in multiples if n == names[0] else (1,):
            label = pictures.name_of(n, 22) if k == 1 else f"{figure(k)} × {pictures.name_of(n, 18)}"
            b = sensitivity.benchmark(n, found.shares[n], found.effect, found.se, found.df, k, alpha=found.alpha)
            if np.isfinite(b.estimate):
                made.append((label, b))
            else:
                beyond.append(label)
    near = [b for _, b in made if max(b.kd, b.ky) == 1]
    wide = [b for _, b in made if b.bound_treatment < 0.5 and b.bound_outcome < 0.5]
    end_x = min(0.97, max([2.2 * found.rv, 0.02, *(1.25 * b.bound_treatment for b in [*near, *wide])]))
    end_y = min(1.0, max([2.2 * found.rv, 0.02, *(1.25 * b.bound_outcome for b in [*near, *wide])]))
    inside = [(label, b) for label, b in made if b.bound_treatment <= end_x and b.bound_outcome <= end_y]
    beyond += [label for label, b in made if b.bound_treatment > end_x or b.bound_outcome > end_y]
    return inside, beyond, short(end_x, 3), short(end_y, 3)


def _share_axis(field: str, of: str, end: float) -> Spec:
    axis = {"format": "~%", "tickCount": 6, "grid": False}
    return pictures.along(
        field, f"hidden confounder's share of the {of}", axis=axis, scale={"domain": [0, end], "nice": False}
    )


def _levels(effect: float, se: float, df: float, end_x: float, end_y: float) -> list[float]:
    """Round figures between the estimate and what is left near the far corner, without 0, about six of them."""
    far = float(sensitivity.adjusted_estimate(effect, se, df, 0.75 * end_x, 0.75 * end_y))
    low, high = sorted((effect, far))
    rough = (high - low) / 6
    decade = 10 ** np.floor(np.log10(rough))
    step = decade * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * decade - rough))
    levels = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return [float(v) for v in levels if abs(v) > 1e-9 * step and abs(v - effect) > 0.1 * step]


def _line(
    found: sensitivity.Sensitivity, end_x: float, end_y: float, level: float = 0.0, alpha: float | None = None
) -> list[Spec]:
    """A tipping line inside the picture, from its upper edge (or where it begins) to its right edge."""
    product = (abs(found.effect) - np.sign(found.effect) * level) ** 2 / (found.se**2 * found.df)
    first = product / (product + end_y) if alpha is None else 0.0
    if first >= end_x:
        return []  # all of it is beyond the picture
    x = first + (end_x - first) * np.linspace(0.0, 1.0, CURVE) ** 2
    x = x[x > 0]
    y = sensitivity.tipping_line(x, found.effect, found.se, found.df, to=level, alpha=alpha)
    inside = np.isfinite(y) & (y <= end_y * (1 + 1e-9))
    return [{"x": short(float(a)), "y": short(min(float(b), end_y))} for a, b in zip(x[inside], y[inside], strict=True)]


def _named_lines(kinds: Sequence[tuple[str, list[Spec], str, list[int]]], x: Spec, y: Spec) -> Spec:
    tagged = [{**row, "kind": name} for name, line, _, _ in kinds for row in line]
    legend = {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 2}
    key = {"field": "kind", "type": "nominal", "title": None, "legend": legend}
    names = [k[0] for k in kinds]
    colour = {**key, "scale": {"domain": names, "range": [k[2] for k in kinds]}}
    dash = {**key, "scale": {"domain": names, "range": [k[3] for k in kinds]}}
    return pictures.layer("line", {"x": x, "y": y, "color": colour, "strokeDash": dash}, tagged, strokeWidth=2.2)


def _benchmarks(
    points: Sequence[tuple[str, sensitivity.Benchmark]],
    found: sensitivity.Sensitivity,
    x: Spec,
    y: Spec,
    end_x: float,
    end_y: float,
) -> tuple[list[Spec], list[tuple[float, float, float, float]]]:
    """Dots with their names beside them, moved apart up and down where they would run into each other; and where no other
    label has room (left, right, low, high)."""
    heights = pictures.apart([b.bound_outcome for _, b in points], 0.06 * end_y)
    lift = max(0.0, 0.035 * end_y - min(heights, default=1.0))
    drop = max(0.0, max(heights, default=0.0) + lift - 0.965 * end_y)
    rows = []
    for (label, b), h in zip(points, heights, strict=True):
        told = f"{label}: {signed(b.estimate)}"
        left = b.bound_treatment / end_x + LETTER * len(told) > 0.97
        beside = b.bound_treatment + (-0.015 if left else 0.015) * end_x
        place = {
            "x": short(b.bound_treatment),
            "y": short(b.bound_outcome),
            "lx": short(beside),
            "ly": short(h + lift - drop),
        }
        rows.append({**place, "t": told, "left": left, "i": f"{signed(b.low)} to {signed(b.high)}"})
    now = [{"x": 0.0, "y": 0.0, "t": f"estimate: {signed(found.effect)}"}]
    tip = pictures.tooltip(("t", "adjusted estimate"), ("i", "interval"))
    dot = {"filled": True, "opacity": 1}
    layers = [
        pictures.layer("point", {"x": x, "y": y}, now, size=90, shape="diamond", color=RED, **dot),
        pictures.layer("point", {"x": x, "y": y, "tooltip": tip}, rows, size=70, color=BLUE, **dot),
    ]
    text = {"x": {**x, "field": "lx"}, "y": {**y, "field": "ly"}, "text": {"field": "t"}}
    taken = []
    for row in rows:
        ends = sorted((row["lx"], row["lx"] + (-1 if row["left"] else 1) * LETTER * len(row["t"]) * end_x))
        taken.append(
            (ends[0] - 0.07 * end_x, ends[1] + 0.02 * end_x, row["ly"] - 0.06 * end_y, row["ly"] + 0.035 * end_y)
        )
    return layers + _on_sides(text, rows, baseline="middle", fontSize=11, fontWeight=600), taken


def _on_sides(text: Mapping[str, Any], rows: Sequence[Spec], dx: int = 0, **mark: Any) -> list[Spec]:
    """Labels to the right of their places, or to the left where there is no room."""
    layers = []
    for left in (False, True):
        chosen = [row for row in rows if row["left"] is left]
        if chosen:
            side = {"align": "right", "dx": -dx} if left else {"align": "left", "dx": dx}
            layers.append(pictures.layer("text", text, chosen, **side, **mark))
    return layers


def tipping(found: sensitivity.Sensitivity, unit: str) -> Spec:
    """The estimate and its interval against how much of treatment and outcome alike a hidden confounder explains."""
    strengths = {n: sensitivity.strength(*pair) for n, pair in found.shares.items()}
    shown = sorted(strengths, key=lambda n: -strengths[n])[:3]
    end = min(0.95, max([1.6 * found.rv, *(1.3 * strengths[n] for n in shown), 0.02]))
    curve = sensitivity.tipping_curve(found.effect, found.se, found.df, most=end, alpha=found.alpha)
    rows = [{"x": short(float(a)), "e": short(float(e)), "lo": short(float(lo)), "hi": short(float(hi))}
            for a, e, lo, hi in zip(curve.strength, curve.estimate, curve.low, curve.high, strict=True)]  # fmt: skip
    low, high = min(0.0, float(curve.low.min())), max(0.0, float(curve.high.max()))
    domain = [short(low - 0.26 * (high - low), 6), short(high + 0.18 * (high - low), 6)]
    x = _share_axis("x", "treatment and of the outcome", end)
    on = {"scale": {"domain": domain, "zero": False, "nice": False}, "axis": {"tickCount": 6, "grid": False}}
    y = {f: pictures.along(f, f"adjusted estimate, in {unit}", **on) for f in ("lo", "e", "y")}
    layers = [
        pictures.layer("area", {"x": x, "y": y["lo"], "y2": {"field": "hi"}}, rows, color=LIGHT_BLUE, opacity=0.3),
        pictures.layer("line", {"x": x, "y": y["e"]}, rows, color=BLUE, strokeWidth=2.2),
        *pictures.rule(0, "y", strokeWidth=1, opacity=0.7),
        *_tips(
            [(curve.tips, "no effect left", RED), (curve.tips_alpha, "no longer significant", ORANGE)],
            x,
            y["y"],
            domain,
            end,
        ),
        *_strengths(shown, strengths, (curve.tips, curve.tips_alpha), x, y["y"], domain, end),
    ]
    caption = f"Band: {percent(1 - found.alpha)} interval."
    caption += " It holds 0 already." if found.rv_alpha <= 0 else ""
    caption += " Triangles: what the strongest observed confounders explain, as if of both alike." if shown else ""
    told = f"Estimate {figure(found.effect)} reaches 0 at {percent(curve.tips)}, its interval at {percent(curve.tips_alpha)}."
    return pictures.spec(_title(found), caption, f"Tipping-point curve. {told}", height=280, layer=layers)


def _tips(tips: Sequence[tuple[float, str, str]], x: Spec, y: Spec, domain: list[float], end: float) -> list[Spec]:
    span, layers = domain[1] - domain[0], []
    for place, (at, name, colour) in enumerate(tips):
        if not 0 < at <= end:
            continue
        told = f"{name}: {percent(at)}"
        width = 1.15 * LETTER * len(told) * end
        # The earlier line's label to its left, where it cannot run into the later line.
        left = at + width > end or (place == 1 and at > width)
        row = [{"x": short(at), "y": short(domain[1] - span * (0.04 + 0.075 * place)), "t": told, "left": left}]
        layers.append(pictures.layer("rule", {"x": x}, row, color=colour, strokeWidth=1.6, strokeDash=[5, 3]))
        text = {"x": x, "y": y, "text": {"field": "t"}}
        layers += _on_sides(text, row, 5, baseline="middle", color=colour, fontWeight=600)
    return layers


def _strengths(
    shown: Sequence[str], strengths: Mapping[str, float], tips: Sequence[float], x: Spec, y: Spec, domain: list[float],
    end: float,
) -> list[Spec]:  # fmt: skip
    """Triangles on the axis, their names above, in rows so that they do not touch."""
    span = domain[1] - domain[0]
    base = domain[0] + span * 0.02
    labels = []
    for n in shown:
        told = f"{pictures.name_of(n, 22)}: {percent(strengths[n])}"
        width = LETTER * len(told) * end
        crosses = any(strengths[n] < tip < strengths[n] + width for tip in tips) and strengths[n] > width
        labels.append((strengths[n] + width > 0.98 * end or crosses, strengths[n], width, told))
    # From the outside in, so that no stem runs through a name: left ones from the left, right ones from the right.
    labels.sort(key=lambda its: its[1] if its[0] else -its[1])
    spans = [(at - width, at) if left else (at, at + width) for left, at, width, _ in labels]
    rows = [{"x": short(at), "y": short(base), "t": told, "left": left} for left, at, _, told in labels]
    for row, height in zip(rows, pictures.stacked(spans), strict=True):
        row["ly"] = short(base + span * (0.05 + 0.06 * height))
    stem = {"x": x, "y": y, "y2": {"field": "ly"}}
    text = {"x": x, "y": {**y, "field": "ly"}, "text": {"field": "t"}}
    return [
        pictures.layer("rule", stem, rows, color=BLUE, strokeWidth=1),
        pictures.layer(
            "point", {"x": x, "y": y}, rows, shape="triangle-up", filled=True, size=70, color=BLUE, opacity=1
        ),
        *_on_sides(text, rows, 5, baseline="middle", fontSize=11),
    ]
