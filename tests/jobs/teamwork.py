"""A team's Celery application and real workers for it, on a real Valkey: what the tests of the Celery mode share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deskwork import WORK, until

from millrace.compose import load_settings, open_jobs
from millrace.jobs.states import Job
from millrace.jobs.table import JobTable
from millrace.tiers import Tiers, load_tiers

TEAM = '''
import os
import time

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from millrace.jobs.celery import install

app = Celery("team", broker=os.environ["TEAM_BROKER"], backend=os.environ["TEAM_BROKER"])
# Tasks are not shared: a process of tests loads this module more than once.
app.conf.update(task_default_queue="quick", task_routes={"team.count": {"queue": "api"}}, result_expires=600)


@app.task(shared=False, name="team.add")
def add(x, y):
    return x + y


@app.task(shared=False, name="team.count", bind=True)
def count(self, n):
    return [n, self.request.delivery_info["routing_key"]]


@app.task(shared=False, name="team.digest")
def digest(reference):
    return reference["digest"]


@app.task(shared=False, name="team.digests")
def digests(references):
    return sorted(reference["digest"] for reference in references)


@app.task(shared=False, name="team.grow")
def grow():
    held = []
    while True:
        held.append(bytearray(64 << 10))
        time.sleep(0.0005)


@app.task(shared=False, name="team.soft", soft_time_limit=1)
def soft():
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "stopped"


@app.task(shared=False, name="team.hard", time_limit=1)
def hard():
    while True:
        time.sleep(0.05)


@app.task(shared=False, name="team.dies")
def dies():
    os.kill(os.getpid(), 9)


@app.task(shared=False, name="team.forks")
def forks():
    """What a daemonic process of Celery's own pool may not do."""
    from multiprocessing import get_context

    with get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])


@app.task(shared=False, name="team.wait")
def wait(path):
    open(path + ".began", "w").close()
    while not os.path.exists(path):
        time.sleep(0.02)
    return "ended"


install(app, aliases={"src.tasks.nightly": "run"})
'''

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 1
most = 1
at_once = 2
memory = "600MB"
[tiers.medium]
least = 0
"""


@dataclass
class Team:
    """A folder with the team's modules and a jobs' folder, and the broker."""

    folder: Path
    broker: str
    database: str | None = None

    def __post_init__(self) -> None:
        for name, text in (("work.py", WORK), ("team.py", TEAM), ("tiers.toml", TIERS)):
            (self.folder / name).write_text(text)
        (self.folder / "items.jsonl").write_text("".join(f"{i}\n" for i in range(8)))
        lines = [f'broker = "{self.broker}"', 'tiers = "tiers.toml"', 'store = "store"', 'jobs = "jobs"']
        if self.database:
            lines.append(f'database = "{self.database}"')
        (self.folder / "millrace.toml").write_text("\n".join(lines))

    @property
    def tiers(self) -> Tiers:
        return load_tiers(self.folder / "tiers.toml")

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TEAM_BROKER": self.broker}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "millrace", *words], cwd=self.folder, env=self.environment, capture_output=True,
            text=True, timeout=240,
        )  # fmt: skip

    def said(self, *words: str) -> Any:
        ended = self.command(*words, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "millrace", *words],
                cwd=self.folder,
                env=self.environment,
                stderr=log,
                stdout=log,
            )

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start(*words)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def table(self) -> JobTable:
        settings = load_settings({"jobs": str(self.folder / "jobs"), "database": self.database, "tiers": None})
        return open_jobs(settings).table

    def job(self, number: int) -> Job:
        opened = self.table()
        try:
            return opened.get(number)
        finally:
            opened.close()

    def until_workers(self, count: int = 1) -> None:
        opened = self.table()
        until(lambda: len(opened.workers()) >= count)
        opened.close()
