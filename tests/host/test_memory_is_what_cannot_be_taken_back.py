"""Memory is bounded by the least limit up the tree, and what is free does not count file cache as used."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machines import GIB, V1_NO_LIMIT, V2_MOUNT, machine, v1_mount

from millrace.host import budget_bytes, default_budget_bytes, memory, private_bytes
from millrace.run.errors import MillraceError

_V2 = "sys/fs/cgroup"
_STAT = "anon {anon}\nfile {file}\nshmem {shmem}\ninactive_file {cold}\nactive_file {hot}\nslab_reclaimable {slab}\n"


def test_a_bare_machine_has_what_meminfo_says(tmp_path: Path) -> None:
    found = memory(machine(tmp_path))
    assert (found.total_bytes, found.limit_bytes, found.available_bytes) == (256 * GIB, 256 * GIB, 200 * GIB)
    assert (found.used_bytes, found.swap_bytes, found.where) == (56 * GIB, 2 * GIB, "/proc/meminfo")


def test_file_cache_in_the_group_is_free_to_take(tmp_path: Path) -> None:
    stat = _STAT.format(anon=GIB, file=5 * GIB, shmem=GIB, cold=3 * GIB, hot=GIB, slab=GIB // 2)
    files = {
        f"{_V2}/memory.max": str(8 * GIB),
        f"{_V2}/memory.current": str(7 * GIB),
        f"{_V2}/memory.stat": stat,
    }
    found = memory(machine(tmp_path, files=files))
    assert (found.limit_bytes, found.where) == (8 * GIB, "/sys/fs/cgroup/memory.max")
    assert found.used_bytes == 7 * GIB - 4 * GIB - GIB // 2
    assert found.available_bytes == 8 * GIB - found.used_bytes


def test_use_is_never_less_than_anonymous_and_shared_pages(tmp_path: Path) -> None:
    """The counters are read one after the other, and the cache may shrink between."""
    stat = _STAT.format(anon=2 * GIB, file=GIB, shmem=GIB // 2, cold=GIB, hot=GIB, slab=0)
    files = {
        f"{_V2}/memory.max": str(8 * GIB),
        f"{_V2}/memory.current": str(3 * GIB),
        f"{_V2}/memory.stat": stat,
    }
    assert memory(machine(tmp_path, files=files)).used_bytes == 2 * GIB + GIB // 2


def test_memory_high_and_limits_of_ancestors_bind(tmp_path: Path) -> None:
    found = memory(
        machine(
            tmp_path,
            membership="0::/pod/job",
            files={
                f"{_V2}/pod/memory.max": "max\n",
                f"{_V2}/pod/memory.high": f"{2 * GIB}\n",
                f"{_V2}/pod/memory.current": f"{GIB}\n",
                f"{_V2}/pod/memory.stat": f"anon {GIB}\n",
                f"{_V2}/pod/job/memory.max": f"{4 * GIB}\n",
                f"{_V2}/pod/job/memory.high": "max\n",
                f"{_V2}/pod/job/memory.current": "0\n",
            },
        )
    )
    assert (found.limit_bytes, found.where) == (2 * GIB, "/sys/fs/cgroup/pod/memory.high")
    assert found.available_bytes == GIB


def test_what_is_free_may_be_bound_elsewhere_than_the_limit(tmp_path: Path) -> None:
    """The own group may hold 2 GiB, but its full parent has only half of one left; or the machine itself has."""
    files = {
        f"{_V2}/pod/memory.max": f"{16 * GIB}\n",
        f"{_V2}/pod/memory.current": f"{16 * GIB - GIB // 2}\n",
        f"{_V2}/pod/memory.stat": f"anon {15 * GIB}\n",
        f"{_V2}/pod/job/memory.max": f"{2 * GIB}\n",
        f"{_V2}/pod/job/memory.current": "0\n",
    }
    found = memory(machine(tmp_path / "a", membership="0::/pod/job", files=files))
    assert (found.limit_bytes, found.used_bytes, found.available_bytes) == (2 * GIB, 0, GIB // 2)
    full = machine(tmp_path / "b", membership="0::/pod/job", files=files, available_bytes=GIB // 4)
    assert memory(full).available_bytes == GIB // 4


def test_a_group_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    files = {
        f"{_V2}/memory.high": str(GIB),
        f"{_V2}/memory.current": str(2 * GIB),
        f"{_V2}/memory.stat": "anon 9\n",
    }
    found = memory(machine(tmp_path, files=files))
    assert (found.available_bytes, budget_bytes(found)) == (0, 0)


def test_use_that_is_not_told_is_none_and_the_limit_still_binds(tmp_path: Path) -> None:
    found = memory(machine(tmp_path, files={f"{_V2}/memory.max": str(GIB)}))
    assert (found.limit_bytes, found.used_bytes, found.available_bytes) == (GIB, None, GIB)


def test_version_1_counts_the_whole_subtree_and_ancestors_out_of_sight(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory"
    stat = (
        f"rss 5\nhierarchical_memory_limit {3 * GIB}\ntotal_rss {GIB}\ntotal_shmem 0\n"
        f"total_inactive_file {GIB // 2}\ntotal_active_file {GIB // 2}\n"
    )
    found = memory(
        machine(
            tmp_path,
            membership="4:memory:/docker/abc",
            mounts=(v1_mount("memory", root="/docker/abc"),),
            files={
                f"{base}/memory.limit_in_bytes": f"{V1_NO_LIMIT}\n",
                f"{base}/memory.usage_in_bytes": f"{2 * GIB}\n",
                f"{base}/memory.stat": stat,
            },
        )
    )
    assert (found.limit_bytes, found.where) == (3 * GIB, "/sys/fs/cgroup/memory/memory.stat")
    assert (found.used_bytes, found.available_bytes) == (GIB, 2 * GIB)


def test_no_limit_is_not_a_limit(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NO_LIMIT}
    root = machine(tmp_path, membership="4:memory:/", mounts=(v1_mount("memory"), V2_MOUNT), files=files)
    assert memory(root).limit_bytes == 256 * GIB


def test_a_machine_that_does_not_tell_is_an_error_and_not_a_zero(tmp_path: Path) -> None:
    root = machine(tmp_path, files={"proc/meminfo": "MemTotal: 1024 kB\n"})
    with pytest.raises(MillraceError, match="does not tell MemTotal and MemAvailable"):
        memory(root)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_agrees_with_proc() -> None:
    table = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    found = memory()
    assert found.total_bytes == int(table["MemTotal:"]) * 1024
    assert 0 < found.available_bytes <= found.limit_bytes <= found.total_bytes
    assert 0 < default_budget_bytes() < found.total_bytes
    assert budget_bytes(found) % (1 << 20) == 0


_HOLD = """
import mmap, sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="exact counts are Linux's")
def test_private_bytes_grow_by_what_is_held_and_not_by_mapped_files(tmp_path: Path) -> None:
    size = 48 << 20
    before = private_bytes()
    anonymous = mmap.mmap(-1, size)  # shared anonymous memory: RssShmem
    anonymous.write(b"x" * size)
    grown = private_bytes() - before
    assert size <= grown < size + (8 << 20)
    anonymous.close()
    path = tmp_path / "mapped"
    path.write_bytes(os.urandom(1 << 20) * 48)
    before = private_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, size, 4096)) > 0
        assert private_bytes() - before < 2 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="exact counts are Linux's")
def test_a_tree_counts_its_children_and_a_dead_process_is_an_error() -> None:
    size = 32 << 20
    alone = private_bytes(tree=True)
    child = subprocess.Popen([sys.executable, "-c", _HOLD, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        held = private_bytes(child.pid)
        assert size <= held < size + (32 << 20)
        assert private_bytes(tree=True) - alone == pytest.approx(held, abs=8 << 20)
        child.kill()
        _wait_for_zombie(child.pid)
        assert private_bytes(child.pid) == 0  # it holds nothing, and is there until it is collected
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        private_bytes(child.pid)


def test_private_memory_that_is_not_told_is_an_error(tmp_path: Path) -> None:
    root = machine(tmp_path, files={"proc/7/status": "Name:\tx\nVmRSS:\t  900 kB\n"})
    with pytest.raises(MillraceError, match="process 7"):
        private_bytes(7, root=root)


def _wait_for_zombie(pid: int) -> None:
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)
