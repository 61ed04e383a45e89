"""What Prometheus scrapes, in its text format 0.0.4: from the job table and what jobs left, under the names that rules know.

Written here and not by prometheus_client: that appends `_total` to every counter, and `twin_generation_count` and
`causal_refutation_iterations` are not called so. A figure that is not known has no line; none is made up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from millrace.service.house import House
from millrace.service.times import Histogram

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples: (labels, value), or of a histogram (labels, histogram)."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    about: str
    samples: Iterable[Sample] = ()
    histograms: Iterable[tuple[Mapping[str, str], Histogram]] = ()


def exposed(house: House) -> str:
    """All families as text."""
    return "".join(f"{line}\n" for family in families(house) for line in _lines(family))


def families(house: House) -> list[Family]:
    seen, now = house.lookout, house.lookout.now()
    tiers = house.desk.tiers.tiers
    queues = [(queue, tier) for tier in tiers.values() for queue in tier.queues]
    loads = now.loads if now.known else {}
    counts, held = seen.tally.counts, house.explainers
    asked = held.hits + held.loads

    def of_queues(attribute: str) -> list[Sample]:
        return [
            ({"queue": queue}, getattr(loads[tier.name], attribute).get(queue, 0))
            for queue, tier in queues
            if tier.name in loads
        ]

    def of_tiers(value: str) -> list[Sample]:
        return [({"tier": name}, getattr(load, value)) for name, load in loads.items()]

    mega = 1e6
    known = [w for w in now.workers if w.private_bytes is not None]
    replicas = [
        ({"tier": name, "state": state}, count)
        for name, load in loads.items()
        for state, count in (
            ("busy", load.live - load.idle - load.booting), ("idle", load.idle), ("booting", load.booting),
            ("draining", load.draining),
        )
    ]  # fmt: skip
    return [
        Family("celery_tasks_queued", "gauge", "jobs that wait", of_queues("queued_by")),
        Family("celery_tasks_running", "gauge", "jobs that run", of_queues("running_by")),
        Family("celery_task_duration_seconds", "histogram", "seconds in slots of jobs that have ended", (),
               [({"task": task}, h) for task, h in sorted(seen.tally.seconds.items())]),
        Family("celery_worker_cpu_percent", "gauge", "of one core, of workers on this host",
               [({"worker": w.id}, w.cpu_percent) for w in now.workers if w.cpu_percent is not None]),
        Family("celery_worker_memory_mb", "gauge", "private megabytes of a worker and its jobs, of workers on this host",
               [({"worker": w.id}, (w.private_bytes or 0) / mega) for w in known]),
        Family("worker_memory_limit_mb", "gauge", "megabytes that a worker's jobs may hold together",
               [({"worker": w.id}, w.memory_bytes / mega) for w in now.workers]),
        Family("millrace_backlog_core_seconds", "gauge", "predicted seconds of slots, times their cores, that wait",
               [({"tier": n}, load.work_s * (tiers[n].slot_cores if n in tiers else 1)) for n, load in loads.items()]),
        Family("millrace_oldest_wait_seconds", "gauge", "how long the oldest job of a queue waits", of_queues("waits")),
        Family("millrace_wait_target_seconds", "gauge", "how long a job of a queue should wait at most",
               [({"queue": queue}, tier.slo_s) for queue, tier in queues]),
        Family("millrace_replicas", "gauge", "workers", replicas),
        Family("millrace_replicas_limit", "gauge", "workers that a tier never has more of",
               [({"tier": tier.name}, tier.most) for tier in tiers.values() if tier.most is not None]),
        Family("millrace_signals_unknown", "gauge", "1 while a tier's load cannot be read",
               [({"tier": name}, 0 if name in loads else 1) for name in tiers]),
        Family("millrace_scaling_events_total", "counter", "changes of a tier's number of workers that were seen",
               [({}, seen.scalings)]),
        Family("millrace_redeliveries_total", "counter", "attempts beyond the first, of jobs in the table",
               _if(now.known, now.again)),
        Family("millrace_oom_total", "counter", "jobs in the table that ran out of memory", _if(now.known, now.memory)),
        Family("millrace_poison_jobs_total", "counter", "jobs in the table that ended too many attempts themselves",
               _if(now.known, now.poison)),
        Family("millrace_cache_hits_total", "counter", "tasks of jobs that were in the store already", [({}, counts["cached"])]),
        Family("millrace_cost_per_hour", "gauge", "money an hour, of the workers that are there",
               [({"tier": name}, cost) for name in loads if (cost := seen.cost_per_hour(name)) is not None]),
        Family("millrace_replica_cost_per_hour", "gauge", "money an hour of one worker",
               [({"tier": tier.name}, tier.price_hour(house.desk.tiers.prices)) for tier in tiers.values()
                if tier.cores is not None and tier.memory is not None]),
        Family("millrace_cost_ceiling_per_hour", "gauge", "money an hour that a tier may cost: jobs wait rather",
               [({"tier": tier.name}, tier.cost_ceiling) for tier in tiers.values() if tier.cost_ceiling is not None]),
        Family("millrace_cost_total", "counter", "money, since the service began to look",
               [({"tier": name}, cost) for name, cost in sorted(seen.costs.items())]),
        Family("shap_computation_time_ms", "histogram", "milliseconds that a row took to explain", (),
               [({}, house.times.rows())]),
        Family("shap_explainer_cache_hit_rate", "gauge", "share of requests for rows whose explainer was warm",
               _if(asked > 0, held.hits / max(1, asked))),
        Family("causal_refutation_iterations", "counter", "simulations of refutations", [({}, counts["refutations"])]),
        Family("twin_generation_count", "counter", "generations of twins", [({}, counts["twins"] + house.samplers.generations)]),
    ]  # fmt: skip


def _if(known: bool, value: float) -> list[Sample]:
    return [({}, value)] if known else []


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.about}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        yield f"{family.name}{_labels(labels)} {_number(value)}"
    for labels, histogram in family.histograms:
        below = 0
        for bound, count in zip([*histogram.bounds, math.inf], histogram.counts, strict=True):
            below += count
            yield f"{family.name}_bucket{_labels({**labels, 'le': _number(bound)})} {below}"
        yield f"{family.name}_sum{_labels(labels)} {_number(histogram.total)}"
        yield f"{family.name}_count{_labels(labels)} {below}"


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else f"{value:.12g}"
