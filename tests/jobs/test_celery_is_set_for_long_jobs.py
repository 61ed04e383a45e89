"""Names that are passed to Celery mean something to it; brokers and applications that would lose work are refused."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import free_port, valkey
from teamwork import Team

celery = pytest.importorskip("celery", reason="no Celery here: pip install 'millrace[celery]'")

from celery.app.defaults import NAMESPACES, flatten  # noqa: E402 - Celery may not be there
from kombu.transport.redis import Channel  # noqa: E402

from millrace.jobs.celery import install, wiring  # noqa: E402
from millrace.jobs.celery.broker import BrokerAway, check_broker, plain_url  # noqa: E402
from millrace.jobs.celery.installing import analyses  # noqa: E402
from millrace.jobs.celery.messages import depths  # noqa: E402
from millrace.jobs.celery.names import RUN_JOB  # noqa: E402
from millrace.jobs.celery.opening import messages  # noqa: E402
from millrace.jobs.database import open_database  # noqa: E402
from millrace.jobs.table import JobTable  # noqa: E402
from millrace.run.errors import WrongQuestion  # noqa: E402
from millrace.testing.jobs import order  # noqa: E402
from millrace.tiers import load_tiers  # noqa: E402

KNOWN = set(dict(flatten(NAMESPACES)))
READ = {"task_default_queue", "task_queues", "task_routes", "accept_content", "broker_url", "broker_transport_options",
        "result_backend"}  # fmt: skip


def test_every_setting_is_in_celerys_own_table() -> None:
    ours = {*wiring.OURS, *wiring.WORKER, *wiring.REDIS_WORKER, *READ}
    assert ours <= KNOWN, ours - KNOWN
    assert set(wiring.TRANSPORT) <= set(Channel.from_transport_options), "redis transport"


def test_what_we_set_is_what_celery_has() -> None:
    app = wiring.for_worker(wiring.own_app("redis://127.0.0.1:1/0"), load_tiers(None))
    told = {name: app.conf[name] for name in (*wiring.OURS, *wiring.WORKER, *wiring.REDIS_WORKER)}
    assert told == {**wiring.OURS, **wiring.WORKER, **wiring.REDIS_WORKER}
    rabbit = wiring.for_worker(wiring.own_app("amqp://127.0.0.1:1//"), load_tiers(None))
    assert rabbit.conf.worker_prefetch_multiplier == 1 and not rabbit.conf.worker_disable_prefetch


def test_messages_are_acknowledged_early_whatever_a_team_has_set() -> None:
    app = celery.Celery("team", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, accept_content=["pickle"])
    install(app)
    for name in (RUN_JOB, *analyses()):
        assert app.tasks[name].acks_late is False, name
    assert app.tasks[RUN_JOB].send_events is False
    app.conf.task_default_queue = "default"
    assert set(wiring.for_worker(app, load_tiers(None)).conf.accept_content) == {"json", "pickle"}


def test_a_task_for_every_analysis_that_can_be_a_job() -> None:
    from millrace.analyses import catalogue

    assert set(analyses().values()) == {e.name for e in catalogue.ENTRIES if e.plan} | {"run"}
    assert {"millrace.explain", "millrace.refute", "millrace.run"} <= set(analyses())


def test_names_in_the_documentation_are_there() -> None:
    text = (Path(__file__).parents[2] / "docs" / "coming-from-celery.md").read_text()
    tasks = set(re.findall(r"`?(millrace\.[a-z]+)[`\"]", text))
    assert {"millrace.explain", "millrace.run"} <= tasks <= {*analyses(), "millrace.jobs"}, tasks
    options = set(re.findall(r"\b((?:task|worker|result|broker)_[a-z_]+)", text)) - {"worker_process_init"}
    assert options <= KNOWN, options - KNOWN


def test_a_broker_that_may_evict_is_refused(tmp_path: Path) -> None:
    with valkey(tmp_path / "cache", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as cache:
        with pytest.raises(WrongQuestion, match="maxmemory-policy is allkeys-lru"):
            check_broker(cache.url)
        (tmp_path / "team").mkdir()
        team = Team(tmp_path / "team", cache.url)
        for words in (("up", "--port", "0"), ("worker", "--tier", "light")):
            told = team.command(*words)
            assert told.returncode == 2 and "maxmemory-policy noeviction" in told.stderr, told.stderr


def test_a_broker_that_is_away_is_said_and_jobs_are_accepted_all_the_same(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with pytest.raises(BrokerAway, match=r"redis://:\*\*\*@127.*cannot be used now"):
        check_broker(url)
    with pytest.raises(BrokerAway):
        check_broker(f"amqp://127.0.0.1:{free_port()}//")
    team = Team(tmp_path, url)
    told = team.command("worker", "--tier", "light")
    assert told.returncode == 4 and "cannot be used now" in told.stderr and "secret" not in told.stderr, told.stderr
    sent = team.command("submit", "run", "work:square", "--items", "items.jsonl")
    assert sent.returncode == 0 and "Job 1 is queued" in sent.stdout and "are safe in the table" in sent.stderr


def test_a_broker_that_is_full_takes_no_message_and_loses_no_job(tmp_path: Path) -> None:
    with valkey(tmp_path / "server", "--maxmemory-policy", "noeviction") as server:
        client = redis.Redis.from_url(server.url)
        client.config_set("maxmemory", "1mb")  # less than it holds when it is empty
        said: list[str] = []
        table = JobTable(open_database(tmp_path / "jobs.sqlite"))
        sender = messages(server.url, table, load_tiers(None), said.append)
        job = table.submit(order())
        sender.publish(job)
        assert "has memory" in said[0] and table.get(job.id).state == "queued"
        client.config_set("maxmemory", "0")
        sender.send_again()  # missed once
        assert sender.send_again() == 1 and depths(sender.app, ["millrace.heavy"]) == {"millrace.heavy": 1}
        client.close()
        sender.app.close()
        table.close()


def test_a_broker_lets_in_only_whom_it_knows(tmp_path: Path) -> None:
    with valkey(tmp_path, "--requirepass", "right") as server:
        with pytest.raises(WrongQuestion, match="does not let this user in"):
            check_broker(server.url.replace("redis://", "redis://:wrong@"))
        check_broker(server.url.replace("redis://", "valkey://:right@"))


def test_urls_of_other_kinds_are_refused() -> None:
    assert plain_url("valkey://h:1/0") == "redis://h:1/0" and plain_url("amqp://h//") == "amqp://h//"
    for url in ("sqs://", "localhost:6379", "memory://"):
        with pytest.raises(WrongQuestion, match="of a kind that jobs are not sent by"):
            plain_url(url)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"task_default_queue": "celery"}, "celery, which no tier has"),
        ({"task_default_queue": "api", "task_routes": {"x.*": {"queue": "slow"}}}, "slow, which no tier has"),
        ({"task_default_queue": "api", "task_routes": ({"x.*": "slow"},)}, "slow, which no tier has"),
    ],
)
def test_every_queue_of_a_team_has_a_tier(given: dict[str, Any], why: str) -> None:
    app = celery.Celery("team", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(given)
    with pytest.raises(WrongQuestion, match=why):
        wiring.for_worker(app, load_tiers(None))


def test_an_application_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("teams_own")
    module.app = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "teams_own", module)
    for name in ("nowhere:app", "teams_own:nothing"):
        with pytest.raises(WrongQuestion, match=f"There is no Celery application '{name}'"):
            wiring.team_app(name)
    with pytest.raises(WrongQuestion, match="no Celery application"):
        wiring.team_app("teams_own:app")
    with pytest.raises(WrongQuestion, match="The alias 'x' is for 'explains'"):
        install(celery.Celery("team", set_as_current=False), aliases={"x": "explains"})


def test_an_application_needs_its_broker(tmp_path: Path, own_broker: str) -> None:
    team = Team(tmp_path, own_broker)
    (tmp_path / "millrace.toml").write_text('tiers = "tiers.toml"\n')
    told = team.command("worker", "--tier", "light", "--app", "team:app")
    assert told.returncode == 2 and "give --broker" in told.stderr, told.stderr
    other = f"{own_broker.rsplit('/', 1)[0]}/14"
    elsewhere = team.command("worker", "--tier", "light", "--app", "team:app", "--broker", other)
    assert elsewhere.returncode == 2 and "one worker listens to one broker" in elsewhere.stderr, elsewhere.stderr
