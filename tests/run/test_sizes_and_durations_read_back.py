"""Sizes and durations: what is written is read back, and what can be read in two ways is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.run.errors import WrongQuestion
from millrace.run.units import format_bytes, format_duration, parse_bytes, parse_duration

_BIG = st.integers(0, 1 << 62)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4GiB", 4 << 30),
        ("4gib", 4 << 30),
        (" 1.5 MiB ", 3 << 19),
        ("500MB", 500_000_000),
        ("2kB", 2000),
        ("0.1GiB", 107374182),
        ("12", 12),
        ("12B", 12),
        (12, 12),
        (1e9, 10**9),
        ("0", 0),
        ("1PiB", 1 << 50),
    ],
)
def test_a_size_means_what_it_says(text: str | int | float, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "value",
    ["", "GiB", "-1GiB", "4 G iB", "1e3MB", "1_000", "٣MB", "1.5.2MB", "4XB", "inf", -1, 1.5,
     float("nan"), float("inf"), 1 << 70, True, None, "9" * 100, [1]],
)  # fmt: skip
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(WrongQuestion):
        parse_bytes(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "either", "other"), [("4G", "4GiB", "4GB"), ("2.5ki", "2.5KiB", "2.5kB")])
def test_a_size_of_two_meanings_is_refused_with_both(text: str, either: str, other: str) -> None:
    with pytest.raises(WrongQuestion, match="two ways") as refused:
        parse_bytes(text)
    assert f"'{either}'" in str(refused.value)
    assert f"'{other}'" in str(refused.value)
    assert parse_bytes(either) > parse_bytes(other)


@given(_BIG)
def test_a_formatted_size_is_read_back_within_half_a_percent(size_bytes: int) -> None:
    assert abs(parse_bytes(format_bytes(size_bytes)) - size_bytes) <= size_bytes / 200


@given(_BIG)
def test_rounded_up_it_is_enough_and_not_much_more(size_bytes: int) -> None:
    enough = parse_bytes(format_bytes(size_bytes, up=True))
    assert size_bytes <= enough <= size_bytes * 1.01 + 1


@given(st.integers(1, 999), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_round_sizes_stay_as_they_were_written(number: int, unit: str) -> None:
    assert format_bytes(parse_bytes(f"{number}{unit}")) == f"{number}{unit}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9h", 32400), ("1h30m", 5400), ("1h 30min", 5400), ("90", 90), ("250ms", 0.25), ("2.5 min", 150),
     ("1d12h", 129600), (3, 3), (0.5, 0.5), ("1w", 604800), ("1m1ms", 60.001), ("0s", 0)],
)  # fmt: skip
def test_a_duration_means_what_it_says(text: str | int | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "h",
        "-1h",
        "1m1h",
        "1h1h",
        "9 hours",
        "1:30",
        -1,
        float("inf"),
        float("nan"),
        True,
        None,
        "1h30",
        "٣h",
    ],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(WrongQuestion, match="not a duration"):
        parse_duration(value)  # type: ignore[arg-type]


@given(st.floats(1e-3, 3e7))
def test_a_formatted_duration_is_read_back_within_three_percent(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.03)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250ms"), (12.34, "12.3s"), (59.99, "1m"), (250, "4m10s"), (3599.9, "1h"),
     (32400, "9h"), (86399, "1d"), (183600, "2d3h")],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
