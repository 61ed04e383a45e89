"""What a question will take on this host: its plan as past runs here teach, money, and what is in the store already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millrace import compose, lessons
from millrace.analyses import catalogue
from millrace.diagnose.forecast import Lesson, corrected, money
from millrace.run.budget import Plan


@dataclass(frozen=True, slots=True)
class Forecast:
    """`in_store`: tasks that need not be computed again, by an earlier run of the same question; None: nobody can tell
    (inputs in memory, a store that is no folder). `price`: of a core-hour, `example`: nobody has set it. `runs`: how many
    the figures are learnt from.
    """

    plan: Plan
    in_store: int | None
    money: float
    price: float
    example: bool
    runs: int

    def as_dict(self) -> dict[str, Any]:
        own = {n: getattr(self, n) for n in ("in_store", "money", "price", "example", "runs")}
        return {**self.plan.as_dict(), **own}


def forecast(analysis: str, question: Mapping[str, Any], machine: compose.Machine) -> Forecast:
    """The plan of a question as past runs on this host teach, what it costs, and what is in the store already."""
    entry = catalogue.find(analysis)
    spec = entry.load("spec")(**question)
    settings = compose.load_settings({n: getattr(machine, n) for n in ("engine", "cores", "memory")})
    made: Plan = entry.load("plan")(entry.load("facts")(spec), compose.budget_of(settings))
    folder = lessons.place(settings.cache)
    taught = lessons.lessons(folder, analysis)
    fitting = [one for one in taught if one.method == made.method]
    made = corrected(made, fitting, 1.0 if fitting else lessons.speed(folder)["index"])
    key = lessons.question_key(analysis, spec, machine.seed)
    same = [one for one in taught if key and one.question == key]
    price = settings.core_hour_price
    known = _known(same[-1], machine.store or settings.store) if same else 0 if key else None
    example = settings.origin("core_hour_price") == "default"
    return Forecast(made, known, money(made, price), price, example, len(fitting))


def _known(taught: Lesson, place: str | os.PathLike[str]) -> int | None:
    """How many tasks of an earlier run have their value in the store, by a sample of their keys.

    None for a store that is not a folder: asking it takes longer than a plan may.
    """
    if "://" in os.fspath(place) or os.fspath(place).startswith("layered:"):
        return None
    if not taught.keys or not os.path.isdir(place):
        return 0
    store = compose.open_store(os.fspath(place))
    try:
        there = sum(store.get(key) is not None for key in taught.keys)
    finally:
        store.close()
    return round(taught.tasks * there / len(taught.keys))
