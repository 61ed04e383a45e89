"""The page and its parts: files of the folder `page`, and the script that draws pictures, as reports have it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from millrace.diagnose import bundle, charts
from millrace.service.problems import Refused

HOME = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes(cache: Path | None) -> APIRouter:
    """`cache`: where the script is kept once it is put together."""
    router = APIRouter(include_in_schema=False)
    kept: dict[str, tuple[bytes, str]] = {}

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(HOME / "index.html", media_type="text/html", headers={"Cache-Control": "no-cache"})

    @router.get("/page/vega.js")
    async def vega(request: Request) -> Response:
        if "vega" not in kept:
            text = await run_in_threadpool(bundle.script, cache)
            themes = json.dumps({"light": charts.theme(), "dark": charts.theme(dark=True)})
            body = f"{text}\nwindow.millraceThemes = {themes};\n".encode()
            kept["vega"] = body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        body, tag = kept["vega"]
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="text/javascript", headers=headers)

    @router.get("/page/{name}")
    def part(name: str) -> FileResponse:
        known = {path.name: path for path in HOME.iterdir() if path.suffix in KINDS}
        if name not in known:
            raise Refused(404, "There is no such page.")
        path = known[name]
        return FileResponse(path, media_type=KINDS[path.suffix], headers={"Cache-Control": "no-cache"})

    return router
