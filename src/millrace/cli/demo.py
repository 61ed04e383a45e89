"""`millrace demo`: a model of real data, explained row by row, and what comes out of it.

The data are those of the RAND health insurance experiment (1974-1982), which lie inside the package statsmodels: what
20,190 people had to pay of their bills, how well they were, how often they saw a doctor. Nothing is downloaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.carry import print_result, shown, worked
from millrace.cli.console import columns, say
from millrace.cli.options import Sectioned, machine_options, said_options
from millrace.run.errors import MissingExtra
from millrace.run.units import format_bytes, format_duration

if TYPE_CHECKING:
    from pathlib import Path

    import lightgbm
    import pandas

HELP = """Trains a LightGBM model on real data (the RAND health insurance experiment: how often 20,190 people saw a
doctor), explains every one of its predictions exactly, and shows what was found, where the time went, and what was
written where."""

MEANINGS = {
    "lncoins": ("coinsurance", "the share of a bill that the person pays: log of 1 + percent"),
    "idp": ("deductible", "1 when the plan has one for the person"),
    "lpi": ("incentive", "what the person gets a year for taking part: log"),
    "fmde": ("family_maximum", "log of the most that a family pays in a year, 0 with a deductible"),
    "physlm": ("limitation", "1 when illness limits what the person can do"),
    "disea": ("chronic_diseases", "an index of them, 0 to 59"),
    "hlthg": ("good_health", "1 when the person calls his or her health good (all three 0: excellent)"),
    "hlthf": ("fair_health", "1 when fair"),
    "hlthp": ("poor_health", "1 when poor"),
}
TARGET = "mdvis"
TREES, LEAVES = 200, 31

WHAT = {
    "report.html": "all of this on one page, with pictures; it needs no network",
    "result.json": "the answer in short, the question, the plan, versions, the digest",
    "values.parquet": "the SHAP values, one row a person",
    "importance.parquet": "one row a feature: mean |value| with its interval, direction",
    "ledger.jsonl": "what every task did when; `millrace report` reads it",
}


def command(name: str) -> click.Command:
    params = [*machine_options(("deadline",)), *said_options(("fail_on_no",))]
    return Sectioned(name, params=params, callback=demo, help=HELP)


def demo(**given: Any) -> int:
    from millrace.compose import carry_out

    telling = not given["quiet"] and not given["json"]
    people, visits = load()
    if telling:
        click.echo(f"{len(people):,} people of the RAND health insurance experiment, {people.shape[1]} features;")
        click.echo(f"the question: what makes a person see a doctor more often than {visits.mean():.2f} times a year?")
        click.echo()
        say(columns([(f"  {name}", about) for name, about in MEANINGS.values()]))
        click.echo()
    began = time.monotonic()
    model = train(people, visits)
    if telling:
        trained = format_duration(time.monotonic() - began)
        click.echo(f"Trained LightGBM with {TREES} trees of {LEAVES} leaves (Poisson) in {trained}.")
    began = time.monotonic()
    answer = worked(given, lambda machine: carry_out("explain", {"model": model, "data": people}, machine))
    took = time.monotonic() - began
    if given["json"]:
        print_result(answer)
    elif telling:
        tell(answer, took)
    return 0


def load() -> tuple[pandas.DataFrame, pandas.Series[float]]:
    """(20,190 people x 9 features named in words, visits to a doctor in the year)."""
    try:
        from statsmodels.datasets import randhie
    except ImportError as e:
        raise MissingExtra("statsmodels", "all", "The demo") from e
    table = randhie.load_pandas().data
    return table[list(MEANINGS)].rename(columns={n: words for n, (words, _) in MEANINGS.items()}), table[TARGET]


def train(people: pandas.DataFrame, visits: pandas.Series[float]) -> lightgbm.Booster:
    """Visits are counts, hence Poisson; the same model on every run."""
    try:
        import lightgbm
    except ImportError as e:
        raise MissingExtra("lightgbm", "all", "The demo") from e
    options = {
        "objective": "poisson", "num_leaves": LEAVES, "learning_rate": 0.05, "min_child_samples": 60,
        "seed": 0, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
    }  # fmt: skip
    return lightgbm.train(options, lightgbm.Dataset(people, visits), TREES)


def tell(answer: Any, took_s: float) -> None:
    """Findings, time, files."""
    rows = len(answer.values)
    click.echo(f"Explained {rows:,} rows in {format_duration(took_s)}, reading, pictures and report included.")
    click.echo()
    say(answer.findings())
    click.echo()
    click.echo("Where the time went:")
    say(answer.report.lines())
    click.echo()
    click.echo(f"What lies in {shown(answer.out)}:")
    say(contents(answer.out))
    for note in answer.notes:
        click.echo(f"Note: {note}")
    click.echo()
    click.echo(f"Open {shown(answer.out / 'report.html')} in a browser; `millrace report last` tells the times again.")


def contents(folder: Path) -> list[str]:
    """The files of a run, what each is, and its size; a picture's forms on one line."""
    rows = [(f"  {name}", format_bytes((folder / name).stat().st_size), about) for name, about in WHAT.items()]
    forms: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".svg"):
            forms.setdefault(path.stem, []).append(path)
    for stem, paths in forms.items():
        sizes = ", ".join(format_bytes(path.stat().st_size) for path in paths)
        names = ", ".join(path.name for path in paths)
        rows.append((f"  {names}", sizes, f"a picture: {stem.replace('_', ' ')}"))
    return columns(rows)
