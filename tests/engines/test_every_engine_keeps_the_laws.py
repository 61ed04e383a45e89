"""The contract kit over every engine of this repository: each law over each engine that it is for."""

from collections.abc import Callable
from typing import Any

import local_dask
import pytest

from millrace.engines.auto import AutoEngine
from millrace.engines.dask import DaskEngine
from millrace.engines.inline import InlineEngine
from millrace.engines.processes import ProcessEngine
from millrace.run.ports import Engine
from millrace.testing.engines import Law, applies, laws

ENGINES: dict[str, Callable[[Any], Engine]] = {
    "inline": lambda opener=None: InlineEngine(opener),
    "one process": lambda opener=None: ProcessEngine(1, opener=opener),
    "two processes": lambda opener=None: ProcessEngine(2, opener=opener),
    "auto": lambda opener=None: AutoEngine(
        lambda: ProcessEngine(2, opener=opener), threshold_s=0.01, slots=2, opener=opener
    ),
    "dask": lambda opener=None: DaskEngine(local_dask.connected(), opener=opener, owns=True),
}


def cases() -> list[Any]:
    """Every pair that applies. Engines say for themselves whether they isolate, so each is made once, and closed."""
    found = []
    for name, make in ENGINES.items():
        engine = make(None)
        found += [pytest.param(law, name, id=f"{law.__name__}-{name}") for law in laws if applies(law, engine)]
        engine.close()
    return found


@pytest.mark.parametrize(("law", "engine"), cases())
def test_the_engine_keeps_the_law(law: Law, engine: str) -> None:
    law(ENGINES[engine])


def test_laws_that_need_isolation_are_checked_where_there_is_some() -> None:
    checked = {case.values for case in cases()}
    for law in laws:
        assert {name for name in ENGINES if (law, name) in checked} >= {"one process", "two processes"}
        assert ((law, "inline") in checked) == (not getattr(law, "needs_isolation", False))
