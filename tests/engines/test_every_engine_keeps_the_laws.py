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
from millrace.testing import isolation
from millrace.testing.engines import Law, after_close_nothing_is_left, applies, laws

ENGINES: dict[str, Callable[[Any], Engine]] = {
    "inline": lambda opener=None: InlineEngine(opener),
    "one process": lambda opener=None: ProcessEngine(1, opener=opener),
    "two processes": lambda opener=None: ProcessEngine(2, opener=opener),
    "auto": lambda opener=None: AutoEngine(
        lambda: ProcessEngine(2, opener=opener), threshold_s=0.01, slots=2, opener=opener
    ),
    "dask": lambda opener=None: DaskEngine(local_dask.shared(), opener=opener),
    "one core of dask": lambda opener=None: DaskEngine(local_dask.shared(), opener=opener, most=1),
}
ISOLATING = {"one process", "two processes", "dask", "one core of dask"}
"""What the engines say of themselves: told here, too, so that nothing is started to collect the tests."""


LONG_ON_DASK = {
    isolation.kills_from_outside_have_a_wide_bound,
    isolation.a_task_that_kills_its_worker_is_given_up_after_two,
    isolation.ceilings_of_time_kill_for_real,
    isolation.room_that_is_only_reserved_is_not_memory,
    isolation.a_request_that_is_too_large_is_refused_in_place,
}
"""Seconds each, and about the processes beneath, which are the same on one host."""


def own_connection(opener: Any = None) -> Engine:
    return DaskEngine(local_dask.connected(), opener=opener, owns=True)


def cases() -> list[Any]:
    """Every pair that applies."""
    pairs = [(law, name) for name in ENGINES for law in laws if applies(law, name in ISOLATING)]
    return [pytest.param(law, name, id=f"{law.__name__}-{name}", marks=marks(law, name)) for law, name in pairs]


def marks(law: Law, name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if name == "one core of dask" or (name == "dask" and law in LONG_ON_DASK) else []


@pytest.mark.parametrize(("law", "engine"), cases())
def test_the_engine_keeps_the_law(law: Law, engine: str) -> None:
    own = law is after_close_nothing_is_left and "dask" in engine
    law(own_connection if own else ENGINES[engine])


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_says_whether_it_isolates(name: str) -> None:
    engine = ENGINES[name](None)
    try:
        assert engine.isolates == (name in ISOLATING)
    finally:
        engine.close()


def test_laws_that_need_isolation_are_checked_where_there_is_some() -> None:
    checked = {case.values for case in cases()}
    for law in laws:
        assert {name for name in ENGINES if (law, name) in checked} >= ISOLATING
        assert ((law, "inline") in checked) == (not getattr(law, "needs_isolation", False))
