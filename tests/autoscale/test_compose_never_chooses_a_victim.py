"""The driver of compose over a `docker` that does to real processes what Docker does to containers, traps included."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from place import Place, one_tier, until

from millrace.autoscale.drivers.compose import Containers, DockerRefused
from millrace.autoscale.loop import Scaler

DOCKER = Path(__file__).with_name("docker.py")
SERVICES = """
services:
  database: {image: postgres}
  worker-heavy: {image: millrace, depends_on: [database], restart: on-failure, command: [%s]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    (tmp_path / "containers").mkdir()
    (tmp_path / "compose.yaml").write_text(SERVICES % "")
    yield made
    (tmp_path / "no-engine").unlink(missing_ok=True)
    for told in (tmp_path / "containers").glob("*.json"):
        box = told.with_suffix(".exit")
        if not box.exists():
            import json

            os.killpg(json.loads(told.read_text())["pid"], signal.SIGKILL)


def driver(place: Place, service: str = "worker-heavy") -> Containers:
    docker = (sys.executable, str(DOCKER), str(place.root))
    return Containers([place.root / "compose.yaml"], "shop", lambda _: service, place, docker)


def scaler(place: Place, **more: object) -> Scaler:
    tiers = one_tier(**({"most": 2} | more))  # type: ignore[arg-type]
    return Scaler(tiers, place, driver(place), place, "a", interval_s=60.0, say=list[str]().append)


def done(place: Place) -> list[str]:
    log = place.root / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_from_zero_and_back_without_a_job_lost_and_no_sibling_touched(place: Place) -> None:
    one = scaler(place)
    place.put("j1", "j2", "j3")
    until(lambda: len(place.names("running")) == 2, "two jobs run", step=one.tick)
    (long,) = sorted(place.names("running"))[:1]
    place.finish(*({"j1", "j2", "j3"} - {long}))
    until(lambda: len(place.names("done")) == 2, "two are done", step=one.tick)
    until(lambda: len(list((place.root / "containers").glob("*.json"))) == 1, "the idle one has left", step=one.tick)
    assert place.names("running") == {long}
    place.put("j4")  # compose starts exited containers again, and takes away the newest: neither happens
    until(lambda: place.names("running") == {long, "j4"}, "another one was started", step=one.tick)
    place.finish(long, "j4")
    until(lambda: not list((place.root / "containers").glob("*.json")), "all have left", step=one.tick)
    assert place.names("done") == {"j1", "j2", "j3", "j4"}
    assert set(done(place)) == {"created worker-heavy", "removed an exited one"}
    assert len(done(place)) == 6


def test_compose_by_itself_would_take_away_a_busy_one(place: Place) -> None:
    """That the docker of these tests has the trap."""
    one = scaler(place)
    place.put("j1", "j2")
    until(lambda: len(place.names("running")) == 2, "both run", step=one.tick)
    one.driver._scale("worker-heavy", 1)  # type: ignore[attr-defined]
    assert done(place)[-1] == "took away a busy one"


def test_twice_is_as_once(place: Place) -> None:
    one = scaler(place, least=2)
    (up,) = one.tick()
    one.driver.apply(one.tiers.tier("heavy"), up)
    assert len(list((place.root / "containers").glob("*.json"))) == 2
    until(lambda: len(place.crew("heavy")) == 2, "both are there")
    assert one.tick()[0].live == 2


def test_a_container_that_never_comes_up_is_taken_away_and_another_tried(place: Place) -> None:
    (place.root / "compose.yaml").write_text(SERVICES % "never")
    one = scaler(place, least=1, most=1, boot_s=0.2)
    until(lambda: done(place).count("created worker-heavy") >= 2, "another one is tried", step=one.tick)
    assert "removed by force" in done(place)


def test_a_worker_that_crashes_is_started_again_by_docker_and_counts(place: Place) -> None:
    one = scaler(place, least=1)
    until(lambda: place.crew("heavy"), "it is there", step=one.tick)
    (worker,) = place.crew("heavy")
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: place.crew("heavy") and place.crew("heavy")[0].pid != worker.pid, "it is there again", step=one.tick)
    assert done(place) == ["created worker-heavy"]


def test_what_docker_refuses_is_said_and_holds(place: Place) -> None:
    one = scaler(place, least=1)
    (place.root / "no-engine").touch()
    (held,) = one.tick()
    assert (held.live, held.start, held.alert) == (None, 0, True)
    assert any("Cannot connect to the Docker daemon" in line for line in one.say.__self__)  # type: ignore[attr-defined]
    (place.root / "no-engine").unlink()
    lost = Scaler(one.tiers, place, driver(place, "worker-huge"), place, "a", say=(said := list[str]()).append)
    lost.tick()
    assert any("not done" in line and "no such service: worker-huge" in line for line in said)
    with pytest.raises(DockerRefused, match="Install Docker"):
        Containers(["x"], "shop", lambda _: "s", place, ("/no/such/docker",)).observe(one.tiers.tier("heavy"))


def test_a_dry_run_touches_nothing(place: Place) -> None:
    one = scaler(place, least=1)
    one.dry = True
    assert one.tick()[0].start == 1
    assert done(place) == []
