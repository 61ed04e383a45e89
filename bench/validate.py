"""validate beside running programs without protection, and with more of it than is needed.

`python -m bench.validate [--quick]`. Candidates are programs of about 1 ms each over a small library, in the two lanes; peers
run the same programs on the same case: a fresh interpreter for each, a fork for each, a `ProcessPoolExecutor` (no isolation),
and, for a population with duplicates, every candidate on every case in one process per core. Whole questions go through
`mr.validate`, its start included. Seconds are by the clock; the machine's load falls on all alike, since they take turns.
"""

from __future__ import annotations

import os
import sys

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import json
import random
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import millrace as mr
from bench.harness import Bench
from millrace.analyses.validate.kernels import canonical

LIBRARY = '''"""Functions over grids; `work` takes about a millisecond."""


def flip(grid):
    return tuple(row[::-1] for row in grid)


def flop(grid):
    return grid[::-1]


def turn(grid):
    return tuple(zip(*grid[::-1]))


def work(grid, times):
    total = 0
    for _ in range(times):
        total += sum(grid[0])
    return grid
'''
GRID = [[(i * j) % 10 for j in range(10)] for i in range(10)]


def of_a_millisecond() -> int:
    """How often `work` goes round in a millisecond of this machine's processor time."""
    import gridlib

    took_s = []
    for _ in range(20):
        start_s = time.process_time()
        gridlib.work(GRID, 5000)
        took_s.append(time.process_time() - start_s)
    return round(5000 * 1e-3 / statistics.median(took_s))


def programs(count: int, lane: str, times: int, seed: int = 0) -> list[str]:
    """Distinct programs of about a millisecond; those of the candidate lane have a loop of their own."""
    draw, found = random.Random(seed), []
    for i in range(count):
        lines, value = [f"    w = work(I, {times} + {i})"], "w"
        for k in range(draw.randrange(1, 6)):
            lines.append(f"    x{k} = {draw.choice(['flip', 'flop', 'turn'])}({value})")
            value = f"x{k}"
        if lane == "candidate":
            lines.append("    for _ in range(3): pass")
        found.append("\n".join(["def solve(I):", *lines, f"    return {value}", ""]))
    return found


def population(count: int, mutants: int, times: int, seed: int = 1) -> list[str]:
    """Programs and mutants of each, as a search has them: renamed, with a dead line, or with one call changed."""
    draw, found = random.Random(seed), []
    for i in range(count):
        calls = [draw.choice(["flip", "flop", "turn"]) for _ in range(4)]
        for m in range(mutants + 1):
            mine = list(calls)
            if m % 2:
                mine[draw.randrange(4)] = draw.choice(["flip", "flop", "turn"])
            lines, value = [f"    w{m} = work(I, {times} + {i % 50})"], f"w{m}"
            for k, call in enumerate(mine):
                lines.append(f"    x{k}_{m} = {call}({value})")
                value = f"x{k}_{m}"
            found.append("\n".join(["def solve(I):", *lines, f"    return {value}", ""]))
    draw.shuffle(found)
    return found


CASE = {"train": [{"input": GRID, "output": GRID}], "test": []}


def many_cases(count: int) -> dict[str, Any]:
    draw, pairs = random.Random(3), []
    for _ in range(count):
        grid = [[draw.randrange(10) for _ in range(10)] for _ in range(10)]
        turned = [list(row) for row in zip(*grid[::-1], strict=True)]
        pairs.append({"input": grid, "output": turned})
    return {"train": pairs, "test": []}


def ours(found: list[str], task: dict[str, Any], **more: Any) -> Any:
    options = {"engine": "processes", "cores": 2, "library": "gridlib", "top": 1, "repeats": 1, **more}
    return mr.validate(found, task, **options)


# -- peers ---------------------------------------------------------------------------------------------------------------
def unsafe(job: tuple[str, list[Any]]) -> list[bool]:
    """Run a program on every pair, in this process, as a script would."""
    import gridlib

    source, pairs = job
    space = dict(vars(gridlib))
    told = []
    for pair in pairs:
        try:
            exec(source, space)
            found = space["solve"](tuple(map(tuple, pair["input"])))
            told.append([list(r) for r in found] == pair["output"])
        except Exception:  # noqa: BLE001 - a wrong program
            told.append(False)
    return told


def pool(found: list[str], task: dict[str, Any]) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        list(executor.map(unsafe, [(source, task["train"]) for source in found], chunksize=16))


def forks(found: list[str], task: dict[str, Any]) -> None:
    """Two at a time, a fork of this process for each."""
    living: set[int] = set()
    for source in found:
        if len(living) == 2:
            living.discard(os.wait()[0])
        pid = os.fork()
        if not pid:
            unsafe((source, task["train"]))
            os._exit(0)
        living.add(pid)
    while living:
        living.discard(os.wait()[0])


def interpreters(found: list[str], task: dict[str, Any]) -> None:
    """Two at a time, a fresh interpreter for each."""
    living: list[subprocess.Popen[bytes]] = []
    for source in found:
        if len(living) == 2:
            living.pop(0).wait()
        tail = f"I = {json.dumps(task['train'][0]['input'])}\nprint(solve(tuple(map(tuple, I))))"
        command = [sys.executable, "-c", f"from gridlib import *\n{source}\n{tail}"]
        living.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for process in living:
        process.wait()


def hashing(bench: Bench, work_times: int) -> None:
    names = frozenset({"flip", "flop", "turn", "work"})
    library = canonical.Library(names, names, frozenset({"gridlib"}))
    times = []
    for source in programs(1500, "batch", work_times):
        start = time.process_time_ns()
        canonical.read(source, "solve", library)
        times.append(time.process_time_ns() - start)
    bench.figure("canonical form and digest, median, processor time", statistics.median(times) / 1e6, "ms", 0.15)


def main(quick: bool) -> None:
    bench = Bench("validate")
    few, turns = (30, 1) if quick else (60, 3)
    times = of_a_millisecond()
    hashing(bench, times)
    lanes = (("batch", 6_000, (0.9, None, 25.0)), ("candidate", 2_400, (None, None, 10.0)))
    for lane, whole, holds in lanes:
        count = whole // 10 if quick else whole
        found = programs(count, lane, times)
        took_s = bench.against(
            f"{count} programs of 1 ms, {lane} lane, start included",
            lambda found=found: ours(found, CASE),  # type: ignore[misc]
            {
                "ProcessPoolExecutor, unsafe": (lambda found=found: pool(found, CASE), 1, holds[0]),  # type: ignore[misc]
                "a fork each, unjailed": (lambda found=found: forks(found, CASE), 1, holds[1]),  # type: ignore[misc]
                "an interpreter each": (
                    lambda found=found: interpreters(found[:few], CASE), count / few, holds[2],  # type: ignore[misc]
                ),
            },
            turns,
            f"interpreters: {few}, scaled",
        )  # fmt: skip
        bench.figure(f"{lane} lane", count / took_s, "candidates/s", 900.0 if lane == "batch" else 250.0, at_most=False)
    searched, task = population(10 if quick else 200, 20, times), many_cases(6)
    bench.against(
        f"{len(searched)} of a search on 6 cases",
        lambda: ours(searched, task),
        {"every candidate on every case, unsafe": (lambda: pool(searched, task), 1, 4.0)},
        turns,
    )
    bench.against(
        f"{len(searched)} of a search on 6 cases, pure_library",
        lambda: ours(searched, task, pure_library=True),
        {"without": (lambda: ours(searched, task), 1, None)},
        turns,
    )
    with tempfile.TemporaryDirectory() as store:
        found = programs(count, "batch", times)
        ours(found, CASE, store=store)
        start, cpu = time.perf_counter(), time.process_time()
        answer = ours(found, CASE, store=store)
        took_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        bench.figure("second run, by the clock, start included", 1e3 * took_s / count, "ms a candidate")
        bench.figure("second run, the driver's processor time", 1e3 * cpu_s / count, "ms a candidate", 0.2)
        hits = answer.report.accounting.outcomes
        bench.figure("second run, hits", 100 * hits.get("cached", 0) / sum(hits.values()), "%", 99.0, at_most=False)
    small = programs(100, "batch", times, 7)
    asked = f"mr.validate({small!r}, {CASE!r}, library='gridlib', cores=2, top=1, repeats=1)"
    command = f"import sys; sys.path.insert(0, '.')\nimport millrace as mr\n{asked}"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", command], check=True)
    bench.figure("a hundred tasks from a cold start", time.perf_counter() - start, "s", 2.0)
    bench.write()


if __name__ == "__main__":
    folder = tempfile.mkdtemp()
    Path(folder, "gridlib.py").write_text(LIBRARY)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.getcwd()])
    here = os.getcwd()
    os.chdir(folder)
    main("--quick" in sys.argv)
    os.chdir(here)
