"""The loop with the processes driver and real workers: up from zero, down by leaving, never a busy one, one scaler at a time."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from place import Place, lives, one_tier, until

from millrace.autoscale.drivers.processes import CannotStart, Processes
from millrace.autoscale.loop import Event, Scaler
from millrace.autoscale.webhook import Webhook
from millrace.tiers import Tiers


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def opened(place: Place) -> Iterator[list[Processes]]:
    """Drivers that are closed at the end."""
    found: list[Processes] = []
    yield found
    for name in (*place.names("running"), *place.names("queue")):
        place.finish(name)
    for driver in found:
        driver.close(grace_s=5.0)


def scaler(place: Place, opened: list[Processes], tiers: Tiers, name: str = "a", **more: object) -> Scaler:
    driver = place.driver()
    opened.append(driver)
    said: list[str] = []
    made = Scaler(tiers, place, driver, place, name, interval_s=60.0, say=said.append, **more)  # type: ignore[arg-type]
    return made


def pids(place: Place) -> set[int]:
    return {w.pid for w in place.crew("heavy")}


def test_from_zero_up_to_the_maximum_and_down_to_zero_without_a_job_lost(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier(most=2))
    assert one.tick()[0].line() == "heavy: replicas=0 running=0 queued=0 -> 0 (idle)"
    place.put("j1", "j2", "j3")
    (first,) = one.tick()
    assert (first.start, first.target, first.reason) == (2, 2, "at the maximum")
    until(lambda: len(place.names("running")) == 2, "two jobs run", step=one.tick)
    both = pids(place)
    assert len(both) == 2
    place.finish("j1", "j3")
    until(lambda: "j3" in place.names("done") and "j1" in place.names("done"), "two are done", step=one.tick)
    until(lambda: len(pids(place)) == 1, "the idle one leaves", step=one.tick)
    assert place.names("running") == {"j2"}  # whoever works stays
    assert pids(place) <= both
    place.finish("j2")
    until(lambda: not pids(place), "all have left", step=one.tick)
    assert place.names("done") == {"j1", "j2", "j3"}
    until(lambda: one.tick()[0].live == 0, "nothing lives")
    assert not any(map(lives, both))


def test_a_busy_worker_ignores_that_it_is_asked(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier())
    place.put("long")
    until(lambda: place.names("running"), "it runs", step=one.tick)
    (pid,) = pids(place)
    os.kill(pid, signal.SIGUSR1)
    place.finish("long")
    until(lambda: place.names("done"), "its job is done")
    assert lives(pid)


def test_doing_a_decision_twice_is_as_doing_it_once(place: Place, opened: list[Processes]) -> None:
    tiers = one_tier(most=3)
    one = scaler(place, opened, tiers)
    place.put("j1", "j2")
    (up,) = one.tick()
    one.driver.apply(tiers.tier("heavy"), up)
    assert (
        one.driver.observe(tiers.tier("heavy")).booting_s.__len__()
        + (one.driver.observe(tiers.tier("heavy")).ready or 0)
        == 2
    )
    until(lambda: len(place.names("running")) == 2, "both run", step=one.tick)
    place.finish("j1", "j2")
    until(lambda: {w.state for w in place.crew("heavy")} == {"idle"}, "both are idle")
    place.put("j3", "j4")  # before anybody could leave, work is there again
    until(lambda: len(place.names("running")) == 2, "both run again", step=one.tick)


def test_a_worker_that_was_killed_is_replaced(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier(least=1))
    until(lambda: pids(place), "one is there", step=one.tick)
    (pid,) = pids(place)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pids(place) - {pid}, "another one is there", step=one.tick)


def test_a_replica_that_never_comes_up_is_given_up_and_another_tried(place: Place, opened: list[Processes]) -> None:
    tiers = one_tier(least=1, most=1, boot_s=0.2)
    driver = place.driver("never")
    opened.append(driver)
    said: list[str] = []
    one = Scaler(tiers, place, driver, place, "a", say=said.append)
    until(lambda: any("failed to boot" in line for line in said), "a boot failed", step=one.tick)
    assert len(driver.observe(tiers.tier("heavy")).booting_s or ()) <= 1


def test_workers_of_a_scaler_that_is_gone_count(place: Place, opened: list[Processes]) -> None:
    first = scaler(place, opened, one_tier(least=2, most=2), "a")
    until(lambda: len(pids(place)) == 2, "two are there", step=first.tick)
    first.leave()
    second = scaler(place, opened, one_tier(least=2, most=2), "b")
    (found,) = second.tick()
    assert (found.live, found.start) == (2, 0)


def test_one_scaler_at_a_time(place: Place, opened: list[Processes]) -> None:
    one, two = (scaler(place, opened, one_tier(least=1), name) for name in "ab")
    assert len(one.tick()) == 1
    assert two.tick() == [] == two.tick()
    assert two.say.__self__ == ["scaler: waits; another one has the office"]  # type: ignore[attr-defined]
    one.leave()
    assert len(two.tick()) == 1
    assert one.tick() == []


def test_an_office_that_cannot_be_reached_is_nobodys(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier(least=1))
    place.root.rename(place.root.with_name("elsewhere"))
    assert one.tick() == []
    assert "cannot be reached" in one.say.__self__[-1]  # type: ignore[attr-defined]
    place.root.with_name("elsewhere").rename(place.root)
    assert len(one.tick()) == 1


def test_a_worker_that_lives_and_is_not_seen_is_taken_to_be_busy(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier(least=1, most=2))
    until(lambda: pids(place) and one.driver.observe(one.tiers.tier("heavy")).ready, "one is up", step=one.tick)
    (pid,) = pids(place)
    told = (place.root / "crew" / str(pid)).rename(place.root / str(pid))
    supply = one.driver.observe(one.tiers.tier("heavy"))
    assert (supply.ready, supply.booting_s, supply.idle_s) == (1, (), ())
    assert one.tick()[0].start == 0
    told.rename(place.root / "crew" / str(pid))


def test_a_dry_run_decides_and_touches_nothing(place: Place, opened: list[Processes]) -> None:
    heard: list[Event] = []
    dry = scaler(place, opened, one_tier(least=1), dry=True, hear=heard.append)
    for _ in range(3):
        assert dry.tick()[0].start == 1
    dry.leave()
    assert not heard and not opened[0].observe(one_tier().tier("heavy")).booting_s
    assert not list(place.root.glob("office-*"))


def test_what_cannot_be_read_is_unknown_and_holds(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier(least=1))
    until(lambda: pids(place), "one is there", step=one.tick)
    place.put("j1", "j2", "j3")
    (place.root / "queue").rename(place.root / "elsewhere")
    (found,) = one.tick()
    assert (found.start, found.drain, found.live, found.alert) == (0, 0, 1, True)
    assert "unknown" in found.reason and any("cannot be read" in line for line in one.say.__self__)  # type: ignore[attr-defined]
    (place.root / "elsewhere").rename(place.root / "queue")
    (place.root / "crew").rename(place.root / "gone")
    (found,) = one.tick()
    assert (found.start, found.live, found.alert) == (0, None, True)
    (place.root / "gone").rename(place.root / "crew")
    assert one.tick()[0].alert is False


def test_a_command_that_cannot_be_run_is_said_and_the_loop_goes_on(place: Place) -> None:
    driver, said = Processes(lambda _: ["/no/such/worker"], place), list[str]()
    tiers = one_tier(least=1)
    (decided,) = Scaler(tiers, place, driver, place, "x", dry=True, say=said.append).tick()
    with pytest.raises(CannotStart, match="/no/such/worker"):
        driver.apply(tiers.tier("heavy"), decided)
    Scaler(tiers, place, driver, place, "x", say=said.append).tick()
    assert any("not done" in line and "/no/such/worker" in line for line in said)


def test_the_loop_runs_until_it_is_stopped_and_leaves_the_office(place: Place, opened: list[Processes]) -> None:
    one = scaler(place, opened, one_tier(least=1))
    one.interval_s = 0.05
    stop = threading.Event()
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    until(lambda: pids(place), "one is there")
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert place.take_office("scaler", "somebody else", 1.0)


def test_a_webhook_hears_each_event_in_the_shape_of_slack(place: Place, opened: list[Processes]) -> None:
    bodies: list[dict[str, object]] = []

    class Slack(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Slack)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    said: list[str] = []
    try:
        hook = Webhook(f"http://127.0.0.1:{server.server_port}/hook", said.append)
        one = scaler(place, opened, one_tier(least=1), hear=hook)
        one.tick()
        hook.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (body,) = bodies
    assert body["text"] == "millrace scaled: starts 1, heavy: replicas=0 running=0 queued=0 -> 1 (the minimum)"
    assert body["blocks"][0]["text"] == {"type": "mrkdwn", "text": body["text"]}  # type: ignore[index]
    away = Webhook(f"http://127.0.0.1:{server.server_port}/hook", said.append)
    away(Event(one.tick()[0], "alert", 0.0))
    away.close()
    assert len(said) == 1 and "did not take a message" in said[0]
