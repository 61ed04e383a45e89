"""The ways people drive a calibration today, written as they are found, with the timing lines that their workers log.

A thread per trial on Dask, replicates submitted once per target, twelve tasks a trial; the same with its simulations submitted
once; and `study.optimize(n_jobs)`. See also: `calibrate`, which measures them beside millrace.
"""

from __future__ import annotations

import datetime
import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna

REPLICATES = 5
SECONDS = 0.05
CURVE = 2 * np.exp(-0.3 * np.arange(10.0))
OBSERVED = {"curve": CURVE, "total": np.cumsum(CURVE)}


def simulate(params: dict[str, Any], seed: int, seconds: float = SECONDS) -> dict[str, Any]:
    """A decay, after `seconds` of processor time in Python."""
    end = time.thread_time_ns() + int(seconds * 1e9)
    while time.thread_time_ns() < end:
        pass
    draws = np.random.default_rng(seed)
    curve = params["a"] * np.exp(-params["b"] * np.arange(10.0)) * np.exp(draws.normal(0, 0.05, 10))
    return {"curve": curve, "total": np.cumsum(curve)}


def loss_of(outputs: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([np.mean((made[name] - OBSERVED[name]) ** 2) for made in outputs]))


# -- with timing lines -------------------------------------------------------------------------------------------
def logged(log: Path, kind: str, took_s: float, **fields: Any) -> None:
    """One line of a worker's log; all workers append to one file, as a log collector would."""
    now = datetime.datetime.now(datetime.UTC)
    said = " ".join(f"{name}={value}" for name, value in fields.items())
    worker = f"{platform.node()}-{os.getpid()}"
    line = f"{now:%Y-%m-%dT%H:%M:%S.%f}Z INFO {kind}: {said} duration_ms={took_s * 1e3:.2f} worker={worker}\n"
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def simulate_logged(params: dict[str, Any], seed: int, trial: int, log: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    made = simulate(params, seed)
    logged(log, "SIM_TIMING", time.perf_counter() - begun, param_id=f"trial_{trial}", seed=seed)
    return made


def loss_logged(outputs: list[dict[str, Any]], name: str, trial: int, log: Path) -> float:
    begun = time.perf_counter()
    loss = loss_of(outputs, name)
    kilobytes = [sum(column.nbytes for column in made.values()) / 1024 for made in outputs]
    logged(log, "AGG_TIMING", time.perf_counter() - begun, run_id="bench", param_id=f"trial_{trial}", target=name,
           n_sim_returns=len(outputs), n_outputs=len(outputs[0]), total_inline_mb=f"{sum(kilobytes) / 1024:.6f}",
           max_single_kb=f"{max(kilobytes):.3f}")  # fmt: skip
    return loss


# -- objectives --------------------------------------------------------------------------------------------------
def suggested(trial: Any) -> dict[str, Any]:
    return {"a": trial.suggest_float("a", 0.5, 5.0), "b": trial.suggest_float("b", 0.05, 2.0, log=True)}


def once_per_target(client: Any, log: Path | None = None) -> Callable[[Any], float]:
    """Twelve tasks a trial: five replicates and an aggregation for each of two targets. With `log`, they write timing lines."""

    def objective(trial: Any) -> float:
        params = suggested(trial)
        total = []
        for name in OBSERVED:
            if log is None:
                made = [client.submit(simulate, params, seed, pure=False) for seed in range(REPLICATES)]
                total.append(client.submit(loss_of, made, name, pure=False))
            else:
                made = [
                    client.submit(simulate_logged, params, seed, trial.number, log, pure=False)
                    for seed in range(REPLICATES)
                ]
                total.append(client.submit(loss_logged, made, name, trial.number, log, pure=False))
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


# -- drivers -----------------------------------------------------------------------------------------------------
def study() -> Any:
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))


def thread_per_trial(objective: Callable[[Any], float], trials: int, threads: int = 8) -> None:
    """A thread asks, submits, gathers and tells; the study is locked."""
    ours, lock = study(), threading.Lock()

    def one(_: int) -> None:
        with lock:
            trial = ours.ask()
        value = objective(trial)
        with lock:
            ours.tell(trial, value)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(trials)))


def optimize(trials: int, jobs: int) -> None:
    study().optimize(in_a_thread, n_trials=trials, n_jobs=jobs)
