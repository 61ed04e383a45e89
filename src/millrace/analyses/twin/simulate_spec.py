"""The questions of `twin simulate` and `twin track`; light, since help and completion read them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from millrace.analyses.twin.recommend import LEAST_FIDELITY, SMALLEST
from millrace.analyses.twin.spec import WRITTEN, Closed, Names

FILES = {"metavar": "FILE,FILE,..."}


class Simulate(Closed):
    """Which interventions on which twins, and what is asked of them."""

    model: Any = Field(description="what fit made: its folder")
    intervention: Any = Field(
        description="what could be done: TOML files, or a folder of them (several are ranked)", json_schema_extra=FILES
    )
    twins: Any = Field(
        None,
        description="twins that generate made, a Parquet file (not given: drawn here)",
        json_schema_extra={"metavar": "FILE"},
    )
    n: int = Field(100_000, ge=100, description="twins that are drawn")
    where: Any = Field(
        None, description="only such twins: \"decile <= 3 and region == 'west'\"", json_schema_extra=WRITTEN
    )
    by: Names = Field((), description="columns whose groups have effects of their own")
    goal: Literal["higher", "lower"] = Field("higher", description="what is better of the outcome: higher, lower")
    value_per_unit: float | None = Field(None, gt=0, description="money that one unit of the outcome is worth")
    budget: float | None = Field(None, gt=0, description="money that may be spent: who should be treated first")
    population: int | None = Field(
        None, ge=1, description="real units that the twins stand for (each twin one, when not given)"
    )
    smallest: float = Field(
        SMALLEST, ge=0, description="smallest effect of interest, in outcome units (never less than its cost is worth)"
    )
    smallest_money: float | None = Field(None, gt=0, description="the same as money a unit (needs value_per_unit)")
    level: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    power: float = Field(0.8, gt=0, lt=1, description="of the real experiment that is proposed")
    attrition: float = Field(0.1, ge=0, lt=1, description="share of a real experiment's units that drop out")
    fidelity: float | None = Field(
        None, ge=0, le=1, description="of the model's past results (not given: from its record)"
    )
    least_fidelity: float = Field(LEAST_FIDELITY, ge=0, le=1, description="below which nothing is deployed")
    record: Any = Field(
        None, description="record of `twin track` (not given: the model's)", json_schema_extra={"metavar": "FILE"}
    )

    @model_validator(mode="after")
    def _money(self) -> Simulate:
        if self.smallest_money is not None and self.value_per_unit is None:
            raise ValueError(
                "the smallest effect is given as money, and value_per_unit is not: what is one unit of the outcome worth?"
            )
        return self

    def smallest_effect(self, cost_per_unit: float) -> float:
        """Of interest, in outcome units. Where a unit's worth is known, an effect that is worth less than it costs is none."""
        if self.value_per_unit is None:
            return self.smallest
        if self.smallest_money is not None:
            return self.smallest_money / self.value_per_unit
        return max(self.smallest, cost_per_unit / self.value_per_unit)


class Track(Closed):
    """What was simulated, and what really came."""

    simulation: Any = Field(description="what simulate answered: its folder")
    actual: float = Field(description="the real effect, in outcome units a unit that was offered it")
    actual_se: float = Field(0.0, ge=0, description="its standard error (not given: taken as exact)")
    intervention: str | None = Field(None, description="of which intervention, when several were simulated")
    group: str | None = Field(None, description="of which group, such as region=west (not given: of all)")
    near_zero: float = Field(0.01, ge=0, description="an actual effect smaller than this is compared absolutely")
    record: Any = Field(
        None, description="where results are kept (not given: the model's)", json_schema_extra={"metavar": "FILE"}
    )
    new: Any = Field(None, description="new real rows, to see whether the population has changed: a table or a file")
    training: Any = Field(None, description="the rows that the model was fitted on, beside the new ones")
    at: str | None = Field(
        None, description="when, as 2026-01-31 (not given: now)", json_schema_extra={"metavar": "DATE"}
    )

    @model_validator(mode="after")
    def _both(self) -> Track:
        if (self.new is None) != (self.training is None):
            raise ValueError("drift is of new rows against those of the training: give new and training, or neither")
        return self
