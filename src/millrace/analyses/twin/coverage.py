"""How many held-out real rows the intervals of the outcome model hold, beside how many they promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy

from millrace.analyses.twin import features
from millrace.analyses.twin import outcome as outcomes
from millrace.analyses.twin.kernels.dependence import some_rows
from millrace.analyses.twin.outcome import OutcomeModel
from millrace.analyses.twin.source import Source

LEAST_ROWS = 50


def of_intervals(model: OutcomeModel, held: Source, most: int) -> tuple[Mapping[str, Any] | None, str]:
    """(outcome, promised, held, rows; a note). Rows without the outcome, or with a label that the model has not seen, tell
    nothing; None when fewer than LEAST_ROWS are left, or the outcome or a column is not there."""
    import pyarrow

    missing = [n for n in (model.outcome, *model.encoding.names) if n not in held.names]
    if missing:
        return None, f"Coverage of the outcome's intervals is unknown: the holdout has no column {missing[0]!r}."
    some = pyarrow.array(some_rows(held.rows, most))
    table = pyarrow.table({n: held.column(n).take(some) for n in (model.outcome, *model.encoding.names)})
    known = ~numpy.isnan(outcomes.as_numbers(table.column(model.outcome), model.outcome, model.labels))
    for name, labels in model.encoding.labels.items():
        if features.OTHER not in labels:
            known &= _seen(table.column(name), labels)
    left_out = int((~known).sum())
    if known.sum() < LEAST_ROWS:
        return None, (
            f"Coverage of the outcome's intervals is unknown: {int(known.sum()):,} held-out rows have {model.outcome} and labels "
            f"that the model knows, and {LEAST_ROWS} are the least."
        )
    table = table.filter(pyarrow.array(known))
    y = outcomes.as_numbers(table.column(model.outcome), model.outcome, model.labels)
    if model.kind == "number":
        low, high = model.intervals(table)
        inside = (y >= low) & (y <= high)
    else:
        inside = model.sets(table)[numpy.arange(len(y)), y.astype(int)]
    note = f"{left_out:,} held-out rows without {model.outcome}, or with labels that it has not seen, tell nothing of intervals."
    found = {
        "outcome": model.outcome, "promised": model.conformal.coverage, "held": float(inside.mean()), "rows": len(y),
    }  # fmt: skip
    return found, note if left_out else ""


def _seen(column: Any, labels: tuple[str, ...]) -> Any:
    """bool by row: missing, or one of the labels."""
    import pyarrow
    import pyarrow.compute as pc

    texts = column.cast(pyarrow.large_string())
    found = pc.or_(pc.is_in(texts, value_set=pyarrow.array(list(labels), pyarrow.large_string())), pc.is_null(texts))
    return numpy.asarray(found.to_numpy(zero_copy_only=False), bool)
