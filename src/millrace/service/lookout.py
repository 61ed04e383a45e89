"""What the service sees of the job table as time goes: samples of the tiers, and tallies of the jobs that have ended.

One thread looks every few seconds. What it cannot read it knows nothing about: no zero stands for it. History and sums of
money begin when the service does.
"""

from __future__ import annotations

import json
import logging
import platform
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.jobs.database import DatabaseAway
from millrace.jobs.desk import Desk
from millrace.jobs.signals import TierLoad, tier_loads
from millrace.jobs.states import Job
from millrace.service.times import JOBS_S, Histogram

EVERY_S, THIN_S = 2.0, 30.0
FINE, COARSE = 300, 2880
"""Samples that are kept: ten minutes of all, a day of one each 30 s."""
MOST_TASKS = 200
log = logging.getLogger("millrace.service")


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker; its processor share and private memory where it runs on this host, None elsewhere."""

    id: str
    tier: str
    host: str
    state: str
    slots: int
    memory_bytes: int
    cpu_percent: float | None = None
    private_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """The last look. `known`: the table could be read."""

    known: bool = False
    loads: dict[str, TierLoad] = field(default_factory=dict)
    workers: tuple[Worker, ...] = ()
    again: int = 0
    memory: int = 0
    poison: int = 0


@dataclass(slots=True)
class Tally:
    """Over jobs that have ended and are still in the table. `counts` by (name of a count)."""

    seconds: dict[str, Histogram] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    at: float = 0.0
    number: int = 0

    def add(self, home: Path, job: Job) -> None:
        self.at, self.number = job.ended_at or self.at, job.id
        task = job.label if job.label in self.seconds or len(self.seconds) < MOST_TASKS else "other"
        self.seconds.setdefault(task, Histogram(JOBS_S)).add(job.attained_s)
        if job.state != "succeeded" or job.result is None:
            return
        with suppress(OSError, ValueError):  # pruned by now: what it would add is not known any more
            said = json.loads((home / job.result / "result.json").read_text())
            self.counts["cached"] += said.get("report", {}).get("outcomes", {}).get("cached", 0)
            if job.analysis == "refute":
                self.counts["refutations"] += _simulations(said.get("answer"))
            if job.analysis == "twin generate":
                self.counts["twins"] += 1


def _simulations(answer: Any) -> int:
    """Of all tests of an answer: each says how many it made."""
    if isinstance(answer, dict):
        own = answer.get("simulations")
        return (own if isinstance(own, int) else 0) + sum(
            _simulations(v) for k, v in answer.items() if k != "simulations"
        )
    return sum(map(_simulations, answer)) if isinstance(answer, list) else 0


class Lookout:
    """Looks, and remembers."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.since = desk, desk.table.clock()
        self.costs: dict[str, float] = {}
        self.tally = Tally()
        self.scalings = 0
        self._now = Now()
        self._fine: dict[str, deque[dict[str, Any]]] = {}
        self._coarse: dict[str, deque[dict[str, Any]]] = {}
        self._cpu: dict[str, tuple[float, float]] = {}
        self._replicas: dict[str, int] = {}
        self._at = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="lookout", daemon=True)

    def start(self) -> None:
        self.look()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def now(self) -> Now:
        with self._lock:
            return self._now

    def history(self, tier: str) -> list[dict[str, Any]]:
        with self._lock:
            fine, coarse = list(self._fine.get(tier, ())), list(self._coarse.get(tier, ()))
        first = fine[0]["at"] if fine else float("inf")
        return [s for s in coarse if s["at"] < first] + fine

    def cost_per_hour(self, tier: str) -> float | None:
        """Of the workers that are there, by the tiers' prices; None is unknown: the table's load, or what a worker costs."""
        load = self.now().loads.get(tier)
        return self._hour(tier, load) if load is not None else None

    def look(self) -> None:
        """Once, now."""
        try:
            loads = tier_loads(self.desk.table, tuple(self.desk.tiers.tiers))
            workers = tuple(self._worker(_row(w)) for w in self.desk.table.workers())
            again, memory, poison = self.desk.table.tallies()
            while ended := self.desk.table.ended_after(self.tally.at, self.tally.number):
                for job in ended:
                    self.tally.add(self.desk.home, job)
        except DatabaseAway as e:
            log.warning("%s", e)
            with self._lock:
                self._now = Now()
            return
        at, steady = self.desk.table.clock(), time.monotonic()
        passed_s, self._at = (steady - self._at if self._at else 0.0), steady
        with self._lock:
            self._now = Now(True, loads, workers, again, memory, poison)
            for tier, load in loads.items():
                replicas = load.live + load.draining
                hour = self._hour(tier, load)
                if hour is not None:
                    self.costs[tier] = self.costs.get(tier, 0.0) + hour * passed_s / 3600
                self.scalings += tier in self._replicas and self._replicas[tier] != replicas
                self._replicas[tier] = replicas
                self._remember(tier, {
                    "at": at, "replicas": replicas, "queued": load.queued, "running": load.running,
                    "oldest_wait_s": load.oldest_wait_s, "cost_per_hour": hour,
                })  # fmt: skip

    def _keep_looking(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.look()

    def _hour(self, tier: str, load: TierLoad) -> float | None:
        known, replicas = self.desk.tiers.tiers.get(tier), load.live + load.draining
        if replicas == 0:
            return 0.0
        if known is None or known.cores is None or known.memory is None:
            return None  # what its host has is no price
        return replicas * known.price_hour(self.desk.tiers.prices)

    def _remember(self, tier: str, sample: dict[str, Any]) -> None:
        self._fine.setdefault(tier, deque(maxlen=FINE)).append(sample)
        coarse = self._coarse.setdefault(tier, deque(maxlen=COARSE))
        if not coarse or sample["at"] - coarse[-1]["at"] >= THIN_S:
            coarse.append(sample)

    def _worker(self, row: dict[str, Any]) -> Worker:
        """With what can be measured from here: of workers on this host."""
        own = {k: row[k] for k in ("id", "tier", "host", "state", "slots", "memory_bytes")}
        if row["host"] != platform.node():
            return Worker(**own)
        import psutil

        from millrace.host import private_bytes

        try:
            process = psutil.Process(row["pid"])
            family = [process, *process.children(recursive=True)]
            spent = sum(_cpu_s(one) for one in family)
            held = private_bytes(row["pid"], tree=True)
        except (psutil.Error, OSError):
            return Worker(**own)
        now = time.monotonic()
        before, then = self._cpu.get(row["id"], (spent, now))
        self._cpu[row["id"]] = (spent, now)
        share = None if now <= then else max(0.0, 100 * (spent - before) / (now - then))
        return Worker(**own, cpu_percent=share, private_bytes=held)


def _row(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in type(row).__slots__}


def _cpu_s(process: Any) -> float:
    import psutil

    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
