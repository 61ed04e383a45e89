"""Pictures of a validation as Vega-Lite specs (plain dicts): candidates x cases, verdicts, processor time.

Each says its finding in the title and how to read it in the caption. Computes nothing that is not in a picture; reads the
table a column at a time.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace.analyses.validate.writing import CODES
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.analyses.validate.answer import Validation

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = {
    "pass": "#2f7fc4", "wrong": "#d0481f", "error": "#bd7400", "cpu_limit": "#8a5fb0", "memory": "#5d8f3f",
    "crash": "#33393f", "inconclusive": "#b9a400", "rejected": "#c98bb0", "not run": "#d9dde2",
}  # fmt: skip
"""Shades differ too, for those who cannot tell the colours apart; every mark tells its verdict in words."""
MOST_ROWS, MOST_CASES = 60, 60
BINS = 40


def charts(answer: Validation) -> dict[str, Spec]:
    """All pictures by name; what there is nothing to show of is left out."""
    found = {"matrix": matrix(answer), "verdicts": verdicts(answer), "cpu": cpu(answer)}
    return {name: chart for name, chart in found.items() if chart is not None}


def plot(answer: Validation, kind: str) -> Spec:
    """One picture; `WrongQuestion` for a name that there is not."""
    found = charts(answer)
    if kind not in found:
        raise WrongQuestion(f"There is no picture {kind!r} of this validation. There are {', '.join(found)}.")
    return found[kind]


def matrix(answer: Validation) -> Spec | None:
    """The best candidates, a row each, and what came of each of their cases."""
    read = answer.rows_of("id", "task", "passes", "score", "size", "cases", "same_as", "verdict")
    rows = [r for r in read.to_pylist() if r["same_as"] < 0 and r["cases"] and r["verdict"] != "rejected"]  # those ran
    if not rows:
        return None
    best = sorted(rows, key=lambda r: (-r["passes"], -r["score"], r["size"]))[:MOST_ROWS]
    labels = answer.cases
    values = []
    for place, row in enumerate(best):
        names = labels.get(row["task"]) or [label for group in labels.values() for label in group]
        for i, code in enumerate(row["cases"][:MOST_CASES]):
            told = {"row": place, "id": row["id"], "case": i, "label": names[i], "came": CODES[code]}
            values.append({**told, "task": row["task"]})
    shown = list(dict.fromkeys(v["came"] for v in values))
    ids = [row["id"] for row in best]
    title = f"{answer.counts.get('pass', 0):,} of {answer.rows:,} candidates pass every case"
    caption = [f"The best {len(best)} distinct programs, best first, on their cases in the order in which these came."]
    if any(len(row["cases"]) > MOST_CASES for row in best):
        caption.append(f"Of each the first {MOST_CASES} cases.")
    return _spec(
        title, " ".join(caption), f"Candidates by cases: {title}",
        width=max(160, min(720, 24 * max(len(r["cases"][:MOST_CASES]) for r in best))),
        height=14 * len(best),
        data={"values": values},
        mark={"type": "rect", "stroke": "white", "strokeWidth": 0.5},
        encoding={
            "x": {"field": "case", "type": "ordinal", "title": "case", "axis": {"labelAngle": 0, "labelOverlap": True}},
            "y": {"field": "row", "type": "ordinal", "title": None, "axis": {"labelExpr": _names(ids), "labelLimit": 180}},
            "color": _colour("came", shown),
            "tooltip": [_tip("id", "candidate"), _tip("task", "task"), _tip("label", "case"), _tip("came", "verdict")],
        },
    )  # fmt: skip


def verdicts(answer: Validation) -> Spec | None:
    """How many candidates had which verdict."""
    if not answer.counts:
        return None
    values = [{"verdict": v, "candidates": n} for v, n in sorted(answer.counts.items(), key=lambda item: -item[1])]
    names = [v["verdict"] for v in values]
    most = values[0]
    return _spec(
        f"{most['candidates']:,} of {answer.rows:,} candidates: {most['verdict']}",
        "Each candidate has one verdict: that of the first case that it does not pass, or pass.",
        "Candidates by verdict: " + ", ".join(f"{v['candidates']:,} {v['verdict']}" for v in values),
        width=460,
        height={"step": 26},
        data={"values": values},
        encoding={"y": {"field": "verdict", "type": "nominal", "sort": names, "title": None},
                  "x": {"field": "candidates", "type": "quantitative", "title": "candidates", "axis": {"tickMinStep": 1}}},
        layer=[
            {"mark": {"type": "bar"}, "encoding": {"color": {**_colour("verdict", names), "legend": None}}},
            {"mark": {"type": "text", "align": "left", "dx": 4},
             "encoding": {"text": {"field": "candidates", "type": "quantitative", "format": ","}}},
        ],
    )  # fmt: skip


def cpu(answer: Validation) -> Spec | None:
    """Processor time of a candidate, all its cases together."""
    read = answer.rows_of("cpu_s", "same_as").to_pydict()
    times = [t for t, same in zip(read["cpu_s"], read["same_as"], strict=True) if same < 0 and t > 0]
    if len(times) < 2:
        return None
    values, median = _histogram(times), sorted(times)[len(times) // 2]
    return _spec(
        f"Half of the programs take less than {1e3 * median:.3g} ms",
        "Processor time of a distinct program, all cases that it ran together; both axes are logarithmic.",
        f"Distribution of processor time over {len(times):,} programs, median {1e3 * median:.3g} ms",
        width=460,
        height=200,
        data={"values": values},
        mark={"type": "bar", "color": COLOURS["pass"]},
        encoding={
            "x": {"field": "low", "type": "quantitative", "scale": {"type": "log"}, "title": "processor time (ms)",
                  "axis": {"labelOverlap": "greedy", "labelSeparation": 8}},
            "x2": {"field": "high"},
            "y": {"field": "count", "type": "quantitative", "title": "programs", "scale": {"type": "symlog"}},
            "y2": {"datum": 0},
            "tooltip": [_tip("low", "from (ms)"), _tip("high", "to (ms)"), _tip("count", "programs")],
        },
    )  # fmt: skip


def _histogram(times: Sequence[float]) -> list[Mapping[str, float]]:
    low, high = math.log10(min(times)), math.log10(max(times))
    width = max(1e-3, (high - low) / BINS)
    counts = Counter(min(BINS - 1, int((math.log10(t) - low) / width)) for t in times)
    return [
        {"low": 1e3 * 10 ** (low + i * width), "high": 1e3 * 10 ** (low + (i + 1) * width), "count": n}
        for i, n in sorted(counts.items())
    ]


def _colour(field: str, shown: Sequence[str]) -> Spec:
    scale = {"domain": list(shown), "range": [COLOURS[name] for name in shown]}
    return {"field": field, "type": "nominal", "title": None, "scale": scale}


def _names(ids: Sequence[str]) -> str:
    return f"{json.dumps(list(ids))}[datum.value]"


def _tip(field: str, title: str) -> Spec:
    return {"field": field, "title": title}


def _spec(title: str, caption: str, description: str, **more: Any) -> Spec:
    return {
        "$schema": SCHEMA,
        "description": description,
        "title": {"text": title, "subtitle": caption, "anchor": "start"},
        "background": "transparent",
        **more,
    }
