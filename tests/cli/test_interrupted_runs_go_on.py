"""Stopped by Ctrl-C, by SIGTERM, by kill -9: what was finished is kept, and the same command computes the rest only."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ITEMS
from terminal import COMMAND, environment, is_one_paragraph, millrace

from millrace.cli.places import runs_in
from millrace.testing.toys import until

QUESTION = ("run", "simulate:slow", "--items", "items.jsonl", "--engine", "processes", "--cores", "2")


@pytest.fixture
def bench(desk: Path, tmp_path: Path) -> Path:
    """A folder of its own: its store is its own, too."""
    for name in ("simulate.py", "items.jsonl"):
        shutil.copy(desk / name, tmp_path / name)
    return tmp_path


def calls(at: Path) -> list[int]:
    log = at / "calls.log"
    return sorted(map(int, log.read_text().split())) if log.exists() else []


def started(at: Path, enough: int, question: tuple[str, ...] = QUESTION) -> subprocess.Popen[str]:
    """The command, when it has called the function often enough."""
    process = subprocess.Popen(
        [*COMMAND, *question], cwd=at, env=environment(at), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(calls(at)) >= enough or process.poll() is not None)
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    return process


def at_work(at: Path) -> list[str]:
    """Processes whose working directory this is."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and process.joinpath("cwd").resolve(strict=True) == at.resolve():
                found.append(process.name)
    return found


def values(at: Path) -> list[int]:
    last = runs_in(at / "millrace-runs")[-1]
    return [int(line) for line in (last.folder / "results.jsonl").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_then_computes_the_rest_only(number: signal.Signals, bench: Path) -> None:
    process = started(bench, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Stopping" in err
    last = err.strip().splitlines()[-1]
    assert is_one_paragraph(last)
    done = calls(bench)
    assert 5 <= len(done) < ITEMS
    assert runs_in(bench / "millrace-runs")[-1].state == "paused"

    command = shlex.split(last.partition("Go on with: ")[2])
    assert command == ["python", "-m", "millrace", *QUESTION]
    again = subprocess.run(
        [sys.executable, *command[1:]], cwd=bench, env=environment(bench), capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert calls(bench) == list(range(ITEMS))  # each once, over both runs
    assert values(bench) == [i + 1 for i in range(ITEMS)]


def test_the_second_ctrl_c_stops_at_once_and_what_is_stored_stays(bench: Path) -> None:
    process = started(bench, 7, ("run", "simulate:long", *QUESTION[2:]))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = ""
    while "Stopping" not in said:  # one signal that comes before the other was heard would be one with it
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)  # two tasks are in flight that take ten minutes
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Go on with: " in err


def test_a_killed_run_leaves_no_process_and_goes_on_with_the_rest(bench: Path) -> None:
    process = started(bench, 12)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not at_work(bench))  # nobody works on
    before = calls(bench)
    assert runs_in(bench / "millrace-runs")[-1].state == "running or killed"
    done = millrace(*QUESTION, at=bench)
    assert done.code == 0, done.err
    after = calls(bench)
    assert set(after) == set(range(ITEMS))
    assert len(after) - ITEMS < len(before)  # what was in flight, or not yet handed to the store, is done again
    assert values(bench) == [i + 1 for i in range(ITEMS)]


def test_a_finished_run_is_not_computed_again(bench: Path) -> None:
    assert millrace(*QUESTION, "--limit", "3", at=bench).code == 0
    first = calls(
        bench
    )  # on a busy machine a task may be stolen while it begins, and run twice: its outcome counts once
    assert set(first) == {0, 1, 2}
    again = millrace(*QUESTION, "--limit", "3", at=bench)
    assert again.code == 0
    assert calls(bench) == first
    assert "3 of them from the store" in again.out
