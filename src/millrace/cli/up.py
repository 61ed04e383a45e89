"""`millrace up` and `millrace worker --tier T`: the processes that carry jobs out. `millrace serve` is in `serve`."""

from __future__ import annotations

import platform
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.desks import PLACES, die_with, on_signals, place_options, settings_of
from millrace.cli.options import MACHINE, Option, Sectioned
from millrace.cli.serve import at_options
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.jobs.queues import Queue
    from millrace.scaling import Loads
    from millrace.settings import Settings
    from millrace.tiers import Tier


def up(name: str) -> click.Command:
    def serve(**given: Any) -> int:
        from millrace.cli.serve import attended
        from millrace.compose import open_jobs
        from millrace.jobs.supervisor import Supervisor, held
        from millrace.scaling import keeper

        settings = settings_of(given, "service_tokens")
        with held(settings.jobs):
            desk = open_jobs(settings, _line)
            supervisor = Supervisor(desk, _line)
            loads, over = over_broker(settings, given["app"], desk, _line)
            arguments = worker_arguments(settings, given["app"])
            supervisor.keeper = keeper(
                settings, desk, arguments, say=changes(_line), driver="processes",
                holder=f"up@{platform.node()}:{settings.jobs}", loads=loads,
            )  # fmt: skip
            on_signals(supervisor.stop)
            try:
                with attended(desk, settings, given["host"], given["port"], _line) as url:
                    _line(f"Jobs in {settings.jobs}; {url}; Ctrl-C drains and stops.")
                    for said in (*supervisor.keeper.remarks, *desk.check()):
                        _line(said)
                    supervisor.serve()
            finally:
                left = _left(desk)
                over()
                desk.table.close()
            _line(f"Stopped. {left}")
        return 0

    return Sectioned(name, params=[app_option(), *at_options(), *place_options()], callback=serve, help=(
        "Serve the jobs' folder: the table, workers of every tier, the HTTP service and its page. Ctrl-C drains and stops all."
    ))  # fmt: skip


def worker(name: str) -> click.Command:
    def serve(**given: Any) -> int:
        from millrace import __version__, host
        from millrace.compose import open_jobs
        from millrace.jobs.worker.warden import Place, Warden
        from millrace.scaling import pod_marker
        from millrace.tiers import capped

        if given["parent"] is not None and sys.platform == "linux":
            die_with(given["parent"], signal.SIGTERM, "worker")  # what runs is paused and kept
        settings = settings_of(given)
        desk = open_jobs(settings, _line)
        asked = desk.tiers.tier(given["tier"])
        tier, remark = capped(asked, host.slots(host.cores()), host.default_budget_bytes(), given["beside"])
        if remark and given["parent"] is None:  # else its scaler has said so
            _line(remark)
        _same_version(desk.table.workers(), __version__)
        base = host.scratch(settings.scratch)
        place = Place(settings.jobs, given["store"] or str(settings.store), scratch=base)
        queue = _queue(settings, given["app"], desk, tier)
        warden = Warden(desk.table, queue, desk.tiers, tier, place, __version__, _line)
        if given["pod"]:
            warden.told, warden.stays = pod_marker(desk.tiers, _line), True
        on_signals(warden.drain)
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
        Option(["--beside"], type=click.IntRange(min=1), default=1, hidden=True, metavar="N", section=MACHINE,
               help="workers of the tier that share this host"),
        Option(["--pod"], is_flag=True, section=MACHINE,
               help="it is a pod of a Deployment: it marks itself, and once it was let go it waits for its end"),
        app_option(),
        *place_options(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=serve, help=(
        "A worker of a tier. SIGTERM: what runs is paused, queued again, and the worker ends. SIGUSR1: it ends if it is idle."
    ))  # fmt: skip


def worker_arguments(settings: Settings, app: str | None) -> list[str]:
    """The settings of this command for the workers that it starts."""
    words = [word for name in (*PLACES, "store") for word in _words(name, getattr(settings, name))]
    return [*words, *_words("app", app)]


def _words(option: str, value: object) -> list[str]:
    return [] if value is None else [f"--{option}", str(value)]


def app_option() -> Option:
    return Option(["--app"], metavar="MODULE:APP", section=MACHINE,
                  help="a Celery application on the same broker, whose tasks run here, too")  # fmt: skip


def _queue(settings: Settings, app: str | None, desk: Desk, tier: Tier) -> Queue:
    """What wakes this worker: the table itself, or a broker."""
    if settings.broker is not None:
        from millrace.jobs.celery.opening import open_queue

        return open_queue(settings.broker, app, desk.table, desk.tiers, tier, _line)
    _needs_broker(app)
    from millrace.jobs.queues import TableQueue

    return TableQueue(desk.table)


def over_broker(
    settings: Settings, app: str | None, desk: Desk, say: Callable[[str], None]
) -> tuple[Loads | None, Callable[[], object]]:
    """With a broker, tasks that are no jobs count, too, and what is lost is sent again: the loads of the tiers (None: the
    table tells them), and what closes all of that."""
    if settings.broker is None:
        _needs_broker(app)
        return None, lambda: None
    from millrace.jobs.celery.opening import Watch
    from millrace.jobs.signals import tier_loads

    watch = Watch(settings.broker, app, desk, say)
    return lambda: watch.with_tasks(tier_loads(desk.table, tuple(desk.tiers.tiers))), watch.close


def _needs_broker(app: str | None) -> None:
    if app is not None:
        raise WrongQuestion("The tasks of an application come over its broker: give --broker its URL.")


def _left(desk: Desk) -> str:
    """What the next `up` will find."""
    from millrace.jobs.database import DatabaseAway

    try:
        jobs = sum(load.jobs for load in desk.table.load())
    except DatabaseAway as e:
        return str(e)
    return (
        f"Open jobs: {jobs}; the next `millrace up` goes on, with all that they finished kept."
        if jobs
        else "No job is open."
    )


def changes(say: Callable[[str], None]) -> Callable[[str], None]:
    """On a terminal, a tier's line is said when it is another one than before: a log gets the line of every tick."""
    if not sys.stderr.isatty():
        return say
    said: dict[str, str] = {}

    def only_new(text: str) -> None:
        about = text.partition(":")[0]
        if said.get(about) != text:
            said[about] = text
            say(text)

    return only_new


def _line(text: str) -> None:
    click.echo(text, err=True)


def _same_version(workers: Any, version: str) -> None:
    """Workers of another version would make other digests of the same question."""
    others = sorted({w.version for w in workers} - {version})
    if others:
        raise WrongQuestion(
            f"Workers of millrace {', '.join(others)} serve these jobs, and this is {version}: answers might differ. Stop "
            "them first, or use their version."
        )
