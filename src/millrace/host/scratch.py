"""Where millrace may write large files that it maps: a directory on a real disk, with room, that can be written.

Never in memory: a file on tmpfs counts as memory that nothing can take back, so a mapped input there is charged to
the run, and to the whole machine. Chooses and checks; who makes files there removes them.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from millrace.host.cgroups import Root, mount_lines, unescaped
from millrace.run.errors import WrongQuestion
from millrace.run.units import format_bytes

LEAST_FREE_BYTES = 1 << 30

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs", "rootfs"})
_OVER_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
     "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs", "afpfs"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filesystem:
    """What a path lies on. `kind` is "" where the machine does not tell (no Linux)."""

    kind: str
    mount: str
    in_memory: bool
    over_network: bool
    total_bytes: int
    free_bytes: int


def filesystem(path: str | Path, root: Root = "/") -> Filesystem:
    """The file system of an existing path; `free_bytes` is what this user may still write."""
    place = os.path.realpath(path)
    kind, mount = "", ""
    for left, right in mount_lines(root):
        point = unescaped(left[4])
        # The last mount over a point hides those before it, and a longer point is nearer.
        if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= len(mount):
            kind, mount = right[0], point
    space = shutil.disk_usage(place)
    return Filesystem(kind, mount, kind in _IN_MEMORY, kind in _OVER_NETWORK, space.total, space.free)


def scratch(
    wanted: str | Path | None = None,
    *,
    needs_bytes: int = LEAST_FREE_BYTES,
    among: Sequence[Path] | None = None,
    root: Root = "/",
) -> Path:
    """A directory for large files. `wanted` is taken or refused; without it the first that will do of `among`.

    Disks of this machine come before network file systems. Raises `WrongQuestion`, which says of every directory
    that was looked at why it will not do.
    """
    if wanted is not None:
        refusal, _ = _examine(Path(wanted), needs_bytes, root)
        if refusal:
            raise WrongQuestion(
                f"The scratch directory {str(wanted)!r} will not do: {refusal}. Set another one with `scratch` in "
                "millrace.toml or the variable MILLRACE_SCRATCH."
            )
        return Path(wanted)
    refusals, over_network = [], []
    for place in candidates(os.environ) if among is None else among:
        refusal, remote = _examine(place, needs_bytes, root)
        if refusal:
            refusals.append(f"{str(place)!r}: {refusal}")
        elif not remote:
            return place
        else:
            over_network.append(place)
    if over_network:
        return over_network[0]
    raise WrongQuestion(
        f"There is no place for scratch files here ({'; '.join(refusals)}). Name a directory on a disk with "
        f"{format_bytes(needs_bytes)} of room with `scratch` in millrace.toml or the variable MILLRACE_SCRATCH."
    )


def candidates(environ: Mapping[str, str]) -> list[Path]:
    """Where scratch may go when nobody says: this user's folder in $TMPDIR, /var/tmp, /tmp and the user's cache."""
    own = f"millrace-{os.getuid()}"
    bases = [environ.get("TMPDIR", ""), "/var/tmp", "/tmp"]
    places = [Path(base, own) for base in bases if os.path.isabs(base)]
    cache = environ.get("XDG_CACHE_HOME") or (os.path.join(environ["HOME"], ".cache") if environ.get("HOME") else "")
    if os.path.isabs(cache):
        places.append(Path(cache, "millrace", "scratch"))
    return list(dict.fromkeys(places))


def _examine(place: Path, needs_bytes: int, root: Root) -> tuple[str, bool]:
    """Why a directory will not do ("" when it will), and whether it is over a network. Makes it when it is missing."""
    try:
        nearest = next(above for above in [place.absolute(), *place.absolute().parents] if above.exists())
        found = filesystem(nearest, root)
        if found.in_memory:
            return f"it is on {found.kind}, which is memory and not a disk", False
        if found.free_bytes < needs_bytes:
            return (
                f"{format_bytes(found.free_bytes)} are free and {format_bytes(needs_bytes)} are needed",
                False,
            )
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = place.lstat()
        if stat.S_ISLNK(facts.st_mode) and place.name == f"millrace-{os.getuid()}":
            return "it is a link that anybody could have put there", False
        if place.name == f"millrace-{os.getuid()}" and facts.st_uid != os.getuid():
            return "it belongs to another user", False
        with tempfile.TemporaryFile(dir=place) as trial:
            trial.write(b"\0")
            trial.flush()
    except OSError as refused:
        return f"it cannot be written ({refused.strerror or refused})", False
    return "", found.over_network
