"""The driver is killed with SIGKILL in many states: soon after, no process of its tree is left, grandchildren included."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millrace.testing.toys import until

DRIVER = """
import os, signal, subprocess, sys, threading, time
from millrace.engines.processes import ProcessEngine
from millrace.run.task import Task
def up(): os.write(1, b"up\\n")
def busy():
    up()
    while True: pass
def blocked():
    r, w = os.pipe(); up(); os.read(r, 1)
def kernel():
    import numpy as np
    a = np.ones((4000, 4000)); up()
    while True: a @ a
def children():
    subprocess.Popen(["sleep", "991"]); subprocess.Popen(["sleep", "992"], start_new_session=True); up()
    subprocess.run(["sleep", "993"])
def orphans():
    if not os.fork():
        os.setsid()
        if not os.fork(): time.sleep(1000)
        os._exit(0)
    up()
    time.sleep(1000)
def stubborn():
    for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGIO): signal.signal(s, signal.SIG_IGN)
    up()
    time.sleep(1000)
mode, case = sys.argv[1:]
e = ProcessEngine(2, preload=("numpy",) if case == "kernel" else ())
if mode != "young": list(e.stream(Task(time.sleep, (0.02,), str(i)) for i in range(4)))
if mode == "forks" and not os.fork(): time.sleep(60); os._exit(0)
if mode == "forks in C" and not __import__("ctypes").CDLL(None).fork(): time.sleep(60); os._exit(0)
if mode == "subprocess": subprocess.Popen(["sleep", "60"], close_fds=False)
if mode == "stopped": os.kill(e._pool.server.process.pid, signal.SIGSTOP)
print(e._pool.server.process.pid, flush=True)
if mode == "idle" or mode == "young": time.sleep(300)
if mode == "consuming":
    for o in e.stream(Task(time.sleep, (0.001,), str(i)) for i in range(100_000)):
        if int(o.key) < 2: up()
        time.sleep(0.01)
for o in e.stream(Task(globals()[case], (), str(i)) for i in range(4)): print(o, flush=True)
"""
PLAIN = [("plain", case) for case in ("busy", "blocked", "children", "orphans", "stubborn")]
MODES = [(mode, "busy") for mode in ("idle", "young", "consuming", "subprocess", "forks", "forks in C", "stopped")]
SLOW = [("plain", "kernel"), ("stopped", "children"), ("forks", "orphans")]


@pytest.mark.parametrize(("mode", "case"), [*PLAIN, *MODES, *(pytest.param(*p, marks=pytest.mark.slow) for p in SLOW)])
def test_kill_9_of_the_driver_leaves_nothing(mode: str, case: str) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, mode, case], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        server = int(driver.stdout.readline())
        if mode not in ("young", "idle"):  # both workers are in the middle of a task
            assert [driver.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
        enough = 1 if mode == "young" else {"children": 9, "orphans": 5}.get(case, 3)
        until(lambda: len(_session(server)) >= enough)
        tree = _session(server)
        driver.send_signal(signal.SIGKILL)
        until(lambda: not any(_runs(p) for p in tree | _session(server)))
    finally:
        driver.kill()
        driver.stdout.close()
        driver.wait()


def _session(server: int) -> set[int]:
    """Live processes of the server's session, and those that descend from it."""
    parents, found = {}, {server} if _runs(server) else set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            parents[int(entry)] = int(fields[1])
            if int(fields[3]) == server and fields[0] not in "ZX":
                found.add(int(entry))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found and _runs(pid)}
        found |= more
        grown = bool(more)
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _runs(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def test_the_fork_servers_death_is_an_error_and_leaves_nothing() -> None:
    from millrace.engines.processes import ProcessEngine
    from millrace.run.errors import EngineLost
    from millrace.run.task import Task
    from millrace.testing import toys

    engine = ProcessEngine(2)
    try:
        list(engine.stream(Task(toys.nap, (0.01, i), str(i)) for i in range(8)))
        pids = [engine._pool.server.process.pid, *engine.worker_pids()]
        for _ in range(2):
            with pytest.raises(EngineLost, match=r"fork server.*killed by SIGKILL"):
                for _ in engine.stream(Task(toys.nap, (0.02, i), str(i)) for i in range(1000)):
                    os.kill(pids[0], signal.SIGKILL)
    finally:
        engine.close()
    assert not [pid for pid in pids if _runs(pid)]


def test_what_a_dead_worker_leaves_is_swept_away(tmp_path: Path) -> None:
    from millrace.engines.processes import ProcessEngine
    from millrace.run.task import Task
    from millrace.testing import toys

    engine = ProcessEngine(1)
    try:
        (outcome,) = engine.stream(iter([Task(_daemonise, (), "k")]))
        daemon = outcome.value
        assert _runs(daemon)
        list(engine.stream(iter([Task(toys.square, (2,), "k")])))
        assert _runs(daemon), "it may live as long as its worker"
        os.kill(outcome.measures.pid, signal.SIGKILL)
        list(engine.stream(Task(toys.nap, (0.01, i), str(i)) for i in range(3)))
        until(lambda: not _runs(daemon))
    finally:
        engine.close()


def _daemonise() -> int:
    """A grandchild in a session of its own whose parent has ended; returns its pid."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        grandchild = os.fork()
        if grandchild:
            os.write(write, str(grandchild).encode())
        else:
            time.sleep(600)
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(read, 20))


def test_a_task_may_use_processes_of_its_own() -> None:
    from millrace.engines.processes import ProcessEngine
    from millrace.run.task import Task

    engine = ProcessEngine(1)
    try:
        assert [o.value or o.failure for o in engine.stream(iter([Task(_pool, (100,), "k")]))] == [4950]
    finally:
        engine.close()


def _pool(n: int) -> int:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, range(n)))
