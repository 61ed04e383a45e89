"""Inputs by content, results and rows for as long as the settings say."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace import ordering
from millrace.jobs import inputs
from millrace.jobs.database import open_database
from millrace.jobs.desk import DAY_S, Desk
from millrace.jobs.queues import TableQueue
from millrace.jobs.states import Told
from millrace.jobs.table import JobTable, Progress
from millrace.run.errors import WrongQuestion
from millrace.testing import jobs as laws
from millrace.tiers import load_tiers


def test_an_input_is_kept_once_by_its_content(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("a\n1\n")
    first = inputs.put(tmp_path / "inputs", source)
    (tmp_path / "same.csv").write_text("a\n1\n")
    assert inputs.put(tmp_path / "inputs", tmp_path / "same.csv") == first and first.endswith(".csv")
    source.write_text("a\n2\n")
    assert inputs.find(tmp_path / "inputs", first).read_text() == "a\n1\n"
    assert inputs.put(tmp_path / "inputs", source) != first
    folder = tmp_path / "candidates"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "one.py").write_text("1")
    whole = inputs.put(tmp_path / "inputs", folder)
    assert (inputs.find(tmp_path / "inputs", whole) / "deep" / "one.py").read_text() == "1"
    assert len(list((tmp_path / "inputs").iterdir())) == 3
    for gone in ("nothing.csv", "../rows.csv", ".hidden"):
        with pytest.raises(WrongQuestion, match="has gone"):
            inputs.find(tmp_path / "inputs", gone)


def test_what_is_registered_must_be_there_and_of_a_known_kind(tmp_path: Path, make: Callable[..., JobTable]) -> None:
    desk = Desk(tmp_path / "home", make(), load_tiers(None))
    with pytest.raises(WrongQuestion, match="There is no file"):
        ordering.register(desk, "data", "rows", tmp_path / "nothing.csv")
    with pytest.raises(WrongQuestion, match="data or model"):
        ordering.register(desk, "graph", "rows", tmp_path)
    desk.table.close()


def test_results_go_before_ledgers_and_ledgers_before_rows(tmp_path: Path) -> None:
    from millrace.jobs.database import open_database

    clock = laws.Clock()
    table = JobTable(open_database(tmp_path / "jobs.sqlite"), clock=clock)
    desk = Desk(tmp_path, table, load_tiers(None))
    job = table.submit(laws.order())
    attempt = tmp_path / "work" / str(job.id) / "1"
    attempt.mkdir(parents=True)
    for name in ("result.json", "ledger.jsonl"):
        (attempt / name).write_text("{}")
    os.utime(desk.folder(job.id), (clock.now, clock.now))
    done = table.settle(laws.claimed(table), Told("finished", answer=(f"work/{job.id}/1", "d")))
    clock.now += 29 * DAY_S
    desk.keep_within_days()
    assert desk.answer(done) == attempt
    clock.now += 2 * DAY_S
    desk.keep_within_days()
    assert [path.name for path in attempt.iterdir()] == ["ledger.jsonl"]
    with pytest.raises(WrongQuestion, match="kept 30 days"):
        desk.answer(done)
    clock.now += 60 * DAY_S
    desk.keep_within_days()
    assert not desk.folder(job.id).exists() and table.get(job.id) == done
    assert desk.prune(DAY_S) == [job.id] and table.jobs() == []
    table.close()


def test_open_jobs_of_a_tier_without_workers_are_said(tmp_path: Path, make: Callable[..., JobTable]) -> None:
    desk = Desk(tmp_path, make(), load_tiers(None))
    desk.table.submit(laws.order(queue="gpu", tier="gpu"))
    assert len(desk.check()) == 1 and "'gpu'" in desk.check()[0]
    desk.table.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the bell is Linux's")
def test_a_job_that_waits_rings_at_every_worker_and_nothing_else_does(tmp_path: Path) -> None:
    tables = [JobTable(open_database(tmp_path / "jobs.sqlite")) for _ in range(3)]
    queues = [TableQueue(table) for table in tables[1:]]

    def rung() -> list[bool]:
        found = [bool(select.select([queue.bell], [], [], 0)[0]) for queue in queues]
        for queue in queues:
            queue.woken()
        return found

    assert rung() == [False, False]
    tables[0].submit(laws.order())
    assert rung() == [True, True] and rung() == [False, False]
    job = laws.claimed(tables[1])
    tables[1].beat(job, Progress())
    assert rung() == [False, False]
    tables[1].settle(job, Told("paused"))
    assert rung() == [True, True]
    for queue in queues:
        queue.close()
        assert queue.bell is None
    for table in tables:
        table.close()


def test_a_queue_wakes_for_every_change(make: Callable[..., JobTable]) -> None:
    """At once where the database tells, and by itself before long where not."""
    table, other = make(), make()
    queue = TableQueue(table)
    queue.woken()
    other.submit(laws.order())
    woken = [queue.woken() for _ in range(1)]
    while not any(woken):
        woken.append(queue.woken())
    assert table.claim("w", "heavy", 1 << 40, 1) is not None
    table.close()
    other.close()
