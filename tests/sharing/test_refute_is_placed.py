"""refute's resampled Gram matrices go where they are fast, and the rest of refute does not notice."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from devices import CPU_WINS, GPU_WINS, Host

import millrace as mr
from millrace.analyses.refute import placing
from millrace.diagnose.accounting import account
from millrace.run.errors import DoesNotFit, MissingExtra, WrongQuestion
from millrace.run.ledger import replay

has_torch = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(
    not has_torch, reason="torch, some gigabytes, is no part of the set-up: pip install torch"
)
ROWS, CAUSES = 3_000, 12
TESTS = ("bootstrap", "subset", "placebo", "random_common_cause")


def table() -> pyarrow.Table:
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((ROWS, CAUSES))
    treatment = (causes[:, 0] + rng.standard_normal(ROWS) > 0).astype(int)
    outcome = 0.5 * treatment + causes.sum(axis=1) + rng.standard_normal(ROWS)
    return pyarrow.table({**{f"w{j}": causes[:, j] for j in range(CAUSES)}, "t": treatment, "y": outcome})


def refuted(place: Host | None, store: Path | None = None, engine: str = "inline", **more):
    """(answer, run): the question with this host's place."""
    asked = {"tests": TESTS, "simulations": 100} | more
    with mr.Run(engine=engine, cores=2, store=store) as run:
        if place is not None:
            run.sharing = dataclasses.replace(run.sharing, place=place)
        causes = [f"w{j}" for j in range(CAUSES)]
        return mr.refute(table(), "t", "y", common_causes=causes, run=run, **asked), run


def test_without_a_gpu_and_with_one_that_must_not_be_used_the_answer_is_the_same(tmp_path: Path) -> None:
    plain, _ = refuted(None, tmp_path)
    for place in (Host(count=0), Host("cpu"), Host(as_if=CPU_WINS)):
        again, run = refuted(place, tmp_path)
        assert again.digest == plain.digest and run.computed == 0  # every key is the same


def test_a_gpu_that_is_wished_for_and_not_there_is_refused() -> None:
    with pytest.raises(WrongQuestion, match="there is none here"):
        refuted(Host("gpu", count=0))


def test_a_question_without_a_body_for_a_gpu_runs_on_the_cpu_and_says_so() -> None:
    plain, _ = refuted(None, tests=("placebo",))
    answer, _ = refuted(Host("gpu", count=0), tests=("placebo",))
    assert answer.digest == plain.digest
    assert any("Nothing of this question has a body for a GPU" in note for note in answer.notes)


@pytest.mark.skipif(has_torch, reason="torch is installed here")
def test_without_torch_a_gpu_is_left_alone_or_its_library_named() -> None:
    plain, _ = refuted(None)
    assert refuted(Host(known_from={}, as_if=GPU_WINS))[0].digest == plain.digest
    with pytest.raises(MissingExtra, match="torch"):
        refuted(Host("gpu"))


@needs_torch
@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_is_given_to_the_gpu_and_agrees(tmp_path: Path, engine: str) -> None:
    plain, before = refuted(None, tmp_path / "store")
    answer, run = refuted(Host("gpu"), tmp_path / "store", engine)
    # The keys of the GPU's body are its own: two rounds each of bootstrap and subset; all else is found.
    assert run.computed == 4 and run.cached == before.computed - 4
    for test in TESTS:
        ours, theirs = answer.parts[0].effects[test], plain.parts[0].effects[test]
        gap = np.abs(ours - theirs)[:, 0].max()
        assert gap < 2e-6 * answer.estimate.se
        assert (gap == 0) == (test not in placing.PLACED)
    assert [r.status for r in answer.parts[0].tests] == [r.status for r in plain.parts[0].tests]
    assert set(account(replay(run.ledger.path)).gpu_ns) == {"0"}
    again, run = refuted(Host("gpu"), tmp_path / "store")
    assert run.computed == 0 and again.digest == answer.digest


@needs_torch
def test_both_bodies_are_measured_once_and_the_lines_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "WORTH", 0)
    host = Host(as_if=GPU_WINS)
    answer, _ = refuted(host, tmp_path / "a")
    names = list(host.measured)
    assert len(names) == 2 and all("12 confounders" in name for name in names)
    assert all(line.at(100_000) > 0 for lines in host.measured.values() for line in lines)
    assert any("runs on the GPU in batches of 3,000" in note for note in answer.notes)
    host.measured.clear()
    again, _ = refuted(host, tmp_path / "b")
    assert again.digest == answer.digest and not host.measured
    stays, _ = refuted(Host(as_if=CPU_WINS), tmp_path / "c")
    assert stays.digest == refuted(None, tmp_path / "c")[0].digest != answer.digest


def test_a_small_question_is_not_measured_for() -> None:
    host = Host(as_if=GPU_WINS)
    answer, _ = refuted(host)
    assert not host.measured and answer.digest == refuted(None)[0].digest


@needs_torch
def test_a_gpu_that_fails_when_it_is_measured_leaves_the_work_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "WORTH", 0)
    host = Host(device="cuda:99")  # torch knows of none
    answer, _ = refuted(host)
    assert answer.digest == refuted(None)[0].digest and not host.measured
    assert any("failed when it was measured" in note for note in answer.notes)


@needs_torch
def test_other_estimators_are_compared_on_the_gpu_too(tmp_path: Path) -> None:
    asked = {"tests": ("estimators",), "estimator": "ipw"}
    plain, before = refuted(None, tmp_path, **asked)
    answer, run = refuted(Host("gpu"), tmp_path, **asked)
    assert run.computed == 2 and run.cached == before.computed - 2
    assert answer.parts[0].tests[0].status == plain.parts[0].tests[0].status


def test_room_for_a_gpus_library_is_planned_or_the_cpu_has_the_work() -> None:
    with mr.Run(engine="processes", cores=1, memory="700MiB") as run:
        run.sharing = dataclasses.replace(run.sharing, place=Host())
        causes = [f"w{j}" for j in range(CAUSES)]
        asked = {"common_causes": causes, "tests": ("bootstrap",), "simulations": 50, "run": run}
        answer = mr.refute(table(), "t", "y", **asked)
        assert any("too little for a GPU's library" in note for note in answer.notes)
        run.sharing = dataclasses.replace(run.sharing, place=Host("gpu"))
        with pytest.raises(DoesNotFit):
            mr.refute(table(), "t", "y", **asked)
