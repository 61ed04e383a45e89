"""refute beside refitting and DoWhy: one core unless said, everything counted.

`python -m bench.refute [--quick]`. Whole questions go through the public `mr.refute`, each in a process of its
own; times of one simulation are a batch of 50 of the kernels (what a task of `mr.refute` does), after `prepare`.
Seconds of one core are processor time, since others may use the machine; ratios and two cores are by the clock. Peers that
would take hours get few simulations, and their time is scaled; the line says so.
"""

from __future__ import annotations

import os
import sys

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import json
import math
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression

import millrace as mr
from bench.harness import Bench, peak_bytes, timed
from millrace.analyses.refute.kernels import aipw, dml, ipw, matching, ols, resample
from millrace.analyses.refute.study import BATCH, Study

TESTS = ("bootstrap", "subset", "placebo", "random_common_cause")
ROWS, COLUMNS = 100_000, 200


def world(rows: int, columns: int, *, binary: bool = False, path: Path | None = None) -> np.ndarray:
    """(rows, columns + 2): confounders, treatment, outcome; in a file when `path` is given."""
    shape, some = (rows, columns + 2), 20_000
    out = np.empty(shape) if path is None else np.lib.format.open_memmap(path, "w+", np.float64, shape)
    rng, slope = np.random.default_rng(0), np.full(columns, 0.4 / math.sqrt(columns))
    for begin in range(0, rows, some):
        part = out[begin : begin + some]
        part[:, :columns] = rng.standard_normal((len(part), columns))
        index = part[:, :columns] @ slope
        treatment = index + (rng.logistic(size=len(part)) if binary else rng.standard_normal(len(part)))
        part[:, columns] = treatment > 0 if binary else treatment
        part[:, columns + 1] = 0.5 * part[:, columns] + index + rng.standard_normal(len(part))
    return out


def study_of(data: np.ndarray, binary: bool = False) -> Study:
    columns = data.shape[1] - 2
    return Study(
        np.ascontiguousarray(data[:, columns]),
        np.ascontiguousarray(data[:, columns + 1]),
        np.ascontiguousarray(data[:, :columns]),
        binary=binary,
    )


def asked(data: Any, columns: int, simulations: int, **more: Any) -> Any:
    """As a user calls it: unnamed columns, the last two treatment and outcome; the four tests that simulate."""
    causes = [f"x{j}" for j in range(columns)]
    options = {"tests": TESTS, "engine": "inline", "cores": 1, **more}
    return mr.refute(data, f"x{columns}", f"x{columns + 1}", common_causes=causes, simulations=simulations, **options)


# -- whole questions, in processes of their own --------------------------------------------------------------------------
def whole(path: str, simulations: int, cores: int, watch: int) -> dict[str, Any]:
    """One question: seconds (of the processor with one core, else of the clock) in all, and of the processor by test; or,
    when it is watched (which takes time itself), its peak of private memory. Imports of what the question needs count; the
    data do not."""
    columns = np.load(path, mmap_mode="r").shape[1] - 2
    more = {} if cores == 1 else {"engine": "processes", "cores": cores}
    if watch:
        return {"peak_bytes": peak_bytes(lambda: asked(path, columns, simulations, **more))}
    clock = time.process_time if cores == 1 else time.perf_counter
    begin = clock()
    answer = asked(path, columns, simulations, **more)
    took = {t.name: t.cpu_s for t in answer.report.accounting.tasks}
    return {"seconds": clock() - begin, "times_s": {test: took[test] for test in TESTS}}


def in_its_own_process(path: Path, simulations: int, cores: int = 1, watch: int = 0) -> dict[str, Any]:
    call = [sys.executable, "-m", "bench.refute", "--whole", str(path), str(simulations), str(cores), str(watch)]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


def questions(bench: Bench, folder: Path, simulations: int) -> None:
    path = folder / "wide.npy"
    world(ROWS, COLUMNS, path=path)
    of = f"{ROWS:,} x {COLUMNS}, {simulations:,} simulations of four tests"
    found = in_its_own_process(path, simulations)
    bench.figure(f"{of}: all of mr.refute, one core", found["seconds"], "s")
    four = sum(found["times_s"].values())
    bench.figure("  of which the four tests", four, "s", 12 if simulations == 1000 else None)
    for test, took in found["times_s"].items():
        bench.figure(f"  of which {test}, one simulation", took / simulations * 1e3, "ms")
    peak = in_its_own_process(path, simulations, watch=1)["peak_bytes"]
    bench.figure(f"{of}: private memory above the data", peak / 2**20, "MiB", 150)
    found = in_its_own_process(path, simulations, cores=2)
    bench.figure(f"{of}: mr.refute, two cores", found["seconds"], "s", 20 if simulations == 1000 else None)
    path = folder / "long.npy"
    rows, some = (1_000_000, 200) if simulations == 1000 else (200_000, 50)
    world(rows, 50, path=path)
    found = in_its_own_process(path, some)
    for test, took in found["times_s"].items():
        bench.figure(f"{rows:,} x 50 mapped, {some} of {test}", took, "s", 5 if rows == 1_000_000 else None)
    peak = in_its_own_process(path, some, watch=1)["peak_bytes"]
    bench.figure(f"{rows:,} x 50 mapped: private memory", peak / 2**20, "MiB", 150)


# -- against refitting ---------------------------------------------------------------------------------------------------
def refitting(bench: Bench, rows: int, turns: int) -> None:
    """A bootstrap of 50, after preparation, beside one refit of a resample."""
    study = study_of(world(rows, COLUMNS))
    shared = ols.prepare(study)
    design = np.column_stack([np.ones(rows), study.treatment, study.confounders])

    def least_squares() -> float:
        drawn = np.random.default_rng(1).integers(0, rows, rows)
        return float(np.linalg.lstsq(design[drawn], study.outcome[drawn], rcond=None)[0][1])

    def normal_equations() -> float:
        counts = resample.counts(rows, "bootstrap", 0, 0).astype(np.float64)
        weighted = design * counts[:, None]
        return float(np.linalg.solve(weighted.T @ design, weighted.T @ study.outcome)[1])

    whole_size = rows == ROWS
    bench.against(
        f"least squares, {rows:,} x {COLUMNS}, bootstrap of {BATCH} (kernels)",
        lambda: ols.simulate(study, shared, "bootstrap", 0, 0),
        {
            "lstsq a resample": (least_squares, BATCH, 200 if whole_size else None),
            "weighted normal equations": (normal_equations, BATCH, 50 if whole_size else None),
        },
        turns,
        f"peers one simulation, scaled to {BATCH}",
    )


def against_dowhy(bench: Bench, rows: int, columns: int, hold: float, turns: int) -> None:
    """1,000 simulations of each test through `mr.refute` beside DoWhy's refuters, 2 simulations each, scaled."""
    try:
        from dowhy import CausalModel
    except ImportError:
        print("DoWhy cannot be imported here: not measured", flush=True)
        return
    import logging

    import pandas

    logging.disable(logging.WARNING)
    data, few, many = world(rows, columns), 2, 1000
    names = [f"x{j}" for j in range(columns)]
    frame = pandas.DataFrame(data, columns=[*names, "treatment", "outcome"])
    model = CausalModel(frame, "treatment", "outcome", common_causes=names)
    # The set to adjust for is known here; to search for it takes DoWhy longer than the simulations with many columns.
    from dowhy.causal_identifier.identified_estimand import IdentifiedEstimand

    estimand = IdentifiedEstimand(
        model._identifier if hasattr(model, "_identifier") else None,
        treatment_variable=["treatment"],
        outcome_variable=["outcome"],
        backdoor_variables={"backdoor": names},
        default_backdoor_id="backdoor",
        estimands={"backdoor": {"estimand": None, "assumptions": {}}},
    )
    estimand.set_identifier_method("backdoor")
    estimate = model.estimate_effect(estimand, method_name="backdoor.linear_regression")
    methods: Mapping[str, tuple[str, dict[str, Any]]] = {
        "placebo": ("placebo_treatment_refuter", {"placebo_type": "permute"}),
        "random_common_cause": ("random_common_cause", {}),
        "subset": ("data_subset_refuter", {"subset_fraction": 0.8}),
        "bootstrap": ("bootstrap_refuter", {}),
    }
    for test, (method, options) in methods.items():
        peer = partial(
            model.refute_estimate, estimand, estimate, method_name=method, num_simulations=few, n_jobs=1,
            show_progress_bar=False, **options,
        )  # fmt: skip
        bench.against(
            f"{test}, {rows:,} x {columns}, {many:,} simulations (mr.refute)",
            lambda test=test: asked(data, columns, many, tests=(test,)),
            {"DoWhy": (peer, many / few, hold)},
            turns,
            f"DoWhy {few} simulations, scaled; identification not counted",
        )


# -- other estimators ----------------------------------------------------------------------------------------------------
def weighting(bench: Bench, rows: int, columns: int, turns: int) -> None:
    """IPW and AIPW: a batch each of the kernels, beside one refit of both with scikit-learn and with the plain oracle."""
    study = study_of(world(rows, columns, binary=True), binary=True)
    shared = {kernel: kernel.prepare(study) for kernel in (ipw, aipw)}
    for test, hold in (("bootstrap", 10), ("subset", 10), ("placebo", 3)):

        def ours(test: Any = test) -> None:
            for kernel, its in shared.items():
                kernel.simulate(study, its, test, 0, 0)

        changed = (
            {"treatment": resample.permuted(study.treatment, 0, 0)}
            if test == "placebo"
            else {"counts": resample.counts(rows, test, 0, 0)}  # type: ignore[arg-type]
        )
        bench.against(
            f"IPW and AIPW, {rows:,} x {columns}, {test} of {BATCH} (kernels)",
            ours,
            {
                "scikit-learn": (partial(learned, study, **changed), BATCH, _at(30, rows)),
                "Newton's method in NumPy": (partial(plainly, study, changed), BATCH, None),
            },
            turns,
            f"peers one simulation, scaled to {BATCH}",
        )
        took = _best(ours)
        bench.figure(f"IPW and AIPW, {test}, one simulation", took / BATCH * 1e3, "ms", _at(hold, rows))


def plainly(study: Study, changed: Mapping[str, Any]) -> None:
    for kernel in (ipw, aipw):
        kernel.refit(study, **changed)


def learned(study: Study, treatment: Any = None, counts: Any = None) -> tuple[float, float]:
    """Hajek's and the doubly robust effect by scikit-learn's regressions, without standard errors."""
    x, y = study.confounders, study.outcome
    t = study.treatment if treatment is None else treatment
    weight = np.ones(len(y)) if counts is None else counts.astype(np.float64)
    score = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(x, t, weight).predict_proba(x)[:, 1]
    score = np.clip(score, 0.01, 0.99)
    up, down = weight * t / score, weight * (1 - t) / (1 - score)
    hajek = up @ y / up.sum() - down @ y / down.sum()
    arms = [LinearRegression().fit(x[t == a], y[t == a], weight[t == a]).predict(x) for a in (0.0, 1.0)]
    robust = arms[1] - arms[0] + t / score * (y - arms[1]) - (1 - t) / (1 - score) * (y - arms[0])
    return float(hajek), float(weight @ robust / weight.sum())


def matched(bench: Bench, rows: int, columns: int) -> None:
    study = study_of(world(rows, columns, binary=True), binary=True)
    shared = matching.prepare(study)
    for test, options in (("subset", {"fraction": 0.2}), ("placebo", {}), ("random_cause", {})):
        took = _best(lambda: matching.simulate(study, shared, test, 0, 0, **options))  # type: ignore[arg-type] # noqa: B023
        bench.figure(
            f"matching 1-NN, {rows:,} x {columns}, {test}, one simulation (kernels)",
            took / BATCH * 1e3,
            "ms",
            _at(2, rows),
        )


def multiplied(bench: Bench, rows: int, columns: int) -> None:
    """The orthogonal score under resampled weights; the models were fitted before."""
    study = study_of(world(rows, columns))
    shared = dml.prepare(study, trees=10)
    took = _best(lambda: dml.simulate(study, shared, "bootstrap", 0, 0, fast="multiplier"))
    bench.figure(
        f"DML, score bootstrap, {rows:,} rows, one simulation (kernels)", took / BATCH * 1e3, "ms", _at(1, rows)
    )


def _best(call: Callable[[], object], turns: int = 3) -> float:
    """Processor seconds of a call, warm."""

    def once() -> float:
        begin = time.process_time()
        call()
        return time.process_time() - begin

    once()
    return min(once() for _ in range(turns))


def _at(hold: float, rows: int) -> float | None:
    """What is promised for ROWS rows is promised for no other number of them."""
    return hold if rows == ROWS else None


def busy(table: Any) -> float:
    """A user's estimator of about 50 ms: least squares by singular values, a few times over."""
    names = [name for name in table.columns if name != "x21"]
    design = np.column_stack([np.ones(len(table)), *(table[name] for name in names)])
    for _ in range(7):
        found = np.linalg.lstsq(design, table["x21"].to_numpy(), rcond=None)[0]
    return float(found[1 + names.index("x20")])


def two_cores(bench: Bench, simulations: int, turns: int) -> None:
    """A task a simulation: a user's own function through `mr.refute`, two workers beside one. Workers are up and have
    imported it before."""
    data = world(20_000, 20)

    def with_cores(run: Any) -> float:
        return timed(lambda: asked(data, 20, simulations, tests=("placebo", "subset"), estimator=BUSY, run=run))

    ratios, best = [], [math.inf, math.inf]
    for turn in range(turns):
        took = []
        for cores in (1, 2):
            with mr.Run(engine="processes", cores=cores, seed=turn) as run:
                asked(data[:500], 20, 50, tests=("placebo",), estimator=BUSY, run=run)
                took.append(with_cores(run))
        ratios.append(took[0] / took[1])
        best = [min(b, t) for b, t in zip(best, took, strict=True)]
    each = best[0] / (2 * simulations)
    bench.figure(f"a user's function of {each * 1e3:.0f} ms, {2 * simulations} tasks: one core", best[0], "s")
    bench.figure("a user's function: two cores over one", max(ratios), "x", 1.8, at_most=False)


BUSY = "bench.refute:busy"


def main() -> None:
    warnings.simplefilter("ignore")
    quick = "--quick" in sys.argv
    turns, rows = (1, 20_000) if quick else (3, ROWS)
    bench = Bench("refute")
    with tempfile.TemporaryDirectory() as folder:
        questions(bench, Path(folder), 100 if quick else 1000)
    refitting(bench, rows, turns)
    for size in ((10_000, 20, 100),) if quick else ((10_000, 20, 100), (ROWS, COLUMNS, 500)):
        against_dowhy(bench, *size, turns=1)
    weighting(bench, rows, 50, turns)
    matched(bench, rows, 50)
    multiplied(bench, rows, 50)
    two_cores(bench, 20 if quick else 100, turns)
    bench.write()


if __name__ == "__main__":
    if "--whole" in sys.argv:
        warnings.simplefilter("ignore")
        at = sys.argv.index("--whole")
        print(json.dumps(whole(sys.argv[at + 1], *map(int, sys.argv[at + 2 : at + 5]))))
    else:
        main()
