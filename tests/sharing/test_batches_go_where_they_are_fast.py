"""Batches by index, and the crossover: pure decisions on made-up lines, and GPUs that a test names."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import chores
import pytest
from devices import CPU_WINS, GPU_WINS, Host
from hypothesis import given, settings
from hypothesis import strategies as st

import millrace as mr
from millrace.diagnose.accounting import account
from millrace.diagnose.report import gpu_lines
from millrace.host.placing import Gpus, OnGpu, crossovers
from millrace.host.tokens import CoreTokens
from millrace.run.errors import WrongQuestion
from millrace.run.ledger import History, replay
from millrace.run.placement import Kernel, Line, crossover, line_of, side

SECONDS = st.floats(0, 10, allow_subnormal=False)
EACH = st.floats(1e-9, 1, allow_subnormal=False)
LINES = st.builds(Line, SECONDS, EACH)


@settings(deadline=None)
@given(LINES, LINES)
def test_from_the_crossover_on_the_gpu_is_faster_and_one_below_it_is_not(cpu: Line, gpu: Line) -> None:
    least = crossover(cpu, gpu)
    if not least:
        large = 10**12
        assert gpu.at(large) >= cpu.at(large)
        return
    for size in (least, least + 1, 10 * least):
        assert gpu.at(size) < cpu.at(size) or gpu.each_s == cpu.each_s
    if least > 1 and least < 1 << 40:
        assert gpu.at(least - 2 if least > 2 else 1) >= cpu.at(least - 2 if least > 2 else 1) * (1 - 1e-9)


@settings(deadline=None)
@given(LINES, LINES, st.integers(1, 10**6))
def test_small_batches_stay_and_large_ones_go(cpu: Line, gpu: Line, size: int) -> None:
    least = crossover(cpu, gpu)
    assert side("auto", size, least) == ("gpu" if least and size >= least else "cpu")
    assert side("cpu", size, least) == "cpu"
    assert side("gpu", size, least) == "gpu"


@settings(deadline=None)
@given(LINES, st.lists(st.integers(1, 10_000), min_size=2, max_size=6, unique=True))
def test_the_line_of_points_on_a_line_is_that_line(true: Line, sizes: list[int]) -> None:
    found = line_of([(n, true.at(n)) for n in sizes])
    for n in sizes:
        assert found.at(n) == pytest.approx(true.at(n), rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 10)), min_size=1, max_size=5))
def test_no_part_of_a_line_is_negative(points: list[tuple[int, float]]) -> None:
    found = line_of(points)
    assert found.fixed_s >= 0 and found.each_s >= 0


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_batches_are_cut_by_index_and_are_the_same_tasks_everywhere(tmp_path: Path, engine: str) -> None:
    with mr.Run(engine=engine, cores=2, store=tmp_path / "store") as run:
        assert list(run.batch(chores.doubled, range(10), size=4)) == [2 * i for i in range(10)]
        assert run.computed == 3
    with mr.Run(engine="inline", store=tmp_path / "store") as run:
        assert list(run.batch(Kernel(chores.doubled, chores.tripled), iter(range(10)), size=4)) == [
            2 * i for i in range(10)
        ]
        assert (run.computed, run.cached) == (0, 3)
        assert list(run.batch(chores.doubled, [], size=4)) == []
        with pytest.raises(WrongQuestion, match="at least one item"):
            list(run.batch(chores.doubled, [1], size=0))


def test_a_gpu_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_PLACEMENT", "gpu")
    with mr.Run(engine="inline") as run, pytest.raises(WrongQuestion, match="no body"):
        list(run.batch(chores.doubled, [1], size=2))


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_batches_are_measured_once_and_the_lines_decide(engine: str) -> None:
    for as_if, times in ((GPU_WINS, 3), (CPU_WINS, 2)):
        host = Host(as_if=as_if, device="cuda:7")
        for _ in range(2):
            with mr.Run(engine=engine, cores=2) as run:
                run.sharing = dataclasses.replace(run.sharing, place=host)
                kernel = Kernel(chores.doubled, chores.tripled, "chores")
                assert list(run.batch(kernel, range(2_500), size=1_200)) == [times * i for i in range(2_500)]
            assert "in batches of 1,200" in run.notes[0]
            if len(host.measured) == 1:
                assert all(line.at(1_000) > 0 for line in host.measured.pop("chores"))
            else:
                assert host.known_from and not host.measured


def test_a_gpu_that_fails_leaves_the_work_to_the_cpu_and_nothing_is_kept() -> None:
    host = Host(as_if=GPU_WINS, device="no such device")
    with mr.Run(engine="inline") as run:
        run.sharing = dataclasses.replace(run.sharing, place=host)
        assert list(run.batch(Kernel(chores.doubled, chores.tripled), range(9), size=8)) == [2 * i for i in range(9)]
        assert "its body for a GPU failed when it was measured: AssertionError" in run.notes[0]
    assert not host.measured


def test_a_run_that_ends_while_it_measures_keeps_nothing() -> None:
    host = Host(as_if=GPU_WINS, device="cuda:7")
    with mr.Run(engine="inline", deadline=0.5) as run:
        run.sharing = dataclasses.replace(run.sharing, place=host)
        assert list(run.batch(Kernel(chores.slowly_doubled, chores.tripled), range(9), size=8)) == []
    assert not host.measured


def test_a_gpu_serves_one_process_at_a_time_and_is_named_to_the_body(tmp_path: Path) -> None:
    body = OnGpu(chores.tripled, CoreTokens(tmp_path, 1, "gpu", (2,)), 1.0)
    assert body([1, 2]) == [3, 6]


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_the_report_says_how_long_each_gpu_was_held(tmp_path: Path, engine: str) -> None:
    place = Gpus("gpu", tmp_path / "locks", tmp_path / "learnt", 1.0)
    place._found = (0, 3)  # this host need not have any: the body only tells their names
    kernel = Kernel(chores.doubled, chores.slowly_tripled)
    with mr.Run(engine=engine, cores=2, out=tmp_path / "out") as run:
        run.sharing = dataclasses.replace(run.sharing, place=place)
        assert list(run.batch(kernel, range(8), size=2)) == [3 * i for i in range(8)]
    told = account(replay(run.ledger.path))
    held_ns = sum(told.gpu_ns.values())
    assert set(told.gpu_ns) <= {"0", "3"} and held_ns >= 4 * chores.SLOW_S * 1e9
    if engine == "inline":
        assert held_ns <= told.wall_ns
    (figures,) = told.tasks
    assert held_ns <= figures.total_s * 1e9 and figures.name == "slowly_tripled"
    assert any(line.startswith("GPUs") for line in told.lines())
    assert "was held by tasks for" in "".join(gpu_lines(told)) and told.as_dict()["gpus_s"]
    assert account(_without_gpu(tmp_path)).gpu_ns == {}


def _without_gpu(folder: Path) -> History:
    with mr.Run(engine="inline", out=folder / "plain") as run:
        list(run.batch(chores.doubled, range(4), size=2))
    return replay(run.ledger.path)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    learnt = tmp_path / "host" / "crossovers.json"
    gpus = Gpus("auto", tmp_path, learnt, 1.0)
    assert gpus.known("model") is None
    assert gpus.learn("model", Line(0.0, 0.01), Line(1.0, 0.001)) == 112
    assert Gpus("auto", tmp_path, learnt, 1.0).known("model") == 112
    assert crossovers(learnt)["model"]["cpu"] == {"fixed_s": 0.0, "each_s": 0.01}
    learnt.write_text("damaged")
    assert Gpus("auto", tmp_path, learnt, 1.0).known("model") is None


def test_wishes_are_read() -> None:
    assert Gpus("gpu:0,2", Path(), Path(), 1.0).wish == "gpu"
    assert Gpus("cpu", Path(), Path(), 1.0).wish == "cpu"
    assert Gpus("auto", Path(), Path(), 1.0).wish == "auto"


if importlib.util.find_spec("torch") is not None:

    def test_what_torch_keeps_of_a_gpu_is_let_go_where_there_is_none(tmp_path: Path) -> None:
        import torch

        assert OnGpu(chores.tripled, CoreTokens(tmp_path, 1, "gpu", (2,)), 1.0)([1]) == [3]
        assert torch.cuda.is_initialized() is False or torch.cuda.is_available()

    def test_a_torch_body_gives_the_values_of_the_numpy_body() -> None:
        import numpy as np
        import torch

        def by_torch(items: list[float], *, device: str) -> list[float]:
            return torch.tensor(items, dtype=torch.float64, device=device).square().tolist()  # type: ignore[no-any-return]

        items = [0.5, 1.25, 3.0]
        assert by_torch(items, device="cpu") == np.square(items).tolist()
