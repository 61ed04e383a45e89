"""The question of calibrate: closed and frozen. The fields of a study file, the options of the command, `mr.calibrate`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from millrace.analyses.calibrate.parts import Ceilings, Closed, Parameters, Replicates, Replications, Targets, Warm

SAMPLERS = ("tpe", "cma-es", "gp", "random", "sobol", "grid", "emulate")
IN_FILE = {"in_file": True}
"""Of a field that has no option: it is written in the study's file."""


class Spec(Closed):
    """Which simulator, which of its parameters, fitted to which targets; how it is searched, and for how long."""

    simulate: Any = Field(
        description="module:function, called with a mapping of parameters and a seed",
        json_schema_extra={"metavar": "NAME"},
    )
    parameters: Parameters = Field(description="name = bounds of each parameter", json_schema_extra=IN_FILE)
    targets: Targets = Field(description="what is to be reproduced", json_schema_extra=IN_FILE)
    summarise: Any = Field(
        None, description="module:function of the outputs, called where they were made",
        json_schema_extra={"metavar": "NAME"},
    )  # fmt: skip
    warm_up: bool = Field(False, description="one simulation in every worker before its first one that counts")
    sampler: Literal["tpe", "cma-es", "gp", "random", "sobol", "grid", "emulate"] = Field(
        "tpe", description="who proposes parameters"
    )
    replicates: Replications = Field(
        Replicates(), description="simulations of a trial, min and max", json_schema_extra=IN_FILE
    )
    seeds: Literal["common", "independent"] = Field(
        "common", description="of replicates: the same in all trials, or not"
    )
    stop_early: bool = Field(True, description="no further replicates for a trial that is clearly worse than the best")
    trials: int | None = Field(None, ge=1, description="stop after as many trials (100 when no budget is given)")
    simulations: int | None = Field(
        None, ge=1, description="stop after as many simulations, those of the finish included"
    )
    seconds: float | None = Field(None, gt=0, description="stop after as many seconds, the finish included")
    order: Literal["reproducible", "asap"] = Field(
        "reproducible", description="decide from outcomes in their order, or as they come"
    )
    in_flight: int | None = Field(None, ge=1, description="trials at once (not given: by the machine, then kept)")
    on_error: Literal["continue", "stop"] = Field("continue", description="when a simulation fails")
    finish: int = Field(5, ge=0, description="best trials that are run again on fresh seeds; 0: none")
    fresh: int = Field(10, ge=2, description="fresh seeds of each of these")
    level: float = Field(0.9, gt=0, lt=1, description="of the intervals")
    limits: Ceilings = Field(Ceilings(), description="of one simulation", json_schema_extra=IN_FILE)
    warm_start: Warm | None = Field(
        None, description="trials of an Optuna study: storage and name", json_schema_extra=IN_FILE
    )
    storage: str = Field(
        "memory",
        description="where Optuna's tools see the study: memory, sqlite:///..., a journal file, postgresql://...",
    )
    study_name: str = Field("millrace", description="what the study is called there")
    persist: bool = Field(False, description="keep outputs that no summarise makes small, for a later rescore")

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two targets are called {twice[0]!r}: give each a name of its own")
        free = {name: p for name, p in self.parameters.items() if p.kind != "fixed"}
        if not free:
            raise ValueError("every parameter is fixed: there is nothing to fit")
        if all(target.weight == 0 for target in self.targets):
            raise ValueError("every target has weight 0: there is nothing to fit to")
        if self.sampler == "emulate":
            odd = [name for name, p in free.items() if not p.continuous]
            if odd or len(free) > 6:
                raise ValueError(
                    f"the sampler emulate takes 1 to 6 continuous parameters, and there are {len(free)}"
                    + (f", of which {', '.join(odd)} is not continuous" if odd else "")
                )
            if self.summarise is None:
                raise ValueError("the sampler emulate models summaries: give summarise, a function of the outputs")
        if self.sampler == "cma-es" and not any(p.kind in ("float", "int", "log", "logit") for p in free.values()):
            raise ValueError("the sampler cma-es needs a parameter that is a number")
        return self

    @property
    def free(self) -> tuple[str, ...]:
        """Parameters that are sampled, in their order."""
        return tuple(name for name, p in self.parameters.items() if p.kind != "fixed")

    @property
    def first_round(self) -> int:
        """Replicates of a trial that start at once."""
        return self.replicates.min if self.stop_early else self.replicates.max

    @classmethod
    def beside(cls, said: dict[str, Any], folder: Path) -> dict[str, Any]:
        """A question read from a file of `folder`: observed data that are named relatively are looked for there."""

        def placed(target: Any) -> Any:
            data = target.get("data") if isinstance(target, dict) else None
            return {**target, "data": str(folder / data)} if isinstance(data, str) else target

        given = said.get("targets")
        if isinstance(given, list):
            return {**said, "targets": [placed(one) for one in given]}
        if isinstance(given, dict):
            return {**said, "targets": {name: placed(one) for name, one in given.items()}}
        return said
