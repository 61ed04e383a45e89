"""Scratch is a directory on a disk with room that can be written; what will not do is refused, and says why."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from machines import machine

from millrace.host import filesystem, scratch
from millrace.host.scratch import candidates
from millrace.run.errors import WrongQuestion


def _mount(point: Path, kind: str) -> str:
    point.mkdir(parents=True, exist_ok=True)
    escaped = str(point).replace(" ", "\\040")
    return f"99 27 0:44 / {escaped} rw,relatime shared:1 - {kind} {kind} rw"


def _machine(tmp_path: Path, *mounts: str) -> Path:
    return machine(tmp_path / "machine", mounts=mounts)


def test_a_directory_on_a_disk_is_taken_and_made(tmp_path: Path) -> None:
    wanted = tmp_path / "new" / "scratch"
    assert scratch(wanted, root=_machine(tmp_path)) == wanted
    assert wanted.is_dir()
    assert stat.S_IMODE(wanted.stat().st_mode) == 0o700
    assert list(wanted.iterdir()) == []


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_memory_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    in_memory = tmp_path / "in memory"
    root = _machine(tmp_path, _mount(in_memory, kind))
    with pytest.raises(WrongQuestion, match=f"{kind}, which is memory") as refused:
        scratch(in_memory / "deep" / "scratch", root=root)
    assert "MILLRACE_SCRATCH" in str(refused.value)
    assert list(in_memory.iterdir()) == []


def test_the_nearest_mount_decides_and_the_last_one_over_a_point(tmp_path: Path) -> None:
    point = tmp_path / "point"
    (tmp_path / "pointed").mkdir()
    root = _machine(tmp_path, _mount(point, "tmpfs"), _mount(point / "disk", "xfs"), _mount(tmp_path, "nfs4"))
    assert (filesystem(point, root).kind, filesystem(point, root).in_memory) == ("tmpfs", True)
    assert filesystem(point / "disk", root).kind == "xfs"
    assert filesystem(tmp_path / "pointed", root).kind == "nfs4"  # a longer name is not a deeper one
    over = _machine(tmp_path, _mount(point, "tmpfs"), _mount(point, "ext4"))
    assert filesystem(point, over).kind == "ext4"


def test_a_disk_comes_before_a_network(tmp_path: Path) -> None:
    memory, remote, disk = tmp_path / "memory", tmp_path / "remote", tmp_path / "disk"
    root = _machine(tmp_path, _mount(memory, "tmpfs"), _mount(remote, "nfs4"))
    assert scratch(among=[memory, remote, disk], root=root) == disk
    assert scratch(among=[memory, remote], root=root) == remote


def test_too_little_room_is_said_in_figures(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match=r"free and 1024PiB are needed"):
        scratch(tmp_path / "s", needs_bytes=1 << 60, root=_machine(tmp_path))


def test_when_nothing_will_do_each_place_says_why(tmp_path: Path) -> None:
    memory, file = tmp_path / "memory", tmp_path / "file"
    file.write_text("x")
    with pytest.raises(WrongQuestion, match="no place for scratch") as refused:
        scratch(among=[memory, file], root=_machine(tmp_path, _mount(memory, "tmpfs")))
    assert f"'{memory}': it is on tmpfs" in str(refused.value)
    assert f"'{file}': it cannot be written (File exists)" in str(refused.value)


def test_a_link_in_a_shared_directory_is_not_followed(tmp_path: Path) -> None:
    """Anybody may write to /tmp, and could put a link to somewhere else under the name that millrace would use."""
    (tmp_path / "elsewhere").mkdir()
    planted = tmp_path / f"millrace-{os.getuid()}"
    planted.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WrongQuestion, match="a link that anybody"):
        scratch(among=[planted], root=_machine(tmp_path))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_not_taken(tmp_path: Path) -> None:
    planted = tmp_path / f"millrace-{os.getuid()}"
    planted.mkdir()
    os.chown(planted, 12345, 12345)
    with pytest.raises(WrongQuestion, match="another user"):
        scratch(among=[planted], root=_machine(tmp_path))


def test_the_users_own_word_comes_first_among_the_candidates() -> None:
    own = f"millrace-{os.getuid()}"
    assert candidates({"TMPDIR": "/fast", "HOME": "/home/u"}) == [
        Path("/fast", own),
        Path("/var/tmp", own),
        Path("/tmp", own),
        Path("/home/u/.cache/millrace/scratch"),
    ]
    assert candidates({"TMPDIR": "relative", "XDG_CACHE_HOME": "/c"})[-1] == Path("/c/millrace/scratch")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no /dev/shm here")
def test_this_machine_refuses_its_own_shared_memory() -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True, check=True)
    if kind.stdout.strip() != "tmpfs":
        pytest.skip("/dev/shm is on a disk here")
    assert filesystem("/dev/shm").in_memory
    with pytest.raises(WrongQuestion, match="memory and not a disk"):
        scratch("/dev/shm/millrace-test-scratch")


@pytest.mark.skipif(sys.platform != "linux", reason="statfs names the kind on Linux")
def test_this_machine_agrees_with_stat(tmp_path: Path) -> None:
    told = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True)
    found = filesystem(tmp_path)
    names = {"ext2/ext3": "ext4", "overlayfs": "overlay"}
    assert names.get(told.stdout.strip(), told.stdout.strip()) == found.kind
    assert 0 < found.free_bytes <= found.total_bytes
