"""`mr.Run`: a run for functions of your own, or one that several analyses share."""

from __future__ import annotations

import os

from millrace import compose
from millrace.face.asking import Shown, shown
from millrace.run.run import Run as OpenRun


def Run(  # it opens a Run, and reads as one: `with mr.Run(cores=4) as run`
    *,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    deadline: str | float | None = None,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
    bundle: str | os.PathLike[str] | None = None,
    dask_report: str | os.PathLike[str] | None = None,
) -> OpenRun:
    """Open a run for functions of your own, or to share one pool among several analyses.

        with mr.Run(cores=4, store="results") as run:
            for y in run.map(f, xs): ...

    See `millrace.run.run.Run` for what it can do. Of a Dask cluster: `bundle`, a folder of modules that its workers do not
    have; `dask_report`, a file for Dask's own performance report.
    """
    machine = compose.Machine(
        engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress), bundle=bundle,
        dask_report=dask_report,
    )  # fmt: skip
    return compose.open_run("run", machine)
