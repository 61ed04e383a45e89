"""The largest question that fits a budget and a deadline: fewer simulations, background rows, rows. Never unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millrace import compose
from millrace.analyses import catalogue
from millrace.forecast import forecast
from millrace.run.errors import DoesNotFit
from millrace.run.units import format_duration, parse_duration

KNOBS = {"simulations": "simulations", "background_rows": "background rows", "limit": "rows"}
"""Fields of questions that may be made smaller, the first first, and what they count."""
LEAST = {"limit": 100, "background_rows": 20}
"""Below so many rows there is hardly a question left."""
FIGURES = 2
"""The largest size is found to so many significant figures: a prediction is not better than that."""


def fitted(
    analysis: str, question: Mapping[str, Any], machine: compose.Machine
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The question as it fits, and what was made smaller, in words (nothing when it fits as it is).

    `DoesNotFit` when not even the smallest does.
    """
    asked, said = dict(question), []
    if _fits(analysis, asked, machine):
        return asked, ()
    for name, field in _knobs(analysis, asked).items():
        whole = _size(analysis, asked, name)
        least = min(whole, max([LEAST.get(name, 1), *(m.ge for m in field.metadata if getattr(m, "ge", None))]))
        found = _largest(analysis, asked, machine, name, least, whole)
        asked[name] = found or least
        said.append(f"{whole:,} {KNOBS[name]} do not fit: {asked[name]:,} were taken, as --fit allows.")
        if found:
            return asked, tuple(said)
    raise _refusal(analysis, asked, machine)


def _knobs(analysis: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    fields = catalogue.find(analysis).load("spec").model_fields
    own = (
        isinstance(asked.get("background"), str) and asked["background"] == "auto"
    )  # else the background is the user's
    return {name: fields[name] for name in KNOBS if name in fields and (name != "background_rows" or own)}


def _size(analysis: str, asked: Mapping[str, Any], name: str) -> int:
    """What the question has of it: as asked for, or all rows there are."""
    entry = catalogue.find(analysis)
    spec = entry.load("spec")(**asked)
    given = getattr(spec, name)
    return int(given if given is not None else entry.load("facts")(spec).rows)


def _largest(
    analysis: str, asked: Mapping[str, Any], machine: compose.Machine, name: str, least: int, whole: int
) -> int | None:
    """The largest size from `least` to `whole` that fits; None when the least does not."""
    if not _fits(analysis, {**asked, name: least}, machine):
        return None
    low, high = least, whole
    while high - low > max(1, low // 10**FIGURES):
        middle = (low + high) // 2
        if _fits(analysis, {**asked, name: middle}, machine):
            low = middle
        else:
            high = middle
    return low


def _fits(analysis: str, asked: Mapping[str, Any], machine: compose.Machine) -> bool:
    try:
        wall_s = forecast(analysis, asked, machine).plan.wall_s
    except DoesNotFit:
        return False
    return machine.deadline is None or wall_s <= parse_duration(machine.deadline)


def _refusal(analysis: str, asked: Mapping[str, Any], machine: compose.Machine) -> DoesNotFit:
    """Why the smallest question does not fit."""
    try:
        made = forecast(analysis, asked, machine).plan
    except DoesNotFit as refused:
        return refused
    return DoesNotFit(
        f"Not even the smallest question fits: {analysis} would take {format_duration(made.wall_s)} of the "
        f"{machine.deadline} until the deadline. Give a longer --deadline or more --cores.",
        made.smallest_bytes,
    )
