"""A span for each request, where traces are wanted (see `millrace.tracing`). Health, metrics, the page have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.tracing import Traces, traceparent

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TRACE = "millrace.trace"
"""In a request's scope: its own traceparent, for the job that it asks for."""


class Spans:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self.app, self.traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        parent = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        about = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with self.traces.span(scope["method"], parent, **about) as span:
            scope[TRACE] = traceparent(span)

            async def carry(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", None)
                    if route:
                        span.update_name(f"{scope['method']} {route}")
                        span.set_attribute("http.route", route)
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self.app(scope, receive, carry)
