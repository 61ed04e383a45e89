"""`millrace logs`: one command. A number is a job, anything else a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deskwork import Office

from millrace.cli.main import COMMANDS, main
from millrace.jobs.states import Told
from millrace.testing.jobs import MUCH


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "millrace.toml").write_text('jobs = "jobs"\nruns = "runs"\n')
    return Office(tmp_path)


def _record(folder: Path, *records: dict[str, object]) -> None:
    """A run's ledger as calibrate writes it."""
    folder.mkdir(parents=True)
    head = {
        "record": "run", "schema": 1, "run_id": folder.name, "analysis": "calibrate", "slots": 1, "from_ns": 0,
        "started_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in (head, *records)))


def test_every_command_is_there_once() -> None:
    names = [entry.name for entry in COMMANDS]
    assert len(names) == len(set(names)), "the second of a name hides the first"


def test_a_number_is_a_job(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    job = office.submit("square", [1])
    log = office.desk.folder(job.id) / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("one line\n")
    _record(office.folder / "runs" / "1-a-run")
    assert main(["logs", str(job.id)]) == 0
    assert capsys.readouterr().out == "one line\n"
    assert main(["logs", str(job.id), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"job": job.id, "log": "one line\n"}
    held = office.desk.table.claim("w", job.tier, MUCH, 1)
    assert held is not None
    office.desk.table.settle(held, Told("raised", "wrong"))
    assert main(["logs", str(job.id), "--follow"]) == 0
    assert capsys.readouterr().out == "one line\n"
    assert main(["logs", "77"]) == 2 and "There is no job 77" in capsys.readouterr().err


def test_anything_else_is_a_run(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    printed = {"record": "printed", "trial": 3, "seed": 1, "text": "hello"}
    failed = {"record": "verdict", "trial": 4, "seed": 1, "message": "it broke"}
    _record(office.folder / "runs" / "1-calibrate", printed, failed)
    assert main(["logs", "1-cal"]) == 0
    assert capsys.readouterr().out == "== trial 3, seed 1 printed\nhello\n== trial 4, seed 1: it broke\n"
    assert main(["logs", "last", "--trial", "4"]) == 0
    assert capsys.readouterr().out == "== trial 4, seed 1: it broke\n"
    assert main(["logs", "nothing"]) == 2 and "There is no run 'nothing'" in capsys.readouterr().err


def test_an_option_of_the_other_kind_is_refused(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    job = office.submit("square", [1])
    _record(office.folder / "runs" / "1-calibrate")
    assert main(["logs", str(job.id), "--trial", "1"]) == 2
    assert "--trial does not go with a job" in capsys.readouterr().err
    assert main(["logs", "last", "--follow"]) == 2
    assert "--follow does not go with a run" in capsys.readouterr().err
