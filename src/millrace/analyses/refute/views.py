"""Pictures of a refutation as Vega-Lite specs (plain dicts): effects of a test, contour, love plot, overlap, tipping point,
specification curve, overview.

Each takes what the tests measured and returns a spec with a title that says the finding, a caption that says how to read it,
and a `description` for those who cannot see it. Computes nothing that is not in a picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute import pictures
from millrace.analyses.refute.balance import love, propensity, specifications
from millrace.analyses.refute.contours import contour, tipping
from millrace.analyses.refute.pictures import GREY, LIGHT_BLUE, ORANGE, RED, Spec, short, signed
from millrace.analyses.refute.verdicts import TestResult
from millrace.analyses.refute.words import counted, figure

__all__ = ["contour", "effects", "love", "overview", "propensity", "specifications", "tipping"]

Array = NDArray[np.float64]

BARS = 40
CURVE = 121
TITLES = {
    "placebo": "effects of a shuffled treatment", "random_common_cause": "effects with a column of noise",
    "subset": "effects in subsets of the rows", "bootstrap": "bootstrap effects",
}  # fmt: skip


# -- all tests -----------------------------------------------------------------------------------------------------
def overview(results: Sequence[TestResult], decision: str = "", score: float | None = None) -> Spec:
    """A lane for each test: its status as colour, shape and word, and what came out as a clause. Critical and worst first is
    the caller's order."""
    rows = []
    for place, r in enumerate(results):
        said = textwrap.wrap(pictures.held(r.reason), 80)
        said = said if len(said) <= 2 else [said[0], f"{said[1][:78]} …"]
        rows.append({"y": place + 0.5, "name": r.name, "status": r.status, "said": "\n".join(said), "tip": r.sentence})
    counts = {s: sum(r.status == s for r in results) for s in pictures.STATUS_COLOURS}
    told = ", ".join(f"{n} {s}" for s, n in counts.items() if n)
    figures = f" (score {figure(score)})" if score is not None else ""
    title = f"{decision}{figures}: {told}" if decision else f"{counted(len(results), 'test')}: {told}"
    shown = [s for s, n in counts.items() if n]
    colour = {"field": "status", "type": "nominal", "legend": None,
              "scale": {"domain": shown, "range": [pictures.STATUS_COLOURS[s] for s in shown]}}  # fmt: skip
    shape = {"field": "status", "type": "nominal", "legend": None,
             "scale": {"domain": shown, "range": [pictures.STATUS_SHAPES[s] for s in shown]}}  # fmt: skip
    y = pictures.lanes([r.name for r in results])
    tip = pictures.tooltip(("name", "test"), ("status", "status"), ("tip", "what it says"))
    left = {"align": "left", "baseline": "middle"}
    return pictures.spec(
        title,
        "Passing the tests that resample or permute says nothing about hidden confounding.",
        "Tests by status: " + "; ".join(f"{r.name} {r.status}, {r.reason}" for r in results),
        height=max(60, 36 * len(results)),
        data={"values": rows},
        encoding={"y": y, "tooltip": tip},
        layer=[
            pictures.layer("point", {"x": {"value": 14}, "color": colour, "shape": shape}, filled=True, size=120, opacity=1),
            pictures.layer("text", {"x": {"value": 28}, "text": {"field": "status"}, "color": colour}, fontWeight=600, **left),
            pictures.layer("text", {"x": {"value": 96}, "text": {"field": "said"}}, lineBreak="\n", fontSize=11, **left),
        ],
    )  # fmt: skip


def effects(
    result: TestResult, simulated: Array, estimate: float, unit: str, *, promised_sd: float | None = None
) -> Spec:
    """Distribution of one test's effects, the estimate marked (and 0 for the placebo); promised_sd draws the spread that the
    standard error promises, around the middle of what was simulated."""
    known = np.asarray(simulated, dtype=np.float64)
    known = known[np.isfinite(known)]
    what = TITLES.get(result.name, f"effects of {result.name}")
    marks = [("estimate", estimate, RED)] + [("no effect", 0.0, GREY)] * (result.name == "placebo")
    counts, edges = np.histogram(known, _edges(known))
    at_zero = bool(len(known)) and float(np.ptp(known)) == 0
    rows = [{"x": short(a, 7), "x2": short(b, 7), "n": int(n), "zero": 0, "t": f"{signed(a)} to {signed(b)}"}
            for a, b, n in zip(edges, edges[1:], counts, strict=False)]  # fmt: skip
    top = max(1, int(counts.max(initial=1)))
    domain = pictures.room([*edges, *(v for _, v, _ in marks)], 0.06)
    x = {
        f: pictures.along(f, f"effect, in {unit}", scale={"domain": domain, "zero": False}, axis={"tickCount": 7})
        for f in ("x", "at")
    }
    y = {
        f: pictures.along(f, "simulations", scale={"domain": [0, short(1.22 * top)]}, axis={"tickCount": 5})
        for f in ("n", "h")
    }
    bars = {
        "x": x["x"],
        "x2": {"field": "x2"},
        "y": y["n"],
        "y2": {"field": "zero"},
        "tooltip": pictures.tooltip(("t", "effect"), ("n", "simulations")),
    }
    layers = [pictures.layer("bar", bars, rows, color=LIGHT_BLUE, binSpacing=0.5)]
    if promised_sd and len(known) > 1 and not at_zero:
        grid = np.linspace(max(domain[0], edges[0]), min(domain[1], edges[-1]), CURVE)
        width = float(edges[1] - edges[0])
        height = (
            len(known)
            * width
            * np.exp(-(((grid - known.mean()) / promised_sd) ** 2) / 2)
            / promised_sd
            / np.sqrt(2 * np.pi)
        )
        curve = [{"at": short(a, 7), "h": short(min(h, 1.2 * top))} for a, h in zip(grid, height, strict=True)]
        layers.append(
            pictures.layer("line", {"x": x["at"], "y": y["h"]}, curve, color=ORANGE, strokeWidth=1.5, strokeDash=[5, 3])
        )
    layers += _marked(marks, domain, 1.22 * top, x["at"], y["h"])
    caption = f"{counted(len(known), 'simulation')}" + (
        f", {result.failed_simulations:,} more failed" if result.failed_simulations else ""
    )
    caption += ". Dashed: the spread that the standard error promises." if promised_sd else "."
    return pictures.spec(
        f"{result.name}: {result.status}; {result.reason}", f"{what[0].upper()}{what[1:]}. {caption}",
        f"Histogram of {what}: {result.sentence}", height=220, layer=layers,
    )  # fmt: skip


def _edges(known: Array) -> Array:
    if not len(known):
        return np.array([0.0, 1.0])
    low, high = float(known.min()), float(known.max())
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        pad = max(abs(low), 1e-12) * 0.05
        low, high = low - pad, high + pad
    return np.linspace(low, high, min(BARS, max(8, int(np.sqrt(len(known))))) + 1)


def _marked(marks: Sequence[tuple[str, float, str]], domain: list[float], top: float, x: Spec, y: Spec) -> list[Spec]:
    """Upright lines with their names at the top, on the side that has room; two that lie close stand one above the other."""
    layers, span = [], domain[1] - domain[0]
    for place, (name, value, colour) in enumerate(marks):
        near = any(abs(value - other) < 0.3 * span for _, other, _ in marks[:place])
        row = [
            {
                "at": short(value, 7),
                "h": short(top * (0.985 - 0.09 * near)),
                "t": f"{name} {signed(value)}" if value else name,
            }
        ]
        right = value < domain[0] + 0.7 * span
        layers.append(pictures.layer("rule", {"x": x}, row, color=colour, strokeWidth=2))
        side = {"align": "left", "dx": 5} if right else {"align": "right", "dx": -5}
        text = {"x": x, "y": y, "text": {"field": "t"}}
        layers.append(pictures.layer("text", text, row, baseline="top", color=colour, fontWeight=600, **side))
    return layers
