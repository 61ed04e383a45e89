"""Cores are the least of affinity, cpuset and every quota up the tree, whatever the layout of control groups."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import V2_MOUNT, machine, v1_mount

from millrace.host import Cores, cores, slots
from millrace.host.cgroups import groups
from millrace.host.cores import parse_cpu_list


def test_a_bare_machine_has_all_its_cores(tmp_path: Path) -> None:
    found = cores(machine(tmp_path))
    assert found == Cores(64.0, 64, 64, None, None, "affinity")
    assert slots(found) == 64


def test_a_container_with_2_of_64_cores_has_2(tmp_path: Path) -> None:
    found = cores(machine(tmp_path, files={"sys/fs/cgroup/cpu.max": "200000 100000\n"}))
    assert (found.allowed, found.quota, found.logical, slots(found)) == (2.0, 2.0, 64, 2)
    assert found.where == "/sys/fs/cgroup/cpu.max"


def test_a_quota_of_an_ancestor_binds_though_the_own_group_has_a_wider_one(tmp_path: Path) -> None:
    found = cores(
        machine(
            tmp_path,
            membership="0::/pod/job/step",
            files={
                "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/pod/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/job/step/cpu.max": "6400000 100000\n",
                "sys/fs/cgroup/elsewhere/cpu.max": "1000 100000\n",
            },
        )
    )
    assert (found.allowed, found.where) == (0.5, "/sys/fs/cgroup/pod/cpu.max")
    assert slots(found) == 1


def test_version_1_quotas_are_read_at_every_level(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/cpu,cpuacct/slurm"
    found = cores(
        machine(
            tmp_path,
            membership="4:memory:/\n3:cpu,cpuacct:/slurm/job_7/step_0\n0::/",
            mounts=(v1_mount("cpu,cpuacct"),),
            files={
                f"{base}/cpu.cfs_quota_us": "-1\n",
                f"{base}/cpu.cfs_period_us": "100000\n",
                f"{base}/job_7/cpu.cfs_quota_us": "150000\n",
                f"{base}/job_7/cpu.cfs_period_us": "50000\n",
                f"{base}/job_7/step_0/cpu.cfs_quota_us": "-1\n",
                f"{base}/job_7/step_0/cpu.cfs_period_us": "100000\n",
            },
        )
    )
    assert (found.quota, found.where) == (3.0, "/sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us")


def test_docker_on_version_1_mounts_its_group_under_another_name(tmp_path: Path) -> None:
    """Without a cgroup namespace the path is the host's, and the mount's root is the container's group."""
    found = cores(
        machine(
            tmp_path,
            membership="3:cpu,cpuacct:/docker/abc/inner",
            mounts=(v1_mount("cpu,cpuacct", root="/docker/abc"),),
            files={
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us": "100000\n",
            },
        )
    )
    assert (found.quota, found.where) == (3.0, "/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us")


@pytest.mark.parametrize("membership", ["0::/kubepods/pod1/ctr", "0::/../other", "0::/docker/abcd/x"])
def test_the_mount_point_stands_for_a_path_that_lies_outside_of_it(tmp_path: Path, membership: str) -> None:
    """/docker/abcd is not beneath /docker/abc, though its text begins with it."""
    mount = V2_MOUNT.replace(" / /sys", " /docker/abc /sys")
    files = {"sys/fs/cgroup/cpu.max": "250000 100000\n", "sys/fs/cpu.max": "1 100000\n"}
    found = cores(machine(tmp_path, membership=membership, mounts=(mount,), files=files))
    assert (found.quota, found.where) == (2.5, "/sys/fs/cgroup/cpu.max")
    assert slots(found) == 2


def test_a_path_above_the_namespace_never_leads_out_of_the_mount(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/other/cpu.max": "1000 100000\n"}
    assert cores(machine(tmp_path, membership="0::/../other", files=files)).quota is None


def test_a_mount_from_outside_the_namespace_is_searched_for_the_own_group(tmp_path: Path) -> None:
    mount = V2_MOUNT.replace(" / /sys", " /../.. /sys")
    found = cores(
        machine(
            tmp_path,
            membership="0::/leaf",
            mounts=(mount,),
            files={
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/leaf/cgroup.procs": "1\n4242\n",
                "sys/fs/cgroup/a/b/leaf/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/c/leaf/cgroup.procs": "42421\n",
                "sys/fs/cgroup/a/c/leaf/cpu.max": "100000 100000\n",
            },
        )
    )
    assert (found.quota, found.where) == (3.0, "/sys/fs/cgroup/a/cpu.max")


def test_both_versions_are_walked_on_a_hybrid_machine(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        membership="2:cpu:/a\n0::/b",
        mounts=(v1_mount("cpu"), V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")),
        files={
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "700000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/unified/b/cgroup.procs": "4242\n",
        },
    )
    assert cores(root).quota == 7.0
    assert {(g.version, g.shown, g.level) for g in groups("cpu", root)} == {
        (1, "/sys/fs/cgroup/cpu/a", 0),
        (1, "/sys/fs/cgroup/cpu", 1),
        (2, "/sys/fs/cgroup/unified/b", 0),
        (2, "/sys/fs/cgroup/unified", 1),
    }


def test_affinity_and_cpusets_count_too(tmp_path: Path) -> None:
    pinned = cores(machine(tmp_path / "pinned", affinity="3,8-10"))
    assert (pinned.allowed, pinned.affinity, pinned.where) == (4.0, 4, "affinity")
    second = cores(machine(tmp_path / "v2", files={"sys/fs/cgroup/cpuset.cpus.effective": "0-4\n"}))
    assert (second.allowed, second.cpuset, second.where) == (5.0, 5, "/sys/fs/cgroup/cpuset.cpus.effective")
    old = machine(
        tmp_path / "v1",
        membership="5:cpuset:/a/b",
        mounts=(v1_mount("cpuset"),),
        files={"sys/fs/cgroup/cpuset/a/cpuset.cpus": "0-2\n", "sys/fs/cgroup/cpuset/a/b/cpuset.cpus": "\n"},
    )
    assert (cores(old).cpuset, cores(old).where) == (3, "/sys/fs/cgroup/cpuset/a/cpuset.cpus")


def test_a_mount_point_with_a_blank_is_found(tmp_path: Path) -> None:
    mount = V2_MOUNT.replace("/sys/fs/cgroup", "/my\\040groups")
    assert cores(machine(tmp_path, mounts=(mount,), files={"my groups/cpu.max": "100000 100000"})).quota == 1.0


def test_a_machine_that_shows_no_groups_still_has_cores(tmp_path: Path) -> None:
    root = machine(tmp_path, mounts=(), membership="", logical=6)
    (root / "proc/self/mountinfo").unlink()
    (root / "proc/self/cgroup").unlink()
    assert cores(root) == Cores(6.0, 6, 6, None, None, "affinity")


@pytest.mark.parametrize(
    ("allowed", "expected"), [(0.1, 1), (0.999, 1), (1.99, 2), (1.98, 1), (2.0, 2), (2.5, 2), (63.999, 64)]
)
def test_slots_are_whole_cores_and_never_none(allowed: float, expected: int) -> None:
    assert slots(Cores(allowed, 64, 64, allowed, None, "")) == expected


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=6), st.integers(1_000, 1_000_000))
def test_no_level_can_be_above_the_answer(quotas: list[int], period: int) -> None:
    with TemporaryDirectory() as place:
        names = [f"g{level}" for level in range(len(quotas))]
        files = {
            f"sys/fs/cgroup/{'/'.join(names[: level + 1])}/cpu.max": f"{quota} {period}\n"
            for level, quota in enumerate(quotas)
        }
        found = cores(machine(Path(place), membership=f"0::/{'/'.join(names)}", files=files))
        assert found.allowed == min(64.0, min(quotas) / period)
        assert 1 <= slots(found) <= max(1, math.ceil(found.allowed))


@given(st.sets(st.integers(0, 300)))
def test_cpu_lists_are_read_as_the_kernel_writes_them(numbers: set[int]) -> None:
    parts: list[str] = []
    for number in sorted(numbers):
        if parts and int(parts[-1].split("-")[-1]) == number - 1:
            parts[-1] = f"{parts[-1].split('-')[0]}-{number}"
        else:
            parts.append(str(number))
    assert parse_cpu_list(",".join(parts)) == numbers


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this platform")
def test_this_machine_agrees_with_nproc_and_the_scheduler() -> None:
    found = cores()
    nproc = subprocess.run(["nproc"], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert found.affinity == len(os.sched_getaffinity(0)) == int(nproc.stdout)
    assert 0 < found.allowed <= found.affinity <= found.logical


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset here")
def test_a_process_that_is_pinned_sees_it() -> None:
    only = str(min(os.sched_getaffinity(0)))
    code = "from millrace.host import cores, slots; found = cores(); print(found.affinity, slots(found), found.where)"
    done = subprocess.run(
        ["taskset", "-c", only, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "1", "affinity"]
