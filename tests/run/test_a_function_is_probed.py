"""A function of the user's has no known peak: its first item runs alone, and what it took decides how many run at once."""

from __future__ import annotations

import time

import pytest

from millrace import compose

MIB = 1 << 20


def hold(item: int) -> int:
    """120 MiB for long enough to be seen."""
    held = bytearray(120 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(0.15)
    return item + len(held) // (120 * MIB)


def light(item: int) -> int:
    return item * 2


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def columns(answer):
    from millrace.folder import history

    return history(answer.report.folder).columns


def test_what_is_too_large_for_a_share_runs_with_fewer_at_once_and_is_never_killed():
    machine = compose.Machine(engine="processes", cores=4, memory=450 * MIB)
    answer = compose.map_function(hold, range(6), machine)
    assert answer.values == tuple(range(1, 7))
    assert answer.report.accounting.outcomes == {"done": 6}
    assert "hold took" in answer.notes[0] and "at once" in answer.notes[0]
    told = columns(answer)
    begins, ends = list(told["started_ns"]), list(told["ended_ns"])
    assert min(begins[1:]) >= ends[0]  # the probe was alone
    for begin in begins:
        assert sum(b <= begin < e for b, e in zip(begins, ends, strict=True)) <= 2


def test_what_is_small_runs_on_all_slots_and_answers_alike():
    pooled = compose.map_function(light, range(50), compose.Machine(engine="processes", cores=2))
    inline = compose.map_function(light, range(50), compose.Machine(engine="inline"))
    assert pooled.values == inline.values == tuple(range(0, 100, 2))
    assert pooled.digest == inline.digest and pooled.notes == ()
    assert compose.map_function(light, [], compose.Machine(engine="processes", cores=2)).values == ()
    assert compose.map_function(light, [3, 3, 3], compose.Machine(engine="processes", cores=2)).values == (6, 6, 6)
