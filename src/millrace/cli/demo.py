"""`millrace demo`: a model of real data, explained row by row; then the effect of free care, tried to be broken.

The data are those of the RAND health insurance experiment (1974-1982), which lie inside the package statsmodels: what
20,190 people had to pay of their bills, how well they were, how often they saw a doctor. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.carry import shown, worked
from millrace.cli.console import columns, say
from millrace.cli.options import MACHINE, Option, Sectioned, machine_options, said_options
from millrace.run.errors import MissingExtra
from millrace.run.units import format_bytes, format_duration

if TYPE_CHECKING:
    import lightgbm
    import pandas

HELP = """Trains a LightGBM model on real data (the RAND health insurance experiment: how often 20,190 people saw a
doctor), explains every one of its predictions exactly, then estimates what free care does to the number of visits and
tries to break the estimate with 1,000 simulations of each test. Shows what was found, where the time went, and what was
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

FREE = "free_care"
HEALTH = ["limitation", "chronic_diseases", "good_health", "fair_health", "poor_health"]
"""What a person's health was before the plan: the common causes of having a plan and of seeing a doctor."""

WHAT = {
    "report.html": "all of this on one page, with pictures; it needs no network",
    "result.json": "the answer in short, the question, the plan, versions, the digest",
    "values.parquet": "the SHAP values, one row a person",
    "importance.parquet": "one row a feature: mean |value| with its interval, direction",
    "tests.parquet": "one row a test: its verdict, figures and sentence",
    "simulations.parquet": "one row a simulation: the effect that it found",
    "balance.parquet": "one row a common cause: the difference between the arms before and after adjustment",
    "ledger.jsonl": "what every task did when; `millrace report` reads it",
}


def command(name: str) -> click.Command:
    params = [
        Option(["--page"], is_flag=True, section=MACHINE,
               help="furnish a folder (--out, else millrace-demo), ask all five analyses as jobs, and be `millrace up` there"),
        *machine_options(("deadline",)), *said_options(("fail_on_no",)),
    ]  # fmt: skip
    return Sectioned(name, params=params, callback=demo, help=HELP)


def demo(**given: Any) -> int:
    if given.pop("page"):
        from millrace.cli.page import shown as page

        return page(Path(given["out"] or "millrace-demo"))
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
    if telling:
        took = format_duration(time.monotonic() - began)
        tell(f"Explained {len(answer.values):,} rows in {took}, reading, pictures and report included.", answer)
    began = time.monotonic()
    out = {"out": os.path.join(given["out"], "refute")} if given["out"] else {}
    refuted = worked({**given, **out}, lambda machine: carry_out("refute", question(people, visits), machine))
    if given["json"]:
        both = {
            a: json.loads((its.out / "result.json").read_text())
            for a, its in (("explain", answer), ("refute", refuted))
        }
        click.echo(json.dumps(both, indent=1))
    elif telling:
        took = format_duration(time.monotonic() - began)
        click.echo()
        tell(f"Tried to break the effect of free care on visits, 1,000 simulations of each test, in {took}.", refuted)
        click.echo()
        click.echo("Open a report.html in a browser; `millrace report last` tells the times again.")
    return 0


def question(people: pandas.DataFrame, visits: pandas.Series[float]) -> dict[str, Any]:
    """Free care (no share of the bill to pay) against having to pay some, given how well people were before."""
    table = people.assign(**{FREE: (people["coinsurance"] == 0).astype(float), "visits": visits})
    return {"data": table, "treatment": FREE, "outcome": "visits", "common_causes": HEALTH}


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


def tell(head: str, answer: Any) -> None:
    """Findings, time, files."""
    click.echo(head)
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


def contents(folder: Path) -> list[str]:
    """The files of a run, what each is, and its size; a picture's forms on one line."""
    rows = [
        (f"  {name}", format_bytes((folder / name).stat().st_size), about)
        for name, about in WHAT.items()
        if (folder / name).exists()
    ]
    forms: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".svg"):
            forms.setdefault(path.stem, []).append(path)
    for stem, paths in forms.items():
        sizes = ", ".join(format_bytes(path.stat().st_size) for path in paths)
        names = ", ".join(path.name for path in paths)
        rows.append((f"  {names}", sizes, f"a picture: {stem.replace('_', ' ')}"))
    return columns(rows)
