"""The laws of a queue over a job table, and of what a table remembers about messages.

MESSAGE_LAWS take `make` as those of `millrace.testing.jobs` do. QUEUE_LAWS take `listen(table)` besides: a queue over that
table which wakes workers of the tier heavy, two places each, in a `with` block. What a queue promises is only that somebody is
woken in the end; the table decides all else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from millrace.jobs.queues import Queue
from millrace.jobs.states import ASKED_BY_TASK, Job, Told
from millrace.jobs.table import JobTable
from millrace.testing.jobs import Clock, Make, claimed, order

Listen = Callable[[JobTable], AbstractContextManager[Queue]]
PATIENCE_S = 60.0


# -- messages in the table ---------------------------------------------------------------------------------------
def who_asked_by_task_is_to_be_told(make: Make) -> None:
    """Of every way in which a job can end, until it is written down that the message is out."""
    clock = Clock()
    table = make(clock=clock)
    keys = [f"{ASKED_BY_TASK}{i}" for i in range(3)]
    one, two, three = (table.submit(order(key, idempotency_key=key)).id for key in keys)
    table.published([one, two, three])
    table.settle(claimed(table), Told("finished", answer=("a", "1")))
    table.settle(claimed(table), Told("raised", "there is no column x"))
    table.cancel(three)
    table.cancel(table.submit(order("nobody's", idempotency_key="own")).id)
    clock.now += 10
    assert {job.id for job in table.untold(5.0, 3600.0)} == {one, two, three}
    assert table.untold(60.0, 3600.0) == [] == table.untold(1.0, 5.0)
    table.published([one])
    assert {job.id for job in table.untold(5.0, 3600.0)} == {two, three}
    found = table.of_key(keys[1])
    assert found is not None and found.id == two and table.of_key("nothing") is None
    table.close()


MESSAGE_LAWS = (who_asked_by_task_is_to_be_told,)


# -- queues ------------------------------------------------------------------------------------------------------
def a_published_job_wakes_a_worker(make: Make, listen: Listen) -> None:
    table = make()
    with listen(table) as queue:
        numbers = {_published(table, queue, str(i)).id for i in range(2)}
        jobs = woken(table, queue, 2)
        assert {job.id for job in jobs} == numbers
        for job in jobs:
            done(table, queue, job)
    table.close()


def whoever_is_woken_claims_the_best(make: Make, listen: Listen) -> None:
    """Whatever the message was about."""
    table = make()
    with listen(table) as queue:
        best = table.submit(order("short", 1.0)).id
        _published(table, queue, "long", 4000.0)
        (job,) = woken(table, queue, 1)
        assert job.id == best
        done(table, queue, job)
    table.close()


def a_lost_message_is_sent_again(make: Make, listen: Listen) -> None:
    table = make()
    with listen(table) as queue:
        numbers = {table.submit(order(str(i))).id for i in range(2)}
        assert {job.id for job in woken(table, queue, 2)} == numbers
    table.close()


def a_doubled_message_makes_no_second_job(make: Make, listen: Listen) -> None:
    """And keeps no place: the next job comes through."""
    table = make()
    with listen(table) as queue:
        first = _published(table, queue, "once")
        for _ in range(4):
            queue.publish(first)
        (job,) = woken(table, queue, 1)
        done(table, queue, job)
        second = _published(table, queue, "next")
        (job,) = woken(table, queue, 1)
        assert job.id == second.id
    table.close()


def one_that_goes_again_wakes_again(make: Make, listen: Listen) -> None:
    """After a slice at once; after a cause that may pass when its pause is over."""
    table = make()
    with listen(table) as queue:
        _published(table, queue, "long")
        for ending in ("paused", "passing", "finished"):
            (job,) = woken(table, queue, 1)
            told = Told(ending, answer=("a", "1") if ending == "finished" else None)  # type: ignore[arg-type]
            queue.publish(table.settle(job, told))
            queue.ended(job)
        assert table.get(job.id).state == "succeeded"
    table.close()


def more_jobs_than_places_all_come_through(make: Make, listen: Listen) -> None:
    table = make()
    with listen(table) as queue:
        numbers = {_published(table, queue, str(i)).id for i in range(12)}
        ended = set()
        while ended != numbers:
            for job in woken(table, queue, min(2, len(numbers - ended))):
                done(table, queue, job)
                ended.add(job.id)
    table.close()


QUEUE_LAWS = (
    a_published_job_wakes_a_worker,
    whoever_is_woken_claims_the_best,
    a_lost_message_is_sent_again,
    a_doubled_message_makes_no_second_job,
    one_that_goes_again_wakes_again,
    more_jobs_than_places_all_come_through,
)


def _published(table: JobTable, queue: Queue, label: str, seconds: float = 10.0) -> Job:
    job = table.submit(order(label, seconds))
    queue.publish(job)
    return job


def woken(table: JobTable, queue: Queue, count: int) -> list[Job]:
    """Claim so many jobs as a warden does."""
    found: list[Job] = []
    give_up = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < give_up, f"nobody was woken for {count - len(found)} of the jobs"
        queue.tick()
        if not queue.woken():
            time.sleep(0.01)
            continue
        again = True
        while again and len(found) < count:
            job = claimed(table)
            again = queue.claimed(job)
            if job is not None:
                found.append(job)
    return found


def done(table: JobTable, queue: Queue, job: Job) -> None:
    queue.publish(table.settle(job, Told("finished", answer=("a", "1"))))
    queue.ended(job)
