"""Values that stay on a Dask cluster, as a store: each is a future, and Dask moves the next task to it.

What a task kept is computed again by Dask when the worker that held it is lost. What the driver shared lies in its own
`backing` too, and is sent again. Values live as long as the driver's connection: what is to outlive it belongs into a
store that all workers reach (see docs/dask.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from millrace.engines.dask.words import Kept, whole
from millrace.run.errors import AnalysisFailed

if TYPE_CHECKING:
    from millrace.engines.dask.cluster import Cluster
    from millrace.run.ports import Store, Stored


class Remote:
    """A `ports.Stored` whose value is fetched only when somebody asks for it."""

    __slots__ = ("_arena", "key", "size_bytes")

    def __init__(self, arena: FutureArena, key: str, size_bytes: int) -> None:
        self._arena, self.key, self.size_bytes = arena, key, size_bytes

    @property
    def value(self) -> Any:
        return self._arena.attach(self.key)


class FutureArena:
    """A store over `cluster`. `backing`: a store of the driver, for what it shares itself; it is closed with this one."""

    def __init__(self, cluster: Cluster, backing: Store) -> None:
        self._cluster, self._backing = cluster, backing
        self.url = cluster.url
        self._kept: dict[str, tuple[Any, int]] = {}
        self._shared: dict[str, Any] = {}

    # -- a store -----------------------------------------------------------------------------------------------
    def get(self, key: str) -> Stored | None:
        if key in self._kept:
            found: Any = Remote(self, key, self._kept[key][1])
            return found  # type: ignore[no-any-return]
        return self._backing.get(key)

    def attach(self, key: str) -> Any:
        """The value, here: fetched from a worker when it stayed there."""
        if key not in self._kept:
            return self._backing.attach(key)
        self._backing.put(key, self._fetch(key))
        return self._backing.attach(key)

    def put(self, key: str, value: Any) -> Stored:
        return self._backing.put(key, value)

    def flush(self) -> None:
        self._backing.flush()

    def pin(self, key: str) -> None:
        if key not in self._kept:
            self._backing.pin(key)

    def evict(self, limit_bytes: int) -> int:
        return self._backing.evict(limit_bytes)

    def size_bytes(self) -> int:
        return self._backing.size_bytes() + sum(size for _, size in self._kept.values())

    def keys(self, prefix: str = "") -> Iterator[str]:
        yield from (key for key in self._kept if key.startswith(prefix))
        yield from (key for key in self._backing.keys(prefix) if key not in self._kept)

    def close(self) -> None:
        self._kept.clear()
        self._shared.clear()
        self._backing.close()

    # -- for the engine ----------------------------------------------------------------------------------------
    def take(self, kept: dict[str, tuple[Any, int]]) -> None:
        """Futures of values that a message left on its worker, with their sizes."""
        for key, found in kept.items():
            self._kept.setdefault(key, found)

    def future(self, key: str) -> Any:
        """The future of a value: one that stayed there, or one of the driver's, sent to a worker when first needed.

        KeyError when it is neither.
        """
        if key in self._kept:
            return self._kept[key][0]
        if key not in self._shared:
            stored = self._backing.get(key)
            if stored is None:
                raise KeyError(key)
            value = Kept(key, stored.size_bytes, None, stored.value)
            self._shared[key] = self._cluster.client.scatter(value, hash=False, broadcast=True)
        return self._shared[key]

    def mend(self, keys: tuple[str, ...]) -> None:
        """A message was lost with what it needed: send again what was shared, compute again what was kept."""
        for key in keys:
            shared = self._shared.get(key)
            if shared is not None and shared.status in ("lost", "cancelled", "error"):
                del self._shared[key]
            kept = self._kept.get(key)
            if kept is not None and kept[0].status == "error":
                kept[0].retry()

    def _fetch(self, key: str) -> Any:
        from concurrent.futures import CancelledError

        future = self._kept[key][0]
        try:
            return self._cluster.client.submit(whole, future, pure=False).result()
        except (CancelledError, RuntimeError) as e:
            raise AnalysisFailed(
                f"A value that stayed on the Dask cluster cannot be had back ({type(e).__name__}: {e}): its worker was lost, "
                "and computing it again failed. Run the same again, or give a --store that all workers reach."
            ) from e
