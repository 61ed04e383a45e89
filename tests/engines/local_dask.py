"""A LocalCluster of two workers in a process of its own, which the tests reach by its address as any cluster; it takes
seconds to start, so that it is started once, by the first test that asks."""

from __future__ import annotations

import functools
import subprocess
import sys

from millrace.engines.dask import Cluster, connect

SCRIPT = """
import sys
import dask
from distributed import LocalCluster

if __name__ == "__main__":
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster:
            print(cluster.scheduler_address, flush=True)
            sys.stdin.read()
"""


@functools.cache
def process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@functools.cache
def address() -> str:
    stdout = process().stdout
    assert stdout is not None
    return stdout.readline().strip()


def connected() -> Cluster:
    return connect(address())


@functools.cache
def shared() -> Cluster:
    """One connection for all engines that do not own theirs: connecting takes longer than most tests."""
    return connected()


def stop() -> None:
    """If it was started."""
    if shared.cache_info().currsize:
        shared().close()
        shared.cache_clear()
    if process.cache_info().currsize:
        process().communicate(timeout=60)
        address.cache_clear()
        process.cache_clear()
