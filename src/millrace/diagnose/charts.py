"""Pictures of a run as Vega-Lite specs (plain dicts), and how any spec becomes a file.

Every spec has a title that says the finding, a `description` for those who cannot see it, the width "container", and
no colours for text or background: `theme` gives those, light or dark. Specs are bounded by what can be seen: at most
`MARKS` marks however many tasks a run had.

Does not compute what it shows (`accounting`, `timeline`), or put pictures into a page (`report`).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.diagnose.accounting import PARTS, Accounting, percent
from millrace.diagnose.timeline import KINDS, Timeline, shares
from millrace.run.errors import MissingExtra
from millrace.run.ledger import STATES
from millrace.run.units import format_duration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millrace.run.ledger import History

    Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MARKS = 4_000
LANES = 40
WIDTH_PX = 720

COLOURS = {
    "on_cpu": "#1f6fb4", "off_cpu": "#8cbfe6", "throttled": "#5b3a8e", "read": "#12907f", "write": "#7fcbb9",
    "load": "#b98a4a", "start": "#ee9b20", "transfer": "#b7a3dc", "engine": "#7d5ba6", "driver": "#d07aa8",
    "starved": "#aab2bd", "tail": "#ecd04c", "stopped": "#737d8c", "lost": "#c63f17", "cut": "#cfd5dc",
    "unexplained": "#e3106f", "task": "#1f6fb4",
}  # fmt: skip
"""One colour per part and kind everywhere: blue computes, green moves data, warm waits at the edges, red is lost."""

KIND_LABELS = {
    "task": "in a task", "start": "starting", "transfer": "sending", "engine": "engine", "driver": "driver",
    "starved": "no task", "tail": "last tasks", "stopped": "stopped", "lost": "lost", "cut": "not recorded",
    "unexplained": "unexplained",
}  # fmt: skip

NAMES = ("#1f6fb4", "#ee9b20", "#12907f", "#b7a3dc", "#aab2bd")


def core_seconds(accounting: Accounting) -> Spec:
    """One bar of all core-seconds, and beneath it each part at its place in it, largest first within its group."""
    a = accounting
    parts = [p for p in PARTS if p != "unexplained" and a.parts_ns[p] > 0]
    parts = [*sorted(parts, key=lambda p: (p not in ("on_cpu", "off_cpu"), -a.parts_ns[p])), "unexplained"]
    rows, at = [], 0.0
    for part in parts:
        share = a.share(part)
        said = f"{percent(share)}   {format_duration(a.parts_ns[part] / 1e9)}"
        rows.append({"part": part, "label": PARTS[part], "low": at, "high": at + share, "said": said})
        at += share
    labels = ["all together", *(row["label"] for row in rows)]
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "scale": {"domain": labels, "paddingInner": 0.3}}
    x = {"field": "low", "type": "quantitative", "title": None, "axis": None, "scale": {"domain": [0, 1]}}
    colour = _colours("part", {p: p for p in parts}, legend=False)
    tip = [{"field": "label", "title": "part"}, {"field": "said", "title": "share, core-time"}]
    whole = {"transform": [{"calculate": "'all together'", "as": "label"}]}
    bars = {"x": x, "x2": {"field": "high"}, "y": y, "color": colour, "tooltip": tip[:1]}
    text = {"y": y, "text": {"field": "said"}}
    analysis = a.share("on_cpu", "off_cpu")
    return _spec(
        f"{percent(analysis)} of the core-seconds went into the analysis",
        f"{a.slots} slots for {format_duration(a.wall_ns / 1e9)} are {a.core_ns / 1e9:,.1f} core-seconds. "
        "Each part stands where it lies in the whole.",
        f"Bar of {a.core_ns / 1e9:.1f} core-seconds: " + ", ".join(f"{r['label']} {r['said']}" for r in rows),
        height={"step": 24},
        data={"values": rows},
        layer=[
            {**whole, "mark": {"type": "bar", "height": 22}, "encoding": {**bars, "tooltip": tip}},
            {"mark": {"type": "bar", "cornerRadius": 1, "minBandSize": 1}, "encoding": {**bars, "tooltip": tip}},
            _label("datum.high < 0.62", "left", 6, text, "high"),
            _label("datum.high >= 0.62", "right", -6, text, "low"),
        ],
    )


def _label(when: str, align: str, dx: int, encoding: Mapping[str, Any], at: str) -> Spec:
    """Text beside a bar, on the side that has room."""
    return {
        "transform": [{"filter": when}],
        "mark": {"type": "text", "align": align, "dx": dx},
        "encoding": {**encoding, "x": {"field": at, "type": "quantitative"}},
    }


def lanes(timeline: Timeline, history: History) -> Spec:
    """What each slot did over time: every piece when they are few, else steps that show the mixture as heights."""
    rows, labels = _pieces(timeline, history) if _few(timeline) else _steps(timeline)
    scale, unit = _time_unit(timeline.wall_ns)
    kinds = [k for k in KINDS if k in {row["kind"] for row in rows}]
    for row in rows:
        row["from"], row["to"] = round(row["from"] * scale, 5), round(row["to"] * scale, 5)
    busy = _busy(timeline)
    tip = [
        {"field": "label", "title": "what"},
        {"field": "from", "title": f"from ({unit})", "format": ".4~g"},
        {"field": "to", "title": f"to ({unit})", "format": ".4~g"},
    ]
    if rows and "name" in rows[0]:
        tip += [{"field": "name", "title": "task"}]
    axis = {
        "values": [i + 0.5 for i in range(len(labels))], "labelExpr": f"{json.dumps(labels)}[floor(datum.value)]",
        "grid": False, "ticks": False, "domain": False,
    }  # fmt: skip
    stroke = {"stroke": "white", "strokeWidth": 0.4} if len(rows) <= 400 else {}
    return _spec(
        f"The slots were in a task {percent(busy)} of the time",
        "One lane per slot over time. " + ("" if _few(timeline) else "Heights show the mixture within each step of time."),
        f"Timeline of {len(timeline.lanes)} slots over {format_duration(timeline.wall_ns / 1e9)}: {_mixture(timeline)}",
        height=max(60, min(420, 34 * len(labels))),
        data={"values": [{**row, "label": KIND_LABELS[row["kind"]]} for row in rows]},
        mark={"type": "rect", **stroke},
        encoding={
            "x": {"field": "from", "type": "quantitative", "title": f"time since the start ({unit})", "scale": {"nice": False},
                  "axis": {"grid": False}},
            "x2": {"field": "to"},
            "y": {"field": "low", "type": "quantitative", "title": "slot", "axis": axis,
                  "scale": {"domain": [0, max(1, len(labels))], "reverse": True, "nice": False}},
            "y2": {"field": "high"},
            "color": _colours("label", {KIND_LABELS[k]: k for k in kinds}),
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
            row = {"kind": KINDS[code], "low": place + 0.08, "high": place + 0.92, **_span(timeline, lane.edges, i)}
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
    """Stacked shares in steps; neighbouring steps that hold one kind alone are joined. Many slots share a lane."""
    slots = len(timeline.lanes)
    together = -(-slots // LANES)
    count = -(-slots // together)
    bins = max(20, min(400, MARKS // (3 * max(1, count))))
    mixed = shares(timeline, bins)
    mixed = np.stack([mixed[i * together : (i + 1) * together].mean(axis=0) for i in range(count)])
    mixed[mixed < 0.004] = 0.0
    mixed /= np.maximum(mixed.sum(axis=1, keepdims=True), 1e-12)
    tops = np.cumsum(mixed, axis=1)
    step = timeline.wall_ns / bins
    rows: list[dict[str, Any]] = []
    for place in range(count):
        open_at: dict[int, dict[str, Any]] = {}
        for b in range(bins):
            for code in np.flatnonzero(mixed[place, :, b]).tolist():
                high, low = (place + 0.08 + 0.84 * (1 - v) for v in (tops[place, code, b], tops[place, code, b] - mixed[place, code, b]))
                last = open_at.get(code)
                if last and last["to"] == b * step and abs(last["low"] - high) < 0.01 and abs(last["high"] - low) < 0.01:
                    last["to"] = (b + 1) * step
                    continue
                open_at[code] = {"kind": KINDS[code], "from": b * step, "to": (b + 1) * step, "low": round(high, 3), "high": round(low, 3)}
                rows.append(open_at[code])
    labels = [
        str(first) if together == 1 else f"{first}–{min(slots, first + together) - 1}" for first in range(0, slots, together)
    ]
    return rows, labels


def utilisation(timeline: Timeline) -> Spec:
    """What part of the slots was in a task, and in what else, over time."""
    scale, unit = _time_unit(timeline.wall_ns)
    bins = 120
    mixed = shares(timeline, bins).mean(axis=0)
    step = timeline.wall_ns / bins * scale
    kinds = [k for code, k in enumerate(KINDS) if mixed[code].max(initial=0.0) > 0.002]
    rows = [
        {"kind": KIND_LABELS[k], "order": KINDS.index(k), "from": round(b * step, 5), "to": round((b + 1) * step, 5),
         "share": round(float(mixed[KINDS.index(k), b]), 4)}
        for k in kinds
        for b in range(bins)
        if mixed[KINDS.index(k), b] > 0.0005
    ]  # fmt: skip
    lows = [b for b in range(bins) if mixed[KINDS.index("task"), b] < 0.5]
    share_low = len(lows) / bins
    said = f"less than half of them in {percent(share_low)} of the time" if lows else "never less than half of them"
    return _spec(
        f"{percent(_busy(timeline))} of the slots computed on average, {said}",
        "What part of the slots was doing what, over time.",
        f"Stacked areas over time: {_mixture(timeline)}",
        height=180,
        data={"values": rows},
        mark={"type": "bar", "binSpacing": 0},
        encoding={
            "x": {"field": "from", "type": "quantitative", "title": f"time since the start ({unit})", "scale": {"nice": False},
                  "axis": {"grid": False}},
            "x2": {"field": "to"},
            "y": {"field": "share", "type": "quantitative", "title": "share of slots", "stack": "zero",
                  "axis": {"format": "%", "tickCount": 5}, "scale": {"domain": [0, 1]}},
            "order": {"field": "order"},
            "color": _colours("kind", {KIND_LABELS[k]: k for k in kinds}),
            "tooltip": [{"field": "kind", "title": "what"}, {"field": "share", "format": ".1%"},
                        {"field": "from", "title": f"from ({unit})", "format": ".4~g"}],
        },
    )  # fmt: skip


def durations(history: History, accounting: Accounting) -> Spec:
    """Histogram of how long attempts took, on a logarithmic axis, by task name (the four longest, and the rest)."""
    columns = {n: np.array(history.columns[n], dtype=np.int64) for n in ("name", "started_ns", "ended_ns")}
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
    rows = []
    for name, mask in [*groups, *([("other", rest)] if rest.any() else [])]:
        counts = np.histogram(took[mask], edges)[0]
        for i in np.flatnonzero(counts).tolist():
            rows.append({"task": name, "from": _figure(edges[i]), "to": _figure(edges[i + 1]), "count": int(counts[i])})
    shown = list(dict.fromkeys(row["task"] for row in rows))
    head = accounting.tasks[0] if accounting.tasks and accounting.tasks[0].total_s else None
    said = (
        f"{head.name} took {format_duration(head.median_s)} as a rule, {format_duration(head.p95_s)} at the 95th percentile"
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
        mark={"type": "bar", "binSpacing": 1},
        encoding={
            "x": {"field": "from", "type": "quantitative", "title": "duration of an attempt",
                  "scale": {"type": "log", "domain": [_figure(edges[0]), _figure(edges[-1])], "nice": False},
                  "axis": {"grid": False, "labelExpr": "format(datum.value, '~s') + 's'", "labelOverlap": "greedy",
                           "values": _log_ticks(edges[0], edges[-1])}},
            "x2": {"field": "to"},
            "y": {"field": "count", "type": "quantitative", "title": "attempts", "stack": "zero",
                  "axis": {"tickMinStep": 1, "tickCount": 5}},
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
        "legend": _legend() if legend else None,
    }  # fmt: skip


def _legend() -> Spec:
    return {"orient": "top", "title": None, "columns": {"expr": "width < 420 ? 2 : width < 620 ? 4 : 6"}}


def _figure(value: float) -> float:
    return float(f"{value:.5g}")


def _spec(title: str, subtitle: str, description: str, **rest: Any) -> Spec:
    lines: Sequence[str] = textwrap.wrap(subtitle.strip(), 105)
    return {
        "$schema": SCHEMA,
        "title": {"text": title, "subtitle": lines} if lines else title,
        "description": description,
        "width": "container",
        **rest,
    }


def theme(dark: bool = False) -> Spec:
    """A Vega-Lite config: type, spacing and colours of everything that is not data."""
    ink, quiet, line = ("#e8eaed", "#aab2bd", "#3a4149") if dark else ("#1c2127", "#5b6470", "#dde1e6")
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"
    return {
        "font": font,
        "background": None,
        "view": {"stroke": None},
        "title": {
            "anchor": "start", "frame": "group", "color": ink, "fontSize": 15, "fontWeight": 600, "offset": 12,
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
        "rule": {"color": quiet},
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
    png.write_bytes(vl_convert.vegalite_to_png(sized, scale=2))
    svg.write_text(vl_convert.vegalite_to_svg(sized), encoding="utf-8")
    return png, svg
