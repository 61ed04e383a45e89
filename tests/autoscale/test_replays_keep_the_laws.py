"""What a replay may never do, whatever the trace, the rule and the faults; and its figures beside an oracle."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.autoscale.conditions import Faults, Service
from millrace.autoscale.contenders import PLAIN, always, contenders, keda, shipped
from millrace.autoscale.figures import bound_hours, by_queue, figures, flips, student, together
from millrace.autoscale.simulate import Choice, Replay
from millrace.autoscale.traces import Arrival, shipped_trace
from millrace.tiers import Hours, Prices, Tier

PRICES = Prices(core_hour=1.0, gib_hour=0.0)


def tier(most: int = 4, **more: object) -> Tier:
    return Tier(name="heavy", cores=1, memory=1 << 30, queues=("causal",), most=most, **more)  # type: ignore[arg-type]


@st.composite
def traces(draw: st.DrawFn) -> list[Arrival]:
    gaps = draw(st.lists(st.floats(0, 2000), min_size=1, max_size=40))
    found, at = [], 0.0
    for gap in gaps:
        at += gap
        seconds = draw(st.floats(0.1, 5000))
        found.append(Arrival(at, "causal", seconds, draw(st.none() | st.floats(0, 5000)), draw(st.integers(0, 2))))
    return found


faults = st.builds(
    Faults, error=st.sampled_from([0.0, 0.7]), failed_boots=st.sampled_from([0.0, 0.3]),
    boot_spread=st.sampled_from([0.0, 0.3]), outages_per_day=st.sampled_from([0.0, 20.0]),
    strikes_per_day=st.sampled_from([0.0, 30.0]), dies_after=st.just(10_000),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(traces(), faults, st.integers(1, 4), st.integers(1, 3), st.sampled_from(["jobs", "work"]), st.integers(0, 9))
def test_the_shipped_policy_kills_nobody_starves_nobody_and_stays_within_the_maximum(
    trace: list[Arrival], suffered: Faults, most: int, at_once: int, count: str, seed: int
) -> None:
    own = tier(most, at_once=at_once, count=count)
    replay = Replay(own, trace, shipped(own, PRICES), Service(), suffered, seed).run()
    found = figures(replay, PRICES)
    assert found.kills == 0
    assert found.peak <= most
    assert found.never == 0
    assert found.strikes or found.redone_hours == 0  # attained work is never lost but by a strike
    assert all(e >= job.at_s + job.seconds - 1e-3 for e, job in zip(replay.ended, trace, strict=True))
    again = found.slices + found.strikes
    owed = sum(replay.size) + found.redone_hours * 3600
    assert owed - 1e-3 <= replay.books.busy_s <= owed + Service().resume_s * again + 1e-3
    assert replay.books.busy_s <= replay.books.alive_s * at_once + 1e-6


@settings(max_examples=25, deadline=None)
@given(traces(), st.integers(0, 9), st.sampled_from([c for c in contenders() if "minimum" not in c.name]))
def test_every_rule_ends_a_finite_load_and_does_what_its_books_say(
    trace: list[Arrival], seed: int, rule: object
) -> None:
    own = tier()
    replay = Replay(own, trace, rule.make(own, PRICES), rule.service, Faults(dies_after=5), seed).run()  # type: ignore[attr-defined]
    found = figures(replay, PRICES)
    assert found.never == replay.books.dead
    assert not replay.running and not replay.queue and not replay.away
    if not found.kills:
        assert replay.books.busy_s == pytest.approx(sum(replay.size) + Service().resume_s * found.slices, abs=1e-3)
        assert found.bound_hours <= found.replica_hours + 1e-6


def naive_waits(trace: list[Arrival], servers: int, from_s: float) -> list[float]:
    """First come, first served on so many servers (Kiefer and Wolfowitz): each job goes where it can start first."""
    free = [from_s] * servers
    waits = []
    for job in trace:
        start = max(job.at_s, heapq.heappop(free))
        heapq.heappush(free, start + job.seconds)
        waits.append(start - job.at_s)
    return waits


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("most", "at_once"), [(1, 1), (4, 1), (2, 3)])
def test_first_come_first_served_on_constant_machines_is_as_the_oracle_says(seed: int, most: int, at_once: int) -> None:
    own, trace = tier(most, at_once=at_once), shipped_trace(seed, days=2)
    replay = Replay(own, trace, always(False)(own, PRICES), PLAIN, Faults(), seed).run()
    waits = [first - job.at_s for first, job in zip(replay.first, trace, strict=True)]
    assert waits == pytest.approx(naive_waits(trace, most * at_once, own.boot_s), abs=1e-6)
    assert figures(replay, PRICES).wait_p95_s == sorted(waits)[int(len(waits) * 0.95)]


def test_nobody_yields_without_one_who_outranks_and_attained_work_is_kept() -> None:
    own = tier(1)
    alone = Replay(own, [Arrival(0, "causal", 5000)], shipped(own, PRICES), Service(), Faults(), 0).run()
    assert alone.books.slices == 0 and alone.ended[0] == pytest.approx(5000 + 120)
    longer = [Arrival(0, "causal", 1200), Arrival(200, "causal", 5000)]
    assert Replay(own, longer, shipped(own, PRICES), Service(), Faults(), 0).run().books.slices == 0
    two = [Arrival(0, "causal", 5000), Arrival(300, "causal", 50)]
    both = Replay(own, two, shipped(own, PRICES), Service(), Faults(), 0).run()
    assert both.books.slices == 1
    assert both.first[1] == pytest.approx(120 + 600) and both.ended[0] == pytest.approx(5000 + 120 + 50 + 3.5)


def test_a_killed_job_loses_only_its_last_task_where_work_is_kept_and_all_where_it_is_not() -> None:
    class Strike:
        """Starts one replica; takes it away once, at 1,000 s."""

        def __init__(self) -> None:
            self.struck = False

        def __call__(self, replay: Replay, now: float, known: bool) -> Choice:
            if now >= 1000 and not self.struck:
                self.struck = True
                return Choice(take_away=1)
            return Choice(start=1 - len(replay.replicas))

    own, trace = tier(1), [Arrival(0, "causal", 3000.0)]
    for service, lost in ((Service(grace_s=0.0), 10.0), (Service(ordered=False, kept_s=math.inf, grace_s=0.0), 885.0)):
        replay = Replay(own, trace, Strike(), service, Faults(), 0).run()
        assert figures(replay, PRICES).kills == 1
        assert replay.books.redone_s == pytest.approx(lost)


def test_grace_lets_busy_ones_end_above_the_maximum() -> None:
    own, trace = tier(), shipped_trace(1, days=2)
    long = Service(ordered=False, kept_s=math.inf, grace_s=7200.0)
    patient = figures(Replay(own, trace, keda(True)(own, PRICES), long, Faults(), 1).run(), PRICES)
    hasty = figures(Replay(own, trace, keda(True)(own, PRICES), PLAIN, Faults(), 1).run(), PRICES)
    assert patient.kills == 0 and patient.peak > 4
    assert hasty.kills > 0


def test_a_schedule_keeps_its_floor_and_a_cost_ceiling_is_kept() -> None:
    trace = [Arrival(10 * 3600.0, "causal", 100.0)] * 6
    floor = tier(schedule=(Hours(days="mon", hours=(8, 12), replicas=3),))
    early = Replay(floor, trace, shipped(floor, PRICES), Service(), Faults(), 0).run()
    assert early.first[:3] == [36_000.0] * 3  # they were up already
    cheap = tier(cost_ceiling=2.5)
    assert figures(Replay(cheap, trace, shipped(cheap, PRICES), Service(), Faults(), 0).run(), PRICES).peak == 2


def test_a_forecast_keeps_what_earlier_days_needed_at_this_hour() -> None:
    trace = [Arrival(day * 86_400 + 36_000.0 + 60 * i, "causal", 200.0) for day in range(5) for i in range(3)]
    own = tier(forecast=True)
    replay = Replay(own, trace, shipped(own, PRICES), Service(), Faults(), 0).run()
    waits = [first - job.at_s for first, job in zip(replay.first, trace, strict=True)]
    assert min(waits[:3]) >= 60 and waits[-3:] == [0.0] * 3


def test_when_signals_are_lost_the_policy_holds_and_after_ten_minutes_gives_queued_work_the_maximum() -> None:
    trace = [Arrival(0.0, "causal", 3000.0), *[Arrival(200.0, "causal", 100.0)] * 3]
    own = tier()
    replay = Replay(own, trace, shipped(own, PRICES), Service(), Faults(), 0)
    replay._outages = [(15.0, 5000.0)]
    found = figures(replay.run(), PRICES)
    assert min(replay.first[1:]) == pytest.approx(0.0 + 600 + 120, abs=16)  # the first look saw the first job queued
    assert found.peak == 4 and found.alerts > 0 and found.never == 0


def test_the_bound_of_a_clairvoyant_is_right_where_it_can_be_counted() -> None:
    own = tier(2)
    replay = Replay(own, [Arrival(0.0, "causal", 1.0)], shipped(own, PRICES), Service(), Faults(), 0)
    replay.books.levels = [
        (0.0, 1),
        (100.0, 2),
        (200.0, 1),
        (250.0, 0),
        (300.0, 1),
        (400.0, 0),
        (1000.0, 1),
        (1100.0, 0),
    ]
    # first of the stack: 120 to boot, 250, bridges 50, 100, boots again 120, 100; second: 120 to boot, 100
    assert bound_hours(replay, 5000.0) * 3600 == pytest.approx(120 + 250 + 50 + 100 + 120 + 100 + 120 + 100)


def test_flips_are_changes_of_direction_within_ten_minutes() -> None:
    assert flips([(0, 1), (100, -1), (200, -1), (900, 1), (1400, -1)]) == 2


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 11, 30])
def test_students_quantile_is_scipys(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


def test_an_interval_covers_what_seeds_differ_by() -> None:
    own = tier()
    seen = [
        figures(Replay(own, shipped_trace(s, days=1), shipped(own, PRICES), Service(), Faults(), s).run(), PRICES)
        for s in (1, 2)
    ]
    one, two = (f.replica_hours for f in seen)
    both = together(seen)["replica_hours"]
    assert both.mean == pytest.approx((one + two) / 2)
    assert both.half == pytest.approx(12.7062 * abs(one - two) / 2)


def test_queues_of_a_tier_are_told_apart_and_a_job_that_never_starts_has_missed() -> None:
    own = Tier(name="t", cores=1, memory=1 << 30, queues=("a", "b"), most=1, slo_s=150)
    trace = [Arrival(0, "a", 500.0), Arrival(1, "b", 1.0)]
    quick = Replay(own, trace, lambda *_: Choice(), PLAIN, Faults(), 0, patience_s=10.0).run()
    assert [(q.queue, q.jobs, q.missed) for q in by_queue(quick)] == [("a", 1, 1.0), ("b", 1, 1.0)]
    assert figures(quick, PRICES).never == 2
    replay = Replay(own, trace, shipped(own, PRICES), Service(ordered=False), Faults(), 0).run()
    assert [(q.queue, q.missed) for q in by_queue(replay)] == [("a", 0.0), ("b", 1.0)]


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_seed_is_the_same_replay(seed: int) -> None:
    own, suffered = tier(), Faults(error=0.7, failed_boots=0.1, strikes_per_day=5)
    one, two = (
        figures(Replay(own, shipped_trace(seed, 1), shipped(own, PRICES), Service(), suffered, seed).run(), PRICES)
        for _ in range(2)
    )
    assert one == two
