"""Jobs over a broker and PostgreSQL, and something is killed every two seconds: a worker, a job's process, the broker, the
service, all connections of the database, `up` itself, whose scaler goes with it. Every job ends once, with the right answer."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import fresh_place
from deskwork import Office, until, victims
from servers import valkey
from teamwork import Team

from millrace.run.keys import content_key

pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 2
most = 2
at_once = 2
[tiers.medium]
least = 0
"""
KINDS = ("up", "worker", "worker", "job", "job", "broker", "broker", "database", "service")
EVERY_S = 2.0


@pytest.mark.parametrize(
    ("jobs", "kills", "seed"),
    [pytest.param(40, 8, 3, id="short"), pytest.param(200, 60, 5, id="long", marks=pytest.mark.slow)],
)
def test_every_job_ends_once_whatever_is_killed(
    jobs: int, kills: int, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = fresh_place(request, "postgresql", tmp_path)
    draw, killed = random.Random(seed), dict.fromkeys(KINDS, 0)
    with valkey(tmp_path / "broker", "--maxmemory-policy", "noeviction") as broker:
        team = Team(tmp_path, broker.url, place)
        office = Office(tmp_path, place, TIERS)
        wanted = {}
        for i in range(jobs):
            items = list(range(i, i + 4))
            wanted[office.submit("nap", items).id] = [item + 1 for item in items]
        up = team.start("up", "--port", "0")
        next_s = 0.0

        def step() -> None:
            nonlocal up, next_s
            begun = next_s or any(job.ended_at for job in office.desk.table.jobs())
            if begun and time.monotonic() >= next_s and sum(killed.values()) < kills:
                next_s = time.monotonic() + EVERY_S
                kind = draw.choice(KINDS)
                if kind == "broker":
                    broker.stop()
                    time.sleep(draw.random())
                    broker.start()
                elif kind == "database":
                    _hang_up(place)
                else:
                    pids = victims(up)[kind]
                    if not pids:
                        return
                    os.kill(draw.choice(pids), signal.SIGKILL)
                killed[kind] += 1
            if up.poll() is not None:
                up = team.start("up", "--port", "0")
            time.sleep(0.2)

        try:
            until(lambda: all(job.ended_at for job in office.desk.table.jobs()), step)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)
        found = office.desk.table.jobs()
        assert sum(killed.values()) >= min(3, kills), f"too little was killed: {killed}"
        assert [(job.id, job.why) for job in found if job.state != "succeeded"] == []
        assert {job.id: office.values(job) for job in found} == wanted
        assert {job.id: job.digest for job in found} == {n: content_key(values) for n, values in wanted.items()}
        office.desk.table.close()


def _hang_up(place: str) -> None:
    """Every connection of the database but this one."""
    engine = sa.create_engine(place.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid()"
        ))  # fmt: skip
    engine.dispose()
