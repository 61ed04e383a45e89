"""Under what a replay runs: how workers serve, and what goes wrong. Data only (see `simulate`)."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.run.order import SLICE_S, WEIGHT


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. `error`: sigma of the log of predicted over true seconds, `bias`: a factor on predictions;
    `failed_boots`: share of replicas that never come up; outages of all signals of the job table, how often a day and how
    long; `strikes_per_day`: a random replica dies under whatever it does; `lease_s`: until that is noticed; `dies_after`:
    kills of one job after which it is given up."""

    error: float = 0.0
    bias: float = 1.0
    failed_boots: float = 0.0
    boot_spread: float = 0.0
    outages_per_day: float = 0.0
    outage_s: float = 900.0
    strikes_per_day: float = 0.0
    lease_s: float = 30.0
    dies_after: int = 20


@dataclass(frozen=True, slots=True)
class Service:
    """How workers serve. `ordered`: by key and in slices, else first come, first served to the end; `kept_s`: how much of
    its work a job that is killed may lose (infinite: all of it); `one_job`: a replica leaves after a job; `grace_s`: from
    being told to go to being killed."""

    ordered: bool = True
    kept_s: float = 10.0
    one_job: bool = False
    grace_s: float = 30.0
    weight: float = WEIGHT
    slice_s: float = SLICE_S
    resume_s: float = 3.5
