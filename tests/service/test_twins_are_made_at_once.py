"""POST /v1/twin/{model}/generate: the twins of a job's model, the same rows however they are asked for; and jobs of every verb of
twin, whose answers are those of direct runs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Site, run
from pyarrow import compute as pc
from pyarrow import csv, parquet

import millrace as mr
from millrace.analyses.twin.model import TwinModel


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


# -- the same answers as here --------------------------------------------------------------------------------------------
GIFT = {"name": "gift", "cost_per_unit": 1.0, "adoption": {"mean": 0.5, "sd": 0.1}, "effect": {"source": "learned"}}
FIT = {"outcome": "visits", "treatment": "drug", "folds": 2, "joint": "plain", "overlap": "trim"}
QUESTIONS = {
    "twin generate": {"n": 800, "where": {"age": {"low": -0.5}}},
    "twin simulate": {"intervention": GIFT, "n": 1_000, "by": ["drug"], "value_per_unit": 3.0, "budget": 200.0},
    "twin assess": {"rows": 300},
}


@pytest.fixture(scope="module")
def direct(site: Site) -> TwinModel:
    return mr.twin.fit(str(site.folder / "people.parquet"), **FIT, engine="inline")


@pytest.fixture(scope="module")
def learnt(site: Site, direct: TwinModel) -> dict:
    """The job that fitted the same model."""
    job = site.ended(site.order("twin fit", {"data": "people", **FIT})["id"])
    assert job["digest"] == direct.digest, job["why"]
    return job


@pytest.mark.parametrize("verb", QUESTIONS)
def test_every_verb_has_the_digest_of_a_direct_run(
    verb: str, site: Site, learnt: dict, direct: TwinModel, tmp_path: Path
) -> None:
    people = str(site.folder / "people.parquet")
    asked: dict[str, Any] = QUESTIONS[verb]
    here = {
        "twin generate": lambda: mr.twin.generate(direct, **asked, out=tmp_path / "t.parquet", seed=4, engine="inline"),
        "twin simulate": lambda: mr.twin.simulate(direct, **asked, seed=4, engine="inline"),
        "twin assess": lambda: mr.twin.assess(direct, people, **asked, seed=4, engine="inline"),
    }[verb]()
    real = {"real": "people"} if verb == "twin assess" else {}
    order = site.order(verb, {"model": f"job-{learnt['id']}", **real, **asked}, seed=4)
    job = site.ended(order["id"])
    assert job["digest"] == here.digest, job["why"]
    told = site.ask("GET", f"/v1/jobs/{order['id']}/result").json()
    assert told["digest"] == here.digest and told["findings"][1:] == here.findings()[1:]
    if verb == "twin generate":
        file = site.ask("GET", f"/v1/jobs/{order['id']}/files/twins.parquet")
        (tmp_path / "far.parquet").write_bytes(file.content)
        assert parquet.read_table(tmp_path / "far.parquet").equals(here.table)


def test_the_command_asks_the_model_of_a_job(site: Site, learnt: dict, direct: TwinModel, tmp_path: Path) -> None:
    """`millrace --url URL twin simulate --model job-7 --intervention FILE`: the file is sent, the model is there."""
    (tmp_path / "gift.toml").write_text(
        'name = "gift"\ncost_per_unit = 1.0\nadoption = { mean = 0.5, sd = 0.1 }\n[effect]\nsource = "learned"\n'
    )
    asked = ["--model", f"job-{learnt['id']}", "--intervention", "gift.toml", "--n", "1000", "--by", "drug"]
    env = {**os.environ, "MILLRACE_URL_TOKEN": site.tokens["ann"]}
    done = run(tmp_path, "--url", site.url, "twin", "simulate", *asked, "--json", env=env)
    assert done.returncode == 0, done.stderr
    here = mr.twin.simulate(direct, GIFT, n=1_000, by=["drug"], engine="inline")
    assert json.loads(done.stdout)["digest"] == here.digest


def test_known_margins_are_sent_as_they_are(site: Site, learnt: dict) -> None:
    margins = {"drug": {"0": 300.0, "1": 100.0}}
    job = site.ended(site.order("twin generate", {"model": f"job-{learnt['id']}", "n": 500, "margins": margins})["id"])
    assert job["state"] == "succeeded", job["why"]


def test_the_page_of_twin_says_how(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet of docs/twin.md that asks a service, with fewer twins."""
    page = (Path(__file__).parents[2] / "docs" / "twin.md").read_text()
    (snippet,) = [s for s in re.findall(r"```python\n(.*?)```", page, re.S) if "mr.connect" in s]
    people = parquet.read_table(site.folder / "people.parquet").rename_columns(["age", "drug", "score"])
    csv.write_csv(people.set_column(0, "age", pc.add(pc.multiply(people["age"], 10), 60)), tmp_path / "people.csv")
    monkeypatch.chdir(tmp_path)
    for word, here in (
        ("http://127.0.0.1:8373", site.url),
        ('"..."', repr(site.tokens["ann"])),
        ("1_000_000", "1_000"),
    ):
        assert word in snippet
        snippet = snippet.replace(word, here)
    exec(compile(snippet, "docs/twin.md", "exec"), {"mr": mr})
