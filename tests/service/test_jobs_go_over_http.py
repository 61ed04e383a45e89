"""What works on the command line works over HTTP, with the same digests: jobs, events, results, reports, names, plans."""

from __future__ import annotations

import json

import httpx
import pytest
from conftest import Site, until
from pyarrow import parquet

import millrace as mr

REFUTE = {"data": "people", "treatment": "drug", "outcome": "visits", "common_causes": ["age"], "simulations": 50}


@pytest.fixture(scope="module")
def explained(site: Site) -> dict:
    job = site.order("explain", {"model": "churn", "data": "rows"}, key="once", seed=0)
    return site.ended(job["id"])


def test_an_answer_has_the_digest_of_the_other_faces(site: Site, explained: dict) -> None:
    assert explained["state"] == "succeeded", explained["why"]
    folder = site.folder
    wanted = mr.explain(str(folder / "model.txt"), str(folder / "rows.parquet"), engine="inline").digest
    told = site.ask("GET", f"/v1/jobs/{explained['id']}/result")
    assert told.json()["digest"] == explained["digest"] == wanted
    assert explained["measured"]["core_s"] and explained["predicted"]["peak_bytes"]


def test_a_refutation_too(site: Site) -> None:
    job = site.ended(site.order("refute", REFUTE, seed=3)["id"])
    file = str(site.folder / "people.parquet")
    wanted = mr.refute(file, "drug", "visits", common_causes=["age"], simulations=50, seed=3, engine="inline")
    assert job["digest"] == wanted.digest, job["why"]


def test_a_function_that_is_allowed_runs(site: Site) -> None:
    job = site.ended(site.order("run", {"function": "work:square", "items": "items"})["id"])
    assert job["state"] == "succeeded", job["why"]
    file = site.ask("GET", f"/v1/jobs/{job['id']}/files/results.jsonl")
    assert [json.loads(line) for line in file.text.splitlines()] == [i * i for i in range(8)]


def test_a_key_makes_one_job_of_two_orders_and_is_of_its_user_alone(site: Site, explained: dict) -> None:
    body = {"analysis": "explain", "question": {"model": "churn", "data": "rows"}, "key": "once"}
    again = site.ask("POST", "/v1/jobs", json=body)
    assert (again.status_code, again.json()["id"]) == (200, explained["id"])
    other = site.ask("POST", "/v1/jobs", "bob", json=body)
    assert other.status_code == 201 and other.json()["id"] != explained["id"]
    assert other.headers["Location"] == f"/v1/jobs/{other.json()['id']}"
    site.ended(other.json()["id"])


def test_events_tell_each_change_and_the_end(site: Site) -> None:
    job = site.order("run", {"function": "work:nap", "items": "items"})
    headers = {"Authorization": f"Bearer {site.tokens['ann']}"}
    url = f"{site.url}/v1/jobs/{job['id']}/events"
    names, states = [], []
    with httpx.stream("GET", url, headers=headers, timeout=120) as told:
        assert told.headers["content-type"].startswith("text/event-stream")
        for line in told.iter_lines():
            if line.startswith("event: "):
                names.append(line[7:])
            elif line.startswith("data: "):
                states.append(json.loads(line[6:])["state"])
    assert names[-1] == "end" and set(names[:-1]) == {"job"}
    assert states[-1] == "succeeded" and "running" in states


def test_a_report_is_a_page_and_sections(site: Site, explained: dict) -> None:
    page = site.ask("GET", f"/v1/jobs/{explained['id']}/report")
    assert page.headers["content-type"].startswith("text/html") and "sandbox" in page.headers["content-security-policy"]
    told = site.ask("GET", f"/v1/jobs/{explained['id']}/report", params={"form": "json"}).json()
    pictures = [section["title"] for section in told["result"] if section["chart"]]
    assert any("eeswarm" in title for title in pictures), pictures
    assert told["run"][0]["title"] == "Where the core-seconds went" and told["digest"] == explained["digest"]
    for name in told["files"]:
        assert site.ask("GET", f"/v1/jobs/{explained['id']}/files/{name}").status_code == 200


def test_what_failed_says_why_and_goes_again(site: Site) -> None:
    job = site.ended(site.order("run", {"function": "work:bad", "items": "items"})["id"])
    assert job["state"] == "failed" and "there is no such thing" in job["why"]
    log = site.ask("GET", f"/v1/jobs/{job['id']}/log")
    assert "there is no such thing" in log.text
    rest = site.ask("GET", f"/v1/jobs/{job['id']}/log", params={"start": log.headers["X-Next"]})
    assert rest.text == ""
    none = site.ask("GET", f"/v1/jobs/{job['id']}/result")
    assert none.status_code == 409 and "is failed" in none.json()["detail"]
    again = site.ask("POST", f"/v1/jobs/{job['id']}/retry")
    assert again.json()["state"] == "queued"
    assert site.ended(job["id"])["attempt"] == 2


def test_a_running_job_is_cancelled(site: Site) -> None:
    job = site.order("run", {"function": "work:doze", "items": "items"}, label="to be cancelled")
    until(lambda: site.job(job["id"])["state"] == "running")
    assert site.ask("DELETE", f"/v1/jobs/{job['id']}").json()["cancel_asked"]
    assert site.ended(job["id"])["state"] == "cancelled"


def test_lists_are_of_a_state_and_go_on(site: Site, explained: dict) -> None:
    first = site.ask("GET", "/v1/jobs", params={"limit": 1}).json()
    then = site.ask("GET", "/v1/jobs", params={"limit": 1, "before": first["before"]}).json()
    assert then["jobs"][0]["id"] < first["jobs"][0]["id"]
    done = site.ask("GET", "/v1/jobs", params={"state": "succeeded", "limit": 200}).json()
    assert {job["state"] for job in done["jobs"]} == {"succeeded"} and done["before"] is None


def test_a_plan_tells_each_tier_and_queues_nothing(site: Site) -> None:
    before = site.ask("GET", "/v1/jobs").json()["jobs"][0]["id"]
    told = site.ask(
        "POST", "/v1/plan", "eve", json={"analysis": "explain", "question": {"model": "churn", "data": "rows"}}
    )
    plan = told.json()
    assert plan["tier"] == "light" and {t["tier"] for t in plan["tiers"]} >= {"light", "medium", "heavy"}
    assert all(t["fits"] and t["core_s"] > 0 and t["money"] > 0 for t in plan["tiers"])
    assert site.ask("GET", "/v1/jobs").json()["jobs"][0]["id"] == before


def test_tiers_tell_what_they_are_and_how_they_were(site: Site) -> None:
    told = site.ask("GET", "/v1/tiers", "eve").json()
    light = next(tier for tier in told["tiers"] if tier["name"] == "light")
    assert light["load"]["live"] == 1 and light["history"] and light["cost_per_hour"] > 0
    assert told["workers"][0]["private_bytes"] > 1 << 20


def test_what_is_sent_has_a_name_and_the_same_digest(site: Site, explained: dict) -> None:
    model = (site.folder / "model.txt").read_bytes()
    assert site.ask("PUT", "/v1/models/mine", params={"form": "lightgbm"}, content=model).json()["of"] == "ann"
    rows = (site.folder / "rows.parquet").read_bytes()
    assert site.ask("PUT", "/v1/data/mine", params={"form": "parquet"}, content=rows).status_code == 200
    job = site.ended(site.order("explain", {"model": "mine", "data": "mine"})["id"])
    assert job["digest"] == explained["digest"]
    assert {n["name"] for n in site.ask("GET", "/v1/names").json()["names"]} >= {"mine", "churn", "deep"}


def test_files_under_a_root_have_names(site: Site, explained: dict) -> None:
    job = site.ended(site.order("explain", {"model": "churn", "data": "deep/rows.parquet"})["id"])
    assert job["digest"] == explained["digest"]


def test_a_table_of_a_result_can_be_read(site: Site, explained: dict, tmp_path) -> None:
    files = site.ask("GET", f"/v1/jobs/{explained['id']}/report", params={"form": "json"}).json()["files"]
    name = next(name for name in files if name.endswith(".parquet"))
    (tmp_path / name).write_bytes(site.ask("GET", f"/v1/jobs/{explained['id']}/files/{name}").content)
    assert parquet.read_table(tmp_path / name).num_rows > 0
