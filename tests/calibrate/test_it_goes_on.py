"""A study that was killed goes on where it was, and ends with the same best; asking again costs no simulation."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import simulators

import millrace as mr
from millrace.folder import history
from millrace.run.ledger import COLUMNS

HERE = Path(__file__).parent
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import simulators
import millrace as mr
found = mr.calibrate(simulators.counts_itself, **{asked!r}, **{machine!r})
print(found.digest, found.best.trial, found.best.loss)
"""


def question(order: str) -> dict[str, Any]:
    return {"parameters": simulators.BOUNDS, "trials": 24, "finish": 2, "fresh": 3, "order": order, "seed": 5,
            "targets": {"curve": {"data": {"t": [1.0, 3.0, 5.0], "curve": [1.5, 0.8, 0.45]}, "on": ("t",)}}}  # fmt: skip


def program(store: Path, order: str) -> list[str]:
    machine = {"engine": "processes", "cores": 2, "store": str(store)}
    return [sys.executable, "-c", PROGRAM.format(here=str(HERE), asked=question(order), machine=machine)]


def here(store: Path, order: str) -> str:
    """The same study in this process: whatever the engine, the answer is one."""
    found = mr.calibrate(simulators.counts_itself, **question(order), engine="inline", store=store)
    return f"{found.digest} {found.best.trial} {found.best.loss}\n"


def calls(path: Path) -> list[str]:
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("order", ["reproducible", pytest.param("asap", marks=pytest.mark.slow)])
def test_after_kill_9_only_what_was_in_flight_runs_again(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = tmp_path / "calls"
    monkeypatch.setenv("MILLRACE_TEST_CALLS", str(counted))
    if order == "reproducible":
        whole = here(tmp_path / "whole", order)
        simulations = len(calls(counted))
        counted.unlink()
    driver = subprocess.Popen(program(tmp_path / "store", order), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while len(calls(counted)) < 25 and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)
    before = len(calls(counted))
    assert before >= 25
    again = subprocess.run(program(tmp_path / "store", order), capture_output=True, text=True, timeout=120, check=True)
    twice = len(calls(counted))
    if order == "reproducible":
        assert again.stdout == whole
        # At most the eight trials in flight had a replicate that was not back.
        assert simulations <= twice <= simulations + 8
    assert here(tmp_path / "store", order) == again.stdout
    assert len(calls(counted)) == twice, "asking once more runs nothing"


def ask(**more: Any) -> Any:
    question = {
        "parameters": simulators.BOUNDS, "targets": simulators.observed(), "trials": 8, "finish": 1, "fresh": 2,
        "engine": "inline",
    }  # fmt: skip
    return mr.calibrate(simulators.simulate, **{**question, **more})


def test_another_target_of_the_same_trials_runs_nothing(tmp_path: Path) -> None:
    """Proposals that do not depend on losses are the same ones; what was simulated for one target is there for another."""
    more = {"sampler": "sobol", "stop_early": False, "replicates": 2, "finish": 0, "store": tmp_path / "store",
            "summarise": simulators.summarise}  # fmt: skip
    ask(**more, out=tmp_path / "first")
    targets = simulators.observed()
    targets["curve"] = {**targets["curve"], "loss": "absolute", "weight": 3.0}
    ask(**more, targets=targets, out=tmp_path / "second")
    assert history(tmp_path / "first").end["computed"] == 16
    assert history(tmp_path / "second").end["computed"] == 0


def test_the_trials_in_flight_are_settled_once_and_then_kept(tmp_path: Path) -> None:
    first = ask(store=tmp_path, cores=1)
    again = ask(store=tmp_path, cores=1)
    assert first.in_flight == again.in_flight == 8


# -- rescore -----------------------------------------------------------------------------------------------------
def reweighed() -> dict[str, Any]:
    return {
        name: {**target, "weight": 0.0 if name == "curve" else 2.0} for name, target in simulators.observed().items()
    }


def test_rescoring_is_what_the_losses_would_have_been_and_runs_nothing(tmp_path: Path) -> None:
    first = ask(store=tmp_path / "store", out=tmp_path / "run")
    again = mr.calibrate.rescore(
        tmp_path / "run", weights={"curve": 0, "total": 2}, store=tmp_path / "store", out=tmp_path / "again"
    )
    end = history(tmp_path / "again").end
    assert (end["computed"], end["failed"]) == (0, 0)
    assert again.table["loss"] == pytest.approx([2 * loss for loss in first.table["loss_total"]])
    assert again.table["loss_curve"] == pytest.approx(first.table["loss_curve"])
    assert again.table["seeds"] == first.table["seeds"]
    same = mr.calibrate.rescore(tmp_path / "run", store=tmp_path / "store")
    assert same.digest == first.digest


def test_a_target_that_joins_in_another_way_needs_the_outputs(tmp_path: Path) -> None:
    from millrace.run.errors import WrongQuestion

    fewer = {"curve": {"data": {"t": [2.0, 4.0], "curve": [1.0, 0.6]}, "on": ("t",)}}
    ask(store=tmp_path / "store", out=tmp_path / "aligned")
    with pytest.raises(WrongQuestion, match="run the study with `summarise`, or with `persist`"):
        mr.calibrate.rescore(tmp_path / "aligned", targets=fewer, store=tmp_path / "store")
    for name, more in (("kept", {"persist": True}), ("summaries", {"summarise": simulators.summarise})):
        first = ask(store=tmp_path / "store", out=tmp_path / name, **more)
        found = mr.calibrate.rescore(tmp_path / name, targets=fewer, store=tmp_path / "store")
        assert len(found.predictive["curve"]["observed"]) == 2
        assert len(found.table["trial"]) == len(first.table["trial"])


def test_large_outputs_that_are_kept_stay_where_they_were_made(tmp_path: Path) -> None:
    first = mr.calibrate(
        simulators.large, parameters=simulators.BOUNDS, targets=simulators.observed(), trials=3, finish=0, persist=True,
        sampler="random", replicates=1, engine="processes", cores=1, store=tmp_path / "store", out=tmp_path / "run",
    )  # fmt: skip
    plain = mr.calibrate(
        simulators.large, parameters=simulators.BOUNDS, targets=simulators.observed(), trials=3, finish=0,
        sampler="random", replicates=1, engine="inline",
    )  # fmt: skip
    assert first.table["loss"] == plain.table["loss"]
    records = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    sizes = [
        row[1 + COLUMNS.index("out_bytes")]
        for record in records
        if record["record"] == "tasks"
        for row in record["rows"]
    ]
    assert len(sizes) == 3
    assert max(sizes) < 100_000, "1.6 MB each stay in the store"


def test_a_simulation_that_is_gone_is_told_with_the_store_that_had_it(tmp_path: Path) -> None:
    from millrace.run.errors import WrongQuestion

    ask(store=tmp_path / "store", out=tmp_path / "run")
    with pytest.raises(WrongQuestion, match="give --store with it"):
        mr.calibrate.rescore(tmp_path / "run", store=tmp_path / "other")
