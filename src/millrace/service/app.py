"""The application: routes under /v1 with OpenAPI as their contract, health and metrics, and the page at /."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from millrace import __version__
from millrace.service import ask, health, inputs, page_routes, problems, results, rows, tiers, twins
from millrace.service.access import Tokens
from millrace.service.collecting import Collector
from millrace.service.gate import Gate, Limits
from millrace.service.house import House
from millrace.service.lookout import Lookout
from millrace.service.names import Roots
from millrace.service.problems import Problem
from millrace.service.quota import Room
from millrace.service.spans import Spans
from millrace.service.times import Times

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.settings import Settings
    from millrace.tracing import Traces

EXPLAINERS_BYTES = 512 << 20
ROW_THREADS = 4
ABOUT = "Heavy Python analyses at full flow. Questions are durable jobs; single rows are explained at once."


def open_house(settings: Settings, desk: Desk) -> House:
    """What the routes share. The tokens are read now, so that a file that is wrong is told at the start."""
    from millrace.analyses.explain.explainers import Explainers

    tokens = Tokens(settings.service_tokens) if settings.service_tokens is not None else None
    pool = ThreadPoolExecutor(ROW_THREADS, "rows")
    lookout = Lookout(desk)
    roots = Roots(settings.roots, {})
    times = Times()
    return House(
        settings, desk, tokens, Explainers(EXPLAINERS_BYTES), lookout, times, pool, roots, twins.Samplers(),
        Collector(pool, times), Room(desk, settings.upload_quota),
    )  # fmt: skip


def make_app(
    house: House, limits: Limits | None = None, script_cache: Path | None = None, traces: Traces | None = None
) -> FastAPI:
    """The application over a house. It begins to look at the table when it starts; the desk is the caller's to close.

    `script_cache`: where the script that draws pictures is kept. `traces`: where requests are told as spans.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        house.lookout.start()
        try:
            yield
        finally:
            house.lookout.close()
            house.rows.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="millrace", version=__version__, description=ABOUT, lifespan=lifespan, openapi_url="/v1/openapi.json",
        docs_url=None, redoc_url=None, swagger_ui_oauth2_redirect_url=None, separate_input_output_schemas=False,
    )  # fmt: skip
    app.state.house = house
    for router in (
        ask.routes(),
        ask.looking(),
        results.routes(),
        rows.routes(),
        twins.routes(),
        inputs.routes(),
        tiers.routes(),
    ):
        app.include_router(router)
    app.include_router(health.routes())
    app.include_router(page_routes.routes(script_cache))
    problems.listen(app)
    if limits is None:
        limits = Limits(upload_bytes=house.settings.upload_limit)
    app.add_middleware(Gate, limits=limits, uploads=inputs.is_upload, is_open=house.tokens is None)
    if traces is not None:
        app.add_middleware(Spans, traces=traces)
    app.openapi = _documented(app)  # type: ignore[method-assign]
    return app


def _documented(app: FastAPI) -> Any:
    """The OpenAPI of the routes, with the shape of problems beside the others."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            said = plain()
            shapes = said["components"]["schemas"]
            for model in (Problem, results.Section):
                made = model.model_json_schema(ref_template="#/components/schemas/{model}")
                shapes.update(made.pop("$defs", {}))
                shapes[model.__name__] = made
        assert app.openapi_schema is not None
        return app.openapi_schema

    return openapi
