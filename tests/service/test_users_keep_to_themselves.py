"""Tokens, scopes, users: who has not the scope is told so, who is not the owner sees nothing."""

from __future__ import annotations

import os
import re

import httpx
import pytest
from conftest import Site, here, run, started

from millrace.service.access import add_token, read_tokens

NUMBERED = ("", "/events", "/result", "/report", "/log", "/files/result.json")


@pytest.fixture(scope="module")
def job(site: Site) -> dict:
    return site.ended(site.order("run", {"function": "work:square", "items": "items"}, label="of ann")["id"])


def routes(site: Site) -> list[tuple[str, str]]:
    paths = site.ask("GET", "/v1/openapi.json", "").json()["paths"]
    return [(method.upper(), path) for path, one in paths.items() for method in one]


def test_every_route_but_health_needs_a_token(site: Site) -> None:
    for method, path in routes(site):
        place = path.replace("{number}", "1").replace("{name}", "a")
        for headers in ({}, {"Authorization": "Bearer mr_no"}, {"Authorization": "Basic YTpi"}):
            told = httpx.request(method, f"{site.url}{place}", headers=headers, json={}, timeout=30)
            if path in ("/healthz", "/readyz"):
                assert told.status_code == 200
            else:
                assert (told.status_code, path) == (401, path)
                assert told.headers["www-authenticate"].startswith("Bearer")
                assert told.headers["content-type"] == "application/problem+json"


def test_scopes_bound_what_a_token_does(site: Site, job: dict) -> None:
    number = job["id"]
    asks = {"analysis": "run", "question": {"function": "work:square", "items": "items"}}
    writes = [("POST", "/v1/jobs", asks), ("DELETE", f"/v1/jobs/{number}", None), ("POST", f"/v1/jobs/{number}/retry", None),
              ("POST", "/v1/explain", {"model": "churn", "row": [1, 2, 3, 4]}), ("PUT", "/v1/data/x?form=csv", None),
              ("PUT", "/v1/models/x?form=onnx", None)]  # fmt: skip
    for method, path, body in writes:
        told = site.ask(method, path, "eve", json=body)
        assert told.status_code == 403 and "submit" in told.json()["detail"], path
    for path in ("/v1/jobs", "/v1/tiers", "/v1/names", "/metrics", *(f"/v1/jobs/{number}{more}" for more in NUMBERED)):
        assert site.ask("GET", path, "sam").status_code == 403, path


def test_two_users_never_see_each_other(site: Site, job: dict) -> None:
    number = job["id"]
    for more in NUMBERED:
        told = site.ask("GET", f"/v1/jobs/{number}{more}", "bob")
        nothing = site.ask("GET", f"/v1/jobs/999999{more}", "bob")
        assert told.status_code == nothing.status_code == 404, more
        assert told.json()["detail"].replace(f"job {number} ", "job N ") == nothing.json()["detail"].replace(
            "999999", "N"
        )
    assert site.ask("DELETE", f"/v1/jobs/{number}", "bob").status_code == 404
    assert site.ask("POST", f"/v1/jobs/{number}/retry", "bob").status_code == 404
    assert number not in [j["id"] for j in site.ask("GET", "/v1/jobs", "bob").json()["jobs"]]
    assert number in [j["id"] for j in site.ask("GET", "/v1/jobs", "admin").json()["jobs"]]


def test_names_are_of_their_user(site: Site) -> None:
    rows = (site.folder / "rows.parquet").read_bytes()
    assert site.ask("PUT", "/v1/data/private", params={"form": "parquet"}, content=rows).status_code == 200
    assert "private" not in [n["name"] for n in site.ask("GET", "/v1/names", "bob").json()["names"]]
    question = {"analysis": "explain", "question": {"model": "churn", "data": "private"}}
    told = site.ask("POST", "/v1/jobs", "bob", json=question)
    assert told.status_code == 422 and "no data called 'private'" in told.json()["detail"]
    for name in ("ann:private", "rows:x", "ann/private"):
        question["question"]["data"] = name
        assert site.ask("POST", "/v1/jobs", "bob", json=question).status_code == 422


def test_a_name_of_ones_own_hides_the_operators_for_oneself_alone(site: Site) -> None:
    csv = b"age,income,rooms,tenure\n1,2,3,4\n"
    assert site.ask("PUT", "/v1/data/rows", "bob", params={"form": "csv"}, content=csv).status_code == 200
    one = {"analysis": "explain", "question": {"model": "churn", "data": "rows"}}
    mine, others = (
        site.ask("POST", "/v1/plan", user, json=one).json()["tiers"][0]["peak_bytes"] for user in ("bob", "ann")
    )
    assert mine < others


def test_open_jobs_are_bounded_per_user(site: Site) -> None:
    """Jobs of a queue without a worker stay open."""
    orders = []
    body = {"analysis": "run", "question": {"function": "work:square", "items": "items"}, "queue": "reports"}
    while True:
        told = site.ask("POST", "/v1/jobs", "sam", json=body)
        if told.status_code == 429:
            break
        orders.append(told.json()["id"])
        assert len(orders) <= 6
    assert told.headers["retry-after"] and len(orders) <= 6
    for number in orders:
        assert site.ask("DELETE", f"/v1/jobs/{number}", "sam").status_code == 200


def test_what_a_user_keeps_is_bounded_and_makes_room_when_nothing_has_it(site: Site) -> None:
    def put(name: str, letter: str) -> httpx.Response:
        content = f'"{letter * (5 << 20)}"\n'.encode()
        return site.ask("PUT", f"/v1/data/{name}", "kim", params={"form": "jsonl"}, content=content)

    inputs = site.folder / "millrace-jobs" / "inputs"
    before = set(inputs.iterdir())
    assert put("one", "a").status_code == put("same", "a").status_code == put("two", "b").status_code == 200
    one, two = sorted(set(inputs.iterdir()) - before, key=lambda path: path.read_text()[1])
    question = {"function": "work:square", "items": "two"}
    waits = site.order("run", question, "kim", queue="reports")
    full = put("three", "c")
    assert full.status_code == 413 and "You keep 10" in full.json()["detail"]
    assert site.ask("PUT", "/v1/data/three", "bob", params={"form": "jsonl"}, content=b"1\n").status_code == 200
    for name in ("one", "same", "two"):
        assert site.ask("DELETE", f"/v1/data/{name}", "bob").status_code == 404
        assert site.ask("DELETE", f"/v1/data/{name}", "kim").status_code == 204
    assert site.ask("POST", "/v1/plan", "kim", json={"analysis": "run", "question": question}).status_code == 422
    assert put("three", "c").status_code == 413 and one.exists()  # sent just now: somebody may be about to use it
    for path in (one, two):
        os.utime(path, (0, 0))
    assert put("three", "c").status_code == 200
    assert not one.exists() and two.exists()  # of the second there is a job
    site.ask("DELETE", f"/v1/jobs/{waits['id']}", "kim")
    assert site.ask("DELETE", "/v1/data/rows", "kim").status_code == 404  # the operator's


def test_a_token_that_is_taken_out_of_the_file_is_refused(site: Site) -> None:
    file = site.folder / "tokens.toml"
    token = add_token(file, "temp", ("read",))
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{site.url}/v1/jobs", headers=headers).status_code == 200
    text = file.read_text()
    assert token not in text
    file.write_text(text[: text.rindex("[[token]]")])
    assert httpx.get(f"{site.url}/v1/jobs", headers=headers).status_code == 401


def test_the_command_makes_tokens_and_bad_files_are_told(furnished) -> None:
    code, said, _ = here(furnished, "token", "zoe", "--scopes", "read", "--service-tokens", "others.toml")
    assert code == 0 and re.fullmatch(r"mr_[\w-]{43}\n", said)
    assert [c.user for c in read_tokens(furnished / "others.toml").values()] == ["zoe"]
    assert (furnished / "others.toml").stat().st_mode & 0o077 == 0
    for name, scopes, why in (("Zoe", "read", "a user is"), ("zoe", "all", "scopes are")):
        code, _, said = here(furnished, "token", name, "--scopes", scopes, "--service-tokens", "others.toml")
        assert code == 2 and why in said
    (furnished / "bad.toml").write_text('[[token]]\nuser = "x"\n')
    code, _, said = here(furnished, "serve", "--port", "0", "--service-tokens", "bad.toml")
    assert code == 2 and "bad.toml, token 1" in said


def test_without_tokens_it_is_for_this_machine_alone(furnished) -> None:
    told = run(furnished, "serve", "--host", "0.0.0.0", "--port", "0")
    assert told.returncode == 2 and "needs tokens" in told.stderr
    with started(furnished, "serve") as url:
        assert httpx.get(f"{url}/v1/jobs").status_code == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": ""}, {"Host": "[::"}):
            told = httpx.post(f"{url}/v1/explain", headers=headers, json={"model": "churn", "row": [1, 2, 3, 4]})
            assert told.status_code == 403 and "no tokens" in told.json()["detail"], headers
        own = httpx.get(f"{url}/v1/jobs", headers={"Origin": url})
        assert own.status_code == 200
