"""Where Kernel SHAP runs: models that a device can be asked (see `kernels.device_models`) have a body for a GPU.

What is measured is one row of the data against two sizes of background, in calls of the model; the name is the model's shape,
so that a host measures once for all models of that shape. All other methods run on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.plan import Facts, plan
from millrace.run import placement

if TYPE_CHECKING:
    from millrace.analyses.explain.kernels.device_models import Form
    from millrace.analyses.explain.question import Question
    from millrace.run.run import Run

LEAST_ROWS = 64
"""Measuring takes as long as some rows do: questions of fewer rows are not measured for."""
TRIED_ROWS = 64


def follow(run: Run, asked: Question, facts: Facts) -> Form | None:
    """Follow the plan; the model as a device can be asked, where one may be and the plan has room for it."""
    form = None
    if placement.may_use_gpu(run):
        from millrace.analyses.explain.kernels.device_models import form_of

        assert asked.function is not None
        form = form_of(asked.function, asked.rows.values[:TRIED_ROWS])
    room = placement.follow(
        run, lambda more: plan(replace(facts, scratch_bytes=facts.scratch_bytes + more), run.budget),
        without="" if form else "This model cannot be asked on a GPU (only PyTorch modules and trees can): it runs on the CPU.",
    )  # fmt: skip
    return form if room else None


def placed(
    run: Run, asked: Question, facts: Facts, form: Form, work: Callable[..., Any], shared: tuple[Any, ...]
) -> Any:
    """The function of the blocks' tasks: `work`, or its body on a GPU. shared: what `work` is given after block and rows."""
    import numpy

    from millrace.analyses.explain import on_gpu

    assert asked.background is not None
    columns, known = asked.background.shape[1], len(asked.background)
    calls = max(1, facts.evaluations) + 1
    kernel = placement.Kernel(
        work,
        partial(on_gpu.kernel_rows, form=form),
        f"explain ({form.name}, {columns} columns; items are calls)",
        "torch",
    )

    def probe(n: int) -> tuple[Any, ...]:
        count = n // calls
        some = numpy.resize(asked.background, (count, columns))
        like = run.share({"rows": some, "weights": numpy.full(count, 1 / count)})
        _, player_of, precision, _, design, *_ = shared
        return (0, 1), run.share(asked.rows.values[:1]), like, player_of, precision, 0.0, design

    sizes = (calls * max(1, known // 8), calls * max(8, known)) if asked.count >= LEAST_ROWS else ()
    chosen = placement.place(run, kernel, calls * known, probe, sizes)
    return chosen if chosen.side == "gpu" else work
