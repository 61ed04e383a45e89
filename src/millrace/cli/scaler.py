"""`millrace scale run`, `scale once`, `scale status`: the scaler at work over any driver, and what it sees."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.console import columns, say, say_json
from millrace.cli.desks import on_signals, place_options, settings_of
from millrace.cli.options import MACHINE, Option, Sectioned, json_option
from millrace.run.units import format_duration

if TYPE_CHECKING:
    from millrace.jobs.desk import Desk
    from millrace.scaling import Keeper, Standing

DRIVERS = ("processes", "compose", "kubernetes", "dask")


def run(name: str) -> click.Command:
    def scale(**given: Any) -> int:
        from millrace.autoscale.told import serving

        stop = threading.Event()
        with _kept(given, stays=True) as (desk, keeper):
            on_signals(stop.set)
            for remark in keeper.remarks:
                click.echo(remark, err=True)
            try:
                with contextlib.ExitStack() as served:
                    if given["port"] is not None:
                        port = served.enter_context(serving(keeper.scaler, given["host"], given["port"]))
                        click.echo(f"http://{given['host']}:{port}/metrics", err=True)
                    keeper.scaler.run(stop)
            finally:
                keeper.close(desk.tiers.grace_s + 10)
        return 0

    port = [
        Option(["--port"], type=click.IntRange(0, 65535), metavar="N", section=MACHINE,
               help="also serve /desired/TIER, /metrics and /healthz there (not given: nothing is served)"),
        Option(["--host"], default="127.0.0.1", show_default=True, metavar="ADDRESS", section=MACHINE,
               help="the address of --port; 0.0.0.0 in a pod"),
    ]  # fmt: skip
    return Sectioned(name, params=[*port, *_options(dry=True)], callback=scale, help=(
        "Scale the tiers until Ctrl-C. One scaler at a time decides: others wait until it leaves. Workers that are processes of "
        "this host end with it; containers and pods stay."
    ))  # fmt: skip


def once(name: str) -> click.Command:
    def scale(**given: Any) -> int:
        with _kept(given, stays=False) as (_, keeper):
            keeper.scaler.tick()
            keeper.close(0.0)
        return 0

    return Sectioned(name, params=_options(dry=True), callback=scale, help=(
        "One tick, for a timer of your own. Workers that it starts stay when it has ended, and write to workers.log in the jobs' "
            "folder."
    ))  # fmt: skip


def status(name: str) -> click.Command:
    def told(**given: Any) -> int:
        from millrace.scaling import in_office, standing

        with _kept({**given, "dry_run": True}, stays=False) as (desk, keeper):
            found, office = standing(keeper), in_office(desk)
            keeper.close(0.0)
        if given["json"]:
            say_json({"scaler": office and {"holder": office[0], "lease_s": office[1]}, "tiers": [*map(_plain, found)]})
            return 0
        head = (
            "tier",
            "workers",
            "busy",
            "booting",
            "leaving",
            "of",
            "running",
            "queued",
            "waits",
            "work",
            "cost",
            "would",
        )
        say(columns([head, *map(_row, found)], right=range(1, 11)))
        for one in found:
            for why in one.trouble:
                click.echo(f"{one.tier.name}: {why}", err=True)
        who = "nobody: start `millrace up` or `millrace scale run`" if office is None else office[0]
        click.echo(
            f"Scaled by {who}. Costs are in {desk.tiers.prices.currency}, of all the time that workers were there."
        )
        return 0

    return Sectioned(name, params=[*_options(dry=False), json_option()], callback=told, help=(
        "What each tier has and is asked for, and what the scaler would do now. Touches nothing."
    ))  # fmt: skip


def _options(dry: bool) -> list[click.Parameter]:
    from millrace.cli.up import app_option

    found: list[click.Parameter] = [
        Option(["--driver"], type=click.Choice(DRIVERS), section=MACHINE,
               help="where the workers are (not given: as the tiers' file says, processes)"),
        Option(["--interval"], type=click.FloatRange(min=0.1), metavar="SECONDS", section=MACHINE,
               help="between two ticks (not given: 5 for processes and dask, else 30)"),
        Option(["--store"], metavar="STORE", section=MACHINE, help="where workers keep finished work and find it again"),
    ]  # fmt: skip
    if dry:
        found.append(Option(["--dry-run"], is_flag=True, section=MACHINE, help="decide and say, and touch nothing"))
    return [*found, app_option(), *place_options()]


@contextmanager
def _kept(given: Mapping[str, Any], stays: bool) -> Iterator[tuple[Desk, Keeper]]:
    from millrace.cli.up import changes, over_broker, worker_arguments
    from millrace.compose import open_jobs
    from millrace.scaling import keeper

    settings = settings_of(given, "store")
    tell = lambda text: click.echo(text, err=True)  # noqa: E731 - named for its type
    desk = open_jobs(settings, tell)
    over: Callable[[], object] = lambda: None  # noqa: E731 - until there is a broker to leave
    try:
        loads, over = over_broker(settings, given["app"], desk, tell)
        yield desk, keeper(
            settings, desk, worker_arguments(settings, given["app"]), say=changes(tell), driver=given["driver"],
            interval_s=given["interval"], dry=given["dry_run"], stays=stays, loads=loads,
        )  # fmt: skip
    finally:
        over()
        desk.table.close()


def _row(one: Standing) -> tuple[str, ...]:
    demand, supply, decision = one.demand, one.supply, one.decision
    busy = None if supply.ready is None or supply.idle_s is None else supply.ready - len(supply.idle_s)
    booting = None if supply.booting_s is None else len(supply.booting_s)
    target = "hold" if decision.target is None else str(decision.target)
    return (
        one.tier.name, *map(_number, (supply.ready, busy, booting, supply.draining)), f"{one.tier.least}-{one.tier.most}",
        *map(_number, (demand.running, demand.queued)), _time(demand.oldest_wait_s), _time(demand.work_s),
        "?" if one.cost is None else f"{one.cost:.2f}", f"{target} ({decision.reason})",
    )  # fmt: skip


def _plain(one: Standing) -> dict[str, Any]:
    demand, supply, decision = one.demand, one.supply, one.decision
    return {
        "tier": one.tier.name, "least": one.tier.least, "most": one.tier.most, "at_once": one.tier.at_once,
        "ready": supply.ready, "booting_s": supply.booting_s, "draining": supply.draining, "idle_s": supply.idle_s,
        "running": demand.running, "queued": demand.queued, "oldest_wait_s": demand.oldest_wait_s, "work_s": demand.work_s,
        "desired": decision.target, "reason": decision.reason, "alert": decision.alert, "trouble": one.trouble,
        "cost": one.cost, "cost_since": one.cost_since,
    }  # fmt: skip


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _time(value: float | None) -> str:
    return "?" if value is None else format_duration(value) if value else "-"
