"""Arrivals: the shipped trace is what it says, a file gives back what was written, and bad rows are told by their line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from millrace.autoscale.traces import Arrival, read_trace, shipped_trace, synthetic, write_trace
from millrace.run.errors import WrongQuestion


def test_the_shipped_trace_is_heavy_work_in_office_hours() -> None:
    jobs = [job for seed in range(12) for job in shipped_trace(seed)]
    assert 480 <= len(jobs) / 12 <= 560
    assert max(job.seconds for job in jobs) <= 7200
    short, long = (
        sum(test(job.seconds) for job in jobs) / len(jobs) for test in (lambda s: s < 250, lambda s: s > 2200)
    )
    assert 0.57 <= short <= 0.63 and 0.05 <= long <= 0.09
    office = sum(9 <= job.at_s / 3600 % 24 < 18.5 for job in jobs) / len(jobs)
    assert office > 0.85
    assert shipped_trace(3) == shipped_trace(3) != shipped_trace(4)


def test_the_load_is_a_factor_on_the_rate() -> None:
    once, twice = (sum(len(shipped_trace(s, load=load)) for s in range(12)) for load in (1.0, 2.0))
    assert 2.0 <= twice / once <= 2.5  # nights are shorter than what is drawn in them


def test_a_synthetic_day_has_its_jobs_in_order_most_of_them_light() -> None:
    jobs = synthetic(20_000, seed=0, days=2)
    assert 39_000 <= len(jobs) <= 41_000
    assert all(a.at_s <= b.at_s for a, b in pairwise(jobs)) and jobs[-1].at_s < 2 * 86_400
    shares = {q: sum(job.queue == q for job in jobs) / len(jobs) for q in ("api", "reports", "causal")}
    assert shares["api"] == pytest.approx(0.979, abs=0.005) and shares["causal"] == pytest.approx(0.001, abs=0.0007)
    few = [len(synthetic(3, seed)) for seed in range(300)]
    assert sum(few) / 300 == pytest.approx(3, abs=0.4)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    jobs = [*shipped_trace(0, days=1), Arrival(900_000.0, "api", 0.5, 0.7, -2)]
    write_trace(tmp_path / "a.csv", jobs)
    assert read_trace(tmp_path / "a.csv") == jobs


def test_rows_in_any_order_are_taken_by_time(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("queue,seconds,arrival_s\nb,2,20\na,1,10\n")
    assert read_trace(tmp_path / "a.csv") == [Arrival(10, "a", 1), Arrival(20, "b", 2)]


HEAD = "arrival_s,queue,seconds\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the columns none"),
        (HEAD, "holds no arrivals"),
        ("arrival,queue,seconds\n1,a,1\n", "Look at: arrival_s, arrival"),
        (HEAD + "1,a,2\n2,a,soon\n", "a.csv:3: this is no arrival"),
        (HEAD + "1,a\n", "a.csv:2: this is no arrival"),
        (HEAD + "-1,a,2\n", "below zero"),
        (HEAD + "1,a,nan\n", "not finite"),
        ("arrival_s,queue,seconds,priority\n1,a,1,high\n", "a.csv:2"),
    ],
)
def test_what_is_no_trace_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(WrongQuestion) as wrong:
        read_trace(tmp_path / "a.csv")
    assert said in str(wrong.value)


def test_a_trace_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WrongQuestion, match="cannot be read"):
        read_trace(tmp_path / "b.csv")
