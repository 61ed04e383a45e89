"""Forty jobs, and every two seconds something is killed by -9: a worker, a job's process, `up` itself. Every job ends once,
with the right answer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from deskwork import Office, until, victims

from millrace.run.keys import content_key

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 2
most = 2
at_once = 2
"""
JOBS, EVERY_S, KILLS = 40, 2.0, 12


def _up(folder: Path) -> subprocess.Popen[bytes]:
    words = ["up", "--port", "0", "--jobs", "jobs", "--tiers", "tiers.toml"]
    environment = {**os.environ, "MILLRACE_STORE": str(folder / "store")}
    with (folder / "up.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "millrace", *words], cwd=folder, stderr=log, env=environment)


def test_forty_jobs_end_once_whatever_is_killed(tmp_path: Path) -> None:
    office = Office(tmp_path, tiers=TIERS)
    wanted = {}
    for i in range(JOBS):
        items = list(range(i, i + 3))
        wanted[office.submit("nap", items).id] = [item + 1 for item in items]
    draw, killed = random.Random(7), dict.fromkeys(("up", "worker", "job"), 0)
    up = _up(tmp_path)
    next_s = time.monotonic() + 3 * EVERY_S

    def step() -> None:
        nonlocal up, next_s
        if time.monotonic() >= next_s and sum(killed.values()) < KILLS:
            next_s = time.monotonic() + EVERY_S
            kind = draw.choice(["up", "worker", "worker", "job", "job"])
            pids = victims(up)[kind]
            if pids:
                os.kill(draw.choice(pids), signal.SIGKILL)
                killed[kind] += 1
            if kind == "up":
                up.wait()
        if up.poll() is not None:
            up = _up(tmp_path)
        time.sleep(0.1)

    try:
        until(lambda: all(job.ended_at for job in office.desk.table.jobs()), step)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
    assert sum(killed.values()) > 0, "nothing was killed: the jobs are too short"
    jobs = office.desk.table.jobs()
    assert [(job.id, job.why) for job in jobs if job.state != "succeeded"] == []
    assert {job.id: office.values(job) for job in jobs} == wanted
    assert {job.id: job.digest for job in jobs} == {number: content_key(values) for number, values in wanted.items()}
