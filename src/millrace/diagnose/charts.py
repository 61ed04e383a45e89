"""Pictures of a run as Vega-Lite specs (plain dicts), and how any spec becomes a file.

Every spec has a title that says the finding, a `description` for those who cannot see it, the width "container", and
no colours for text or background: `theme` gives those, light or dark. Specs are bounded by what can be seen: at most
`MARKS` marks however many tasks a run had.

Does not compute what it shows (`accounting`, `timeline`), or put pictures into a page (`report`).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.diagnose.accounting import ANALYSIS, PARTS, Accounting
from millrace.diagnose.timeline import KINDS, Timeline, shares
from millrace.diagnose.words import duration, percent, slots
from millrace.run.errors import MissingExtra
from millrace.run.ledger import STATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millrace.run.ledger import History

    Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MARKS = 4_000
LANES = 40
WIDTH_PX = 720

COLOURS = {
    "on_cpu": "#1f6fb4", "collector": "#d98cb3", "off_cpu": "#8cbfe6", "throttled": "#4b2e83", "read": "#12907f",
    "write": "#7fcbb9", "load": "#b98a4a", "start": "#e8890c", "transfer": "#c7a0ee", "engine": "#6e6ef7", "driver": "#8d4b35",
    "starved": "#aab2bd", "tail": "#f0dd55", "stopped": "#757575", "lost": "#c63f17", "cut": "#d5dae0", "host": "#a3b18a",
    "unexplained": "#e3106f", "task": "#1f6fb4",
}  # fmt: skip
"""One colour per part and kind everywhere: blue computes, green moves data, grey idles, red is lost. Kinds, which only a
legend names, stay apart for eyes without red or green cones too; parts are named beside their bars."""

KIND_LABELS = {
    "task": "in a task", "start": "starting", "transfer": "sending", "engine": "engine", "driver": "driver",
    "starved": "no task", "tail": "last tasks", "stopped": "stopped", "lost": "lost", "cut": "not recorded",
    "unexplained": "unexplained", "host": "host is busy",
}  # fmt: skip

NAMES = ("#1f6fb4", "#ee9b20", "#12907f", "#b7a3dc", "#aab2bd")


def core_seconds(accounting: Accounting) -> Spec:
    """One bar of all core-seconds, and beneath it each part at its place in it, the largest first."""
    a = accounting
    parts = [p for p in PARTS if p != "unexplained" and a.parts_ns[p] > 0]
    parts = [*sorted(parts, key=lambda p: (p not in ANALYSIS, -a.parts_ns[p])), "unexplained"]
    rows: list[dict[str, Any]] = []
    at = 0.0
    for part in parts:
        share = a.share(part)
        told = {"part": part, "what": PARTS[part], "low": round(at, 5), "high": round(at + share, 5)}
        rows.append(
            {
                **told,
                "row": f"{PARTS[part]}  {percent(share)}",
                "time": duration(a.parts_ns[part] / 1e9),
            }
        )
        at += share
    labels = ["all together", *(row["row"] for row in rows)]
    y = {
        "field": "row",
        "type": "nominal",
        "sort": None,
        "title": None,
        "scale": {"domain": labels, "paddingInner": 0.3},
    }
    encoding = {
        "x": {"field": "low", "type": "quantitative", "title": None, "scale": {"domain": [0, 1]},
              "axis": {"format": "%", "tickCount": 4}},
        "x2": {"field": "high"},
        "y": y,
        "color": _colours("part", {p: p for p in parts}, legend=False),
        "tooltip": [{"field": "row", "title": "part"}, {"field": "time", "title": "core-time"}],
    }  # fmt: skip
    bar = {"type": "bar", "minBandSize": 1, "aria": False}
    analysis = percent(a.share(*ANALYSIS))
    return _spec(
        f"{analysis} of the core-seconds went into the analysis",
        f"{slots(a)} for {duration(a.wall_ns / 1e9)} are {a.core_ns / 1e9:,.1f} core-seconds. "
        "Each part stands where it lies in the whole.",
        f"Bar of {a.core_ns / 1e9:.1f} core-seconds: " + ", ".join(row["row"] for row in rows),
        height=24 * len(labels),
        data={"values": rows},
        encoding=encoding,
        layer=[
            {"transform": [{"calculate": "'all together'", "as": "row"}], "mark": bar},
            {"mark": {**bar, "cornerRadius": 1}},
        ],
    )


def lanes(timeline: Timeline, history: History) -> Spec:
    """What each slot did over time: every piece when they are few, else steps that show the mixture as heights."""
    few = _few(timeline)
    rows, labels = _pieces(timeline, history) if few else _steps(timeline)
    scale, unit = _time_unit(timeline.wall_ns)
    for row in rows:
        row["label"] = KIND_LABELS[row.pop("kind")]
        row["from"], row["to"] = _figure(row["from"] * scale), _figure(row["to"] * scale)
    shown = {row["label"] for row in rows}
    colours = {KIND_LABELS[k]: k for k in KINDS if KIND_LABELS[k] in shown}
    tip = [{"field": "label", "title": "what"}, *([{"field": "name", "title": "task"}] if few else [])]
    for end in ("from", "to"):
        tip.append({"field": end, "title": f"{end} ({unit})", "format": ".4~g"})
    axis = {
        "values": [i + 0.5 for i in range(len(labels))], "labelExpr": f"{json.dumps(labels)}[floor(datum.value)]",
        "grid": False, "labelOverlap": True,
    }  # fmt: skip
    thin = few and len(rows) <= 400
    return _spec(
        f"The slots were in a task {percent(_busy(timeline))} of the time",
        "One lane per slot over time." if few else "Slots over time; heights show the mixture within each step of time.",
        f"Timeline of {len(timeline.lanes)} slots over {duration(timeline.wall_ns / 1e9)}: {_mixture(timeline)}",
        height=max(48, min(440, 34 * len(labels))),
        data={"values": rows},
        mark={"type": "rect", "aria": False, "strokeWidth": 0.5, **({"stroke": "white"} if thin else {})},
        encoding={
            "x": _time_axis(timeline),
            "x2": {"field": "to"},
            "y": {"field": "low", "type": "quantitative", "title": "slot", "axis": axis,
                  "scale": {"domain": [0, max(1, len(labels))], "reverse": True, "nice": False}},
            "y2": {"field": "high"},
            "color": _colours("label", colours),
            **({} if thin else {"stroke": _colours("label", colours)}),
            "tooltip": tip,
        },
    )  # fmt: skip


def _few(timeline: Timeline) -> bool:
    return len(timeline.lanes) <= LANES and sum(len(lane.labels) for lane in timeline.lanes) <= MARKS // 2


def _pieces(timeline: Timeline, history: History) -> tuple[list[dict[str, Any]], list[str]]:
    rows = []
    for place, lane in enumerate(timeline.lanes):
        attempt = np.searchsorted(lane.begins, lane.edges[:-1], side="right") - 1
        for i, code in enumerate(lane.labels.tolist()):
            row = {
                "kind": KINDS[code],
                "low": place + 0.08,
                "high": place + 0.92,
                **_span(timeline, lane.edges, i),
            }
            row["name"] = _name(history, int(lane.attempts[attempt[i]])) if KINDS[code] == "task" else ""
            rows.append(row)
    return rows, [str(lane.slot) for lane in timeline.lanes]


def _span(timeline: Timeline, edges: NDArray[Any], i: int) -> dict[str, float]:
    return {"from": float(edges[i] - timeline.from_ns), "to": float(edges[i + 1] - timeline.from_ns)}


def _name(history: History, row: int) -> str:
    columns = history.columns
    state = STATES[columns["state"][row]]
    told = f"{history.names[columns['name'][row]]} {columns['item'][row]}"
    return told if state == "done" else f"{told} ({state})"


def _steps(timeline: Timeline) -> tuple[list[dict[str, Any]], list[str]]:
    """Stacked shares in steps, as fine as MARKS allows. Many slots share a lane."""
    count = len(timeline.lanes)
    together = -(-count // LANES)
    starts = range(0, count, together)
    bins = 400
    while True:
        each = shares(timeline, bins)
        mixed = np.stack([each[first : first + together].mean(axis=0) for first in starts])
        rows = [row for place, of_lane in enumerate(mixed) for row in _stacked(of_lane, place, timeline.wall_ns / bins)]
        if len(rows) <= MARKS or bins <= 10:
            break
        bins = int(bins * max(0.5, min(0.9, MARKS / len(rows))))
    return rows, [str(f) if together == 1 else f"{f}–{min(count, f + together) - 1}" for f in starts]


def _stacked(mixed: NDArray[Any], place: int, step: float) -> list[dict[str, Any]]:
    """Pieces of one lane from its shares (KINDS, steps); neighbours that look the same are joined."""
    mixed = np.where(mixed < 0.01, 0.0, mixed)
    tops = np.cumsum(mixed / np.maximum(mixed.sum(axis=0), 1e-12), axis=0)
    levels = np.round(place + 0.92 - 0.84 * np.concatenate((np.zeros((1, mixed.shape[1])), tops)), 3)
    rows: list[dict[str, Any]] = []
    for code in np.flatnonzero(mixed.any(axis=1)).tolist():
        last: dict[str, Any] = {}
        for b in np.flatnonzero(mixed[code]).tolist():
            height = {"low": float(levels[code + 1, b]), "high": float(levels[code, b])}
            if last and last["to"] == b * step and all(abs(last[e] - height[e]) < 0.02 for e in height):
                last["to"] = (b + 1) * step
            else:
                last = {"kind": KINDS[code], **height, "from": b * step, "to": (b + 1) * step}
                rows.append(last)
    return rows


def utilisation(timeline: Timeline) -> Spec:
    """What part of the slots was in a task, and in what else, over time."""
    scale, unit = _time_unit(timeline.wall_ns)
    bins = 120
    mixed = shares(timeline, bins).mean(axis=0)
    tops = np.cumsum(mixed, axis=0)
    step = timeline.wall_ns / bins * scale
    kinds = [k for code, k in enumerate(KINDS) if mixed[code].max(initial=0.0) > 0.002]
    rows = [
        {"label": KIND_LABELS[KINDS[code]], "from": _figure(b * step), "to": _figure((b + 1) * step),
         "share": _figure(mixed[code, b]), "low": _figure(tops[code, b] - mixed[code, b]), "high": _figure(tops[code, b])}
        for code, kind in enumerate(KINDS) if kind in kinds
        for b in np.flatnonzero(mixed[code] > 0.0005).tolist()
    ]  # fmt: skip
    lows = float((mixed[KINDS.index("task")] < 0.5).mean())
    said = f"less than half of them in {percent(lows)} of the time" if lows else "never less than half of them"
    return _spec(
        f"{percent(_busy(timeline))} of the slots were in a task on average, {said}",
        "What part of the slots was doing what, over time.",
        f"Stacked areas over time: {_mixture(timeline)}",
        height=180,
        data={"values": rows},
        mark={"type": "rect", "aria": False, "strokeWidth": 0.5},
        encoding={
            "x": _time_axis(timeline),
            "x2": {"field": "to"},
            "y": {"field": "low", "type": "quantitative", "title": "share of slots", "scale": {"domain": [0, 1]},
                  "axis": {"format": "%", "tickCount": 5}},
            "y2": {"field": "high"},
            "color": _colours("label", {KIND_LABELS[k]: k for k in kinds}),
            "stroke": _colours("label", {KIND_LABELS[k]: k for k in kinds}),
            "tooltip": [{"field": "label", "title": "what"}, {"field": "share", "format": ".1%"},
                        {"field": "from", "title": f"from ({unit})", "format": ".4~g"}],
        },
    )  # fmt: skip


def _time_axis(timeline: Timeline) -> Spec:
    scale, unit = _time_unit(timeline.wall_ns)
    domain = {"domain": [0, _figure(timeline.wall_ns * scale) or 1], "nice": False}
    title = f"time since the start ({unit})"
    return {"field": "from", "type": "quantitative", "title": title, "scale": domain, "axis": {"grid": False}}


def durations(history: History, accounting: Accounting) -> Spec:
    """Histogram of how long attempts took, on a logarithmic axis, by task name (the four longest, and the rest)."""
    columns = {n: np.asarray(history.columns[n]) for n in ("name", "started_ns", "ended_ns")}
    ran = (columns["started_ns"] > 0) & (columns["ended_ns"] > columns["started_ns"])
    took = (columns["ended_ns"] - columns["started_ns"])[ran] / 1e9
    names = columns["name"][ran]
    low, high = (took.min() / 1.02, took.max() * 1.02) if len(took) else (0.001, 1.0)
    per_decade = max(8, min(24, int(36 / max(1.0, np.log10(high / low)))))
    first, last = np.floor(np.log10(low) * per_decade), np.ceil(np.log10(high) * per_decade)
    edges = 10 ** (np.arange(first, last + 1) / per_decade)
    top = [f.name for f in accounting.tasks[:4] if f.total_s]
    groups = [(name, names == history.names.index(name)) for name in top]
    rest = ~np.isin(names, [history.names.index(name) for name in top])
    rows, below = [], np.zeros(len(edges) - 1, dtype=int)
    for name, mask in [*groups, *([("other", rest)] if rest.any() else [])]:
        counts = np.histogram(took[mask], edges)[0]
        for i in np.flatnonzero(counts).tolist():
            rows.append({"task": name, "from": _figure(edges[i]), "to": _figure(edges[i + 1]), "count": int(counts[i]),
                         "low": int(below[i]), "high": int(below[i] + counts[i])})  # fmt: skip
        below += counts
    shown = list(dict.fromkeys(row["task"] for row in rows))
    head = accounting.tasks[0] if accounting.tasks and accounting.tasks[0].total_s else None
    said = (
        f"{head.name} took {duration(head.median_s)} as a rule, {duration(head.p95_s)} at the 95th percentile"
        if head
        else "No task ran"
    )
    colour = {"field": "task", "type": "nominal", "title": None, "scale": {"domain": shown, "range": list(NAMES[: len(shown)])},
              "legend": _legend() if len(shown) > 1 else None}  # fmt: skip
    return _spec(
        said,
        f"How long {len(took):,} attempts took, on a logarithmic axis.",
        f"Histogram of the durations of {len(took)} attempts. {said}.",
        height=180,
        data={"values": rows},
        mark={"type": "rect", "aria": False},
        encoding={
            "x": {"field": "from", "type": "quantitative", "title": "duration of an attempt",
                  "scale": {"type": "log", "domain": [_figure(edges[0]), _figure(edges[-1])], "nice": False},
                  "axis": {"grid": False, "labelExpr": "format(datum.value, '~s') + 's'", "labelOverlap": "greedy",
                           "values": _log_ticks(edges[0], edges[-1])}},
            "x2": {"field": "to"},
            "y": {"field": "low", "type": "quantitative", "title": "attempts", "axis": {"tickMinStep": 1, "tickCount": 5}},
            "y2": {"field": "high"},
            "color": colour,
            "tooltip": [{"field": "task"}, {"field": "count"}, {"field": "from", "title": "from (s)", "format": ".3~g"},
                        {"field": "to", "title": "to (s)", "format": ".3~g"}],
        },
    )  # fmt: skip


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    return [_figure(m * 10.0**d) for d in decades for m in steps if low <= m * 10.0**d <= high]


def _busy(timeline: Timeline) -> float:
    total = timeline.wall_ns * len(timeline.lanes)
    return sum(lane.total_ns("task") for lane in timeline.lanes) / total if total else 0.0


def _mixture(timeline: Timeline) -> str:
    total = max(1, timeline.wall_ns * len(timeline.lanes))
    told = {k: sum(lane.total_ns(k) for lane in timeline.lanes) / total for k in KINDS}
    return ", ".join(f"{KIND_LABELS[k]} {percent(s)}" for k, s in sorted(told.items(), key=lambda t: -t[1]) if s)


def _time_unit(wall_ns: int) -> tuple[float, str]:
    """Factor from ns, and the unit in which a run of this length is read."""
    for unit, per in (("h", 3600e9), ("min", 60e9), ("s", 1e9)):
        if wall_ns >= 3 * per:
            return 1 / per, unit
    return 1e-6, "ms"


def _colours(field: str, kinds: Mapping[str, str], legend: bool = True) -> Spec:
    return {
        "field": field, "type": "nominal", "title": None,
        "scale": {"domain": list(kinds), "range": [COLOURS[k] for k in kinds.values()]},
        "legend": _legend() if legend and kinds else None,  # an empty legend has no size
    }  # fmt: skip


def _legend() -> Spec:
    return {
        "orient": "top",
        "title": None,
        "offset": 14,
        "columns": {"expr": "width < 300 ? 2 : width < 480 ? 3 : width < 600 ? 5 : 6"},
    }


def _figure(value: float) -> float:
    return float(f"{value:.5g}")


def _spec(title: str, subtitle: str, description: str, **rest: Any) -> Spec:
    said = {"text": title, "subtitle": textwrap.wrap(subtitle, 105)}
    return {"$schema": SCHEMA, "title": said, "description": description, "width": "container", **rest}


def theme(dark: bool = False) -> Spec:
    """A Vega-Lite config: type, spacing and colours of everything that is not data."""
    ink, quiet, line = ("#e8eaed", "#aab2bd", "#3a4149") if dark else ("#1c2127", "#5b6470", "#dde1e6")
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"
    return {
        "font": font,
        "background": None,
        "view": {"stroke": None},
        "title": {
            "anchor": "start", "frame": "bounds", "color": ink, "fontSize": 15, "fontWeight": 600, "offset": 12,
            "subtitleColor": quiet, "subtitleFontSize": 12, "subtitlePadding": 5, "subtitleLineHeight": 16,
        },
        "axis": {
            "labelColor": quiet, "titleColor": quiet, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400,
            "gridColor": line, "domainColor": line, "tickColor": line, "labelLimit": 220, "titlePadding": 8,
        },
        "axisY": {"domain": False, "ticks": False, "labelPadding": 8},
        "legend": {
            "labelColor": ink, "titleColor": quiet, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400,
            "symbolType": "square", "labelLimit": 220, "columnPadding": 14, "rowPadding": 4,
        },
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": ink},
    }  # fmt: skip


def save_chart(spec: Mapping[str, Any], path: str | Path, width_px: int = WIDTH_PX) -> tuple[Path, Path]:
    """Write `path`.png (twice the size in pixels) and `path`.svg on white, and return both paths."""
    try:
        import vl_convert
    except ImportError as e:
        raise MissingExtra("vl-convert-python", "report", "Saving pictures") from e
    base = Path(path)
    base.parent.mkdir(parents=True, exist_ok=True)
    png, svg = base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")
    sized = {**spec, "width": width_px} if spec.get("width") == "container" else dict(spec)
    sized |= {"background": "white", "padding": 16, "config": {**theme(), **spec.get("config", {})}}
    drawn = vl_convert.vegalite_to_svg(sized)
    svg.write_text(drawn, encoding="utf-8")
    png.write_bytes(vl_convert.svg_to_png(drawn, scale=2))
    return png, svg
