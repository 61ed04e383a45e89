"""The largest question that fits a budget and a deadline: fewer simulations, background rows, rows. Never unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.analyses import catalogue
from millrace.analyses.knobs import knobs_of
from millrace.forecast import planned
from millrace.run.errors import DoesNotFit
from millrace.run.units import format_duration, parse_duration

if TYPE_CHECKING:
    from millrace.analyses.knobs import Knob


FIGURES = 2
"""The largest size is found to so many significant figures: a prediction is not better than that."""


def fitted(
    analysis: str, question: Mapping[str, Any], machine: compose.Machine, asked_by: str = "--fit"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The question as it fits, and what was made smaller, in words (nothing when it fits as it is).

    `asked_by`: what allows it, as its user wrote it. `DoesNotFit` when not even the smallest does.
    """
    asked, said = dict(question), []
    if _fits(analysis, asked, machine):
        return asked, ()
    entry = catalogue.find(analysis)
    spec = entry.load("spec")(**asked)
    facts = entry.load("facts")(spec)
    for knob in _knobs(spec):
        whole, name = knob.whole(spec, facts), knob.field
        if whole is None:
            continue
        bounds = (m.ge for m in type(spec).model_fields[name].metadata if getattr(m, "ge", None))
        least = min(whole, max([knob.least, getattr(facts, f"least_{name}", 1), *bounds]))
        found = _largest(analysis, asked, machine, name, least, whole)
        asked[name] = found or least
        said.append(f"{whole:,} {knob.counts(facts)} do not fit: {asked[name]:,} were taken, as {asked_by} allows.")
        if found:
            return asked, tuple(said)
    raise _refusal(analysis, asked, machine)


def _knobs(spec: Any) -> list[Knob]:
    own = isinstance(getattr(spec, "background", None), str) and spec.background == "auto"  # else it is the user's
    return [k for k in knobs_of(type(spec).model_fields) if k.field != "background_rows" or own]


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
        wall_s = planned(analysis, asked, machine).wall_s
    except DoesNotFit:
        return False
    return machine.deadline is None or wall_s <= parse_duration(machine.deadline)


def _refusal(analysis: str, asked: Mapping[str, Any], machine: compose.Machine) -> DoesNotFit:
    """Why the smallest question does not fit."""
    try:
        made = planned(analysis, asked, machine)
    except DoesNotFit as refused:
        return refused
    return DoesNotFit(
        f"Not even the smallest question fits: {analysis} would take {format_duration(made.wall_s)} of the "
        f"{format_duration(parse_duration(machine.deadline or 0))} until the deadline. Give a longer deadline or more cores.",
        made.smallest_bytes,
    )
