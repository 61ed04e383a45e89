"""/v1/explain: one row, or some, at once, by an explainer that was read before and is kept warm."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from millrace.service.access import Caller, Submitter
from millrace.service.answers import Plain
from millrace.service.collecting import Asked
from millrace.service.house import House, house_of
from millrace.service.problems import Refused, responses
from millrace.service.questions import InputName

if TYPE_CHECKING:
    from millrace.analyses.explain.warm import Explainer

MOST_ROWS, MOST_COLUMNS, MOST_WAITING = 1_000, 10_000, 200
Cell = Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=1000)] | None
Row = Annotated[dict[str, Cell], Field(max_length=MOST_COLUMNS)] | Annotated[list[Cell], Field(max_length=MOST_COLUMNS)]


class RowQuestion(BaseModel):
    """One `row`, or a `batch` of up to 1,000: values by column, or all of them in the model's order; null is missing."""

    model_config = ConfigDict(extra="forbid")

    model: InputName
    row: Row | None = None
    batch: Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS)] | None = None
    background: InputName | None = Field(None, description="rows that stand for 'feature unknown'; trees need none")
    output: Annotated[str, Field(max_length=100)] = "auto"
    groups: dict[str, list[str]] | None = Field(None, description="columns explained together, as one feature each")
    max_evaluations: int | None = Field(None, ge=4, le=100_000, description="coalitions a row of the kernel method")
    form: Literal["full", "top_k", "narrative", "minimal"] = Field("full", description="how it is told")
    top: int = Field(5, ge=1, le=100, description="features that top_k and narrative show")

    @model_validator(mode="after")
    def _one_of_two(self) -> RowQuestion:
        if (self.row is None) == (self.batch is None):
            raise ValueError("give a row, or a batch of rows, and not both")
        return self


class RowAnswers(BaseModel):
    """An answer for each row, in their order. What is in one depends on `form`; every one adds up: base + values = prediction."""

    answers: list[dict[str, Any]]
    ms: float = Field(description="how long they took in the service, with waiting for what was before")


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["rows"], default_response_class=Plain)
    waiting = [0]

    @router.post(
        "/explain",
        response_model=RowAnswers,
        responses={**responses(400, 401, 403, 404, 408, 413, 422, 429, 503), **responses(500)},
    )
    async def explain(question: RowQuestion, request: Request, caller: Submitter) -> Plain:
        """SHAP values of rows at once; the values are those of an explain job (of trees against a background to rounding)."""
        house = house_of(request)
        if waiting[0] >= MOST_WAITING:
            raise Refused(
                429, f"{MOST_WAITING} requests for rows wait already: come again in a second.", {"Retry-After": "1"}
            )
        waiting[0] += 1
        began = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            explainer, asked = await loop.run_in_executor(house.rows, read, house, caller, question)
            answering = house.collector.many if question.row is None else house.collector.one
            answers = await answering(explainer, asked)
        finally:
            waiting[0] -= 1
        return Plain({"answers": answers, "ms": 1000 * (time.perf_counter() - began)})

    return router


def read(house: House, caller: Caller, question: RowQuestion) -> tuple[Explainer, Asked]:
    """The explainer, warm or read now, and the rows as it takes them. Inputs are files by name, which is their content."""
    naming = house.naming(caller)
    model = naming.find("model", question.model)
    background = None if question.background is None else naming.find("data", question.background)
    options = {"output": question.output, "groups": question.groups, "max_evaluations": question.max_evaluations}
    explainer = house.explainers.get(
        house.desk.inputs / model,
        background=None if background is None else house.desk.inputs / background,
        digest=model,
        **{name: value for name, value in options.items() if value is not None},
    )
    rows = [question.row] if question.row is not None else question.batch or []
    return explainer, Asked(explainer.numbers(rows), question.form, question.top)
