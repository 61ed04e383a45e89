"""A connection to a Dask cluster: one of our own on this machine, or one that exists, by its scheduler's address.

What differs between its workers and the driver is an error that lists it; what is merely unwise is told as a warning.
The cluster's own settings are read and never changed. Runs no tasks: see `engine`. The cluster of our own: see `local`.
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from millrace.engines.dask import checks
from millrace.engines.dask.host import machine
from millrace.engines.dask.local import LocalCluster
from millrace.run.errors import EngineLost, MissingExtra, WrongQuestion

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 30
WORKERS_S = 60
PINGS = 5


class Cluster:
    """`name` is told apart in urls and keys of Dask. `local`: what `close` ends besides the connection."""

    def __init__(self, client: Client, local: LocalCluster | None = None, packages: Sequence[str] = ()) -> None:
        self.client, self.name = client, secrets.token_hex(6)
        self.packages = tuple(packages)
        self.warnings: list[str] = []
        self.offsets_ns: dict[str, int] = {}
        """Worker address -> its monotonic clock minus the driver's; 0 on the driver's own machine."""
        self.machines: dict[str, str] = {}
        self.memory_bytes: dict[str, int] = {}
        """Machine -> what tasks may hold there; told to its workers as the ceiling of one that runs alone."""
        self._local = local
        self._mine: dict[str, Any] | None = None
        self.environment: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"dask:{self.name}"

    @property
    def dashboard(self) -> str:
        """Where Dask shows what the cluster does, as its scheduler says; "" where it does not."""
        try:
            _, info = self.client._get_scheduler_info(n_workers=0)
            return (self.client.dashboard_link or "") if "dashboard" in (info or {}).get("services", {}) else ""
        except (AttributeError, KeyError, ValueError):  # a link that cannot be made is nothing to fail of
            return ""

    def close(self) -> None:
        """Let go of the client; end a cluster of our own. Idempotent."""
        self.client.close()
        if self._local is not None:
            local, self._local = self._local, None
            local.close()

    def verify(self) -> None:
        """Compare all workers of now with the driver; `WrongQuestion` lists what differs."""
        self.client.sync(self._verify)

    def compare(self, packages: Iterable[str]) -> None:
        """As `verify`, for packages that were not compared before; workers that join later are asked for them, too."""
        before, new = self.packages, sorted(set(packages) - set(self.packages))
        if not new:
            return
        self.packages, self._mine = (*before, *new), None
        try:
            self.client.sync(self._compare)
        except WrongQuestion:  # whoever asks again is refused again, and others go on
            self.packages, self._mine = before, None
            raise

    def ask(self, what: Any, *args: Any) -> dict[str, Any]:
        """Call a function on every worker; answers by address."""
        found: dict[str, Any] = self.client.run(what, *args)
        return found

    def threads(self) -> int:
        return sum(int(n) for n in self.client.nthreads().values())

    async def _verify(self) -> None:
        await self.check(list((await self.client.scheduler.identity(n_workers=-1))["workers"]))

    # -- looking at workers, in the client's loop ---------------------------------------------------------------
    async def check(self, addresses: list[str]) -> None:
        """Compare workers with the driver; `WrongQuestion` lists what differs."""
        addresses = [a for a in addresses if a not in self.machines]
        if not addresses:
            return
        mine, found = await self._differ(addresses)
        self.environment |= checks.pinned(mine, found)
        self.warnings += [w for w in checks.warnings(found) if w not in self.warnings]
        await self._clocks(addresses)

    async def _compare(self) -> None:
        now = (await self.client.scheduler.identity(n_workers=-1))["workers"]
        if known := [address for address in now if address in self.machines]:
            await self._differ(known)

    async def _differ(self, addresses: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """What the driver and what these workers say of themselves, once no version differs."""
        found = await self.client.run(by_value(checks.describe), self.packages, workers=addresses)
        if self._mine is None:
            self._mine = checks.describe(self.packages)
        lines = checks.differences(self._mine, found)
        if lines:
            raise WrongQuestion(
                "The workers of the Dask cluster are not like this driver, and could give other answers: "
                + "; ".join(lines)
                + ". Install the same versions everywhere (or ship your own modules with --bundle), then run the same again."
            )
        return self._mine, found

    def host(self, address: str) -> str:
        """Where a worker is, as measures say it: "" on the driver's own machine."""
        there = self.machines.get(address, "")
        return "" if there == machine() else there.partition(" ")[0]

    async def _clocks(self, addresses: list[str]) -> None:
        """Offsets of other machines' clocks, of the quickest of a few pings: right to half its way."""
        here = machine()
        self.machines |= await self.client.run(machine, workers=addresses)
        for address in addresses:
            if self.machines[address] == here:
                self.offsets_ns[address] = 0
                continue
            best = None
            for _ in range(PINGS):
                before = monotonic_ns()
                theirs = (await self.client.run(monotonic_ns, workers=[address]))[address]
                after = monotonic_ns()
                if best is None or after - before < best[0]:
                    best = after - before, theirs - (before + after) // 2
            assert best is not None
            self.offsets_ns[address] = best[1]


def connect(address: str, packages: Sequence[str] = ()) -> Cluster:
    """To the scheduler at `address` (such as tcp://host:8786). `packages`: whose versions must be equal, beside Python,
    millrace and the numeric libraries.

    Raises `MissingExtra`, and `EngineLost` when nobody answers or there is no worker.
    """
    dask = _distributed()
    try:
        client = dask.Client(address, timeout=CONNECT_S, set_as_default=False, name="millrace")
    except (OSError, TimeoutError, ValueError) as e:
        raise EngineLost(
            f"No Dask scheduler answers at {address}: {e}. Say --engine dask=ADDRESS with the address that `dask scheduler` "
            "prints, such as tcp://10.0.0.5:8786, and see that this machine reaches it."
        ) from e
    return _ready(Cluster(client, None, packages))


def start(slots: int, scratch: Path | None = None, packages: Sequence[str] = ()) -> Cluster:
    """A cluster of our own: `slots` worker processes of one thread each, without Dask's memory limit (our guard holds each
    task's private memory; Dask's counts mapped files, too), lost messages told at once. It works from scripts without a
    main guard, from `python -c` and from notebooks.

    Raises `MissingExtra`, and `EngineLost` when the workers do not come.
    """
    dask = _distributed()
    local = LocalCluster(slots, scratch)
    try:
        address = local.address(WORKERS_S)
        client = dask.Client(address, timeout=CONNECT_S, set_as_default=False, name="millrace")
        return _ready(Cluster(client, local, packages))
    except BaseException:
        local.close()
        raise


def _ready(cluster: Cluster) -> Cluster:
    try:
        cluster.client.wait_for_workers(1, WORKERS_S)
    except TimeoutError as e:
        cluster.close()
        raise EngineLost(
            f"The Dask cluster at {cluster.client.scheduler.address} has no worker, and none came within {WORKERS_S} s: "
            "start some with `dask worker ADDRESS`, then run the same again."
        ) from e
    return cluster


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as e:
        raise MissingExtra(e.name or "distributed", "dask", "The engine on a Dask cluster") from e
    return distributed


def by_value(function: types.FunctionType | Any) -> Any:
    """The function with its code inside of its pickle, for workers that may not have millrace. It must import all that it
    uses."""
    import builtins

    names: Mapping[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    made = types.FunctionType(function.__code__, dict(names), function.__name__, function.__defaults__)
    made.__module__ = "__main__"
    return made
