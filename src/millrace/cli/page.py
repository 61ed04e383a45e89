"""`millrace demo --page`: a folder with small inputs, a job of each of the five analyses, and `millrace up` there."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from millrace.cli import demo

HOME = Path(__file__).parent / "tour"
PEOPLE = 6_000


def shown(folder: Path) -> int:
    """Furnish the folder, where that was not done before, and become `millrace up` in it."""
    from millrace import ordering
    from millrace.compose import load_settings, open_jobs

    folder = folder.absolute()
    new = not (folder / "millrace-jobs").exists()
    if new:
        furnish(folder)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    if new:
        desk = open_jobs(load_settings({}))
        try:
            for kind, name, file in (
                ("model", "visits", "visits.txt"),
                ("data", "people", "people.parquet"),
                ("data", "rows", "rows.parquet"),
            ):
                ordering.register(desk, kind, name, Path(file))
            for analysis, label, question in questions():
                job = ordering.order(desk, analysis, question, label=label)
                click.echo(f"Job {job.id}: {analysis}, {label}.")
        finally:
            desk.table.close()
    click.echo(f"In {folder}: `millrace up`; its page tells how the jobs go. Ctrl-C stops; the folder stays.")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "millrace", "up"])


def furnish(folder: Path, people: int = PEOPLE) -> None:
    """The demo's first people and a model of them, and the files of `tour`."""
    shutil.copytree(HOME, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    rows, visits = (table[:people] for table in demo.load())
    demo.train(rows, visits).save_model(folder / "visits.txt")
    rows.to_parquet(folder / "rows.parquet", index=False)
    asked = demo.question(rows, visits)["data"]
    asked[[*demo.HEALTH, demo.FREE, "visits"]].to_parquet(folder / "people.parquet", index=False)


def questions() -> list[tuple[str, str, dict[str, Any]]]:
    """(analysis, label, question), each of which takes some seconds."""
    study = tomllib.loads(Path("study.toml").read_text("utf-8"))
    return [
        ("explain", "what makes people see a doctor", {"model": "visits", "data": "rows"}),
        ("refute", "does free care", {
            "data": "people", "treatment": demo.FREE, "outcome": "visits", "common_causes": demo.HEALTH, "simulations": 200,
        }),
        ("twin fit", "people like them", {"data": "people", "outcome": "visits", "treatment": demo.FREE}),
        ("calibrate", "how contagious", {**study, "targets": [{"name": n, **t} for n, t in study["targets"].items()]}),
        ("validate", "which programs are right", {"candidates": "samples.jsonl", "cases": "problems.jsonl"}),
    ]  # fmt: skip
