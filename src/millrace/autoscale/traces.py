"""Arrivals of jobs, to be replayed: from a CSV file, the shipped seeded trace, or a synthetic day.

Times are seconds from the start of the trace, which is a Monday at midnight. Replays nothing (see `simulate`).
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from millrace.run.errors import WrongQuestion

DAY_S = 86_400.0
LONGEST_S = 7_200.0
_OFFICE = range(9, 18)
_BURSTS = (1, 1, 1, 2, 6)
COLUMNS = ("arrival_s", "queue", "seconds", "predicted_s", "priority")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that comes at `at_s` and takes `seconds` of a slot. `predicted_s`: None when the trace has no prediction, which
    is then drawn around the truth."""

    at_s: float
    queue: str
    seconds: float
    predicted_s: float | None = None
    priority: int = 0


def shipped_trace(seed: int, days: int = 5, load: float = 1.0, queue: str = "causal") -> list[Arrival]:
    """Heavy work of a team: about 103 jobs a day, in office hours every ten minutes and in bursts of up to six, at night one
    every ninety minutes; 60 % near 90 s, 33 % near 10 min, 7 % near 67 min, log-normal, at most 2 h. `load` is a factor on
    the rate."""
    draw = random.Random(seed)
    at, found = 0.0, []
    while at < days * DAY_S:
        office = (at / 3600) % 24 // 1 in _OFFICE
        at += draw.expovariate((1 / 600 if office else 1 / 5400) * load)
        for _ in range(draw.choice(_BURSTS) if office else 1):
            found.append(Arrival(at, queue, heavy_seconds(draw)))
    return found


def heavy_seconds(draw: random.Random) -> float:
    """The length of a heavy job."""
    kind = draw.random()
    if kind < 0.6:
        seconds = draw.lognormvariate(math.log(90), 0.5)
    elif kind < 0.93:
        seconds = draw.lognormvariate(math.log(600), 0.5)
    else:
        seconds = draw.lognormvariate(math.log(4000), 0.3)
    return min(seconds, LONGEST_S)


def synthetic(jobs_per_day: float, seed: int, days: int = 1) -> list[Arrival]:
    """A day of a team, drawn: of a thousand jobs 979 are single calls near 0.3 s, 20 are reports near 15 s, one is heavy as
    in the shipped trace. Three quarters of all come in office hours."""
    draw = random.Random(seed)
    found = []
    for day in range(days):
        for _ in range(_poisson(draw, jobs_per_day)):
            office = draw.random() < 0.75
            hour = draw.uniform(9, 18) if office else (18 + draw.uniform(0, 15)) % 24
            at, kind = day * DAY_S + hour * 3600, draw.random()
            if kind < 0.979:
                found.append(Arrival(at, "api", draw.lognormvariate(math.log(0.3), 0.8)))
            elif kind < 0.999:
                found.append(Arrival(at, "reports", draw.lognormvariate(math.log(15), 0.8)))
            else:
                found.append(Arrival(at, "causal", heavy_seconds(draw)))
    found.sort(key=lambda job: job.at_s)
    return found


def _poisson(draw: random.Random, mean: float) -> int:
    """By its normal limit above 50, which no figure here can tell apart; by counting below."""
    if mean > 50:
        return max(0, round(draw.gauss(mean, math.sqrt(mean))))
    count, left = 0, draw.expovariate(1.0)
    while left < mean:
        count, left = count + 1, left + draw.expovariate(1.0)
    return count


def read_trace(path: Path) -> list[Arrival]:
    """The arrivals of a CSV file with a header: arrival_s, queue, seconds, and perhaps predicted_s and priority.

    In order of arrival, whatever the file's; raises `WrongQuestion` with the line of what cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(_rows(csv.DictReader(file), path))
    except (OSError, UnicodeDecodeError, csv.Error) as wrong:
        raise WrongQuestion(f"The trace {path} cannot be read: {wrong}.") from wrong
    if not found:
        raise WrongQuestion(f"The trace {path} holds no arrivals.")
    return sorted(found, key=lambda job: job.at_s)


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[Arrival]:
    names = reader.fieldnames or []
    wrong = [n for n in COLUMNS[:3] if n not in names] + [n for n in names if n not in COLUMNS]
    if wrong:
        raise WrongQuestion(
            f"The trace {path} has the columns {', '.join(names) or 'none'}; wanted are arrival_s, queue, seconds, and "
            f"perhaps predicted_s and priority. Look at: {', '.join(wrong)}."
        )
    for row in reader:
        try:
            at, seconds = float(row["arrival_s"]), float(row["seconds"])
            predicted = float(row["predicted_s"]) if row.get("predicted_s") else None
            priority = int(row["priority"]) if row.get("priority") else 0
            sound = at >= 0 and seconds >= 0 and (predicted is None or predicted >= 0)
            if not sound or not all(math.isfinite(v) for v in (at, seconds, predicted or 0.0)):
                raise ValueError("a time is below zero or not finite")
        except (TypeError, ValueError) as e:
            raise WrongQuestion(f"{path}:{reader.line_num}: this is no arrival: {e}.") from e
        yield Arrival(at, row["queue"], seconds, predicted, priority)


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> None:
    """A CSV file that `read_trace` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for job in arrivals:
            predicted = "" if job.predicted_s is None else repr(job.predicted_s)
            writer.writerow((repr(job.at_s), job.queue, repr(job.seconds), predicted, job.priority))
