"""The pattern that started this, really run on Dask: a thread a trial, replicates once per target, a task per target that
gathers. Its workers' lines tell its causes by name."""

from __future__ import annotations

import datetime
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from millrace.diagnose.case import case_of
from millrace.diagnose.findings import findings
from millrace.diagnose.logs import history, joined, read

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # what Dask's own threads warn of is not ours

TRIALS, REPLICATES, TARGETS = 8, 5, ("prevalence", "deaths")


def line(kind: str, took_s: float, **fields: object) -> str:
    told = " ".join(f"{name}={value}" for name, value in fields.items())
    worker = distributed.get_worker().name
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S.%f}Z INFO {kind}: {told} duration_ms={took_s * 1e3:.2f} worker={worker}"


def simulate(trial: int, seed: int) -> tuple[float, str]:
    start = time.perf_counter()
    time.sleep(0.03 + 0.002 * (seed % 5))
    took = time.perf_counter() - start
    return float(seed), line("SIM_TIMING", took, param_id=f"trial_{trial}", seed=seed)


def aggregate(trial: int, target: str, told: list[tuple[float, str]]) -> tuple[float, list[str]]:
    start = time.perf_counter()
    time.sleep(0.01)
    loss = sum(value for value, _ in told)
    took = time.perf_counter() - start
    said = line("AGG_TIMING", took, run_id="r", param_id=f"trial_{trial}", target=target, n_sim_returns=len(told), n_outputs=1,
                total_inline_mb=0.01, max_single_kb=1.0)  # fmt: skip
    return loss, [*(text for _, text in told), said]


def one_trial(client, trial: int) -> list[str]:
    """What the thread of a trial does."""
    gathered = []
    for target in TARGETS:
        sims = [client.submit(simulate, trial, seed, pure=False) for seed in range(REPLICATES)]
        gathered.append(client.submit(aggregate, trial, target, sims, pure=False))
    return [text for _, lines in client.gather(gathered) for text in lines]


def test_its_causes_are_found_by_name(tmp_path):
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        ThreadPoolExecutor(TRIALS) as threads,
    ):
        lines = [text for told in threads.map(lambda t: one_trial(client, t), range(TRIALS)) for text in told]
    case = case_of(history(read(lines), Path("dask")))
    told = {f.rule: f for f in findings(case)}
    assert {"duplicate simulations", "aggregation tasks", "a thread per trial", "fixed replicates"} <= set(told)
    assert told["aggregation tasks"].figures["tasks_per_trial"] == 12
    assert told["duplicate simulations"].figures["duplicates"] == TRIALS * REPLICATES
    assert told["duplicate simulations"].gain == pytest.approx(0.4, abs=0.2)
    assert dict(joined(read(lines)))["simulations"].startswith("40 distinct")
