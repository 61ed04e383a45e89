"""A simulator that misbehaves costs its own trials, and is told with trial, seed, parameters and the command that repeats it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import simulators

import millrace as mr
from millrace.run.errors import AnalysisFailed

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("raises", "raised", {"engine": "inline"}),
    ("exits", "lost", {}),
    ("hangs", "wall", {"limits": {"wall_s": 4.0}}),
    ("not_a_number", "nan", {}),
    ("lacks_a_column", "raised", {}),
    ("leaks", "memory", {"limits": {"memory": "300MiB"}}),
]


def ask(simulate: Any, **more: Any) -> Any:
    question = {
        "parameters": simulators.BOUNDS, "targets": simulators.observed(), "trials": 6, "finish": 1, "fresh": 2,
        "sampler": "random", "replicates": 1, "engine": "inline",
    }  # fmt: skip
    return mr.calibrate(simulate, **{**question, **more})


def test_each_way_to_misbehave_has_its_verdict_and_the_study_goes_on() -> None:
    parameters = {"a": 4.0, "b": 0.3, "way": ("categorical", "well", *simulators.WAYS)}
    found = ask(
        simulators.misbehaves, parameters=parameters, sampler="grid", trials=7, engine="processes", cores=2,
        limits={"wall_s": 4.0, "memory": "300MiB"},
    )  # fmt: skip
    state = dict(zip(found.table["param_way"], found.table["state"], strict=True))
    assert state == {**dict.fromkeys(simulators.WAYS, "failed"), "well": "complete"}
    assert {v.params["way"]: v.kind for v in found.verdicts} == {
        "raises": "raised", "hangs": "wall", "exits": "lost", "nan": "nan", "lacks": "raised", "leaks": "memory",
    }  # fmt: skip
    assert found.best.params["way"] == "well"


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [pytest.param(*case, id=case[0], marks=[pytest.mark.slow] if number else []) for number, case in enumerate(CASES)],
)
def test_its_trials_have_a_verdict_and_the_study_goes_on(
    name: str, kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    found = ask(getattr(simulators, name), out=tmp_path, **{"engine": "processes", "cores": 2, **more})
    high = [n for n, a in enumerate(found.table["param_a"]) if a > simulators.HIGH]
    assert 0 < len(high) < 6
    assert [n for n, state in enumerate(found.table["state"]) if state == "failed"] == high
    assert [v.trial for v in found.verdicts] == high
    for verdict in found.verdicts:
        assert verdict.kind == kind
        assert verdict.seed in found.table["seeds"][verdict.trial]
        assert verdict.params == {p: found.table[f"param_{p}"][verdict.trial] for p in ("a", "b")}
        assert verdict.again == f"millrace calibrate replay {tmp_path} --trial {verdict.trial} --seed {verdict.seed}"
    said = " ".join(found.notes)
    assert f"Trial {high[0]}, seed {found.verdicts[0].seed}" in said
    assert "a=" in said and found.verdicts[0].again in said
    assert {p.name for p in tmp_path.iterdir()} >= {"verdicts.parquet", "trials.parquet", "result.json"}


def test_a_replay_shows_what_the_verdict_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = ask(simulators.raises, out=tmp_path)
    verdict = found.verdicts[0]
    with pytest.raises(AnalysisFailed, match="unlucky a"):
        mr.calibrate.replay(tmp_path, trial=verdict.trial, seed=verdict.seed)
    assert f"a is {verdict.params['a']}" in capfd.readouterr().out
    good = next(n for n, state in enumerate(found.table["state"]) if state == "complete")
    again = mr.calibrate.replay(tmp_path, trial=good)
    assert again.loss == pytest.approx(found.table["loss"][good])


def test_a_missing_column_names_what_there_is() -> None:
    verdict = ask(simulators.lacks_a_column).verdicts[0]
    assert "'curve' needs a column of 'curve', which has 't'" in verdict.message


def test_the_study_stops_when_told_to() -> None:
    with pytest.raises(AnalysisFailed, match=r"Trial \d, seed \d+ raised: RuntimeError: unlucky a"):
        ask(simulators.raises, on_error="stop")


def test_when_nothing_works_the_first_verdict_is_the_error() -> None:
    with pytest.raises(AnalysisFailed, match=r"None of 3 trials gave a loss. The first: Trial 0, seed"):
        ask(simulators.raises, parameters={"a": (4.0, 5.0), "b": 0.3}, trials=3)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_what_it_prints_is_kept_bounded_and_shown_by_trial(
    engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from millrace.cli.main import main

    ask(simulators.prints_megabytes, trials=2, finish=0, engine=engine, out=tmp_path)
    assert capfd.readouterr().out == ""
    assert os.path.getsize(tmp_path / "ledger.jsonl") < 200_000
    assert main(["logs", str(tmp_path), "--trial", "1"]) == 0
    told = capfd.readouterr().out
    assert "trial 1, seed" in told
    assert "trial 0, seed" not in told
    for kept in ("the beginning", "the end", "characters more", "bytes more", "written past Python"):
        assert kept in told, kept


def test_two_of_two_replicates_that_fail_end_a_trial() -> None:
    found = ask(simulators.raises, replicates=(1, 5), trials=6)
    failed = [n for n, state in enumerate(found.table["state"]) if state == "failed"]
    assert failed
    assert all(len(found.table["seeds"][n]) == 2 for n in failed)
