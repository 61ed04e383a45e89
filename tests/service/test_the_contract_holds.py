"""Requests made from the OpenAPI, right ones and wrong ones: no server error, every answer as the contract says."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Site
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

FEW, MANY = 6, 300
"""Requests for each route and way (right, wrong): some hundred in all, and over ten thousand in the long form."""


def ask_all(site: Site, examples: int) -> int:
    """Ask every route; how many requests there were."""
    import requests
    import schemathesis
    from schemathesis import GenerationMode, checks
    from schemathesis.specs.openapi import checks as of_openapi

    schema = schemathesis.openapi.from_dict(site.ask("GET", "/v1/openapi.json").json())
    headers = {"Authorization": f"Bearer {site.tokens['bob']}"}
    held = [
        checks.not_a_server_error, of_openapi.status_code_conformance, of_openapi.content_type_conformance,
        of_openapi.response_headers_conformance, of_openapi.response_schema_conformance,
    ]  # fmt: skip
    count = 0
    session = requests.Session()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            most = examples if operation.method != "put" else max(2, examples // 20)  # each starts a reader of its own

            @settings(
                max_examples=most,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def asked(case: Any) -> None:
                nonlocal count
                count += 1
                response = case.call(base_url=site.url, headers=headers, timeout=60, session=session)
                case.validate_response(response, checks=held, headers=headers)

            try:
                asked()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, (
                    operation.label
                )  # a route without parameters: nothing can be wrong
    return count


def test_some_requests(site: Site) -> None:
    assert ask_all(site, FEW) > 100


@pytest.mark.slow
def test_ten_thousand_requests(site: Site) -> None:
    count = 0
    for _ in range(20):
        count += ask_all(site, MANY)
        if count >= 10_000:
            break
    assert count >= 10_000


def test_every_route_says_what_it_does_and_how_it_fails(site: Site) -> None:
    told = site.ask("GET", "/v1/openapi.json").json()
    for path, methods in told["paths"].items():
        for method, one in methods.items():
            assert one.get("description") and one["tags"], (method, path)
            for status, answer in one["responses"].items():
                kinds = answer.get("content", {})
                assert int(status) < 400 or list(kinds) == ["application/problem+json"], (method, path, status)


def test_what_is_not_there_is_a_problem_too(site: Site) -> None:
    for method, path, status in (
        ("GET", "/v2", 404),
        ("PATCH", "/v1/jobs", 405),
        ("GET", "/v1/jobs/0", 422),
        ("GET", "/docs", 404),
    ):
        told = site.ask(method, path)
        assert (told.status_code, told.headers["content-type"]) == (status, "application/problem+json")
        assert set(told.json()) >= {"type", "title", "status", "detail"}
