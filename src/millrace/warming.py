"""Warms a process up for light jobs: nothing is done once, as they do it.

Half a second, of imports above all, that the first job of the process is spared.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from millrace import compose, folder
from millrace.surroundings import Surroundings, look_once


def warmed_up() -> Surroundings:
    """This host as light jobs of this process are to see it."""
    with tempfile.TemporaryDirectory() as place:
        machine = compose.Machine(
            "inline", 1, 1 << 30, store=f"{place}/store", out=f"{place}/run", light=True, traced=False
        )
        with compose.open_run("run", machine) as run:
            list(run.map(abs, [0]))
        folder.report_of(Path(place) / "run")
    return look_once(compose.load_settings({}).cache)
