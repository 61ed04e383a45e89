"""Tiers, queues and routes: what is said at the start, and where a job goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from millrace.analyses import catalogue
from millrace.jobs.database import open_database
from millrace.jobs.desk import Desk
from millrace.jobs.routing import route
from millrace.jobs.table import JobTable
from millrace.run.budget import Budget, Plan, fit
from millrace.run.errors import DoesNotFit, WrongQuestion
from millrace.tiers import DEFAULT_QUEUES, DEFAULTS, Tiers, at_home, capped, load_tiers

GIB = 1 << 30
NEEDS = Plan(
    "explain",
    "m",
    100,
    1,
    1,
    worker_bytes=100 << 20,
    driver_bytes=100 << 20,
    shared_bytes=0,
    answer_bytes=0,
    core_s=10.0,
)


def planned(**changed: object):  # type: ignore[no-untyped-def]
    return lambda budget: fit(replace(NEEDS, **changed), budget)  # type: ignore[arg-type]


def written(folder: Path, text: str) -> Tiers:
    (folder / "tiers.toml").write_text(text)
    return load_tiers(folder / "tiers.toml")


def test_every_queue_has_a_tier_and_every_kind_of_job_a_queue() -> None:
    tiers = load_tiers(None, gpus=2)
    owned = [queue for tier in tiers.tiers.values() for queue in tier.queues]
    assert len(owned) == len(set(owned))
    assert {entry.path[0] for entry in catalogue.ENTRIES} <= set(DEFAULT_QUEUES)
    assert all(tiers.of_queue(queue) for queue in DEFAULT_QUEUES.values())
    assert tiers.tier("gpu").most == 2 and load_tiers(None).tier("gpu").most == 0
    assert set(tiers.tiers) == set(DEFAULTS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[tiers.heavy]\nqueues = ['api']", "of two tiers"),
        ("[tiers.light]\nqueues = ['api']", "no tier has the queue 'default'"),
        ("[routes]\n'reports.*' = 'fast'", "no tier has"),
        ("[tiers.light]\nsoft_s = 400", "is not less than hard_s"),
        ("[tiers.light]\nleast = 9", "is more than most"),
        ("[tiers.light]\nkores = 9", "kores"),
        ("slice = 3", "slice"),
        ("tiers = 3", "tables"),
        ("[tiers", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_are_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(WrongQuestion, match=why):
        written(tmp_path, text)


def test_unknown_queues_and_tiers_are_said() -> None:
    with pytest.raises(WrongQuestion, match="There is no queue 'fast'"):
        route(load_tiers(None), "explain", "explain", planned(), "fast")
    with pytest.raises(WrongQuestion, match="There is no tier 'huge'"):
        load_tiers(None).tier("huge")


def test_a_host_caps_a_tier_and_says_so() -> None:
    tier, said = capped(load_tiers(None).tier("heavy"), 8, 10 * GIB)
    assert (tier.cores, tier.memory, tier.slot_cores, tier.slot_bytes) == (8, 10 * GIB, 4, 5 * GIB)
    assert "16 cores asked, this host has 8" in said and "32GiB asked" in said
    assert capped(load_tiers(None).tier("light"), 8, 10 * GIB)[1] == ""
    assert capped(load_tiers(None).tier("gpu"), 8, 10 * GIB)[0].cores == 8


def test_workers_of_one_host_divide_what_they_take_as_found() -> None:
    """A worker a GPU: what they admit together is never more than the host has."""
    tiers, said = at_home(load_tiers(None, gpus=4), 8, 100 * GIB)
    assert (tiers.tier("gpu").most, tiers.tier("gpu").cores, tiers.tier("gpu").memory) == (4, 2, 25 * GIB)
    assert not any("gpu" in line for line in said)


def test_what_fits_light_goes_there_and_the_rest_by_kind_and_size() -> None:
    tiers = load_tiers(None)
    small = route(tiers, "refute", "refute", planned())
    assert (small.tier, small.prediction.core_s) == ("light", 10.0)
    assert small.prediction.peak_bytes is not None and small.prediction.peak_bytes <= tiers.tier("light").slot_bytes
    assert (route(tiers, "refute", "refute", planned(core_s=1e5)).queue) == "causal"
    assert route(tiers, "refute", "refute", planned(worker_bytes=GIB)).queue == "causal"
    alone = route(tiers, "explain", "explain", planned(worker_bytes=20 * GIB))
    assert (alone.tier, alone.queue) == ("heavy", "shap")
    assert route(tiers, "run", "x", None).queue == "default"


def test_a_pattern_and_an_asked_queue_come_first(tmp_path: Path) -> None:
    tiers = written(tmp_path, "[routes]\n'reports.*' = 'reports'\n")
    assert route(tiers, "refute", "reports.daily", planned()).queue == "reports"
    assert route(tiers, "refute", "reports.daily", planned(), "shap").queue == "shap"
    up = route(tiers, "refute", "reports.daily", planned(worker_bytes=20 * GIB))
    assert (up.tier, up.queue) == ("heavy", "shap")


def test_what_fits_no_tier_is_refused_with_what_would_do() -> None:
    with pytest.raises(DoesNotFit, match="a tier of 40") as refused:
        route(load_tiers(None), "explain", "explain", planned(worker_bytes=40 * GIB))
    assert refused.value.needs_bytes == 40 * GIB + (100 << 20)


def test_a_plan_is_asked_under_a_slot_first() -> None:
    asked: list[Budget] = []

    def plan(budget: Budget) -> Plan:
        asked.append(budget)
        return planned(core_s=1e6)(budget)  # type: ignore[no-any-return]

    route(load_tiers(None), "explain", "explain", plan)
    assert [(b.cores, b.private_bytes) for b in asked] == [(1, GIB // 2), (8, 16 * GIB)]


def test_a_queue_without_a_consumer_is_refused_and_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(WrongQuestion, match="tier gpu, which may have no worker"):
        route(load_tiers(None), "run", "mine", None, "gpu")
    none = written(tmp_path, "[tiers.heavy]\nmost = 0\n")
    with pytest.raises(WrongQuestion, match="tier heavy, which may have no worker"):
        route(none, "explain", "explain", planned(core_s=1e9), "shap")
    table = JobTable(open_database(tmp_path / "jobs.sqlite"))
    said = Desk(tmp_path, table, none).check()
    assert any("explain jobs go to the queue 'shap'" in line for line in said) and not any(
        "gpu" in line for line in said
    )
    table.close()


def test_a_host_caps_the_number_of_workers_by_its_memory() -> None:
    tiers, said = at_home(load_tiers(None), 2, 10 * GIB)
    assert [(t.name, t.least, t.most) for t in tiers.tiers.values()] == [
        ("light", 2, 4), ("medium", 1, 1), ("heavy", 0, 1), ("gpu", 0, 0)
    ]  # fmt: skip
    assert at_home(load_tiers(None, gpus=4), 2, 10 * GIB)[0].tier("gpu").most == 4  # a worker a GPU
    assert any("4 workers asked, this host has memory for 1" in line for line in said)
    assert at_home(load_tiers(None), 64, 512 * GIB) == (
        load_tiers(None).model_copy(
            update={"tiers": {t.name: capped(t, 64, 512 * GIB)[0] for t in load_tiers(None).tiers.values()}}
        ),
        [],
    )
