"""Ways in which Celery is known to fail long jobs: each shown on plain Celery (slow), then on our queue over that broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from deskwork import until
from teamwork import Team

pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")

PLAIN = """
import os
import time

from celery import Celery

app = Celery("plain", broker=os.environ["TEAM_BROKER"])
app.conf.update(worker_prefetch_multiplier=1, broker_transport_options={
    "visibility_timeout": int(os.environ["VISIBLE_S"]), "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
})


def told(text):
    with open("told", "a") as file:
        file.write(f"{text}\\n")


@app.task(acks_late=True)
def late(seconds):
    told("late")
    time.sleep(seconds)


@app.task
def early(seconds):
    told("early")
    time.sleep(seconds)
    told("ended")


@app.task(acks_late=True, reject_on_worker_lost=True)
def poison():
    told("poison")
    os.kill(os.getpid(), 9)
"""
HOUR_S = 3600


class Plain:
    """Workers of Celery as it comes, and what their tasks told."""

    def __init__(self, folder: Path, url: str, visible_s: int = HOUR_S) -> None:
        self.folder, self.url, self.visible_s = folder, url, visible_s
        (folder / "plain.py").write_text(PLAIN)
        self.client = redis.Redis.from_url(url)

    @contextmanager
    def worker(self, pool: str = "solo") -> Iterator[subprocess.Popen[bytes]]:
        words = ["-A", "plain", "worker", "-P", pool, "-c", "1", "--without-gossip", "--without-mingle"]
        with (self.folder / "plain.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *words], cwd=self.folder, env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TEAM_BROKER": self.url, "VISIBLE_S": str(self.visible_s), "PYTHONUNBUFFERED": "1"}

    def send(self, name: str, *arguments: Any) -> None:
        words = f"import plain; plain.app.send_task('plain.{name}', {arguments!r})"
        subprocess.run([sys.executable, "-c", words], cwd=self.folder, env=self.environment, check=True)

    @property
    def told(self) -> list[str]:
        path = self.folder / "told"
        return path.read_text().split() if path.exists() else []

    def waiting(self) -> int:
        return int(self.client.llen("celery"))

    def unacknowledged(self) -> int:
        return int(self.client.hlen("unacked"))


@pytest.fixture
def plain(tmp_path: Path, own_broker: str) -> Iterator[Callable[..., Plain]]:
    made: list[Plain] = []

    def make(**options: Any) -> Plain:
        made.append(Plain(tmp_path, own_broker, **options))
        return made[-1]

    yield make
    for one in made:
        one.client.close()


# -- lost at late acknowledgement, lost on cold shutdown ----------------------------------------------------------
@pytest.mark.slow
def test_plain_celery_keeps_a_killed_workers_task_for_an_hour(plain: Callable[..., Plain]) -> None:
    here = plain()
    here.send("late", 60)
    with here.worker():
        until(lambda: here.told == ["late"])
    here.send("early", 0)  # another task shows that the new worker serves
    with here.worker():
        until(lambda: "ended" in here.told)
        time.sleep(3)
        assert (here.told.count("late"), here.waiting(), here.unacknowledged()) == (1, 0, 1)


@pytest.mark.slow
def test_plain_celery_loses_a_task_on_cold_shutdown(plain: Callable[..., Plain]) -> None:
    here = plain()
    here.send("early", 60)
    with here.worker("prefork"):
        until(lambda: here.told == ["early"])
    assert (here.waiting(), here.unacknowledged()) == (0, 0), "nobody will ever run it again"


def test_a_job_outlives_its_worker_and_its_message(tmp_path: Path, own_broker: str) -> None:
    """Killed in the middle, the broker emptied: the job goes on within a lease, and computes nothing twice but what ran."""
    team = Team(tmp_path, own_broker)
    job = team.said("submit", "run", "work:once_stuck", "--items", "items.jsonl")
    log = tmp_path / "calls.log"
    with team.running("worker", "--tier", "light") as worker:
        until(lambda: log.exists() and len(log.read_text().split()) == 4)
        worker.kill()
        worker.wait()
    client = redis.Redis.from_url(own_broker)
    client.flushdb()
    client.close()
    (tmp_path / "go").touch()
    with team.running("worker", "--tier", "light"):
        until(lambda: team.job(int(job["id"])).ended_at is not None)
    done = team.job(int(job["id"]))
    assert (done.state, done.own_ends, done.attempt) == ("succeeded", 0, 2), done
    calls = Counter(map(int, log.read_text().split()))
    assert set(calls) == set(range(8)) and sum(calls.values()) <= 10, calls


# -- doubled past the visibility timeout, poison ------------------------------------------------------------------
@pytest.mark.slow
def test_plain_celery_starts_a_long_task_again_while_it_runs(plain: Callable[..., Plain]) -> None:
    here = plain(visible_s=2)
    here.send("late", 60)
    with here.worker(), here.worker():
        until(lambda: here.told.count("late") >= 2)


@pytest.mark.slow
def test_plain_celery_redelivers_poison_for_ever(plain: Callable[..., Plain]) -> None:
    here = plain()
    here.send("poison")
    with here.worker("prefork"):
        until(lambda: here.told.count("poison") >= 10)


def test_a_long_job_is_started_once_and_poison_ends(tmp_path: Path, own_broker: str) -> None:
    """With messages that come back after a second when they were not acknowledged; a job of four seconds."""
    team = Team(tmp_path, own_broker)
    with (tmp_path / "team.py").open("a") as file:
        options = {"visibility_timeout": 1, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        file.write(f"\napp.conf.broker_transport_options = {options}\n")
    long = team.said("submit", "run", "work:slow", "--items", "items.jsonl", "--key", "a")
    poison = team.said("submit", "run", "work:crash", "--items", "items.jsonl")
    with team.running("worker", "--tier", "light", "--app", "team:app"):
        until(lambda: all(team.job(int(job["id"])).ended_at for job in (long, poison)))
        until(lambda: all(not n for n in _unacknowledged(own_broker)))
    one, other = (team.job(int(job["id"])) for job in (long, poison))
    assert (one.state, one.attempt) == ("succeeded", 1), one
    assert (other.state, other.attempt) == ("failed", 3) and other.why.startswith("poison"), other
    calls = Counter(map(int, (tmp_path / "calls.log").read_text().split()))
    assert {item: calls[item] for item in range(1, 8)} == dict.fromkeys(range(1, 8), 1), calls


def _unacknowledged(url: str) -> list[int]:
    client = redis.Redis.from_url(url)
    try:
        return [int(client.hlen("unacked"))]
    finally:
        client.close()
