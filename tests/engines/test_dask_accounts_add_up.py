"""Every moment of a slot on a Dask cluster is an attempt or a span, whatever the order in which replies come."""

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engines.dask.accounts import Accounts
from millrace.run.task import Measures, Outcome, Span
from millrace.testing.accounts import explain

MS = 1_000_000

messages = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(1, 60)), min_size=1, max_size=20
)  # ms between the last end and sending, on the way, and at work


@settings(deadline=None, max_examples=300)
@given(st.lists(messages, min_size=1, max_size=3), st.randoms(), st.lists(st.integers(0, 3000), max_size=30))
def test_attempts_and_spans_are_all_of_the_time(slots: list, random: object, waits: list[int]) -> None:
    accounts = Accounts()
    accounts.grow(len(slots))
    begin = 10**12
    accounts.open(begin)
    now = begin
    for at, why in zip(sorted(waits), ["starved", "driver", "engine", "tail"] * 8, strict=False):
        now = begin + at * MS
        accounts.does(why, now)
    pieces, last = [], begin
    for slot, told in enumerate(slots):
        at = begin
        for before, way, work in told:
            sent = at + before * MS
            began = sent + way * MS
            at = began + work * MS
            pieces.append((slot, began, at, sent))
        last = max(last, at)
    random.shuffle(pieces)  # type: ignore[attr-defined]
    for piece in pieces:
        accounts.ran(*piece)
    accounts.close(last, 0)
    spans = accounts.take()
    found = [Outcome("k", 1, None, Measures(slot, 1, 1, sent, began, end)) for slot, began, end, sent in pieces]
    parts = explain(found, spans, len(slots), begin, last, latency_ns=0)
    assert parts["gap"] == 0
    assert sum(parts.values()) == len(slots) * (last - begin)


def test_before_it_was_sent_the_driver_and_afterwards_the_way() -> None:
    accounts = Accounts()
    accounts.open(0)
    accounts.grow(1)
    accounts.ran(0, 2 * MS, 10 * MS, 1 * MS)
    accounts.does("starved", 12 * MS)
    accounts.does("driver", 30 * MS)
    accounts.ran(0, 50 * MS, 60 * MS, 40 * MS)
    accounts.does("tail", 61 * MS)
    accounts.close(70 * MS, 0)
    assert accounts.take() == [
        Span(0, "start", 0, 2 * MS),
        Span(0, "driver", 10 * MS, 12 * MS),
        Span(0, "starved", 12 * MS, 30 * MS),
        Span(0, "driver", 30 * MS, 40 * MS),
        Span(0, "engine", 40 * MS, 50 * MS),
        Span(0, "driver", 60 * MS, 61 * MS),
        Span(0, "tail", 61 * MS, 70 * MS),
    ]
