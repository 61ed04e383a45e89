"""`millrace serve`: the HTTP service of the jobs and its page. `millrace token NAME`: who may use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.desks import PLACES, die_with, place_options, settings_of
from millrace.cli.options import MACHINE, Argument, Option, Sectioned
from millrace.run.errors import MissingExtra, WrongQuestion

if TYPE_CHECKING:
    import socket

    from millrace.jobs.desk import Desk
    from millrace.settings import Settings

PORT = 8373
AGAIN_S, LOOK_S, END_S = 1.0, 0.2, 10.0


def command(name: str) -> click.Command:
    def run(**given: Any) -> int:
        if given["parent"] is not None:
            # At once, so that the port is free for the next one: nothing is lost with a service.
            die_with(given["parent"], signal.SIGKILL, "service")
        serving = _serving()
        from millrace.compose import open_jobs
        from millrace.service.app import make_app, open_house
        from millrace.tracing import traces

        settings = settings_of(given, "service_tokens")
        if given["socket"] is None:
            serving.check_place(settings, given["host"])
        desk = open_jobs(settings)
        try:
            app = make_app(open_house(settings, desk), script_cache=settings.cache.parent / "scripts", traces=traces())
            if given["socket"] is None:
                sock = serving.bound(given["host"], given["port"])
                click.echo(f"Jobs in {settings.jobs}; {serving.url_of(sock)}; Ctrl-C stops.", err=True)
            else:
                sock = _inherited(given["socket"])
            serving.serve(app, sock, given["parent"])
        finally:
            desk.table.close()
        return 0

    params = [
        *at_options(),
        *place_options(),
        Option(
            ["--socket"], type=int, metavar="FD", section=MACHINE, hidden=True, help="a socket that listens already"
        ),
        Option(["--parent"], type=int, metavar="PID", section=MACHINE, hidden=True, help="end when that process does"),
    ]
    about = (
        "The HTTP service of the jobs, and its page. `millrace up` starts one; on its own it needs workers elsewhere."
    )
    return Sectioned(name, params=params, callback=run, help=about)


def token(name: str) -> click.Command:
    def made(**given: Any) -> int:
        _serving()
        from millrace.service.access import add_token

        settings = settings_of(given, "service_tokens")
        path = settings.service_tokens
        if path is None:
            raise WrongQuestion("Say where the tokens are: --service-tokens FILE, or the setting service_tokens.")
        scopes = tuple(part.strip() for part in given["scopes"].split(",") if part.strip())
        said = add_token(Path(path), given["user"], scopes)
        click.echo(said)
        click.echo(
            f"That is the token, said this once. {path} has its digest; take the lines out to revoke it.", err=True
        )
        return 0

    params: list[click.Parameter] = [
        Argument(["user"], "USER", "whose jobs and inputs it is for"),
        Option(["--scopes"], default="read,submit", show_default=True, metavar="SCOPE,...", section=MACHINE,
               help="some of read (look at one's own), submit (ask, send, cancel), admin (all, of everybody)"),
        _tokens(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=made, help="A new token for the HTTP service, printed once.")


def at_options() -> list[click.Parameter]:
    """Where the service listens, and who may use it."""
    return [
        Option(["--host"], default="127.0.0.1", show_default=True, metavar="ADDRESS", section=MACHINE,
               help="where the service listens; beyond this machine only with tokens"),
        Option(["--port"], type=click.IntRange(0, 65535), default=PORT, show_default=True, metavar="N", section=MACHINE,
               help="of the service; 0 is any free one"),
        _tokens(),
    ]  # fmt: skip


def _tokens() -> Option:
    return Option(["--service-tokens"], type=click.Path(dir_okay=False), metavar="FILE", section=MACHINE,
                  help="TOML file of tokens (not given: none, on loopback alone)")  # fmt: skip


def _serving() -> Any:
    try:
        from millrace.service import serving
    except ImportError as e:
        if (e.name or "").partition(".")[0] == "millrace":
            raise
        raise MissingExtra(e.name or "fastapi", "service", "The HTTP service") from e
    return serving


def _inherited(descriptor: int) -> socket.socket:
    import socket

    return socket.socket(fileno=descriptor)


@contextmanager
def attended(desk: Desk, settings: Settings, host: str, port: int, say: Callable[[str], None]) -> Iterator[str]:
    """The service as a process of its own on a socket that outlives it, started again when it ends; its url. Where the extra is
    not installed: /healthz alone, and a line that says what is missing."""
    try:
        serving = _serving()
    except MissingExtra as e:
        say(str(e))
        with _health(desk, port) as url:
            yield url
        return
    serving.check_place(settings, host)
    sock = serving.bound(host, port)
    ending = threading.Event()
    command = [sys.executable, "-m", "millrace", "serve", "--socket", str(sock.fileno()), "--parent", str(os.getpid())]
    values = {name: getattr(settings, name) for name in (*PLACES, "service_tokens")}
    command += [word for n, v in values.items() if v is not None for word in (f"--{n.replace('_', '-')}", str(v))]
    keeper = threading.Thread(target=_keep, args=(command, sock.fileno(), ending, say), name="service")
    keeper.start()
    try:
        yield serving.url_of(sock)
    finally:
        ending.set()
        keeper.join()
        sock.close()


def _keep(command: list[str], descriptor: int, ending: threading.Event, say: Callable[[str], None]) -> None:
    """Until `ending`: a process that serves, and another one when it ends."""
    while not ending.is_set():
        # In a session of its own: Ctrl-C is for `up`, which ends the service when its workers have drained.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[descriptor], start_new_session=True)
        while process.poll() is None and not ending.wait(LOOK_S):
            pass
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            process.wait()
        elif not ending.is_set():
            say(f"The service ended with {process.returncode}; started again in {AGAIN_S:g} s.")
            ending.wait(AGAIN_S)


@contextmanager
def _health(desk: Desk, port: int) -> Iterator[str]:
    from millrace.jobs.health import health_server

    server = health_server(desk.table, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/healthz"
    finally:
        server.shutdown()
        server.server_close()
