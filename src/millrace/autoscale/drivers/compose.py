"""Replicas as containers of one service of a compose file, by the `docker` command.

Up by `docker compose up --no-deps --scale SERVICE=N SERVICE`, which touches no sibling; never down by it, since compose picks
its own victim. A worker that was asked to leave (by the job table) exits 0, which `restart: on-failure` leaves alone, and its
container is removed by id before compose could start it again.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from millrace.autoscale.drivers.asking import Ledger, Replica, ask_idle, supply
from millrace.autoscale.policy import FAILED_BOOTS, Decision
from millrace.autoscale.signals import UNBOUNDED, Foreman, Supply
from millrace.run.errors import MillraceError
from millrace.tiers import Tier

TIMEOUT_S = 120.0
_ALIVE = frozenset({"running", "restarting", "paused"})
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"


class DockerRefused(MillraceError):
    """`docker` is not there, cannot reach its engine, or did not do what it was asked."""


class Containers:
    """`service` names the service of a tier in `files` of `project`; `docker`: the command."""

    def __init__(
        self, files: Sequence[str | Path], project: str, service: Callable[[Tier], str], crew: Foreman,
        docker: Sequence[str] = ("docker",), clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._files, self._project, self._service, self._crew = tuple(map(str, files)), project, service, crew
        self._docker, self._clock = tuple(docker), clock
        self._ledgers: dict[str, Ledger] = {}

    def observe(self, tier: Tier) -> Supply:
        ledger, replicas = self._replicas(tier, self._found(tier))
        return supply(tier, ledger, replicas, self._clock(), 0, UNBOUNDED)

    def apply(self, tier: Tier, decision: Decision) -> None:
        """Take away containers that have ended, then what was decided."""
        if decision.serving is None:
            return
        found = self._found(tier)
        for one in found:
            if one["State"]["Status"] not in _ALIVE:
                self._run("rm", one["Id"])
        ledger, replicas = self._replicas(tier, found)
        now = self._clock()
        if decision.give_up:
            late = [r for r in replicas if not r.up and r.age_s > FAILED_BOOTS * ledger.boot_s(tier)]
            for replica in late[: decision.give_up]:
                self._run("rm", "--force", replica.name)  # it never came up: it holds no job
            replicas = [r for r in replicas if r not in late[: decision.give_up]]
        if decision.start:
            leaving = sum(ledger.leaving(replica, now) for replica in replicas)
            wanted = min(decision.serving + decision.start + leaving, tier.most)
            if wanted > len(replicas):
                self._scale(self._service(tier), wanted)
        if decision.drain:
            ask_idle(ledger, replicas, decision, self._crew, now, 0)

    def _replicas(self, tier: Tier, found: Sequence[Mapping[str, Any]]) -> tuple[Ledger, list[Replica]]:
        """The containers that are alive, with their workers, which are called as their containers."""
        ledger = self._ledgers.setdefault(tier.name, Ledger())
        crew = {worker.host: worker for worker in self._crew.crew(tier.name)}
        alive = [one for one in found if one["State"]["Status"] in _ALIVE]
        replicas = [
            ledger.see(
                one["Id"], crew.get(one["Config"]["Hostname"]), max(0.0, self._clock() - _seconds(one["Created"]))
            )
            for one in alive
        ]
        ledger.keep([one["Id"] for one in alive])
        return ledger, replicas

    def _found(self, tier: Tier) -> list[dict[str, Any]]:
        """Every container of the service, as `docker inspect` tells it."""
        filters = (f"label={_PROJECT}={self._project}", f"label={_SERVICE}={self._service(tier)}")
        words = [word for one in filters for word in ("--filter", one)]
        ids = self._run("ps", "--all", "--quiet", "--no-trunc", *words).split()
        if not ids:
            return []
        try:
            found = json.loads(self._run("inspect", "--type", "container", *ids))
        except ValueError as wrong:
            raise DockerRefused(f"`docker inspect` does not answer in JSON: {wrong}.") from wrong
        return list(found)

    def _scale(self, service: str, replicas: int) -> None:
        files = [word for file in self._files for word in ("--file", file)]
        self._run(
            "compose", "--project-name", self._project, *files, "up", "--detach", "--no-deps", "--no-recreate",
            "--scale", f"{service}={replicas}", service,
        )  # fmt: skip

    def _run(self, *words: str) -> str:
        try:
            ended = subprocess.run(
                [*self._docker, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except OSError as wrong:
            raise DockerRefused(
                f"`{self._docker[0]}` cannot be run: {wrong}. Install Docker with its compose plugin where the scaler runs."
            ) from wrong
        except subprocess.TimeoutExpired as late:
            raise DockerRefused(f"`docker {words[0]}` has not ended after {TIMEOUT_S:g} s.") from late
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise DockerRefused(
                f"`docker {' '.join(words[:2])}` failed: {said[-1]}. Look whether the engine runs, and whether the files and "
                "services under [scaler.compose] are right."
            )
        return ended.stdout


def _seconds(stamp: str) -> float:
    """Docker tells nanoseconds, which is more than datetime reads."""
    whole, _, rest = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6] or '0'}+00:00").timestamp()
