"""Workers of several hosts share results: hosts are network namespaces that the test makes, one of them is cut off."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import servers

COUNT = 40


def _work(name: str, host: str, folder: Path, run: str) -> subprocess.Popen[str]:
    environ = os.environ | {"XDG_CACHE_HOME": str(folder / f"cache {host} {run}"), "OMP_NUM_THREADS": "1"}
    url = f"redis://10.213.{host}.1:6379/0"
    script = str(servers.HERE / "shared_work.py")
    command = ["ip", "netns", "exec", f"{name}-{host}", sys.executable, script, url, str(folder / run), str(COUNT)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def _attempts(folder: Path) -> int:
    ledger = folder / "ledger.jsonl"
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
def test_hosts_share_results_and_one_that_is_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.caches_at(tmp_path / "caches", monkeypatch)
    with servers.network() as name, contextlib.ExitStack() as owned:
        hub = ("ip", "netns", "exec", f"{name}-hub")
        server = servers.Valkey(tmp_path / "server", 6_379, ("--protected-mode", "no"), "0.0.0.0", hub)
        owned.callback(server.stop)
        server.start()
        runs = [_work(name, host, tmp_path, f"run {host}") for host in ("1", "2")]
        for run in runs:
            owned.callback(run.kill)
        servers.wait_until(
            lambda: _attempts(tmp_path / "run 2") > 4, "the first results of the host that is cut off", 120
        )
        servers.ip("-n", f"{name}-hub", "link", "set", "to2", "down")
        time.sleep(2)
        servers.ip("-n", f"{name}-hub", "link", "set", "to2", "up")
        told = [json.loads(run.communicate(timeout=180)[0]) for run in runs]
        again = _work(name, "1", tmp_path, "again")
        owned.callback(again.kill)
        told.append(json.loads(again.communicate(timeout=180)[0]))
    assert len({each["digest"] for each in told}) == 1
    assert told[0]["computed"] + told[1]["computed"] >= COUNT
    assert told[2]["computed"] == 0, "what two hosts have computed, a third finds"
