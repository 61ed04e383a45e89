"""What every request goes through first: who may reach an open service, how large and how slow a body may be, and what every
response carries.

An open service (no tokens) is for who sits at this machine. A page of another site that is open in the same browser may
send requests here, too, so such a service asks for a Host that is this machine (against DNS that is bent) and refuses an
Origin that is another one's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from millrace.run.units import format_bytes
from millrace.service.problems import problem, said_of_http

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
CLOSE = {"Connection": "close"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""'unsafe-eval': Vega compiles the expressions of a spec. 'unsafe-inline' styles: it writes them, too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of what comes in. `json_bytes`: bodies of questions and rows; `upload_bytes`: models and data; `body_s`: how long a
    body of questions may take; `least_rate`: bytes a second that an upload makes at least, after `body_s`."""

    json_bytes: int = 8 << 20
    upload_bytes: int = 1 << 30
    body_s: float = 20.0
    least_rate: int = 64 << 10

    def seconds(self, size: int) -> float:
        return self.body_s + size / self.least_rate


class Gate:
    """ASGI middleware. `uploads`: whether a path takes a file; `is_open`: whether there are no tokens."""

    def __init__(self, app: ASGIApp, limits: Limits, uploads: Callable[[str], bool], is_open: bool) -> None:
        self.app, self.limits, self.uploads, self.is_open = app, limits, uploads, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]

        async def carry(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(path, message.get("headers", ()))]
            await send(message)

        headers = dict(scope["headers"])
        refused = self._stranger(headers, scope["scheme"]) if self.is_open else None
        if refused is not None:
            await problem(403, "refused", refused)(scope, receive, carry)
            return
        most = self.limits.upload_bytes if self.uploads(path) else self.limits.json_bytes
        if (
            b"content-length" in headers and b"transfer-encoding" in headers
        ):  # a proxy before us might read another body
            await said_of_http(HTTPException(400, "A request has a length or comes in chunks, and not both.", CLOSE))(
                scope, receive, carry
            )
            return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            await said_of_http(too_large(most))(scope, receive, carry)
            return
        await self.app(scope, Body(receive, most, self.limits).receive, carry)

    def _stranger(self, headers: dict[bytes, bytes], scheme: str) -> str | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not _here(urlsplit(f"//{host}").hostname if _readable(host) else None):
            return "This service has no tokens and serves this machine alone: use http://127.0.0.1, or give it tokens."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin != f"{scheme}://{host}":
            return "This service has no tokens and does not serve pages of other sites."
        return None


def too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The body is larger than {format_bytes(most)}, the most that is taken here.", CLOSE)


class Body:
    """The body as it comes in, counted and timed."""

    def __init__(self, receive: Receive, most: int, limits: Limits) -> None:
        self._receive, self._most, self._limits = receive, most, limits
        self._size, self._ended = 0, False
        self._since = asyncio.get_running_loop().time()

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()  # waits for the client to go
        left = self._since + self._limits.seconds(self._size) - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, left))
        except TimeoutError:
            raise HTTPException(408, "The body came too slowly; the connection is closed.", CLOSE) from None
        self._size += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        if self._size > self._most:
            raise too_large(self._most)
        return message


def _readable(host: str) -> bool:
    try:
        urlsplit(f"//{host}").hostname  # noqa: B018 - it raises for what is no host
    except ValueError:
        return False
    return True


def _here(name: str | None) -> bool:
    if name is None:
        return False
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _headers(path: str, given: Any) -> list[tuple[bytes, bytes]]:
    have = {name.lower() for name, _ in given}
    more = dict(HEADERS)
    if not path.startswith("/page/"):
        more[b"cache-control"] = b"no-store"
    more[b"content-security-policy"] = (
        b"default-src 'none'; frame-ancestors 'none'" if path.startswith("/v1") else PAGE_POLICY.encode()
    )
    return [(name, value) for name, value in more.items() if name not in have]
