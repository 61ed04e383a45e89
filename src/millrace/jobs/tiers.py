"""Tiers: pools of equal workers, their queues and limits; which queue a job belongs to. Settings of the machine, in TOML.

    [tiers.heavy]                 every field of `Tier`; what is not given is as in DEFAULTS, or as `Tier` says for a new tier
    cores = 16
    [routes]
    "reports.*" = "reports"       jobs whose label fits go to that queue
    slice_s = 600                 and the other fields of `Tiers`

Pure but for reading the file: what the host has is handed in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from millrace.jobs.states import Prediction
from millrace.run.budget import Budget, Plan
from millrace.run.errors import DoesNotFit, WrongQuestion
from millrace.run.order import SLICE_S, WEIGHT
from millrace.run.units import format_bytes, parse_bytes

_Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]

DEFAULT_QUEUES = {
    "explain": "shap", "refute": "causal", "twin": "twins", "twin_fit": "ml", "twin_generate": "twins",
    "twin_simulate": "twins", "calibrate": "calibration", "validate": "validation", "explain_row": "api", "run": "default",
}  # fmt: skip
"""Where a kind of job goes when nothing else is said."""


class Tier(BaseModel):
    """A pool of equal workers. `cores`, `memory`: of a worker, None is what the host has; `at_once`: jobs in a worker;
    `soft_s`, `hard_s`: of a slice; `warm`: processes are kept between jobs, and replaced after `recycle_after`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    cores: int | None = Field(None, ge=1)
    memory: _Bytes | None = None
    queues: tuple[str, ...] = ()
    least: int = Field(0, ge=0)
    most: int | None = Field(1, ge=0)
    at_once: int = Field(1, ge=1)
    soft_s: float = Field(3300, gt=0)
    hard_s: float = Field(3600, gt=0)
    recycle_after: int = Field(10, ge=1)
    warm: bool = False
    nice: int = Field(10, ge=0, le=19)
    scratch: _Bytes = 8_000_000_000
    slo_s: float | None = None

    @model_validator(mode="after")
    def _possible(self) -> Tier:
        if self.soft_s >= self.hard_s:
            raise ValueError(f"soft_s = {self.soft_s:g} is not less than hard_s = {self.hard_s:g}")
        if self.most is not None and self.least > self.most:
            raise ValueError(f"least = {self.least} is more than most = {self.most}")
        return self

    @property
    def slot_cores(self) -> int:
        return max(1, (self.cores or 1) // self.at_once)

    @property
    def slot_bytes(self) -> int:
        return (self.memory or 0) // self.at_once


GIB = 1 << 30
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "cores": 2, "memory": 2 * GIB, "queues": ("default", "quick", "api"), "least": 2, "most": 4, "at_once": 4,
        "soft_s": 300, "hard_s": 330, "recycle_after": 100, "warm": True, "nice": 0, "slo_s": 5,
    },
    "medium": {
        "cores": 4, "memory": 8 * GIB, "queues": ("analytics", "reports", "aggregations"), "least": 1, "most": 3,
        "at_once": 2, "soft_s": 6600, "hard_s": 7200, "recycle_after": 50, "slo_s": 60,
    },
    "heavy": {
        "cores": 16, "memory": 32 * GIB, "most": 4, "at_once": 2,
        "queues": ("shap", "causal", "ml", "twins", "calibration", "validation"),
    },
    "gpu": {"queues": ("gpu",), "most": None},
}  # fmt: skip


class Tiers(BaseModel):
    """All tiers and what holds for every job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: dict[str, Tier]
    routes: dict[str, str] = {}
    slice_s: float = Field(SLICE_S, gt=0)
    weight: float = Field(WEIGHT, ge=0)
    unknown_s: float = Field(60.0, gt=0)
    lease_s: float = Field(30.0, gt=0)
    grace_s: float = Field(30.0, gt=0)
    results_days: float = Field(30, gt=0)
    ledgers_days: float = Field(90, gt=0)

    @model_validator(mode="after")
    def _whole(self) -> Tiers:
        owners: dict[str, str] = {}
        for tier in self.tiers.values():
            for queue in tier.queues:
                if queue in owners:
                    raise ValueError(
                        f"the queue {queue!r} is of two tiers, {owners[queue]} and {tier.name}: one is to do it"
                    )
                owners[queue] = tier.name
        for kind, queue in DEFAULT_QUEUES.items():
            if queue not in owners:
                raise ValueError(f"no tier has the queue {queue!r}, where {kind} jobs go: give it to one")
        for pattern, queue in self.routes.items():
            if queue not in owners:
                raise ValueError(f"the route {pattern!r} leads to {queue!r}, which no tier has")
        return self

    def tier(self, name: str) -> Tier:
        if name not in self.tiers:
            raise WrongQuestion(f"There is no tier {name!r}; there are {', '.join(self.tiers)}.")
        return self.tiers[name]

    def of_queue(self, queue: str) -> Tier:
        for tier in self.tiers.values():
            if queue in tier.queues:
                return tier
        known = ", ".join(q for t in self.tiers.values() for q in t.queues)
        raise WrongQuestion(f"There is no queue {queue!r}; there are {known}.")

    def above(self, tier: Tier) -> Tier | None:
        """The next bigger tier by memory that may have workers."""
        bigger = [t for t in self.tiers.values() if (t.memory or 0) > (tier.memory or 0) and t.most != 0]
        return min(bigger, key=lambda t: t.memory or 0, default=None)


def load_tiers(path: Path | None, gpus: int = 0) -> Tiers:
    """The tiers of a TOML file over the defaults. `gpus`: found on this host, the most replicas of the tier gpu."""
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise WrongQuestion(f"The tiers in {path} cannot be read: {e}.") from e
    place = "the defaults" if path is None else str(path)
    own = given.pop("tiers", {})
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise WrongQuestion(f"{place}: tiers are tables, such as [tiers.heavy].")
    merged = {name: {"name": name, **DEFAULTS.get(name, {}), **own.get(name, {})} for name in [*DEFAULTS, *own]}
    if merged["gpu"]["most"] is None:
        merged["gpu"]["most"] = gpus
    try:
        return Tiers(tiers=merged, **given)  # type: ignore[arg-type]
    except ValidationError as e:
        said = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in e.errors()
        )
        raise WrongQuestion(f"The tiers in {place} cannot be: {said}.") from e


def capped(tier: Tier, cores: int, memory_bytes: int) -> tuple[Tier, str]:
    """The tier as this host can carry it, and a line that says what was taken away ("" when nothing was)."""
    new = {"cores": min(tier.cores or cores, cores), "memory": min(tier.memory or memory_bytes, memory_bytes)}
    said = []
    if tier.cores is not None and tier.cores > cores:
        said.append(f"{tier.cores} cores asked, this host has {cores}")
    if tier.memory is not None and tier.memory > memory_bytes:
        said.append(f"{format_bytes(tier.memory)} asked, this host has {format_bytes(memory_bytes)} to give")
    return tier.model_copy(update=new), f"{tier.name}: {'; '.join(said)}." if said else ""


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
