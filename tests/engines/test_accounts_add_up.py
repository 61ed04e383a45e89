"""Spans and attempts explain a slot's whole time, whatever the order of events: simulated, so that nothing is noise."""

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engines.processes.accounts import NOTE_NS, Accounts
from millrace.run.task import Measures, Outcome, Span
from millrace.testing.accounts import explain

MS = 1_000_000
SLOTS = 3

steps = st.lists(
    st.tuples(
        st.integers(0, 30 * MS),  # the driver is busy for so long
        st.lists(st.integers(1000, 40 * MS), max_size=SLOTS),  # and then gives tasks of these lengths to idle slots
        st.sampled_from(["starved", "tail"]),
        st.integers(0, 50 * MS),  # and waits for at most so long
        st.sampled_from(["", "", "", "", "dies", "crashes"]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(steps, st.lists(st.integers(0, 20 * MS), min_size=SLOTS, max_size=SLOTS))
def test_every_moment_is_an_attempt_a_span_or_a_short_gap(script: list, ups: list[int]) -> None:
    accounts = Accounts(SLOTS)
    begin = now = 10**12
    accounts.open(now)
    running: dict[int, tuple[int, int, int]] = {}  # slot -> sent, began, ends
    coming = {slot: begin + up for slot, up in enumerate(ups)}
    found: list[Outcome] = []
    turns = 4  # each may leave a gap that is too short to tell
    for busy_ns, lengths, why, patience_ns, fate in script:
        now += busy_ns
        for slot, length in zip(
            [s for s in range(SLOTS) if s not in running and s not in coming], lengths, strict=False
        ):
            accounts.fed(slot, now)
            running[slot] = now, now + 50_000, now + 50_000 + length
            turns += 1
        accounts.waits(now, why)
        until = min([now + patience_ns, *(ends for _, _, ends in running.values()), *coming.values()])
        now = max(now, until)
        accounts.woke(now)
        if fate and running:
            slot, (_, began, _) = min(running.items())
            if began < now:
                del running[slot]
                accounts.died(slot, began, now, "lost", "k", fate == "crashes")
                if fate == "crashes":
                    found.append(_outcome(slot, began, now))
                coming[slot] = now + 5 * MS
                turns += 1
        for slot, at in list(coming.items()):
            if at <= now:
                del coming[slot]
                accounts.up(slot, at, busy=False)
        for slot, (sent, began, ends) in list(running.items()):
            if ends <= now:
                del running[slot]
                accounts.ran(slot, began, ends, sent)
                accounts.dry(slot)
                found.append(_outcome(slot, began, ends))
    accounts.close(now)
    spans = accounts.take()
    parts = explain(found, spans, SLOTS, begin, now, latency_ns=turns * NOTE_NS // SLOTS)
    assert sum(parts.values()) == SLOTS * (now - begin)
    assert all(span.from_ns < span.to_ns for span in spans)


def _outcome(slot: int, began: int, ended: int) -> Outcome:
    return Outcome("k", 1, None, Measures(slot, 1, 1, began, began, ended))


def _told(accounts: Accounts) -> list[Span]:
    return accounts.take()


def test_a_wait_for_the_source_is_starved_and_at_its_end_tail() -> None:
    accounts = Accounts(1)
    accounts.open(0)
    accounts.up(0, 2 * MS, busy=False)
    accounts.waits(3 * MS, "starved")
    accounts.woke(20 * MS)
    accounts.waits(20 * MS + 1000, "tail")
    accounts.woke(50 * MS)
    accounts.close(50 * MS + 1000)
    assert _told(accounts) == [
        Span(0, "start", 0, 2 * MS),
        Span(0, "starved", 2 * MS, 20 * MS + 1000),
        Span(0, "tail", 20 * MS + 1000, 50 * MS + 1000),
    ]


def test_a_slow_consumer_is_the_driver() -> None:
    accounts = Accounts(1)
    accounts.open(0)
    accounts.up(0, 1 * MS, busy=True)
    accounts.ran(0, 2 * MS, 10 * MS, 0)
    accounts.dry(0)
    accounts.fed(0, 300 * MS)
    accounts.ran(0, 300 * MS + 100, 310 * MS, 300 * MS)
    accounts.close(310 * MS + 5)
    assert _told(accounts) == [
        Span(0, "start", 0, 2 * MS),
        Span(0, "driver", 10 * MS, 300 * MS),
        Span(0, "stopped", 310 * MS, 310 * MS + 5),
    ]


def test_a_worker_that_waits_to_send_waits_for_the_driver() -> None:
    accounts = Accounts(1)
    accounts.open(0)
    accounts.up(0, 1 * MS, busy=True)
    accounts.ran(0, 2 * MS, 10 * MS, 0)
    accounts.ran(0, 60 * MS, 70 * MS, 0)  # the next message was in its pipe all the time
    assert _told(accounts)[-1] == Span(0, "driver", 10 * MS, 60 * MS)


def test_what_nobody_collects_does_not_grow_for_ever() -> None:
    accounts = Accounts(1)
    accounts.open(0)
    for i in range(200_000):
        accounts.stopped(0, 10 * i * MS, (10 * i + 5) * MS, "k")
    assert len(_told(accounts)) <= 1 << 16
