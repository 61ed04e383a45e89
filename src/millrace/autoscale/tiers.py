"""What a tier is to the scaler: its size, its bounds, and how it grows and shrinks. Read from TOML; these are the defaults.

    [tiers.heavy]
    cores = 16
    memory = "32GiB"
    most = 4
    schedule = [{ days = "mon-fri", hours = [8, 18], replicas = 1 }]

    [prices]
    core_hour = 0.04

A tier of a default name starts from that tier's defaults; what is not given stays. Knows nothing of jobs but their queues.
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
from millrace.run.units import parse_bytes

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GIB = 1 << 30

_Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


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
    """A pool of identical workers, as the scaler sees it."""

    name: str = Field(min_length=1)
    cores: int = Field(ge=1)
    memory: _Bytes
    queues: tuple[str, ...] = Field(min_length=1)
    least: int = Field(default=0, ge=0, description="replicas that are always there")
    most: int = Field(default=1, ge=0, description="replicas that there are never more of")
    at_once: int = Field(default=1, ge=1, description="jobs at once in a replica: its slots")
    count: Literal["jobs", "work"] = Field(default="jobs", description="what queued jobs become slots by")
    slo_s: float = Field(default=600.0, gt=0, description="how long a job may wait")
    boot_s: float = Field(default=120.0, ge=0, description="how long a replica boots, until boots were seen")
    idle_s: float | None = Field(
        default=None, ge=0, description="how long idle until it leaves; by default the boot time"
    )
    schedule: tuple[Hours, ...] = ()
    zone: str = Field(default="UTC", description="whose hours the schedule means, such as Europe/Berlin")
    forecast: bool = Field(default=False, description="keep as many slots as earlier days needed at this hour")
    cost_ceiling: float | None = Field(
        default=None, gt=0, description="money per hour; jobs wait rather than exceed it"
    )

    @model_validator(mode="after")
    def _whole(self) -> Tier:
        if self.least > self.most:
            raise ValueError(f"least = {self.least} is more than most = {self.most}")
        try:
            zone_of(self.zone)
        except (KeyError, ValueError, OSError) as wrong:
            raise ValueError(f"zone {self.zone!r} is not a time zone of this machine") from wrong
        return self

    def price_hour(self, prices: Prices) -> float:
        """Money that one replica costs in an hour."""
        return self.cores * prices.core_hour + self.memory / GIB * prices.gib_hour


def zone_of(name: str) -> tzinfo:
    """UTC is there also on machines without a table of time zones."""
    return UTC if name == "UTC" else ZoneInfo(name)


class Tiers(_Frozen):
    """All tiers of a place, and what they cost."""

    tiers: tuple[Tier, ...]
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _apart(self) -> Tiers:
        seen: dict[str, str] = {}
        for tier in self.tiers:
            for queue in tier.queues:
                if queue in seen:
                    raise ValueError(f"the queue {queue!r} is of the tier {seen[queue]!r} and of {tier.name!r}")
                seen[queue] = tier.name
            least = tier.least * tier.price_hour(self.prices)
            if tier.cost_ceiling is not None and least > tier.cost_ceiling:
                raise ValueError(
                    f"the tier {tier.name!r} may cost {tier.cost_ceiling:g} an hour, but its least {tier.least} replicas "
                    f"cost {least:g}"
                )
        return self

    def of_queue(self, queue: str) -> Tier:
        for tier in self.tiers:
            if queue in tier.queues:
                return tier
        known = ", ".join(q for t in self.tiers for q in t.queues)
        raise WrongQuestion(f"No tier serves the queue {queue!r}. Queues are: {known}. Add it to a tier's `queues`.")


DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "cores": 2, "memory": "2GiB", "queues": ("default", "quick", "api"), "least": 2, "most": 4, "at_once": 4,
        "count": "work", "slo_s": 5,
    },
    "medium": {
        "cores": 4, "memory": "8GiB", "queues": ("analytics", "reports", "aggregations"), "least": 1, "most": 3,
        "at_once": 2, "count": "work", "slo_s": 60,
    },
    "heavy": {
        "cores": 16, "memory": "32GiB", "queues": ("shap", "causal", "ml", "twins", "calibration", "validation"),
        "least": 0, "most": 4, "at_once": 2,
    },
}  # fmt: skip

OF_WORKERS = frozenset({"soft_s", "hard_s", "recycle_after", "warm", "nice", "scratch"})
OF_JOBS = frozenset({"routes", "slice_s", "weight", "unknown_s", "lease_s", "grace_s", "results_days", "ledgers_days"})
"""What the same file tells workers and the job table: read there, passed over here."""


def default_tiers() -> Tiers:
    """Light, medium and heavy. A tier of GPUs depends on those that the host has: give it in the file."""
    return Tiers(tiers=tuple(Tier(name=name, **given) for name, given in DEFAULTS.items()))


def read_tiers(path: Path) -> Tiers:
    """The tiers of a TOML file over the defaults; raises `WrongQuestion` that says what is wrong."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as wrong:
        raise WrongQuestion(f"The tiers in {path} cannot be read: {wrong}.") from wrong
    except tomllib.TOMLDecodeError as wrong:
        raise WrongQuestion(f"{path} is not a TOML file: {wrong}.") from wrong
    own, prices = table.pop("tiers", {}), table.pop("prices", {})
    strange = sorted(set(table) - OF_JOBS)
    if strange or not isinstance(own, dict) or not all(isinstance(one, dict) for one in own.values()):
        raise WrongQuestion(f"{path} holds tables [tiers.NAME] and [prices]; look at {', '.join(strange) or 'tiers'}.")
    merged = {n: {**DEFAULTS.get(n, {}), **own.get(n, {}), "name": n} for n in [*DEFAULTS, *own]}
    given = [{k: v for k, v in one.items() if k not in OF_WORKERS} for one in merged.values()]
    try:
        return Tiers.model_validate({"tiers": given, "prices": prices})
    except ValidationError as wrong:
        said = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'tiers'}: {e['msg'].removeprefix('Value error, ')}"
            for e in wrong.errors()
        )
        raise WrongQuestion(f"The tiers in {path} cannot be: {said}.") from wrong


def replicas_of(slots: float, tier: Tier) -> int:
    """Replicas that hold so many slots."""
    return math.ceil(slots / tier.at_once)
