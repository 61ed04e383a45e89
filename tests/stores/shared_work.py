"""What hosts of a test compute together: `python shared_work.py URL OUT COUNT` prints the digest and what was computed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def simulate(i: int) -> Any:
    """Each third value is large, and stays where workers put it."""
    time.sleep(0.05)
    return np.arange(20_000.0) * i if i % 3 == 0 else [i, i / 7]


def ask(**machine: Any) -> Any:
    from millrace import compose

    return compose.map_function(simulate, range(12), compose.Machine(**machine))


if __name__ == "__main__":
    from shared_work import simulate as named

    from millrace import compose
    from millrace.folder import history

    url, out, count = sys.argv[1:]
    machine = compose.Machine(engine="processes", cores=1, store=url, out=out, memory="1GiB")
    answer = compose.map_function(named, range(int(count)), machine)
    print(json.dumps({"digest": answer.digest, "computed": history(Path(out)).end["computed"]}))
