"""What a calibration gets out of its cores, beside the ways people drive Optuna today.

`python -m bench.calibrate`; `python -m bench.calibrate case` for the thread per trial on Dask alone, with what a report finds
in the lines that its workers logged. All contenders have the same simulator (processor time, counted), the same sampler, the
same number of trials and replicates, and pools that have started already. See `patterns` for how they are written.
"""

from __future__ import annotations

import itertools
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from bench import patterns
from bench.harness import Bench, Line
from bench.patterns import OBSERVED, REPLICATES, simulate
from millrace import compose
from millrace.run.run import Run

CORES = 2
TRIALS = int(os.environ.get("BENCH_TRIALS", "40"))
WORK = f"{TRIALS} trials x {REPLICATES} of 50 ms, 2 targets, {CORES} cores"
TURN = itertools.count()
"""A fixed parameter that differs from one call to the next, so that the store has none of its simulations."""


def half_second(params: dict[str, Any], seed: int) -> dict[str, Any]:
    return simulate(params, seed, 0.5)


def nothing(params: dict[str, Any], seed: int) -> dict[str, Any]:
    return simulate(params, seed, 0.0)


def calibrated(run: Run, function: Callable[..., Any] = simulate, trials: int = TRIALS, **more: Any) -> Any:
    question = {
        "simulate": function, "parameters": {"a": (0.5, 5.0), "b": ("log", 0.05, 2.0), "turn": next(TURN)},
        "targets": {name: {"data": values} for name, values in OBSERVED.items()}, "trials": trials, "replicates": REPLICATES,
        "stop_early": False, "finish": 0, **more,
    }  # fmt: skip
    return compose.carry_out("calibrate", question, compose.Machine(), run)


def opened() -> Run:
    return compose.open_run("bench", compose.Machine(engine="processes", cores=CORES))


def warm(run: Run) -> None:
    calibrated(run, nothing, trials=4)


def utilisation(bench: Bench) -> None:
    for text, function, trials, hold in (
        (f"{TRIALS} trials x 5 of 50 ms", simulate, TRIALS, 0.93),
        ("8 trials x 5 of 500 ms", half_second, 8, 0.97),
    ):
        with opened() as run:
            warm(run)
            found = calibrated(run, function, trials)
            bench.figure(f"in the simulator, {text}", found.timing.utilisation, "of slots x wall", hold, at_most=False)


def own_cost(bench: Bench) -> None:
    """Processor time of the driver and workers beside a simulator that does nothing: per simulation, and per trial."""
    with opened() as run:
        warm(run)
        costs = {}
        for replicates in (1, 9):
            before = time.process_time()
            calibrated(run, nothing, trials=60, replicates=replicates, seeds="independent")
            costs[replicates] = time.process_time() - before
        simulation = (costs[9] - costs[1]) / (60 * 8)
        bench.figure("driver, a simulation", 1000 * simulation, "ms of CPU", 1.0)
        bench.figure("driver, a trial with TPE", 1000 * (costs[1] / 60 - simulation), "ms of CPU", 10.0)


# -- the ways people do it ---------------------------------------------------------------------------------------
@contextmanager
def on_dask() -> Iterator[Any]:
    """A client of a warm LocalCluster with a worker of one thread a core."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        client.gather([client.submit(simulate, {"a": 1.0, "b": 0.3}, n, 0.0, pure=False) for n in range(8)])
        yield client


def against_the_patterns(bench: Bench) -> None:
    with on_dask() as client, opened() as run:
        warm(run)
        peers = {
            "a thread per trial, Dask": (
                lambda: patterns.thread_per_trial(patterns.once_per_target(client), TRIALS), 1.0, 1.9,
            ),
            "run once, then wait, Dask": (
                lambda: patterns.thread_per_trial(patterns.run_once_then_wait(client), TRIALS), 1.0, 1.0,
            ),
        }  # fmt: skip
        bench.against(WORK, lambda: calibrated(run), peers, turns=2)


def against_threads(bench: Bench, turns: int = 2) -> None:
    """`study.optimize(n_jobs)` runs a Python simulator on one core, whatever n_jobs is: the interpreter has one lock.

    By processor time: where a host has other work, its scheduler shares cores between groups of processes, and a second process
    of one group gets nothing that the first would not have had. So our wall time counts by the share of a processor that
    simulations had while they ran, and theirs is the processor time of the one process that runs one thread at a time.
    """
    with opened() as run:
        warm(run)
        mine, theirs = [], []
        for _ in range(turns):
            begun = time.perf_counter()
            found = calibrated(run)
            had = TRIALS * REPLICATES * patterns.SECONDS / found.timing.simulation_s
            mine.append((time.perf_counter() - begun) * min(1.0, had))
            before = time.process_time()
            patterns.optimize(TRIALS, CORES)
            theirs.append(time.process_time() - before)
    ratios = sorted(t / m for t, m in zip(theirs, mine, strict=True))
    bench.add(Line(WORK, "study.optimize(n_jobs)", statistics.median(mine), statistics.median(theirs),
                   statistics.median(ratios), ratios[0], ratios[-1], 0.9 * CORES, "by processor time"))  # fmt: skip


def the_case(bench: Bench) -> None:
    """A thread per trial on Dask, whose workers log timing lines, and what `millrace report --logs` finds in them; our loop on
    the same question beside it, per core-second, and what `millrace report` finds in its ledger."""
    with tempfile.TemporaryDirectory() as place, on_dask() as client:
        log, out = Path(place) / "worker.log", Path(place) / "ours"
        begun = time.perf_counter()
        patterns.thread_per_trial(patterns.once_per_target(client, log), TRIALS)
        theirs = TRIALS / (CORES * (time.perf_counter() - begun))
        print(
            f"\n$ millrace report --logs {log.name}    # {sum(1 for _ in log.open())} lines of a thread per trial, on Dask"
        )
        told("--logs", str(log))
        with compose.open_run("calibrate", compose.Machine(engine="processes", cores=CORES, out=out)) as run:
            warm(run)
            begun = time.perf_counter()
            calibrated(run)
            ours = TRIALS / (CORES * (time.perf_counter() - begun))
        print(
            "\n$ millrace report ours    # the same question by millrace's loop; the start of workers is in the report"
        )
        told(str(out))
    bench.figure("a thread per trial on Dask", theirs, "trials a core-second")
    bench.figure("millrace's loop", ours, "trials a core-second")
    bench.figure("millrace's loop over a thread per trial", ours / theirs, "", 1.9, at_most=False)


def told(*of: str) -> None:
    subprocess.run([sys.executable, "-m", "millrace", "report", *of], check=True)


def early_stop(bench: Bench) -> None:
    with opened() as run:
        found = calibrated(run, nothing, trials=150, replicates=(1, 5), stop_early=True)
        share = sum(found.table["replicates"]) / (150 * REPLICATES)
        bench.figure("simulations of five fixed replicates, with early stop", share, "", 0.5)


def main() -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = Bench("calibrate")
    if sys.argv[1:] == ["case"]:
        the_case(bench)
        return
    early_stop(bench)
    own_cost(bench)
    utilisation(bench)
    against_the_patterns(bench)
    against_threads(bench)
    the_case(bench)
    bench.write()


if __name__ == "__main__":
    main()
