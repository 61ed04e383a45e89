"""Single rows that arrive together are one call; a row's answer is the same alone, and one that fails is alone with it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest

import millrace as mr
from millrace.run.errors import ModelTrouble
from millrace.service.collecting import WAIT_S, Asked, Collector
from millrace.service.times import Times

ROWS = numpy.random.default_rng(0).normal(size=(60, 4))


def slow(rows: numpy.ndarray) -> numpy.ndarray:
    time.sleep(0.002)
    if (rows[:, 0] == 13).any():
        raise ValueError("thirteen")
    return rows[:, 0] * rows[:, 1] + rows[:, 2]


@pytest.fixture(scope="module")
def explainer() -> Any:
    return mr.explainer(slow, background=ROWS[:5], digest="slow")


def asked(explainer: Any, row: Any) -> Asked:
    return Asked(explainer.numbers([row]), "minimal", 5)


def collected(explainer: Any, rows: Any) -> tuple[list[Any], Collector]:
    with ThreadPoolExecutor(2) as threads:

        async def all_of() -> tuple[list[Any], Collector]:
            collector = Collector(threads, Times())
            calls = (collector.one(explainer, asked(explainer, row)) for row in rows)
            return await asyncio.gather(*calls, return_exceptions=True), collector

        return asyncio.run(all_of())


def test_rows_that_arrive_together_are_few_calls(explainer: Any) -> None:
    told, collector = collected(explainer, ROWS)
    assert collector.rows == len(ROWS) and 1 < collector.calls <= 3
    wanted = [one.values.T.tolist() for one in explainer.rows(ROWS)]
    assert [one[0]["values"] for one in told] == wanted


def test_a_row_that_fails_fails_alone(explainer: Any) -> None:
    told, _ = collected(explainer, [ROWS[0], [13, 1, 1, 1], ROWS[1], ROWS[2]])
    assert isinstance(told[1], ModelTrouble) and "thirteen" in str(told[1])
    assert [one[0]["values"] for one in (told[0], *told[2:])] == [
        one.values.T.tolist() for one in explainer.rows(ROWS[:3])
    ]


def test_a_client_that_goes_takes_nobody_along(explainer: Any) -> None:
    with ThreadPoolExecutor(2) as threads:

        async def work() -> tuple[Any, int]:
            collector = Collector(threads, Times())
            first, second, third = (
                asyncio.ensure_future(collector.one(explainer, asked(explainer, ROWS[i]))) for i in range(3)
            )
            await asyncio.sleep(WAIT_S / 4)
            first.cancel()
            second.cancel()
            return await third, collector.rows

        told, rows = asyncio.run(work())
    assert told[0]["values"] == explainer.rows(ROWS[2:3])[0].values.T.tolist()
    assert rows == 2  # the second was not computed at all
