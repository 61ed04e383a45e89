"""The laws of a job table, as functions over any database; those of a queue over it are in `queues`.

    @pytest.mark.parametrize("law", laws.TABLE_LAWS, ids=lambda law: law.__name__)
    def test_my_table(law, ...):
        law(lambda **options: JobTable(open_database(url), **options), empty)

`make(**options)` opens the same table anew each time; it is empty at the start of a law. Each raises AssertionError when
the law is broken. Clocks are handed in, so nothing here waits for a lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from millrace.jobs.signals import tier_loads, worker_seconds
from millrace.jobs.states import MOST_LOSSES, JobLost, Order, Prediction, Told
from millrace.jobs.table import JobTable, Progress, Seen, Service, Sweeper

Make = Callable[..., JobTable]
MUCH = 1 << 40


class Clock:
    """A time of day that stands still until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def order(label: str = "job", seconds: float | None = 10.0, **more: Any) -> Order:
    given: dict[str, Any] = {"queue": "shap", "tier": "heavy"} | more
    peak = given.pop("peak_bytes", None)
    return Order("run", {"label": label}, label=label, prediction=Prediction(seconds, seconds, peak), **given)


def claimed(table: JobTable, worker: str = "w1", tier: str = "heavy") -> Any:
    return table.claim(worker, tier, MUCH, 1)


# -- claiming ----------------------------------------------------------------------------------------------------
def a_job_is_claimed_once(make: Make) -> None:
    """Eight claimers at a time, each with a connection of its own: every job goes to one of them."""
    table = make()
    numbers = {table.submit(order(str(i))).id for i in range(40)}
    got: list[int] = []

    def claim(name: str) -> None:
        own = make()
        while (job := claimed(own, name)) is not None:
            got.append(job.id)
        own.close()

    threads = [threading.Thread(target=claim, args=(f"w{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(numbers)
    table.close()


def the_least_key_goes_first(make: Make) -> None:
    """Over all queues of the tier: short before long, by priority, and in their order when all else is equal."""
    clock = Clock()
    table = make(clock=clock)
    table.submit(order("long", 4000.0, queue="causal"))
    clock.now += 60
    table.submit(order("short", 90.0))
    table.submit(order("short too", 90.0, queue="ml"))
    table.submit(order("urgent", 4000.0, priority=10))
    table.submit(order("elsewhere", 1.0, tier="light", queue="api"))
    assert [claimed(table).label for _ in range(4)] == ["urgent", "short", "short too", "long"]
    assert claimed(table) is None
    table.close()


def a_long_job_is_let_past_at_last(make: Make) -> None:
    """Only jobs that come within 4 x its remaining time can overtake it."""
    clock = Clock()
    table = make(clock=clock)
    table.submit(order("long", 1000.0))
    clock.now += 4 * 999 + 1
    table.submit(order("short", 1.0))
    assert claimed(table).label == "long"
    table.close()


def what_does_not_fit_is_left(make: Make) -> None:
    """Admission by predicted memory; an unknown one counts as a slot's share."""
    table = make()
    table.submit(order("big", 1.0, peak_bytes=900))
    table.submit(order("small", 50.0, peak_bytes=100))
    table.submit(order("unknown", 90.0))
    assert table.claim("w", "heavy", 500, 600).label == "small"  # type: ignore[union-attr]
    assert table.claim("w", "heavy", 500, 600) is None
    assert table.claim("w", "heavy", 700, 600).label == "unknown"  # type: ignore[union-attr]
    assert table.claim("w", "heavy", 900, 600).label == "big"  # type: ignore[union-attr]
    table.close()


# -- leases ------------------------------------------------------------------------------------------------------
def a_late_double_is_thrown_away(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    table.submit(order())
    first = claimed(table, "w1")
    clock.now += table.lease_s + 1
    assert [job.state for job in table.sweep()] == ["queued"]
    clock.now += 600
    second = claimed(table, "w2")
    assert (second.id, second.attempt) == (first.id, 2)
    for late in (
        lambda: table.beat(first, Progress()),
        lambda: table.settle(first, Told("finished", answer=("a", "1"))),
    ):
        assert _lost(late)
    done = table.settle(second, Told("finished", answer=("b", "2")))
    assert (done.state, done.result, done.digest) == ("succeeded", "b", "2")
    assert _lost(lambda: table.settle(second, Told("finished", answer=("c", "3"))))
    table.close()


def a_heartbeat_holds_the_lease(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    table.submit(order())
    job = claimed(table)
    for _ in range(5):
        clock.now += 0.8 * table.lease_s
        assert table.beat(job, Progress("blocks", 3, 9, 1000)) is False
        assert table.sweep() == []
    now = table.get(job.id)
    assert (now.stage, now.finished_tasks, now.total_tasks, now.peak_bytes) == ("blocks", 3, 9, 1000)
    table.close()


def a_jumping_clock_takes_no_lease(make: Make) -> None:
    """A sweeper whose clock jumps holds still until the living have had time to renew their leases."""
    clock, steady = Clock(), Clock(0.0)
    table = make(clock=clock)
    table.submit(order())
    job = claimed(table)
    sweeper = Sweeper(table, 1.0, steady)
    assert sweeper.tick() == []
    clock.now, steady.now = clock.now + 86_400, steady.now + 1
    assert sweeper.tick() == []
    table.beat(job, Progress())
    steady.now, clock.now = steady.now + 2 * table.lease_s + 1, clock.now + 2 * table.lease_s + 1
    assert [j.id for j in sweeper.tick()] == [job.id]  # and one that is silent ever since is lost
    table.close()


# -- ends --------------------------------------------------------------------------------------------------------
def three_ends_of_its_own_are_poison(make: Make) -> None:
    for ending in ("crashed", "out of memory", "timed out"):
        clock = Clock()
        table = make(clock=clock)
        number = table.submit(order(ending)).id
        for left in (2, 1, 0):
            clock.now += 600
            job = table.settle(claimed(table), Told(ending, "it broke", progressed=True))  # type: ignore[arg-type]
            assert job.id == number and job.state == ("queued" if left else "failed"), job
        assert job.why.startswith("poison"), job.why
        table.close()


def a_lost_worker_does_not_count_against_the_job(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    number = table.submit(order()).id
    for _ in range(MOST_LOSSES - 1):
        clock.now += 600
        assert claimed(table).id == number
        clock.now += table.lease_s + 1
        assert table.sweep()[0].state == "queued"
    clock.now += 600
    assert table.settle(claimed(table), Told("paused", seconds=5.0)).losses == 0  # in a row
    for _ in range(MOST_LOSSES):
        clock.now += 600
        assert claimed(table).id == number
        clock.now += table.lease_s + 1
        (job,) = table.sweep()
    assert job.state == "failed" and job.own_ends == 0
    table.close()


def what_cannot_be_answered_is_not_tried_again(make: Make) -> None:
    table = make()
    table.submit(order())
    job = table.settle(claimed(table), Told("raised", "there is no column x"))
    assert (job.state, job.why) == ("failed", "there is no column x")
    assert claimed(table) is None
    table.close()


def a_passing_cause_waits_its_back_off(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    table.submit(order())
    delays = []
    for _ in range(6):
        job = table.settle(claimed(table), Told("passing", "the store is away"))
        assert claimed(table) is None
        delays.append(job.not_before - clock.now)
        clock.now = job.not_before
    assert all(0.5 * 2**i <= delay <= 2**i for i, delay in enumerate(delays)), delays
    table.close()


def out_of_memory_goes_up_once(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    table.submit(order("big", tier="light", queue="api"))
    up = table.settle(claimed(table, tier="light"), Told("out of memory", "2 GiB"), up=("heavy", "shap"))
    assert (up.tier, up.queue, up.state, up.escalated) == ("heavy", "shap", "queued", True)
    clock.now += 600
    stays = table.settle(claimed(table), Told("out of memory", "32 GiB"), up=("gpu", "gpu"))
    assert (stays.tier, stays.state) == ("heavy", "queued")
    table.close()


def a_slice_is_not_an_end(make: Make) -> None:
    """What was attained never decreases, and the job is queued again at once."""
    clock = Clock()
    table = make(clock=clock)
    table.submit(order("long", 1000.0))
    attained = 0.0
    for _ in range(30):
        job = table.settle(claimed(table), Told("paused", seconds=60.0))
        assert job.state == "queued" and job.not_before == clock.now and job.own_ends == job.losses == 0
        assert job.attained_s > attained
        attained = job.attained_s
    assert attained == 1800.0
    table.close()


def max_total_s_bounds_all_slices(make: Make) -> None:
    table = make()
    table.submit(order(max_total_s=100.0))
    assert table.settle(claimed(table), Told("paused", seconds=60.0)).state == "queued"
    job = table.settle(claimed(table), Told("paused", seconds=60.0))
    assert job.state == "failed" and "max_total_s" in job.why
    table.close()


def nobody_yields_without_one_who_outranks(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    table.submit(order("long", 10_000.0))
    job = claimed(table)
    clock.now += 700
    assert not table.outranked(job)
    table.submit(order("longer", 50_000.0))
    table.submit(order("elsewhere", 1.0, tier="light", queue="api"))
    assert not table.outranked(job)
    table.submit(order("short", 10.0))
    assert table.outranked(job)
    table.close()


# -- who asks ----------------------------------------------------------------------------------------------------
def a_repeated_order_is_the_same_job(make: Make) -> None:
    table = make()
    first = table.submit(order(idempotency_key="k"))
    job = table.settle(claimed(table), Told("finished", answer=("a", "1")))
    assert table.submit(order("other", idempotency_key="k")).id == first.id == job.id
    assert table.submit(order()).id != table.submit(order()).id
    table.close()


def a_cancel_wins(make: Make) -> None:
    """At once over a queued job; by the next heartbeat over a running one, and over its going again."""
    table = make()
    queued = table.submit(order())
    assert table.cancel(queued.id).state == "cancelled" and claimed(table) is None
    table.submit(order())
    job = claimed(table)
    assert table.cancel(job.id).state == "running" and table.beat(job, Progress()) is True
    assert table.settle(job, Told("paused")).state == "cancelled"
    assert table.again(job.id).state == "queued" and claimed(table).id == job.id
    done = table.settle(table.get(job.id), Told("finished", answer=("a", "1")))
    assert table.cancel(job.id) == done
    table.close()


def a_change_is_seen(make: Make) -> None:
    table, other = make(), make()
    table.changed()
    other.submit(order())
    assert table.changed()
    table.close()
    other.close()


def an_office_is_held_by_one(make: Make) -> None:
    clock = Clock()
    table, other = make(clock=clock), make(clock=clock)
    assert table.take_office("scaler", "a", 10.0) and table.take_office("scaler", "a", 10.0)
    assert not other.take_office("scaler", "b", 10.0)
    clock.now += 11
    assert other.take_office("scaler", "b", 10.0) and not table.take_office("scaler", "a", 10.0)
    other.leave_office("scaler", "b")
    assert table.take_office("scaler", "a", 10.0)
    table.close()
    other.close()


def who_has_an_office_is_told(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    assert table.office("scaler") is None
    table.take_office("scaler", "a", 10.0)
    assert table.office("scaler") == ("a", clock.now + 10.0)
    clock.now += 11
    assert table.office("scaler") is None
    table.close()


def a_worker_that_is_asked_to_leave_learns_it(make: Make) -> None:
    """When it next tells that it is there; what it tells of itself does not undo it."""
    clock = Clock()
    table, other = make(clock=clock), make(clock=clock)

    def told(state: str) -> bool:
        return table.see(Seen("w1", "heavy", "h", 1, "0", state, 2, 100, clock.now, clock.now, clock.now - 7))

    assert told("busy") is False
    other.ask_to_leave("w1")
    assert told("idle") is True and told("draining") is True
    (seen,) = other.workers()
    assert (seen.state, seen.since, seen.asked) == ("draining", clock.now - 7, True)
    table.forget("w1")
    assert told("idle") is False
    table.close()
    other.close()


def load_is_counted_by_tier(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock, service=Service(unknown_s=60.0))
    table.submit(order("a", 100.0))
    clock.now += 30
    table.submit(order("b", None, queue="causal"))
    claimed(table)
    table.see(Seen("w1", "heavy", "h", 1, "0", "busy", 2, 100, clock.now, clock.now))
    table.see(Seen("w2", "heavy", "h", 2, "0", "draining", 2, 100, clock.now, clock.now))
    load = tier_loads(table, ("light", "heavy"))
    heavy = load["heavy"]
    assert (heavy.queued, heavy.running, heavy.live, heavy.draining, heavy.slots) == (1, 1, 1, 1, 2)
    assert (heavy.oldest_wait_s, heavy.work_s) == (30.0, 100.0), heavy
    assert load["light"].queued == load["light"].live == 0
    clock.now += 600
    assert tier_loads(table, ("heavy",))["heavy"].live == 0
    table.close()


def the_time_of_workers_is_counted_also_when_they_have_gone(make: Make) -> None:
    """Of one that left, one that was lost, and one that is there, each once."""
    clock = Clock()
    table, other = make(clock=clock), make(clock=clock)
    begun = clock.now

    def see(name: str, tier: str, since: float) -> None:
        table.see(Seen(name, tier, "h", 1, "0", "idle", 2, 100, since, clock.now, since))

    clock.now += 100
    for name in ("left", "lost"):
        see(name, "heavy", begun)
    clock.now += 1000
    see("left", "heavy", begun)
    table.forget("left")
    table.forget("left")
    table.workers()
    other.workers()
    see("there", "heavy", begun + 1000)
    see("there", "light", begun + 1000)
    assert worker_seconds(other) == {"heavy": (begun, 1200.0), "light": (begun + 1000, 100.0)}
    table.close()
    other.close()


def names_mean_the_latest(make: Make) -> None:
    table = make()
    assert table.named("model", "churn") is None
    table.name("model", "churn", "one.txt")
    table.name("model", "churn", "two.txt")
    table.name("data", "churn", "rows.csv")
    assert table.named("model", "churn") == "two.txt" and len(table.names()) == 2
    table.unname("model", "churn")
    assert table.named("model", "churn") is None and table.named("data", "churn") == "rows.csv"
    table.close()


def pruning_takes_what_has_ended(make: Make) -> None:
    clock = Clock()
    table = make(clock=clock)
    old = table.cancel(table.submit(order()).id).id
    clock.now += 100
    new = table.cancel(table.submit(order()).id).id
    open_ = table.submit(order()).id
    assert table.prune(clock.now - 50) == [old]
    assert {job.id for job in table.jobs()} == {new, open_}
    table.close()


TABLE_LAWS = (
    a_job_is_claimed_once,
    the_least_key_goes_first,
    a_long_job_is_let_past_at_last,
    what_does_not_fit_is_left,
    a_late_double_is_thrown_away,
    a_heartbeat_holds_the_lease,
    a_jumping_clock_takes_no_lease,
    three_ends_of_its_own_are_poison,
    a_lost_worker_does_not_count_against_the_job,
    what_cannot_be_answered_is_not_tried_again,
    a_passing_cause_waits_its_back_off,
    out_of_memory_goes_up_once,
    a_slice_is_not_an_end,
    max_total_s_bounds_all_slices,
    nobody_yields_without_one_who_outranks,
    a_repeated_order_is_the_same_job,
    a_cancel_wins,
    a_change_is_seen,
    an_office_is_held_by_one,
    who_has_an_office_is_told,
    a_worker_that_is_asked_to_leave_learns_it,
    load_is_counted_by_tier,
    the_time_of_workers_is_counted_also_when_they_have_gone,
    names_mean_the_latest,
    pruning_takes_what_has_ended,
)


def _lost(act: Callable[[], Any]) -> bool:
    try:
        act()
    except JobLost:
        return True
    return False
