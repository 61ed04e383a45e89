"""A good question: a short text on stdout, progress on stderr, all in a folder; --json is JSON and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ITEMS
from terminal import Ended, millrace

EXPLAIN = ("explain", "--model", "model.txt", "--data", "rows.csv")
WRITTEN = ("report.html", "result.json", "ledger.jsonl", "values.parquet", "importance.parquet")


@pytest.fixture(scope="module")
def told(desk: Path) -> Ended:
    return millrace(*EXPLAIN, "--out", "answer", "--engine", "inline", at=desk)


def test_an_explanation_is_told_in_sentences_and_says_where_it_lies(told: Ended, desk: Path) -> None:
    assert told.code == 0, told.err
    assert "600 rows x 4 features" in told.out
    assert "age" in told.out
    assert "Written to answer: report.html, result.json" in told.out
    assert "━" not in told.err  # a bar is for terminals
    for name in WRITTEN:
        assert (desk / "answer" / name).stat().st_size > 0
    assert {p.suffix for p in (desk / "answer").iterdir()} >= {".png", ".svg", ".html", ".parquet"}


def test_json_is_the_result_and_nothing_else_and_equal_on_every_engine(told: Ended, desk: Path) -> None:
    done = millrace(*EXPLAIN, "--json", "--engine", "processes", "--cores", "2", "--fail-on-no", at=desk)
    assert done.code == 0, done.err  # an explanation never says no
    said = json.loads(done.out)
    written = json.loads((desk / "answer" / "result.json").read_text())
    assert said["digest"] == written["digest"]
    assert said["answer"] == written["answer"]
    assert said["schema"] == 1
    assert said["spec"]["model"] == "model.txt"
    folder = desk / "millrace-runs" / said["run_id"]
    assert json.loads((folder / "result.json").read_text()) == said


def test_flat_values_become_a_table_and_limit_takes_the_first_items(desk: Path) -> None:
    from pyarrow import parquet

    done = millrace("run", "simulate:flat", "--items", "items.jsonl", "--limit", "3", "--out", "flat", at=desk)
    assert done.code == 0, done.err
    assert parquet.read_table(desk / "flat" / "results.parquet").to_pylist() == [
        {"item": i, "half": i / 2} for i in range(3)
    ]


def test_lines_of_a_text_file_and_rows_of_a_table_are_items(desk: Path) -> None:
    done = millrace("run", "simulate:words", "--items", "items.txt", "--out", "words", "--engine", "inline", at=desk)
    assert done.code == 0, done.err
    assert (desk / "words" / "results.jsonl").read_text().split() == ["2", "1"]
    told = json.loads(millrace("plan", "run", "builtins:len", "--items", "rows.csv", "--json", at=desk).out)
    assert told["tasks"] == 600


def test_no_items_is_an_answer_of_nothing(desk: Path) -> None:
    done = millrace(
        "run", "simulate:square", "--items", "none.jsonl", "--out", "nothing", "--engine", "inline", at=desk
    )
    assert done.code == 0, done.err
    assert (desk / "nothing" / "results.jsonl").read_text() == ""


def test_a_plan_tells_tasks_time_and_memory_and_runs_nothing(desk: Path) -> None:
    done = millrace("plan", *EXPLAIN, at=desk)
    assert done.code == 0, done.err
    for word in ("tasks", "at once", "core-seconds", "wall time", "memory, worker", "memory, all"):
        assert word in done.out


def test_an_option_of_the_question_and_one_of_the_machine_reach_the_analysis(desk: Path) -> None:
    more = ("--limit", "7", "--method", "interventional", "--background", "rows.parquet", "--cores", "1")
    said = json.loads(millrace("plan", *EXPLAIN, *more, "--json", at=desk).out)
    assert (said["method"], said["slots"], said["block"]) == ("interventional", 1, 7)
    assert said["peak_bytes"] == said["driver_bytes"] + said["worker_bytes"]


def test_the_plan_of_a_function_knows_what_is_in_the_store_and_makes_nothing_up(desk: Path) -> None:
    question = ("run", "simulate:flat", "--items", "items.jsonl", "--store", "planned")
    new = str(desk / "new")  # of a user whose runs have taught nothing yet
    before = json.loads(millrace("plan", *question, "--json", at=desk, XDG_CACHE_HOME=new).out)
    assert (before["tasks"], before["in_store"], before["core_s"]) == (ITEMS, 0, None)
    assert millrace(*question, "--limit", "5", "--quiet", at=desk, XDG_CACHE_HOME=new).code == 0
    done = millrace("plan", *question, at=desk, XDG_CACHE_HOME=new)
    assert "in the store  5" in done.out
    assert "learnt from 1 of its runs here" in done.out
