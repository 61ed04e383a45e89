"""Sizes, durations and figures as people write them: "4GiB" is 4294967296 bytes, "9h" is 32400 seconds.

Pure. Does not know what a size is for or what a sensible one would be; `settings` and the specs do.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from millrace.run.errors import WrongQuestion

_BYTES_PER = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50,
}  # fmt: skip
_SECONDS_PER = {
    "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "m": Fraction(60),
    "h": Fraction(3600), "d": Fraction(86400), "w": Fraction(604800),
}  # fmt: skip
_BINARY = (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_LONGEST_TEXT = 64  # nobody writes a longer size; a bound keeps hostile digits from costing quadratic time


def parse_bytes(value: str | int | float) -> int:
    """Bytes of "4GiB", "500 MB", "0.5TiB" or a plain number of bytes, to the nearest byte.

    Binary units are KiB MiB GiB TiB PiB, decimal ones kB MB GB TB PB, in any case. A bare "4G" is refused:
    docker, Slurm and `ls` read it as 4 GiB, Kubernetes and Dask as 4 GB. Raises `WrongQuestion`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value != value or value < 0 or value != int(min(value, 2**63)):
            raise WrongQuestion(f"{value!r} is not a size: give a whole number of bytes, or text such as '4GiB'.")
        return int(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise WrongQuestion(f"{_shown(value)} is not a size: write a number and a unit, such as '4GiB' or '500MB'.")
    number, unit = match.groups()
    if unit in {"k", "m", "g", "t", "p", "ki", "mi", "gi", "ti", "pi"}:
        letter = unit[0].upper() if unit[0] != "k" else "k"
        raise WrongQuestion(
            f"{_shown(value)} can be read in two ways: write '{number}{letter.upper()}iB' for powers of 1024 or "
            f"'{number}{letter}B' for powers of 1000."
        )
    if unit not in _BYTES_PER and unit:
        raise WrongQuestion(
            f"{_shown(value)} has the unknown unit {unit!r}: use B, KiB, MiB, GiB, TiB, kB, MB, GB or TB."
        )
    return math.floor(Fraction(number) * _BYTES_PER[unit or "b"] + Fraction(1, 2))


def format_bytes(size_bytes: int, *, up: bool = False) -> str:
    """Three digits and a binary unit: 4294967296 is "4GiB", 1234567 "1.18MiB".

    `parse_bytes` reads it back within 0.5 %. `up` rounds upwards, for "give at least": what is read back is then
    never less than `size_bytes`.
    """
    for unit, per in _BINARY:
        if abs(size_bytes) >= per:
            return f"{_three_digits(Fraction(size_bytes, per), up)}{unit}"
    return f"{size_bytes}B"


def parse_duration(value: str | int | float) -> float:
    """Seconds of "9h", "1h30m", "2.5 min", "250ms", "3d" or a plain number of seconds.

    Units are ms, s, m or min, h, d, w; each at most once, from large to small. Raises `WrongQuestion`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < float("inf"):
            raise WrongQuestion(f"{value!r} is not a duration: give seconds from 0, or text such as '9h'.")
        return float(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    if 0 < len(text) <= _LONGEST_TEXT:
        if _NUMBER.fullmatch(text):
            return float(text)
        seconds = _sum_of_parts(text)
        if seconds is not None:
            return seconds
    raise WrongQuestion(
        f"{_shown(value)} is not a duration: write numbers with the units w, d, h, m, s or ms from large to small, "
        "such as '9h', '1h30m' or '250ms'."
    )


def format_duration(seconds: float) -> str:
    """Short text: "250ms", "12.3s", "4m10s", "9h", "2d3h"; two units at most."""
    if seconds < 1:
        return f"{_three_digits(seconds * 1000)}ms"
    if seconds < 59.95:
        return f"{_three_digits(seconds)}s"
    if (whole_s := round(seconds)) < 3600:
        return _two_units(whole_s, 60, "m", "s")
    if (whole_min := round(seconds / 60)) < 1440:
        return _two_units(whole_min, 60, "h", "m")
    return _two_units(round(seconds / 3600), 24, "d", "h")


def format_figure(value: float) -> str:
    """Three digits of a finite figure, thousands apart, no exponent where people read none: "0.0421", "52,300", "1.2e-07"."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.2e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{round(value, digits):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _two_units(count: int, per: int, large: str, small: str) -> str:
    whole, rest = divmod(count, per)
    return f"{whole}{large}{rest}{small}" if rest else f"{whole}{large}"


def _sum_of_parts(text: str) -> float | None:
    total, at, below = Fraction(0), 0, None
    while at < len(text):
        part = _PART.match(text, at)
        per = _SECONDS_PER.get(part[2]) if part else None
        if part is None or per is None or (below is not None and per >= below):
            return None
        total, at, below = total + Fraction(part[1]) * per, part.end(), per
    return float(total)


def _three_digits(value: Fraction | float, up: bool = False) -> str:
    """ "4", "1.18", "23.5", "512": no exponent, no trailing zeros."""
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    scaled = value * 10**digits
    text = f"{(math.ceil(scaled) if up else round(scaled)) / 10**digits:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
