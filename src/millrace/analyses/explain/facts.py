"""What the plan of explain needs to know, read from a loaded question.

Seconds a row are arithmetic on the question's shape, with constants measured on one core; they size blocks (see `plan`)
and predict, and never enter a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.plan import Facts
from millrace.analyses.explain.spec import Spec

if TYPE_CHECKING:
    from millrace.analyses.explain.kernels.structure import Structure
    from millrace.analyses.explain.kernels.trees import Layout
    from millrace.analyses.explain.question import Question

LINEAR_S = 1.5e-9
"""A value of a linear model: read, subtract, multiply, write."""
CALL_S = 2.5e-7
"""A row through an unknown model: what a small neural network takes; the true time is not known before."""


def asked_type(spec: Spec) -> Any:
    import numpy

    return numpy.dtype(spec.precision)


def _shape(spec: Spec, asked: Question) -> dict[str, Any]:
    rows = asked.rows.values
    return {
        "method": asked.method,
        "rows": rows.shape[0],
        "features": rows.shape[1],
        "kept": asked.outputs,
        "input_bytes": rows.dtype.itemsize,
        "value_bytes": asked_type(spec).itemsize,
        "background_rows": 0 if asked.background is None else len(asked.background),
    }


def linear_facts(spec: Spec, asked: Question) -> Facts:
    assert asked.line is not None
    outputs = len(asked.line.intercepts)
    return Facts(
        "linear", outputs=outputs, row_s=LINEAR_S * asked.rows.values.shape[1] * outputs, **_shape(spec, asked)
    )


def kernel_facts(spec: Spec, asked: Question, evaluations: int, exact: bool) -> Facts:
    from millrace.analyses.explain.kernels import coalitions

    shape = _shape(spec, asked)
    background, features = shape["background_rows"], shape["features"]
    scratch = coalitions.scratch_bytes(features, background, asked.outputs, shape["input_bytes"], evaluations)
    design, making = coalitions.design_bytes(features, spec.max_evaluations)
    return Facts(
        "kernel",
        outputs=asked.outputs,
        row_s=CALL_S * evaluations * background,
        exact=exact,
        scratch_bytes=scratch,
        table_bytes=design,
        build_s=0.0,
        evaluations=evaluations,
        driver_extra_bytes=making,
        **shape,
    )
