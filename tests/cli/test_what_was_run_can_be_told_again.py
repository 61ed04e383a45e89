"""runs, report, cache, config, doctor: what lies on the machine, told from what lies there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal import Ended, is_one_paragraph, millrace

from millrace.cli.places import folder_of, runs_in
from millrace.run.errors import WrongQuestion

RUN = ("run", "simulate:square", "--items", "items.jsonl", "--engine", "inline")


@pytest.fixture(scope="module")
def ran(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two runs went well and one failed."""
    import shutil

    at = tmp_path_factory.mktemp("ran")
    for name in ("simulate.py", "items.jsonl"):
        shutil.copy(desk / name, at / name)
    assert millrace(*RUN, "--quiet", at=at) == Ended(0, "", "")  # quiet is quiet
    assert millrace("run", "simulate:bad", "--items", "items.jsonl", "--engine", "inline", at=at).code == 4
    assert millrace(*RUN, "--quiet", "--limit", "4", at=at).code == 0
    return at


def test_runs_are_listed_with_their_state_and_digest(ran: Path) -> None:
    past = runs_in(ran / "millrace-runs")
    assert [p.state for p in past] == ["done", "failed", "done"]  # as they were run, within one second, too
    assert [p.from_ns for p in past] == sorted(p.from_ns for p in past)
    done = millrace("runs", at=ran)
    assert done.code == 0
    lines = done.out.splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["run", "analysis", "started", "state", "tasks", "took", "digest"]
    for one in past:
        assert one.run_id in done.out
        assert one.digest[:12] in done.out
    said = json.loads(millrace("runs", "--json", at=ran).out)
    assert [one["run_id"] for one in said] == [one.run_id for one in past]
    assert all(one["digest"] for one in said if one["state"] == "done")


def test_runs_of_another_folder_and_of_none(ran: Path, tmp_path: Path) -> None:
    assert "no runs" in millrace("runs", at=tmp_path).out
    assert len(json.loads(millrace("runs", "--runs", ran / "millrace-runs", "--json", at=tmp_path).out)) == 3


def test_a_damaged_ledger_does_not_hide_the_other_runs(ran: Path, tmp_path: Path) -> None:
    good = runs_in(ran / "millrace-runs")[0]
    for name, text in {
        "empty": b"",
        "bytes": b"\x00\xff\n",
        "torn": (good.folder / "ledger.jsonl").read_bytes()[:-9],
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "ledger.jsonl").write_bytes(text)
    assert [(p.folder.name, p.state) for p in runs_in(tmp_path)] == [("torn", "running or killed")]


def test_a_run_is_found_by_folder_id_part_and_last(ran: Path) -> None:
    place = ran / "millrace-runs"
    first, *_, last = runs_in(place)
    assert folder_of("last", place) == last.folder
    assert folder_of(first.run_id, place) == first.folder
    assert folder_of(str(first.folder), place) == first.folder
    assert folder_of(first.run_id[-4:], place) == first.folder
    with pytest.raises(WrongQuestion, match="fits 3 runs"):
        folder_of("-run-", place)
    with pytest.raises(WrongQuestion, match="There is no run"):
        folder_of("yesterday", place)


def test_a_report_is_told_and_written_again(ran: Path) -> None:
    folder = folder_of("last", ran / "millrace-runs")
    (folder / "report.html").unlink()
    done = millrace("report", "last", at=ran)
    assert done.code == 0, done.err
    assert "core-seconds" in done.out
    assert (folder / "report.html").stat().st_size > 1000
    failed = next(p for p in runs_in(ran / "millrace-runs") if p.state == "failed")
    assert "three is not to be had" in failed.error
    said = json.loads(millrace("report", failed.run_id, "--json", at=ran).out)
    assert said["state"] == "failed"
    assert said["outcomes"]["raised"] == 1
    assert sum(said["parts_s"].values()) == pytest.approx(said["slots"] * said["wall_s"])


def test_the_cache_is_measured_exported_imported_used_and_made_smaller(ran: Path, tmp_path: Path) -> None:
    here = json.loads(millrace("cache", "size", "--json", at=ran).out)
    assert here["entries"] > 20
    assert here["size_bytes"] > 0
    assert str(here["entries"]) in millrace("cache", "size", at=ran).out

    exported, other = tmp_path / "exported.millrace", tmp_path / "other"
    assert f"Copied {here['entries']} entries" in millrace("cache", "export", exported, at=ran).out
    assert [path.name for path in tmp_path.iterdir()] == [exported.name]
    told = json.loads(millrace("cache", "import", exported, "--store", other, "--json", at=ran).out)
    assert told["entries"] == here["entries"]
    millrace("cache", "import", exported, "--store", other, "--json", at=ran)
    assert json.loads(millrace("cache", "size", "--store", other, "--json", at=ran).out)["entries"] == here["entries"]

    # The settings reach the run: it finds everything in that store.
    told = {"MILLRACE_STORE": str(other), "MILLRACE_RUNS": "those", "MILLRACE_MEMORY": "512MiB"}
    used = json.loads(millrace(*RUN, "--json", at=ran, **told).out)
    assert used["report"]["outcomes"] == {"cached": 24}
    assert used["report"]["memory"]["budget_bytes"] == 512 << 20
    assert (ran / "those" / used["run_id"] / "result.json").is_file()

    freed = json.loads(millrace("cache", "evict", "--to", "0B", "--store", other, "--json", at=ran).out)
    assert freed["size_bytes"] == 0
    assert freed["freed_bytes"] > 0


def test_what_is_no_export_is_not_taken_in(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"millrace or not, this is no export\x00\xff")
    done = millrace("cache", "import", "bytes", at=tmp_path)
    assert done.code == 2
    assert is_one_paragraph(done.err)


def test_a_cache_that_is_not_there_is_empty_and_is_not_made(tmp_path: Path) -> None:
    assert json.loads(millrace("cache", "size", "--json", at=tmp_path).out)["entries"] == 0
    assert millrace("cache", "evict", at=tmp_path).code == 0
    assert list(tmp_path.iterdir()) == []


def test_settings_are_shown_with_their_origin(tmp_path: Path) -> None:
    (tmp_path / "millrace.toml").write_text("cores = 1\n")
    done = millrace("config", "show", at=tmp_path, MILLRACE_MEMORY="2GiB")
    assert done.code == 0
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert "2GiB" in rows["memory"]
    assert "environment MILLRACE_MEMORY" in rows["memory"]
    assert "millrace.toml:1" in rows["cores"]
    assert json.loads(millrace("config", "show", "--json", at=tmp_path).out)["cores"]["value"] == "1"


def test_settings_that_cannot_be_are_named_and_exit_with_2(tmp_path: Path) -> None:
    assert millrace("config", "check", at=tmp_path).code == 0
    (tmp_path / "a_file").write_text("")
    done = millrace(
        "config", "check", at=tmp_path, MILLRACE_ENGINE="steam", MILLRACE_CORES="5000", MILLRACE_RUNS="a_file/runs"
    )
    assert done.code == 2
    for word in ("steam", "5000", "a_file"):
        assert word in done.out
    assert millrace("config", "check", at=tmp_path, MILLRACE_CORES="many").code == 2


def test_doctor_tells_the_machine_and_settings_to_paste(tmp_path: Path) -> None:
    done = millrace("doctor", at=tmp_path)
    assert done.code == 0, done.err
    assert "Cores" in done.out
    said = json.loads(millrace("doctor", "--json", at=tmp_path).out)
    assert said["slots"] >= 1
    pasted = [advice["line"] for advice in said["advice"] if advice["into"] == "millrace.toml"]
    (tmp_path / "millrace.toml").write_text("\n".join(pasted) + "\n")
    assert millrace("config", "check", at=tmp_path).code == 0
