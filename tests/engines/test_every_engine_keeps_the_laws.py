"""The contract kit over every engine of this repository."""

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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("law", laws, ids=lambda law: law.__name__)
def test_the_engine_keeps_the_law(law: Law, engine: str) -> None:
    made = ENGINES[engine](None)
    try:
        if not applies(law, made):
            pytest.skip("the law is for engines that isolate")
    finally:
        made.close()
    law(ENGINES[engine])
