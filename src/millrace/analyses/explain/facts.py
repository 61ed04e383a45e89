"""What the plan of explain needs to know, read from a loaded question or from attributes and file headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.plan import Facts
from millrace.analyses.explain.spec import Spec

if TYPE_CHECKING:
    from millrace.analyses.explain.kernels.structure import Structure
    from millrace.analyses.explain.kernels.trees import Layout
    from millrace.analyses.explain.question import Question


def asked_type(spec: Spec) -> Any:
    import numpy

    return numpy.dtype(spec.precision)
