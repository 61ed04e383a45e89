"""Progress: the pace is of the last seconds of a stage; lines where output is piped, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import COMMAND, environment

from millrace.cli.progress import PACE_S, Lines, Pace, described
from millrace.run.run import Progress


def at(elapsed_s: float, finished: int, total: int | None = 1000, stage: str = "explaining", **more: int) -> Progress:
    said = {"cached": 0, "failed": 0, "private_bytes": 0} | more
    return Progress(stage, finished, total, elapsed_s=elapsed_s, **said)


def test_the_pace_is_of_the_last_seconds_and_not_of_the_whole_run() -> None:
    pace = Pace()
    for second in range(100):
        pace(at(second, second))
    for second in range(100, 130):
        rate = pace(at(second, 100 + 50 * (second - 100)))
    assert rate == pytest.approx(50, rel=0.01)


def test_a_new_stage_has_a_pace_of_its_own() -> None:
    pace = Pace()
    pace(at(0, 0))
    assert pace(at(10, 900)) == pytest.approx(90)
    assert pace(at(11, 0, stage="writing")) is None
    assert pace(at(12, 5, stage="writing")) == pytest.approx(5)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 100)), min_size=2, max_size=60))
@settings(deadline=None)
def test_the_pace_is_never_negative_and_looks_back_no_further_than_it_says(steps: list[tuple[float, int]]) -> None:
    pace, now, finished, most = Pace(), 0.0, 0, 0.0
    for step_s, more in steps:
        now, finished = now + step_s, finished + more
        rate = pace(at(now, finished, None))
        most = max(most, more)
        assert rate is None or rate > 0
        oldest = pace._seen[1][0] if len(pace._seen) > 1 else now
        assert now - oldest <= PACE_S


def test_what_is_not_known_is_not_said() -> None:
    assert described(at(0, 7, None), None, 0) == "7"
    assert "to go" not in described(at(1, 5, None), 5.0, 0)
    assert "of" not in described(at(1, 5, None, private_bytes=1 << 20), 5.0, 0)


def test_all_that_is_known_is_said() -> None:
    told = described(at(10, 500, cached=12, failed=1, private_bytes=1 << 30, busy=2, slots=4), 50.0, 4 << 30)
    assert told == "500 of 1,000 (50 %), 50/s, 10s to go, 2 of 4 cores busy, 1GiB of 4GiB, 12 from the store, 1 failed"


def test_lines_are_seconds_apart(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(every_s=3.0)
    for tenth in range(100):
        lines(at(tenth / 10, tenth))
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 3
    assert told.err.startswith("explaining: 30 of 1,000 (3 %), ")


def test_a_terminal_gets_a_bar_on_stderr_and_stdout_stays_plain(desk: Path) -> None:
    question = (
        "run",
        "simulate:slow",
        "--items",
        "items.jsonl",
        "--engine",
        "inline",
        "--limit",
        "4",
        "--store",
        "bar",
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *question],
        cwd=desk,
        env=environment(desk, TERM="xterm", COLUMNS="100"),
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    drawn = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed: how Linux tells it
            break
        if not part:
            break
        drawn += part
    os.close(master)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "━".encode() in drawn
    assert b"of 4" in drawn
    assert b"\x1b" not in out
