"""Which queue and tier a job goes to: by the queue asked for, the user's routes, and prediction. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from millrace.jobs.states import Prediction
from millrace.run.budget import Budget, Plan
from millrace.run.errors import DoesNotFit, WrongQuestion
from millrace.run.units import format_bytes
from millrace.tiers import DEFAULT_QUEUES, Tier, Tiers


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a job goes, and what it will take there."""

    queue: str
    tier: str
    prediction: Prediction
    why: str


def route(
    tiers: Tiers, kind: str, label: str, plan: Callable[[Budget], Plan] | None, queue: str | None = None
) -> Routed:
    """By the queue asked for; else by the user's patterns; else by prediction: what fits a slot of light goes there, and
    the rest by its kind, to a bigger tier when it does not fit its own.

    `plan`: of the question under a budget; None when nobody can predict it. `DoesNotFit` when no tier would do.
    """
    asked = queue or next((to for pattern, to in tiers.routes.items() if fnmatchcase(label, pattern)), None)
    home = tiers.of_queue(asked or DEFAULT_QUEUES[kind])
    if home.most == 0 and (plan is None or asked is not None):
        raise WrongQuestion(
            f"The queue {asked or DEFAULT_QUEUES[kind]!r} is of the tier {home.name}, which may have no worker (most = 0): use "
            "another queue, or give the tier workers in the tiers' file."
        )
    if plan is None:
        return Routed(asked or DEFAULT_QUEUES[kind], home.name, Prediction(), "nobody can predict it: by its kind")
    light = tiers.tiers.get("light")
    if asked is None and light is not None and light.most != 0:
        made = _within(plan, Budget(light.slot_cores, light.slot_bytes))
        if made is not None and made.wall_s <= light.soft_s:
            return Routed(light.queues[0], light.name, _told(made), "it fits a slot of the tier light")
    tried: Tier | None = home
    while tried is not None:
        for size in (tried.slot_bytes, tried.memory or 0):  # a slot; else alone in a worker
            made = _within(plan, Budget(tried.slot_cores, size))
            if made is not None and tried.most != 0:
                mine = tried is home
                return Routed(
                    asked or DEFAULT_QUEUES[kind] if mine else tried.queues[0], tried.name, _told(made),
                    "by its queue" if mine else f"it does not fit the tier {home.name}",
                )  # fmt: skip
        tried = tiers.above(tried)
    raise _refused(tiers, plan)


def _within(plan: Callable[[Budget], Plan], budget: Budget) -> Plan | None:
    try:
        return plan(budget)
    except DoesNotFit:
        return None


def _told(made: Plan) -> Prediction:
    return Prediction(made.wall_s, made.core_s, made.peak_bytes)


def _refused(tiers: Tiers, plan: Callable[[Budget], Plan]) -> DoesNotFit:
    largest = max((t for t in tiers.tiers.values() if t.most != 0), key=lambda t: t.memory or 0)
    try:
        plan(Budget(1, largest.memory or 0))
    except DoesNotFit as e:
        return DoesNotFit(
            f"The job fits no tier: the largest, {largest.name}, has {format_bytes(largest.memory or 0)} a worker, and a "
            f"tier of {format_bytes(e.needs_bytes, up=True)} would do. Raise its memory in the tiers' file, or ask a "
            "smaller question.",
            e.needs_bytes,
        )
    return DoesNotFit(f"The queue's tier may have no worker (most = 0), and {largest.name} is no bigger: use it.", 0)
