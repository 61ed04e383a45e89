"""The laws of a queue over a job table in both modes: the table itself, and Celery on a real Valkey."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deskwork import until
from servers import valkey

from millrace.jobs.database import open_database
from millrace.jobs.queues import Queue, TableQueue
from millrace.jobs.table import JobTable
from millrace.testing import queues as laws
from millrace.testing.jobs import order
from millrace.tiers import Tiers, load_tiers


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., JobTable]:
    return lambda **options: JobTable(open_database(tmp_path / "jobs.sqlite"), **options)


@contextlib.contextmanager
def over_table(table: JobTable) -> Iterator[Queue]:
    yield TableQueue(table)


@pytest.fixture
def over_celery(own_broker: str) -> laws.Listen:
    pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")
    from millrace.jobs.celery.opening import open_queue

    @contextlib.contextmanager
    def listen(table: JobTable) -> Iterator[Queue]:
        tiers = fast_tiers()
        queue = open_queue(own_broker, None, table, tiers, tiers.tier("heavy"), print)
        try:
            yield queue
        finally:
            queue.close()

    return listen


def fast_tiers() -> Tiers:
    return load_tiers(None).model_copy(update={"lease_s": 3.0})


@pytest.mark.parametrize("law", laws.QUEUE_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("mode", ["table", "celery"])
def test_both_modes_keep_the_laws(
    law: Callable[..., None], mode: str, make: Callable[..., JobTable], request: pytest.FixtureRequest
) -> None:
    law(make, over_table if mode == "table" else request.getfixturevalue("over_celery"))


def test_the_length_of_a_queue_is_the_number_of_jobs_that_wait(
    make: Callable[..., JobTable], over_celery: laws.Listen, own_broker: str
) -> None:
    """A worker takes no message for which it has no place: what waits can be taken by another."""
    from millrace.jobs.celery.messages import depths
    from millrace.jobs.celery.names import wake_queue
    from millrace.jobs.celery.wiring import own_app

    app, table = own_app(own_broker), make()
    with over_celery(table) as queue:
        for i in range(6):
            queue.publish(table.submit(order(str(i))))
        taken = laws.woken(table, queue, 2)
        for waiting in (4, 3, 2):
            until(lambda waiting=waiting: depths(app, [wake_queue("heavy")]) == {"millrace.heavy": waiting})
            laws.done(table, queue, taken.pop(0))
            taken += laws.woken(table, queue, 1)
    table.close()
    app.close()


def test_jobs_are_found_while_the_broker_is_away_and_after(make: Callable[..., JobTable], tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")
    from millrace.jobs.celery.opening import open_queue

    table, tiers = make(), fast_tiers()
    with valkey(tmp_path / "server", "--maxmemory-policy", "noeviction") as server:
        queue = open_queue(server.url, None, table, tiers, tiers.tier("heavy"), lambda _: None)
        server.stop()
        for back in (False, True):
            if back:
                server.start()
            number = table.submit(order(str(back))).id
            (job,) = laws.woken(table, queue, 1)
            assert job.id == number
            laws.done(table, queue, job)
        queue.close()
    table.close()
