"""The part of the composition that is about Dask: a cluster, the store that its workers reach, the engine on it.

`compose` calls it for the engines `dask` (a cluster of our own on this machine) and `dask=ADDRESS`; it imports
`distributed` for nobody else.
"""

from __future__ import annotations

import io
import os
import secrets
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.budget import Budget
from millrace.run.code import packages
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key

if TYPE_CHECKING:
    from millrace.engines.dask import Cluster, DaskEngine
    from millrace.run.ports import Opener, Store

NAME = "dask"
BUNDLE_BYTES = 32 << 20
SKIPPED = frozenset(
    {"__pycache__", ".git", ".venv", "venv", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)


def address_of(engine: str) -> str | None:
    """The scheduler's address of "dask=ADDRESS"; "" for "dask"; None for another engine."""
    name, equals, address = engine.partition("=")
    if name != NAME:
        return None
    if equals and not address:
        raise WrongQuestion("The engine 'dask=' names no address: write dask=tcp://HOST:8786, or dask alone.")
    return address


def connected(address: str, reached: Iterable[Any], owned: ExitStack) -> Cluster:
    """The cluster at `address`, its workers compared with this driver; closed with `owned`.

    `reached`: functions that are going to run there, whose packages are compared, too.
    """
    from millrace.engines.dask import connect

    cluster = connect(address, packages(reached))
    owned.callback(cluster.close)
    cluster.verify()
    return cluster


def budget_of(cluster: Cluster, cores: int | None, memory: int | None) -> Budget:
    """A core for each thread of the workers, no more than were asked for; of memory what was asked for, else what their
    machines have free."""
    from millrace.host import default_budget_bytes

    found = cluster.ask(default_budget_bytes)
    cluster.memory_bytes = {cluster.machines[address]: size for address, size in found.items()}
    slots = min(cluster.threads(), cores or sys.maxsize)
    return Budget(slots, memory if memory is not None else sum(cluster.memory_bytes.values()))


def arena_for(cluster: Cluster, arena: Store, opener: Opener, scratch: Path, owned: ExitStack) -> Store:
    """`arena`, when all workers reach it; else one whose values stay on the workers."""
    if arena.url and reach(cluster, arena, opener):
        return arena
    from millrace.engines.dask.arena import FutureArena

    backing = opener(f"dir:{scratch / 'shared'}")
    found = FutureArena(cluster, backing)
    owned.callback(found.close)
    return found


def reach(cluster: Cluster, arena: Store, opener: Opener) -> bool:
    """Whether every worker finds there what the driver has just put."""
    value = secrets.token_bytes(16)
    key = content_key(value)
    arena.put(key, value)
    arena.flush()
    return all(cluster.ask(_finds, opener, arena.url, key, value).values())


def _finds(opener: Opener, url: str, key: str, value: bytes) -> bool:
    """On a worker. Whatever goes wrong there means that it does not reach the store."""
    path = url.removeprefix("dir:")
    if url.startswith("dir:") and not os.path.isdir(path):
        return False  # a directory store would make it
    try:
        store = opener(url)
        try:
            return bytes(store.attach(key)) == value
        finally:
            store.close()
    except Exception as e:  # noqa: BLE001 - said on the worker's stderr; the values then stay on the workers
        print(f"millrace: this worker does not reach the store {url}: {type(e).__name__}: {e}")
        return False


def engine_on(
    cluster: Cluster | None,
    slots: int,
    *,
    opener: Opener,
    arena: Store,
    scratch: Path,
    preload: tuple[str, ...],
    bundle: Path | None,
    report: Path | None,
    note: Callable[[str], None],
) -> DaskEngine:
    """The engine on that cluster, on `slots` of its threads; or on one of as many workers that is started here and ends with
    it. Where all threads are wanted, workers that join later are used, too."""
    from millrace.engines.dask import DaskEngine, start
    from millrace.engines.dask.arena import FutureArena
    from millrace.host.strain import quota_meter

    here = cluster or start(slots, scratch)
    modules: Any = (packed(bundle),) if bundle is not None else ()
    engine = DaskEngine(
        here,
        opener=opener,
        meter=quota_meter,
        arena=arena if isinstance(arena, FutureArena) else None,
        preload=preload,
        modules=modules,
        most=slots if slots < here.threads() else None,
        owns=cluster is None,
        report=report,
    )
    for warning in here.warnings:
        note(warning)
    return engine


def find_modules_in(bundle: str | os.PathLike[str] | None) -> None:
    """A bundle's modules are imported here, too, and keys are made of their source."""
    if bundle is None:
        return
    if not Path(bundle).is_dir():
        raise WrongQuestion(f"The bundle {bundle} is not a folder: name the one that holds your modules.")
    place = str(Path(bundle).absolute())
    if place not in sys.path:
        sys.path.insert(0, place)


def packed(folder: Path) -> tuple[str, bytes]:
    """A folder of source as (a name made of its content, a tar archive): the same content, the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in _files(folder):
            info = tarfile.TarInfo(str(path.relative_to(folder)))
            data = path.read_bytes()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            if out.tell() > BUNDLE_BYTES:
                raise WrongQuestion(
                    f"The bundle {folder} holds more than {BUNDLE_BYTES >> 20} MiB: name a folder of source only; data go "
                    "into a store, or as arguments."
                )
    data = out.getvalue()
    return f"bundle-{content_key(data)}", data


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - SKIPPED)
        yield from (Path(place, name) for name in sorted(names) if not name.endswith(".pyc"))
