"""/v1/twin/{model}/generate: some twins at once, of a model that is kept warm; many are a job."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from millrace.service.access import Submitter
from millrace.service.answers import Plain
from millrace.service.house import House, house_of
from millrace.service.problems import responses

if TYPE_CHECKING:
    from millrace.analyses.twin.generate import Sampler

MOST_TWINS, MOST_KEPT = 1_000, 8
ModelName = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="a model's name; job-7: what job 7 fitted"
    ),
]


class TwinQuestion(BaseModel):
    """How many twins, and which ones: row i is the same however many are asked for, and the one that a job makes."""

    model_config = ConfigDict(extra="forbid")

    n: int = Field(1, ge=1, le=MOST_TWINS)
    first: int = Field(0, ge=0, le=2**40, description="the number of the first one")
    seed: int = Field(0, ge=0, le=2**63 - 1)
    where: Annotated[str, Field(max_length=2000)] | dict[str, Any] | None = Field(
        None, description="only such twins, drawn so: \"age >= 60 and region == 'west'\""
    )
    attempts: int = Field(1_000, ge=1, le=10_000, description="draws of one twin at most until it fits `where`")


class TwinAnswer(BaseModel):
    twins: list[dict[str, Any]]
    ms: float = Field(description="how long they took")


class Samplers:
    """Models by their input, the last used last, at most `MOST_KEPT`. One load at a time; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Sampler] = OrderedDict()
        self.generations = 0

    def get(self, house: House, given: str) -> Sampler:
        from millrace.analyses.twin.generate import Sampler
        from millrace.analyses.twin.model import load

        with self._lock:
            if given not in self._held:
                self._held[given] = Sampler(load(house.desk.inputs / given))
            self._held.move_to_end(given)
            while len(self._held) > MOST_KEPT:
                self._held.popitem(last=False)
            self.generations += 1
            return self._held[given]


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1/twin", tags=["twins"], default_response_class=Plain)

    @router.post(
        "/{model}/generate",
        response_model=TwinAnswer,
        responses=responses(400, 401, 403, 404, 408, 409, 413, 422, 500, 503),
    )
    async def generate(model: ModelName, question: TwinQuestion, request: Request, caller: Submitter) -> Plain:
        """Twins of a learnt population at once, up to 1,000; more are a job of `twin generate`."""
        house = house_of(request)
        given = await run_in_threadpool(house.naming(caller).find, "model", model)
        loop = asyncio.get_running_loop()
        return Plain(await loop.run_in_executor(house.rows, drawn, house, given, question))

    return router


def drawn(house: House, given: str, question: TwinQuestion) -> dict[str, Any]:
    began = time.perf_counter()
    sampler = house.samplers.get(house, given)
    table = sampler.draw(question.n, question.seed, question.where, question.attempts, question.first)
    return {"twins": table.to_pylist(), "ms": 1000 * (time.perf_counter() - began)}
