"""What the page of twin shows runs as it stands, in Python and on the command line."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import populations
import pytest
from pyarrow import csv, parquet

from millrace.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "twin.md").read_text()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that the page names."""
    for name, seed in (("people.csv", 0), ("held.csv", 1)):
        table = populations.people(600, seed).drop_columns(["id"])
        csv.write_csv(
            table.rename_columns(["region" if n == "country" else n for n in table.column_names]), tmp_path / name
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def test_the_python_of_the_page_runs(here):
    small = blocks("python")[0].replace("100_000", "1_000").replace("5_000", "200")
    exec(compile(small, "docs/twin.md", "exec"), {})
    west = parquet.read_table(here / "west.parquet").to_pylist()
    assert len(west) == 200
    assert all(row["age"] >= 60 and row["region"] == "west" for row in west)
    assert (here / "fidelity" / "report.html").exists()


def test_the_commands_of_the_page_run(here, capsys):
    for line in blocks("console")[0].splitlines():
        words = shlex.split(line.removeprefix("$ millrace "))
        assert main([*words, "--engine", "inline", "--store", os.fspath(here / "store")]) == 0, line
    said = capsys.readouterr().out
    assert "They are drawn so, not filtered" in said
    assert "No twin breaks a constraint" in said


def test_the_schema_of_the_page_is_read():
    import tomllib

    from millrace.analyses.twin.source import read_schema

    schema = read_schema(tomllib.loads(blocks("toml")[0]))
    assert schema.columns["id"]["kind"] == "key"
    assert len(schema.constraints) == 2


def test_every_measure_of_the_page_is_in_the_answer():
    from millrace.analyses.twin.fidelity import Fidelity

    for name in ("shapes", "trends", "margins", "c2st", "utility", "violations", "privacy", "coverage"):
        assert name in Fidelity.__dataclass_fields__
