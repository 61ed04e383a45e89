"""The questions of the verbs that look at a run that there was; light, since help and completion read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from millrace.analyses.calibrate.parts import Closed, Targets


def _pairs(given: Any) -> Any:
    """`name=1,other=2` on the command line; any mapping in Python."""
    if not isinstance(given, str):
        return given
    parts = [part.partition("=") for part in given.split(",") if part.strip()]
    return {name.strip(): value.strip() for name, _, value in parts}


class Rescore(Closed):
    """Which run is looked at anew, and what is changed."""

    run: str = Field(description="folder, id, part of an id, or last")
    study: Any = Field(
        None,
        description="a study file whose targets take the place of the run's",
        json_schema_extra={"metavar": "STUDY.toml"},
    )
    targets: Targets | None = Field(
        None, description="targets in the place of the run's", json_schema_extra={"in_file": True}
    )
    weights: Annotated[Mapping[str, float], BeforeValidator(_pairs)] = Field(
        {}, description="weights of targets by name"
    )


class Replay(Closed):
    """Which simulation is run again."""

    run: str = Field(description="folder, id, part of an id, or last")
    trial: int = Field(ge=0, description="number of the trial")
    seed: int | None = Field(None, ge=0, description="of the trial's seeds (not given: its first)")
