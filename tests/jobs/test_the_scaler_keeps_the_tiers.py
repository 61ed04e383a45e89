"""The real commands: tiers come from zero and go back by draining, one scaler at a time, and what it says can be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deskwork import WORK, alive, millrace, until

from millrace.compose import load_settings, open_jobs
from millrace.jobs.table import Seen
from millrace.scaling import keeper

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 0
[tiers.medium]
least = 0
[tiers.heavy]
idle_s = 1
[scaler]
interval_s = 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "tiers.toml").write_text(TIERS)
    (tmp_path / "items.jsonl").write_text("".join(f"{i}\n" for i in range(4)))
    (tmp_path / "millrace.toml").write_text('tiers = "tiers.toml"\nstore = "store"\n')
    return tmp_path


@contextmanager
def running(folder: Path, *words: str, log: str = "log", **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / log).open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "millrace", *words], cwd=folder, stderr=said, env={**os.environ, **environ}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(120)


def log(folder: Path, name: str = "log") -> str:
    return (folder / name).read_text() if (folder / name).exists() else ""


def workers(folder: Path) -> list[Seen]:
    desk = open_jobs(load_settings({"jobs": str(folder / "millrace-jobs"), "tiers": str(folder / "tiers.toml")}))
    try:
        return [one for one in desk.table.workers() if alive(one.pid)]
    finally:
        desk.table.close()


def submit(folder: Path, queue: str = "causal", function: str = "slow") -> int:
    ended = millrace(folder, "submit", "run", f"work:{function}", "--items", "items.jsonl", "--queue", queue, "--json")
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(ended.stdout)["id"])


def test_a_tier_comes_from_zero_and_goes_back_by_draining(folder: Path) -> None:
    with running(folder, "up", "--port", "0"):
        until(lambda: "heavy: replicas=0 running=0 queued=0 -> 0 (idle)" in log(folder))
        assert workers(folder) == []
        number = submit(folder)
        until(lambda: "heavy: replicas=0 running=0 queued=1 -> 1 (work)" in log(folder))
        until(lambda: f"job {number} finished" in log(folder))
        until(lambda: "(1 idle may leave)" in log(folder))
        until(lambda: not workers(folder))
        assert "gpu:" not in log(folder)  # a tier that may have no worker is not told of
    costs = {
        one["tier"]: one["cost"] for one in json.loads(millrace(folder, "scale", "status", "--json").stdout)["tiers"]
    }
    assert costs["heavy"] > 0 and costs["medium"] == 0, costs
    assert json.loads(millrace(folder, "job", str(number), "--json").stdout)["attempt"] == 1


def test_what_the_scaler_sees_can_be_read(folder: Path) -> None:
    submit(folder)
    told = millrace(folder, "scale", "status")
    assert told.returncode == 0, told.stderr
    head, *rows = (line.split() for line in told.stdout.splitlines())
    assert head[:4] == ["tier", "workers", "busy", "booting"]
    assert [row[0] for row in rows[:3]] == ["light", "medium", "heavy"]
    assert "1 (work)" in told.stdout and "Scaled by nobody" in told.stdout
    plain = json.loads(millrace(folder, "scale", "status", "--json").stdout)
    heavy = next(one for one in plain["tiers"] if one["tier"] == "heavy")
    assert (heavy["queued"], heavy["desired"], heavy["ready"]) == (1, 1, 0) and plain["scaler"] is None


def test_once_is_one_tick_whose_workers_stay_and_a_dry_one_touches_nothing(folder: Path) -> None:
    (folder / "tiers.toml").write_text(TIERS.replace("idle_s = 1", "idle_s = 600"))
    number = submit(folder)
    dry = millrace(folder, "scale", "once", "--dry-run")
    assert dry.stderr.splitlines()[-3:] == [
        "light: replicas=0 running=0 queued=0 -> 0 (idle)", "medium: replicas=0 running=0 queued=0 -> 0 (idle)",
        "heavy: replicas=0 running=0 queued=1 -> 1 (work)",
    ]  # fmt: skip
    assert workers(folder) == []
    assert millrace(folder, "scale", "once").returncode == 0
    until(lambda: workers(folder))
    (worker,) = workers(folder)
    assert "replicas=1" in millrace(folder, "scale", "once").stderr
    until(lambda: json.loads(millrace(folder, "job", str(number), "--json").stdout)["state"] == "succeeded")
    assert alive(worker.pid)
    os.kill(worker.pid, signal.SIGTERM)
    until(lambda: not alive(worker.pid))


@pytest.mark.slow
def test_another_scaler_waits_and_takes_over_from_one_that_was_killed(folder: Path) -> None:
    with running(folder, "scale", "run") as first:
        until(lambda: "heavy: replicas=0" in log(folder))
        with running(folder, "scale", "run", log="other"):
            until(lambda: "scaler: waits; another one has the office" in log(folder, "other"))
            assert "heavy: replicas" not in log(folder, "other")
            first.kill()
            first.wait()
            number = submit(folder)
            until(lambda: f"job {number} finished" in log(folder, "other"))


def test_a_new_up_does_not_wait_for_the_lease_of_one_that_was_killed(folder: Path) -> None:
    (folder / "tiers.toml").write_text(TIERS.replace("interval_s = 0.5", "interval_s = 600"))
    with running(folder, "up", "--port", "0") as first:
        until(lambda: "heavy: replicas=0" in log(folder))
        first.kill()
        first.wait()
    with running(folder, "up", "--port", "0", log="new"):
        until(lambda: "heavy: replicas=0" in log(folder, "new"))
    assert "waits" not in log(folder, "new")


@pytest.mark.slow
def test_each_event_goes_to_the_webhook_of_the_settings(folder: Path) -> None:
    bodies: list[str] = []

    class Slack(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Slack)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        submit(folder)
        url = f"http://127.0.0.1:{server.server_port}/hook"
        with running(folder, "scale", "run", MILLRACE_WEBHOOK=url):
            until(lambda: bodies)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert bodies[0].startswith("millrace scaled: starts 1, heavy: replicas=0 running=0 queued=1 -> 1")
    shown = subprocess.run(
        [sys.executable, "-m", "millrace", "config", "show"], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "MILLRACE_WEBHOOK": "https://hooks.example.com/services/SECRET"},
    )  # fmt: skip
    assert "hooks.example.com/..." in shown.stdout and "SECRET" not in shown.stdout


def test_what_is_desired_is_told_over_http(folder: Path) -> None:
    submit(folder)
    with running(folder, "scale", "run", "--dry-run", "--port", "0"):
        until(lambda: "/metrics" in log(folder) and "heavy: replicas" in log(folder))
        url = next(word for word in log(folder).split() if word.startswith("http")).removesuffix("/metrics")

        def got(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code, refused.read().decode()

        assert got("/healthz")[0] == 200
        until(lambda: got("/desired/heavy")[0] == 200)
        assert json.loads(got("/desired/heavy")[1]) == {"tier": "heavy", "desired": 1}
        assert got("/desired/huge")[0] == 404 == got("/else")[0]
        assert 'millrace_desired_replicas{tier="heavy"} 1\n' in got("/metrics")[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--driver", "kubernetes"), "not in a pod of Kubernetes"),
        (("--driver", "dask"), "needs its address"),
        (("--driver", "swarm"), "is not one of"),
        (("--interval", "0"), "not in the range"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_scaled(folder: Path, words: tuple[str, ...], why: str) -> None:
    told = millrace(folder, "scale", "run", *words)
    assert told.returncode == 2 and why in told.stderr, told.stderr


def test_a_ceiling_in_money_and_a_schedule_come_from_the_tiers_file(folder: Path) -> None:
    (folder / "tiers.toml").write_text(
        "[tiers.light]\nleast = 0\n[tiers.medium]\nleast = 0\n"
        "[tiers.heavy]\ncores = 1\nmemory = '100MiB'\nat_once = 1\nmost = 4\ncost_ceiling = 2\n"
        "schedule = [{ replicas = 1 }]\n[prices]\ncore_hour = 1\ngib_hour = 0\n"
    )
    settings = load_settings({"jobs": str(folder / "millrace-jobs"), "tiers": str(folder / "tiers.toml")})
    desk, said = open_jobs(settings), list[str]()
    try:
        scaler = keeper(settings, desk, [], say=said.append, dry=True).scaler
        heavy = {decision.tier: decision for decision in scaler.tick()}["heavy"]
        assert (heavy.target, heavy.reason) == (1, "schedule")
        for _ in range(5):
            submit(folder)
        heavy = {decision.tier: decision for decision in scaler.tick()}["heavy"]
        assert (heavy.target, heavy.reason) == (2, "cost ceiling")
    finally:
        desk.table.close()


def test_a_table_of_the_first_version_is_brought_up_and_keeps_its_jobs(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    import millrace.jobs

    place = tmp_path / "jobs.sqlite"
    engine = create_engine(f"sqlite:///{place}", isolation_level="AUTOCOMMIT")
    config = Config()
    config.set_main_option("script_location", str(Path(millrace.jobs.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        connection.exec_driver_sql("BEGIN")
        command.upgrade(config, "0001")
        connection.exec_driver_sql("COMMIT")
        connection.execute(text("insert into worker values ('w', 'heavy', 'h', 1, '0', 'idle', 1, 1, 1, 9e9)"))
    engine.dispose()
    desk = open_jobs(load_settings({"jobs": str(tmp_path)}))
    (worker,) = desk.table.workers()
    assert (worker.id, worker.since, worker.asked) == ("w", 0.0, False)
    desk.table.close()
