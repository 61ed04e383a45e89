"""The pattern that started this, really run on Dask as the benchmark has it: a thread a trial, replicates once per target, a
task per target that gathers. Its workers' lines tell its causes by name."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from millrace.cli.main import main
from millrace.diagnose.case import case_of
from millrace.diagnose.findings import findings
from millrace.diagnose.logs import history, joined, read

distributed = pytest.importorskip("distributed")
optuna = pytest.importorskip("optuna")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # what Dask's own threads warn of is not ours

TRIALS = 8


@pytest.fixture
def patterns(monkeypatch):
    monkeypatch.setattr(sys, "path", [os.fspath(Path(__file__).parents[2]), *sys.path])
    from bench import patterns

    return patterns


@pytest.fixture
def log(patterns, tmp_path):
    logging.getLogger("distributed").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        patterns.thread_per_trial(patterns.once_per_target(client, tmp_path / "worker.log"), TRIALS)
    return tmp_path / "worker.log"


def test_its_causes_are_found_by_name(patterns, log, capsys):
    lines = log.read_text().splitlines()
    case = case_of(history(read(lines), log))
    told = {f.rule: f for f in findings(case)}
    assert {"duplicate simulations", "aggregation tasks", "a thread per trial", "fixed replicates"} <= set(told)
    assert told["aggregation tasks"].figures["tasks_per_trial"] == 12
    assert told["duplicate simulations"].figures["duplicates"] == TRIALS * patterns.REPLICATES
    assert told["duplicate simulations"].gain == pytest.approx(0.4, abs=0.2)
    assert dict(joined(read(lines)))["simulations"].startswith("40 distinct")
    assert main(["report", "--logs", os.fspath(log)]) == 0
    said = capsys.readouterr().out
    for rule in told:
        assert f"- {rule}: " in said
