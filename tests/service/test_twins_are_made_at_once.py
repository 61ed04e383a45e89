"""POST /v1/twin/{model}/generate: the twins of a job's model, the same rows however they are asked for."""

from __future__ import annotations

import pytest
from conftest import Site

import millrace as mr


@pytest.fixture(scope="module")
def fitted(site: Site) -> dict:
    job = site.ended(site.order("twin fit", {"data": "people", "limit": 300})["id"])
    assert job["state"] == "succeeded", job["why"]
    return job


def test_some_twins_at_once_are_those_of_the_model(site: Site, fitted: dict) -> None:
    path = f"/v1/twin/job-{fitted['id']}/generate"
    told = site.ask("POST", path, json={"n": 20, "seed": 3})
    assert told.status_code == 200, told.text
    (folder,) = (site.folder / "millrace-jobs" / "work" / str(fitted["id"])).glob("*/twin-*")
    assert told.json()["twins"] == mr.twin.sample(str(folder), 20, seed=3).to_pylist()
    later = site.ask("POST", path, json={"n": 5, "first": 15, "seed": 3}).json()["twins"]
    assert later == told.json()["twins"][15:]
    old = site.ask("POST", path, json={"n": 5, "where": "age >= 0.5"}).json()["twins"]
    assert len(old) == 5 and all(one["age"] >= 0.5 for one in old)


def test_a_job_makes_many_from_the_same_model(site: Site, fitted: dict) -> None:
    job = site.ended(site.order("twin generate", {"model": f"job-{fitted['id']}", "n": 500}, seed=3)["id"])
    assert job["state"] == "succeeded", job["why"]
    with mr.connect(site.url, token=site.tokens["ann"]) as far:
        assert len(far.twins(f"job-{fitted['id']}", 3, seed=3)) == 3


def test_what_is_wrong_is_said(site: Site, fitted: dict) -> None:
    path = f"/v1/twin/job-{fitted['id']}/generate"
    for asked, status in (
        ({"n": 1001}, 422),
        ({"where": "nothing > 1"}, 422),
        ({"where": "__import__('os')"}, 422),
        ({"more": 1}, 422),
    ):
        assert site.ask("POST", path, json=asked).status_code == status, asked
    assert site.ask("POST", path, "bob", json={}).status_code == 404
    assert site.ask("POST", "/v1/twin/nobody/generate", json={}).status_code == 422
    square = site.ended(site.order("run", {"function": "work:square", "items": "items"})["id"])
    told = site.ask("POST", f"/v1/twin/job-{square['id']}/generate", json={})
    assert told.status_code == 422 and "left no model" in told.json()["detail"]
