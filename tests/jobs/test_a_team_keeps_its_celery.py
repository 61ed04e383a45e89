"""Tasks of a team's own and millrace's tasks in its application, carried out by `millrace worker --app`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deskwork import until
from teamwork import Team

from millrace.jobs.signals import TierLoad
from millrace.run.keys import content_key

pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")

from millrace.jobs.celery.signals import Running, waiting, with_tasks

PATIENCE_S = 60


@pytest.fixture(scope="module")
def team(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A team with a worker of the tier light, for all tests of this file."""
    made = Team(tmp_path_factory.mktemp("team"), f"{broker.rsplit('/', 1)[0]}/15")
    with made.running("worker", "--tier", "light", "--app", "team:app"):
        made.until_workers()
        yield made


@contextmanager
def _application(team: Team) -> Iterator[Any]:
    """The application as the team's own web server has it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TEAM_BROKER", team.broker)
        patched.syspath_prepend(str(team.folder))
        there = sys.modules.pop("team", None)
        import team as module  # type: ignore[import-not-found]

        yield module.app
        module.app.close()
        del sys.modules["team"]
        if there is not None:
            sys.modules["team"] = there


@pytest.fixture(scope="module")
def app(team: Team) -> Iterator[Any]:
    with _application(team) as made:
        yield made


def test_their_tasks_run_as_ever_and_routes_hold(app: Any) -> None:
    added, counted = app.send_task("team.add", (2, 3)), app.tasks["team.count"].delay(7)
    assert added.get(PATIENCE_S) == 5
    assert counted.get(PATIENCE_S) == [7, "api"]
    assert (app.tasks["team.add"].s(1, 1) | app.tasks["team.add"].s(10)).delay().get(PATIENCE_S) == 12


def test_their_tasks_may_have_processes_of_their_own(app: Any) -> None:
    """Celery's own pool is daemonic: there joblib silently falls to one core."""
    assert app.send_task("team.forks").get(PATIENCE_S) == [1, 2]


def test_limits_of_their_own_and_ceilings_of_the_tier_hold(app: Any) -> None:
    soft, hard, grows, dies = (app.send_task(f"team.{name}") for name in ("soft", "hard", "grow", "dies"))
    assert soft.get(PATIENCE_S) == "stopped"
    for sent, why in ((hard, "TimeLimitExceeded"), (grows, "Memory"), (dies, "SIGKILL")):
        error = sent.get(PATIENCE_S, propagate=False)
        assert sent.failed() and why in repr(error), error
    assert app.send_task("team.add", (1, 1)).get(PATIENCE_S) == 2


def test_a_task_of_ours_is_a_job_and_its_result_a_small_reference(app: Any, team: Team) -> None:
    items = str(team.folder / "items.jsonl")
    sent = app.send_task("millrace.run", kwargs={"function": "work:square", "items": items, "owner": "ann"})
    told = sent.get(PATIENCE_S)
    assert (
        told["digest"] == content_key([i * i for i in range(8)]) and (Path(told["folder"]) / "results.jsonl").exists()
    )
    assert (team.job(told["job"]).owner, team.job(told["job"]).tier) == ("ann", "light")


def test_a_message_that_comes_twice_is_one_job(app: Any, team: Team) -> None:
    given = {"function": "work:nap", "items": str(team.folder / "items.jsonl"), "label": "twice"}
    first = app.send_task("millrace.run", kwargs=given, task_id="the-same")
    app.send_task("millrace.run", kwargs=given, task_id="the-same")
    number = first.get(PATIENCE_S)["job"]
    opened = team.table()
    assert [job.id for job in opened.jobs() if job.label == "twice"] == [number]
    opened.close()


def test_a_canvas_waits_for_jobs_and_holds_no_worker(app: Any, team: Team) -> None:
    """A chain and a chord over more jobs than there are places; an alias is the same task; a route is the job's queue."""
    from celery import chord

    given = {"function": "work:square", "items": str(team.folder / "items.jsonl")}
    ask, digest, digests = (app.tasks[name] for name in ("src.tasks.nightly", "team.digest", "team.digests"))
    one = (ask.s(**given).set(queue="api") | digest.s()).delay()
    many = chord([ask.s(**given, seed=i) for i in range(4)])(digests.s())
    assert len(one.get(PATIENCE_S)) == len(many.get(PATIENCE_S)[0]) and len(many.get()) == 4
    asked = one.parent.get(PATIENCE_S)
    assert team.job(asked["job"]).queue == "api"


def test_a_job_that_fails_fails_its_task(app: Any, team: Team) -> None:
    given = {"function": "work:bad", "items": str(team.folder / "items.jsonl")}
    failed = app.send_task("millrace.run", kwargs=given)
    wrong = app.send_task("millrace.run", kwargs={**given, "items": "/nowhere.jsonl"})
    assert "there is no such thing" in str(failed.get(PATIENCE_S, propagate=False)) and failed.failed()
    assert "There is no file /nowhere.jsonl" in str(wrong.get(PATIENCE_S, propagate=False)) and wrong.failed()


def test_a_waiting_task_says_which_job_it_waits_for(app: Any, team: Team) -> None:
    given = {"function": "work:once_stuck", "items": str(team.folder / "items.jsonl")}
    sent = app.send_task("millrace.run", kwargs=given)
    until(lambda: sent.state == "WAITING")
    assert team.job(sent.info["job"]).ended_at is None
    (team.folder / "go").touch()
    assert sent.get(PATIENCE_S)["job"] == sent.info["job"]


def test_what_waits_and_runs_is_counted(app: Any, team: Team) -> None:
    """Depth from the broker, running from events; also of what ran before anybody listened."""
    tiers = team.tiers
    early = Running(app)
    until(lambda: early.by_tier() == {})
    assert sum(waiting(app, tiers)["light"].values()) == 0
    path = str(team.folder / "may end")
    sent = [app.send_task("team.wait", (path,)) for _ in range(5)]
    until(lambda: early.by_tier() == {"light": 2})
    late = Running(app)
    assert late.by_tier() == {"light": 2}
    assert waiting(app, tiers)["light"] == {"default": 0, "quick": 3, "api": 0}
    load = with_tasks({"light": TierLoad(queued=1)}, waiting(app, tiers), late.by_tier())["light"]
    assert (load.queued, load.running, load.queued_by) == (4, 2, {"quick": 3})
    shown = team.said("jobs", "--tasks")
    assert [task["name"] for task in shown["running"]] == ["team.wait"] * 2 and shown["waiting"]["light"]["quick"] == 3
    Path(path).touch()
    assert [one.get(PATIENCE_S) for one in sent] == ["ended"] * 5
    until(lambda: early.by_tier() == late.by_tier() == {})
    early.close()
    late.close()


def test_a_worker_that_has_to_leave_ends_what_runs_within_its_grace_and_leaves_what_waits(
    own_broker: str, tmp_path: Path
) -> None:
    team, paths = Team(tmp_path, own_broker), [tmp_path / f"{i} may end" for i in range(3)]
    with _application(team) as app, team.running("worker", "--tier", "light", "--app", "team:app") as worker:
        sent = [app.send_task("team.wait", (str(path),)) for path in paths]
        for path in paths[:2]:
            until(path.with_name(f"{path.name}.began").exists)
        until(lambda: sum(waiting(app, team.tiers)["light"].values()) == 1)
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for path in paths:
            path.touch()
        assert worker.wait(PATIENCE_S) == 0
        assert [one.get(PATIENCE_S) for one in sent[:2]] == ["ended"] * 2
        assert waiting(app, team.tiers)["light"]["quick"] == 1 and not sent[2].ready()


@pytest.mark.parametrize("words", [("up", "--port", "0"), ("scale", "run")], ids=["up", "scale run"])
def test_a_task_brings_its_tier_a_worker(words: tuple[str, ...], own_broker: str, tmp_path: Path) -> None:
    """Scalers count tasks as they count jobs: heavy has no worker until something is in one of its queues."""
    team = Team(tmp_path, own_broker)
    with (tmp_path / "tiers.toml").open("a") as file:
        file.write('[tiers.heavy]\nmemory = "2GiB"\n')
    with _application(team) as app, team.running(*words, "--app", "team:app"):
        sent = app.send_task("team.count", (1,), queue="shap")
        assert sent.get(3 * PATIENCE_S) == [1, "shap"]
