"""Where the simulations of least squares run: their Gram matrices have a body for a GPU (see `on_gpu`).

What is measured is a batch on made-up rows in the question's number of columns, at two numbers of rows, so that a host
measures once for all questions of that shape. Everything else of refute runs on the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from millrace.analyses.refute import batches
from millrace.analyses.refute.plan import Facts, plan
from millrace.analyses.refute.question import Case
from millrace.analyses.refute.spec import SIMULATED, Spec
from millrace.analyses.refute.study import BATCH, Study
from millrace.run import placement
from millrace.run.run import Run
from millrace.run.task import Ref

PLACED = ("bootstrap", "subset")
MOST_COLUMNS = 256
"""Of the basis: beyond, Gram matrices of a batch take more memory than a task has, and conjugate gradients need none."""
MEASURED_ROWS = (4_096, 32_768)
WORTH = 10
"""A question is measured for when its simulations are so many times what measuring takes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the simulations of one estimator are, as `batches.simulate` takes it."""

    estimator: str
    target: str
    options: Mapping[str, Any]
    simulations: int


def follow(run: Run, spec: Spec, cases: Sequence[Case], facts: Facts) -> bool:
    """Follow the plan; whether it leaves room for GPUs, where something of the question has a body for one."""
    some = any(_has_body(spec, case.study) for case in cases)
    return placement.follow(
        run, lambda more: plan(replace(facts, work_bytes=facts.work_bytes + more), run.budget),
        without="" if some else "Nothing of this question has a body for a GPU: all of it runs on the CPU.",
    )  # fmt: skip


def bodies(run: Run, asked: Asked, tests: Sequence[str], study: Study, shared: Any, room: bool) -> Mapping[str, Any]:
    """test -> the function of its tasks, for `run.task`. room: what `follow` said. Measures where it has to, so no stream
    is open."""
    found: dict[str, Any] = dict.fromkeys(tests, batches.simulate)
    if room and _fits(asked.estimator, study):
        heavy = bool(run.value(shared)["heavy"])
        found |= {test: _placed(run, asked, test, study, heavy) for test in tests if test in PLACED}
    return found


def _has_body(spec: Spec, study: Study) -> bool:
    own = spec.estimator if isinstance(spec.estimator, str) else ""
    simulated = any(test in PLACED for test in spec.wanted) and _fits(own, study)
    return simulated or ("estimators" in spec.wanted and _fits("ols", study))


def _fits(estimator: str, study: Study) -> bool:
    columns = 2 + study.confounders.shape[1] * (2 if estimator == "ols_interacted" else 1)
    return estimator in ("ols", "ols_interacted") and columns <= MOST_COLUMNS


def _placed(run: Run, asked: Asked, test: str, study: Study, heavy: bool) -> placement.Placed:
    from millrace.analyses.refute import on_gpu

    exact = asked.options.get("precision") == "exact" or heavy
    which = [test, f"{study.confounders.shape[1]} confounders", *(["float64"] if exact else [])]
    which += ["weights"] * (study.weights is not None) + ["clusters"] * (study.clusters is not None)
    kernel = placement.Kernel(
        batches.simulate, on_gpu.simulate, f"refute {asked.estimator} ({', '.join(which)}; items are rows)", "torch"
    )

    def probe(n: int) -> tuple[Any, ...]:
        like, prepared = _made_up(run, asked, study, n, heavy)
        return (SIMULATED[test], 0), like, prepared, asked.estimator, asked.target, run.seed, dict(asked.options)

    worth = study.rows * asked.simulations >= WORTH * BATCH * sum(MEASURED_ROWS)
    return placement.place(run, kernel, study.rows, probe, MEASURED_ROWS if worth else ())


def _made_up(run: Run, asked: Asked, study: Study, rows: int, heavy: bool) -> tuple[Ref, Ref]:
    """A study of so many rows that looks like this one to the kernels, and what its simulations share."""
    draws = numpy.random.default_rng(rows)
    confounders = draws.standard_normal((rows, study.confounders.shape[1]))
    treatment = draws.standard_normal(rows)
    like = Study(
        (treatment > 0).astype(numpy.float64) if study.binary else treatment, draws.standard_normal(rows), confounders,
        None if study.weights is None else numpy.ones(rows),
        None if study.clusters is None else numpy.arange(rows) % max(2, min(rows // 2, study.groups)),
        None, study.binary,
    )  # fmt: skip
    made = batches.kernel(asked.estimator).prepare(
        like, asked.target, **batches.options_of(asked.estimator, asked.options)
    )
    return run.share(like.arrays()), run.share({**made, "heavy": int(heavy)})
