"""Real rows and twins as matrices that measures compare: categories as codes, missing as NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from millrace.analyses.twin import describing, source
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.kernels.dependence import some_rows


def levels_of(columns: Sequence[Column], rows: Sequence[source.Source]) -> dict[str, dict[str, int]]:
    """Codes of the texts of each category: the model's, then those that only the rows have."""
    found = {}
    for c in columns:
        if c.labels and c.kind in ("category", "constant"):
            texts = [*c.labels, *(label for label, _ in c.pooled)]
            for s in rows:
                texts += sorted(describing.texts_of(_text(s.column(c.name)))[1])
            found[c.name] = {t: k for k, t in enumerate(dict.fromkeys(texts))}
    return found


def _text(column: Any) -> Any:
    import pyarrow

    return column if describing.is_text(column) else column.cast(pyarrow.string())


def matrix(rows: source.Source, columns: Sequence[Column], levels: Mapping[str, Mapping[str, int]], most: int) -> Any:
    """float64 (rows, columns): evenly spaced rows, `most` at most; categories as codes, missing NaN."""
    import pyarrow

    at = pyarrow.array(some_rows(rows.rows, most))
    found = numpy.empty((len(at), len(columns)))
    for j, c in enumerate(columns):
        data = rows.column(c.name).take(at)
        if c.name in levels:
            places, texts = describing.texts_of(_text(data))
            table = numpy.array([*(levels[c.name][t] for t in texts), numpy.nan])
            found[:, j] = table[places]
        else:
            found[:, j] = describing.numbers_of(data, c.name)[0]
    return found
