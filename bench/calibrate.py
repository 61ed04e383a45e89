"""What a calibration gets out of its cores, beside the ways people drive Optuna today.

`python -m bench.calibrate`. All contenders have the same simulator (processor time, counted), the same sampler, the same number
of trials and replicates, and pools that have started already. The patterns are written as they are found: a thread per trial on
Dask, replicates submitted once per target, twelve tasks a trial; the same with its simulations submitted once; and
`study.optimize(n_jobs)`.
"""

from __future__ import annotations

import itertools
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import optuna

from bench.harness import Bench
from millrace import compose
from millrace.run.run import Run

CORES = 2
REPLICATES = 5
TRIALS = int(os.environ.get("BENCH_TRIALS", "40"))
SECONDS = 0.05
TURN = itertools.count()
"""A fixed parameter that differs from one call to the next, so that the store has none of its simulations."""
OBSERVED = {"curve": np.exp(-0.3 * np.arange(10.0)) * 2, "total": np.cumsum(np.exp(-0.3 * np.arange(10.0)) * 2)}


def simulate(params: dict[str, Any], seed: int, seconds: float = SECONDS) -> dict[str, Any]:
    """A decay, after `seconds` of processor time in Python."""
    end = time.thread_time_ns() + int(seconds * 1e9)
    while time.thread_time_ns() < end:
        pass
    draws = np.random.default_rng(seed)
    curve = params["a"] * np.exp(-params["b"] * np.arange(10.0)) * np.exp(draws.normal(0, 0.05, 10))
    return {"curve": curve, "total": np.cumsum(curve)}


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
def loss_of(outputs: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([np.mean((made[name] - OBSERVED[name]) ** 2) for made in outputs]))


def suggested(trial: Any) -> dict[str, Any]:
    return {"a": trial.suggest_float("a", 0.5, 5.0), "b": trial.suggest_float("b", 0.05, 2.0, log=True)}


def study() -> Any:
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))


def once_per_target(client: Any) -> Callable[[Any], float]:
    """Twelve tasks a trial: five replicates and an aggregation for each of two targets."""

    def objective(trial: Any) -> float:
        params = suggested(trial)
        total = []
        for name in OBSERVED:
            made = [client.submit(simulate, params, seed, pure=False) for seed in range(REPLICATES)]
            total.append(client.submit(loss_of, made, name, pure=False))
        return sum(client.gather(total))

    return objective


def run_once_then_wait(client: Any) -> Callable[[Any], float]:
    def objective(trial: Any) -> float:
        params = suggested(trial)
        made = client.gather([client.submit(simulate, params, seed, pure=False) for seed in range(REPLICATES)])
        return sum(loss_of(made, name) for name in OBSERVED)

    return objective


def in_a_thread(trial: Any) -> float:
    params = suggested(trial)
    made = [simulate(params, seed) for seed in range(REPLICATES)]
    return sum(loss_of(made, name) for name in OBSERVED)


def thread_per_trial(objective: Callable[[Any], float], threads: int = 8) -> None:
    """A thread asks, submits, gathers and tells; the study is locked."""
    ours, lock = study(), threading.Lock()

    def one(_: int) -> None:
        with lock:
            trial = ours.ask()
        value = objective(trial)
        with lock:
            ours.tell(trial, value)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(TRIALS)))


def against_the_patterns(bench: Bench) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
        opened() as run,
    ):
        warm(run)
        client.gather([client.submit(simulate, {"a": 1.0, "b": 0.3}, n, 0.0, pure=False) for n in range(8)])
        peers = {
            "a thread per trial, Dask": (lambda: thread_per_trial(once_per_target(client)), 1.0, 1.9),
            "run once, then wait, Dask": (lambda: thread_per_trial(run_once_then_wait(client)), 1.0, 1.0),
            "study.optimize(n_jobs)": (
                lambda: study().optimize(in_a_thread, n_trials=TRIALS, n_jobs=CORES), 1.0, 0.9 * CORES,
            ),
        }  # fmt: skip
        work = f"{TRIALS} trials x {REPLICATES} of 50 ms, 2 targets, {CORES} cores"
        bench.against(work, lambda: calibrated(run), peers, turns=2)


def early_stop(bench: Bench) -> None:
    with opened() as run:
        found = calibrated(run, nothing, trials=150, replicates=(1, 5), stop_early=True)
        share = sum(found.table["replicates"]) / (150 * REPLICATES)
        bench.figure("simulations of five fixed replicates, with early stop", share, "", 0.5)


def main() -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = Bench("calibrate")
    early_stop(bench)
    own_cost(bench)
    utilisation(bench)
    against_the_patterns(bench)
    bench.write()


if __name__ == "__main__":
    main()
