"""slots x wall is split without rest, without overlap, and as a naive labelling of every millisecond says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import MS, attempt, busy_run, span, written

from millrace.diagnose.accounting import PARTS, account
from millrace.diagnose.timeline import KINDS, lay_out, shares
from millrace.diagnose.words import summary
from millrace.run.ledger import STATES

SPAN_KINDS = ("start", "starved", "tail", "driver", "lost", "stopped")
FAR = 120


# -- an oracle: every millisecond gets its label by the rules as they are written down ---------------------------
def naive_labels(slots: int, attempts: list[dict[str, Any]], spans: list[Any], end: int | None) -> list[list[str]]:
    rows = [
        (m.worker, m.sent_ns, m.started_ns, m.ended_ns, a["state"])
        for a in attempts
        if (m := a["measures"]).worker >= 0
    ]
    rows = [(w, *((t - 5_000_000 * MS) // MS for t in times), state) for w, *times, state in rows]
    told = [(s.slot, s.kind, (s.from_ns - 5_000_000 * MS) // MS, (s.to_ns - 5_000_000 * MS) // MS) for s in spans]
    spanned = max((to for *_, to in told), default=0)
    over = end if end is not None else max([0, spanned, *(r[3] for r in rows)])
    inside = lambda t, low, high: low <= t < high  # noqa: E731
    flying = [(min(sent, begin), to) for _, sent, begin, to, _ in rows]
    flying += [(low, high) for _, kind, low, high in told if kind in ("start", "lost", "stopped")]
    labels = []
    for slot in range(slots):
        clipped, free = [], 0
        for _, sent, begin, to, state in sorted((r for r in rows if r[0] == slot), key=lambda r: r[2]):
            begin, to = max(begin, free), min(max(to, free), over)
            begin = min(begin, to)
            clipped.append((free, sent, begin, to, state))
            free = to
        own = [(kind, low, high) for s, kind, low, high in told if s == slot]
        last = max([0, free, *(min(high, over) for _, low, high in own if low < over and low < high)])
        line = []
        for t in range(over):
            label = "unexplained"
            if end is None and t >= spanned:
                label = "cut"
            if not any(inside(t, *pair) for pair in flying):
                label = "driver"
            if end is None and t >= last:
                label = "cut"
            if any(s == -1 and kind == "driver" and inside(t, low, high) for s, kind, low, high in told):
                label = "driver"
            if any(kind == "driver" and inside(t, low, high) for kind, low, high in own):
                label = "driver"
            if any(sent > idle and inside(t, sent, begin) for idle, sent, begin, _, _ in clipped):
                label = "transfer"
            for wanted in ("starved", "tail", "start", "stopped", "lost"):
                if any(kind == wanted and inside(t, low, high) for kind, low, high in own):
                    label = wanted
            for _, _, begin, to, state in clipped:
                if inside(t, begin, to):
                    label = {"cancelled": "stopped", "done": "task", "raised": "task"}.get(state, "lost")
            line.append(label)
        gap = 0
        for t, label in enumerate(line):
            gap = gap + 1 if label == "unexplained" else 0
            if 0 < gap <= 20:
                line[t] = "engine"
        labels.append(line)
    return labels


moments = st.integers(0, FAR)
made_attempts = st.lists(
    st.builds(
        lambda slot, times, state, cpu, parts: attempt(
            slot, *sorted(times), state=state, cpu=cpu, unpack=parts[0], enter=parts[1], read=parts[2], write=parts[3]
        ),
        st.integers(0, 2), st.tuples(moments, moments, moments),
        st.sampled_from([s for s in STATES if s != "cached"]), st.integers(0, 80), st.tuples(*[st.integers(0, 30)] * 4),
    ),
    max_size=12,
)  # fmt: skip
made_spans = st.lists(
    st.builds(
        lambda slot, kind, ends: span(slot if kind == "driver" else max(0, slot), kind, *sorted(ends)),
        st.integers(-1, 2), st.sampled_from(SPAN_KINDS), st.tuples(moments, moments),
    ),
    max_size=10,
)  # fmt: skip
ends = st.one_of(st.none(), st.integers(0, FAR + 40))


@settings(deadline=None, max_examples=250)
@given(made_attempts, made_spans, ends)
def test_every_moment_has_the_label_that_the_rules_give_it(tmp_path_factory, attempts, spans, end):
    history = written(tmp_path_factory.mktemp("l") / "l.jsonl", 3, attempts, spans, end)
    timeline = lay_out(history)
    expected = naive_labels(3, attempts, spans, end)
    assert [
        [
            KINDS[code]
            for code, ms in zip(lane.labels, (lane.edges[1:] - lane.edges[:-1]) // MS, strict=True)
            for _ in range(ms)
        ]
        for lane in timeline.lanes
    ] == expected


@settings(deadline=None, max_examples=250)
@given(made_attempts, made_spans, ends, st.one_of(st.none(), st.integers(0, 10**9)))
def test_parts_add_up_exactly_and_none_is_negative(tmp_path_factory, attempts, spans, end, throttled_ns):
    history = written(tmp_path_factory.mktemp("l") / "l.jsonl", 3, attempts, spans, end, throttled_ns=throttled_ns)
    told = account(history)
    assert set(told.parts_ns) == set(PARTS)
    assert sum(told.parts_ns.values()) == told.core_ns == 3 * told.wall_ns
    assert min(told.parts_ns.values()) >= 0
    assert 0 <= told.efficiency <= 1
    mixed = shares(lay_out(history), 7)
    if told.wall_ns:
        assert mixed.sum(axis=1) == pytest.approx(1)
        task = sum(lane.total_ns("task") for lane in lay_out(history).lanes) / told.core_ns
        assert mixed[:, KINDS.index("task")].mean() == pytest.approx(task)


def test_a_run_that_is_known_by_heart_is_told_so(tmp_path):
    attempts = [
        attempt(
            0, 100, 200, 300, cpu=70, unpack=5, enter=15, read=10, write=10
        ),  # 60 of 100 are the analysis, 40 on CPU
        attempt(0, 290, 310, 400, cpu=90),
        attempt(1, 230, 250, 400, cpu=150, key="b"),
        attempt(1, 405, 410, 450, state="memory", key="c"),
        attempt(0, 0, 0, 0, state="cached", key="d") | {"measures": attempt(-1, 0, 0, 0)["measures"]},
    ]
    spans = [
        span(0, "start", 50, 200), span(1, "start", 50, 220), span(1, "starved", 220, 230),
        span(0, "driver", 400, 500), span(1, "lost", 450, 480, "e"), span(1, "tail", 480, 500),
    ]  # fmt: skip
    parts = {"put_ns": 7 * MS}
    told = account(written(tmp_path / "l", 2, attempts, spans, 540, parts=parts, throttled_ns=8 * MS, peak_bytes=1000))
    assert {part: ns / MS for part, ns in told.parts_ns.items() if ns} == {
        "on_cpu": 40 + 90 + 150,
        "off_cpu": 20 - 8,
        "throttled": 8,
        "load": 20,
        "read": 10,
        "write": 10,
        "start": 150 + 170,
        "starved": 10,
        "transfer": 20 + 5,
        "engine": 10,
        "driver": 2 * 50 + 100 + 5 + 2 * 40,  # from 400 to 405 nothing was in flight
        "lost": 40 + 30,
        "tail": 20,
    }
    assert told.outcomes == {"done": 3, "cached": 1, "memory": 1}
    assert told.lost_attempts == 2
    assert told.finished == 4
    assert told.driver_ns == {"put": 7 * MS}
    assert told.ideal_ns == 190 * MS  # 100 and 90 on one slot, 150 on the other
    assert told.rates()["per_minute"] == pytest.approx(4 * 60 / 0.54)


def test_what_attempts_tell_of_a_quota_counts_and_no_more_than_they_waited(tmp_path):
    attempts = [
        attempt(0, 0, 0, 100, cpu=40, throttled=50),
        attempt(0, 100, 100, 200, cpu=95, throttled=30, host="far"),  # of 5 ms that it waited
        attempt(1, 0, 0, 200, cpu=200),
    ]
    told = account(written(tmp_path / "l", 2, attempts, (), 200, throttled_ns=500 * MS))
    assert told.parts_ns["throttled"] == 55 * MS and told.parts_ns["off_cpu"] == 10 * MS
    assert told.tasks[0].throttled_s == pytest.approx(0.08)
    assert told.hosts == {"": 2, "far": 1}
    assert "on 2 hosts" in " ".join(told.lines())


def test_a_gap_that_nothing_explains_is_the_engines_for_20_ms_and_then_unexplained(tmp_path):
    attempts = [attempt(0, 0, 0, 100), attempt(0, 50, 150, 200), attempt(1, 0, 0, 200)]
    told = account(written(tmp_path / "l", 2, attempts, (), 200))
    assert (told.parts_ns["engine"], told.parts_ns["unexplained"]) == (20 * MS, 30 * MS)


def test_an_inline_run_has_one_slot_and_what_is_between_its_tasks_is_the_driver(tmp_path):
    attempts = [attempt(0, 40 * i + 10, 40 * i + 10, 40 * i + 40, cpu=30) for i in range(10)]
    told = account(written(tmp_path / "l", 1, attempts, (), 420))
    assert told.parts_ns["driver"] == (100 + 20) * MS
    assert told.parts_ns["on_cpu"] == 300 * MS
    assert told.parts_ns["unexplained"] == told.parts_ns["engine"] == 0


def test_a_run_whose_answers_were_all_in_the_store_has_no_engine_and_is_all_driver(tmp_path):
    cached = [attempt(-1, 0, 0, 0, state="cached", key=str(i)) for i in range(5)]
    told = account(written(tmp_path / "l", 0, cached, (), 30))
    assert (told.slots, told.parts_ns["driver"], told.finished) == (1, 30 * MS, 5)


def test_a_killed_run_is_told_up_to_its_last_record_and_says_so(tmp_path):
    attempts = [attempt(0, 0, 20, 100, cpu=80), attempt(0, 90, 101, 300, cpu=199), attempt(1, 0, 20, 140, cpu=120)]
    told = account(written(tmp_path / "l", 2, attempts, [span(0, "start", 0, 20), span(1, "start", 0, 20)], None))
    assert told.state == "killed"
    assert told.wall_ns == 300 * MS
    assert told.parts_ns["cut"] == (300 - 140 + 1) * MS  # slot 1 had something in flight that nobody knows
    assert any("killed" in text for _, text in summary(told))
    assert sum(told.parts_ns.values()) == told.core_ns


def test_memory_is_the_driver_and_the_largest_attempt_of_every_slot(tmp_path):
    def sized(slot: int, start: int, size: int) -> dict[str, Any]:
        made = attempt(slot, start, start, start + 10)
        return made | {"measures": made["measures"]._replace(peak_bytes=size)}

    attempts = [sized(0, 0, 100), sized(0, 20, 300), sized(1, 0, 50)]
    told = account(written(tmp_path / "l", 2, attempts, (), 40, peak_bytes=1000, private_bytes=5000))
    assert (told.memory_bytes, told.task_peak_bytes, told.budget_bytes) == (1350, 300, 5000)


def test_unexplained_is_under_two_per_cent_of_a_usual_run(tmp_path):
    told = account(busy_run(tmp_path / "l", 4, 600))
    assert told.share("unexplained") < 0.02
    assert told.share("on_cpu") > 0.7


def test_the_summary_is_a_few_plain_lines(tmp_path):
    told = account(busy_run(tmp_path / "l", 4, 300))
    lines = dict(summary(told))
    assert 5 <= len(lines) <= 9
    assert "4 slots" in lines["time"]
    assert "unexplained" in lines["besides"]
    assert "300 finished" in lines["tasks"]
    assert len(told.lines()) == len(lines)
    plain = told.as_dict()
    assert sum(plain["shares"].values()) == pytest.approx(1)
    assert plain["tasks"][0]["name"] == "explain rows"


def test_figures_of_a_task_are_medians_over_those_that_ran(tmp_path):
    attempts = [attempt(0, 100 * i, 100 * i, 100 * i + d, key=str(i)) for i, d in enumerate((10, 20, 30, 40, 50))]
    attempts += [attempt(0, 600, 600, 690, name="other", state="raised", key="x")]
    figures = {f.name: f for f in account(written(tmp_path / "l", 1, attempts, (), 700)).tasks}
    assert figures["work"].median_s == pytest.approx(0.03)
    assert figures["work"].total_s == pytest.approx(0.15)
    assert (figures["work"].done, figures["other"].failed) == (5, 1)


def test_nothing_heavy_is_imported_with_diagnose():
    code = "import sys, millrace.diagnose; assert not {'numpy', 'altair', 'vl_convert'} & set(sys.modules)"
    root = Path(__file__).parents[2] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": str(root)})
