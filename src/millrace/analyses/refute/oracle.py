"""The naive reference: really resample the rows, really permute the treatment, and fit the estimator anew.

For tests and for whoever wants to see for himself; a thousand times slower than `kernels`, and without any of their tricks
(only the random numbers are the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from millrace.analyses.refute.batches import kernel, options_of
from millrace.analyses.refute.kernels import resample
from millrace.analyses.refute.spec import SIMULATED
from millrace.analyses.refute.study import Study


def simulate_plainly(
    estimator: str, test: str, i: int, table: Any, treatment: str, outcome: str, causes: Sequence[str], *, seed: int = 0,
    fraction: float = 0.8, target: str = "ate", options: dict[str, Any] | None = None,
) -> float:  # fmt: skip
    """The effect in simulation i of a test, of a table of numbers without missing values (columns by name)."""
    columns = [numpy.asarray(table[name], numpy.float64) for name in causes]
    study = Study(
        numpy.asarray(table[treatment], float), numpy.asarray(table[outcome], float), numpy.column_stack(columns)
    )
    kind, n = SIMULATED[test], len(columns[0])
    changed: dict[str, Any]
    if kind in ("bootstrap", "subset"):
        changed = {"counts": resample.counts(n, kind, seed, i, fraction=fraction)}  # type: ignore[arg-type]
    elif kind == "placebo":
        changed = {"treatment": resample.permuted(study.treatment, seed, i)}
    else:
        changed = {"column": resample.column(n, seed, i)}
    effect, _ = kernel(estimator).refit(study, target=target, **changed, **options_of(estimator, options or {}))
    return float(effect)
