"""One command tells what was printed: a number is a job, everything else a run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from millrace import compose, ordering
from millrace.cli import logs
from millrace.cli.main import main


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Path]:
    """The number of a job that nobody has carried out yet, and where what it prints would lie."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "printing.py").write_text("def one(x):\n    print(x)\n    return x\n")
    (tmp_path / "items.jsonl").write_text("1\n2\n")
    desk = compose.open_jobs(compose.load_settings({}))
    found = ordering.order(desk, "run", {"function": "printing:one", "items": Path("items.jsonl")})
    folder = desk.folder(found.id)
    desk.table.close()
    return found.id, folder / "log.txt"


def test_a_number_is_a_job(job: tuple[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    number, log = job
    assert main(["logs", str(number)]) == 0 and capsys.readouterr().out == ""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("1\n2\n")
    assert main(["logs", str(number)]) == 0 and capsys.readouterr().out == "1\n2\n"
    assert main(["logs", str(number), "--trial", "3"]) == 2
    assert "leave out --trial" in capsys.readouterr().err


def test_a_job_is_followed_to_its_end(
    job: tuple[int, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number, log = job
    monkeypatch.setattr(logs, "POLL_S", 0.02)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("first\n")

    def go_on() -> None:
        time.sleep(0.3)
        with log.open("a") as file:
            file.write("last\n")
        desk = compose.open_jobs(compose.load_settings({}))
        desk.table.cancel(number)
        desk.table.close()

    thread = threading.Thread(target=go_on)
    thread.start()
    assert main(["logs", str(number), "--follow"]) == 0
    thread.join()
    assert capsys.readouterr().out == "first\nlast\n"


def test_what_is_no_number_is_a_run(job: tuple[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "nothing-of-that-name"]) == 2
    assert "nothing-of-that-name" in capsys.readouterr().err
    assert main(["logs", "last", "--follow"]) == 2
    assert "--follow is for a job" in capsys.readouterr().err
    assert main(["logs", "99"]) != 0
