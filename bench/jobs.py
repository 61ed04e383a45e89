"""Durable jobs: the drain of no-op jobs beside a bare sqlite3 claim loop on the same disk, and submit to result of a light job.

`python -m bench.jobs`. Both sides sync every commit and make two of them a job (claim, end).
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path

from bench.harness import Bench
from millrace.jobs.database import open_database
from millrace.jobs.states import Order, Told
from millrace.jobs.table import JobTable

JOBS = 300

BARE = """
create table job(id integer primary key, queue text not null, prio int not null default 0, state int not null default 0,
                 payload text, lease real, worker text, attempts int not null default 0, done real);
create index job_claim on job(queue, state, prio desc, id);
"""
CLAIM = """
update job set state=1, lease=?, worker=?, attempts=attempts+1
where id=(select id from job where queue=? and state=0 order by prio desc, id limit 1) returning id, payload
"""


def drain_bare(place: Path) -> None:
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("pragma synchronous=full")
    while (row := connection.execute(CLAIM, (time.time() + 30, "w", "quick")).fetchone()) is not None:
        connection.execute("update job set state=2, done=?, lease=null where id=?", (time.time(), row[0]))
    connection.close()


def fill_bare(place: Path) -> None:
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.executescript(BARE)
    connection.execute("begin")
    connection.executemany("insert into job(queue, payload) values('quick', ?)", [("{}",)] * JOBS)
    connection.execute("commit")
    connection.close()


def drain(table: JobTable) -> None:
    while (job := table.claim("w", "light", 1 << 40, 1)) is not None:
        table.settle(job, Told("finished", answer=("folder", "digest")))


def fill(table: JobTable) -> None:
    for _ in range(JOBS):
        table.submit(Order("run", {}, "quick", "light"))


def main() -> None:
    bench = Bench("jobs")
    ratios, ours, bare = [], [], []
    for turn in range(3):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            place = Path(folder)
            fill_bare(place / "bare.sqlite")
            table = JobTable(open_database(place / "jobs.sqlite"))
            fill(table)
            for name, seconds, work in (
                ("bare", bare, lambda place=place: drain_bare(place / "bare.sqlite")),
                ("ours", ours, lambda table=table: drain(table)),
            )[:: 1 if turn % 2 else -1]:
                start = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - start)
                print(f"  {name}: {JOBS / seconds[-1]:.0f} jobs/s")
            table.close()
            ratios.append(bare[-1] / ours[-1])
    bench.figure("drain of no-op jobs, rate beside a bare claim loop", sorted(ratios)[1], "x", 0.8, at_most=False)
    bench.write()


if __name__ == "__main__":
    main()
