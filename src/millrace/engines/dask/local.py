"""A Dask cluster of our own on this machine: Dask's `LocalCluster` in a process beside the driver.

Dask starts workers by importing the main script anew, which would run a script that has no main guard again in each of
them. In a process of its own there is nothing to import: neither the driver's script nor its notebook. The process ends
with the driver, however that ends: it holds one end of a pipe whose other end is the driver's. `main` is what runs there.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from millrace.engines.processes.client import module_path
from millrace.run.errors import EngineLost

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LEAVE_S = 30.0
"""How long Dask has to end its workers before they are killed."""
LOOK_S = 1.0

BOOT = (
    "import json, sys; config = json.loads(sys.argv[1]); sys.path[:] = config['path']; "
    "from millrace.engines.dask.local import main; main(config)"
)


class LocalCluster:
    """`slots` workers of one thread each, being started; their files lie in `scratch`."""

    def __init__(self, slots: int, scratch: Path | None = None) -> None:
        self._told, telling = os.pipe()
        config = {
            "slots": slots,
            "scratch": None if scratch is None else str(scratch),
            "path": module_path(),
            "address": telling,
            "driver": os.getpid(),
        }
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, json.dumps(config)],
                stdin=subprocess.PIPE,
                pass_fds=(telling,),
                start_new_session=True,  # Ctrl-C in the driver's terminal is the driver's alone
                env={**os.environ, **ENVIRONMENT},
            )
        except BaseException:
            os.close(self._told)
            raise
        finally:
            os.close(telling)

    def address(self, patience_s: float) -> str:
        """Of its scheduler, once all workers are there. `EngineLost` when that takes too long or fails."""
        said = b""
        while not said.endswith(b"\n"):
            ready, _, _ = select.select([self._told], [], [], patience_s)
            more = os.read(self._told, 4096) if ready else b""
            if not more:
                raise EngineLost(
                    f"Dask could not start its workers on this machine{'' if ready else f' within {patience_s:.0f} s'}: what "
                    'it said is on stderr. Use engine="processes", which does the same without Dask.'
                )
            said += more
        return said.decode().strip()

    def close(self) -> None:
        """End the workers. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._told)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(config: dict[str, Any]) -> None:
    """Until the driver lets go of its end of stdin, or is gone."""
    import dask
    import distributed

    # Of the scheduler that is made here, and read at that moment.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=config["slots"],
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=":0",
            local_directory=config["scratch"],
        ) as cluster,
    ):
        os.write(config["address"], f"{cluster.scheduler_address}\n".encode())
        os.close(config["address"])
        # A forked child of the driver may hold the other end of stdin, so that its end alone does not tell.
        while os.getppid() == config["driver"]:
            if select.select([0], [], [], LOOK_S)[0]:
                break
