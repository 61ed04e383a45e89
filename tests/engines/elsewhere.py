"""A Dask worker of two threads that is not here: another host name, its own file system where `unseen` lies, another module
path. Real processes of `dask scheduler` and `dask worker` in Linux namespaces; the network is this machine's."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


def is_possible() -> bool:
    """Whether this user may make namespaces."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rmu", "true"], capture_output=True).returncode == 0


@contextlib.contextmanager
def cluster(unseen: Path, modules: Path, folder: Path) -> Iterator[str]:
    """The scheduler's address. The worker finds an empty folder in the place of `unseen`, and packages in `modules`."""
    told = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
    worker = [*dask, "worker", "--nthreads", "2", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
    worker += ["--scheduler-file", str(told), "--local-directory", str(folder / "worker")]
    inside = f"hostname elsewhere && mount -t tmpfs tmpfs {shlex.quote(str(unseen))} && exec {shlex.join(worker)}"
    path = os.pathsep.join([str(modules), str(HERE)])
    with (
        _running([*scheduler, "--scheduler-file", str(told)], folder, {}),
        _running(["unshare", "-rmu", "sh", "-c", inside], folder, {"PYTHONPATH": path}),
    ):
        end = time.monotonic() + 120
        while not told.exists() or not told.read_text().rstrip().endswith("}"):
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        import json

        yield json.loads(told.read_text())["address"]


@contextlib.contextmanager
def _running(command: list[str], folder: Path, more: dict[str, str]) -> Iterator[None]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=os.environ | more)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def installed(folder: Path, version: str) -> Path:
    """The package `tiny_queue`, as an installer leaves it, in a folder of its own."""
    place = folder / version / "site-packages"
    about = place / f"tiny_queue-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-queue\nVersion: {version}\n")
    (place / "tiny_queue").mkdir()
    (place / "tiny_queue" / "__init__.py").write_text(f"def served(hours):\n    return {version[0]} * hours\n")
    return place
