"""What sharing a host costs a run that is alone: tasks with a token for each message beside tasks without.

`python -m bench.sharing`. Tasks of no work (where a token costs most) and of 1 ms; and the token by itself. Eight runs at
once: how far apart they end. Eight whole `millrace validate run` of the same programs, each begun half a second after the one
before, on one store: how much each found that another had computed, and how far apart they end, each from its own beginning.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import Bench
from millrace import compose
from millrace.host.tokens import CoreTokens

TURNS, INSTANCES = 20_000, 8
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


STAGGER_S = 0.5
PROGRAMS = 3_000
LOOP = "    total = {number}\n    for i in range(20000):\n        total += i\n    return x\n"


def staggered(bench: Bench, folder: Path) -> None:
    lines = [json.dumps({"id": str(i), "source": "def solve(x):\n" + LOOP.format(number=i)}) for i in range(PROGRAMS)]
    (folder / "programs.jsonl").write_text("\n".join(lines))
    (folder / "cases.jsonl").write_text('{"input": 1, "expected": 1}\n')
    command = [
        sys.executable,
        "-m",
        "millrace",
        "validate",
        "run",
        "--candidates",
        "programs.jsonl",
        "--cases",
        "cases.jsonl",
    ]
    command += ["--store", "store", "--cores", "2", "--top", "1", "--quiet"]
    begun, running = {}, {}
    for i in range(INSTANCES):
        begun[i] = time.perf_counter()
        running[i] = subprocess.Popen([*command, "--out", f"out{i}"], cwd=folder)
        time.sleep(STAGGER_S)
    took_s: dict[int, float] = {}
    while running:
        for i, process in list(running.items()):
            if process.poll() is not None:
                took_s[i] = time.perf_counter() - begun[i]
                del running[i]
        time.sleep(0.02)
    cached = total = 0
    for i in range(INSTANCES):
        told = subprocess.run(
            [sys.executable, "-m", "millrace", "report", f"out{i}", "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        outcomes = json.loads(told.stdout)["outcomes"]
        cached, total = cached + outcomes.get("cached", 0), total + sum(outcomes.values())
    others = total * (INSTANCES - 1) / INSTANCES  # somebody has to compute it once
    bench.figure("eight staggered runs of one work: hits of the seven", 100 * cached / others, "%", 90, at_most=False)
    apart = max(took_s.values()) / min(took_s.values())
    bench.figure("eight staggered runs of one work: slowest over fastest, each from its beginning", apart, "x")


def main() -> None:
    bench = Bench("sharing")
    with tempfile.TemporaryDirectory() as place:
        tokens = CoreTokens(Path(place), 2)
        start = time.perf_counter()
        for _ in range(TURNS):
            tokens.take()
            tokens.release()
        bench.figure("a token, taken and given back", (time.perf_counter() - start) / TURNS * 1e6, "us")
        tokens.close()
    for engine in ("inline", "processes"):
        for name, work, count in (("no work", abs, 20_000), ("1 ms", millisecond, 1_000)):
            ratios = []
            for _ in range(3):  # in turns, so that both meet the same noise
                without, with_tokens = (seconds(engine, light, work, count) for light in (True, False))
                ratios.append(with_tokens / without)
            bench.figure(f"{engine}, tasks of {name}: with tokens / without", statistics.median(ratios), "x")
    many = [
        subprocess.Popen([sys.executable, "-c", BUSY, "100"], stdout=subprocess.PIPE, text=True)
        for _ in range(INSTANCES)
    ]
    took = [float(one.communicate()[0]) for one in many]
    bench.figure("eight runs at once: the last ends, over the first", max(took) / min(took), "x", 2)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        staggered(bench, Path(place))
    bench.write()


if __name__ == "__main__":
    main()
