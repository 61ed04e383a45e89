"""explain: the order of work. Read the question, plan it, run its blocks, put the answer together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain import question as questions
from millrace.analyses.explain.answer import Explanation
from millrace.analyses.explain.plan import Facts, block_rows, plan, tolerance
from millrace.analyses.explain.spec import Spec
from millrace.run.canonical import Unkeyable
from millrace.run.errors import NotAdditive
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import numpy

    from millrace.analyses.explain.question import Question
    from millrace.run.run import Run

MAPPED_BYTES = 64 << 20
"""An answer larger than this is assembled in a memory-mapped file instead of in the driver's memory."""


def explain(spec: Spec, run: Run) -> Explanation:
    """SHAP values of `spec.model` on `spec.data`."""
    run.progress("reading")
    asked = questions.read(spec, run.note, run.rng)
    if asked.forest is not None:
        facts, blocks = _tree_blocks(spec, asked, run)
    elif asked.line is not None:
        facts, blocks = _linear_blocks(spec, asked, run)
    else:
        facts, blocks = _kernel_blocks(spec, asked, run)
    return _gather(spec, asked, facts, blocks, run)


def _cut(rows: int, size: int) -> list[tuple[int, int]]:
    return [(a, min(a + size, rows)) for a in range(0, rows, size)]
