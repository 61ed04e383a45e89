"""Every verb of twin keeps the laws of every analysis: one digest everywhere, nothing twice, what was stopped goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest

import millrace as mr
from millrace import compose
from millrace.testing.analyses import LAWS

GIFT = {"name": "gift", "effect": "learned", "adoption": {"mean": 0.5, "sd": 0.1}}


def rows(n: int = 400) -> pyarrow.Table:
    rng = numpy.random.default_rng(0)
    x, kind, treated = rng.normal(size=n), rng.choice(["a", "b"], n), rng.random(n) < 0.5
    return pyarrow.table({"x": x, "kind": kind, "treated": treated, "y": x + treated + rng.normal(size=n)})


ASKED = {"outcome": "y", "treatment": "treated", "folds": 2}


@pytest.fixture(scope="module")
def model() -> Any:
    return mr.twin.fit(rows(), **ASKED, joint="plain", engine="inline")


@pytest.fixture
def ask(request: pytest.FixtureRequest, model: Any) -> Callable[..., Any]:
    verb = request.param
    question = {
        "twin fit": {"data": rows(), **ASKED},
        "twin generate": {"model": model, "n": 140_000},
        "twin simulate": {"model": model, "intervention": GIFT, "n": 140_000, "by": ("kind",)},
        "twin assess": {"model": model, "real": rows(), "holdout": rows(300)},
    }[verb]
    return lambda **machine: compose.carry_out(verb, question, compose.Machine(**machine))


FAST = [("twin generate", law) for law in LAWS]
SLOW = [(verb, law) for verb in ("twin fit", "twin simulate", "twin assess") for law in LAWS]


@pytest.mark.parametrize(
    ("ask", "law"),
    [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)],
    indirect=["ask"],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_law(ask: Callable[..., Any], law: Callable[..., None], tmp_path: Path) -> None:
    law(ask, tmp_path)
