"""A place with jobs as files: its queue, its crew and its office are read from disk, as the job table's are."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from millrace.autoscale.drivers.processes import Processes
from millrace.autoscale.signals import Demand, Worker
from millrace.run.errors import MillraceError
from millrace.tiers import Prices, Tier, Tiers

SCRIPT = Path(__file__).with_name("worker_process.py")


class Away(MillraceError):
    """The folder is not there."""


class Place:
    """Jobs and workers of one tier below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("crew", "queue", "running", "finish", "done", "asked"):
            (root / name).mkdir()

    def put(self, *names: str) -> None:
        for name in names:
            (self.root / "queue" / name).touch()

    def finish(self, *names: str) -> None:
        for name in names:
            (self.root / "finish" / name).touch()

    def names(self, folder: str) -> set[str]:
        return {p.name for p in (self.root / folder).iterdir() if not p.name.startswith(".")}

    def demand(self, tier: str) -> Demand:
        try:
            return Demand(len(self.names("queue")), 0.0, len(self.names("running")), 0.0, 0)
        except FileNotFoundError as gone:
            raise Away(f"The queue cannot be read: {gone}.") from gone

    def crew(self, tier: str) -> Sequence[Worker]:
        found = []
        for name in self.names("crew") if (self.root / "crew").is_dir() else self._gone():
            try:
                told = json.loads((self.root / "crew" / name).read_text())
            except FileNotFoundError:
                continue  # it has left just now
            host = socket.gethostname() if told["name"] == str(told["pid"]) else told["name"]
            found.append(Worker(told["pid"], host, told["state"], told["since"], told["name"]))
        return found

    def ask(self, worker: Worker) -> None:
        (self.root / "asked" / worker.id).touch()

    def _gone(self) -> set[str]:
        raise Away("The crew cannot be read.")

    def take_office(self, name: str, holder: str, lease_s: float) -> bool:
        with self._office(name) as file:
            told = json.loads(file.read() or "{}")
            if told.get("holder", holder) != holder and told["until"] > time.time():
                return False
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"holder": holder, "until": time.time() + lease_s}))
            return True

    def leave_office(self, name: str, holder: str) -> None:
        with self._office(name) as file:
            if json.loads(file.read() or "{}").get("holder") == holder:
                file.truncate(0)

    def _office(self, name: str) -> IO[str]:
        try:
            file = (self.root / f"office-{name}").open("a+")
        except FileNotFoundError as gone:
            raise Away(f"The office cannot be reached: {gone}.") from gone
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        return file

    def driver(self, *more: str, least_boot_s: float = 30.0) -> Processes:
        command = [sys.executable, "-S", "-E", str(SCRIPT), str(self.root)]
        return Processes(lambda tier: [*command, tier.name, *more], self, least_boot_s=least_boot_s)


def one_tier(least: int = 0, most: int = 3, idle_s: float = 0.0, **more: object) -> Tiers:
    tier = Tier(name="heavy", cores=1, memory=1 << 30, queues=("q",), least=least, most=most, idle_s=idle_s, **more)  # type: ignore[arg-type]
    return Tiers(tiers={tier.name: tier}, prices=Prices())


def until(
    done: Callable[[], object], what: str, bound_s: float = 120.0, step: Callable[[], object] | None = None
) -> None:
    """Poll until `done`, calling `step` in between; fails with `what` after a bound that no working thing needs."""
    end = time.monotonic() + bound_s
    while not done():
        assert time.monotonic() < end, what
        if step is not None:
            step()
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
