"""A look at a file of twins: how its columns are distributed, by the first rows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin import describing, pictures
from millrace.analyses.twin.pictures import ORANGE, Spec, along, name_of, short
from millrace.analyses.twin.views import AXIS_PX, BARS, FEW_VALUES, LEVELS, PANEL_PX

LOOKED_AT, PANELS = 20_000, 24


def charts(path: Path, where: str) -> dict[str, Spec]:
    """Nothing of a file that has gone."""
    if not path.exists():
        return {}
    table = _first(path)
    panels = [p for p in (_panel(n, table.column(n)) for n in table.column_names) if p is not None]
    if not panels:
        return {}
    shown = panels[:PANELS]
    left = len(panels) - len(shown)
    drawn = pictures.spec(
        f"Twins with {where}" if where else "What the twins are like",
        f"Share of the twins, by the first {table.num_rows:,} of them." + (f" {left} more columns." if left else ""),
        f"Distributions of {len(shown)} columns of twins.", concat=shown, columns=3, spacing=16,
    )  # fmt: skip
    return {"columns": drawn}


def _first(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return pyarrow.Table.from_batches(
            [next(file.iter_batches(LOOKED_AT), pyarrow.RecordBatch.from_pylist([], file.schema_arrow))]
        )


def _panel(name: str, column: Any) -> Spec | None:
    """None for what has nothing to show: keys and columns without a value."""
    n, missing = len(column), column.null_count
    if missing == n:
        return None
    if describing.is_text(column):
        places, texts = describing.texts_of(column)
        counts = numpy.bincount(places[places >= 0], minlength=len(texts))
        if len(texts) > n / 2:
            return None
        top = numpy.argsort(-counts, kind="stable")[:LEVELS].tolist()
        rows = [{"level": name_of(texts[k], 14), "share": short(counts[k] / n, 4)} for k in top]
        return _of_levels(name, rows, missing / n)
    values, kind, arrow = describing.numbers_of(column, name)
    known = values[~numpy.isnan(values)]
    levels, counts = numpy.unique(known, return_counts=True)
    if len(levels) <= FEW_VALUES and kind != "date":
        truth = ("no", "yes") if kind == "boolean" else None
        named = [truth[int(v)] if truth else f"{v:g}" for v in levels]
        rows = [{"level": m, "share": short(c / n, 4)} for m, c in zip(named, counts.tolist(), strict=True)]
        return _of_levels(name, rows, missing / n)
    low, high = (float(v) for v in numpy.quantile(known, [0.002, 0.998]))
    edges = numpy.linspace(low, high if high > low else low + 1, BARS + 1)
    shares = numpy.histogram(numpy.clip(known, edges[0], edges[-1]), edges)[0] / n
    at: Any = short
    if kind == "date":
        unit = 1.0 if arrow.startswith("date") else 86_400e6
        at = lambda v: str(numpy.datetime64("1970-01-01") + numpy.timedelta64(int(v / unit), "D"))  # noqa: E731
    rows = [{"x": at(edges[k]), "x2": at(edges[k + 1]), "share": short(shares[k], 4)} for k in range(BARS)]
    dates = isinstance(rows[0]["x"], str)
    x = {"field": "x", "type": "temporal" if dates else "quantitative", "title": None,
         "axis": {"tickCount": 4, "grid": False},
         "scale": {"nice": False} if dates else {"zero": False, "nice": False}}  # fmt: skip
    axis = {"format": ".0%", "tickCount": 3, "grid": False, "minExtent": AXIS_PX, "maxExtent": AXIS_PX}
    encoding = {
        "x": x,
        "x2": {"field": "x2"},
        "y": along("share", axis=axis),
        "y2": {"datum": 0},
        "tooltip": _tips("x", "x2"),
    }
    return _frame(name, rows, encoding)


def _of_levels(name: str, rows: list[Spec], missing: float) -> Spec:
    rows = [*rows, *([{"level": "missing", "share": short(missing, 4)}] if missing else [])]
    shown = {"labelLimit": AXIS_PX - 6, "ticks": False, "minExtent": AXIS_PX, "maxExtent": AXIS_PX}
    y = {"field": "level", "type": "nominal", "title": None, "sort": None, "axis": shown}
    axis = {"format": "%", "tickCount": 3, "grid": False}
    return _frame(name, rows, {"y": y, "x": along("share", axis=axis), "tooltip": _tips("level")})


def _tips(*names: str) -> list[Spec]:
    return [{"field": n} for n in (*names, "share")]


def _frame(name: str, rows: list[Spec], encoding: Spec) -> Spec:
    title = {"text": name_of(name), "fontSize": 12, "anchor": "start"}
    mark = {"type": "bar", "aria": False, "color": ORANGE, "opacity": 0.75, "binSpacing": 0.5}
    return {
        "title": title, "width": PANEL_PX, "height": 110, "data": {"values": rows}, "mark": mark, "encoding": encoding,
    }  # fmt: skip
