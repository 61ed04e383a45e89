"""calibrate keeps the laws of every analysis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simulators

from millrace import compose
from millrace.testing.analyses import LAWS

QUESTION = {
    "simulate": simulators.simulate, "parameters": simulators.BOUNDS, "targets": simulators.observed(), "trials": 8,
    "finish": 2, "fresh": 2,
}  # fmt: skip


def ask(**machine: Any) -> Any:
    return compose.carry_out("calibrate", QUESTION, compose.Machine(**machine))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[..., None], tmp_path: Path) -> None:
    law(ask, tmp_path)


@pytest.mark.parametrize(
    "sampler", ["cma-es", "emulate", *(pytest.param(s, marks=pytest.mark.slow) for s in ("random", "sobol", "grid"))]
)
def test_every_sampler_gives_one_digest_on_every_engine(sampler: str) -> None:
    question = {**QUESTION, "sampler": sampler, "summarise": simulators.summarise, "trials": 16}
    told = {
        compose.carry_out("calibrate", question, compose.Machine(engine=engine, cores=2)).digest
        for engine in ("inline", "processes")
    }
    assert len(told) == 1


@pytest.mark.parametrize("more", [{"simulations": 60, "trials": None}, {"seeds": "independent"}, {"replicates": (2, 4)},
                                  {"stop_early": False, "replicates": 3}], ids=str)  # fmt: skip
def test_every_way_to_spend_replicates_gives_one_digest_on_every_engine(more: dict[str, Any]) -> None:
    told = {
        compose.carry_out("calibrate", {**QUESTION, **more}, compose.Machine(engine=engine, cores=2)).digest
        for engine in ("inline", "processes")
    }
    assert len(told) == 1
