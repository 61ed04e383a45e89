"""The scaler of a place, put together: what the job table tells as signals, a driver, the office, the webhook.

`millrace up` keeps one on its own host, `millrace scale` one over any driver. Decides nothing (see `autoscale.policy`).
"""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.autoscale.loop import OFFICE, Driver, Scaler
from millrace.autoscale.policy import Decision, decide
from millrace.autoscale.signals import Demand, DemandPort, Past, Supply, Worker
from millrace.autoscale.signals import Signals as Known
from millrace.jobs.signals import TierLoad, tier_loads, worker_seconds
from millrace.run.errors import MillraceError, WrongQuestion
from millrace.tiers import Prices, Tier, Tiers, at_home

if TYPE_CHECKING:
    from millrace.autoscale.drivers.cluster import Api
    from millrace.host.pod import Pod
    from millrace.jobs.desk import Desk
    from millrace.jobs.table import JobTable
    from millrace.settings import Settings

QUICK_S, SLOW_S = 5.0, 30.0
Loads = Callable[[], Mapping[str, TierLoad]]


@dataclass(frozen=True, slots=True)
class TableSignals:
    """The ports of the scaler over the job table. `loads`: of the tiers, with what a broker adds to the table's; `alone`: it
    adds nothing."""

    table: JobTable
    loads: Loads
    alone: bool

    def demand(self, tier: str) -> Demand:
        load = self.loads()[tier]
        return Demand(load.queued, load.oldest_wait_s, load.running, load.work_s)

    def crew(self, tier: str) -> Sequence[Worker]:
        return [Worker(w.pid, w.host, w.state, w.since, w.id) for w in self.table.workers() if w.tier == tier]

    def ask(self, worker: Worker) -> None:
        self.table.ask_to_leave(worker.id)

    def waits(self, tiers: Sequence[str]) -> bool:
        if self.alone:
            return self.table.changed() and any(
                load.state == "queued" and load.tier in tiers for load in self.table.load()
            )
        loads = self.loads()
        return any(loads[tier].queued for tier in tiers)

    def take_office(self, name: str, holder: str, lease_s: float) -> bool:
        return self.table.take_office(name, holder, lease_s)

    def leave_office(self, name: str, holder: str) -> None:
        self.table.leave_office(name, holder)


@dataclass(frozen=True, slots=True)
class Keeper:
    """A scaler with what is closed with it; `remarks`: what the host does not let the tiers have, a line each."""

    scaler: Scaler
    remarks: Sequence[str]
    closing: Sequence[Callable[[float], None]]

    def turn(self) -> None:
        self.scaler.turn()

    def close(self, grace_s: float) -> None:
        """Leave the office, and let those go that end with this scaler: they pause what they run within the grace."""
        self.scaler.leave()
        for close in self.closing:
            close(grace_s)


def keeper(
    settings: Settings, desk: Desk, arguments: Sequence[str], *, say: Callable[[str], None], driver: str | None = None,
    interval_s: float | None = None, dry: bool = False, stays: bool = True, holder: str | None = None,
    loads: Loads | None = None,
) -> Keeper:  # fmt: skip
    """A scaler over the driver that is asked for, else that of the tiers' file. `arguments`: of `millrace worker`, for workers
    on this host; `stays`: they end with this process. `holder`: who has the office, by default a name of its own.

    Raises `WrongQuestion` for settings that cannot be, `MissingExtra`.
    """
    kind = driver or desk.tiers.scaler.driver
    port = TableSignals(desk.table, loads or (lambda: tier_loads(desk.table, tuple(desk.tiers.tiers))), loads is None)
    tiers, remarks, demand, made, closing = _over(
        kind,
        desk.tiers,
        port,
        _command(arguments, stays),
        say,
        None if stays else desk.home / "workers.log",
    )
    hook = None
    if settings.webhook is not None and not dry:
        from millrace.autoscale.webhook import Webhook

        hook = Webhook(settings.webhook, say)
        closing.append(lambda _, told=hook: told.close())  # type: ignore[misc]
    tiers = tiers.model_copy(update={"tiers": {name: tier for name, tier in tiers.tiers.items() if tier.most}})
    every_s = interval_s or desk.tiers.scaler.interval_s or (QUICK_S if kind in ("processes", "dask") else SLOW_S)
    name = holder or f"scale@{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
    scaler = Scaler(tiers, demand, made, port, name, every_s, dry, say, hook, port.waits if kind != "dask" else None)
    return Keeper(scaler, remarks, closing)


def _over(
    kind: str, tiers: Tiers, port: TableSignals, command: Callable[[Tier], Sequence[str]], say: Callable[[str], None],
    log: Path | None,
) -> tuple[Tiers, list[str], DemandPort, Driver, list[Callable[[float], None]]]:  # fmt: skip
    """The tiers that are scaled, what is said of them, who tells the demand, the driver, and what closes it. `log`: of workers
    that stay when this process has ended; None: they end with it."""
    if kind == "processes":
        from millrace import host
        from millrace.autoscale.drivers.processes import Processes

        capped, remarks = at_home(tiers, host.slots(host.cores()), host.default_budget_bytes())
        local = Processes(command, port, host=platform.node(), say=say, log=log)
        return capped, remarks, port, local, [local.close] if log is None else []
    if kind == "compose":
        from millrace.autoscale.drivers.compose import Containers

        asked = tiers.scaler.compose
        named = lambda tier: asked.services.get(tier.name, f"worker-{tier.name}")  # noqa: E731 - named for its type
        return tiers, [], port, Containers(asked.files, asked.project, named, port), []
    if kind == "kubernetes":
        return tiers, [], port, _pods(tiers, port), []
    from millrace.run.errors import MissingExtra

    one = tiers.scaler.dask
    if not one.address:
        raise WrongQuestion(
            "The scaler of a Dask cluster needs its address: write it under [scaler.dask] in the tiers' file, such as "
            'address = "tcp://scheduler:8786".'
        )
    try:
        from millrace.autoscale.drivers.dask import Adaptive
    except ImportError as missing:
        raise MissingExtra("distributed", "dask", "The scaler of a Dask cluster") from missing
    from millrace.host import child_environment

    cluster = Adaptive(one.address, one.command, child_environment(), say)
    alone = tiers.model_copy(update={"tiers": {one.tier: tiers.tier(one.tier)}})
    return alone, [], cluster, cluster, [cluster.close]


def _pods(tiers: Tiers, port: TableSignals) -> Driver:
    from millrace.autoscale.drivers.kubernetes import Deployments, Desired, JobEach

    asked = tiers.scaler.kubernetes
    api, where = _cluster(asked.api, asked.namespace)
    kind = {"deployment": Deployments, "keda": Desired, "jobs": JobEach}[asked.mode]
    return kind(api, where.namespace, lambda tier: asked.workloads.get(tier.name, f"millrace-{tier.name}"), port)


def _cluster(url: str | None, namespace: str | None) -> tuple[Api, Pod]:
    from millrace.autoscale.drivers.cluster import Api
    from millrace.host.pod import pod

    where = pod(api=url, namespace=namespace)
    if url is not None:
        return Api(where.api), where
    return Api(where.api, where.token, where.authority), where


def pod_marker(tiers: Tiers, say: Callable[[str], None]) -> Callable[[str], None]:
    """Marks the pod that this process is in with what its worker does, so that a ReplicaSet takes those first that have
    drained. `WrongQuestion` when it is in none."""
    from millrace.autoscale.drivers.kubernetes import Marker

    api, where = _cluster(tiers.scaler.kubernetes.api, tiers.scaler.kubernetes.namespace)
    return Marker(api, where.namespace, where.name, say)


def _command(arguments: Sequence[str], stays: bool) -> Callable[[Tier], Sequence[str]]:
    more = ["--parent", str(os.getpid())] if stays else []
    return lambda tier: [
        sys.executable,
        "-m",
        "millrace",
        "worker",
        "--tier",
        tier.name,
        "--beside",
        str(max(1, tier.most)),
        *more,
        *arguments,
    ]


@dataclass(frozen=True, slots=True)
class Standing:
    """A tier as it is now. `decision`: what the policy would do; `trouble`: what could not be read; `cost`: money so far, of all
    the time that its workers were there, since `cost_since`; None: the job table does not know the workers, or what one
    costs is unknown."""

    tier: Tier
    demand: Demand
    supply: Supply
    decision: Decision
    trouble: tuple[str, ...]
    cost: float | None
    cost_since: float | None


def standing(one: Keeper) -> list[Standing]:
    """Every tier as the scaler would see it now. Touches nothing."""
    scaler, found = one.scaler, []
    lives = worker_seconds(scaler.demand.table) if isinstance(scaler.demand, TableSignals) else None
    for tier in scaler.tiers.tiers.values():
        demand, supply, trouble = Demand(forecast_slots=None), Supply(capacity=None), list[str]()
        try:
            demand = scaler.demand.demand(tier.name)
        except MillraceError as away:
            trouble.append(str(away))
        try:
            supply = scaler.driver.observe(tier)
        except MillraceError as away:
            trouble.append(str(away))
        now = scaler.clock()
        decision = decide(tier, Known(demand, supply, Past(now)), now)
        since, seconds = (None, 0.0) if lives is None else lives.get(tier.name, (None, 0.0))
        cost = None if lives is None else cost_of(tier, scaler.tiers.prices, seconds)
        found.append(Standing(tier, demand, supply, decision, tuple(trouble), cost, since))
    return found


def cost_of(tier: Tier, prices: Prices, seconds: float) -> float | None:
    """Money for so many seconds of a worker; None: as its host has it, a worker has no price."""
    if tier.cores is None or tier.memory is None:
        return None
    return seconds / 3600 * tier.price_hour(prices)


def in_office(desk: Desk) -> tuple[str, float] | None:
    """Who scales these jobs, and for how many seconds its lease lasts."""
    held = desk.table.office(OFFICE)
    return None if held is None else (held[0], held[1] - desk.table.clock())
