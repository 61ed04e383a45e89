"""The laws of the job table, on SQLite and on a real PostgreSQL; and what only a database can do wrong."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st

from millrace.jobs import schema
from millrace.jobs.database import DatabaseAway, open_database
from millrace.jobs.states import Job, Told, after
from millrace.jobs.table import JobTable
from millrace.run.errors import WrongQuestion
from millrace.testing import jobs as laws
from millrace.testing.queues import MESSAGE_LAWS


@pytest.mark.parametrize("law", [*laws.TABLE_LAWS, *MESSAGE_LAWS], ids=lambda law: law.__name__)
def test_every_database_keeps_the_laws(law: Callable[..., None], make: Callable[..., JobTable]) -> None:
    law(make)


def test_the_migrations_make_the_schema(place: str) -> None:
    engine = open_database(place)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused(place: str) -> None:
    engine = open_database(place)
    with engine.connect() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    engine.dispose()
    with pytest.raises(WrongQuestion, match="newer millrace"):
        open_database(place)


def test_a_database_that_is_away_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseAway, match="cannot be opened"):
        open_database("postgresql://nobody@127.0.0.1:1/jobs")
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseAway, match="cannot be opened"):
        open_database(tmp_path / "jobs.sqlite")


def test_a_full_disk_is_a_hold_and_loses_nothing(tmp_path: Path) -> None:
    number = JobTable(open_database(tmp_path / "jobs.sqlite")).submit(laws.order()).id
    table = JobTable(open_database(tmp_path / "jobs.sqlite"))
    with table.engine.connect() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar()
        connection.exec_driver_sql(f"pragma max_page_count={pages}")  # of the one connection that the pool has
    with pytest.raises(DatabaseAway, match="room"):
        for _ in range(1000):
            table.submit(laws.order("x" * 1000))
    assert table.get(number).state == "queued"
    table.close()


def _work(place: str, done: str) -> None:
    table = JobTable(open_database(place), lease_s=1.0)
    name = f"{os.getpid()}"
    while True:
        table.sweep()
        job = laws.claimed(table, name)
        if job is None:
            time.sleep(0.02)
            continue
        time.sleep(random.random() * 0.02)
        table.settle(job, Told("finished", answer=(name, str(job.attempt))))
        with open(done, "a") as file:
            file.write(f"{job.id}\n")


def test_killed_claimers_lose_nothing_and_double_nothing(place: str, tmp_path: Path) -> None:
    """Real processes, killed at any moment: every job ends once."""
    table = JobTable(open_database(place))
    numbers = {table.submit(laws.order(str(i))).id for i in range(60)}
    spawn = multiprocessing.get_context("spawn")
    done = tmp_path / "done"
    workers = []

    def start() -> None:
        workers.append(spawn.Process(target=_work, args=(place, str(done))))
        workers[-1].start()

    for _ in range(2):
        start()
    draw, kills, give_up = random.Random(0), 0, time.monotonic() + 120
    while (left := [job for job in table.jobs() if job.state != "succeeded"]) and time.monotonic() < give_up:
        time.sleep(0.3)
        if kills < 6 and len(left) < 60:
            victim = workers.pop(draw.randrange(len(workers)))
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            kills += 1
            start()
    for worker in workers:
        worker.kill()
        worker.join()
    assert left == [] and kills > 0
    settled = Counter(int(line) for line in done.read_text().split())
    assert set(settled) <= numbers and max(settled.values()) == 1
    table.close()


@given(st.integers(0, 19), st.integers(0, 2), st.sampled_from(["crashed", "killed", "passing", "timed out"]))
def test_a_job_that_never_ends_well_ends(losses: int, own: int, ending: str) -> None:
    then = after(_job(own, losses), Told(ending, "x", progressed=True), random.Random(0))  # type: ignore[arg-type]
    assert then.own_ends + then.losses == own + losses + 1
    assert then.state == "failed" or (then.own_ends < 3 and then.losses < 20)


def _job(own: int, losses: int) -> Job:
    blank = dict.fromkeys(Job.__slots__)
    return Job(
        **blank | {"own_ends": own, "losses": losses, "attained_s": 0.0, "max_total_s": 0.0, "cancel_asked": False}
    )


def test_lists_are_of_an_owner_and_go_on(make: Callable[..., JobTable]) -> None:
    """What the service asks of the table: whose jobs, how many are open, which have ended since."""
    table = make()
    mine = [table.submit(laws.order(owner="ann", idempotency_key=f"k{i}")) for i in range(3)]
    other = table.submit(laws.order(owner="bob"))
    assert [job.id for job in table.jobs(owner="ann")] == [job.id for job in reversed(mine)]
    assert [job.id for job in table.jobs(owner="ann", before=mine[2].id, limit=1)] == [mine[1].id]
    assert len(table.jobs()) == 4 and table.jobs(owner="") == []
    found = table.of_key("k1")
    assert found is not None and found.id == mine[1].id and table.of_key("nobody") is None
    table.cancel(mine[0].id)
    table.cancel(other.id)
    assert (table.open_of("ann"), table.open_of("bob")) == (2, 0)
    first, second = table.ended_after(0.0, 0)
    assert (first.id, second.id) == (mine[0].id, other.id)
    assert [job.id for job in table.ended_after(first.ended_at or 0.0, first.id)] == [other.id]
    assert table.tallies() == (0, 0, 0)
    table.close()
