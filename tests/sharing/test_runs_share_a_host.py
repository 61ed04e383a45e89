"""Runs on one host: cores by tokens, the wait told and not held against a task, one store for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import chores
import nesting
import pytest

import millrace as mr
from millrace import compose
from millrace.diagnose.accounting import account
from millrace.host.instances import holders
from millrace.host.tokens import CoreTokens, held
from millrace.run.ledger import replay
from millrace.run.task import Limits
from millrace.settings import load
from millrace.sharing import folder

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokens of this test alone."""
    monkeypatch.setenv("MILLRACE_TOKENS", str(tmp_path / "tokens"))
    return folder(load()) / "cores"


def _all_taken(place: Path) -> list[CoreTokens]:
    from millrace import host

    count = host.slots(host.cores())
    taken = [CoreTokens(place, count) for _ in range(count)]
    thread = threading.Thread(target=lambda: [one.take() for one in taken])  # else this thread would be one that holds
    thread.start()
    thread.join()
    return taken


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_that_waits_for_a_core_says_so_and_its_tasks_do_not_pay_for_it(own_tokens: Path, engine: str) -> None:
    """Ceilings of wall time are shorter than the wait."""
    taken = _all_taken(own_tokens)

    def let_go() -> None:
        _until(lambda: holders([own_tokens / "gate"]))  # somebody waits for a core
        time.sleep(2.0)
        for one in taken:
            one.close()

    thread = threading.Thread(target=let_go)
    thread.start()
    limits = Limits(wall_s=1.5) if engine == "processes" else None
    with mr.Run(engine=engine, cores=2) as run:
        assert list(run.map(chores.nap, range(6), limits=limits)) == [i * i for i in range(6)]
        ledger = run.ledger.path
        run.close()
        told = account(replay(ledger))
    thread.join()
    assert told.parts_ns["host"] > 0.2e9, told.parts_ns
    assert max(figures.p95_s for figures in told.tasks) < 1.5
    assert sum(told.parts_ns.values()) == told.core_ns


def test_a_run_that_a_task_opens_computes_on_its_worker_s_token(own_tokens: Path) -> None:
    for engine in ("inline", "processes"):
        with mr.Run(engine=engine, cores=2) as run:
            assert list(run.map(nesting.nested, range(3))) == [[0, 0], [1, 1], [2, 2]]
    assert held(own_tokens) == {}


def test_light_work_and_a_host_that_is_not_shared_take_none(own_tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = _all_taken(own_tokens)
    with compose.open_run("run", compose.Machine(engine="processes", cores=1, light=True)) as run:
        assert list(run.map(abs, [-1])) == [1]
    monkeypatch.setenv("MILLRACE_SHARING", "off")
    with mr.Run(engine="inline") as run:
        assert list(run.map(abs, [-2])) == [2]
    for one in taken:
        one.close()


def test_kill_9_of_a_driver_frees_the_tokens_of_its_workers(own_tokens: Path, tmp_path: Path) -> None:
    code = "import millrace as mr, chores, time\nwith mr.Run(engine='processes', cores=2) as run:\n"
    code += "    list(run.map(time.sleep, [600.0, 601.0]))"
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    driver = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _until(lambda: len(held(own_tokens)) > 0)
    from millrace.host.neighbours import neighbours

    assert any(one.pid == driver.pid and one.tokens for one in neighbours(own_tokens.parent))
    driver.kill()
    driver.wait()
    _until(lambda: held(own_tokens) == {})
    assert neighbours(own_tokens.parent) == ()


STAGGERED = """
import json, os, sys, time
import chores, millrace as mr
with mr.Run(engine="inline") as run:  # all that is imported, is imported once
    list(run.map(chores.nap, [0]))
for number in range(8):
    if not os.fork():
        time.sleep(0.2 * number)
        with mr.Run(engine=sys.argv[2] if number < 2 else "inline", cores=2, store=sys.argv[1]) as run:
            values = list(run.map(chores.nap, range(150)))
            os.write(1, json.dumps([run.computed, run.cached, sum(values)]).encode() + b"\\n")
        os._exit(0)
for number in range(8):
    assert os.wait()[1] == 0
"""


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_what_one_of_eight_computed_the_others_find(tmp_path: Path, engine: str) -> None:
    """Eight processes with one store, the same work, staggered: of what the seven others ask, 90 % was there."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-c", STAGGERED, str(tmp_path / "store"), engine]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 8
    assert {total for _, _, total in told} == {sum(i * i for i in range(150))}
    assert all(computed + cached == 150 for computed, cached, _ in told)
    computed = sum(computed for computed, _, _ in told)
    assert computed - 150 <= 0.1 * 7 * 150, told


def test_what_a_dead_run_had_claimed_is_computed_by_the_next(tmp_path: Path) -> None:
    from millrace.stores.claims import claims_of

    store = compose.open_store(str(tmp_path / "store"))
    claims, other = claims_of(store.url), claims_of(store.url)
    assert claims is not None and other is not None
    with mr.Run(engine="inline", store=tmp_path / "store") as run:
        key = run.task(chores.nap, 3).key
        assert claims.claim(key) and not other.claim(key) and other.claim(run.task(chores.nap, 4).key)
        release = threading.Timer(0.5, claims.close)
        release.start()
        assert list(run.map(chores.nap, [3])) == [9]
        assert run.computed == 1
    other.close()
    store.close()


def test_stores_that_can_have_none_have_no_claims(tmp_path: Path) -> None:
    from millrace.stores.claims import claims_of

    assert claims_of("redis://host:6379/0") is None
    assert claims_of("s3://bucket/folder") is None
    assert claims_of(f"dir:{tmp_path}/nowhere") is None
    base, top = (compose.open_store(str(tmp_path / name)) for name in ("base", "top"))
    claims = claims_of(f"layered:{base.url},{top.url}")
    assert claims is not None
    claims.close()
    base.close()
    top.close()


def _until(true: object) -> None:
    end = time.monotonic() + 120
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)
