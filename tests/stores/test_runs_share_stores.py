"""Runs over stores elsewhere: the laws of an analysis, workers that keep large values there, ledgers in an outage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
import shared_work

from millrace import compose
from millrace.folder import history
from millrace.run.errors import AnalysisFailed, WrongQuestion
from millrace.testing import analyses as laws

LAWS = (laws.one_digest_under_every_budget_and_from_every_store, laws.a_second_run_executes_nothing)


def explain(**machine: Any) -> Any:
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(0).standard_normal((4_000, 5))
    model = LinearRegression().fit(rows, rows @ np.arange(5.0))
    question = {"model": model, "data": rows, "background": rows[:50]}
    return compose.carry_out("explain", question, compose.Machine(**machine))


def _at(ask: Callable[..., Any], url: str) -> Callable[..., Any]:
    """The question with its finished work in the store at the url, wherever the law wants a store."""

    def asked(**machine: Any) -> Any:
        return ask(**machine | ({"store": url} if machine.get("store") else {}))

    return asked


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MILLRACE_CACHE", str(tmp_path / "copies"))
    return tmp_path


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "ask", [shared_work.ask, pytest.param(explain, marks=pytest.mark.slow)], ids=["function", "explain"]
)
def test_the_law_of_an_analysis_holds_with_redis(law: Any, ask: Any, redis_server: servers.Valkey, home: Path) -> None:
    law(_at(ask, f"{redis_server.url}?namespace={law.__name__}-{ask.__module__}"), home)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_law_of_an_analysis_holds_with_a_bucket(law: Any, bucket: str, home: Path) -> None:
    law(_at(shared_work.ask, bucket), home)


def test_another_host_finds_what_workers_kept(redis_server: servers.Valkey, home: Path, monkeypatch: Any) -> None:
    url = f"{redis_server.url}?namespace=kept"
    told = []
    for host in ("one", "two"):
        monkeypatch.setenv("MILLRACE_CACHE", str(home / host))
        told.append(shared_work.ask(engine="processes", cores=2, store=url, out=home / f"run {host}"))
        copies = list((home / host).rglob("*.npy"))
        assert len(copies) == 4, "large values are copied once to each host"
    assert told[0].digest == told[1].digest
    assert history(home / "run two").end["computed"] == 0


def test_a_ledger_tells_the_end_when_the_store_does_not_answer(tmp_path: Path, home: Path) -> None:
    from millrace.stores.redis import RedisStore

    with servers.valkey(tmp_path / "server") as server:
        run = compose.open_run("run", compose.Machine(engine="inline", store=server.url, out=tmp_path / "out"))
        assert isinstance(run.store, RedisStore)
        run.store._patience_s = 0.3

        def cut(i: int) -> int:
            if i == 3:
                server.stop()
            return i

        with pytest.raises(AnalysisFailed, match="could not be reached"), run:
            list(run.map(cut, range(8)))
    end = history(tmp_path / "out").end
    assert end["state"] == "failed"
    assert "could not be reached" in end["error"]


def test_what_is_missing_is_said_before_any_work(tmp_path: Path, bucket: str, home: Path) -> None:
    with pytest.raises(WrongQuestion, match="bucket"):
        shared_work.ask(engine="inline", store="s3://nobody-made-this/x", out=tmp_path / "out")
    with pytest.raises(WrongQuestion, match="no url of a store"):
        shared_work.ask(engine="inline", store="nonsense://x", out=tmp_path / "out")
    with pytest.raises(ImportError, match=r"pip install 'millrace\[gs\]'"):
        shared_work.ask(engine="inline", store="gs://team/x", out=tmp_path / "out")


def test_the_command_line_takes_urls(redis_server: servers.Valkey, home: Path) -> None:
    url = f"{redis_server.url.replace('://', '://default:hidden@')}?namespace=line"

    def millrace(*words: str) -> Any:
        command = [sys.executable, "-m", "millrace", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=home, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "hidden" not in done.stdout + done.stderr
        return json.loads(done.stdout)

    (home / "items.jsonl").write_text("".join(f"{i}\n" for i in range(6)))
    question = ("--items", "items.jsonl", "--store", url, "--engine", "inline")
    assert os.environ["PYTHONPATH"].startswith(str(servers.HERE))
    millrace("run", "shared_work:simulate", *question)
    assert millrace("plan", "run", "shared_work:simulate", "--items", "items.jsonl", "--store", url)["in_store"] == 6
    there = millrace("cache", "size", "--store", url)
    assert there["entries"] == 6 and there["size_bytes"] > 2 * 160_000
    assert millrace("cache", "export", "all.mrx", "--store", url)["entries"] == 6
    folder = str(home / "folder")
    assert millrace("cache", "import", "all.mrx", "--store", folder)["entries"] == 6
    assert millrace("cache", "size", "--store", f"layered:{url},{home / 'top'}")["entries"] == 6
    assert millrace("cache", "evict", "--to", "0B", "--store", url)["size_bytes"] == 0
    assert millrace("cache", "import", "all.mrx", "--store", url)["entries"] == 6
    assert millrace("cache", "size", "--store", url)["entries"] == 6
