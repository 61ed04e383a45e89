"""Durable jobs: the drain of no-op jobs beside a bare sqlite3 claim loop on the same disk, and submit to result of a light job.

`python -m bench.jobs`. Both sides sync every commit and make two of them a job (claim, end). Then a real `millrace up`: light
jobs at 50 a second, alone and while a heavy job runs, and how soon a heavy job starts where there is no heavy worker.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from bench.harness import Bench
from millrace import ordering
from millrace.compose import load_settings, open_jobs
from millrace.jobs.database import open_database
from millrace.jobs.desk import Desk
from millrace.jobs.states import Job, Order, Told
from millrace.jobs.table import JobTable

JOBS, TURNS = 300, 7

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


WORK = """
import time


def nothing(item):
    return item


def turns(item):
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        sum(range(1000))
    return item
"""
TIERS = "[tiers.medium]\nleast = 0\n[tiers.light]\nleast = 1\nmost = 1\n[tiers.heavy]\nidle_s = 1\n"
RATE, LIGHT_JOBS, WARM_JOBS = 50, 400, 40


@contextmanager
def served() -> Iterator[Desk]:
    """A jobs' folder with a real `millrace up`, all on disk."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        place = Path(folder).absolute()
        (place / "work.py").write_text(WORK)
        (place / "tiers.toml").write_text(TIERS)
        (place / "one.jsonl").write_text("1\n")
        (place / "many.jsonl").write_text("".join(f"{i}\n" for i in range(400)))
        (place / "millrace.toml").write_text('tiers = "tiers.toml"\nstore = "store"\n')
        with (place / "up.log").open("wb") as log:
            up = subprocess.Popen([sys.executable, "-m", "millrace", "up", "--port", "0"], cwd=place, stderr=log)
        with chdir(place):
            desk = open_jobs(load_settings({}))
            try:
                wait_until(lambda: any(w.tier == "light" for w in desk.table.workers()))
                yield desk
            finally:
                desk.table.close()
                up.send_signal(signal.SIGINT)
                up.wait(120)


def wait_until(done: object, give_up_s: float = 120.0) -> None:
    end = time.monotonic() + give_up_s
    while not done():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(0.02)


def submit(desk: Desk, function: str, items: str, queue: str) -> Job:
    return ordering.order(desk, "run", {"function": f"work:{function}", "items": items}, queue=queue)


def light_ms(desk: Desk, jobs: int) -> list[float]:
    """Submit to result of light jobs that come at an even pace, in milliseconds."""
    first = submit(desk, "nothing", "one.jsonl", "quick")
    asked = json.loads(first.question)
    numbers, began = [], time.monotonic()
    for i in range(jobs):
        time.sleep(max(0.0, began + i / RATE - time.monotonic()))
        numbers.append(desk.table.submit(Order("run", asked, "quick", "light", seed=i)).id)
    wait_until(lambda: desk.table.get(numbers[-1]).ended_at and not desk.table.jobs("queued", "light"))
    wait_until(lambda: not desk.table.jobs("running", "light"))
    ended = [desk.table.get(number) for number in numbers]
    assert all(job.state == "succeeded" for job in ended)
    return [1000 * (job.ended_at - job.created_at) for job in ended if job.ended_at is not None]


def latencies(bench: Bench, desk: Desk) -> None:
    light_ms(desk, WARM_JOBS)
    alone = light_ms(desk, LIGHT_JOBS)
    said(bench, "light job, warm, submit to result at 50 jobs/s", alone)
    heavy = submit(desk, "turns", "many.jsonl", "causal")
    wait_until(lambda: desk.table.get(heavy.id).state == "running")
    started = desk.table.get(heavy.id)
    assert started.first_started_at is not None
    bench.figure("heavy job from zero: submit to start", started.first_started_at - heavy.created_at, "s", 3)
    wait_until(lambda: desk.table.get(heavy.id).finished_tasks > 0)
    beside = light_ms(desk, LIGHT_JOBS)
    assert desk.table.get(heavy.id).state == "running"
    said(bench, "the same while a heavy job runs", beside)


def said(bench: Bench, work: str, times_ms: list[float]) -> None:
    bench.figure(f"{work}: p50", statistics.median(times_ms), "ms", 15)
    bench.figure(f"{work}: p99", statistics.quantiles(times_ms, n=100)[98], "ms", 100)


def main() -> None:
    bench = Bench("jobs")
    ratios, ours, bare = [], [], []
    for turn in range(TURNS):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
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
    bench.figure(
        "drain of no-op jobs, rate beside a bare claim loop", statistics.median(ratios), "x", 0.8, at_most=False
    )
    with served() as desk:
        latencies(bench, desk)
    bench.write()


if __name__ == "__main__":
    main()
