"""The record of a model: what its simulations said, and what really came. One JSON line each, appended; and what follows from it.

The fidelity score and the advice to fit the model anew are rules on the record, pure.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millrace.run.errors import WrongQuestion

EXCELLENT, GOOD, FAIR = 0.10, 0.20, 0.35
LEAST_SCORE, MOST_ERROR, LEAST_COVERAGE, MOST_DRIFT = 0.70, 0.25, 0.80, 0.60
LEAST_RECORDS = 5
"""From which on anything is advised."""
BETWEEN = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Result:
    """predicted, low, high: simulated. actual, actual_se: real. error: relative, absolute where the actual effect is near zero.
    covered: the real effect lies in the interval, its own error allowed for. at: ISO, UTC. advised: fitting anew was advised
    with this result."""

    at: str
    intervention: str
    group: str
    predicted: float
    low: float
    high: float
    actual: float
    actual_se: float
    error: float
    covered: bool
    grade: str
    advised: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """fidelity: 0.7 (1 - mean error) + 0.3 coverage, within 0 to 1."""

    records: int
    mean_error: float
    coverage: float
    fidelity: float


@dataclass(frozen=True, slots=True)
class Advice:
    """due: fit the model anew. reasons: why; waiting: why not yet, although there are reasons."""

    due: bool
    reasons: tuple[str, ...]
    waiting: str = ""


def error_of(predicted: float, actual: float, near_zero: float) -> float:
    """|predicted - actual| over |actual|; not divided where the actual effect is smaller than `near_zero`."""
    missed = abs(predicted - actual)
    if missed == 0:
        return 0.0
    return missed / abs(actual) if abs(actual) >= near_zero and actual != 0 else missed


def grade_of(error: float) -> str:
    """excellent below 10 %, good below 20 %, fair below 35 %, else poor."""
    for bound, grade in ((EXCELLENT, "excellent"), (GOOD, "good"), (FAIR, "fair")):
        if error < bound:
            return grade
    return "poor"


def compare(
    at: str,
    intervention: str,
    group: str,
    simulated: tuple[float, float, float],
    actual: float,
    actual_se: float,
    near_zero: float,
) -> Result:
    """simulated: effect, low, high."""
    predicted, low, high = simulated
    error = error_of(predicted, actual, near_zero)
    own = 1.959963984540054 * actual_se
    reach_low, reach_high = ((predicted - low) ** 2 + own**2) ** 0.5, ((high - predicted) ** 2 + own**2) ** 0.5
    covered = predicted - reach_low <= actual <= predicted + reach_high
    return Result(at, intervention, group, predicted, low, high, actual, actual_se, error, covered, grade_of(error))


def score(results: Sequence[Result]) -> Score:
    """Of one result or more."""
    n = len(results)
    error, coverage = sum(r.error for r in results) / n, sum(r.covered for r in results) / n
    return Score(n, error, coverage, min(1.0, max(0.0, 0.7 * (1 - error) + 0.3 * coverage)))


def advice(results: Sequence[Result], drift: float | None, now: str) -> Advice:
    """Whether to fit the model anew, at most once a day. drift: how well new rows are told from those of the training (AUC)."""
    s = score(results)
    reasons = []
    if s.records >= LEAST_RECORDS:
        for bad, text in (
            (s.fidelity < LEAST_SCORE, f"its fidelity is {s.fidelity:.2f}, below {LEAST_SCORE:.2f}"),
            (s.mean_error > MOST_ERROR, f"its mean error is {s.mean_error:.0%}, above {MOST_ERROR:.0%}"),
            (s.coverage < LEAST_COVERAGE, f"its intervals held {s.coverage:.0%}, less than {LEAST_COVERAGE:.0%}"),
        ):
            reasons += [text] if bad else []
        if drift is not None and drift > MOST_DRIFT:
            reasons.append(
                f"new rows differ from those that it was fitted on (C2ST {drift:.2f}, above {MOST_DRIFT:.2f})"
            )
    elif drift is not None and drift > MOST_DRIFT:
        return Advice(
            False,
            (),
            f"the population has drifted (C2ST {drift:.2f}), but {s.records} results are too few to advise on.",
        )
    if not reasons:
        return Advice(False, ())
    told = [r.at for r in results if r.advised]
    if told and _when(now) - max(map(_when, told)) < BETWEEN:
        return Advice(False, tuple(reasons), f"it was advised at {max(told)} already, and once a day is enough.")
    return Advice(True, tuple(reasons))


def _when(text: str) -> datetime.datetime:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise WrongQuestion(f"{text!r} is no date: write it as 2026-01-31 or 2026-01-31T12:00.") from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def stamp(text: str | None, now: datetime.datetime) -> str:
    """A date that was given, or now, as ISO in UTC."""
    return (now if text is None else _when(text)).astimezone(datetime.UTC).isoformat(timespec="seconds")


# -- the file ------------------------------------------------------------------------------------------------------------
def place(given: Any, asked: Any, model: Any) -> Path | None:
    """Where the record lies: as given, or beside the model's folder; None of a model that is in memory alone."""
    if given is not None:
        return Path(given)
    name = f"{model.name}.record.jsonl"
    if isinstance(asked, str | os.PathLike):
        folder = Path(asked)
        return (folder.parent if (folder / "model.json").exists() else folder) / name
    return None if model.out is None else Path(model.out) / name


def read(path: Path) -> tuple[Result, ...]:
    """All results so far, in their order; none where there is no file. A last line that was not written whole is left out."""
    if not path.exists():
        return ()
    lines = path.read_text().split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Result(**json.loads(line)))
        except (ValueError, TypeError) as e:
            if number == len(lines):  # no newline after it: it was being written when its process died
                break
            raise WrongQuestion(
                f"Line {number} of the record {path} is no result ({e}): mend it, or name another record."
            ) from None
    return tuple(found)


def append(path: Path, result: Result) -> None:
    """Write one line, whole: a line that was cut before is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                whole = path.read_bytes().rfind(b"\n") + 1
                file.truncate(whole)
        file.write((json.dumps(asdict(result)) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
