"""The parts of the question of calibrate: parameters with their bounds, targets with their data, numbers of replicates.

Frozen pydantic models, with the short forms that people write: `(0.1, 0.5)` is a float, `("log", 0.01, 1)` its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

KINDS = ("float", "int", "log", "logit", "categorical", "fixed")
LOSSES = ("squared", "absolute", "normal", "poisson", "binomial", "beta-binomial")


class Closed(BaseModel):
    """Frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Parameter(Closed):
    """One parameter of the simulator. `log` and `logit` are sampled evenly on that scale; `fixed` is not sampled."""

    kind: Literal["float", "int", "log", "logit", "categorical", "fixed"] = Field("float", description="how it varies")
    low: float | None = Field(None, description="lower bound")
    high: float | None = Field(None, description="upper bound")
    choices: tuple[Any, ...] = Field((), description="values of a categorical one; points of a grid")
    value: Any = Field(None, description="of a fixed one")
    points: int = Field(5, ge=2, description="points of it in a grid")

    @property
    def continuous(self) -> bool:
        return self.kind in ("float", "log", "logit")

    @model_validator(mode="after")
    def _whole(self) -> Parameter:
        if self.kind == "fixed":
            if self.value is None:
                raise ValueError("a fixed parameter needs its value")
            return self
        if self.kind == "categorical":
            if not self.choices:
                raise ValueError("a categorical parameter needs choices")
            return self
        if self.low is None or self.high is None:
            raise ValueError(f"a parameter of kind {self.kind} needs low and high")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"its bounds are not finite: {self.low}, {self.high}")
        if self.low >= self.high:
            raise ValueError(f"its bounds are inverted or equal: low {self.low} is not below high {self.high}")
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f"low must be above 0 on the log scale, and is {self.low}")
        if self.kind == "logit" and not 0 < self.low < self.high < 1:
            raise ValueError("bounds on the logit scale lie between 0 and 1, without these")
        if self.kind == "int" and (self.low % 1 or self.high % 1):
            raise ValueError(f"the bounds of an int are whole numbers, and are {self.low}, {self.high}")
        return self


class Target(Closed):
    """What the simulator is to reproduce: observed data, and how simulated outputs are compared with them."""

    name: str = Field(description="unique among the targets")
    data: Any = Field(description="observed: a file, a table, a mapping of columns, or a list of numbers")
    output: str | None = Field(None, description="which of the simulator's outputs (not given: the target's name)")
    on: tuple[str, ...] = Field((), description="columns by which outputs and observations are joined")
    align: Literal["exact", "asof"] = Field(
        "exact", description="join: equal values, or the last output at or before (of the last column of `on`)"
    )
    column: str | None = Field(None, description="simulated column (not given: the target's name, else the only one)")
    observed: str | None = Field(None, description="observed column (not given: as `column`)")
    weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="of its loss in the sum")
    combine: Literal["each", "mean"] = Field(
        "each", description="replicates: the mean of their losses, or the loss of their mean"
    )
    loss: Any = Field("squared", description=f"{', '.join(LOSSES)}, or module:function")
    sd: float | str | None = Field(None, description="of the normal loss: a number, or an observed column")
    of: float | str | None = Field(None, description="trials behind an observed share: a number, or an observed column")
    simulated_of: float | str | None = Field(
        None, description="people behind a simulated share (beta-binomial): a number, or a simulated column"
    )
    positive: bool | None = Field(None, description="your own loss is never below 0 (built-in ones are not)")

    @model_validator(mode="after")
    def _known(self) -> Target:
        if isinstance(self.loss, str) and self.loss not in LOSSES and ":" not in self.loss:
            raise ValueError(
                f"there is no loss {self.loss!r}; there are {', '.join(LOSSES)}, and yours as module:function"
            )
        if self.loss == "normal" and self.sd is None:
            raise ValueError("the normal loss needs sd: a number, or the name of an observed column")
        if self.loss in ("binomial", "beta-binomial") and self.of is None:
            raise ValueError(f"the {self.loss} loss needs `of`: how many trials are behind an observed share")
        if self.loss == "beta-binomial" and self.simulated_of is None:
            raise ValueError("the beta-binomial loss needs `simulated_of`: how many are behind a simulated share")
        if self.align == "asof" and not self.on:
            raise ValueError("an as-of join needs `on`: the column by which it goes")
        return self

    @property
    def own(self) -> bool:
        return not (isinstance(self.loss, str) and self.loss in LOSSES)

    @property
    def never_negative(self) -> bool:
        return bool(self.positive) if self.own else True


class Replicates(Closed):
    """Simulations of a trial: it counts with `min` of them, and has at most `max`."""

    min: int = Field(1, ge=1, description="a trial counts with as many")
    max: int = Field(5, ge=1, description="a trial has at most as many")

    @model_validator(mode="after")
    def _ordered(self) -> Replicates:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Ceilings(Closed):
    """Of one simulation: what breaks one is stopped, and is a verdict. 0: none."""

    wall_s: float = Field(0.0, ge=0, description="seconds by the clock")
    cpu_s: float = Field(0.0, ge=0, description="seconds of a processor")
    memory: str | int = Field(0, description="private memory, such as 2GiB (0: its share of the run's)")


class WarmStart(Closed):
    """Trials of an Optuna study that exists."""

    storage: str = Field(description="URL of its storage")
    name: str = Field(description="the study's name")


def parameter(given: Any) -> Any:
    """`(low, high)`, `(kind, low, high)`, or the mapping of a parameter's fields."""
    if isinstance(given, list | tuple):
        if given and given[0] == "categorical":
            return {"kind": "categorical", "choices": tuple(given[1:])}
        if len(given) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in given):
            return {"kind": "float", "low": given[0], "high": given[1]}
        if len(given) == 3 and given[0] in KINDS:
            return {"kind": given[0], "low": given[1], "high": given[2]}
        raise ValueError("write (low, high), (kind, low, high), ('categorical', a, b, ...) or a mapping with its kind")
    if isinstance(given, int | float | str | bool):
        return {"kind": "fixed", "value": given}
    return given


def replicates(given: Any) -> Any:
    """A number is `max` and `min` both: as many for every trial."""
    if isinstance(given, int) and not isinstance(given, bool):
        return {"min": given, "max": given}
    if isinstance(given, list | tuple) and len(given) == 2:
        return {"min": given[0], "max": given[1]}
    return given


def targets(given: Any) -> Any:
    """A list of targets, or a mapping from names to them."""
    if isinstance(given, Mapping):
        return tuple(
            {"name": name, **one} if isinstance(one, Mapping) else {"name": name, "data": one}
            for name, one in given.items()
        )
    return tuple(given) if isinstance(given, list) else given


def warm_start(given: Any) -> Any:
    """`(url, name)`, or the mapping."""
    if isinstance(given, list | tuple) and len(given) == 2:
        return {"storage": given[0], "name": given[1]}
    return given


Parameters = Annotated[Mapping[str, Annotated[Parameter, BeforeValidator(parameter)]], Field(min_length=1)]
Targets = Annotated[tuple[Target, ...], BeforeValidator(targets), Field(min_length=1)]
Replications = Annotated[Replicates, BeforeValidator(replicates)]
Warm = Annotated[WarmStart, BeforeValidator(warm_start)]
