"""How `twin simulate` is cut, and what it will take: pure arithmetic on facts, and these, read from the model's own description.

A task is a block of twins, as in `generate`; all interventions are asked of it together, so that a model is asked once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millrace.analyses.twin.facts import model_bytes
from millrace.analyses.twin.intervention import read_all
from millrace.analyses.twin.model import TwinModel, read_model
from millrace.analyses.twin.plan import (
    DRAW_S,
    DRIVER_BYTES,
    KERNEL_BYTES,
    VALUE_BYTES,
    WORKER_BYTES,
    block_rows,
)
from millrace.analyses.twin.simulate_spec import Simulate
from millrace.run.budget import Budget, Plan, fit

MODELS_BYTES = 60 << 20
"""LightGBM and the models that it has read."""
TREE_S = 6e-8
"""Core-seconds of a row in a tree of 31 leaves."""
BASIS_BYTES = 16 * 64
"""Of a row, for the projection of its effect."""
KEPT_BYTES = 40
"""Of an eligible twin and intervention in the driver: its number, its effect, its groups, and both once more in order."""
DRAWS_BYTES = 200_000
"""Of what one group's effect may be."""


@dataclass(frozen=True, slots=True)
class Facts:
    """trees: that a twin passes, of all models and interventions together. groups: columns that twins are grouped by."""

    n: int
    columns: int
    model_bytes: int
    trees: int
    interventions: int
    groups: int


def facts_of_simulate(spec: Simulate) -> Facts:
    """The facts of a question that is not run."""
    return facts(spec, read_model(spec.model), read_all(spec.intervention))


def facts(spec: Simulate, model: TwinModel, interventions: tuple[Any, ...], n: int | None = None) -> Facts:
    sources = [i.effect.source for i in interventions]
    trees = 0
    if "learned" in sources:
        trees += sum(_trees(m["trees"]) for m in model.effects.models.values()) if model.effects is not None else 0
    if "structural" in sources and model.outcome is not None:
        trained = (model.outcome.trained, *model.outcome.by_fold)
        trees += (1 + sources.count("structural")) * sum(_trees(t) for t in trained)
    return Facts(n or spec.n, len(model.columns), model_bytes(model.plain), trees, len(interventions), len(spec.by))


def _trees(trained: Any) -> int:
    """Of a model as LightGBM's text; 300 of another learner's."""
    return trained.count("\nTree=") if isinstance(trained, str) else 300


def plan_simulate(facts: Facts, budget: Budget) -> Plan:
    """Blocks, bytes and core-seconds under a budget; `DoesNotFit` with what would do."""
    block = min(block_rows(facts.columns), facts.n)
    row_bytes = (VALUE_BYTES + 16) * facts.columns + BASIS_BYTES
    kept = facts.n * facts.interventions * (KEPT_BYTES + 4 * facts.groups)
    return fit(
        Plan(
            analysis="twin simulate", method="twins", tasks=-(-facts.n // block), block=block, slots=1,
            worker_bytes=WORKER_BYTES + MODELS_BYTES + block * row_bytes,
            driver_bytes=DRIVER_BYTES + MODELS_BYTES + kept + DRAWS_BYTES * 20 * max(1, facts.groups),
            shared_bytes=facts.model_bytes, answer_bytes=8 * facts.n * facts.interventions,
            core_s=facts.n * (facts.columns * DRAW_S + facts.trees * TREE_S),
            base_bytes=WORKER_BYTES - KERNEL_BYTES,
            why=(
                f"{facts.n:,} twins of {facts.columns} columns in blocks of {block:,}, {facts.interventions} interventions",
                f"each twin passes {facts.trees:,} trees",
            ),
        ),
        budget,
    )  # fmt: skip
