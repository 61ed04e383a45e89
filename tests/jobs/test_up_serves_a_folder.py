"""The real commands: `millrace up` on a fresh folder, submissions, kills, Ctrl-C; answers equal those of the other faces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pyarrow
import pytest
from deskwork import WORK, alive, millrace, until
from pyarrow import parquet

import millrace as mr
from millrace.compose import Machine, load_settings, map_function, open_jobs
from millrace.jobs.table import JobTable
from millrace.run.errors import WrongQuestion

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 1
most = 1
at_once = 2
[tiers.medium]
least = 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "tiers.toml").write_text(TIERS)
    (tmp_path / "items.jsonl").write_text("".join(f"{i}\n" for i in range(8)))
    (tmp_path / "millrace.toml").write_text('tiers = "tiers.toml"\nstore = "store"\n')
    return tmp_path


def said(folder: Path, *words: str) -> dict[str, object]:
    ended = millrace(folder, *words, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)  # type: ignore[no-any-return]


@contextmanager
def up(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (folder / "up.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "millrace", "up", "--port", "0"], cwd=folder, stderr=log, text=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(120)


def table(folder: Path) -> JobTable:
    return open_jobs(load_settings({"jobs": str(folder / "millrace-jobs")})).table


def ended(folder: Path, count: int) -> bool:
    if not (folder / "millrace-jobs" / "jobs.sqlite").exists():
        return False
    opened = table(folder)
    try:
        return sum(job.ended_at is not None for job in opened.jobs()) >= count
    finally:
        opened.close()


def write_inputs(folder: Path) -> None:
    import lightgbm

    numbers = numpy.random.default_rng(0)
    x = numbers.normal(size=(400, 3))
    drug = (x[:, 0] + numbers.normal(size=400) > 0).astype(float)
    visits = drug + x[:, 0] + numbers.normal(size=400)
    options = {"num_leaves": 7, "num_threads": 1, "verbosity": -1, "seed": 0, "deterministic": True}
    lightgbm.train(options, lightgbm.Dataset(x, visits), 10).save_model(folder / "model.txt")
    parquet.write_table(pyarrow.table({f"Column_{j}": x[:, j] for j in range(3)}), folder / "rows.parquet")
    columns = {"age": x[:, 0], "drug": drug, "visits": visits}
    parquet.write_table(pyarrow.table(columns), folder / "people.parquet")


def test_every_analysis_is_a_job_with_the_answer_of_the_other_faces(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(folder)
    assert millrace(folder, "register", "model", "churn", "model.txt").returncode == 0
    with up(folder):
        explained = said(folder, "submit", "explain", "--model", "churn", "--data", "rows.parquet", "--key", "k")
        again = said(folder, "submit", "explain", "--model", "churn", "--data", "rows.parquet", "--key", "k")
        assert again["id"] == explained["id"] and explained["tier"] == "light"
        causes = ("--treatment", "drug", "--outcome", "visits", "--common-causes", "age")
        refuted = said(
            folder, "submit", "refute", "--data", "people.parquet", *causes, "--simulations", "50", "--seed", "3"
        )
        mapped = said(folder, "submit", "run", "work:square", "--items", "items.jsonl")
        results = {
            job["analysis"]: said(folder, "result", str(job["id"]), "--wait") for job in (explained, refuted, mapped)
        }
        told = said(folder, "job", str(refuted["id"]))
    monkeypatch.chdir(folder)
    assert results["explain"]["digest"] == mr.explain("model.txt", "rows.parquet", engine="inline").digest
    wanted = mr.refute(
        "people.parquet", "drug", "visits", common_causes=["age"], simulations=50, seed=3, engine="inline"
    )
    assert results["refute"]["digest"] == wanted.digest
    assert results["run"]["digest"] == map_function("work:square", range(8), Machine(engine="inline")).digest
    assert told["predicted_core_s"] and told["peak_bytes"] and told["core_s"]


def test_python_submits_objects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(folder)
    monkeypatch.chdir(folder)
    rows = parquet.read_table("rows.parquet")
    job = mr.submit.explain("model.txt", rows)
    with pytest.raises(WrongQuestion, match="has no result"):
        mr.submit.answer(job)
    with up(folder):
        until(lambda: mr.submit.look(job).ended_at)
    assert mr.submit.look(job).state == "succeeded", mr.submit.look(job).why
    digest = json.loads((mr.submit.answer(job) / "result.json").read_text())["digest"]
    assert digest == mr.explain("model.txt", rows, engine="inline").digest


def test_a_second_up_says_who_holds_the_folder_and_health_is_told(folder: Path) -> None:
    with up(folder) as first:
        until(lambda: "http" in (folder / "up.log").read_text())
        url = next(word for word in (folder / "up.log").read_text().split() if word.startswith("http")).rstrip(";")
        url += "/healthz"

        def healthy() -> bool:
            with urllib.request.urlopen(url, timeout=10) as answer:
                told = json.load(answer)
            return bool(told["status"] == "ok" and told["workers"].get("light"))

        until(healthy)
        second = millrace(folder, "up", "--port", "0")
        assert second.returncode == 2 and f"by process {first.pid}" in second.stderr, second.stderr


def test_up_is_killed_and_a_new_one_ends_every_job_once(folder: Path) -> None:
    """kill -9 of `up`: its workers and their jobs go with it, and no finished item is computed again but the last."""
    job = said(folder, "submit", "run", "work:slow", "--items", "items.jsonl")
    with up(folder) as first:
        until(lambda: (folder / "calls.log").exists() and len((folder / "calls.log").read_text().split()) >= 3)
        opened = table(folder)
        pids = [worker.pid for worker in opened.workers()]
        opened.close()
        first.kill()
        first.wait()
        until(lambda: not any(alive(pid) for pid in pids))
    with up(folder):
        until(lambda: ended(folder, 1))
    assert said(folder, "job", str(job["id"]))["state"] == "succeeded"
    values = (folder / "millrace-jobs" / "work" / str(job["id"])).glob("*/results.jsonl")
    assert [path.read_text().split() for path in values] == [[str(i + 1) for i in range(8)]]


def test_ctrl_c_drains_and_a_heavy_job_brings_its_worker(folder: Path) -> None:
    """Heavy has no worker until there is a job for it; what runs at Ctrl-C is queued again."""
    job = said(folder, "submit", "run", "work:slow", "--items", "items.jsonl", "--queue", "causal")
    assert "no worker of the tier heavy" in str(said(folder, "job", str(job["id"]))["waits"])
    with up(folder) as serving:
        until(lambda: (folder / "calls.log").exists())
        serving.send_signal(signal.SIGINT)
        assert serving.wait(120) == 0
    assert said(folder, "job", str(job["id"]))["state"] in ("queued", "succeeded")
    opened = table(folder)
    assert opened.workers() == []
    opened.close()


def test_wrong_orders_are_said_before_anything_is_queued(folder: Path) -> None:
    for words, why in (
        (("run", "work:square", "--items", "nothing.jsonl"), "There is no file nothing.jsonl"),
        (("run", "work:square", "--items", "items.jsonl", "--queue", "fast"), "There is no queue 'fast'"),
        (("run", "work:none", "--items", "items.jsonl"), "has no 'none'"),
    ):
        told = millrace(folder, "submit", *words)
        assert told.returncode == 2 and why in told.stderr, told.stderr
    assert millrace(folder, "job", "77").returncode == 2
    assert said(folder, "jobs") == []


def test_a_worker_of_another_version_is_refused(folder: Path) -> None:
    from millrace.jobs.table import Seen

    opened = table(folder)
    now = opened.clock()
    opened.see(Seen("old", "light", "h", os.getpid(), "0.0.1", "idle", 1, 1, now, now))
    opened.close()
    told = millrace(folder, "worker", "--tier", "light")
    assert told.returncode == 2 and "0.0.1" in told.stderr, told.stderr
    assert millrace(folder, "worker", "--tier", "huge").returncode == 2


@pytest.mark.slow
def test_analyses_with_verbs_are_jobs_with_the_answer_of_their_commands(folder: Path) -> None:
    """What is asked by a folder, and what is asked by a file with options."""
    for source in (Path(__file__).parents[2] / "examples" / "calibrate_sir").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "programs").mkdir()
    (folder / "programs" / "right.py").write_text("def f(x):\n    return x + 1\n")
    (folder / "programs" / "wrong.py").write_text("def f(x):\n    return x\n")
    (folder / "cases.jsonl").write_text('{"input": 1, "expected": 2}\n{"input": 3, "expected": 4}\n')
    asked = (
        ("validate", "run", "--candidates", "programs", "--cases", "cases.jsonl"),
        ("calibrate", "run", "study.toml", "--trials", "8"),
    )
    with up(folder):
        jobs = [said(folder, "submit", *words) for words in asked]
        answers = [said(folder, "result", str(job["id"]), "--wait") for job in jobs]
    for words, answer in zip(asked, answers, strict=True):
        assert said(folder, *words, "--store", "elsewhere")["digest"] == answer["digest"]
