"""Pictures of how like the real rows twins are, as Vega-Lite specs: columns laid over each other, dependence side by side, a
plane of all columns, what gives twins away, distances.

Each takes what was measured; computes nothing that is not in a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.twin import pictures, simulate_views
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.kernels import measures
from millrace.analyses.twin.pictures import BLUE, GREY, ORANGE, Spec, along, layer, name_of, short, sides

if TYPE_CHECKING:
    from millrace.analyses.twin.fidelity import Fidelity

PANELS, LEVELS, BARS, FEW_VALUES = 12, 8, 24, 8
PANEL_PX, AXIS_PX = 158, 78
"""Three panels with their axes go side by side on a page; axes are as wide in all, so that panels are in line."""
HEAT, HEAT_PX, LETTER_PX = 20, 215, 10
DAY_US = 86_400e6


@dataclass(frozen=True)
class Look:
    """shapes: float64 (columns,), trends: (columns, columns), of twins beside real rows."""

    shapes: Any
    trends: Any

    @property
    def shape(self) -> float:
        return float(numpy.mean(self.shapes))

    @property
    def trend(self) -> float:
        d = len(self.shapes)
        return float(self.trends[numpy.triu_indices(d, 1)].mean()) if d > 1 else 1.0


def fidelity(
    found: Fidelity,
    real: Any,
    twins: Any,
    nominal: Any,
    columns: Sequence[Column],
    plane: Mapping[str, Any],
    effects: Any,
) -> dict[str, Spec]:
    """All pictures of an assessment."""
    made = both(Look(found.shapes, found.trends), real, twins, nominal, columns)
    if len(columns) > 1:
        made["plane"] = of_plane(plane)
    made["given_away_by"] = given_away(found)
    if found.privacy is not None:
        made["privacy"] = distances(found.privacy)
    return made if effects is None else made | simulate_views.of_effects(effects)


def both(look: Look, real: Any, twins: Any, nominal: Any, columns: Sequence[Column]) -> dict[str, Spec]:
    """Columns and dependence of real rows and twins."""
    made = {"columns": overlays(look, real, twins, nominal, columns)}
    if len(columns) > 1:
        made["dependence"] = dependence(look, real, twins, columns)
    return made


# -- columns ---------------------------------------------------------------------------------------------------------
def overlays(found: Look, real: Any, twins: Any, nominal: Any, columns: Sequence[Column]) -> Spec:
    """A panel a column, the least like first: real as bars, twins as a line."""
    order = numpy.argsort(found.shapes, kind="stable")[:PANELS]
    panels = []
    for j in order.tolist():
        known = real[~numpy.isnan(real[:, j]), j]
        few = nominal[j] or (columns[j].kind != "date" and len(numpy.unique(known)) <= FEW_VALUES)
        kind = _levels if nominal[j] else _values if few else _stretches
        rows = kind(real[:, j], twins[:, j], columns[j])
        title = {"text": f"{name_of(columns[j].name)}  {found.shapes[j]:.3f}", "fontSize": 12, "anchor": "start"}
        draw = _panel_of_levels if few else _panel_of_stretches
        panels.append({"title": title, "width": PANEL_PX, "height": 110, **draw(rows)})
    worst = columns[int(order[0])].name
    left = len(columns) - len(order)
    return pictures.spec(
        f"Shape {found.shape:.4f}: the columns of twins lie on those of real rows",
        f"Share of rows. Bars are real, the line and points are twins; 1 is the same. The least like is {worst}."
        + (f" {left} more columns are at least as like." if left else ""),
        "Distribution of each column, real and twins: "
        + ", ".join(f"{c.name} {s:.3f}" for c, s in zip(columns, found.shapes, strict=True)),
        concat=panels, columns=3, spacing=16,
    )  # fmt: skip


def _levels(a: Any, b: Any, column: Column) -> list[Spec]:
    labels = [*column.labels, *(label for label, _ in column.pooled)]
    size = int(numpy.nanmax([numpy.nanmax(a, initial=0), numpy.nanmax(b, initial=0), len(labels) - 1])) + 1
    p, q = (numpy.bincount(m[~numpy.isnan(m)].astype(int), minlength=size) / max(1, len(m)) for m in (a, b))
    rows = [
        {
            "level": name_of(labels[k] if k < len(labels) else f"level {k}", 14),
            "real": short(p[k]),
            "twins": short(q[k]),
        }
        for k in numpy.argsort(-p, kind="stable")[:LEVELS].tolist()
    ]
    if numpy.isnan(a).any() or numpy.isnan(b).any():
        rows.append(
            {
                "level": "missing",
                "real": short(float(numpy.isnan(a).mean())),
                "twins": short(float(numpy.isnan(b).mean())),
            }
        )
    return rows


def _panel_of_levels(rows: list[Spec]) -> Spec:
    shown = {"labelLimit": AXIS_PX - 6, "ticks": False, "minExtent": AXIS_PX, "maxExtent": AXIS_PX}
    y = {"field": "level", "type": "nominal", "title": None, "sort": None, "axis": shown}
    axis = {"format": "%", "tickCount": 3, "grid": False}
    tip = [{"field": n} for n in ("level", "real", "twins")]
    return {
        "data": {"values": rows},
        "layer": [
            layer("bar", {"y": y, "x": along("real", axis=axis), "tooltip": tip}, color=BLUE, opacity=0.45),
            layer("tick", {"y": y, "x": along("twins"), "tooltip": tip}, color=ORANGE, thickness=3),
        ],
    }


def _values(a: Any, b: Any, column: Column) -> list[Spec]:
    """A number with few values, each by itself; what twins have between them is nearest to one."""
    values = numpy.unique(a[~numpy.isnan(a)])
    middle = (values[1:] + values[:-1]) / 2
    p, q = (
        numpy.bincount(numpy.searchsorted(middle, m[~numpy.isnan(m)]), minlength=len(values)) / max(1, len(m))
        for m in (a, b)
    )
    truth = ("no", "yes") if column.kind == "boolean" else None
    named = [truth[int(v)] if truth else f"{v:g}" for v in values]
    return [{"level": n, "real": short(x), "twins": short(y)} for n, x, y in zip(named, p, q, strict=True)]


def _stretches(a: Any, b: Any, column: Column) -> list[Spec]:
    known = a[~numpy.isnan(a)]
    low, high = (float(v) for v in numpy.quantile(known, [0.002, 0.998])) if len(known) else (0.0, 1.0)
    values = numpy.unique(known)
    if len(values) <= BARS:
        middle = values
        edges = numpy.concatenate([[values[0] - 0.5], (values[1:] + values[:-1]) / 2, [values[-1] + 0.5]])
    else:
        edges = numpy.linspace(low, high if high > low else low + 1, BARS + 1)
        middle = (edges[1:] + edges[:-1]) / 2
    p, q = (
        numpy.histogram(numpy.clip(m[~numpy.isnan(m)], edges[0], edges[-1]), edges)[0] / max(1, len(m)) for m in (a, b)
    )
    days = column.kind == "date"
    scale = 1.0 if column.arrow.startswith("date32") or column.arrow.startswith("date64") else DAY_US
    at = (lambda v: f"{numpy.datetime64('1970-01-01') + numpy.timedelta64(int(v / scale), 'D')}") if days else short
    return [
        {
            "x": at(edges[k]),
            "x2": at(edges[k + 1]),
            "at": at(middle[k]),
            "real": short(p[k]),
            "twins": short(q[k]),
            "zero": 0,
        }
        for k in range(len(middle))
    ]


def _panel_of_stretches(rows: list[Spec]) -> Spec:
    dates = bool(rows) and isinstance(rows[0]["x"], str)
    kind = {"type": "temporal"} if dates else {"type": "quantitative"}
    x = {
        "field": "x",
        **kind,
        "title": None,
        "axis": {"tickCount": 4, "grid": False},
        "scale": {"nice": False} if dates else {"zero": False, "nice": False},
    }
    axis = {"format": ".0%", "tickCount": 3, "grid": False, "minExtent": AXIS_PX, "maxExtent": AXIS_PX}
    tip = [
        {"field": n, **({"type": "temporal"} if dates and n in ("x", "x2") else {})}
        for n in ("x", "x2", "real", "twins")
    ]
    bars = {"x": x, "x2": {"field": "x2"}, "y": along("real", axis=axis), "y2": {"field": "zero"}, "tooltip": tip}
    line = {"x": {**x, "field": "at"}, "y": along("twins", axis=axis)}
    return {
        "data": {"values": rows},
        "layer": [
            layer("bar", bars, color=BLUE, opacity=0.45, binSpacing=0.5),
            layer(
                "line", line, color=ORANGE, strokeWidth=2, interpolate="monotone", point={"size": 14, "color": ORANGE}
            ),
        ],
    }


# -- dependence ------------------------------------------------------------------------------------------------------
def dependence(found: Look, real: Any, twins: Any, columns: Sequence[Column]) -> Spec:
    """Correlations of real rows and of twins, and the trend of each pair."""
    names = [name_of(c.name, 16) for c in columns]
    A, B = measures.correlations(real), measures.correlations(twins)
    kept = numpy.sort(numpy.argsort(-(numpy.abs(A) - numpy.eye(len(A))).max(0), kind="stable")[:HEAT]).tolist()
    cell = max(9, min(24, HEAT_PX // max(1, len(kept))))

    def panel(M: Any, title: str, field: str, scheme: str, domain: list[float], last: bool) -> Spec:
        rows = [{"a": names[i], "b": names[j], field: short(float(M[i, j]), 3)} for i in kept for j in kept]
        axis = {"labelLimit": 90, "ticks": False, "domain": False, "labelFontSize": min(LETTER_PX, cell)}
        order = [names[i] for i in kept]
        x = {"field": "a", "type": "nominal", "sort": order, "title": None, "axis": {**axis, "labelAngle": -60}}
        y = {
            "field": "b",
            "type": "nominal",
            "sort": order,
            "title": None,
            "axis": axis if title == "real" or len(kept) < 2 else None,
        }
        legend = {"title": None, "orient": "bottom", "gradientLength": 120, "tickCount": 3} if last else None
        colour = {
            "field": field,
            "type": "quantitative",
            "scale": {"scheme": scheme, "domain": domain},
            "legend": legend,
        }
        return {
            "title": {"text": title, "fontSize": 12}, "width": cell * len(kept), "height": cell * len(kept),
            "data": {"values": rows}, "mark": {"type": "rect", "aria": False},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": [{"field": f} for f in ("a", "b", field)]},
        }  # fmt: skip

    least = float(found.trends.min())
    i, j = numpy.unravel_index(int(found.trends.argmin()), found.trends.shape)
    return pictures.spec(
        f"Trend {found.trend:.4f}: what depends on what in real rows does so in twins",
        f"Left and middle: correlation (categories by their codes). Right: how alike each pair is; least {names[i]} with "
        f"{names[j]}, {least:.3f}." + (f" The {len(kept)} columns that depend most." if len(kept) < len(columns) else ""),
        f"Correlations of real rows and of twins side by side; the trend of pairs is {found.trend:.4f}, at least {least:.3f}.",
        columns=3, spacing=14, concat=[
            panel(A, "real", "correlation", "blueorange", [-1, 1], True),
            panel(B, "twins", "correlation", "blueorange", [-1, 1], True),
            panel(found.trends, "alike", "trend", "greys", [1.0, min(0.9, least)], True),
        ],
        resolve={"scale": {"color": "independent"}},
    )  # fmt: skip


def of_plane(plane: Mapping[str, Any]) -> Spec:
    """Real rows and twins in the plane of the first two principal components of the real ones."""
    rows = [
        {"x": short(x, 4), "y": short(y, 4), "side": side}
        for pair in zip(plane["real"].tolist(), plane["twins"].tolist(), strict=False)
        for side, (x, y) in zip(pictures.SIDES, pair, strict=True)
    ]
    told = plane["explained"]
    return pictures.spec(
        "Real rows and twins in the plane in which real rows differ most",
        f"The first two principal components of the real rows ({told[0]:.0%} and {told[1]:.0%} of their differences); "
        f"{len(rows) // 2:,} rows of each.",
        "Scatter of real rows and twins in the plane of the first two principal components.",
        height=320, data={"values": rows},
        mark={"type": "point", "filled": True, "size": 16, "opacity": 0.5, "aria": False},
        encoding={"x": along("x", "first component"), "y": along("y", "second component"),
                  "color": sides(legend={"orient": "top"})},
    )  # fmt: skip


def given_away(found: Fidelity) -> Spec:
    """What each column gave the classifier."""
    share = found.gains / max(1e-12, float(found.gains.sum()))
    order = numpy.argsort(-share, kind="stable")[:16].tolist()
    rows = [{"column": name_of(found.columns[j]), "share": short(float(share[j]), 4)} for j in order]
    tip = [{"field": "column"}, {"field": "share"}]
    told = ", ".join(f"{r['column']} {r['share']:.0%}" for r in rows[:5])
    y = {"field": "column", "type": "nominal", "sort": None, "title": None, "axis": {"ticks": False}}
    return pictures.spec(
        f"A classifier tells twins from real rows with an AUC of {found.c2st:.3f}; 0.5 is not at all",
        "By which columns it went: their share of the classifier's gain. Near 0.5 this is noise.",
        f"Bars: {told}",
        height=20 * len(rows), data={"values": rows}, mark={"type": "bar", "aria": False, "color": GREY},
        encoding={"y": y, "x": along("share", "share of the gain", axis={"format": "%"}), "tooltip": tip},
    )  # fmt: skip


def distances(found: Mapping[str, Any]) -> Spec:
    """How far twins are from the nearest training row and from the nearest held-out row."""
    top = float(numpy.quantile(numpy.concatenate([found["to_train"], found["to_held"]]), 0.99)) or 1.0
    edges = numpy.linspace(0, top, 41)
    rows = []
    for side, values in (("training rows", found["to_train"]), ("held-out rows", found["to_held"])):
        counts = numpy.histogram(numpy.minimum(values, top), edges)[0] / max(1, len(values))
        rows += [
            {"x": short(float((a + b) / 2)), "share": short(float(c)), "to": side}
            for a, b, c in zip(edges, edges[1:], counts, strict=False)
        ]
    colour = {
        "field": "to", "type": "nominal", "title": "nearest of", "legend": {"orient": "top", "titleOrient": "left"},
        "scale": {"domain": ["training rows", "held-out rows"], "range": [ORANGE, BLUE]},
    }  # fmt: skip
    return pictures.spec(
        f"{found['share_nearer']:.1%} of the twins are nearer to a training row than to a held-out one; 50 % is ideal",
        f"A sum over columns. Who was in training is guessed with an AUC of {found['membership']:.3f}.",
        "Distances of twins to the nearest training row and to the nearest held-out row.",
        height=220, data={"values": rows}, mark={"type": "line", "aria": False, "interpolate": "monotone", "strokeWidth": 2},
        encoding={"x": along("x", "distance"), "y": along("share", "share of twins", axis={"format": "%"}), "color": colour},
    )  # fmt: skip
