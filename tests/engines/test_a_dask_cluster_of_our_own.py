"""`engine="dask"`: the cluster of our own starts from scripts without a main guard, from standard input, `-c` and notebooks,
and ends with the run, however that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from millrace.testing.toys import until

BEGIN = """
import millrace as mr
K = 7
def times(x): return x * K
"""
USE = """
with mr.Run(engine="dask", cores=2) as run:
    assert list(run.map(times, range(100))) == [7 * x for x in range(100)]
    assert type(run.engine).__name__ == "DaskEngine"
    assert run.engine.slots == 2
import psutil
left = [p.cmdline() for p in psutil.Process().children(recursive=True)]
print("fine", left)
"""
HANG = """
import time
print(1)
with mr.Run(engine="dask", cores=1) as run:
    list(run.map(times, range(3)))
    print(run.engine.cluster.client.scheduler.address, flush=True)
    list(run.map(time.sleep, [600.0]))
"""


def driven(*command: str, stdin: str | None = None, cwd: Path) -> str:
    done = subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_script_without_a_main_guard_runs_once_and_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(BEGIN + USE)
    assert driven(sys.executable, str(script), cwd=tmp_path) == "fine []\n"


@pytest.mark.slow
def test_a_command_and_standard_input(tmp_path: Path) -> None:
    assert driven(sys.executable, "-c", BEGIN + USE, cwd=tmp_path) == "fine []\n"
    assert driven(sys.executable, "-", stdin=BEGIN + USE, cwd=tmp_path) == "fine []\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_a_notebook(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [nbformat.v4.new_code_cell(source) for source in (BEGIN, USE.partition("import psutil")[0])]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()


@pytest.mark.slow
def test_a_driver_that_is_killed_takes_its_cluster_along(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", BEGIN + HANG], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    )
    assert driver.stdout is not None
    with driver:
        assert driver.stdout.readline() == "1\n"
        assert driver.stdout.readline().startswith("tcp://")
        processes = psutil.Process(driver.pid).children(recursive=True)
        assert len(processes) >= 2  # Dask with its scheduler, a worker
        driver.kill()
        until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes), 120)
