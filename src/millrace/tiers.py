"""Tiers: pools of equal workers, their queues, limits, bounds and prices. Settings of the machine, in one TOML file.

    slice_s = 600                 and the other fields of `Tiers`
    [tiers.heavy]                 every field of `Tier`; what is not given is as in DEFAULTS, or as `Tier` says for a new tier
    cores = 16
    memory = "32GiB"
    most = 4
    schedule = [{ days = "mon-fri", hours = [8, 18], replicas = 1 }]
    [routes]
    "reports.*" = "reports"       jobs whose label fits go to that queue
    [prices]
    core_hour = 0.04
    [scaler]
    driver = "compose"            and the other fields of `Scaling`

Workers, the job table, the scaler and its simulator all read this one. Pure but for reading the file: what the host has is
handed in.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from millrace.run.errors import WrongQuestion
from millrace.run.order import SLICE_S, WEIGHT
from millrace.run.units import format_bytes, parse_bytes

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GIB = 1 << 30

_Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]

DEFAULT_QUEUES = {
    "explain": "shap", "refute": "causal", "twin": "twins", "twin_fit": "ml", "twin_generate": "twins",
    "twin_simulate": "twins", "calibrate": "calibration", "validate": "validation", "explain_row": "api", "run": "default",
}  # fmt: skip
"""Where a kind of job goes when nothing else is said."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hours(_Frozen):
    """A floor of replicas at some hours: `days` such as "mon-fri" or "sat,sun", `hours` [from, to) on the tier's clock."""

    days: str = "mon-sun"
    hours: tuple[Annotated[int, Field(ge=0, le=23)], Annotated[int, Field(ge=1, le=24)]] = (0, 24)
    replicas: int = Field(ge=0)

    @model_validator(mode="after")
    def _readable(self) -> Hours:
        self.weekdays()
        if self.hours[0] >= self.hours[1]:
            raise ValueError(f"hours {list(self.hours)} end before they begin; split them at midnight")
        return self

    def weekdays(self) -> frozenset[int]:
        """Monday is 0."""
        found: set[int] = set()
        for part in self.days.lower().replace(" ", "").split(","):
            match = re.fullmatch(r"([a-z]{3})(?:-([a-z]{3}))?", part)
            ends = [DAYS.index(d) for d in match.groups() if d in DAYS] if match else []
            if match is None or len(ends) != 1 + (match[2] is not None):
                raise ValueError(f"days {self.days!r} is not such as 'mon-fri' or 'sat,sun'")
            first, last = ends[0], ends[-1]
            found.update((first + i) % 7 for i in range((last - first) % 7 + 1))
        return frozenset(found)


class Prices(_Frozen):
    """Money per hour of a core and of a GiB of memory."""

    core_hour: float = Field(default=0.04, ge=0)
    gib_hour: float = Field(default=0.005, ge=0)
    currency: str = "USD"


class Tier(_Frozen):
    """A pool of equal workers. `cores`, `memory`: of a worker, None is what its host has."""

    name: str = Field(min_length=1)
    cores: int | None = Field(default=None, ge=1, description="of a worker; by default those of its host")
    memory: _Bytes | None = Field(default=None, description="of a worker; by default what its host has to give")
    queues: tuple[str, ...] = Field(default=(), description="whose jobs it carries out; each queue is of one tier")
    least: int = Field(default=0, ge=0, description="replicas that are always there")
    most: int = Field(default=1, ge=0, description="replicas that there are never more of")
    at_once: int = Field(default=1, ge=1, description="jobs at once in a replica: its slots")
    soft_s: float = Field(default=3300, gt=0, description="when a slice is asked to end between two tasks")
    hard_s: float = Field(default=3600, gt=0, description="when a slice is ended by force")
    recycle_after: int = Field(default=10, ge=1, description="jobs after which a warm process is replaced")
    warm: bool = Field(default=False, description="processes are kept between jobs")
    nice: int = Field(default=10, ge=0, le=19, description="how much jobs give way to other programs")
    scratch: _Bytes = Field(default=8_000_000_000, description="what the jobs of a worker may hold in temporary files")
    slo_s: float = Field(default=600.0, gt=0, description="how long a job may wait")
    count: Literal["jobs", "work"] = Field(default="jobs", description="what queued jobs become slots by")
    boot_s: float = Field(default=120.0, ge=0, description="how long a replica boots, until boots were seen")
    idle_s: float | None = Field(
        default=None, ge=0, description="how long idle until it leaves; by default the boot time"
    )
    schedule: tuple[Hours, ...] = Field(default=(), description="floors of replicas by weekday and hour")
    zone: str = Field(default="UTC", description="whose hours the schedule means, such as Europe/Berlin")
    forecast: bool = Field(default=False, description="keep as many slots as earlier days needed at this hour")
    cost_ceiling: float | None = Field(
        default=None, gt=0, description="money per hour; jobs wait rather than exceed it"
    )

    @model_validator(mode="after")
    def _whole(self) -> Tier:
        if self.soft_s >= self.hard_s:
            raise ValueError(f"soft_s = {self.soft_s:g} is not less than hard_s = {self.hard_s:g}")
        if self.least > self.most:
            raise ValueError(f"least = {self.least} is more than most = {self.most}")
        if self.cost_ceiling is not None and (self.cores is None or self.memory is None):
            raise ValueError("a cost_ceiling needs cores and memory: what its host has is no price")
        try:
            zone_of(self.zone)
        except (KeyError, ValueError, OSError) as wrong:
            raise ValueError(f"zone {self.zone!r} is not a time zone of this machine") from wrong
        return self

    @property
    def slot_cores(self) -> int:
        return max(1, (self.cores or 1) // self.at_once)

    @property
    def slot_bytes(self) -> int:
        return (self.memory or 0) // self.at_once

    @property
    def slot_scratch(self) -> int:
        return self.scratch // self.at_once

    def price_hour(self, prices: Prices) -> float:
        """Money that one replica costs in an hour."""
        if self.cores is None or self.memory is None:
            raise WrongQuestion(
                f"The tier {self.name} has as many cores and as much memory as its host, so its price is not known: give "
                "both in the tiers' file."
            )
        return self.cores * prices.core_hour + self.memory / GIB * prices.gib_hour


DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "cores": 2, "memory": "2GiB", "queues": ("default", "quick", "api"), "least": 2, "most": 4, "at_once": 4,
        "soft_s": 300, "hard_s": 330, "recycle_after": 100, "warm": True, "nice": 0, "slo_s": 5, "count": "work",
    },
    "medium": {
        "cores": 4, "memory": "8GiB", "queues": ("analytics", "reports", "aggregations"), "least": 1, "most": 3,
        "at_once": 2, "soft_s": 6600, "hard_s": 7200, "recycle_after": 50, "slo_s": 60, "count": "work",
    },
    "heavy": {
        "cores": 16, "memory": "32GiB", "most": 4, "at_once": 2,
        "queues": ("shap", "causal", "ml", "twins", "calibration", "validation"),
    },
    "gpu": {"queues": ("gpu",)},
}  # fmt: skip
"""gpu: cores and memory as its host has, a job at once, and as many replicas as there are GPUs."""


class Compose(_Frozen):
    """Where `docker compose` finds the workers. `services`: of a tier, by default worker-TIER."""

    files: tuple[str, ...] = ("compose.yaml",)
    project: str = Field(default="millrace", min_length=1)
    services: dict[str, str] = {}


class Kubernetes(_Frozen):
    """Where the workers of a cluster are. `workloads`: of a tier, by default millrace-TIER: a Deployment whose replicas are set
    (`mode` deployment) or told to KEDA (`mode` keda), or a suspended Job that is copied for each replica (`mode` jobs). `api`:
    where it is asked; by default as a pod is told."""

    namespace: str | None = None
    mode: Literal["deployment", "keda", "jobs"] = "deployment"
    workloads: dict[str, str] = {}
    api: str | None = None


class Dask(_Frozen):
    """A Dask cluster that lives long. `tier`: whose bounds its workers keep; `command`: starts one worker of it."""

    address: str = Field(default="", description="tcp://HOST:8786")
    tier: str = "heavy"
    command: tuple[str, ...] = (
        "dask", "worker", "{address}", "--name", "{name}", "--nworkers", "1", "--nthreads", "{threads}", "--no-dashboard",
    )  # fmt: skip


class Scaling(_Frozen):
    """How the scaler works: where replicas are, and how often it looks (by default 5 s for processes and Dask, else 30 s)."""

    driver: Literal["processes", "compose", "kubernetes", "dask"] = "processes"
    interval_s: float | None = Field(default=None, gt=0)
    compose: Compose = Compose()
    kubernetes: Kubernetes = Kubernetes()
    dask: Dask = Dask()


class Tiers(_Frozen):
    """All tiers by name, what they cost, and what holds for every job."""

    tiers: dict[str, Tier]
    routes: dict[str, str] = {}
    prices: Prices = Prices()
    scaler: Scaling = Scaling()
    slice_s: float = Field(default=SLICE_S, gt=0)
    weight: float = Field(default=WEIGHT, ge=0)
    unknown_s: float = Field(default=60.0, gt=0)
    lease_s: float = Field(default=30.0, gt=0)
    grace_s: float = Field(default=30.0, gt=0)
    results_days: float = Field(default=30, gt=0)
    ledgers_days: float = Field(default=90, gt=0)

    @model_validator(mode="after")
    def _apart(self) -> Tiers:
        owners: dict[str, str] = {}
        for tier in self.tiers.values():
            for queue in tier.queues:
                if queue in owners:
                    raise ValueError(
                        f"the queue {queue!r} is of two tiers, {owners[queue]} and {tier.name}: one is to do it"
                    )
                owners[queue] = tier.name
            least = 0.0 if tier.cost_ceiling is None else tier.least * tier.price_hour(self.prices)
            if tier.cost_ceiling is not None and least > tier.cost_ceiling:
                raise ValueError(
                    f"the tier {tier.name!r} may cost {tier.cost_ceiling:g} an hour, but its least {tier.least} replicas "
                    f"cost {least:g}"
                )
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
        raise WrongQuestion(
            f"There is no queue {queue!r}; there are {known}. A tier's `queues` in the tiers' file may name more."
        )

    def above(self, tier: Tier) -> Tier | None:
        """The next bigger tier by memory that may have workers."""
        bigger = [t for t in self.tiers.values() if (t.memory or 0) > (tier.memory or 0) and t.most != 0]
        return min(bigger, key=lambda t: t.memory or 0, default=None)


def load_tiers(path: Path | None, gpus: int = 0) -> Tiers:
    """The tiers of a TOML file over the defaults; every kind of job has a queue there, and that a tier.

    `gpus`: found on this host, the most replicas of the tier gpu where the file does not say. Raises `WrongQuestion`.
    """
    place, given = "the defaults", dict[str, Any]()
    if path is not None:
        place, given = str(path), _parsed(path)
    own = given.pop("tiers", {})
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise WrongQuestion(f"{place}: tiers are tables, such as [tiers.heavy].")
    strange = sorted(set(given) - set(Tiers.model_fields))
    if strange:
        raise WrongQuestion(
            f"{place}: {', '.join(strange)} is nothing that a tiers' file says; there are [tiers.NAME] and "
            f"{', '.join(name for name in Tiers.model_fields if name != 'tiers')}."
        )
    found = {"gpu": {"most": gpus}}
    merged = {
        name: {**DEFAULTS.get(name, {}), **found.get(name, {}), **own.get(name, {}), "name": name}
        for name in [*DEFAULTS, *own]
    }
    try:
        made = Tiers.model_validate({"tiers": merged, **given})
    except ValidationError as e:
        said = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'tiers'}: {one['msg'].removeprefix('Value error, ')}"
            for one in e.errors()
        )
        raise WrongQuestion(f"The tiers in {place} cannot be: {said}.") from e
    owned = {queue for tier in made.tiers.values() for queue in tier.queues}
    for kind, queue in DEFAULT_QUEUES.items():
        if queue not in owned:
            raise WrongQuestion(
                f"The tiers in {place} cannot be: no tier has the queue {queue!r}, where {kind} jobs go: give it to one."
            )
    return made


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as wrong:
        raise WrongQuestion(f"The tiers in {path} cannot be read: {wrong}.") from wrong
    except tomllib.TOMLDecodeError as wrong:
        raise WrongQuestion(f"The tiers in {path} cannot be read, it is not a TOML file: {wrong}.") from wrong


def capped(tier: Tier, cores: int, memory_bytes: int, beside: int = 1) -> tuple[Tier, str]:
    """The tier as this host can carry it, and a line that says what was taken away ("" when nothing was). `beside`: workers
    of the tier that share the host; what a worker takes "as found" is divided among them."""
    found = {"cores": max(1, cores // beside), "memory": memory_bytes // beside}
    new = {
        "cores": min(tier.cores or found["cores"], cores),
        "memory": min(tier.memory or found["memory"], memory_bytes),
    }
    said = []
    if tier.cores is not None and tier.cores > cores:
        said.append(f"{tier.cores} cores asked, this host has {cores}")
    if tier.memory is not None and tier.memory > memory_bytes:
        said.append(f"{format_bytes(tier.memory)} asked, this host has {format_bytes(memory_bytes)} to give")
    return tier.model_copy(update=new), f"{tier.name}: {'; '.join(said)}." if said else ""


def at_home(tiers: Tiers, cores: int, memory_bytes: int) -> tuple[Tiers, list[str]]:
    """The tiers as one host can carry them, workers and their number; a line for each that it caps. The least are always
    there."""
    found, said = dict[str, Tier](), []
    for tier in tiers.tiers.values():
        one, remark = capped(tier, cores, memory_bytes, max(1, tier.most))
        room = tier.most  # of GPUs, where memory is as found
        if tier.memory is not None:
            room = max(tier.least, memory_bytes // min(tier.memory, memory_bytes), 1)
        if room < one.most:
            one = one.model_copy(update={"most": room})
            remark = f"{remark or f'{tier.name}:'} {tier.most} workers asked, this host has memory for {room}."
        found[tier.name] = one
        said += [remark] if remark and one.most else []
    return tiers.model_copy(update={"tiers": found}), said


def replicas_of(slots: float, tier: Tier) -> int:
    """Replicas that hold so many slots."""
    return math.ceil(slots / tier.at_once)


def zone_of(name: str) -> tzinfo:
    """UTC is there also on machines without a table of time zones."""
    return UTC if name == "UTC" else ZoneInfo(name)
