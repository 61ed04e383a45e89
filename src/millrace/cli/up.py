"""`millrace up` and `millrace worker --tier T`: the processes that carry jobs out. `millrace serve` is in `serve`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.desks import PLACES, place_options, settings_of
from millrace.cli.options import MACHINE, Option, Sectioned
from millrace.cli.serve import at_options
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.settings import Settings

_PR_SET_PDEATHSIG = 1


def up(name: str) -> click.Command:
    def serve(**given: Any) -> int:
        from millrace.cli.serve import attended
        from millrace.compose import open_jobs
        from millrace.jobs.supervisor import Supervisor, held

        settings = settings_of(given, "service_tokens")
        with held(settings.jobs):
            desk = open_jobs(settings)
            supervisor = Supervisor(desk, _arguments(settings), _line)
            _on_signals(supervisor.stop)
            try:
                with attended(desk, settings, given["host"], given["port"], _line) as url:
                    _line(f"Jobs in {settings.jobs}; {url}; Ctrl-C drains and stops.")
                    for said in desk.check():
                        _line(said)
                    supervisor.serve()
            finally:
                desk.table.close()
            _line("Stopped. What was running is queued again, with all that it finished kept.")
        return 0

    return Sectioned(name, params=[*at_options(), *place_options()], callback=serve, help=(
        "Serve the jobs' folder: the table, workers of every tier, the HTTP service and its page. Ctrl-C drains and stops all."
    ))  # fmt: skip


def worker(name: str) -> click.Command:
    def serve(**given: Any) -> int:
        from millrace import __version__, host
        from millrace.compose import open_jobs
        from millrace.jobs.queues import TableQueue
        from millrace.jobs.tiers import capped
        from millrace.jobs.worker.warden import Place, Warden

        die_with(given["parent"])
        settings = settings_of(given)
        desk = open_jobs(settings)
        asked = desk.tiers.tier(given["tier"])
        tier, remark = capped(asked, host.slots(host.cores()), host.default_budget_bytes())
        if remark:
            _line(remark)
        _same_version(desk.table.workers(), __version__)
        place = Place(settings.jobs, given["store"] or str(settings.store))
        warden = Warden(desk.table, TableQueue(desk.table), desk.tiers, tier, place, __version__, _line)
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
        *place_options(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=serve, help=(
        "A worker of a tier. SIGTERM: what runs is paused, queued again, and the worker ends. SIGUSR1: it ends when idle."
    ))  # fmt: skip


def _arguments(settings: Settings) -> list[str]:
    """The settings of this command for the workers that it starts."""
    values = {name: getattr(settings, name) for name in (*PLACES, "store")}
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def _line(text: str) -> None:
    click.echo(text, err=True)


def _on_signals(stop: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def die_with(parent: int | None) -> None:
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
