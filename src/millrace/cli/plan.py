"""`millrace plan ...`: what a question will take on this machine, without running it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from millrace.analyses import catalogue
from millrace.cli.analyse import analyses, asked, question_options
from millrace.cli.carry import machine_of
from millrace.cli.console import columns, say, say_json
from millrace.cli.options import DURATION, MACHINE, Option, Sectioned, json_option, machine_options
from millrace.cli.table import Entry, Table
from millrace.run.units import format_bytes, format_duration

if TYPE_CHECKING:
    from millrace.run.budget import Budget
    from millrace.settings import Settings

NOT_PLANNED = ("out", "deadline", "nice")


def command(name: str) -> click.Command:
    entries = analyses((entry for entry in catalogue.ENTRIES if entry.plan), f"{__name__}:analysis")
    entries.append(Entry("run", "your own function, one call an item", f"{__name__}:function"))
    about = """What a question will take on this machine: tasks, core-seconds, time, memory. Nothing is run, and
    only the heads of files are read where that is enough."""
    return Table(name, entries, about)


def analysis(name: str) -> click.Command:
    """`millrace plan NAME`, with the options of NAME."""
    entry = catalogue.find(name)

    def ask(**given: Any) -> int:
        from millrace.compose import load_settings
        from millrace.forecast import forecast

        settings = load_settings({n: given[n] for n in ("engine", "cores", "memory")})
        machine = machine_of(given, store=settings.store)
        made = forecast(name, asked(entry, given), machine, given["every"], given["trace"])
        if given["json"]:
            say_json(made.as_dict())
        else:
            say(made.lines())
        return 0

    params = [*question_options(entry), *machine_options(NOT_PLANNED), *often_options(), json_option()]
    said = f"What `millrace {' '.join(entry.path)}` will take. It is not run."
    return Sectioned(entry.path[-1], params=params, callback=ask, help=said)


def often_options() -> list[Option]:
    """How often the question comes."""
    every = "the question is asked once in so long: tells money a month"
    trace = "it comes as often as jobs of its queue in this CSV of arrivals (see `millrace scale simulate`)"
    return [
        Option(["--every"], type=DURATION, metavar="TIME", section=MACHINE, help=every),
        Option(["--trace"], type=click.Path(dir_okay=False), metavar="FILE", section=MACHINE, help=trace),
    ]


def function(name: str) -> click.Command:
    """`millrace plan run MODULE:FUNCTION --items FILE`."""
    from millrace.cli.run import asked as asked_of_run

    def ask(**given: Any) -> int:
        told = of_function(given)
        if given["json"]:
            often = told["often"]
            say_json(told | {"often": often and asdict(often), "tiers": [asdict(q) for q in told["tiers"]]})
        else:
            say(function_lines(told))
        return 0

    params = [*asked_of_run(), *machine_options(NOT_PLANNED), *often_options(), json_option()]
    about = """What `millrace run` will take, as far as anybody can know before the function has run: how many items,
    how many of them are in the store already. It is not run."""
    return Sectioned(name, params=params, callback=ask, help=about)


def of_function(given: dict[str, Any]) -> dict[str, Any]:
    """Counts; what only a run can tell is None."""
    from millrace.cli.run import items_of
    from millrace.compose import budget_of, load_settings
    from millrace.run.function import find_function

    settings = load_settings({n: given[n] for n in ("engine", "cores", "memory")})
    function = find_function(given["function"])
    items = items_of(given)
    budget = budget_of(settings)
    slots = min(budget.cores, max(1, len(items)))
    stored = known(function, items, given["seed"], given["store"] or str(settings.store))
    told = {
        "analysis": "run", "function": given["function"], "tasks": len(items), "in_store": stored, "slots": slots,
        "budget_bytes": budget.private_bytes, "core_s": None, "wall_s": None, "worker_bytes": None, "money": None,
        "price": settings.core_hour_price, "example": settings.origin("core_hour_price") == "default", "runs": 0,
        "month_money": None, "often": None, "tiers": (),
    }  # fmt: skip
    return told | _learnt(function, len(items) - (stored or 0), budget, settings, given)


def _learnt(function: Any, tasks: int, here: Budget, settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """What earlier runs of this function on this host teach; empty before the first."""
    from millrace import compose, forecast, lessons, quotes
    from millrace.diagnose.forecast import money
    from millrace.run.budget import Plan, fit

    named, folder = lessons.method_of(function), lessons.place(settings.cache)
    taught = lessons.lessons(folder, "run", named)
    if not taught:
        return {}
    peak = max(one.worker_bytes for one in taught)
    needed = Plan("run", named, tasks, 1, min(here.cores, max(1, tasks)), peak, 0, 0, 0, float(tasks))
    planner = forecast.Planner(lambda budget: fit(needed, budget), taught, folder)
    made, price = planner.correct(needed), settings.core_hour_price
    tiers = compose.tiers_of(settings)
    queue, tier = forecast.destination(tiers, "run", "run", None)
    often = forecast.how_often(given["every"], given["trace"], queue)
    cost = money(made, price)
    return {
        "core_s": made.core_s, "wall_s": made.wall_s, "worker_bytes": peak or None, "money": cost, "runs": len(taught),
        "month_money": None if often is None else often.a_month * cost,
        "often": often, "tiers": quotes.quotes(tiers, planner.elsewhere(made), here, price, often, tier),
    }  # fmt: skip


def known(function: Any, items: list[Any], seed: int, place: str) -> int | None:
    """How many of these calls have their value in the store; None when the function has no identity."""
    import os

    from millrace.compose import open_store
    from millrace.run.canonical import Unkeyable
    from millrace.run.keys import Keys
    from millrace.run.urls import is_url

    if not is_url(place) and not os.path.isdir(place):
        return 0
    keys = Keys(seed)
    try:
        wanted = {keys.of(function, (item,)) for item in items}
    except Unkeyable:
        return None
    store = open_store(place)
    try:
        return len(wanted.intersection(store.keys()))
    finally:
        store.close()


def function_lines(told: dict[str, Any]) -> list[str]:
    from millrace.forecast import tier_lines

    kept = told["in_store"]
    rows = [
        ("function", told["function"]),
        ("tasks", f"{told['tasks']:,}, one an item"),
        (
            "in the store",
            f"{kept:,}" if kept is not None else "none: the function has no identity that a key can be made of",
        ),
        ("at once", f"up to {told['slots']}"),
        *_figures(told),
    ]
    return [*columns(rows), *tier_lines(told["tiers"])]


def _figures(told: dict[str, Any]) -> list[tuple[str, str]]:
    from millrace.forecast import cost, monthly

    everything = f"{format_bytes(told['budget_bytes'])} for all tasks together"
    if not told["runs"]:
        return [
            ("core-seconds", "unknown before it has run"),
            ("wall time", "unknown before it has run"),
            ("memory", f"unknown: its first item runs alone, with the whole of {everything}"),
        ]
    peak = told["worker_bytes"]
    return [
        ("core-seconds", f"about {told['core_s']:,.3g}, learnt from {told['runs']} of its runs here"),
        ("wall time", f"about {format_duration(told['wall_s'])} on this host"),
        ("money", cost(told["money"], told["price"], told["example"])),
        *([("money, a month", monthly(told["month_money"], told["often"]))] if told["often"] else []),
        (
            "memory",
            f"{format_bytes(peak)} a task at most so far; {everything}" if peak else f"not measured; {everything}",
        ),
    ]
