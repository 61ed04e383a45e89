"""/v1/jobs: ask, look, follow, cancel, ask again. /v1/plan: what a question will take, without asking it."""

# No `from __future__ import annotations`: bodies are made when the application is, and their types are no text.
import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from millrace import ordering
from millrace.jobs.states import Job, State
from millrace.service import names
from millrace.service.access import Caller, Reader, Submitter
from millrace.service.answers import Plain, encode
from millrace.service.house import House, house_of
from millrace.service.problems import Refused, responses
from millrace.service.questions import orders
from millrace.service.spans import TRACE
from millrace.service.telling import JobList, JobView, view, with_waits
from millrace.service.tiers import Forecast, forecast

Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="the job's number")]
MOST_LISTED = 200
MOST_STREAMS, LOOK_S, PING_S = 20, 0.5, 15.0
WRONG = responses(400, 401, 403, 404, 408, 413, 422, 503)
LOOKING = responses(401, 403, 404, 422, 503)


def routes() -> APIRouter:
    """A router; `orders` makes the bodies from the specs."""
    router = APIRouter(prefix="/v1", tags=["jobs"], default_response_class=Plain)
    body = orders()

    @router.post(
        "/jobs",
        status_code=201,
        response_model=JobView,
        responses={**WRONG, **responses(409, 429, 507), 200: {"model": JobView, "description": "The key's job"}},
    )
    def submit(order: body, request: Request, caller: Submitter) -> Plain:  # type: ignore[valid-type]
        """Ask a question as a durable job. 200: the key's job was there already."""
        house = house_of(request)
        job, new = submitted(house, caller, order, request.scope.get(TRACE, ""))
        return Plain(view(job), 201 if new else 200, headers={"Location": f"/v1/jobs/{job.id}"})

    @router.post("/plan", response_model=Forecast, responses={**WRONG, **responses(507)}, tags=["tiers"])
    def plan(order: body, request: Request, caller: Reader) -> Plain:  # type: ignore[valid-type]
        """What a question will take on each tier, and where it would go. Nothing is asked, nothing runs."""
        house = house_of(request)
        question = house.naming(caller).question(order.analysis, order.question)
        asked = ordering.asked(house.desk, order.analysis, question, files=False)
        return Plain(forecast(house, asked, order.label, order.queue))

    return router


def looking() -> APIRouter:
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"], default_response_class=Plain)

    @router.get("", response_model=JobList, responses=responses(401, 403, 422, 503))
    def listed(
        request: Request,
        caller: Reader,
        state: State | None = None,
        tier: Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]*$", max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
        before: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    ) -> Plain:
        """Your jobs, the newest first; of an administrator those of all."""
        desk = house_of(request).desk
        owner = None if caller.admin else caller.user
        found = desk.table.jobs(state or "", tier, limit, owner=owner, before=before)
        more = found[-1].id if len(found) == limit else None
        return Plain({"jobs": with_waits(desk, found), "before": more})

    @router.get("/{number}", response_model=JobView, responses=LOOKING)
    def one(number: Number, request: Request, caller: Reader) -> Plain:
        """A job as it is now."""
        house = house_of(request)
        return Plain(with_waits(house.desk, [house.job(caller, number)])[0])

    @router.get(
        "/{number}/events",
        response_class=StreamingResponse,
        responses={
            **LOOKING,
            **responses(429),
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        },
    )
    async def events(number: Number, request: Request, caller: Reader) -> StreamingResponse:
        """Server-sent events: `job` with the job each time that it has changed, and `end` when it has ended."""
        house = house_of(request)
        job = await run_in_threadpool(house.job, caller, number)
        if house.streams.get(caller.user, 0) >= MOST_STREAMS:
            raise Refused(429, f"You follow {MOST_STREAMS} jobs already: close one, or ask for /v1/jobs now and then.")
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(followed(house, caller, job), media_type="text/event-stream", headers=headers)

    @router.delete("/{number}", response_model=JobView, responses=LOOKING)
    def cancel(number: Number, request: Request, caller: Submitter) -> Plain:
        """Cancel: a queued job at once, a running one between two tasks. What it has finished is kept in the store."""
        house = house_of(request)
        house.job(caller, number)
        return Plain(view(house.desk.publish(house.desk.table.cancel(number))))

    @router.post("/{number}/retry", response_model=JobView, responses={**LOOKING, **responses(429)})
    def retry(number: Number, request: Request, caller: Submitter) -> Plain:
        """Queue a failed or cancelled job once more; it goes on from what it has finished."""
        house = house_of(request)
        house.job(caller, number)
        with house.room.submitting:
            _room(house, caller)
            return Plain(view(house.desk.publish(house.desk.table.again(number))))

    return router


def submitted(house: House, caller: Caller, order: Any, trace: str = "") -> tuple[Job, bool]:
    """The job of an order, and whether it is new. `trace`: the request as a traceparent."""
    question = house.naming(caller).question(order.analysis, order.question)
    if order.analysis == "validate" and not caller.admin:
        question["require_isolation"] = True  # programs of a client run in the whole jail or not at all
    about = order.model_dump(exclude={"analysis", "question"})
    key = about["key"]
    if key is not None and caller.user:  # keys of two users never meet, nor those of the command line
        about["key"] = key = f"{hashlib.sha256(caller.user.encode()).hexdigest()[:16]}:{key}"
    asked = ordering.asked(house.desk, order.analysis, question, files=False)
    with house.room.submitting:
        known = house.desk.table.of_key(key) if key is not None else None
        if known is not None:
            return known, False
        _room(house, caller)
        names.still_there(house.desk, asked.question)
        return ordering.place(house.desk, asked, owner=caller.user, trace=trace, **about), True


def _room(house: House, caller: Caller) -> None:
    most = house.settings.open_jobs
    if house.desk.table.open_of(caller.user) >= most:
        raise Refused(
            429, f"You have {most} jobs that are queued or running, the most at once: wait for one to end, or cancel one.",
            {"Retry-After": "10"},
        )  # fmt: skip


async def followed(house: House, caller: Caller, job: Job) -> AsyncIterator[bytes]:
    """The events of a job until it has ended, or nobody listens any more."""
    house.streams[caller.user] = house.streams.get(caller.user, 0) + 1
    try:
        last, quiet_s = b"", 0.0
        while True:
            said = encode((await run_in_threadpool(with_waits, house.desk, [job]))[0])
            if said != last:
                last, quiet_s = said, 0.0
                yield b"event: job\ndata: " + said + b"\n\n"
            elif quiet_s >= PING_S:
                quiet_s = 0.0
                yield b": still here\n\n"
            if job.ended_at is not None:
                yield b"event: end\ndata: " + said + b"\n\n"
                return
            await asyncio.sleep(LOOK_S)
            quiet_s += LOOK_S
            job = await run_in_threadpool(house.desk.table.get, job.id)
    finally:
        house.streams[caller.user] -= 1
