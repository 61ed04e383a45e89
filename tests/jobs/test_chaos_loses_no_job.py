"""Jobs, and every two seconds something is killed by -9: a worker, a job's process, a scaler, the
service, `up` itself. Every job ends once,
with the right answer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deskwork import Office, until, victims

from millrace.run.keys import content_key

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 2
most = 2
at_once = 2
[scaler]
interval_s = 1
"""
EVERY_S = 2.0
SERVE = {"up": ("up", "--port", "0"), "scaler": ("scale", "run")}
"""Both scale: whichever has the office does, and the other takes over when that one is killed."""


def _start(folder: Path, kind: str) -> subprocess.Popen[bytes]:
    words = [*SERVE[kind], "--jobs", "jobs", "--tiers", "tiers.toml"]
    environment = {**os.environ, "MILLRACE_STORE": str(folder / "store")}
    with (folder / f"{kind}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "millrace", *words], cwd=folder, stderr=log, env=environment)


def _storm(folder: Path, jobs: int, kills: int, kinds: list[str]) -> dict[str, int]:
    """How often each kind was killed. Each job has items of its own, so that nothing is shared."""
    office = Office(folder, tiers=TIERS)
    wanted = {}
    for i in range(jobs):
        items = list(range(i, i + 3))
        wanted[office.submit("nap", items).id] = [item + 1 for item in items]
    draw, killed = random.Random(7), dict.fromkeys(kinds, 0)
    serving = {kind: _start(folder, kind) for kind in SERVE if kind in kinds}
    next_s = time.monotonic() + 3 * EVERY_S

    def step() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s and sum(killed.values()) < kills:
            next_s = time.monotonic() + EVERY_S
            kind = draw.choice(kinds)
            if kind in serving:
                serving[kind].kill()
                serving[kind].wait()
                killed[kind] += 1
            else:
                pids = [pid for process in serving.values() for pid in victims(process)[kind]]
                if pids:
                    try:
                        os.kill(draw.choice(pids), signal.SIGKILL)
                        killed[kind] += 1
                    except ProcessLookupError:
                        pass  # it has ended just now
        for kind, process in serving.items():
            if process.poll() is not None:
                serving[kind] = _start(folder, kind)
        time.sleep(0.1)

    try:
        until(lambda: not office.desk.table.jobs("queued") and not office.desk.table.jobs("running"), step, 3600.0)
    finally:
        for process in serving.values():
            process.send_signal(signal.SIGINT)
        for process in serving.values():
            process.wait(60)
    found = office.desk.table.jobs()
    assert [(job.id, job.why) for job in found if job.state != "succeeded"] == []
    assert {job.id: office.values(job) for job in found} == wanted
    assert {job.id: job.digest for job in found} == {number: content_key(values) for number, values in wanted.items()}
    return killed


def test_forty_jobs_end_once_whatever_is_killed(tmp_path: Path) -> None:
    killed = _storm(tmp_path, 40, 12, ["up", "worker", "worker", "job", "job", "service"])
    assert sum(killed.values()) > 0, "nothing was killed: the jobs are too short"


@pytest.mark.slow
def test_two_hundred_jobs_end_once_whatever_is_killed_scalers_too(tmp_path: Path) -> None:
    killed = _storm(tmp_path, 200, 100, ["up", "scaler", "service", "worker", "worker", "job", "job"])
    assert all(killed.values()), killed
