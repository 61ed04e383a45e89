"""A real control group of this kernel, made for the test: its limits are seen from inside, and what it costs too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.host.cgroups import groups

_LOOK = """
import dataclasses, json, sys, time
from millrace.host import cores, throttling
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until and not throttling().throttled_s:  # a busy machine may hold it back by itself for long
    pass
print(json.dumps([dataclasses.asdict(cores()), dataclasses.asdict(throttling())]))
"""


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A group inside of a group with a quota of half a core, beneath this process's own one."""
    own = next((g.path for g in groups("cpu") if g.level == 0 and g.version == 1), None)
    if own is None or not os.access(own, os.W_OK) or not (own / "cpu.cfs_quota_us").exists():
        pytest.skip("this user may not make a version 1 cpu group here")
    outer = own / f"millrace-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
    except OSError as refused:
        pytest.skip(f"this user may not make a control group here: {refused}")
    try:
        (outer / "cpu.cfs_quota_us").write_text("50000")
        (outer / "cpu.shares").write_text("262144")  # that it comes to its quota on a busy machine, too
        yield inner
    finally:
        for group in (inner, outer):
            for _ in range(100):  # a group lives on for a moment after its last member
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)


def _look(group: Path, *before: str, busy_s: float = 0.0) -> list[dict[str, object]]:
    command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *before]
    done = subprocess.run(
        [*command, sys.executable, "-c", _LOOK, str(busy_s)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_a_quota_above_the_own_group_is_seen_and_throttles(half_a_core: Path) -> None:
    found, slow = _look(half_a_core, busy_s=60)
    assert found["allowed"] == found["quota"] == 0.5
    assert str(found["where"]).endswith(f"{half_a_core.parent.name}/cpu.cfs_quota_us")
    assert slow["throttled_periods"] > 0  # type: ignore[operator]
    assert slow["throttled_s"] > 0  # type: ignore[operator]


def test_a_namespace_does_not_hide_it(half_a_core: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-C", "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a cgroup namespace here")
    found, _ = _look(half_a_core, "unshare", "-C")
    assert found["allowed"] == 0.5


_RUN = """
import json, sys, time
import millrace as mr
from millrace.diagnose.accounting import account
from millrace.run.ledger import replay

def burn(item):
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    return item

if __name__ == "__main__":
    with mr.Run(engine=sys.argv[1], cores=2, out=sys.argv[2]) as run:
        assert sorted(run.map(burn, range(4))) == [0, 1, 2, 3]
    history = replay(run.ledger.path)
    told, columns = account(history), history.columns
    waited = [e - s - c for s, e, c in zip(columns["started_ns"], columns["ended_ns"], columns["cpu_ns"])]
    print(json.dumps({"each": list(columns["throttled_ns"]), "waited": waited, "part": told.parts_ns["throttled"]}))
"""


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_attempts_tell_how_long_the_quota_held_them_back(half_a_core: Path, tmp_path: Path, engine: str) -> None:
    """Two burning workers on half a core are throttled; nobody is told more than it waited, and the report adds them up."""
    (tmp_path / "burning.py").write_text(_RUN)
    command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(half_a_core)]
    command += [sys.executable, str(tmp_path / "burning.py"), engine, str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"MILLRACE_SHARING": "off"}
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["part"] == pytest.approx(sum(told["each"]), rel=1e-3)  # an attempt's share is at most what it waited
    assert sum(told["each"]) > 0
    assert all(0 <= held <= waited for held, waited in zip(told["each"], told["waited"], strict=True))
