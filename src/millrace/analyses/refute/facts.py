"""What the plan of refute needs to know, read from a loaded question.

Seconds are arithmetic on the question's shape, with constants measured on one core; they predict, and never enter a result.
"""

from __future__ import annotations

from typing import Any

from millrace.analyses.refute.plan import Facts
from millrace.analyses.refute.question import Asked, read
from millrace.analyses.refute.spec import Spec

PASS_S = 5e-10
"""A float32 multiply-add of a basis column for one simulation's row, with drawing its counts."""
STEPS = {"bootstrap": 6.0, "subset": 6.0, "placebo": 1.0, "random_common_cause": 2.5}
"""Passes over the basis that a simulation of least squares takes, its random numbers included."""
NEWTON = {"ipw": 6.0, "aipw": 14.0}
"""Passes of the same kind for an estimator that fits a propensity anew."""
FIT_S = 4e-9
"""A multiply-add of the float64 passes that are made once."""
MODEL_S = 2e-7
"""A value of a confounder in one of DML's models, all trees and both nuisances."""
CALL_S = 0.05
"""A call of a user's own estimator; the true time is not known before."""


def facts(spec: Spec) -> Facts:
    """The facts of a question that is not run: its data are read, nothing is estimated."""
    return facts_of(spec, read(spec, lambda text: None))


def facts_of(spec: Spec, asked: Asked) -> Facts:
    from millrace.analyses.refute.analysis import SIMULATED, tests_of

    tests = [t for t in tests_of(spec) if t in SIMULATED]
    n = max(case.study.rows for case in asked.cases)
    p = max(len(case.names) for case in asked.cases)
    study = asked.cases[0].study
    own = not isinstance(spec.estimator, str) or ":" in spec.estimator
    clusters = 0 if study.clusters is None else int(study.clusters.max()) + 1
    work, shared = (0, 0) if own else _memory(spec, n, p, clusters, study.binary, study.weights is not None)
    each = {t: _seconds(spec, t, n, p, own) for t in tests}
    alone = own or (spec.estimator == "dml" and spec.options.get("fast") is None)
    mapped = any(_is_mapped(case.study.confounders) for case in asked.cases)
    return Facts(
        estimator="own" if own else spec.estimator, rows=n, confounders=p, cases=len(asked.cases), tests=tuple(tests),
        simulations=spec.simulations, each=1 if alone else None, test_s=tuple(each.values()),
        once_s=FIT_S * n * (p + 2) ** 2 * 4 + 1e-8 * n * (p + 2), work_bytes=work + (n * (p + 4) * 16 if own else 0),
        shared_bytes=shared, data_bytes=n * (p + 4) * 8, driver_rows_bytes=0 if mapped else n * p * 8, column_bytes=n * 8,
    )  # fmt: skip


def _memory(spec: Spec, n: int, p: int, clusters: int, binary: bool, weighted: bool) -> tuple[int, int]:
    from millrace.analyses.refute import batches

    options = batches.options_of(spec.estimator, spec.options)
    kernel = batches.kernel(spec.estimator)
    if spec.estimator in ("ols", "ols_interacted"):
        options |= {"binary": binary, "weighted": weighted, "precision": spec.precision}
    found: tuple[int, int] = kernel.memory(n, p, clusters=clusters, **options)
    return found


def _seconds(spec: Spec, test: str, n: int, p: int, own: bool) -> float:
    """Core-seconds of one simulation."""
    if own:
        return CALL_S
    if spec.estimator == "dml":
        return 1e-8 * n if spec.options.get("fast") else MODEL_S * n * p
    if spec.estimator == "matching":
        return 1.5e-7 * n
    passes = NEWTON.get(spec.estimator, STEPS[test] * (2 if spec.estimator == "ols_interacted" else 1))
    return PASS_S * n * (p + 2) * passes + 2e-8 * n


def _is_mapped(array: Any) -> bool:
    import numpy

    while array is not None:
        if isinstance(array, numpy.memmap):
            return True
        array = getattr(array, "base", None)
    return False
