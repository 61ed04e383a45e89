"""Each rule speaks about a run that has its illness, with figures and a replayed gain, and is silent about one that has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ledgers import MS, attempt, busy_run, span, written

from millrace.diagnose import replay
from millrace.diagnose.case import Finding, case_of
from millrace.diagnose.findings import RULES, findings_of

SLOTS = 4


def rounds(count: int, took: float = 100.0, gap: float = 0.0, cpu: float = 0.97, **more: Any) -> list[dict[str, Any]]:
    """`count` attempts a slot, all of one length, with a gap before each (the message was sent in it)."""
    sent = more.pop("sent", None)
    rows = []
    for i in range(count):
        for slot in range(SLOTS):
            begin = i * (took + gap) + gap
            parts = {name: value(i, slot) if callable(value) else value for name, value in more.items()}
            parts.setdefault("key", f"{i}/{slot}")
            rows.append(attempt(slot, begin - gap if sent else begin, begin, begin + took, cpu=cpu * took, **parts))
    return rows


def named(
    path: Path, rule: str, attempts: Any, spans: Any = (), end: float | None = None, **said: Any
) -> Finding | None:
    over = max((a["measures"].ended_ns - 5_000_000 * MS) / MS for a in attempts)
    told = findings_of(written(path, said.pop("slots", SLOTS), attempts, spans, end or over, **said))
    return {f.rule: f for f in told}.get(rule)


def test_a_healthy_run_has_no_finding(tmp_path):
    assert findings_of(written(tmp_path / "l", SLOTS, rounds(20), (), 2000, throttled_ns=0)) == ()


def test_a_tail(tmp_path):
    rows = [*rounds(5), attempt(0, 500, 500, 900, cpu=390, key="long")]
    spans = [span(s, "tail", 500, 900) for s in (1, 2, 3)]
    plan = {"tasks": 21, "block": 1000, "slots": 4, "worker_bytes": 1, "driver_bytes": 1}
    found = named(tmp_path / "l", "tail", rows, spans, plan=plan)
    assert found is not None and found.share == pytest.approx(3 * 400 / 3600)
    assert found.gain == pytest.approx(0.30, abs=0.06) and "the last task" in found.evidence
    found = named(tmp_path / "m", "tail", [*rounds(5), *rounds(6)[20:]], (), 600)
    assert found is None


def test_a_tail_that_every_cut_makes_longer_has_an_advice_too(tmp_path, monkeypatch):
    rows = [*rounds(5), attempt(0, 500, 500, 900, cpu=390, key="long")]
    spans = [span(s, "tail", 500, 900) for s in (1, 2, 3)]
    plan = {"tasks": 21, "block": 1000, "slots": 4, "worker_bytes": 1, "driver_bytes": 1}
    monkeypatch.setattr(replay, "gain", lambda scenario, changed: -0.1)  # a piece may cost more than it saves
    found = named(tmp_path / "l", "tail", rows, spans, plan=plan)
    assert found is not None and found.gain is None and "nothing is won" in found.advice


def test_a_tail_of_tasks_that_come_in_any_order_is_cut(tmp_path):
    rows = [*rounds(3, 300), attempt(0, 900, 900, 1200, cpu=290, key="x")]
    spans = [span(s, "tail", 900, 1200) for s in (1, 2, 3)]
    plan = {"tasks": 13, "block": 1000, "slots": 4, "worker_bytes": 1, "driver_bytes": 1}
    found = named(tmp_path / "l", "tail", rows, spans, plan=plan)
    assert found is not None and found.gain == pytest.approx(0.1875, abs=0.03)
    assert "blocks of" in found.advice and "instead of 1,000" in found.advice
    assert found.line().endswith("wall (replayed)")


def test_a_source_that_has_nothing(tmp_path):
    rows, spans = [], []
    for i in range(10):  # rounds of four; the next is asked for when the slowest is over
        for slot in range(SLOTS):
            took = 100 if slot == 0 else 50
            rows.append(attempt(slot, 100 * i, 100 * i, 100 * i + took, cpu=took, key=f"{i}/{slot}"))
            if slot:
                spans.append(span(slot, "starved", 100 * i + 50, 100 * i + 100))
    found = named(tmp_path / "l", "starved source", rows, spans)
    assert found is not None and found.share == pytest.approx(0.375) and found.gain == pytest.approx(0.35, abs=0.02)
    assert "busy" in found.evidence


def test_a_driver_that_keeps_slots_waiting(tmp_path):
    rows = rounds(10, 100, gap=50)
    spans = [span(s, "driver", 150 * i, 150 * i + 50) for i in range(10) for s in range(SLOTS)]
    found = named(tmp_path / "l", "driver-bound", rows, spans, parts={"consume_ns": 450 * MS, "put_ns": 40 * MS})
    assert found is not None and found.gain == pytest.approx(1 / 3, abs=0.02)
    assert "consume 450ms" in found.evidence.replace(" ms", "ms") and "two outcomes" in found.advice


def test_workers_that_take_long_to_start(tmp_path):
    late = [attempt(s, 400, 400, 900, cpu=490, key=str(s)) for s in range(SLOTS)]
    found = named(tmp_path / "l", "worker start", late, [span(s, "start", 0, 400) for s in range(SLOTS)])
    assert found is not None and found.gain == pytest.approx(4 / 9, abs=0.01)
    late = [attempt(s, 400, 400, 9000, cpu=8500, key=str(s)) for s in range(SLOTS)]
    assert named(tmp_path / "m", "worker start", late, [span(s, "start", 0, 400) for s in range(SLOTS)]) is None


def test_attempts_that_were_lost(tmp_path):
    rows = rounds(10)
    rows[10] = attempt(2, 200, 200, 300, state="memory", key="2/2")
    rows.append(attempt(0, 1100, 1100, 1200, cpu=97, key="z"))
    found = named(tmp_path / "l", "lost attempts", rows, [span(0, "lost", 1000, 1100, "z")])
    assert found is not None and found.figures["memory"] == 1 and found.figures["attempts"] == 2
    assert found.gain is not None and found.gain > 0 and "--memory" in found.advice


def test_memory_that_carries_fewer_slots_than_there_are_cores(tmp_path):
    plan = {"tasks": 80, "block": 1, "slots": 4, "worker_bytes": 300 << 20, "driver_bytes": 100 << 20}
    ledger = written(tmp_path / "l", SLOTS, rounds(20), (), 2000, plan=plan, private_bytes=1300 << 20)
    assert "memory, few slots" not in {f.rule for f in findings_of(ledger)}
    ledger.header["budget"]["cores"] = 8
    found = {f.rule: f for f in findings_of(ledger)}["memory, few slots"]
    assert found.gain == pytest.approx(0.5, abs=0.02) and "2.45GiB" in found.advice


def test_memory_that_is_nearly_used_up(tmp_path):
    big = rounds(5, sizes=(0, 0, 240))
    assert named(tmp_path / "l", "memory near budget", big, private_bytes=1000) is not None
    assert named(tmp_path / "m", "memory near budget", big, private_bytes=2000) is None


def test_tasks_that_are_too_small(tmp_path):
    small = rounds(200, 1.0, gap=0.5, sent=True)
    found = named(tmp_path / "l", "too small tasks", small)
    assert found is not None and found.gain == pytest.approx(0.31, abs=0.03) and "at once" in found.advice
    assert named(tmp_path / "m", "too small tasks", rounds(200, 1.0, gap=0.01, sent=True)) is None


def test_large_values(tmp_path):
    large = rounds(20, 100, write=30.0, sizes=(100, 50 << 20, 0))
    found = named(tmp_path / "l", "large payloads", large)
    assert found is not None and found.gain == pytest.approx(0.3, abs=0.01) and "keep=True" in found.advice
    assert named(tmp_path / "m", "large payloads", rounds(20, 100, write=30.0, sizes=(100, 5 << 10, 0))) is None


def test_an_input_that_goes_with_every_task(tmp_path):
    found = named(tmp_path / "l", "repeated input", rounds(20, 100, unpack=20.0, sizes=(8 << 20, 10, 0)))
    assert found is not None and found.gain == pytest.approx(0.2, abs=0.01) and "share" in found.advice
    varied = rounds(20, 100, unpack=20.0, sizes=lambda i, slot: ((i + 1) << 20, 10, 0))
    assert named(tmp_path / "m", "repeated input", varied) is None


def test_imports_within_tasks(tmp_path):
    found = named(
        tmp_path / "l", "deserialising and imports", rounds(10, 100, unpack=lambda i, s: 80.0 if i < 3 else 0.0)
    )
    assert found is not None and found.gain == pytest.approx(0.24, abs=0.01) and "import" in found.evidence
    warm = named(
        tmp_path / "n", "deserialising and imports", rounds(10, 100, enter=lambda i, s: 80.0 if i < 3 else 0.0)
    )
    assert warm is not None and "warm" in warm.evidence
    assert named(tmp_path / "m", "deserialising and imports", rounds(10, 100, unpack=1.0)) is None


def test_a_quota_that_throttles(tmp_path):
    held = rounds(10, 100, cpu=0.6)
    found = named(tmp_path / "l", "throttled by quota", held, throttled_ns=1200 * MS)
    assert found is not None and found.gain == pytest.approx(0.3, abs=0.02) and "quota" in found.advice
    assert named(tmp_path / "m", "throttled by quota", held, throttled_ns=None) is None
    assert named(tmp_path / "n", "throttled by quota", held, throttled_ns=10 * MS) is None


def test_a_quota_that_throttles_some_tasks_is_taken_off_those(tmp_path):
    """One slot of four is held back for half of its time: without that, it takes a task from the others."""
    held = rounds(10, 100, cpu=0.5, throttled=lambda i, slot: 50.0 if slot == 0 else 0.0)
    free = [row for row in rounds(10, 100) if row["measures"].worker]
    ill = [row for row in held if row["measures"].worker == 0]
    found = named(tmp_path / "l", "throttled by quota", [*ill, *free], throttled_ns=500 * MS)
    assert found is not None and found.share == pytest.approx(0.125, abs=0.01)
    assert found.gain == pytest.approx(0.1, abs=0.01)
    slow = [attempt(0, 0, 0, 4000, cpu=2000, throttled=1900)]
    found = named(tmp_path / "m", "throttled by quota", [*slow, *free], throttled_ns=1900 * MS)
    assert found is not None and found.gain == pytest.approx(1900 / 4000, abs=0.02)


def test_cores_that_others_use(tmp_path):
    found = named(tmp_path / "l", "cores in others' use", rounds(20, 100, cpu=0.5), strain=0.8)
    assert found is not None and found.figures["pressure"] == 0.8
    assert named(tmp_path / "m", "cores in others' use", rounds(20, 100, cpu=0.5), strain=0.01) is None
    assert named(tmp_path / "n", "cores in others' use", rounds(20, 100, cpu=0.97), strain=0.8) is None


def test_tasks_that_wait(tmp_path):
    found = named(tmp_path / "l", "off-CPU waits", rounds(20, 100, cpu=0.5))
    assert found is not None and found.figures["slots"] == 8 and found.gain == pytest.approx(0.5, abs=0.02)
    assert named(tmp_path / "m", "off-CPU waits", rounds(20, 100, cpu=0.9)) is None


def test_a_collector_that_works_hard(tmp_path):
    found = named(tmp_path / "l", "collector", rounds(10, 100, gc=25.0))
    assert found is not None and found.gain == pytest.approx(0.25, abs=0.01) and "gc.freeze" in found.advice
    assert named(tmp_path / "m", "collector", rounds(10, 100, gc=2.0)) is None


def test_threads_within_tasks(tmp_path):
    assert named(tmp_path / "l", "threads in tasks", rounds(10, 100, cpu=3.2)) is not None
    assert named(tmp_path / "m", "threads in tasks", rounds(10, 100, cpu=1.05)) is None


def test_work_that_is_done_twice(tmp_path):
    found = named(tmp_path / "l", "duplicate tasks", rounds(10, key=lambda i, s: f"{i // 2}/{s}"))
    assert found is not None and found.gain == pytest.approx(0.5, abs=0.01) and found.figures["duplicates"] == 20
    assert named(tmp_path / "m", "duplicate tasks", rounds(10)) is None


def test_groups_that_are_scattered(tmp_path):
    def group(i: int, slot: int) -> int:
        return i

    found = named(tmp_path / "l", "groups split over workers", rounds(10, read=30.0, group=group))
    assert found is not None and found.figures == {"split": 10, "groups": 10}
    together = rounds(10, read=30.0, group=lambda i, slot: slot)
    assert named(tmp_path / "m", "groups split over workers", together) is None
    entered = rounds(10, enter=lambda i, slot: 0.0 if i else 900.0, group=group)  # once a worker, wherever a group runs
    assert named(tmp_path / "n", "groups split over workers", entered) is None


def test_trials_that_all_have_their_replicates(tmp_path):
    def replicates(each: Any) -> list[dict[str, Any]]:
        rows, places = [], [(trial, seed) for trial in range(6) for seed in range(each(trial))]
        for i, (trial, seed) in enumerate(places):
            rows.append(attempt(i % 4, 100 * (i // 4), 100 * (i // 4), 100 * (i // 4) + 100, cpu=97, key=f"{trial}/{seed}",
                                name="simulation", group=trial))  # fmt: skip
        return rows

    finish = [attempt(0, 900, 900, 1000, cpu=97, key=f"fresh {i}", name="simulation") for i in range(3)]
    found = named(tmp_path / "l", "fixed replicates", [*replicates(lambda t: 5), *finish], analysis="calibrate")
    assert found is not None and found.figures == {"replicates": 5, "trials": 6} and "stop_early" in found.advice
    assert named(tmp_path / "m", "fixed replicates", replicates(lambda t: 5 - t % 3), analysis="calibrate") is None
    assert named(tmp_path / "n", "fixed replicates", replicates(lambda t: 5)) is None


def test_findings_come_by_gain_and_every_rule_takes_every_run(tmp_path):
    for number, history in enumerate((
        busy_run(tmp_path / "a", 4, 200), written(tmp_path / "b", 0, (), (), 30), written(tmp_path / "c", 2, (), (), None),
        written(tmp_path / "d", 1, [attempt(0, 0, 0, 0)], (), 0),
    )):  # fmt: skip
        case = case_of(history)
        for rule in RULES:
            found = rule(case)
            assert found is None or found.evidence, (number, rule)
        gains = [f.gain or 0.0 for f in findings_of(history)]
        assert gains == sorted(gains, reverse=True)
