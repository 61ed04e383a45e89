"""/v1/names: data and models that questions may name. PUT: a client's own, of a form that cannot execute."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace.jobs.desk import Desk
from millrace.service import names
from millrace.service.access import Caller, Reader, Submitter
from millrace.service.answers import Plain
from millrace.service.house import house_of
from millrace.service.problems import responses

OwnName = Annotated[
    str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="what your questions call it")
]
ModelForm = Literal["lightgbm", "xgboost-json", "xgboost-ubj", "catboost", "onnx", "skops"]
DataForm = Literal["csv", "parquet", "arrow", "npy", "jsonl", "json", "py", "gml", "dot", "toml"]
BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
SENDING = responses(400, 401, 403, 408, 413, 422, 503)
TAKING = responses(401, 403, 404, 422, 503)


class NameView(BaseModel):
    kind: Literal["data", "model"]
    name: str
    of: str = Field(description="operator, root, or you")


class NameList(BaseModel):
    names: list[NameView]


def is_upload(path: str) -> bool:
    return path.startswith(("/v1/models/", "/v1/data/"))


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["names"], default_response_class=Plain)

    @router.get("/names", response_model=NameList, responses=responses(401, 403, 503))
    def listed(request: Request, caller: Reader) -> Plain:
        """All names that you may use in a question."""
        house = house_of(request)
        found = names.listed(house.desk, house.settings.roots, caller)
        return Plain({"names": [{"kind": n.kind, "name": n.name, "of": n.of} for n in found]})

    @router.put("/models/{name}", response_model=NameView, responses=SENDING, openapi_extra=BINARY)
    async def model(
        name: OwnName,
        request: Request,
        caller: Submitter,
        form: Annotated[ModelForm, Query(description="what wrote it; no pickle is taken")],
    ) -> Plain:
        """Send a model under a name of yours; a name that was there means the new one from now on."""
        return await _kept(request, caller, "model", name, form)

    @router.put("/data/{name}", response_model=NameView, responses=SENDING, openapi_extra=BINARY)
    async def data(
        name: OwnName,
        request: Request,
        caller: Submitter,
        form: Annotated[DataForm, Query(description="what it is")],
    ) -> Plain:
        """Send data under a name of yours; a name that was there means the new one from now on."""
        return await _kept(request, caller, "data", name, form)

    @router.delete("/models/{name}", status_code=204, response_class=Response, responses=TAKING)
    def forget_model(name: OwnName, request: Request, caller: Submitter) -> Response:
        """Take a model's name of yours away. Jobs that were asked with it go on; what no job has then makes room."""
        return _dropped(request, caller, "model", name)

    @router.delete("/data/{name}", status_code=204, response_class=Response, responses=TAKING)
    def forget_data(name: OwnName, request: Request, caller: Submitter) -> Response:
        """Take a name of your data away. Jobs that were asked with it go on; what no job has then makes room."""
        return _dropped(request, caller, "data", name)

    return router


def _dropped(request: Request, caller: Caller, kind: str, name: str) -> Response:
    house = house_of(request)
    names.drop(house.desk, caller, kind, name)
    house.room.release(caller.user)
    return Response(status_code=204)


async def _kept(request: Request, caller: Caller, kind: str, name: str, form: str) -> Plain:
    house = house_of(request)
    desk = house.desk
    draft = await _written(desk, request.stream())
    try:
        await run_in_threadpool(names.keep, desk, caller, kind, name, form, draft, house.checks, house.room)
    finally:
        draft.unlink(missing_ok=True)
    return Plain({"kind": kind, "name": name, "of": caller.user or "operator"})


async def _written(desk: Desk, parts: AsyncIterator[bytes]) -> Path:
    """The body in a file of the inputs' folder, as it comes; what comes too slowly or is too large leaves nothing."""
    desk.inputs.mkdir(parents=True, exist_ok=True)
    draft = desk.inputs / f".{secrets.token_hex(8)}"
    try:
        with draft.open("xb") as file:
            async for part in parts:
                file.write(part)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
