"""People who use Optuna's tools find their study: live, in a storage of its own, and as a place to start from."""

from __future__ import annotations

import getpass
import math
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import simulators

import millrace as mr
from millrace.analyses.calibrate.mirror import storage_of
from millrace.run.errors import WrongQuestion


def ask(**more: Any) -> Any:
    question = {
        "parameters": simulators.BOUNDS, "targets": simulators.observed(), "trials": 10, "finish": 1, "fresh": 2,
        "engine": "inline",
    }  # fmt: skip
    return mr.calibrate(simulators.simulate, **{**question, **more})


def test_the_study_is_a_live_one() -> None:
    found = ask()
    assert [t.value for t in found.study.trials] == found.table["loss"]
    assert found.study.best_value == min(found.table["loss"])
    again = found.study.ask()
    assert 0.5 <= again.suggest_float("a", 0.5, 5.0) <= 5.0


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_storage_holds_every_trial_once_however_often_the_study_is_run(kind: str, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db" if kind == "sqlite" else str(tmp_path / "study.log")
    plain = ask()
    for _ in range(2):
        found = ask(storage=storage, study_name="decay", store=tmp_path / "store")
        assert found.digest == plain.digest
        assert any(note.endswith(f"optuna-dashboard {storage}") for note in found.notes), found.notes
    opened = (
        optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
        if kind == "journal"
        else storage
    )
    seen = optuna.load_study(study_name="decay", storage=opened)
    assert [t.value for t in seen.trials] == found.table["loss"]
    assert [t.params["a"] for t in seen.trials] == found.table["param_a"]
    assert seen.trials[0].user_attrs["replicates"] == found.table["replicates"][0]
    assert math.isfinite(seen.best_value)


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of this test's own, Debian's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    home = Path("/tmp") / f"millrace-pg-{os.getpid()}"  # its user must get there, and its socket's path be short
    home.mkdir()
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()  # it refuses to be root
    become = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
    shutil.chown(home, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *of: str) -> None:
        subprocess.run(
            [*become, str(found[-1] / program), *of], check=True, timeout=120, cwd=home, stdout=subprocess.DEVNULL
        )

    data = home / "data"
    run("initdb", "-D", str(data), "-U", "tester", "--auth=trust", "--no-sync")
    run("pg_ctl", "-D", str(data), "-w", "-l", str(home / "log"), "-o", f"-p {port} -k {home} -h 127.0.0.1 -F", "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(home)


@pytest.mark.slow
def test_postgresql_holds_a_study_too(postgres: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    plain = ask()
    for _ in range(2):
        found = ask(storage=postgres, study_name="decay", store=tmp_path / "store")
        assert found.digest == plain.digest
    seen = optuna.load_study(study_name="decay", storage=storage_of(postgres))
    assert [t.value for t in seen.trials] == found.table["loss"]
    more = ask(warm_start=(postgres, "decay"), trials=3)
    assert len(more.study.trials) == 10 + 3


def test_a_study_of_the_same_name_that_is_another_question_is_made_anew_and_a_strangers_is_left_alone(
    tmp_path: Path,
) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    ask(storage=storage, trials=4)
    ask(storage=storage, trials=6)
    assert len(optuna.load_study(study_name="millrace", storage=storage).trials) == 6
    stranger = optuna.create_study(storage=storage, study_name="mine")
    stranger.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(WrongQuestion, match="not of millrace's making"):
        ask(storage=storage, study_name="mine")


def test_a_search_starts_from_the_trials_that_fit(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/old.db"
    old = optuna.create_study(storage=storage, study_name="old")
    space = {
        "a": optuna.distributions.FloatDistribution(0.1, 9.0),
        "b": optuna.distributions.FloatDistribution(0.05, 2.0),
    }
    for a in (1.0, 2.0, 3.0, 8.0):
        old.add_trial(optuna.trial.create_trial(params={"a": a, "b": 0.3}, distributions=space, value=abs(a - 2.0)))
    other = {"a": space["a"]}
    old.add_trial(optuna.trial.create_trial(params={"a": 1.0}, distributions=other, value=3.0))
    found = ask(warm_start=(storage, "old"), trials=6)
    assert len(found.study.trials) == 3 + 6
    assert len(found.table["trial"]) == 6
    assert "3 trials of the study 'old' are where the search starts; 2 did not fit" in " ".join(found.notes)
    with pytest.raises(WrongQuestion, match="no study 'new'"):
        ask(warm_start=(storage, "new"))
    with pytest.raises(WrongQuestion, match="no file"):
        ask(warm_start=(f"sqlite:///{tmp_path}/none.db", "old"))


def test_all_kinds_of_parameters_reach_the_simulator_as_what_they_are() -> None:
    seen: list[dict[str, Any]] = []

    def simulate(params: dict[str, Any], seed: int) -> dict[str, Any]:
        seen.append(params)
        return simulators.simulate({"a": params["a"], "b": params["share"]}, seed)

    parameters = {
        "a": (0.5, 5), "share": ("logit", 0.05, 0.9), "many": ("int", 1, 9), "way": ("categorical", "x", "y"), "held": 7,
    }  # fmt: skip
    found = mr.calibrate(
        simulate,
        parameters=parameters,
        targets=simulators.observed(),
        trials=12,
        finish=0,
        replicates=1,
        engine="inline",
    )
    assert len(seen) == 12
    for params in seen:
        assert 0.05 <= params["share"] <= 0.9
        assert type(params["many"]) is int and 1 <= params["many"] <= 9
        assert params["way"] in ("x", "y")
        assert params["held"] == 7
    assert set(found.study.trials[0].params) == {"a", "logit(share)", "many", "way"}
    assert set(found.importance) == {"a", "share", "many", "way"}


def test_cma_es_is_suggested_where_it_does_better() -> None:
    def flat(params: dict[str, Any], seed: int) -> dict[str, Any]:
        return {"y": [sum(params.values())]}

    four = dict.fromkeys("abcd", (0.0, 1.0))
    found = mr.calibrate(
        flat, parameters=four, targets={"y": {"data": [1.0]}}, trials=200, replicates=1, finish=0, engine="inline"
    )
    assert any("cma-es usually finds better" in note for note in found.notes)
    fewer = mr.calibrate(
        flat, parameters=four, targets={"y": {"data": [1.0]}}, trials=20, replicates=1, finish=0, engine="inline"
    )
    assert not any("cma-es" in note for note in fewer.notes)
