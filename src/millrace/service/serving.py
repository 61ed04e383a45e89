"""The server: uvicorn on one socket, with a bound on how long a request's head may take and how many connections there are."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millrace.settings import Settings

HEAD_S, IDLE_S, CLOSE_S = 30.0, 15, 3
MOST_CONNECTIONS = 500
WATCH_S = 0.5


class Bounded(H11Protocol):
    """HTTP/1.1 whose requests' heads come within a time: uvicorn bounds idle connections, and not those that trickle."""

    head_s = HEAD_S
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and self._late is not None:
            self._late.cancel()  # the head is there; its body is the gate's business
            self._late = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._late is None and not self.transport.is_closing():
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._late = self.loop.call_later(self.head_s, self._stop)

    def _stop(self) -> None:
        self._late = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and not self.transport.is_closing():
            self.transport.abort()


def check_place(settings: Settings, host: str) -> None:
    """Without tokens a service listens on loopback alone."""
    if settings.service_tokens is None and not loopback(host):
        raise WrongQuestion(
            f"A service on {host} needs tokens, since others can reach it: make one with `millrace token NAME` and give "
            "--service-tokens FILE, or listen on 127.0.0.1."
        )


def loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; `WrongQuestion` when the place is taken."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family[0], socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(family[4])
    except OSError as e:
        raise WrongQuestion(
            f"The service cannot listen on {host}:{port}: {e.strerror}. Give another --port (0: any)."
        ) from e
    made.listen(128)
    return made


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(app: FastAPI, sock: socket.socket, parent: int | None = None) -> None:
    """Until SIGTERM or Ctrl-C. `parent`: end when that process is not the parent any more."""
    config = uvicorn.Config(
        app, http=Bounded, ws="none", lifespan="on", log_level="warning", access_log=False, server_header=False,
        date_header=True, timeout_keep_alive=IDLE_S, timeout_graceful_shutdown=CLOSE_S, limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=64 << 10, proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again when it has ended, for the handler before it
    if parent is not None:
        threading.Thread(target=_watch, args=(server, parent), daemon=True).start()
    try:
        server.run(sockets=[sock])
    finally:
        sock.close()


def _watch(server: uvicorn.Server, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    server.should_exit = True  # not by a signal: that could come before the server listens to any
