"""What the plans of twin need to know: read from file headers and a model's own description."""

from __future__ import annotations

from typing import Any

from millrace.analyses.twin import source
from millrace.analyses.twin.model import TwinModel, read_model
from millrace.analyses.twin.plan import AssessFacts, FitFacts, GenerateFacts
from millrace.analyses.twin.spec import Assess, Fit, Generate

JUDGED_TRIES = 3.5
"""Draws of a twin until a judge accepts one."""


def facts_of_fit(spec: Fit) -> FitFacts:
    """The facts of a question that is not run."""
    data = source.open_source(spec.data, limit=spec.limit)
    left_out = {*spec.drop, *source.read_schema(spec.schema).dropped}
    return fit_facts(spec, data, len([n for n in data.names if n not in left_out]))


def fit_facts(spec: Fit, data: source.Source, columns: int) -> FitFacts:
    named = spec.learner if isinstance(spec.learner, str) else type(spec.learner).__name__
    return FitFacts(
        data.rows, columns, data.row_bytes, spec.leaf, spec.joint == "auto", named if spec.outcome is not None else "",
        spec.folds, spec.treatment is not None,
    )  # fmt: skip


def facts_of_generate(spec: Generate) -> GenerateFacts:
    return generate_facts(spec, read_model(spec.model))


def generate_facts(spec: Generate, model: TwinModel, tries: float = 1.0) -> GenerateFacts:
    judged = bool(model.generator.judge)
    return GenerateFacts(
        spec.n, len(model.columns), model_bytes(model.plain), max(tries, JUDGED_TRIES if judged else 1.0), judged
    )


def model_bytes(value: Any) -> int:
    """Of all arrays in it."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(model_bytes(v) for v in value.values())
    return sum(model_bytes(v) for v in value) if isinstance(value, list | tuple) else 0


def facts_of_assess(spec: Assess) -> AssessFacts:
    real = source.open_source(spec.real, "real rows")
    return assess_facts(spec, real)


def assess_facts(spec: Assess, real: source.Source) -> AssessFacts:
    return AssessFacts(real.rows, len(real.names), real.row_bytes, min(spec.rows, real.rows))
