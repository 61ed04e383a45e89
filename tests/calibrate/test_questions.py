"""What is wrong with a question is said before anything runs, with the names of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import simulators

import millrace as mr
from millrace.run.errors import WrongQuestion

GOOD: dict[str, Any] = {
    "parameters": simulators.BOUNDS,
    "targets": simulators.observed(),
    "trials": 4,
    "engine": "inline",
}
DATA = {"t": [1.0], "curve": [2.0]}


def target(**more: Any) -> dict[str, Any]:
    return {"targets": {"curve": {"data": DATA, "on": ("t",), **more}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": {"a": (2, 1)}}, "bounds are inverted"),
        ({"parameters": {"a": ("log", 0, 1)}}, "above 0 on the log scale"),
        ({"parameters": {"a": ("logit", 0, 1)}}, "between 0 and 1"),
        ({"parameters": {"a": ("int", 0.5, 3)}}, "whole numbers"),
        ({"parameters": {"a": 3}}, "nothing to fit"),
        ({"parameters": {"a": {"kind": "flaot", "low": 0, "high": 1}}}, "kind"),
        ({"parameters": {"a": {"low": 0, "high": 1, "hihg": 1}}}, "hihg"),
        ({"targets": [{"name": "x", "data": [1]}, {"name": "x", "data": [2]}]}, "two targets are called 'x'"),
        (target(observed="deaths"), "'deaths', which its data lack: they have 't', 'curve'"),
        (target(data="nowhere.csv"), "no file nowhere.csv"),
        (target(on=("day",)), "joins on the column 'day'"),
        (target(loss="sqared"), "there is no loss 'sqared'"),
        (target(loss="normal"), "needs sd"),
        (target(loss="normal", sd=0.0), "needs sd above 0"),
        (target(loss="binomial", of=10), "not between 0 and 1"),
        (target(loss="binomial"), "how many trials are behind"),
        (target(loss="losses:nothing"), "is not found"),
        (target(weight=0), "nothing to fit to"),
        (target(data={"t": [1.0], "curve": [float("nan")]}), "missing or infinite"),
        ({"simulations": 20, "trials": None}, "which needs 5 for its first trial"),
        ({"replicates": (3, 2)}, "above max"),
        ({"sampler": "emulate"}, "give summarise"),
        ({"sampler": "emulate", "parameters": {"a": ("int", 1, 5)}}, "not continuous"),
        ({"sampler": "tpee"}, "sampler"),
    ],
    ids=str,
)
def test_a_wrong_question_is_told_before_anything_runs(change: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongQuestion, match=said):
        mr.calibrate(simulators.raises, **{**GOOD, **change})


@pytest.mark.parametrize("named", ["no_such_module:f", "simulators:no_such_function", "simulators"])
def test_a_simulator_that_cannot_be_imported_is_told_before_anything_runs(named: str) -> None:
    with pytest.raises(WrongQuestion):
        mr.calibrate(named, **GOOD)


def test_a_missing_package_is_named_with_its_pip_command() -> None:
    pytest.importorskip("optuna")
    import importlib.util

    if importlib.util.find_spec("torch") is not None:
        pytest.skip("torch is here")
    with pytest.raises(WrongQuestion, match="pip install 'millrace\\[gp\\]'"):
        mr.calibrate(simulators.simulate, **{**GOOD, "sampler": "gp"})


def test_a_plan_is_made_without_a_simulation(tmp_path: Path) -> None:
    made = mr.plan.calibrate(
        simulators.exits, parameters=simulators.BOUNDS, targets=simulators.observed(), simulations=400
    )
    assert made.tasks == 400
    assert made.slots >= 1
