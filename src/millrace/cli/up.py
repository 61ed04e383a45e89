"""`millrace up`, `millrace worker --tier T`, `millrace serve`: the processes that carry jobs out."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.desks import PLACES, place_options, settings_of
from millrace.cli.options import MACHINE, Option, Sectioned
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.jobs.queues import Queue
    from millrace.jobs.supervisor import Supervisor
    from millrace.jobs.tiers import Tier
    from millrace.settings import Settings

PORT = 8373
_PR_SET_PDEATHSIG = 1


def up(name: str) -> click.Command:
    def serve(**given: Any) -> int:
        from millrace.compose import open_jobs
        from millrace.jobs.health import health_server
        from millrace.jobs.supervisor import Supervisor, held

        settings = settings_of(given)
        with held(settings.jobs):
            desk = open_jobs(settings, _line)
            supervisor = Supervisor(desk, _arguments(settings, given["app"]), _line)
            over = _over_broker(settings, given["app"], supervisor)
            _on_signals(supervisor.stop)
            server = health_server(desk.table, given["port"])
            threading.Thread(target=server.serve_forever, daemon=True).start()
            _line(f"Jobs in {settings.jobs}; http://127.0.0.1:{server.server_port}/healthz; Ctrl-C drains and stops.")
            for said in desk.check():
                _line(said)
            try:
                supervisor.serve()
            finally:
                server.shutdown()
                server.server_close()
                over()
                desk.table.close()
            _line("Stopped. What was running is queued again, with all that it finished kept.")
        return 0

    return Sectioned(name, params=[_port(), _app(), *place_options()], callback=serve, help=(
        "Serve the jobs' folder: the table, workers of every tier, /healthz. Ctrl-C drains and stops all of it."
    ))  # fmt: skip


def worker(name: str) -> click.Command:
    def serve(**given: Any) -> int:
        from millrace import __version__, host
        from millrace.compose import open_jobs
        from millrace.jobs.tiers import capped
        from millrace.jobs.worker.warden import Place, Warden

        _die_with(given["parent"])
        settings = settings_of(given)
        desk = open_jobs(settings, _line)
        asked = desk.tiers.tier(given["tier"])
        tier, remark = capped(asked, host.slots(host.cores()), host.default_budget_bytes())
        if remark:
            _line(remark)
        _same_version(desk.table.workers(), __version__)
        place = Place(settings.jobs, given["store"] or str(settings.store))
        queue = _queue(settings, given["app"], desk, tier)
        warden = Warden(desk.table, queue, desk.tiers, tier, place, __version__, _line)
        _on_signals(warden.drain)
        signal.signal(signal.SIGUSR1, lambda *_: warden.leave())
        warden.serve(given["idle_s"])
        desk.table.close()
        return 0

    params: list[click.Parameter] = [
        Option(["--tier"], required=True, metavar="TIER", section=MACHINE, help="whose jobs it carries out"),
        Option(["--idle-s"], type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", section=MACHINE,
               help="leave when nothing has run for so long (not given: stay)"),
        Option(["--store"], metavar="STORE", section=MACHINE, help="where finished work is kept and found again"),
        Option(["--parent"], type=int, metavar="PID", section=MACHINE, help="leave when that process ends"),
        _app(),
        *place_options(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=serve, help=(
        "A worker of a tier. SIGTERM: what runs is paused, queued again, and the worker ends. SIGUSR1: it ends when idle."
    ))  # fmt: skip


def serve(name: str) -> click.Command:
    def run(**given: Any) -> int:
        from millrace.compose import open_jobs
        from millrace.jobs.health import health_server

        desk = open_jobs(settings_of(given))
        server = health_server(desk.table, given["port"])
        _on_signals(lambda: threading.Thread(target=server.shutdown).start())
        _line(f"http://127.0.0.1:{server.server_port}/healthz; Ctrl-C stops.")
        server.serve_forever(0.1)
        server.server_close()
        desk.table.close()
        return 0

    return Sectioned(name, params=[_port(), *place_options()], callback=run, help="/healthz of the jobs, on loopback.")


def _port() -> Option:
    return Option(["--port"], type=click.IntRange(0, 65535), default=PORT, show_default=True, metavar="N",
                  section=MACHINE, help="of /healthz on 127.0.0.1; 0 is any free one")  # fmt: skip


def _app() -> Option:
    return Option(["--app"], metavar="MODULE:APP", section=MACHINE,
                  help="a Celery application on the same broker, whose tasks run here, too")  # fmt: skip


def _queue(settings: Settings, app: str | None, desk: Desk, tier: Tier) -> Queue:
    """What wakes this worker: the table itself, or a broker."""
    if settings.broker is not None:
        from millrace.jobs.celery.opening import open_queue

        return open_queue(settings.broker, app, desk.table, desk.tiers, tier, _line)
    if app is not None:
        raise WrongQuestion("The tasks of an application come over its broker: give --broker its URL.")
    from millrace.jobs.queues import TableQueue

    return TableQueue(desk.table)


def _over_broker(settings: Settings, app: str | None, supervisor: Supervisor) -> Callable[[], object]:
    """With a broker, tasks that are no jobs count, too, and what is lost is sent again; what closes all of that."""
    if settings.broker is None:
        if app is not None:
            raise WrongQuestion("The tasks of an application come over its broker: give --broker its URL.")
        return lambda: None
    from millrace.jobs.celery.opening import Watch

    watch = Watch(settings.broker, app, supervisor.desk, _line)
    supervisor.loads = lambda: watch.with_tasks(supervisor.table_loads())
    return watch.close


def _arguments(settings: Settings, app: str | None) -> list[str]:
    """The settings of this command for the workers that it starts."""
    values = {name: getattr(settings, name) for name in (*PLACES, "store")} | {"app": app}
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def _line(text: str) -> None:
    click.echo(text, err=True)


def _on_signals(stop: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def _die_with(parent: int | None) -> None:
    """SIGTERM when the supervisor dies: what runs is paused and kept."""
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise WrongQuestion(f"The process {parent} that this worker belongs to has ended.")


def _same_version(workers: Any, version: str) -> None:
    """Workers of another version would make other digests of the same question."""
    others = sorted({w.version for w in workers} - {version})
    if others:
        raise WrongQuestion(
            f"Workers of millrace {', '.join(others)} serve these jobs, and this is {version}: answers might differ. Stop "
            "them first, or use their version."
        )
