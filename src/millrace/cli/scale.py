"""`millrace scale simulate`: replays arrivals through the scaler's policy, beside other ways to scale. The others scale for
real: see `cli.scaler`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.console import columns, say, say_json
from millrace.cli.options import MACHINE, QUESTION, SAID, Option, Sectioned, json_option
from millrace.cli.table import Entry, Table
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.autoscale.compare import Row
    from millrace.autoscale.conditions import Faults
    from millrace.autoscale.contenders import Contender
    from millrace.autoscale.traces import Arrival
    from millrace.tiers import Tiers

ABOUT = "How many workers each tier has, and what that costs and does to those who wait."

HELP = """Replay arrivals of jobs through the policy that scales the tiers, and through others beside it.

The arrivals are those of --trace, or a synthetic day of --jobs-per-day; with neither, the trace that is shipped: five days
of heavy work of a team. Each seed draws other arrivals (or, over a file, other faults), and all rules get the same."""


def command(name: str) -> click.Command:
    entries = (
        Entry("run", "scale the tiers until Ctrl-C, a line a tier at each tick", "millrace.cli.scaler:run"),
        Entry("once", "one tick", "millrace.cli.scaler:once"),
        Entry("status", "what each tier has, is asked for, and what the scaler would do", "millrace.cli.scaler:status"),
        Entry("simulate", "replay arrivals through the policy and its peers: waits, costs", f"{__name__}:simulate"),
    )
    return Table(name, entries, ABOUT)


def simulate(name: str) -> click.Command:
    params = [
        _file("--trace", "CSV with the columns arrival_s, queue, seconds, and perhaps predicted_s, priority"),
        _asked("--jobs-per-day", float, "N", "a synthetic day of so many jobs, most of them light", click.FloatRange(1)),
        _asked("--days", int, "N", "days of the shipped or the synthetic trace", click.IntRange(1, 366)),
        _file("--tiers", "TOML of tiers and prices (not given: light, medium, heavy as they are shipped)"),
        _asked("--rule", str, "WORDS", "only rules whose name has these words; may be given again", multiple=True),
        _asked("--seeds", int, "N", "how often, with other random numbers", click.IntRange(1), 4),
        _asked("--error", float, "S", "error of predictions, sigma of the log", click.FloatRange(0), 0.0),
        _asked("--load", float, "X", "factor on the rate of the shipped trace", click.FloatRange(0, min_open=True), 1.0),
        _asked("--outages", float, "N", "outages of all signals, a day", click.FloatRange(0), 0.0),
        _asked("--outage", float, "S", "seconds that an outage lasts", click.FloatRange(0, min_open=True), 900.0),
        _asked("--failed-boots", float, "SHARE", "share of replicas that never come up", click.FloatRange(0, 0.95), 0.0),
        _asked("--strikes", float, "N", "replicas a day that die under their jobs", click.FloatRange(0), 0.0),
        _asked("--search", float, "SHARE", "try other bounds and idle times of each tier, and propose the cheapest by which at "
               "most SHARE of its jobs wait longer than its slo_s", click.FloatRange(0, 1)),
        Option(["--tick"], type=click.FloatRange(1), metavar="S", section=MACHINE, default=15.0, show_default=True,
               help="seconds between two looks of the scaler"),
        Option(["--chart"], type=click.Path(file_okay=False), metavar="DIR", section=SAID,
               help="also write a picture of each tier there (PNG and SVG)"),
        json_option(),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=told, help=HELP)


def told(**given: Any) -> int:
    from millrace.autoscale.compare import compare
    from millrace.autoscale.conditions import Faults
    from millrace.tiers import load_tiers

    tiers = load_tiers(Path(given["tiers"]) if given["tiers"] else None)
    faults = Faults(
        error=given["error"], failed_boots=given["failed_boots"], outages_per_day=given["outages"],
        outage_s=given["outage"], strikes_per_day=given["strikes"],
    )  # fmt: skip
    if given["search"] is not None:
        return _search(given, tiers, faults)
    rules = _rules(given["rule"], given["tick"])
    rows = compare(tiers, _traces(given), range(given["seeds"]), rules, faults, _progress())
    if given["json"]:
        say_json([row.as_dict() for row in rows])
    else:
        _say_tables(rows, tiers)
    if given["chart"]:
        _draw(rows, Path(given["chart"]), quiet=given["json"])
    return 0


def _search(given: dict[str, Any], tiers: Tiers, faults: Faults) -> int:
    from millrace.autoscale.search import search, table

    if given["rule"] or given["chart"]:
        raise WrongQuestion("--search tries settings of the shipped rule alone: leave out --rule and --chart.")
    traces, rules = _traces(given), _rules(["millrace"], given["tick"])
    queues = dict.fromkeys(job.queue for job in traces(0))
    told = []
    for tier in dict.fromkeys(tiers.of_queue(queue).name for queue in queues):
        own = frozenset(tiers.tier(tier).queues)

        def alone(seed: int, own: frozenset[str] = own) -> list[Arrival]:
            return [job for job in traces(seed) if job.queue in own]

        tried = search(tiers, tier, alone, range(given["seeds"]), rules[0], faults, given["search"], _progress())
        told += [{"tier": tier, "settings": one.tier.model_dump(include={"least", "most", "idle_s"}), "cost_month": one.cost,
                  "missed": one.missed, "good": one.good, "proposed": one.proposed} for one in tried]  # fmt: skip
        if not given["json"]:
            click.echo(f"{tier}: {len(tried)} settings tried; those that none beats in both cost and missed")
            say(columns(table(tried, tiers.prices.currency), right=range(1, 8)))
            if not any(one.proposed for one in tried):
                click.echo(f"None of them keeps the share of jobs that wait too long at {given['search']:.2%} or less.")
            click.echo()
    if given["json"]:
        say_json(told)
    return 0


def _traces(given: dict[str, Any]) -> Callable[[int], Sequence[Arrival]]:
    from millrace.autoscale.traces import read_trace, shipped_trace, synthetic

    if given["trace"] and (given["jobs_per_day"] or given["days"]):
        raise WrongQuestion("--trace has its own jobs and days: leave out --jobs-per-day and --days.")
    if given["trace"]:
        arrivals = read_trace(Path(given["trace"]))
        return lambda seed: arrivals
    if given["jobs_per_day"]:
        return lambda seed: synthetic(given["jobs_per_day"], seed, given["days"] or 1)
    return lambda seed: shipped_trace(seed, given["days"] or 5, given["load"])


def _rules(words: Sequence[str], tick_s: float) -> list[Contender]:
    from millrace.autoscale.contenders import contenders

    known = contenders(tick_s)
    exact = {word: [rule for rule in known if rule.name == word] for word in words}
    chosen = [r for r in known if not words or any(r in exact[w] or (not exact[w] and w in r.name) for w in words)]
    if not chosen:
        raise WrongQuestion(
            f"No rule has {' or '.join(words)!r} in its name; there are: {'; '.join(r.name for r in known)}."
        )
    return chosen


def _say_tables(rows: Sequence[Row], tiers: Tiers) -> None:
    from millrace.autoscale.compare import machines_table, queues_table, waiting_table

    for name in dict.fromkeys(row.tier for row in rows):
        own = [row for row in rows if row.tier == name]
        seeds = f"{own[0].seeds} seeds, means and 95 % intervals" if own[0].seeds > 1 else "one seed"
        click.echo(f"{name}: {own[0].mean('jobs'):,.0f} jobs in {own[0].mean('days'):.1f} days; {seeds}")
        say(columns(waiting_table(own), right=range(1, 10)))
        click.echo()
        say(columns(machines_table(own, tiers.prices), right=range(1, 10)))
        if any(len(row.queues) > 1 for row in own):
            click.echo()
            say(columns(queues_table(own), right=range(2, 7)))
        click.echo()


def _draw(rows: Sequence[Row], folder: Path, quiet: bool) -> None:
    from millrace.autoscale.pictures import waiting_and_machines
    from millrace.diagnose.charts import save_chart

    for name in dict.fromkeys(row.tier for row in rows):
        png, svg = save_chart(waiting_and_machines([row for row in rows if row.tier == name]), folder / f"scale-{name}")
        if not quiet:
            click.echo(f"Written: {png} and {svg.name}")


def _progress() -> Callable[[str], None]:
    """A line that is written over, when somebody watches."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda text: click.echo(f"\r\x1b[2K{text}\r", nl=False, err=True)


def _file(name: str, about: str) -> Option:
    return Option([name], type=click.Path(dir_okay=False), metavar="FILE", section=QUESTION, help=about)


def _asked(
    name: str, kind: type, metavar: str, about: str, bounds: Any = None, default: Any = None, multiple: bool = False
) -> Option:
    return Option([name], type=bounds or kind, metavar=metavar, section=QUESTION, help=about, default=default,
                  show_default=default is not None, multiple=multiple)  # fmt: skip
