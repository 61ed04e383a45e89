"""How near plans come: predicted over measured wall time and memory, of each analysis, as runs on this host teach.

`python -m bench.plans [NAME ...]`. A user who has never run anything asks for a plan and runs it, six times with other data
and other sizes; each plan and run is a process of its own. After one run a plan is held to a factor of 2, after five to 1.3;
memory to between 1 and 2 of what was held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Bench

SIZES = (1.0, 2.0, 0.7, 1.5, 1.0, 3.0)
"""Of the six questions, as parts of a first one of some seconds."""
AFTER = {1: 2.0, 5: 1.3}
WORK = '''"""What the questions below call."""
import time

import numpy as np


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def simulate(params, seed):
    burn(0.02)
    draws = np.random.default_rng(seed)
    return {"y": [params["a"] + draws.normal()], "z": [params["b"] + draws.normal()]}


def one(item):
    burn(0.03)
    return item
'''


def explain(folder: Path, turn: int, size: float) -> list[str]:
    import lightgbm

    draw = np.random.default_rng(turn)
    x = draw.normal(size=(round(12_000 * size), 12))
    if not (folder / "model.txt").exists():
        y = x[:, 0] * x[:, 1] + x[:, 2]
        made = lightgbm.LGBMRegressor(n_estimators=400, num_leaves=63, n_jobs=1, verbose=-1).fit(x, y)
        made.booster_.save_model(folder / "model.txt")
    np.save(folder / f"rows{turn}.npy", x)
    return ["explain", "--model", "model.txt", "--data", f"rows{turn}.npy"]


def refute(folder: Path, turn: int, size: float) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    draw, rows = np.random.default_rng(turn), round(60_000 * size)
    causes = draw.normal(size=(rows, 20))
    t = causes[:, 0] + draw.normal(size=rows)
    columns = {f"w{i}": causes[:, i] for i in range(20)} | {
        "t": t,
        "y": 0.5 * t + causes[:, 0] + draw.normal(size=rows),
    }
    parquet.write_table(pyarrow.table(columns), folder / f"study{turn}.parquet")
    names = ",".join(f"w{i}" for i in range(20))
    return ["refute", "--data", f"study{turn}.parquet", "--treatment", "t", "--outcome", "y", "--common-causes", names]


def calibrate(folder: Path, turn: int, size: float) -> list[str]:
    (folder / f"study{turn}.toml").write_text(
        f'simulate = "work:simulate"\ntrials = {round(60 * size)}\nreplicates = 3\nstop_early = false\nfinish = 0\n'
        "[parameters]\na = [0.0, 1.0]\nb = [0.0, 1.0]\n[targets.y]\ndata = [0.5]\n[targets.z]\ndata = [0.5]\n"
    )
    return ["calibrate", "run", f"study{turn}.toml", "--seed", str(turn)]


def validate(folder: Path, turn: int, size: float) -> list[str]:
    draw = np.random.default_rng(turn)
    body = "    for i in range(4000):\n        total += i\n    return x\n"
    with (folder / f"programs{turn}.jsonl").open("w") as file:
        for i in range(round(1500 * size)):
            source = f"def solve(x):\n    total = {int(draw.integers(1e9))}\n{body}"
            file.write(json.dumps({"id": str(i), "source": source}) + "\n")
    (folder / "cases.jsonl").write_text('{"input": 1, "expected": 1}\n{"input": 2, "expected": 2}\n')
    return ["validate", "run", "--candidates", f"programs{turn}.jsonl", "--cases", "cases.jsonl"]


def twin(folder: Path, turn: int, size: float) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    draw, rows = np.random.default_rng(turn), round(20_000 * size)
    common = draw.normal(size=rows)
    columns = {f"c{i}": common * (i / 12) + draw.normal(size=rows) for i in range(12)}
    parquet.write_table(pyarrow.table(columns), folder / f"people{turn}.parquet")
    return ["twin", "fit", "--data", f"people{turn}.parquet", "--joint", "plain"]


def function(folder: Path, turn: int, size: float) -> list[str]:
    count = round(150 * size)
    (folder / f"items{turn}.jsonl").write_text("\n".join(str(1000 * turn + i) for i in range(count)))
    return ["run", "work:one", "--items", f"items{turn}.jsonl"]


QUESTIONS: dict[str, Callable[[Path, int, float], list[str]]] = {
    "explain": explain, "refute": refute, "calibrate": calibrate, "validate": validate, "twin": twin, "run": function,
}  # fmt: skip


def main() -> int:
    bench = Bench("plans")
    for name in sys.argv[1:] or QUESTIONS:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
            folder = Path(place)
            (folder / "work.py").write_text(WORK)
            told = [foretold(folder, QUESTIONS[name], turn, size) for turn, size in enumerate(SIZES)]
        for runs, hold in AFTER.items():
            planned, measured = told[runs]["wall_s"]
            said = f"{name}: wall after {runs} {'run' if runs == 1 else 'runs'}, {planned:.2f} s told and {measured:.2f} s taken"
            bench.figure(f"{said}, apart by", max(planned / measured, measured / planned), "x", hold)
        planned, measured = told[-1]["bytes"]
        if planned and measured:
            bench.figure(f"{name}: memory told / held", planned / measured, "x", 2.0)
            bench.figure(f"{name}: memory told / held", planned / measured, "x", 1.0, at_most=False)
    bench.write()
    return 0


def foretold(folder: Path, ask: Callable[[Path, int, float], list[str]], turn: int, size: float) -> dict[str, Any]:
    """What the plan said and what the run took: wall_s and bytes, each a pair."""
    words = [*ask(folder, turn, size), "--engine", "processes", "--store", f"store{turn}"]
    plan = json.loads(millrace(folder, "plan", *words, "--json"))
    millrace(folder, *words, "--out", f"out{turn}", "--quiet")
    report = json.loads(millrace(folder, "report", f"out{turn}", "--json"))
    return {
        "wall_s": (plan["wall_s"] or float("nan"), report["wall_s"]),
        "bytes": (plan.get("peak_bytes"), report["memory"]["at_most_bytes"]),
    }


def millrace(folder: Path, *words: str) -> str:
    own = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "millrace", *words],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"millrace {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
