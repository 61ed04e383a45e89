"""How fast twins are drawn, in how much memory, and what a million rows of a hundred columns take.

`python -m bench.twin_speed [draw] [row] [scale] [stream]`: all, or the parts named; each writes its figures when it is through.
draw: 100,000 twins of 15 columns. row: one twin, and beside a loop that makes one row at a time. scale: 1,000,000 x 100, fit on
all rows and as many twins. stream: 10,000,000 twins of 100 columns, whose memory must be that of 1,000,000.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pandas as pd

import millrace as mr
from bench.harness import Bench, peak_bytes
from bench.twin import factors
from millrace.analyses.twin.generate import Sampler

GIB = 2**30


def narrow(joint: str) -> Any:
    return mr.twin.fit(factors(20_000, 14), find=False, engine="inline", joint=joint)


def draw(bench: Bench) -> None:
    """100,000 twins of 15 columns to a file, warm, in one process."""
    for joint in ("auto", "plain"):
        model = narrow(joint)
        judged = "judged" if model.generator.judge else "not judged"
        mr.twin.sample(model, 100)
        taken, used = [], []
        for _ in range(3):
            clock, processor = time.perf_counter(), time.process_time()
            mr.twin.generate(model, 100_000, engine="inline")
            taken.append(time.perf_counter() - clock)
            used.append(time.process_time() - processor)
        bench.figure(f"100,000 twins x 15 to Parquet, one core, {judged}", min(taken), "s", 2)
        bench.figure(f"  processor seconds, {judged}", min(used), "s", 2)
        grown = peak_bytes(lambda model=model: mr.twin.generate(model, 100_000, engine="inline"))
        bench.figure(f"  private memory, {judged}", grown / 2**20, "MiB", 250)


def row(bench: Bench) -> None:
    """One twin at a time, and many, beside the loop that people write: every column drawn alone, and an outcome predicted."""
    import lightgbm

    model = narrow("auto")
    warm = Sampler(model)
    ones = []
    for i in range(300):
        begin = time.perf_counter()
        warm.draw(1, i)
        ones.append(time.perf_counter() - begin)
    bench.figure("one twin in process, p50", float(np.median(ones)) * 1e3, "ms", 5)
    frame = factors(20_000, 14)
    numbers = frame.select_dtypes("number").drop(columns="y")
    predictor = lightgbm.LGBMRegressor(n_estimators=300, n_jobs=1, verbose=-1).fit(numbers, frame["y"])
    rng, n = np.random.default_rng(0), 200

    def loop() -> None:
        rows = []
        for _ in range(n):
            one = {c: rng.choice(frame[c].to_numpy()) for c in frame if c != "y"}
            at = pd.DataFrame([one])[list(numbers)]
            rows.append({**one, "y": float(predictor.predict(at)[0])})
        pd.DataFrame(rows)

    bench.clock = time.process_time
    bench.against(
        "a twin of 15 columns, of 100,000", lambda: warm.draw(100_000, 1), {"a row at a time": (loop, 100_000 / n, 500)}
    )


def scale(bench: Bench, rows: int = 1_000_000, columns: int = 99) -> None:
    """Fit on all rows, as many twins, two cores."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "wide.parquet"
        factors(rows, columns).astype({f"x{j}": "float32" for j in range(columns) if j % 5 != 3}).to_parquet(path)
        begin = time.perf_counter()
        model = mr.twin.fit(path, find=False, engine="processes", cores=2, out=Path(folder) / "model")
        fitted = time.perf_counter() - begin
        bench.figure(f"fit, {rows:,} x {columns + 1}, two cores", fitted, "s")
        made = mr.twin.generate(model, rows, out=Path(folder) / "twins.parquet", engine="processes", cores=2)
        held = rows == 1_000_000
        bench.figure(f"  with {rows:,} twins", time.perf_counter() - begin, "s", 300 if held else None)
        for what, answer in (("fit", model), ("generate", made)):
            said = answer.report.accounting.as_dict()
            bench.figure(f"  core-seconds of tasks of {what}", core_s(said), "s")
            bench.figure(f"  private memory of {what}", peak_of(said["memory"]) / GIB, "GiB", 1.6 if held else None)
        size = sum(f.stat().st_size for f in (Path(folder) / "model").rglob("*.npy"))
        bench.figure("  the model on disk", size / 2**20, "MiB", 400 if held else None)


def stream(bench: Bench) -> None:
    """More twins take no more memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        model = mr.twin.fit(factors(20_000, 99), find=False, joint="plain", engine="processes", cores=2)
        peaks = []
        for n in (1_000_000, 10_000_000):
            begin = time.perf_counter()
            made = mr.twin.generate(model, n, out=Path(folder) / "twins.parquet", engine="processes", cores=2)
            bench.figure(f"{n:,} twins x 100, two cores", time.perf_counter() - begin, "s")
            (Path(folder) / "twins.parquet").unlink()  # gigabytes
            peaks.append(peak_of(made.report.accounting.as_dict()["memory"]))
            bench.figure(f"private memory of {n:,} twins x 100", peaks[-1] / GIB, "GiB", 1.6)
        bench.figure("  of ten times as many, times", peaks[1] / peaks[0], "x", 1.1)


def peak_of(said: dict[str, Any]) -> float:
    """Of the driver and two workers, at most."""
    return float(said["driver_peak_bytes"] + 2 * said["task_peak_bytes"])


def core_s(said: dict[str, Any]) -> float:
    """Seconds of cores while tasks ran."""
    return float(said["core_s"])


PARTS = {"draw": draw, "row": row, "scale": scale, "stream": stream}


def main(wanted: list[str]) -> int:
    for part in wanted or PARTS:
        bench = Bench("twin_speed")
        PARTS[part](bench)
        bench.keep()
        bench.write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
