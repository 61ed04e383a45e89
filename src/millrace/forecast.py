"""What a question will take: on this host, as past runs teach, and on each tier; money; what is in the store already."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace import compose, lessons, ordering, quotes
from millrace.analyses import catalogue
from millrace.diagnose.forecast import Lesson, corrected, money
from millrace.quotes import Often, Quote
from millrace.run.budget import Budget, Plan
from millrace.run.errors import DoesNotFit, WrongQuestion
from millrace.run.lines import columns
from millrace.run.units import format_bytes, format_duration

if TYPE_CHECKING:
    from millrace.settings import Settings
    from millrace.tiers import Tiers


@dataclass(frozen=True)
class Forecast:
    """Reads as its `plan` (tasks, slots, core_s, wall_s, peak_bytes, why, ...), and prints as `millrace plan` does.

    `in_store`: tasks that need not be computed again, by an earlier run of the same question; None: nobody can tell
    (inputs in memory, a store that is no folder). `money`: of one run on this host. `price`: of a core-hour, `example`:
    nobody has set it. `runs`: how many the figures are learnt from. `tiers`: the same on each tier. `often`: how often the
    question comes, None where nobody said; `month_money`: then, on this host.
    """

    plan: Plan
    in_store: int | None
    money: float
    price: float
    example: bool
    runs: int
    tiers: tuple[Quote, ...] = ()
    often: Often | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "plan":  # while it is being copied or unpickled there is none yet
            raise AttributeError(name)
        return getattr(self.plan, name)

    @property
    def month_money(self) -> float | None:
        return None if self.often is None else self.often.a_month * self.money

    def as_dict(self) -> dict[str, Any]:
        own = {n: getattr(self, n) for n in ("in_store", "money", "month_money", "price", "example", "runs")}
        often = None if self.often is None else asdict(self.often)
        return {**self.plan.as_dict(), **own, "often": often, "tiers": [asdict(q) for q in self.tiers]}

    def lines(self) -> list[str]:
        """A table for this host, one of the tiers, and the reasons."""
        made = self.plan
        shared = [("shared, mapped", f"{format_bytes(made.shared_bytes)} on disk, once")] if made.shared_bytes else []
        rows = [
            ("analysis", f"{made.analysis}, {made.method}"),
            ("tasks", f"{made.tasks:,}" + (f" of up to {made.block:,} items" if made.block > 1 else "")),
            ("at once", f"{made.slots}"),
            ("in the store", "unknown" if self.in_store is None else f"{self.in_store:,} tasks of it"),
            ("core-seconds", f"about {made.core_s:,.3g}"),
            ("wall time", f"about {format_duration(made.wall_s)} on this host"),
            ("money", cost(self.money, self.price, self.example)),
            *([("money, a month", monthly(self.month_money, self.often))] if self.often else []),
            ("memory, worker", format_bytes(made.worker_bytes)),
            ("memory, driver", format_bytes(made.driver_bytes)),
            (
                "memory, all",
                f"{format_bytes(made.peak_bytes)} (one task at a time: {format_bytes(made.smallest_bytes)})",
            ),
            *shared,
            ("answer", f"{format_bytes(made.answer_bytes)} on disk"),
        ]
        return [*columns(rows), *tier_lines(self.tiers), *(f"Because {reason}" for reason in made.why)]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def tier_lines(told: tuple[Quote, ...]) -> list[str]:
    rows = quotes.table(told)
    return ["", *columns(rows, right=range(1, len(rows[0]) - 1)), ""] if told else []


def cost(money: float, price: float, example: bool) -> str:
    """What the cores cost, and at which price."""
    at = f"at {price:g} per core-hour"
    return f"{about(money)} {at}{', an example: set core_hour_price' if example else ''}"


def monthly(money: float | None, often: Often | None) -> str:
    return f"{about(money)}: {often.why}" if often is not None else ""


def about(money: float | None) -> str:
    text = quotes.money_text(money)
    return text.replace("<", "less than") if text.startswith("<") else f"about {text}"


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans of one question under any budget: `formula`, the analysis' own, and `learnt`, as past runs here correct it."""

    formula: Callable[[Budget], Plan]
    taught: list[Lesson]
    folder: Path

    def learnt(self, budget: Budget) -> Plan:
        return self.correct(self.formula(budget))

    def correct(self, made: Plan) -> Plan:
        fitting = [one for one in self.taught if one.method == made.method]
        return corrected(made, fitting, 1.0 if fitting else lessons.speed(self.folder)["index"])

    def elsewhere(self, here: Plan) -> Callable[[Budget], Plan]:
        """For other machines. Past runs had this host's slots: only what was too small even for those stays so."""
        small = here.busy_slots if here.busy_slots < here.slots else 0
        return lambda budget: replace(self.learnt(budget), busy_slots=small)


def planned(analysis: str, question: Mapping[str, Any], machine: compose.Machine) -> Plan:
    """The plan of a question on this host, as past runs teach."""
    settings = settings_of(machine)
    return _planner(analysis, catalogue.find(analysis).load("spec")(**question), settings).learnt(
        compose.budget_of(settings)
    )


def forecast(
    analysis: str,
    question: Mapping[str, Any],
    machine: compose.Machine,
    every: str | float | None = None,
    trace: str | os.PathLike[str] | None = None,
) -> Forecast:
    """The plan of a question as past runs on this host teach, on it and on each tier, and what is in the store already.

    `every`: the question is asked once in so long; or `trace`: a file of arrivals (see `millrace scale simulate`), in whose
    queue it comes as often as jobs do there.
    """
    entry = catalogue.find(analysis)
    spec = entry.load("spec")(**question)
    settings = settings_of(machine)
    here, planner = compose.budget_of(settings), _planner(analysis, spec, settings)
    made = planner.learnt(here)
    key = lessons.question_key(analysis, spec, machine.seed)
    same = [one for one in planner.taught if key and one.question == key]
    price, example = settings.core_hour_price, settings.origin("core_hour_price") == "default"
    tiers = compose.tiers_of(settings)
    queue, tier = destination(tiers, entry.path[0], analysis, planner.formula)
    often = how_often(every, trace, queue)
    return Forecast(
        plan=made,
        in_store=_known(same[-1], machine.store or settings.store) if same else 0 if key else None,
        money=money(made, price),
        price=price,
        example=example,
        runs=sum(one.method == made.method for one in planner.taught),
        tiers=quotes.quotes(tiers, planner.elsewhere(made), here, price, often, tier),
        often=often,
    )


def settings_of(machine: compose.Machine) -> Settings:
    return compose.load_settings({n: getattr(machine, n) for n in ("engine", "cores", "memory")})


def _planner(analysis: str, spec: Any, settings: Settings) -> Planner:
    entry = catalogue.find(analysis)
    facts, folder = entry.load("facts")(spec), lessons.place(settings.cache)
    return Planner(lambda budget: entry.load("plan")(facts, budget), lessons.lessons(folder, analysis), folder)


def destination(tiers: Tiers, kind: str, label: str, plan: Callable[[Budget], Plan] | None) -> tuple[str, str]:
    """Queue and tier of a job of it; no tier where it fits none."""
    try:
        to = ordering.route(tiers, kind, label, plan)
    except DoesNotFit:
        return ordering.route(tiers, kind, label, None).queue, ""
    return to.queue, to.tier


def how_often(every: str | float | None, trace: str | os.PathLike[str] | None, queue: str) -> Often | None:
    """From an interval or a trace; None when neither is given, or no job of the queue is in the trace."""
    if every is not None and trace is not None:
        raise WrongQuestion(
            "A question comes once in so long, or as often as jobs of a trace: give one of every and trace."
        )
    if every is not None:
        return quotes.every(every)
    if trace is None:
        return None
    from millrace.autoscale.traces import read_trace

    return quotes.as_in_trace(read_trace(Path(trace)), queue)


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
