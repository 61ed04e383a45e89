"""/v1/tiers: what the tiers are and how they are loaded, now and over the last hours; the forecast of a question on each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from millrace import compose
from millrace.ordering import Asked
from millrace.quotes import quotes
from millrace.service import pictures
from millrace.service.access import needs
from millrace.service.answers import Plain
from millrace.service.house import House, house_of
from millrace.service.problems import responses


class Sample(BaseModel):
    """How a tier was at a time (seconds since 1970)."""

    at: float
    replicas: int
    queued: int
    running: int
    oldest_wait_s: float
    cost_per_hour: float | None


class TierView(BaseModel):
    """A tier as it is set and as it is now. `load` is null when the job table could not be read."""

    name: str
    cores: int | None = Field(description="of a worker; null: what its host has")
    memory_bytes: int | None
    queues: list[str]
    least: int
    most: int | None
    jobs_at_once: int
    target_wait_s: float | None
    load: dict[str, Any] | None
    cost_per_hour: float | None = Field(description="money, of the workers that are there now")
    cost: float | None = Field(
        description="money, since this service began to look; null: what a worker costs is unknown"
    )
    history: list[Sample]
    chart: dict[str, Any] | None = Field(description="the history as a picture (Vega-Lite)")


class TierList(BaseModel):
    tiers: list[TierView]
    workers: list[dict[str, Any]]
    since: float = Field(description="when this service began to look")


class OnTier(BaseModel):
    """What the question takes on a tier; `fits` false: the smallest memory that would do is `needs_bytes`."""

    tier: str
    fits: bool
    seconds: float | None
    core_s: float | None
    peak_bytes: int | None
    needs_bytes: int | None
    money: float | None


class Forecast(BaseModel):
    """Where a question would go, and what it takes on each tier. Null is unknown: nobody can predict it."""

    queue: str
    tier: str
    why: str
    tiers: list[OnTier]


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["tiers"], default_response_class=Plain)

    @router.get("/tiers", response_model=TierList, responses=responses(401, 403), dependencies=[needs("read")])
    def tiers(request: Request) -> Plain:
        """The tiers: replicas, queues, waits and cost, now and as they were since the service began to look."""
        house = house_of(request)
        seen = house.lookout
        now = seen.now()
        return Plain(
            {
                "tiers": [
                    {
                        "name": tier.name, "cores": tier.cores, "memory_bytes": tier.memory, "queues": tier.queues,
                        "least": tier.least, "most": tier.most, "jobs_at_once": tier.at_once, "target_wait_s": tier.slo_s,
                        "load": now.loads.get(tier.name) if now.known else None,
                        "cost_per_hour": seen.cost_per_hour(tier.name) if now.known else None,
                        "cost": seen.costs.get(tier.name), **_past(tier.name, seen.history(tier.name)),
                    }
                    for tier in house.desk.tiers.tiers.values()
                ],
                "workers": now.workers,
                "since": seen.since,
            }
        )  # fmt: skip

    return router


def _past(name: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    return {"history": history, "chart": pictures.tier(name, history)}


def forecast(house: House, asked: Asked, label: str, queue: str | None) -> dict[str, Any]:
    """As `Forecast`. `DoesNotFit` when no tier would do."""
    to = asked.to(house.desk, label, queue)
    return {"queue": to.queue, "tier": to.tier, "why": to.why, "tiers": _on_tiers(house, asked, to.tier)}


def _on_tiers(house: House, asked: Asked, chosen: str) -> list[dict[str, Any]]:
    nothing = dict.fromkeys(("seconds", "core_s", "peak_bytes", "needs_bytes", "money"))
    tiers, settings = house.desk.tiers, house.settings
    if asked.plan is None:
        return [{"tier": tier.name, "fits": True, **nothing} for tier in tiers.tiers.values() if tier.most != 0]
    told = quotes(tiers, asked.plan, compose.budget_of(settings), settings.core_hour_price, chosen=chosen)
    return [
        {
            "tier": one.tier, "fits": True, "seconds": one.wall_s, "core_s": one.core_s, "peak_bytes": one.peak_bytes,
            "needs_bytes": None, "money": one.money,
        }
        if one.fits
        else {"tier": one.tier, "fits": False, **nothing, "needs_bytes": one.needs_bytes}
        for one in told
    ]  # fmt: skip
