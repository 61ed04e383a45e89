"""A worker as the processes driver needs one: `python worker_process.py FOLDER TIER [never]`.

It tells its state in FOLDER/crew/PID, takes one job file of FOLDER/queue at a time (by renaming it to FOLDER/running/),
works until FOLDER/finish/NAME is there, and leaves when it is asked by SIGUSR1, or by FOLDER/asked/NAME as the job table asks,
while idle. With `never` it never comes up. In a container (CONTAINER is its host's name) it goes by that name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

folder, tier = Path(sys.argv[1]), sys.argv[2]
asked = False
name = os.environ.get("CONTAINER", str(os.getpid()))


def tell(state: str) -> None:
    draft = folder / "crew" / f".{name}"
    told = {"pid": os.getpid(), "tier": tier, "state": state, "since": time.time(), "name": name}
    draft.write_text(json.dumps(told))
    draft.rename(folder / "crew" / name)


def ask(_: int, __: object) -> None:
    global asked
    asked = not busy


def claim() -> Path | None:
    for job in sorted((folder / "queue").iterdir()):
        try:
            return job.rename(folder / "running" / job.name)
        except FileNotFoundError:
            continue
    return None


busy = False
if "never" in sys.argv:
    time.sleep(600)
signal.signal(signal.SIGUSR1, ask)
tell("idle")
while not asked:
    busy = True
    job = claim()
    if job is not None:
        tell("busy")
        while not (folder / "finish" / job.name).exists():
            time.sleep(0.02)
        job.rename(folder / "done" / job.name)
        tell("idle")
    busy = False
    asked = asked or (folder / "asked" / name).exists()
    time.sleep(0.02)
(folder / "crew" / name).unlink()
