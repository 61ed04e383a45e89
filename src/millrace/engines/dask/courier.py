"""Between the driver's thread and Dask: messages go out, replies come into a queue that the driver waits at.

All of Dask's client is used from the client's own loop. Nothing is decided here but what Dask alone can tell: that a
worker joined, that a message was lost with its worker. See `engine`.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from millrace.engines.dask import host
from millrace.engines.dask.words import Held, Reply, pick, receipt

if TYPE_CHECKING:
    from distributed import Client

SCATTER_BYTES = 4 << 20
"""Larger frames go to a worker directly, and not through the scheduler."""


class Event(NamedTuple):
    """`reply`: `said` is a Reply, `kept` its values that stay, as futures by key; `lost`: the message's worker is gone, or
    its needs are, `said` is why; `failed`: `said` is an exception that is no task's; `progress`: list of Progress;
    `joined`: (address, seats, all addresses now); `woken`."""

    kind: str
    number: int = 0
    said: Any = None
    kept: dict[str, Any] | None = None


class Courier:
    """`check` looks at workers (addresses) before they get work, and raises when one differs."""

    def __init__(
        self,
        client: Client,
        engine: str,
        terms: Callable[[], bytes],
        check: Callable[[list[str]], Coroutine[Any, Any, None]],
    ) -> None:
        self.client, self.engine, self._terms, self._check = client, engine, terms, check
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._leases: dict[str, Any] = {}
        self._futures: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._joining = asyncio.Lock()

    # -- from the driver ---------------------------------------------------------------------------------------
    def send(self, number: int, frame: bytes, keys: tuple[str, ...], needs: tuple[Any, ...], where: str = "") -> None:
        """`where`: the worker that it goes to, as long as that is there; "": the scheduler says."""
        self._soon(self._carry, number, frame, keys, needs, where)

    def drop(self, numbers: list[int], running: list[int]) -> None:
        self._soon(self._tell, host.drop, self.engine, numbers, running)

    def hand_back(self, number: int) -> None:
        self._soon(self._hand_back, number)

    def forget(self, numbers: Iterable[int]) -> None:
        """Their replies are not wanted; what has not begun never will."""
        self._soon(self._forget, list(numbers))

    def enlist(self) -> list[tuple[str, int]]:
        """All workers of now, as (address, seats)."""
        found: list[tuple[str, int]] = self.client.sync(self._enlist)
        return found

    def leave(self) -> None:
        self.client.sync(self._leave)

    # -- in the client's loop ----------------------------------------------------------------------------------
    def _soon(self, what: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        def start() -> None:
            task = asyncio.ensure_future(what(*args))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.client.loop.add_callback(start)

    async def _carry(self, number: int, frame: Any, keys: tuple[str, ...], needs: tuple[Any, ...], where: str) -> None:
        place: dict[str, Any] = {"workers": [where], "allow_other_workers": True} if where else {}
        try:
            if len(frame) > SCATTER_BYTES:
                frame = await self.client.scatter(frame, hash=False)
            for attempt in range(100):
                name = f"millrace-{self.engine}-{number}-{attempt}"
                future = self.client.submit(
                    host.carry, self.engine, number, frame, keys, list(needs), key=name, pure=False, **place
                )
                self._futures[number] = future
                joined = await self._await(number, future)
                if joined is None:
                    return
                await self._join(joined)
        except Exception as e:  # noqa: BLE001 - the driver's thread raises it
            self.events.put(Event("failed", number, e))

    async def _await(self, number: int, future: Any) -> str | None:
        """Until the reply is told; an address when that worker must be enlisted first."""
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            await self._end_of([future])
            if future.type is Held:
                reply, kept = await self._receive(future)
            else:
                reply, kept = await future, None
        except host.NotEnlisted as e:
            return str(e.args[0])
        except (KilledWorker, FutureCancelledError, asyncio.CancelledError) as e:
            if isinstance(e, asyncio.CancelledError) and (task := asyncio.current_task()) and task.cancelling():
                raise
            if self._futures.pop(number, None) is not None:
                self.events.put(Event("lost", number, e))
            return None
        if self._futures.pop(number, None) is not None:
            self.events.put(Event("reply", number, reply, kept))
        return None

    async def _receive(self, held: Any) -> tuple[Reply, dict[str, Any]]:
        """The small part, and each kept value as a future of its own: those stay, and are computed again when lost."""
        reply, sizes = await self.client.submit(receipt, held, key=f"{held.key}-receipt", pure=False)
        kept = {
            key: (self.client.submit(pick, held, key, key=f"{held.key}-{key}", pure=False), size)
            for key, size in sizes.items()
        }
        return reply, kept

    async def _end_of(self, futures: list[Any]) -> None:
        """Until all have ended, well or not, without fetching anything. `CancelledError` when one never will."""
        from distributed import wait

        with self.client.as_current():
            ends = wait(futures)
        await ends

    async def _hand_back(self, number: int) -> None:
        said = await self._run(host.hand_back, self.engine, number)
        self.events.put(Event("progress", number, [p for p in said if p is not None]))

    async def _tell(self, what: Callable[..., Any], *args: Any) -> None:
        await self._run(what, *args)

    async def _run(self, what: Callable[..., Any], *args: Any) -> list[Any]:
        """On all workers that are enlisted; a worker that is just going tells nothing."""
        workers = list(self._leases)
        if not workers:
            return []
        found = await self.client.run(what, *args, workers=workers, on_error="ignore")
        return list(found.values())

    async def _forget(self, numbers: list[int]) -> None:
        futures = [f for f in (self._futures.pop(n, None) for n in numbers) if f is not None]
        if futures:
            await self.client.cancel(futures, force=True)

    # -- workers -----------------------------------------------------------------------------------------------
    async def _enlist(self) -> list[tuple[str, int]]:
        found = await self._workers()
        await self._take_on(list(found))
        return list(found.items())

    async def _workers(self) -> dict[str, int]:
        said = await self.client.scheduler.identity(n_workers=-1)
        return {address: int(info["nthreads"]) for address, info in said["workers"].items()}

    async def _take_on(self, addresses: list[str]) -> None:
        await self._check(addresses)
        leases = {
            address: self.client.submit(
                host.enlist, self._terms(), workers=[address], key=host.lease_key(self.engine, address), pure=False
            )
            for address in addresses
        }
        self._leases.update(leases)
        await self._end_of(list(leases.values()))
        for future in leases.values():
            await future

    async def _join(self, address: str) -> None:
        async with self._joining:
            if address in self._leases:
                return
            now = await self._workers()
            for gone in set(self._leases) - set(now):
                del self._leases[gone]
            if address in now:
                await self._take_on([address])
                self.events.put(Event("joined", 0, (address, now[address], set(now))))

    async def _leave(self) -> None:
        await self._run(host.leave, self.engine)
        futures = [*self._leases.values(), *self._futures.values()]
        self._leases.clear()
        self._futures.clear()
        for task in list(self._tasks):
            task.cancel()
        if futures:
            await self.client.cancel(futures, force=True)
