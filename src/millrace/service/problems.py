"""Errors as the service says them: one shape for all (RFC 9457), one status for each class of `run.errors`.

A problem never repeats what the client sent, and never holds a traceback: that goes to the log of the service.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from millrace.run.errors import DoesNotFit, MillraceError
from millrace.service.answers import Plain

TYPE = "application/problem+json"
log = logging.getLogger("millrace.service")
MOST_ERRORS = 20


class Wrong(BaseModel):
    """One thing that is wrong with a request."""

    at: str = Field(description="where: body, query or path, and the field")
    why: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="urn:millrace: and the class of the error")
    title: str
    status: int
    detail: str = Field(description="what, where, and what to do")
    errors: list[Wrong] | None = Field(None, description="each thing that is wrong with the request")
    needs_bytes: int | None = Field(None, description="the smallest memory that would do")


class Refused(MillraceError):
    """A request that is not served; `status` says how."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.http_status, self.headers = status, dict(headers or {})


def problem(status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Plain:
    """The response that says it."""
    title = HTTPStatus(status).phrase if status in {s.value for s in HTTPStatus} else "Client closed request"
    said = {"type": f"urn:millrace:{kind}", "title": title, "status": status, "detail": detail, **more}
    return Plain(said, status, headers=dict(headers or {}), media_type=TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, for its OpenAPI."""
    shape = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {s: {"description": HTTPStatus(s).phrase, "content": {TYPE: shape}} for s in statuses}


def listen(app: FastAPI) -> None:
    """Every error becomes a problem."""
    app.add_exception_handler(MillraceError, _ours)
    app.add_exception_handler(RequestValidationError, _request)
    app.add_exception_handler(ValidationError, _spec)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def said_of(error: MillraceError) -> Plain:
    more = {"needs_bytes": error.needs_bytes} if isinstance(error, DoesNotFit) else {}
    headers = error.headers if isinstance(error, Refused) else None
    kind = "refused" if isinstance(error, Refused) else _words(type(error).__name__)
    return problem(error.http_status, kind, str(error), headers, **more)


def said_of_http(error: HTTPException) -> Plain:
    return problem(error.status_code, "refused", str(error.detail), error.headers)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, MillraceError)
    if error.http_status == 500:
        log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    return said_of(error)


async def _request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _listed(error.errors())


async def _spec(request: Request, error: Exception) -> Response:
    """What the analysis' own spec refuses."""
    assert isinstance(error, ValidationError)
    for one in error.errors(include_url=False, include_input=False):
        own = one.get("ctx", {}).get("error")
        if isinstance(own, MillraceError):
            return said_of(own)
    return _listed([{**one, "loc": ("body", "question", *one["loc"])} for one in error.errors(include_input=False)])


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return said_of_http(error)


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "failed", "Something in the service failed; its log has the cause. Please report it.")


def _listed(errors: Sequence[Any]) -> Plain:
    wrong = [{"at": ".".join(str(part) for part in one["loc"]), "why": _why(one)} for one in errors[:MOST_ERRORS]]
    detail = "; ".join(f"{one['at']}: {one['why']}" for one in wrong[:5])
    return problem(422, "wrong-question", f"The request cannot be served so. {detail}.", errors=wrong)


def _why(one: Mapping[str, Any]) -> str:
    own = one.get("ctx", {}).get("error")
    return str(own or one["msg"]).removeprefix("Value error, ").encode(errors="replace").decode()


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
