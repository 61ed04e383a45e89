"""A replay without a change is the run again; a change has the effect that arithmetic says it has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import MS, attempt, busy_run, span, written

from millrace.diagnose import replay
from millrace.diagnose.timeline import lay_out


def of(history) -> replay.Scenario:
    return replay.scenario(history, lay_out(history))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 150), st.integers(0, 10_000))
def test_without_a_change_it_takes_what_the_run_took(tmp_path_factory, slots, tasks, seed):
    history = busy_run(tmp_path_factory.mktemp("l") / "l", slots, tasks, seed=seed)
    longest = int(of(history).took.max())  # who takes the last task may be another slot
    assert replay.wall_ns(of(history)) == pytest.approx(lay_out(history).wall_ns, rel=0.03, abs=longest)


def test_many_attempts_are_replayed_as_fewer_jobs_of_the_same_length(tmp_path, monkeypatch):
    history = busy_run(tmp_path / "l", 4, 900)
    whole = of(history)
    monkeypatch.setattr(replay, "MOST_JOBS", 200)
    coarse = of(history)
    assert coarse.jobs < 210 < whole.jobs == coarse.rows.sum()
    assert replay.wall_ns(coarse) == pytest.approx(replay.wall_ns(whole), rel=0.02)


def even(path, slots=2, tasks=4, took=100):
    """`tasks` of the same length, packed without a gap after a start of 50 ms."""
    rows = [attempt(i % slots, 50 + took * (i // slots), 50 + took * (i // slots), 50 + took * (i // slots + 1), key=str(i))
            for i in range(tasks)]  # fmt: skip
    return written(
        path, slots, rows, [span(s, "start", 0, 50) for s in range(slots)], 50 + took * -(-tasks // slots) + 10
    )


def test_changes_by_hand(tmp_path):
    played = of(even(tmp_path / "l"))
    assert replay.wall_ns(played) == 260 * MS
    assert replay.wall_ns(replay.without(played, "start")) == 210 * MS
    assert replay.wall_ns(replay.on_slots(played, 4)) == 160 * MS
    assert replay.wall_ns(replay.on_slots(played, 1)) == 460 * MS
    assert replay.wall_ns(replay.shortened(played, np.full(4, 30 * MS))) == 200 * MS
    assert replay.wall_ns(replay.dropped(played, np.array([True, False, False, True]))) == 160 * MS
    assert replay.wall_ns(replay.merged(played, 0, 4)) == 460 * MS
    assert replay.cut(played, 0, 4).jobs == 16
    assert replay.wall_ns(replay.cut(played, 0, 4)) == 260 * MS


def test_a_tail_shrinks_when_its_task_is_cut_or_comes_first(tmp_path):
    rows = [attempt(i % 2, 100 * (i // 2), 100 * (i // 2), 100 * (i // 2) + 100, key=str(i)) for i in range(4)]
    rows.append(attempt(0, 200, 200, 600, key="long"))
    played = of(written(tmp_path / "l", 2, rows, [span(1, "tail", 200, 600)], 600))
    assert replay.wall_ns(played) == 600 * MS
    assert replay.wall_ns(replay.longest_first(played)) == 400 * MS
    assert replay.wall_ns(replay.cut(played, 0, 4)) == 400 * MS


def test_a_task_that_waited_for_an_outcome_waits_for_it_in_the_replay(tmp_path):
    rows = [
        attempt(0, 0, 0, 100, key="a"),
        attempt(1, 0, 0, 40, key="b"),
        attempt(1, 110, 110, 200, key="c"),  # could only be asked for when "a" was known, 10 ms after it
        attempt(0, 110, 110, 150, key="d"),
    ]
    spans = [span(1, "starved", 40, 110), span(0, "starved", 100, 110), span(0, "tail", 150, 200)]
    played = of(written(tmp_path / "l", 2, rows, spans, 200))
    assert replay.wall_ns(played) == 200 * MS
    faster = replay.shortened(played, np.array([50, 0, 0, 0]) * MS)
    assert replay.wall_ns(faster) == 150 * MS
    assert (
        replay.wall_ns(replay.unstarved(played)) == 170 * MS
    )  # in the order in which they began: a 100, b 40, d 40, c 90
    gone = replay.dropped(played, np.array([True, False, False, False]))
    assert replay.wall_ns(gone) < 200 * MS


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 9), st.integers(0, 1))
def test_cutting_and_merging_keep_the_work(tmp_path_factory, slots, tasks, many, name):
    played = of(busy_run(tmp_path_factory.mktemp("l") / "l", slots, tasks))
    for changed in (replay.cut(played, name, many), replay.merged(played, name, many)):
        assert changed.took.sum() == pytest.approx(played.took.sum(), abs=many * tasks)
        assert (changed.after < np.arange(changed.jobs)).all()
