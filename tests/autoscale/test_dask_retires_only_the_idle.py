"""The driver of Dask on a real scheduler with real workers: up by tasks, down by retiring, never one that works."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from place import one_tier, until

from millrace.autoscale.drivers.dask import Adaptive, DaskAway
from millrace.autoscale.loop import Scaler

COMMAND = (
    sys.executable, "-m", "dask", "worker", "{address}", "--name", "{name}", "--nworkers", "1", "--nthreads", "{threads}",
    "--no-dashboard", "--no-nanny", "--death-timeout", "60",
)  # fmt: skip


class Office:
    def take_office(self, name: str, holder: str, lease_s: float) -> bool:
        return True

    def leave_office(self, name: str, holder: str) -> None:
        """Always there."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=0, processes=True, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def driver(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adaptive]:
    monkeypatch.chdir(tmp_path)  # workers leave a folder where they are started
    made = Adaptive(client.scheduler.address, COMMAND, {**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    yield made
    made.close(5.0)
    client.retire_workers(list(client.scheduler_info(n_workers=-1)["workers"]), close_workers=True)


def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.05)
    return path


def scaler(driver: Adaptive, **more: object) -> Scaler:
    tiers = one_tier(**({"most": 2, "idle_s": 0.0, "boot_s": 120.0} | more))  # type: ignore[arg-type]
    return Scaler(tiers, driver, driver, Office(), "a", say=list[str]().append)


def workers(client: Client) -> set[str]:
    return set(client.scheduler_info(n_workers=-1)["workers"])


def test_from_zero_by_tasks_and_back_with_the_busy_one_kept(client: Client, driver: Adaptive, tmp_path: Path) -> None:
    one = scaler(driver)
    assert one.tick()[0].live == 0
    names = [str(tmp_path / name) for name in ("long", "short", "other")]
    long, short, other = (client.submit(wait_for, name, pure=False) for name in names)
    until(lambda: driver.demand("heavy").queued == 3, "three wait")
    assert one.tick()[0].start == 2
    until(lambda: len(workers(client)) == 2, "two workers arrived", step=one.tick)
    (tmp_path / "short").touch()
    (tmp_path / "other").touch()
    assert sorted(client.gather([short, other])) == sorted(names[1:])
    until(lambda: len(workers(client)) == 1, "the idle one was retired", step=one.tick)
    assert long.status == "pending"
    assert len(client.processing()[next(iter(workers(client)))]) == 1  # who works stays
    assert short.result(timeout=60) == names[1]  # its data was moved before
    (tmp_path / "long").touch()
    assert long.result(timeout=60) == names[0]
    del long, short, other
    until(lambda: not workers(client), "all have left", step=one.tick)


@pytest.mark.slow
def test_one_that_got_a_task_meanwhile_is_not_retired(client: Client, driver: Adaptive, tmp_path: Path) -> None:
    """Who is idle is decided by the scheduler in the step in which it stops giving; what the driver saw may be old."""
    one = scaler(driver, least=1, most=1)
    until(lambda: workers(client), "one arrived", step=one.tick)
    tier = one.tiers.tier("heavy")
    until(lambda: driver.observe(tier).idle_s, "it is idle")
    none = one.tiers.model_copy(update={"tiers": {"heavy": tier.model_copy(update={"least": 0})}})
    (leave,) = Scaler(none, driver, driver, Office(), "a", dry=True, say=list[str]().append).tick()
    assert leave.drain == 1
    task = client.submit(wait_for, str(tmp_path / "go"), pure=False)
    until(lambda: any(client.processing().values()), "it has got a task")
    looked = driver._workers()
    driver._workers = lambda: [(address, status, 0) for address, status, _ in looked]  # type: ignore[method-assign]
    driver._idle = {address: 0.0 for address, _, _ in looked}
    driver.apply(tier, leave)
    assert len(workers(client)) == 1
    (tmp_path / "go").touch()
    assert task.result(timeout=60) == str(tmp_path / "go")
    del task
    more = client.submit(int, "7")
    assert more.result(timeout=60) == 7  # and it is given work as before


def test_a_scheduler_that_is_away_is_said(tmp_path: Path) -> None:
    away = Adaptive("tcp://127.0.0.1:1", COMMAND, {})
    with pytest.raises(DaskAway, match="cannot be reached"):
        away.demand("heavy")
