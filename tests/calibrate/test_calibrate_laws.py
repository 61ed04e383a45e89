"""calibrate keeps the laws of every analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import simulators

from millrace import compose
from millrace.run.run import Run
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


@pytest.fixture(scope="module")
def pool() -> Iterator[Run]:
    """One pool of workers for all questions: starting one is most of what a short study costs."""
    with compose.open_run("calibrate", compose.Machine(engine="processes", cores=2)) as run:
        yield run


def digests(question: dict[str, Any], pool: Run) -> set[str]:
    return {
        compose.carry_out("calibrate", question, compose.Machine(engine="inline")).digest,
        compose.carry_out("calibrate", question, compose.Machine(), pool).digest,
    }


@pytest.mark.parametrize(
    "sampler", ["cma-es", "emulate", *(pytest.param(s, marks=pytest.mark.slow) for s in ("random", "sobol", "grid"))]
)
def test_every_sampler_gives_one_digest_on_every_engine(sampler: str, pool: Run) -> None:
    question = {**QUESTION, "sampler": sampler, "summarise": simulators.summarise, "trials": 16}
    assert len(digests(question, pool)) == 1


@pytest.mark.parametrize("more", [{"simulations": 60, "trials": None}, {"seeds": "independent"}, {"replicates": (2, 4)},
                                  {"stop_early": False, "replicates": 3}], ids=str)  # fmt: skip
def test_every_way_to_spend_replicates_gives_one_digest_on_every_engine(more: dict[str, Any], pool: Run) -> None:
    assert len(digests({**QUESTION, **more}, pool)) == 1
