"""POST /v1/explain: the values of `mr.explainer`, one row or a batch; what is wrong with a row is said."""

from __future__ import annotations

import pytest
from conftest import COLUMNS, Site

import millrace as mr

ROW = {"age": 0.5, "income": -1.25, "rooms": None, "tenure": 2}


def values(told: dict) -> list[float]:
    return [one["value"] for one in told["outputs"][0]["features"]]


@pytest.fixture(scope="module")
def here(site: Site):
    return mr.explainer(str(site.folder / "model.txt"))


def ask(site: Site, **question: object) -> dict:
    told = site.ask("POST", "/v1/explain", json={"model": "churn", **question})
    assert told.status_code == 200, told.text
    return told.json()


def test_a_row_is_explained_as_python_does_it(site: Site, here) -> None:
    told = ask(site, row=ROW)
    (wanted,) = here.rows([ROW])
    assert values(told["answers"][0]) == wanted.values[:, 0].tolist()
    assert told["answers"][0]["outputs"][0]["prediction"] == wanted.predictions[0] and told["ms"] > 0
    listed = ask(site, row=[ROW[name] for name in COLUMNS])
    assert values(listed["answers"][0]) == values(told["answers"][0])


def test_a_batch_is_its_rows_in_their_order(site: Site, here) -> None:
    rows = [{**ROW, "age": i / 10} for i in range(1000)]
    told = ask(site, batch=rows, form="minimal")
    assert len(told["answers"]) == 1000
    wanted = here.rows(rows)
    for i in (0, 499, 999):
        assert told["answers"][i]["values"][0] == wanted[i].values[:, 0].tolist()


def test_a_background_is_named(site: Site) -> None:
    told = ask(site, row=ROW | {"rooms": 0.0}, background="rows")
    wanted = mr.explainer(str(site.folder / "model.txt"), background=str(site.folder / "rows.parquet"))
    assert values(told["answers"][0]) == wanted.rows([ROW | {"rooms": 0.0}])[0].values[:, 0].tolist()


def test_forms_are_those_of_the_library(site: Site) -> None:
    assert len(ask(site, row=ROW, form="top_k", top=2)["answers"][0]["outputs"][0]["features"]) == 2
    assert "The prediction is" in ask(site, row=ROW, form="narrative")["answers"][0]["sentences"][0]


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ({"row": [1, 2]}, "2 values"),
        ({"row": {**ROW, "more": 1}}, "does not take"),
        ({"row": {**ROW, "age": "old"}}, "takes numbers"),
        ({"row": {"age": 1}}, "lacks"),
        ({"row": [[1], 2, 3, 4]}, "row"),
        ({"row": [10**400, 2, 3, 4]}, "row"),
        ({}, "not both"),
        ({"row": ROW, "batch": [ROW]}, "not both"),
        ({"batch": []}, "batch"),
        ({"batch": [ROW, {**ROW, "age": "old"}]}, "Row 1 of 2"),
        ({"row": ROW, "output": "nobody"}, "nobody"),
        ({"row": ROW, "form": "html"}, "form"),
        ({"row": ROW, "more": 1}, "more"),
        ({"row": ROW, "background": "nothing"}, "no data called"),
    ],
)
def test_what_is_wrong_is_said(site: Site, question: dict, why: str) -> None:
    told = site.ask("POST", "/v1/explain", json={"model": "churn", **question})
    assert told.status_code == 422 and why in told.json()["detail"], told.text
    assert told.json()["type"].startswith("urn:millrace:") and told.json()["status"] == 422


def test_numbers_that_json_does_not_have_are_refused_and_never_sent(site: Site) -> None:
    for cell in (b"NaN", b"Infinity", b"1e999"):
        text = b'{"model": "churn", "row": [' + cell + b", 2, 3, 4]}"
        told = site.ask("POST", "/v1/explain", content=text, headers={"Content-Type": "application/json"})
        assert told.status_code == 422, cell
