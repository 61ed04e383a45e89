"""Single rows that arrive together are explained in one call.

A row goes at once when no call of its explainer is on the way. While one is, rows wait for its end, at most `WAIT_S`, and then
go together. So a row that is alone waits for nothing, and at a high rate the calls grow by themselves. What a row's answer is
does not depend on the others: values are computed row by row, and when a call fails each row is asked for again by itself.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millrace.analyses.explain.warm import Explainer
    from millrace.service.times import Times

WAIT_S, MOST_TOGETHER = 0.002, 256


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows as numbers[n, columns], and how their answers are told."""

    numbers: Any
    form: str
    top: int


@dataclass(slots=True)
class _Line:
    """What waits for one explainer, and how many calls of it are on the way."""

    explainer: Explainer
    waiting: list[tuple[Asked, asyncio.Future[list[dict[str, Any]]]]] = field(default_factory=list)
    calls: int = 0
    timer: asyncio.TimerHandle | None = None


class Collector:
    """Belongs to one event loop. `calls`, `rows`: how many there were."""

    def __init__(self, threads: Executor, times: Times) -> None:
        self._threads, self._times = threads, times
        self._lines: dict[int, _Line] = {}  # by the explainer, which its line holds: no other has its number meanwhile
        self.calls = self.rows = 0

    async def one(self, explainer: Explainer, asked: Asked) -> list[dict[str, Any]]:
        """The answer of a single row."""
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(id(explainer), _Line(explainer))
        answer: asyncio.Future[list[dict[str, Any]]] = loop.create_future()
        line.waiting.append((asked, answer))
        if not line.calls or len(line.waiting) >= MOST_TOGETHER:
            self._go(line)
        elif line.timer is None:
            line.timer = loop.call_later(WAIT_S, self._go, line)
        return await answer

    async def many(self, explainer: Explainer, asked: Asked) -> list[dict[str, Any]]:
        """The answers of a batch: a call of its own, for which no single row waits."""
        loop = asyncio.get_running_loop()
        (answers,) = await loop.run_in_executor(self._threads, together, explainer, [asked], self._times)
        if isinstance(answers, Exception):
            raise answers
        return answers

    def _go(self, line: _Line) -> None:
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        taken = [
            (asked, answer) for asked, answer in line.waiting if not answer.done()
        ]  # the others' clients have gone
        line.waiting.clear()
        if not taken:
            self._rest(line)
            return
        line.calls += 1
        self.calls += 1
        self.rows += len(taken)
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._threads, together, line.explainer, [asked for asked, _ in taken], self._times)
        call.add_done_callback(lambda done: self._told(line, [answer for _, answer in taken], done))

    def _told(
        self, line: _Line, taken: Sequence[asyncio.Future[list[dict[str, Any]]]],
        done: asyncio.Future[list[list[dict[str, Any]] | Exception]],
    ) -> None:  # fmt: skip
        line.calls -= 1
        found = [asyncio.CancelledError()] * len(taken) if done.cancelled() else done.result()
        for answer, one in zip(taken, found, strict=True):
            if answer.done():
                continue
            if isinstance(one, list):
                answer.set_result(one)
            elif isinstance(one, Exception):
                answer.set_exception(one)
            else:
                answer.cancel()
        if line.waiting and not line.calls:
            self._go(line)
        else:
            self._rest(line)

    def _rest(self, line: _Line) -> None:
        if not line.waiting and not line.calls:
            self._lines.pop(id(line.explainer), None)


def together(explainer: Explainer, all_asked: Sequence[Asked], times: Times) -> list[list[dict[str, Any]] | Exception]:
    """What each is answered, or its error."""
    import numpy

    from millrace.analyses.explain.formats import formatted

    began = time.perf_counter()
    try:
        answers = explainer.explained(numpy.concatenate([asked.numbers for asked in all_asked]))
    except Exception as e:  # noqa: BLE001 - whatever a model does: it is the answer of who asked
        if len(all_asked) == 1:
            return [e]
        return [together(explainer, [asked], times)[0] for asked in all_asked]
    ms = 1000 * (time.perf_counter() - began) / len(answers)
    told: list[list[dict[str, Any]] | Exception] = []
    at = 0
    for asked in all_asked:
        own = answers[at : at + len(asked.numbers)]
        at += len(own)
        for _ in own:
            times.row(ms)
        told.append([formatted(answer, asked.form, asked.top) for answer in own])
    return told
