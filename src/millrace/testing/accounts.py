"""Whether attempts and spans explain the time of every slot: the check behind "core-seconds that add up"."""

from __future__ import annotations

from collections.abc import Iterable

from millrace.run.task import Outcome, Span

OVERLAP_NS = 200_000
"""Times of one slot come from two processes, each of which reads the clock before or after the event."""
SHARE = 0.02
LATENCY_NS = 20_000_000


def explain(
    found: Iterable[Outcome],
    spans: Iterable[Span],
    slots: int,
    from_ns: int,
    to_ns: int,
    latency_ns: int = LATENCY_NS,
) -> dict[str, int]:
    """Nanoseconds by kind over all slots (`attempt`, `gap`, and the spans' kinds), which add up to slots x wall.

    AssertionError when two things claim the same time, lie outside of the stream, or leave more than 2 % (and
    `latency_ns` a slot) to nobody.
    """
    pieces: dict[int, list[tuple[int, int, str]]] = {slot: [] for slot in range(slots)}
    for outcome in found:
        m = outcome.measures
        if m.ended_ns > m.started_ns:
            pieces[m.worker].append((m.started_ns, m.ended_ns, "attempt"))
    for span in spans:
        for slot in [span.slot] if span.slot >= 0 else range(slots):
            pieces[slot].append((span.from_ns, span.to_ns, span.kind))
    parts: dict[str, int] = {"gap": 0}
    for slot, told in pieces.items():
        at = from_ns
        for start, end, kind in sorted(told):
            assert start >= at - OVERLAP_NS, (
                f"slot {slot}: {kind} overlaps what is before it by {(at - start) / 1e6:.3f} ms"
            )
            assert end <= to_ns + OVERLAP_NS, f"slot {slot}: {kind} ends {(end - to_ns) / 1e6:.3f} ms after the stream"
            parts["gap"] += max(0, start - at)
            parts[kind] = parts.get(kind, 0) + max(0, end - max(start, at))
            at = max(at, end)
        parts["gap"] += max(0, to_ns - at)
    whole = slots * (to_ns - from_ns)
    assert parts["gap"] <= SHARE * whole + latency_ns * slots, (
        f"{parts['gap'] / whole:.1%} of the slots' time is not explained: "
        f"{ {kind: round(ns / 1e6, 1) for kind, ns in parts.items()} } ms"
    )
    return parts
