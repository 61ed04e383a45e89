"""A site: `millrace up` with tokens, a real server on loopback with real workers; two users, an administrator, a reader."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from millrace.cli.main import main
from millrace.compose import load_settings, open_jobs
from millrace.ordering import register
from millrace.service.access import add_token

TIERS = """
lease_s = 5
grace_s = 5
[tiers.light]
least = 1
most = 1
at_once = 2
[tiers.medium]
least = 0
[tiers.heavy]
cost_ceiling = 5
"""
WORK = """
import time


def square(item):
    return item * item


def nap(item):
    time.sleep(0.5)
    return item


def doze(item):
    time.sleep(0.5)
    return -item


def spread(params, seed):
    import numpy

    draws = numpy.random.default_rng(seed).normal(params["middle"], 1.0, 50)
    return {"mean": float(draws.mean())}


def bad(item):
    raise ValueError("there is no such thing")
"""
SETTINGS = """
tiers = "tiers.toml"
store = "store"
cache = "copies"
roots = ["shelf"]
functions = ["work:*"]
open_jobs = 6
upload_limit = "8MiB"
upload_quota = "12MiB"
"""
COLUMNS = ("age", "income", "rooms", "tenure")
GIVE_UP_S = 240.0


def one_client() -> httpx.Client:
    """For all requests, since to make one takes longer than a request; a connection for each, as `httpx.request` has."""
    return httpx.Client(timeout=120, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False, verify=False)


@dataclass
class Site:
    """Where it is, and how it is asked."""

    folder: Path
    url: str
    tokens: dict[str, str] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=one_client)

    def ask(self, method: str, path: str, user: str = "ann", **more: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {self.tokens[user]}"} if user else {}), **more.pop("headers", {})}
        return self.client.request(method, f"{self.url}{path}", headers=headers, **more)

    def order(self, analysis: str, question: dict[str, Any], user: str = "ann", **about: Any) -> dict[str, Any]:
        told = self.ask("POST", "/v1/jobs", user, json={"analysis": analysis, "question": question, **about})
        assert told.status_code in (200, 201), told.text
        return told.json()  # type: ignore[no-any-return]

    def job(self, number: int, user: str = "admin") -> dict[str, Any]:
        return self.ask("GET", f"/v1/jobs/{number}", user).json()  # type: ignore[no-any-return]

    def ended(self, number: int) -> dict[str, Any]:
        until(lambda: self.job(number)["ended_at"])
        return self.job(number)


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not true():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.1)


def furnish(folder: Path) -> None:
    """What people have: a model, rows, people, a module, files under a root."""
    import lightgbm
    import numpy
    import pyarrow
    from pyarrow import parquet

    numbers = numpy.random.default_rng(0)
    x = numbers.normal(size=(600, 4))
    drug = (x[:, 0] + numbers.normal(size=600) > 0).astype(float)
    visits = drug + 2 * x[:, 0] + x[:, 1] * x[:, 2] + numbers.normal(size=600)
    options = {"num_leaves": 15, "num_threads": 1, "verbosity": -1, "seed": 0, "deterministic": True}
    data = lightgbm.Dataset(x, visits, feature_name=list(COLUMNS))
    lightgbm.train(options, data, 30).save_model(folder / "model.txt")
    parquet.write_table(pyarrow.table({n: x[:, j] for j, n in enumerate(COLUMNS)}), folder / "rows.parquet")
    columns = {"age": x[:, 0], "drug": drug, "visits": visits}
    parquet.write_table(pyarrow.table(columns), folder / "people.parquet")
    (folder / "work.py").write_text(WORK)
    (folder / "items.jsonl").write_text("".join(f"{i}\n" for i in range(8)))
    shelf = folder / "shelf"
    (shelf / "deep").mkdir(parents=True)
    (shelf / "deep" / "rows.parquet").write_bytes((folder / "rows.parquet").read_bytes())
    (shelf / "out.parquet").symlink_to(folder / "people.parquet")
    (shelf / "up").symlink_to(folder)
    (folder / "tiers.toml").write_text(TIERS)
    (folder / "millrace.toml").write_text(SETTINGS)


def run(folder: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "millrace", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, **more)


def here(folder: Path, *words: str) -> tuple[int, str, str]:
    """As `run`, in this process: (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@contextmanager
def started(folder: Path, *words: str) -> Iterator[str]:
    """`millrace up` or `serve` in that folder; its url."""
    log = folder / f"{words[0]}.log"
    with log.open("w") as said:
        command = [sys.executable, "-m", "millrace", *words, "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, stderr=said, stdout=said, env=os.environ)
    try:
        until(lambda: process.poll() is not None or "Ctrl-C" in log.read_text())
        found = re.search(r"http://[\d.]+:\d+", log.read_text())
        assert found, log.read_text()
        until(lambda: _answers(found[0]))
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    furnish(folder)
    desk = open_jobs(load_settings({"jobs": folder / "millrace-jobs"}))
    for kind, name, file in (
        ("model", "churn", "model.txt"), ("data", "rows", "rows.parquet"), ("data", "people", "people.parquet"),
        ("data", "items", "items.jsonl"),
    ):  # fmt: skip
        register(desk, kind, name, folder / file)
    desk.table.close()
    return folder


@pytest.fixture(scope="session")
def site(furnished: Path) -> Iterator[Site]:
    file = furnished / "tokens.toml"
    tokens = {
        "ann": add_token(file, "ann", ("read", "submit")), "bob": add_token(file, "bob", ("read", "submit")),
        "eve": add_token(file, "eve", ("read",)), "sam": add_token(file, "sam", ("submit",)),
        "kim": add_token(file, "kim", ("read", "submit")),
        "admin": add_token(file, "root", ("admin",)),
    }  # fmt: skip
    with started(furnished, "up", "--service-tokens", "tokens.toml") as url:
        site = Site(furnished, url, tokens)
        yield site
        site.client.close()
