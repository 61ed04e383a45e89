"""`mr.connect(url)` and `millrace --url URL ...`: what works here works there, with the same digest; errors are one paragraph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COLUMNS, Site
from pyarrow import parquet

import millrace as mr
from millrace.connecting import ServiceAway
from millrace.run.errors import WrongQuestion


@pytest.fixture
def far(site: Site):
    with mr.connect(site.url, token=site.tokens["ann"]) as service:
        yield service


def cli(site: Site, folder: Path, *words: str, token: str = "ann") -> subprocess.CompletedProcess[str]:
    import os

    env = {**os.environ, "MILLRACE_URL_TOKEN": site.tokens[token]}
    command = [sys.executable, "-m", "millrace", "--url", site.url, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env=env)


def test_objects_and_files_are_sent_by_content_and_the_digest_is_that_of_here(site: Site, far, tmp_path) -> None:
    import lightgbm

    model = lightgbm.Booster(model_file=str(site.folder / "model.txt"))
    rows = parquet.read_table(site.folder / "rows.parquet")
    job = far.submit.wait(far.submit.explain(model, rows, label="objects"))
    assert job["state"] == "succeeded", job["why"]
    wanted = mr.explain(model, rows, engine="inline").digest
    folder = far.submit.answer(job, out=tmp_path / "answer")
    assert job["digest"] == wanted == json.loads((folder / "result.json").read_text())["digest"]
    assert (folder / "report.html").stat().st_size > 1000 and list(folder.glob("*.parquet"))
    before = len(far.names())
    far.submit.cancel(far.submit.explain(model, rows))
    assert len(far.names()) == before, "what is there already is not sent again"


def test_a_refutation_of_a_frame(site: Site, far) -> None:
    people = parquet.read_table(site.folder / "people.parquet").to_pandas()
    job = far.submit.wait(far.submit.refute(people, "drug", "visits", common_causes=["age"], simulations=20, seed=5))
    wanted = mr.refute(people, "drug", "visits", common_causes=["age"], simulations=20, seed=5, engine="inline").digest
    assert job["digest"] == wanted, job["why"]


PROGRAMS = (
    {"task_id": "t/0", "completion": "    return 2 * x\n"}, {"task_id": "t/0", "completion": "    return x + 1\n"},
    {"task_id": "t/0", "completion": "    while True: pass\n"},
)  # fmt: skip
CASES = ({"task_id": "t/0", "prompt": "def double(x):\n", "entry_point": "double",
          "test": "def check(candidate):\n    assert candidate(3) == 6\n"},)  # fmt: skip
CALIBRATE = {"simulate": "work:spread", "parameters": {"middle": [0.0, 4.0]}, "targets": {"mean": 2.0}, "trials": 6,
             "replicates": 2, "sampler": "random"}  # fmt: skip


@pytest.mark.parametrize("analysis", ["calibrate", "validate", "twin fit"])
def test_the_other_analyses_have_the_digest_of_here(
    analysis: str, site: Site, far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site.folder))
    for name, rows in (("programs", PROGRAMS), ("cases", CASES)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    programs, cases = str(tmp_path / "programs.jsonl"), str(tmp_path / "cases.jsonl")
    people = str(site.folder / "people.parquet")
    here = {
        "calibrate": lambda: mr.calibrate(**CALIBRATE, engine="inline"),
        "validate": lambda: mr.validate(programs, cases, require_isolation=True, engine="inline"),
        "twin fit": lambda: mr.twin.fit(people, limit=300, engine="inline"),
    }
    there = {
        "calibrate": CALIBRATE, "validate": {"candidates": programs, "cases": cases},
        "twin fit": {"data": people, "limit": 300},
    }  # fmt: skip
    job = far.submit.wait(far.submit.submit(analysis, there[analysis]))
    assert job["digest"] == here[analysis]().digest, job["why"]
    if analysis == "twin fit":
        told = cli(site, tmp_path, "twin", "fit", "--data", people, "--limit", "300", "--json")
    elif analysis == "validate":
        told = cli(site, tmp_path, "validate", "run", "--candidates", programs, "--cases", cases, "--json")
    else:
        (tmp_path / "study.toml").write_text(
            'simulate = "work:spread"\ntrials = 6\nreplicates = 2\nsampler = "random"\n[parameters]\nmiddle = [0.0, 4.0]\n'
            "[targets]\nmean = 2.0\n"
        )
        told = cli(site, tmp_path, "calibrate", "run", "study.toml", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["digest"] == job["digest"]


def test_a_row_at_once(site: Site, far) -> None:
    row = dict.fromkeys(COLUMNS, 0.25)
    (here,) = mr.explainer(str(site.folder / "model.txt")).rows([row])
    told = far.row(str(site.folder / "model.txt"), row, form="minimal")
    assert told["values"][0] == here.values[:, 0].tolist()
    assert len(far.rows("churn", [row, row], form="top_k", top=1)) == 2


def test_a_plan_and_the_lists(site: Site, far) -> None:
    assert far.plan("explain", model="churn", data="rows")["tier"] == "light"
    job = far.submit.run("work:square", "items", key="of python")
    assert far.submit.run("work:square", "items", key="of python")["id"] == job["id"]
    assert far.submit.wait(job["id"])["state"] == "succeeded"
    assert job["id"] in [one["id"] for one in far.submit.jobs(limit=200)]


def test_wrong_questions_are_errors_of_python(site: Site, far) -> None:
    with pytest.raises(WrongQuestion, match="no data called 'nothing'"):
        far.submit.explain("churn", "nothing")
    with pytest.raises(WrongQuestion, match="does not let clients name 'os:system'"):
        far.submit.run("os:system", "items")
    with pytest.raises(WrongQuestion, match="has no result"):
        far.submit.answer(far.submit.run("work:square", "items", queue="reports"))
    with pytest.raises(WrongQuestion, match="cannot be sent as model"):
        far.submit.explain(object(), "rows")
    with pytest.raises(WrongQuestion, match="needs a token"), mr.connect(site.url, token="mr_no") as nobody:
        nobody.names()
    with pytest.raises(ServiceAway, match="cannot be reached"), mr.connect("http://127.0.0.1:9") as nowhere:
        nowhere.names()
    with pytest.raises(WrongQuestion, match="Where is the service"):
        mr.connect()


def test_a_command_is_carried_out_there(site: Site, tmp_path: Path) -> None:
    files = ("--model", str(site.folder / "model.txt"), "--data", str(site.folder / "rows.parquet"))
    there = cli(site, tmp_path, "explain", *files, "--out", "far")
    assert there.returncode == 0, there.stderr
    assert "Written to far" in there.stdout and "job " in there.stderr
    digest = mr.explain(files[1], files[3], engine="inline").digest
    assert json.loads((tmp_path / "far" / "result.json").read_text())["digest"] == digest


def test_jobs_are_looked_after_from_the_command_line(site: Site, tmp_path: Path) -> None:
    assert cli(site, tmp_path, "register", "data", "own", str(site.folder / "items.jsonl")).returncode == 0
    made = json.loads(
        cli(site, tmp_path, "submit", "run", "work:square", "--items", "own", "--label", "far one", "--json").stdout
    )
    result = cli(site, tmp_path, "result", str(made["id"]), "--wait", "--out", "answer")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "answer" / "results.jsonl").read_text().split()[3] == "9"
    assert "far one" in cli(site, tmp_path, "jobs").stdout
    assert "digest" in cli(site, tmp_path, "job", str(made["id"])).stdout
    bad = json.loads(cli(site, tmp_path, "submit", "run", "work:bad", "--items", "own", "--json").stdout)
    site.ended(bad["id"])
    assert "there is no such thing" in cli(site, tmp_path, "logs", str(bad["id"])).stdout
    assert "queued" in cli(site, tmp_path, "retry", str(bad["id"])).stdout
    assert "light" in cli(site, tmp_path, "plan", "refute", "--data", "people", "--treatment", "drug", "--outcome", "visits",
                          "--common-causes", "age").stdout  # fmt: skip
    (tmp_path / "many.jsonl").write_text("\n".join(map(str, range(100))))
    assert cli(site, tmp_path, "register", "data", "many", str(tmp_path / "many.jsonl")).returncode == 0
    waits = json.loads(
        cli(site, tmp_path, "submit", "run", "work:doze", "--items", "many", "--queue", "reports", "--json").stdout
    )
    said = cli(site, tmp_path, "cancel", str(waits["id"])).stdout
    assert "cancelled" in said or "is asked to stop" in said  # a worker for it may have come by now
    assert site.ended(waits["id"])["state"] == "cancelled"


def test_errors_of_commands_are_one_paragraph(site: Site, tmp_path: Path) -> None:
    for words, code, why in (
        (("explain", "--model", "churn", "--data", "nothing.csv"), 2, "no data called 'nothing.csv'"),
        (("job", "99999"), 2, "There is no job 99999"),
        (("doctor",), 2, "There is no command 'doctor'"),
        (("run", "work:bad", "--items", "items"), 4, "there is no such thing"),
    ):
        told = cli(site, tmp_path, *words)
        assert told.returncode == code and why in told.stderr, told.stderr
        assert "Traceback" not in told.stderr
