"""`mr.plan`: what a question will take, without running it. The same arguments as the analysis; prints as `millrace plan`.

print(mr.plan.explain(model, X))                 a table for this host, one of the tiers, the reasons
mr.plan.explain(model, X).wall_s                 and all else that a `Forecast` and its plan have
mr.plan.explain(model, X, every="1h")            with money a month; or trace="arrivals.csv"
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.forecast import forecast

if TYPE_CHECKING:
    from millrace.forecast import Forecast

Every = str | float | None
Trace = str | os.PathLike[str] | None


def explain(
    model: Any,
    X: Any,
    *,
    cores: int | None = None,
    memory: str | int | None = None,
    every: Every = None,
    trace: Trace = None,
    **question: Any,
) -> Forecast:
    """The plan of `mr.explain(model, X, ...)`: blocks, tasks, slots, peak memory, predicted core-seconds, here and on tiers.

    `every`: it is asked once in so long ("1h"); `trace`: a file of arrivals, in whose queue it comes as often as jobs do.
    """
    machine = compose.Machine(cores=cores, memory=memory)
    return forecast("explain", {"model": model, "data": X, **question}, machine, every, trace)


def refute(
    data: Any,
    treatment: str | None = None,
    outcome: Any = None,
    *,
    cores: int | None = None,
    memory: str | int | None = None,
    every: Every = None,
    trace: Trace = None,
    **question: Any,
) -> Forecast:
    """The plan of `mr.refute(data, treatment, outcome, ...)`; of a DoWhy estimate or model too. `every`, `trace`: see
    `explain`."""
    from millrace.analyses.refute import dowhy

    machine = compose.Machine(cores=cores, memory=memory)
    asked = {"data": data, "treatment": treatment, "outcome": outcome, **question}
    taken = dowhy.taken({name: value for name, value in asked.items() if value is not None})
    return forecast("refute", taken.question, machine, every, trace)


def calibrate(
    simulate: Any,
    *,
    parameters: Any,
    targets: Any,
    cores: int | None = None,
    memory: str | int | None = None,
    every: Every = None,
    trace: Trace = None,
    **question: Any,
) -> Forecast:
    """The plan of `mr.calibrate(simulate, ...)`: simulations, slots, memory; their seconds are learnt by running some.
    `every`, `trace`: see `explain`."""
    machine = compose.Machine(cores=cores, memory=memory)
    asked = {"simulate": simulate, "parameters": parameters, "targets": targets, **question}
    return forecast("calibrate", asked, machine, every, trace)


def validate(
    candidates: Any,
    cases: Any,
    *,
    cores: int | None = None,
    memory: str | int | None = None,
    every: Every = None,
    trace: Trace = None,
    **question: Any,
) -> Forecast:
    """The plan of `mr.validate(candidates, cases, ...)`. `every`, `trace`: see `explain`."""
    machine = compose.Machine(cores=cores, memory=memory)
    return forecast("validate", {"candidates": candidates, "cases": cases, **question}, machine, every, trace)


def twin_fit(
    data: Any,
    *,
    cores: int | None = None,
    memory: str | int | None = None,
    every: Every = None,
    trace: Trace = None,
    **question: Any,
) -> Forecast:
    """The plan of `mr.twin.fit(data, ...)`: a task a column, twice; its peak memory grows with the rows."""
    machine = compose.Machine(cores=cores, memory=memory)
    return forecast("twin fit", {"data": data, **question}, machine, every, trace)


def twin_generate(
    model: Any,
    n: int = 10_000,
    *,
    cores: int | None = None,
    memory: str | int | None = None,
    every: Every = None,
    trace: Trace = None,
    **question: Any,
) -> Forecast:
    """The plan of `mr.twin.generate(model, n, ...)`: its peak memory is the same for any n."""
    machine = compose.Machine(cores=cores, memory=memory)
    return forecast("twin generate", {"model": model, "n": n, **question}, machine, every, trace)
