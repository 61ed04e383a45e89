"""What of a question may be made smaller for it to fit: fields that questions may have. Light; see `millrace.fitting`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Knob:
    """A field of questions that may be made smaller. `facts`: what plans know it as, the first that there is; where the
    question does not say how many, there are as many as they tell. `least`: below so many there is hardly a question left.
    `said`: what it counts, as people say it; "" is as the facts call it."""

    field: str
    facts: tuple[str, ...]
    least: int = 1
    said: str = ""

    def counts(self, facts: Any) -> str:
        known = next((name for name in self.facts if hasattr(facts, name)), self.field)
        return self.said or known.replace("_", " ")

    def whole(self, spec: Any, facts: Any) -> int | None:
        """How many there are as it was asked; None when nobody knows."""
        given = getattr(spec, self.field)
        known = next((getattr(facts, name) for name in self.facts if hasattr(facts, name)), None)
        return given if given is not None else known


KNOBS = (
    Knob("simulations", ("simulations",)),
    Knob("background_rows", ("background_rows",), 20),
    Knob("limit", ("rows", "candidates"), 100),
    Knob("n", ("n",), said="twins"),
    Knob("rows", ("compared",), 200, "rows that are compared"),
)
"""The first is made smaller first."""


def knobs_of(fields: Container[str]) -> list[Knob]:
    """Those that a question with these fields has."""
    return [knob for knob in KNOBS if knob.field in fields]
