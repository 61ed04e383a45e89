"""/healthz: the process answers. /readyz: it can serve, which needs the job table. Neither needs a token."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace.service.access import needs
from millrace.service.answers import Plain
from millrace.service.house import house_of
from millrace.service.metrics import exposed
from millrace.service.problems import responses


class Health(BaseModel):
    status: Literal["ok", "away"] = Field(description="away: the job table cannot be reached")
    workers: dict[str, int] = Field(description="workers that were seen, by tier")


class Ready(BaseModel):
    status: Literal["ok"]
    remarks: list[str] = Field(description="open jobs that no tier would take now")


def routes() -> APIRouter:
    router = APIRouter(tags=["health"], default_response_class=Plain)

    @router.get("/healthz", response_model=Health)
    def healthz(request: Request) -> Plain:
        """Whether the process answers, and which workers were seen. Always 200: for who restarts what hangs."""
        now = house_of(request).lookout.now()
        workers = Counter(worker.tier for worker in now.workers)
        return Plain({"status": "ok" if now.known else "away", "workers": dict(workers)})

    @router.get("/readyz", response_model=Ready, responses=responses(503))
    def readyz(request: Request) -> Plain:
        """Whether jobs can be taken now. 503: the job table cannot be reached."""
        return Plain({"status": "ok", "remarks": house_of(request).desk.check()})

    @router.get(
        "/metrics",
        response_class=Response,
        dependencies=[needs("read")],
        responses={**responses(401, 403), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics(request: Request) -> Response:
        """For Prometheus, in its text format 0.0.4."""
        return Response(
            exposed(house_of(request)), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    return router
