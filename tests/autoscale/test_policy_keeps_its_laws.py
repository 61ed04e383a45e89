"""The laws of the policy, by properties: what is decided for any tier, signals and moment."""

from __future__ import annotations

import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.autoscale import policy
from millrace.autoscale.forecast import Busiest
from millrace.autoscale.policy import BLIND_S, decide, scheduled
from millrace.autoscale.signals import UNBOUNDED, Demand, Past, Signals, Supply, remember
from millrace.tiers import Hours, Tier

NOW = 1_700_000_000.0


@st.composite
def tiers(draw: st.DrawFn) -> Tier:
    low = draw(st.integers(0, 5))
    most = draw(st.integers(low, low + 8))
    floors = tuple(Hours(replicas=n) for n in draw(st.lists(st.integers(0, 12), max_size=2)))
    return Tier(
        name="t", cores=2, memory=1 << 30, queues=("q",), least=low, most=most, at_once=draw(st.integers(1, 4)),
        count=draw(st.sampled_from(["jobs", "work"])), slo_s=draw(st.floats(1, 600)), schedule=floors,
        forecast=draw(st.booleans()), idle_s=draw(st.none() | st.floats(0, 300)),
    )  # fmt: skip


@st.composite
def known(draw: st.DrawFn) -> Signals:
    ready = draw(st.integers(0, 12))
    times = st.floats(0, 2000)
    idle = tuple(draw(st.lists(times, max_size=ready)))
    demand = Demand(
        draw(st.integers(0, 60)),
        draw(times),
        draw(st.integers(0, 48)),
        draw(st.floats(0, 1e5)),
        draw(st.integers(0, 30)),
    )
    supply = Supply(
        ready, tuple(draw(st.lists(times, max_size=6))), draw(st.integers(0, 5)), idle, draw(st.floats(0, 300)),
        draw(st.sampled_from([UNBOUNDED, 0, 3, 9])),
    )  # fmt: skip
    room = draw(st.sampled_from([math.inf, 0.0, 1.0, 4.0]))
    return Signals(demand, supply, Past(NOW, draw(st.integers(0, 3))), room, draw(st.sampled_from([0.0, 0.6])))


@given(tiers(), known())
def test_the_target_is_inside_the_bounds(tier: Tier, signals: Signals) -> None:
    found = decide(tier, signals, NOW)
    assert found.target is not None and tier.least <= found.target <= tier.most


@given(tiers(), known())
def test_what_lives_never_exceeds_the_maximum_by_a_start(tier: Tier, signals: Signals) -> None:
    found = decide(tier, signals, NOW)
    assert found.live is not None and found.start >= 0
    assert found.start == 0 or found.live + found.start <= tier.most
    assert signals.supply.capacity is not None
    assert found.start == 0 or found.live + found.start <= signals.supply.capacity


@given(tiers(), known())
def test_only_idle_workers_are_asked_to_leave(tier: Tier, signals: Signals) -> None:
    found = decide(tier, signals, NOW)
    supply = signals.supply
    assert supply.idle_s is not None and supply.boot_s is not None
    idle_s = supply.boot_s if tier.idle_s is None else tier.idle_s
    assert found.drain <= sum(spent >= idle_s for spent in supply.idle_s)
    assert not (found.drain and found.start)
    if found.drain:  # what stays and serves is still as much as was wanted
        assert supply.ready is not None and supply.booting_s is not None and found.target is not None
        assert supply.ready + len(supply.booting_s) - found.give_up - found.drain >= found.target


@given(tiers(), known())
def test_below_the_minimum_it_raises_to_the_minimum(tier: Tier, signals: Signals) -> None:
    found = decide(tier, signals, NOW)
    assert found.live is not None and signals.supply.capacity is not None
    if found.live < tier.least:
        assert found.live + found.start >= min(tier.least, max(found.live, signals.supply.capacity))


@given(tiers(), known(), st.integers(0, 20), st.integers(0, 20))
def test_the_target_grows_with_queued_and_with_running(tier: Tier, s: Signals, queued: int, running: int) -> None:
    d = s.demand
    assert d.queued is not None and d.running is not None
    more = Demand(d.queued + queued, d.oldest_wait_s, d.running + running, d.work_s, d.forecast_slots)
    less, many = decide(tier, s, NOW), decide(tier, Signals(more, s.supply, s.past, s.room_hour, s.price_hour), NOW)
    assert less.target is not None and many.target is not None and less.target <= many.target


@given(tiers(), known())
def test_a_running_job_counts(tier: Tier, signals: Signals) -> None:
    found, running = decide(tier, signals, NOW), signals.demand.running
    assert found.target is not None and running is not None
    if signals.room_hour == math.inf:
        assert found.target >= min(tier.most, math.ceil(running / tier.at_once))


def lacking(signals: Signals, name: str) -> Signals:
    demand = {f: None if f == name else getattr(signals.demand, f) for f in Demand.__slots__}
    supply = {f: None if f == name else getattr(signals.supply, f) for f in Supply.__slots__}
    room = None if name == "room_hour" else signals.room_hour
    return Signals(Demand(**demand), Supply(**supply), signals.past, room, signals.price_hour)


SIGNALS = [*Demand.__slots__, *Supply.__slots__, "room_hour"]


@given(tiers(), known(), st.sampled_from(SIGNALS), st.floats(0, BLIND_S - 1))
def test_an_unknown_signal_never_changes_the_count(tier: Tier, signals: Signals, name: str, for_s: float) -> None:
    if tier.count == "jobs" and name in ("oldest_wait_s", "work_s"):
        return  # not needed there
    found = decide(tier, lacking(signals, name), NOW + for_s)
    assert (found.start, found.drain, found.give_up, found.target) == (0, 0, 0, None)
    assert found.alert and "unknown" in found.reason


@given(tiers(), known(), st.sampled_from(SIGNALS), st.floats(BLIND_S, 1e6))
def test_after_ten_minutes_unknown_queued_work_gets_the_maximum(
    tier: Tier, signals: Signals, name: str, for_s: float
) -> None:
    if tier.count == "jobs" and name in ("oldest_wait_s", "work_s"):
        return
    s = lacking(signals, name)
    found, supply = decide(tier, s, NOW + for_s), s.supply
    assert found.alert and found.drain == 0
    if None in (supply.ready, supply.booting_s, supply.draining, supply.capacity, s.room_hour) or not s.past.queued:
        assert found.start == 0
    else:
        assert found.live is not None and supply.capacity is not None
        assert found.start == 0 or found.live + found.start <= min(tier.most, supply.capacity)
        if s.room_hour == math.inf and supply.capacity == UNBOUNDED:
            assert found.live + found.start >= tier.most


@given(tiers(), known())
def test_the_same_signals_give_the_same_decision(tier: Tier, signals: Signals) -> None:
    assert decide(tier, signals, NOW) == decide(tier, signals, NOW)


def test_the_policy_reads_no_clock_and_draws_nothing() -> None:
    names = {n.split(".")[0] for n in vars(policy) if inspect.ismodule(vars(policy)[n])}
    assert names <= {"math", "annotations"}


@given(tiers(), known(), st.integers(2, 12))
def test_constant_signals_never_make_it_flip(tier: Tier, signals: Signals, ticks: int) -> None:
    """The decision is carried out, starts come up at once, the idle leave; the demand stays: never up after down."""
    demand, supply = signals.demand, signals.supply
    assert supply.ready is not None and supply.boot_s is not None and supply.idle_s is not None
    ready, idle, draining, turns = supply.ready, len(supply.idle_s), 0, []
    for _ in range(ticks):
        told = Supply(ready, (), draining, (1e6,) * idle, supply.boot_s, supply.capacity)
        found = decide(tier, Signals(demand, told, signals.past, signals.room_hour, signals.price_hour), NOW)
        turns.append((found.start > 0) - (found.drain > 0))
        draining = found.drain
        ready += found.start - found.drain
        idle -= found.drain
    moves = [t for t in turns if t]
    assert len(set(moves)) <= 1


@given(tiers(), known())
def test_a_floor_never_lowers(tier: Tier, signals: Signals) -> None:
    bare = tier.model_copy(update={"schedule": (), "forecast": False})
    with_floor, without = decide(tier, signals, NOW), decide(bare, signals, NOW)
    assert with_floor.target is not None and without.target is not None and with_floor.target >= without.target


def plain(**more: object) -> Tier:
    return Tier(name="heavy", cores=16, memory=1 << 35, queues=("q",), most=4, **more)  # type: ignore[arg-type]


def seen(queued: int = 0, running: int = 0, ready: int = 0, **more: object) -> Signals:
    room = more.pop("room_hour", math.inf)
    price = more.pop("price_hour", 0.0)
    work = more.pop("work_s", 0.0)
    wait = more.pop("oldest_wait_s", 0.0)
    supply = {"booting_s": (), "draining": 0, "idle_s": (), "boot_s": 120.0, "capacity": UNBOUNDED} | more
    return Signals(Demand(queued, wait, running, work, 0), Supply(ready, **supply), Past(NOW), room, price)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signals", "line"),
    [
        (seen(), "heavy: replicas=0 running=0 queued=0 -> 0 (idle)"),
        (seen(3, 1, 1), "heavy: replicas=1 running=1 queued=3 -> 4 (work)"),
        (seen(9, 1, 1), "heavy: replicas=1 running=1 queued=9 -> 4 (at the maximum)"),
        (seen(0, 1, 2, idle_s=(500.0,)), "heavy: replicas=2 running=1 queued=0 -> 1 (1 idle may leave)"),
        (seen(0, 1, 2, idle_s=(5.0,)), "heavy: replicas=2 running=1 queued=0 -> 1 (none has been idle long enough)"),
        (
            seen(2, 0, 0, capacity=1),
            "heavy: replicas=0 running=0 queued=2 -> 2 (2 wanted, and no room for more than 1)",
        ),
        (seen(3, 0, 0, room_hour=1.7, price_hour=0.8), "heavy: replicas=0 running=0 queued=3 -> 2 (cost ceiling)"),
        (seen(1, 0, 0, booting_s=(250.0,)), "heavy: replicas=0 running=0 queued=1 -> 1 (work; 1 failed to boot)"),
    ],
)
def test_each_decision_says_why(signals: Signals, line: str) -> None:
    assert decide(plain(), signals, NOW).line() == line


def test_draining_replicas_count_as_living() -> None:
    assert decide(plain(), seen(4, 0, 2, draining=2), NOW).start == 0
    assert decide(plain(), seen(4, 0, 2, draining=1), NOW).start == 1


def test_many_short_jobs_become_slots_by_their_work() -> None:
    tier = plain(count="work", slo_s=60.0)
    assert decide(tier, seen(100, 0, 0, boot_s=10.0, work_s=90.0), NOW).target == 2  # 90 s of work in 50 s
    assert decide(tier, seen(100, 0, 0, boot_s=10.0, work_s=90.0, oldest_wait_s=35.0), NOW).target == 4  # ... in 15 s
    assert decide(tier, seen(100, 0, 0, boot_s=10.0, work_s=0.0), NOW).target == 1
    assert decide(tier, seen(1, 0, 0, boot_s=10.0, work_s=900.0), NOW).target == 1  # one job takes one slot


def test_a_schedule_holds_at_its_hours_on_its_days_where_it_is() -> None:
    tier = plain(schedule=(Hours(days="mon-fri", hours=(8, 18), replicas=2),), zone="Europe/Berlin")
    monday = 4 * 86_400.0  # Unix time of a Monday, 01:00 in Berlin
    assert [scheduled(tier, monday + h * 3600) for h in (6.9, 7, 16.9, 17)] == [0, 2, 2, 0]
    assert scheduled(tier, monday - 86_400 + 9 * 3600) == 0
    assert Hours(days="sat-mon,wed", replicas=1).weekdays() == {5, 6, 0, 2}


def test_the_forecast_is_the_median_of_the_busiest_moments_of_earlier_days() -> None:
    seen = Busiest()
    assert seen.slots(NOW) == 0
    for day, slots in ((1, (0, 3, 1)), (2, (5,)), (3, (1, 0))):
        for one in slots:
            seen.see(NOW - day * 86_400, one)
            seen.see(NOW - day * 86_400 + 7200, 50)  # of another hour
    seen.see(NOW, 9)  # today says nothing of today
    assert seen.slots(NOW) == 3
    for day in range(4, 60):
        seen.see(NOW + day * 86_400, 1)
    assert seen.slots(NOW + 60 * 86_400) == 1 and len(seen.hours) < 24 * 29


def test_the_past_is_the_last_moment_at_which_all_was_known() -> None:
    past = remember(Past(), Demand(), False, 5.0)
    assert past == Past(5.0, 0)
    assert remember(past, Demand(), False, 9.0) == past
    assert remember(past, Demand(queued=7), True, 11.0) == Past(11.0, 7)
