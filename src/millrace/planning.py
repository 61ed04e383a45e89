"""`mr.plan`: what a question will take on this machine, without running it. The same arguments as the analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.forecast import forecast

if TYPE_CHECKING:
    from millrace.run.budget import Plan


def explain(model: Any, X: Any, *, cores: int | None = None, memory: str | int | None = None, **question: Any) -> Plan:
    """The plan of `mr.explain(model, X, ...)`: blocks, tasks, slots, peak memory, predicted core-seconds."""
    machine = compose.Machine(cores=cores, memory=memory)
    return forecast("explain", {"model": model, "data": X, **question}, machine).plan


def refute(
    data: Any,
    treatment: str | None = None,
    outcome: Any = None,
    *,
    cores: int | None = None,
    memory: str | int | None = None,
    **question: Any,
) -> Plan:
    """The plan of `mr.refute(data, treatment, outcome, ...)`; of a DoWhy estimate or model too."""
    from millrace.analyses.refute import dowhy

    machine = compose.Machine(cores=cores, memory=memory)
    asked = {"data": data, "treatment": treatment, "outcome": outcome, **question}
    taken = dowhy.taken({name: value for name, value in asked.items() if value is not None})
    return forecast("refute", taken.question, machine).plan


def calibrate(
    simulate: Any,
    *,
    parameters: Any,
    targets: Any,
    cores: int | None = None,
    memory: str | int | None = None,
    **question: Any,
) -> Plan:
    """The plan of `mr.calibrate(simulate, ...)`: simulations, slots, memory; their seconds are learnt by running some."""
    machine = compose.Machine(cores=cores, memory=memory)
    asked = {"simulate": simulate, "parameters": parameters, "targets": targets, **question}
    return forecast("calibrate", asked, machine).plan


def validate(
    candidates: Any, cases: Any, *, cores: int | None = None, memory: str | int | None = None, **question: Any
) -> Plan:
    """The plan of `mr.validate(candidates, cases, ...)`."""
    machine = compose.Machine(cores=cores, memory=memory)
    return forecast("validate", {"candidates": candidates, "cases": cases, **question}, machine).plan
