"""Throttling, pressure, stolen time and ulimits: read where the kernel tells them, None where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import machine, v1_mount

from millrace.host import absences, ceilings, pressure, stolen_share, throttling

_CPU = "some avg10=1.50 avg60=12.25 avg300=3.00 total=7930430\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
_OLD_CPU = "some avg10=2.00 avg60=4.00 avg300=3.00 total=1000000\n"


def test_version_2_throttling_is_summed_up_the_tree(tmp_path: Path) -> None:
    stat = "usage_usec 5\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\n"
    files = {
        "sys/fs/cgroup/a/cpu.stat": stat.format(100, 40, 2_500_000),
        "sys/fs/cgroup/a/b/cpu.stat": stat.format(50, 1, 500_000),
        "sys/fs/cgroup/cpu.stat": "usage_usec 5\n",
    }
    found = throttling(machine(tmp_path, membership="0::/a/b", files=files))
    assert found is not None
    assert (found.throttled_s, found.periods, found.throttled_periods) == (3.0, 150, 41)
    assert found.where == ("/sys/fs/cgroup/a/b/cpu.stat", "/sys/fs/cgroup/a/cpu.stat")


def test_version_1_counts_nanoseconds(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu/cpu.stat": "nr_periods 12\nnr_throttled 12\nthrottled_time 567485811\n"}
    found = throttling(machine(tmp_path, membership="1:cpu:/", mounts=(v1_mount("cpu"),), files=files))
    assert found is not None
    assert found.throttled_s == pytest.approx(0.567485811)


def test_where_nothing_counts_it_is_none_and_not_zero(tmp_path: Path) -> None:
    root = machine(tmp_path, files={"sys/fs/cgroup/cpu.stat": "usage_usec 5\n"})
    assert throttling(root) is None
    assert pressure(root) is None
    assert stolen_share(root) is None
    assert any("pressure" in sentence for sentence in absences(root, "linux"))


def test_pressure_of_the_nearest_group_comes_first(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a/b/cpu.pressure": _CPU,
        "sys/fs/cgroup/a/cpu.pressure": _OLD_CPU,
        "proc/pressure/cpu": _OLD_CPU,
        "proc/pressure/memory": _CPU,
    }
    found = pressure(machine(tmp_path, membership="0::/a/b", files=files))
    assert found is not None
    assert found.cpu is not None
    assert (found.cpu.some_10s_pct, found.cpu.some_60s_pct, found.cpu.total_s) == (1.5, 12.25, 7.93043)
    assert found.memory is not None
    assert found.memory.full_60s_pct == 0.0
    assert found.io is None


def test_pressure_without_a_line_for_all_tasks_has_none_there(tmp_path: Path) -> None:
    found = pressure(machine(tmp_path, files={"proc/pressure/cpu": _OLD_CPU}))
    assert found is not None
    assert found.cpu is not None
    assert found.cpu.full_60s_pct is None


def test_stolen_time_is_a_share_of_all_time(tmp_path: Path) -> None:
    root = machine(tmp_path, files={"proc/stat": "cpu  40 0 10 45 0 0 0 5 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"})
    assert stolen_share(root) == pytest.approx(0.05)


def test_ulimits_are_numbers_or_none(tmp_path: Path) -> None:
    text = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max data size             unlimited            unlimited            bytes     \n"
        "Max processes             96365                96365                processes \n"
        "Max open files            1024                 20000                files     \n"
        "Max address space         4294967296           unlimited            bytes     \n"
    )
    found = ceilings(machine(tmp_path, files={"proc/self/limits": text}))
    assert (found.data_bytes, found.processes, found.open_files) == (None, 96365, 1024)
    assert found.address_space_bytes == 4 << 30


def test_each_platform_says_what_it_lacks(tmp_path: Path) -> None:
    assert absences(machine(tmp_path / "a", files={"sys/fs/cgroup/x": "", "proc/pressure/cpu": _CPU}), "linux") == ()
    assert any("control group" in s for s in absences(machine(tmp_path / "b", mounts=()), "linux"))
    told = " ".join(absences(tmp_path, "darwin"))
    assert all(word in told for word in ("control groups", "unique set size", "jail", "pressure"))
    assert "win32" in absences(tmp_path, "win32")[0]
