"""Workers that could give other answers are refused by name; what is unwise is told; a bundle reaches them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import local_dask
import pytest

from millrace import clusters
from millrace.compose import open_store
from millrace.engines.dask import DaskEngine, checks, connect
from millrace.engines.dask.flights import shifted
from millrace.engines.processes.frames import RESULTS, parse_results
from millrace.run.errors import EngineLost, WrongQuestion
from millrace.run.task import Task

MINE = checks.describe(("pytest",))


def workers(**changed: Any) -> dict[str, dict[str, Any]]:
    """Three like this process, the third with something else."""
    other = copy.deepcopy(MINE)
    for path, value in changed.items():
        other[path] = {**other[path], **value} if isinstance(value, dict) else value
    return {"tcp://a:1": MINE, "tcp://b:1": MINE, "tcp://c:1": other}


def test_the_same_is_no_difference() -> None:
    assert checks.differences(MINE, workers()) == []
    assert checks.pinned(MINE, workers()) == {}
    assert checks.warnings(workers()) == []


@pytest.mark.parametrize("name", ["python", "millrace", "numpy", "pytest"])
def test_another_version_is_named_with_its_workers(name: str) -> None:
    (line,) = checks.differences(MINE, workers(versions={name: "0.1"}))
    assert line == f"{name} is {MINE['versions'][name]} here and 0.1 on tcp://c:1"


def test_what_is_missing_there_counts_and_what_is_missing_here_does_not() -> None:
    (line,) = checks.differences(MINE, workers(versions={"numpy": ""}))
    assert "missing" in line
    mine = copy.deepcopy(MINE)
    mine["versions"]["xgboost"] = ""
    assert checks.differences(mine, workers()) == []


def test_other_processors_are_pinned_or_refused() -> None:
    mine = {**MINE, "blas": [("openblas", "0.3", "Haswell")]}
    older = {"tcp://a:1": {**mine, "blas": [("openblas", "0.3", "SkylakeX")]}}
    assert checks.pinned(mine, older) == {"OPENBLAS_CORETYPE": "Haswell"}
    with pytest.raises(WrongQuestion, match="OPENBLAS_CORETYPE=Haswell"):
        checks.pinned(older["tcp://a:1"], {"tcp://b:1": mine})
    with pytest.raises(WrongQuestion, match="different BLAS"):
        checks.pinned(mine, {"tcp://b:1": {**mine, "blas": [("mkl", "2024", "")]}})


def test_unwise_settings_are_told() -> None:
    limited, wide = checks.warnings(workers(threads=4, memory={"limit": 4 << 30, "terminate": 0.95}))
    assert "95% of 4.0 GiB (tcp://c:1)" in limited and "--memory-limit 0" in limited
    assert "4 threads (tcp://c:1)" in wide and "interpreter lock" in wide


def test_a_cluster_that_is_not_there_is_one_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millrace.engines.dask.cluster.CONNECT_S", 1)
    with pytest.raises(EngineLost, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        connect("tcp://127.0.0.1:1")


@pytest.mark.parametrize(("engine", "address"), [("dask", ""), ("dask=tcp://h:1", "tcp://h:1"), ("processes", None)])
def test_the_address_is_part_of_the_engines_name(engine: str, address: str | None) -> None:
    assert clusters.address_of(engine) == address
    with pytest.raises(WrongQuestion, match="names no address"):
        clusters.address_of("dask=")


def test_workers_of_another_version_are_refused_on_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = local_dask.connected()
    try:
        cluster._mine = {**MINE, "versions": {**MINE["versions"], "numpy": "9.9"}}
        with pytest.raises(WrongQuestion, match=r"numpy is 9\.9 here and .* on tcp://"):
            cluster.verify()
    finally:
        cluster.close()


def test_a_bundle_reaches_the_workers_and_its_name_is_its_content(tmp_path: Path) -> None:
    source = tmp_path / "modules"
    (source / "__pycache__").mkdir(parents=True)
    (source / "shipped_simulator.py").write_text("def simulate(x):\n    return x + 1000\n")
    name, data = clusters.packed(source)
    (source / "__pycache__" / "junk.pyc").write_bytes(b"junk")
    assert clusters.packed(source) == (name, data)
    cluster = local_dask.connected()
    engine = DaskEngine(cluster, opener=open_store, modules=((name, data),), owns=True)
    try:
        outcome = next(iter(engine.stream(iter([Task(call_shipped, (1,), "k")]))))
        assert outcome.value == 1001, outcome
    finally:
        engine.close()
    (source / "shipped_simulator.py").write_text("def simulate(x):\n    return x + 2000\n")
    assert clusters.packed(source)[0] != name


def call_shipped(x: int) -> int:
    from shipped_simulator import simulate

    return simulate(x)


@pytest.mark.slow
def test_dasks_own_report_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    report = tmp_path / "dask.html"
    engine = DaskEngine(local_dask.connected(), report=report, owns=True)
    try:
        assert [o.value for o in engine.stream(iter([Task(abs, (-3,), "k")]))] == [3]
    finally:
        engine.close()
    assert "millrace" in report.read_text() or "Task Stream" in report.read_text()


def test_times_of_another_clock_become_the_drivers() -> None:
    times = [1_000_000_010, 1_000_000_020]
    ends = b"".join(t.to_bytes(8, "little") for t in times)
    head = RESULTS.pack(0, 7, 0, 2, 1, 42, 1_000_000_000, 5, 6, 7, 8, 9)[8:]
    found = parse_results(shifted(head + ends + ends + b"body", 10**9))
    assert (found.began_ns, list(found.ends_ns), found.began_cpu_ns) == (0, [10, 20], 5)
    assert list(found.cpus_ns) == times and bytes(found.body) == b"body"
