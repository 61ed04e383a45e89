"""Outcome models and effects of twin: seconds at 100,000 x 15, five folds, and how near the learnt effects are to the true ones.

`python -m bench.twin_effects [--quick] [--large]`. The world is that of examples/twin_pharma, whose truth is known; peers are a
T-learner of two LightGBM models, as people write it, and the difference of the arms' means. Seconds are of the processor, all
in one process: the fits are tasks of nearly equal length, so that two cores halve them (7 s and 25 s are what they are held to).
--large: one fit of an outcome on 1,000,000 x 99, by the clock; the rows lie in a file, as they do for the workers of a run.
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
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "twin_pharma"))

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import world

import millrace as mr
from bench.harness import Bench, peak_bytes
from bench.twin import factors
from millrace.analyses.twin import effects, features, outcome
from millrace.analyses.twin.kernels import learners

TREATMENT, OUTCOME = "contacted", "prescriptions"


def learnt(bench: Bench, rows: int, held: bool) -> None:
    """Times of both, and the correlation of the effects with the truth."""
    drawn = world.draw(rows, seed=0)
    table = pa.table(drawn.columns)
    with mr.Run(engine="inline") as run:
        seconds, made = _timed(lambda: outcome.fit_outcome(run, table, OUTCOME))
        bench.figure(f"outcome, {rows:,} x 16, 300 trees, 5 folds, processor", seconds, "s", 14 if held else None)
        bench.figure("  its R2 on rows that it had not seen", made.scores["r2"], "")
        bench.figure("  share that its 90 % intervals held", made.conformal.measured, "")
        seconds, model = _timed(lambda: effects.fit_effects(run, table, TREATMENT, OUTCOME))
        bench.figure(f"effects, {rows:,} x 15, DR-learner, 5 folds, processor", seconds, "s", 50 if held else None)
    ours = float(np.corrcoef(model.tau, drawn.effect[model.kept])[0, 1])
    bench.figure("  correlation with the true effects", ours, "", 0.90 if held else None, at_most=False)
    x = features.encode(model.encoding, table)
    t, y = drawn.columns[TREATMENT], drawn.columns[OUTCOME]
    settings: dict[str, Any] = {
        "n_estimators": 200,
        "num_leaves": 31,
        "learning_rate": 0.06,
        "n_jobs": 1,
        "verbose": -1,
    }
    arms = [lightgbm.LGBMRegressor(**settings).fit(x[t == a], y[t == a]).predict(x) for a in (0, 1)]
    bench.figure(
        "  that of a T-learner of two LightGBM models", float(np.corrcoef(arms[1] - arms[0], drawn.effect)[0, 1]), ""
    )
    truth = float(drawn.effect.mean())
    bench.figure("  average effect, standard errors from the truth", abs(model.ate[0] - truth) / model.ate[1], "se")
    naive = float(y[t == 1].mean() - y[t == 0].mean())
    bench.figure("  difference of the arms' means, the same", abs(naive - truth) / model.ate[1], "se")


def large(bench: Bench, rows: int = 1_000_000, columns: int = 99) -> None:
    """One of the six fits of an outcome model, and what its process holds besides the mapped rows."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        x = np.lib.format.open_memmap(Path(folder) / "x.npy", "w+", np.float64, (rows, columns))
        frame = factors(rows, columns)
        y = frame.pop("y").to_numpy()
        categories = [j for j, name in enumerate(frame) if frame[name].dtype.kind not in "fiub"]
        for j, name in enumerate(frame):
            x[:, j] = pd.factorize(frame[name], sort=True)[0] if j in categories else frame[name]
        del frame
        x = np.load(Path(folder) / "x.npy", mmap_mode="r")
        aim = learners.Aim(x, tuple(categories), y, np.arange(rows), "number")
        took: list[float] = []

        def fit() -> None:
            begin = time.perf_counter()
            learners.train("lightgbm", aim, learners.Growth())
            took.append(time.perf_counter() - begin)

        held = peak_bytes(fit)
        bench.figure(f"one fit of an outcome, {rows:,} x {columns}, one core", took[0], "s", 30)
        bench.figure("  private memory", held / 2**30, "GiB", 1)


def _timed(work: Any) -> tuple[float, Any]:
    begin = time.process_time()
    made = work()
    return time.process_time() - begin, made


def main() -> None:
    bench = Bench("twin_effects")
    quick = "--quick" in sys.argv
    learnt(bench, 10_000 if quick else 100_000, held=not quick)
    if "--large" in sys.argv:
        large(bench)
    bench.keep()
    bench.write()


if __name__ == "__main__":
    main()
