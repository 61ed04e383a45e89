"""`millrace demo`: a model of real data, explained row by row, and what comes out of it.

The data are those of the RAND health insurance experiment (1974-1982), which lie inside the package statsmodels: what
20,190 people had to pay of their bills, how well they were, how often they saw a doctor. Nothing is downloaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from millrace.cli.carry import shown, worked
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
    "lncoins": ("log of coinsurance", "the share of a bill that the person pays: log of 1 + percent"),
    "idp": ("individual deductible", "1 when the plan has a deductible for the person"),
    "lpi": ("log of incentive", "log of the yearly payment for taking part"),
    "fmde": (
        "log of family maximum",
        "log of the most that a family pays in a year, 0 with an individual deductible",
    ),
    "physlm": ("physical limitation", "1 when illness limits what the person can do"),
    "disea": ("chronic diseases", "an index of chronic diseases"),
    "hlthg": ("health good", "1 when the person calls his or her health good (the others: excellent)"),
    "hlthf": ("health fair", "1 when fair"),
    "hlthp": ("health poor", "1 when poor"),
}
TARGET = "mdvis"
TREES, LEAVES = 300, 31


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
    began = time.monotonic()
    model = train(people, visits)
    if telling:
        trained = format_duration(time.monotonic() - began)
        click.echo(f"Trained LightGBM with {TREES} trees of {LEAVES} leaves (Poisson) in {trained}.")
    began = time.monotonic()
    answer = worked(given, lambda machine: carry_out("explain", {"model": model, "data": people}, machine))
    took = time.monotonic() - began
    if given["json"]:
        click.echo((answer.out / "result.json").read_text(), nl=False)
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
        "objective": "poisson", "num_leaves": LEAVES, "learning_rate": 0.03, "min_child_samples": 60,
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


WHAT = {
    "report.html": "all of this on one page, with pictures; needs no network",
    "result.json": "the answer in short, the question, the plan, versions, the digest",
    "values.parquet": "the SHAP values, one row a person",
    "importance.parquet": "one row a feature: mean |value| with its interval, direction",
    "ledger.jsonl": "what every task did when; `millrace report` reads it",
}


def contents(folder: Path) -> list[str]:
    """The files of a run, what each is, and its size."""
    rows = []
    files = [path for path in folder.iterdir() if not path.name.endswith(".vl.json")]
    for path in sorted(files, key=lambda p: (p.name not in WHAT, p.name)):
        what = WHAT.get(path.name, f"a picture: {path.stem.replace('_', ' ')}")
        rows.append((f"  {path.name}", format_bytes(path.stat().st_size), what))
    return columns(rows, right=(1,))
