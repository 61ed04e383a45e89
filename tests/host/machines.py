"""Other machines as directories: the files of /proc and /sys that millrace reads, laid out as kernels lay them out."""

from __future__ import annotations

from pathlib import Path

GIB = 1 << 30
V1_NO_LIMIT = "9223372036854771712"

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def v1_mount(controllers: str, root: str = "/", point: str | None = None) -> str:
    place = point or f"/sys/fs/cgroup/{controllers}"
    return f"32 31 0:29 {root} {place} ro,nosuid,nodev,noexec,relatime master:11 - cgroup cgroup rw,{controllers}"


def machine(
    root: Path,
    *,
    membership: str = "0::/",
    mounts: tuple[str, ...] = (V2_MOUNT,),
    files: dict[str, str] | None = None,
    logical: int = 64,
    affinity: str | None = None,
    total_bytes: int = 256 * GIB,
    available_bytes: int = 200 * GIB,
) -> Path:
    """A machine of 64 cores and 256 GiB with what is given on top; `files` are relative to its root."""
    every = f"0-{logical - 1}"
    base = {
        "proc/self/cgroup": membership + "\n",
        "proc/self/mountinfo": "\n".join(["27 1 254:0 / / rw,relatime - ext4 /dev/vda rw", *mounts, ""]),
        "proc/self/status": f"Name:\tpython\nPid:\t4242\nCpus_allowed_list:\t{affinity or every}\n",
        "proc/meminfo": f"MemTotal: {total_bytes >> 10} kB\nMemFree: 1024 kB\n"
        f"MemAvailable: {available_bytes >> 10} kB\nSwapTotal: 2097152 kB\n",
        "sys/devices/system/cpu/online": every + "\n",
    }
    for name, text in {**base, **(files or {})}.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root
