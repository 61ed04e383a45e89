"""Pictures of an outcome model: what came of rows beside what was predicted of them, and which columns it goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy

from millrace.analyses.twin import pictures
from millrace.analyses.twin.kernels import learners
from millrace.analyses.twin.outcome import OutcomeModel
from millrace.analyses.twin.pictures import BLUE, GREY, Spec, along, layer, name_of, short
from millrace.run.units import format_figure as figure

TENTHS, MOST_COLUMNS = 10, 15


def charts(model: OutcomeModel) -> dict[str, Spec]:
    """By name; what there is nothing to show of is left out."""
    made = {} if model.seen is None else {"outcome": predicted(model, *model.seen)}
    gains = drivers(model)
    return made | ({"drivers": _of_drivers(model, gains)} if gains else {})


def predicted(model: OutcomeModel, target: Any, unseen: Any) -> Spec:
    """Tenths of the rows by what was predicted of them: the mean of what came, and where the middle of it lies."""
    edges = numpy.unique(numpy.quantile(unseen, numpy.linspace(0, 1, TENTHS + 1)[1:-1]))
    at = numpy.searchsorted(edges, unseen, side="right")
    side = (1 - model.conformal.coverage) / 2
    rows = []
    for b in range(len(edges) + 1):
        inside = at == b
        if not inside.any():
            continue
        y, p = target[inside], unseen[inside]
        low, high = numpy.quantile(y, [side, 1 - side]) if model.kind == "number" else _of_share(y)
        rows.append({
            "predicted": short(float(p.mean())), "came": short(float(y.mean())), "low": short(float(low)),
            "high": short(float(high)), "rows": int(inside.sum()),
        })  # fmt: skip
    ends = [min(r["predicted"] for r in rows), max(r["predicted"] for r in rows)]
    s, number = model.scores, model.kind == "number"
    how = f"R2 {s['r2']:.3f}" if number else f"AUC {s['auc']:.3f}"
    what = model.outcome if number else f"share of {model.outcome} = {_label(model.labels[1])}"
    lines = f"where {1 - 2 * side:.0%} of them lie" if number else "95% intervals of these shares"
    x = along("predicted", f"{what}, predicted", scale={"zero": False})
    tip = [{"field": n} for n in ("predicted", "came", "low", "high", "rows")]
    first, last = rows[0], rows[-1]
    axis = {"title": f"{what}, as it came", "type": "quantitative", "scale": {"zero": False}}
    return pictures.spec(
        f"{how} on rows that the model had not seen: predicted {figure(first['predicted'])}, came {figure(first['came'])}; "
        f"predicted {figure(last['predicted'])}, came {figure(last['came'])}",
        f"Points: tenths of the rows by prediction, and the mean of what came. Lines: {lines}. Dashed: exactly as predicted.",
        f"Predictions of {model.outcome} beside what came, in tenths of the rows. {how}.",
        height=260,
        layer=[
            layer("line", {"x": x, "y": {"field": "predicted", **axis}},
                  [{"predicted": v} for v in ends], color=GREY, strokeDash=[4, 3]),
            layer("rule", {"x": x, "y": {"field": "low", **axis}, "y2": {"field": "high"}}, rows, color=BLUE, opacity=0.5,
                  strokeWidth=2),
            layer("point", {"x": x, "y": {"field": "came", **axis}, "tooltip": tip}, rows, color=BLUE, filled=True, size=70),
        ],
    )  # fmt: skip


def _of_share(y: Any) -> tuple[float, float]:
    """A 95 % interval of a share (Wilson 1927)."""
    n, p, z = len(y), float(y.mean()), 1.959963984540054
    middle, reach = p + z * z / (2 * n), z * float(numpy.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def drivers(model: OutcomeModel) -> Mapping[str, float]:
    """Share of the loss that splits on each column took away, the largest first; of LightGBM's models alone."""
    if model.learner not in learners.OF_LIGHTGBM:
        return {}
    import lightgbm

    gains = lightgbm.Booster(model_str=model.trained).feature_importance("gain")
    if not gains.sum() > 0:
        return {}
    order = numpy.argsort(-gains, kind="stable")
    return {model.encoding.names[j]: float(gains[j] / gains.sum()) for j in order.tolist()}


def _of_drivers(model: OutcomeModel, gains: Mapping[str, float]) -> Spec:
    shown = list(gains.items())[:MOST_COLUMNS]
    rows = [{"column": name_of(n), "share": short(v, 4)} for n, v in shown]
    first = ", ".join(f"{n} {v:.0%}" for n, v in shown[:3])
    left = len(gains) - len(shown)
    y = {"field": "column", "type": "nominal", "sort": None, "title": None, "axis": {"ticks": False, "labelLimit": 170}}
    return pictures.spec(
        f"{shown[0][0]} tells most of {model.outcome}" + (f", then {shown[1][0]}" if len(shown) > 1 else ""),
        "Share of what splits on a column gain in fit. It tells what predicts, and not what causes; `explain` tells how."
        + (f" {left} more {'column gives' if left == 1 else 'columns give'} less." if left else ""),
        f"Columns by which {model.outcome} is predicted: {first}.",
        height=20 * len(rows), data={"values": rows}, mark={"type": "bar", "aria": False, "color": BLUE},
        encoding={"y": y, "x": along("share", "share of the gain", axis={"format": "%"}),
                  "tooltip": [{"field": "column"}, {"field": "share"}]},
    )  # fmt: skip
