"""What a job left: its answer, files, report, log; and the sections of its report as JSON, with pictures as Vega-Lite specs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel
from starlette.responses import FileResponse, Response

from millrace import folder
from millrace.jobs.states import OPEN, Job
from millrace.run.errors import WrongQuestion
from millrace.service.access import Caller, Reader
from millrace.service.answers import Plain
from millrace.service.ask import LOOKING, Number
from millrace.service.house import House, house_of
from millrace.service.problems import Refused, responses

MOST_LOG_BYTES = 1 << 20
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'none'"
)
"""A report runs its own script in an origin of its own: it reaches nothing of the service."""
FileName = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
WITH_409 = {**LOOKING, **responses(409)}


class Section(BaseModel):
    """A part of the report: text (a line is a paragraph), a table whose first row is its head, a picture (Vega-Lite)."""

    title: str
    text: str
    table: list[list[Any]] | None
    chart: dict[str, Any] | None


class Report(BaseModel):
    """What was found and where the time went. `result` is empty until the job has succeeded, all of it until it has begun."""

    run_id: str
    digest: str | None
    result: list[Section]
    run: list[Section]
    files: list[str]


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1/jobs", tags=["results"], default_response_class=Plain)

    @router.get(
        "/{number}/result",
        response_class=Response,
        responses={**WITH_409, 200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
    )
    def result(number: Number, request: Request, caller: Reader) -> Response:
        """result.json of a job that has succeeded. 409: it has not, and why."""
        place = _answer(house_of(request), caller, number)
        return Response((place / "result.json").read_bytes(), media_type="application/json")

    @router.get(
        "/{number}/files/{name}",
        response_class=FileResponse,
        responses={
            **WITH_409,
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        },
    )
    def file(number: Number, name: FileName, request: Request, caller: Reader) -> FileResponse:
        """One file of the answer: a table (Parquet), a picture, its spec, the ledger. /report?form=json lists them."""
        place = _answer(house_of(request), caller, number)
        if name not in _files(place):
            raise Refused(
                404, f"The answer of job {number} has no such file; GET /v1/jobs/{number}/report?form=json lists them."
            )
        if name == folder.PAGE:
            folder.page_of(place)
        return FileResponse(place / name, media_type="application/octet-stream", filename=name)

    @router.get(
        "/{number}/report",
        response_class=Response,
        responses={
            **WITH_409,
            200: {
                "content": {
                    "text/html": {"schema": {"type": "string"}},
                    "application/json": {
                        "schema": Report.model_json_schema(ref_template="#/components/schemas/{model}")
                    },
                }
            },
        },
    )
    def report(
        number: Number,
        request: Request,
        caller: Reader,
        form: Annotated[Literal["html", "json"], Query(description="a page to keep, or its sections")] = "html",
    ) -> Response:
        """The report: what was found, and where the core-seconds went. As JSON also of a job that runs or has failed."""
        house = house_of(request)
        job = house.job(caller, number)
        if form == "html":
            page = folder.page_of(_answer(house, caller, number)).read_bytes()
            return Response(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})
        return Plain(sections(house, job))

    @router.get(
        "/{number}/log",
        response_class=Response,
        responses={**LOOKING, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def log(
        number: Number,
        request: Request,
        caller: Reader,
        start: Annotated[int, Query(ge=0, le=2**62, description="the first byte; X-Next is the next one")] = 0,
    ) -> Response:
        """What the job printed, at most a megabyte at a time."""
        house = house_of(request)
        house.job(caller, number)
        text = b""
        path = house.desk.folder(number) / "log.txt"
        if path.is_file():
            with path.open("rb") as printed:
                printed.seek(start)
                text = printed.read(MOST_LOG_BYTES)
        return Response(text, media_type="text/plain; charset=utf-8", headers={"X-Next": str(start + len(text))})

    return router


def _answer(house: House, caller: Caller, number: int) -> Path:
    job = house.job(caller, number)
    try:
        return house.desk.answer(job)
    except WrongQuestion as e:
        raise Refused(409, str(e)) from e


def _files(place: Path) -> list[str]:
    """The report among them, which is written when it is asked for."""
    return sorted({p.name for p in place.iterdir() if p.is_file() and not p.name.startswith(".")} | {folder.PAGE})


def sections(house: House, job: Job) -> dict[str, Any]:
    """As `Report`, from the folder of the job's last attempt."""
    place = house.desk.home / job.result if job.result else house.desk.folder(job.id) / str(job.attempt)
    nothing = {"run_id": "", "digest": job.digest, "result": [], "run": [], "files": []}
    if not (place / "ledger.jsonl").is_file():
        return nothing
    try:
        found, past = folder.result_sections(place), folder.run_sections(place)
    except WrongQuestion:
        if job.state in OPEN:  # its first line is not written yet
            return nothing
        raise
    done = job.state == "succeeded"
    return {
        "run_id": past.run_id, "digest": job.digest, "result": _plain(found), "run": _plain(past.sections),
        "files": _files(place) if done else [],
    }  # fmt: skip


def _plain(told: Any) -> list[dict[str, Any]]:
    return [{"title": s.title, "text": s.text, "table": s.table, "chart": s.chart} for s in told]
