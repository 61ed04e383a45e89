"""`millrace doctor` tells of the runs that are under way on this host: who they are, what they hold, what they declared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WORK = """
import os, time

def wait(item):
    open(f"begun-{item}", "w").close()
    while not os.path.exists("gate"):
        time.sleep(0.01)
    return item
"""


def _until(true: Callable[[], object], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def _millrace(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "millrace", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose runs share tokens and a store of their own."""
    monkeypatch.setenv("MILLRACE_TOKENS", str(tmp_path / "tokens"))
    monkeypatch.setenv("MILLRACE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "items.txt").write_text("a\nb\n")
    yield tmp_path
    (tmp_path / "gate").touch()


def _facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_millrace(folder, "doctor", "--json"))
    return found


def test_a_run_is_told_with_its_process_its_tokens_and_what_it_declared_until_it_has_ended(host: Path) -> None:
    assert _facts(host)["runs"] == []
    command = [sys.executable, "-m", "millrace", "run", "work:wait", "--items", "items.txt", "--engine", "processes",
               "--cores", "1", "--memory", "1GiB", "--out", "out", "--quiet"]  # fmt: skip
    with subprocess.Popen(command, cwd=host) as driver:
        try:
            _until(lambda: (host / "begun-a").exists() or (host / "begun-b").exists())
            (run,) = _facts(host)["runs"]
            assert run["pid"] == driver.pid and run["tokens"] == 1 and run["cores"] == 1
            text = _millrace(host, "doctor")
            told = re.search(r"^Run +(\S+), process (\d+): (\d+) of (\d+) tokens, (\S+) declared", text, re.MULTILINE)
            assert told is not None, text
            assert told.groups()[:4] == (run["run_id"], str(driver.pid), "1", "1")
            assert re.search(r"^Other runs +none that uses this store beside these$", text, re.MULTILINE), text
            assert "1 other run uses this host: a fair share of its cores" in text
        finally:
            (host / "gate").touch()
            assert driver.wait(60) == 0
    after = _facts(host)
    assert after["runs"] == [] and after["instances"] == []
    assert re.search(r"^Other runs +none that uses this store$", _millrace(host, "doctor"), re.MULTILINE)


def test_the_layers_of_the_jail_are_told(host: Path) -> None:
    text = _millrace(host, "doctor")
    layers = _facts(host)["jail"]
    assert {"no_new_privs", "rlimits", "landlock", "seccomp"} == set(layers)
    for name, missing in layers.items():
        assert (
            (f"{name} is not here: {missing}" in text)
            if missing
            else re.search(rf"^Jail +.*{name}", text, re.MULTILINE)
        )
