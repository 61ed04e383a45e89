"""Whatever is wrong with a question: one paragraph on stderr that names it, nothing on stdout, the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import is_one_paragraph, millrace

EXPLAIN = ("explain", "--engine", "inline")
GOOD = ("--model", "model.txt", "--data", "rows.csv")
RUN = ("run", "simulate:square", "--items", "items.jsonl")

WRONG = {
    "no such command": (("explian",), ("explian", "explain")),
    "no such option": (("explain", *GOOD, "--methd", "auto"), ("--methd", "--method")),
    "option left out": (("explain", "--data", "rows.csv"), ("--model",)),
    "a word too many": (("runs", "yesterday"), ("yesterday",)),
    "not a number": ((*RUN, "--cores", "two"), ("--cores", "two")),
    "too small a number": (("explain", *GOOD, "--top", "0"), ("--top", "0")),
    "not a size": ((*RUN, "--memory", "4G"), ("--memory", "4GiB")),
    "not a duration": ((*RUN, "--deadline", "soon"), ("--deadline", "9h")),
    "no such method": (("explain", *GOOD, "--method", "magic"), ("--method", "magic", "interventional")),
    "a method of later": (("explain", *GOOD, "--method", "gradient"), ("gradient", "kernel")),
    "an output of later": (("explain", *GOOD, "--output", "log_loss"), ("log_loss", "raw")),
    "an engine that there is not": ((*RUN, "--engine", "ray"), ("ray", "processes")),
    "no such model": (("explain", "--model", "gone.txt", "--data", "rows.csv"), ("gone.txt",)),
    "no such data": (("explain", "--model", "model.txt", "--data", "gone.csv"), ("gone.csv",)),
    "data of no known form": (("explain", "--model", "model.txt", "--data", "rows.doc"), ("rows.doc", ".parquet")),
    "bytes that are no table": (("explain", "--model", "model.txt", "--data", "broken.parquet"), ("broken.parquet",)),
    "bytes that are no model": (("explain", "--model", "broken.txt", "--data", "rows.csv"), ("broken.txt",)),
    "other columns": (("explain", "--model", "model.txt", "--data", "renamed.csv"), ("income", "salary")),
    "no function named": (("run", "simulate", "--items", "items.jsonl"), ("simulate", "MODULE:FUNCTION")),
    "no such module": (("run", "gone:f", "--items", "items.jsonl"), ("gone",)),
    "no such function": (("run", "simulate:cube", "--items", "items.jsonl"), ("simulate", "cube")),
    "not a function": (("run", "simulate:THREE", "--items", "items.jsonl"), ("THREE", "int")),
    "a module that needs another": (
        ("run", "unimportable:f", "--items", "items.jsonl"),
        ("a_package_that_nobody_has",),
    ),
    "a module with a slip": (("run", "wrong:f", "--items", "items.jsonl"), ("wrong", "SyntaxError")),
    "no such items": (("run", "simulate:square", "--items", "gone.jsonl"), ("gone.jsonl",)),
    "torn items": (("run", "simulate:square", "--items", "torn.jsonl"), ("torn.jsonl", "2")),
    "an answer below a file": ((*RUN, "--out", "rows.csv/below"), ("--out", "rows.csv")),
    "a store that is a file": ((*RUN, "--store", "rows.csv"), ("--store", "rows.csv")),
    "no such run": (("report", "yesterday"), ("yesterday", "millrace runs")),
    "no such export": (("cache", "import", "gone"), ("gone",)),
    "plan of no such data": (("plan", "explain", "--model", "model.txt", "--data", "gone.csv"), ("gone.csv",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_question_is_one_paragraph_and_exit_code_2(name: str, desk: Path) -> None:
    arguments, said = WRONG[name]
    done = millrace(*arguments, at=desk, MILLRACE_PROGRESS="off")
    assert done.code == 2, done.err
    assert done.out == ""
    ours = "".join(line for line in done.err.splitlines(True) if not line.startswith("[LightGBM]"))  # its own words
    assert is_one_paragraph(ours), done.err
    assert ours.startswith("millrace: ")
    for word in said:
        assert word in done.err, done.err


def test_what_does_not_fit_says_what_would_and_exits_with_3(desk: Path) -> None:
    done = millrace(*EXPLAIN, *GOOD, "--memory", "100KiB", at=desk, MILLRACE_PROGRESS="off")
    assert done.code == 3
    assert is_one_paragraph(done.err)
    assert "--memory" in done.err


def test_a_function_that_raises_is_named_with_its_line_and_exits_with_4(desk: Path) -> None:
    done = millrace("run", "simulate:bad", "--items", "items.jsonl", "--engine", "inline", at=desk)
    assert done.code == 4
    assert is_one_paragraph(done.err), done.err
    for word in ("bad", "item 3", "three is not to be had", "simulate.py, line"):
        assert word in done.err


def test_the_traceback_is_shown_on_request(desk: Path) -> None:
    question = ("run", "simulate:bad", "--items", "items.jsonl", "--engine", "inline")
    done = millrace(*question, at=desk, MILLRACE_TRACEBACK="1")
    assert done.code == 4
    assert 'raise ValueError("three is not to be had")' in done.err
    assert millrace("--traceback", "report", "yesterday", at=desk).err.startswith("Traceback")


def test_a_worker_that_dies_again_and_again_is_an_error_and_not_a_hang(desk: Path) -> None:
    done = millrace("run", "simulate:dies", "--items", "items.jsonl", "--limit", "1", "--engine", "processes", at=desk)
    assert done.code == 4
    assert is_one_paragraph(done.err), done.err
    assert "dies" in done.err


def test_a_task_beyond_the_memory_says_so_and_the_command_lives(desk: Path) -> None:
    question = ("run", "simulate:greedy", "--items", "items.jsonl", "--limit", "1", "--engine", "processes")
    done = millrace(*question, "--memory", "300MiB", at=desk)
    assert done.code in (3, 4)
    assert is_one_paragraph(done.err), done.err
    assert "memory" in done.err


def test_a_reader_that_left_is_no_bug(desk: Path) -> None:
    import subprocess

    from terminal import COMMAND, environment

    command = " ".join([*COMMAND, "config", "show", "--json"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        cwd=desk,
        env=environment(desk),
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""


def test_what_is_not_ours_is_said_to_be_a_bug(desk: Path) -> None:
    """As when an installation is broken."""
    broken = desk / "broken_installation"
    (broken / "millrace_breaks").mkdir(parents=True, exist_ok=True)
    (broken / "sitecustomize.py").write_text(
        "import millrace.run.tables as t\n"
        "def read_items(path):\n    raise ZeroDivisionError('a slip of ours')\n"
        "t.read_items = read_items\n"
    )
    done = millrace("run", "simulate:square", "--items", "items.jsonl", at=desk, PYTHONPATH=str(broken))
    assert done.code == 4
    assert "Traceback" in done.err
    assert "bug in millrace" in done.words
    assert "ZeroDivisionError" in done.words
