"""What sharing a host costs a run that is alone: tasks with a token for each message beside tasks without.

`python -m bench.sharing`. Tasks of no work (where a token costs most) and of 1 ms; and the token by itself. Eight runs at
once: how far apart they end, and the share of the cores that they used.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from millrace import compose
from millrace.host.tokens import CoreTokens

TURNS = 20_000
BUSY = """
import sys, time
import millrace as mr
def busy(item):
    end = time.process_time() + 0.02
    while time.process_time() < end: pass
    return item
with mr.Run(engine="processes", cores=2) as run:
    start = time.perf_counter()
    for _ in run.map(busy, range(int(sys.argv[1]))): pass
    print(time.perf_counter() - start)
"""


def seconds(engine: str, light: bool, work: object, count: int) -> float:
    with compose.open_run("run", compose.Machine(engine=engine, cores=2, light=light)) as run:
        list(run.map(work, range(16)))  # type: ignore[arg-type]
        start = time.perf_counter()
        for _ in run.map(work, range(count)):  # type: ignore[arg-type]
            pass
        return time.perf_counter() - start


def millisecond(item: int) -> int:
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return item


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        tokens = CoreTokens(Path(place), 2)
        start = time.perf_counter()
        for _ in range(TURNS):
            tokens.take()
            tokens.release()
        print(f"a token, taken and given back: {(time.perf_counter() - start) / TURNS * 1e6:.1f} us")
        tokens.close()
    for engine in ("inline", "processes"):
        for name, work, count in (("no work", abs, 20_000), ("1 ms", millisecond, 1_000)):
            ratios = []
            for _ in range(3):  # in turns, so that both meet the same noise
                without, with_tokens = (seconds(engine, light, work, count) for light in (True, False))
                ratios.append(with_tokens / without)
            told = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
            print(f"{engine}, tasks of {name}: with tokens / without = {told}")
    many = [subprocess.Popen([sys.executable, "-c", BUSY, "100"], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    took = [float(one.communicate()[0]) for one in many]
    print(f"eight runs at once: the last ends at {max(took) / min(took):.2f} of the first's time")


if __name__ == "__main__":
    main()
