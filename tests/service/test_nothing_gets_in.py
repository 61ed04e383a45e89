"""What is made to harm: paths, pickles, code, bodies that are too large or never end, headers, sites that ask from elsewhere."""

from __future__ import annotations

import io
import json
import pickle
import socket
from contextlib import closing, suppress
from urllib.parse import urlsplit

import numpy
import pytest
from conftest import Site, until

from millrace.service import names
from millrace.service.access import Caller

PATHS = (
    "/etc/passwd", "../people.parquet", "shelf/../../people.parquet", "..", ".", "deep/../../people.parquet", "out.parquet",
    "up/people.parquet", "people.parquet", "%2e%2e/people.parquet", "deep//rows.parquet", "deep/./rows.parquet",
    "deep/rows.parquet\x00.csv", "file:///etc/passwd", "http://127.0.0.1/x.csv", "s3://a/b.parquet", "~/x.csv", "rows.parquet",
    "C:\\x.csv", "deep\\rows.parquet", "", "a" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_opened(site: Site, path: str) -> None:
    for question in (
        {"analysis": "explain", "question": {"model": path, "data": "rows"}},
        {"analysis": "explain", "question": {"model": "churn", "data": path}},
        {"analysis": "refute", "question": {"data": "people", "treatment": "drug", "outcome": "visits", "graph": path}},
        {"analysis": "validate", "question": {"candidates": path, "cases": path}},
        {"analysis": "run", "question": {"function": "work:square", "items": path}},
    ):
        told = site.ask("POST", "/v1/jobs", json=question)
        assert told.status_code == 422, (question, told.text)
        assert "root:" not in told.text
    told = site.ask("POST", "/v1/explain", json={"model": path, "row": [1, 2, 3, 4]})
    assert told.status_code == 422


def test_texts_of_other_fields_are_never_looked_up_as_files(site: Site) -> None:
    before = len(list((site.folder / "millrace-jobs" / "inputs").iterdir()))
    for field, value in (("output", "/etc/passwd"), ("output", "people.parquet")):
        site.ask(
            "POST",
            "/v1/jobs",
            json={"analysis": "explain", "question": {"model": "churn", "data": "rows", field: value}},
        )
    for value in ("tokens.toml", "/etc/passwd"):
        told = site.ask(
            "POST",
            "/v1/jobs",
            json={"analysis": "explain", "question": {"model": "churn", "data": "rows", "groups": value}},
        )
        assert told.status_code == 422
    digest = {"input": "70d9bceba29e97a78c8f772062641b25666d3113.txt"}
    told = site.ask("POST", "/v1/jobs", json={"analysis": "explain", "question": {"model": digest, "data": "rows"}})
    assert told.status_code == 422
    options = {"data": "people", "treatment": "drug", "outcome": "visits", "common_causes": ["age"], "options": digest}
    told = site.ask("POST", "/v1/jobs", json={"analysis": "refute", "question": options})
    assert told.status_code == 422 and "rename" in told.json()["detail"]
    assert len(list((site.folder / "millrace-jobs" / "inputs").iterdir())) == before


@pytest.mark.parametrize(
    ("analysis", "question"),
    [
        ("run", {"function": "os:system", "items": "items"}),
        ("run", {"function": "shutil:rmtree", "items": "items"}),
        ("refute", {"data": "people", "treatment": "drug", "outcome": "visits", "common_causes": ["age"],
                    "estimator": "os:system"}),
        ("calibrate", {"simulate": "os:system", "parameters": {"a": [0, 1]}, "targets": {"x": [1.0]}}),
        ("calibrate", {"simulate": "work:square", "summarise": "os:system", "parameters": {"a": [0, 1]},
                       "targets": {"x": [1.0]}}),
        ("calibrate", {"simulate": "work:square", "parameters": {"a": [0, 1]},
                       "targets": [{"name": "x", "data": [1.0], "loss": "os:system"}]}),
        ("calibrate", {"simulate": "work:square", "parameters": {"a": [0, 1]}, "targets": {"x": "/etc/passwd"}}),
        ("calibrate", {"simulate": "work:square", "parameters": {"a": [0, 1]}, "targets": {"x": [1.0]}, "storage": "sqlite:////tmp/x"}),
        ("validate", {"candidates": "rows", "cases": "rows", "library": ["os"]}),
        ("validate", {"candidates": "rows", "cases": "os:system"}),
    ],
)  # fmt: skip
def test_only_functions_that_the_operator_allows_are_named(site: Site, analysis: str, question: dict) -> None:
    told = site.ask("POST", "/v1/jobs", json={"analysis": analysis, "question": question})
    assert told.status_code == 422, told.text


class Evil:
    def __reduce__(self) -> tuple:
        return (open, ("pwned", "w"))


def test_no_pickle_of_a_client_is_loaded(site: Site) -> None:
    import joblib

    written = io.BytesIO()
    joblib.dump(Evil(), written)
    objects = io.BytesIO()
    numpy.save(objects, numpy.array([Evil()], dtype=object), allow_pickle=True)
    for content, form in (
        (pickle.dumps(Evil()), "lightgbm"), (pickle.dumps(Evil(), 0), "xgboost-json"), (written.getvalue(), "skops"),
        (objects.getvalue(), "xgboost-ubj"), (pickle.dumps(Evil(), 0), "onnx"),
    ):  # fmt: skip
        told = site.ask("PUT", "/v1/models/evil", params={"form": form}, content=content)
        assert told.status_code == 422, (form, told.text)
    told = site.ask("PUT", "/v1/data/evil", params={"form": "npy"}, content=objects.getvalue())
    assert told.status_code == 422 and "Python objects" in told.json()["detail"]
    for form in ("joblib", "pickle", "pkl", "../x", ""):
        assert site.ask("PUT", "/v1/models/evil", params={"form": form}, content=b"x").status_code == 422
    assert "evil" not in [n["name"] for n in site.ask("GET", "/v1/names").json()["names"]]
    assert not list(site.folder.rglob("pwned"))
    assert not [p for p in (site.folder / "millrace-jobs" / "inputs").iterdir() if p.name.startswith(".")]


def test_a_reader_that_crashes_takes_nothing_with_it(site: Site) -> None:
    model = (site.folder / "model.txt").read_text().replace("num_leaves=15", "num_leaves=999999999").encode()
    assert site.ask("PUT", "/v1/models/mad", params={"form": "lightgbm"}, content=model).status_code == 422
    assert site.ask("GET", "/healthz", "").json()["status"] == "ok"


def test_bodies_are_bounded(site: Site) -> None:
    big = b'{"model": "churn", "row": "' + b"x" * (9 << 20) + b'"}'
    told = site.ask("POST", "/v1/explain", content=big, headers={"Content-Type": "application/json"})
    assert told.status_code == 413 and told.headers["content-type"] == "application/problem+json"

    def parts():
        for _ in range(9):
            yield b" " * (1 << 20)

    told = site.ask("POST", "/v1/explain", content=parts(), headers={"Content-Type": "application/json"})
    assert told.status_code == 413
    told = site.ask("PUT", "/v1/data/big", params={"form": "csv"}, content=b"a\n" * (5 << 20))
    assert told.status_code == 413
    told = site.ask("PUT", "/v1/data/big", params={"form": "csv"}, content=parts())
    assert told.status_code == 413
    rows = [[1, 2, 3, 4]] * 1001
    assert site.ask("POST", "/v1/explain", json={"model": "churn", "batch": rows}).status_code == 422
    deep = b"[" * 100_000 + b"]" * 100_000
    told = site.ask("POST", "/v1/explain", content=deep, headers={"Content-Type": "application/json"})
    assert 400 <= told.status_code < 500


def raw(site: Site, text: bytes) -> bytes:
    """What the server answers to these bytes until it closes, as it is asked to."""
    where = urlsplit(site.url)
    with closing(socket.create_connection((where.hostname, where.port), timeout=60)) as link:
        link.sendall(text)
        told = b""
        with suppress(ConnectionResetError):
            while part := link.recv(65536):
                told += part
        return told


def test_headers_cannot_be_injected(site: Site) -> None:
    token = site.tokens["ann"].encode()
    head = b"Host: x\r\nAuthorization: Bearer " + token + b"\r\nConnection: close\r\n\r\n"
    for path in (b"/v1/jobs/1%0d%0aSet-Cookie:%20a=b", b"/v1/jobs/1/files/a%0d%0aX-Evil:1", b"/page/%0d%0aX-Evil:1"):
        told = raw(site, b"GET " + path + b" HTTP/1.1\r\n" + head)
        assert told.startswith(b"HTTP/1.1 4"), told
        assert b"\r\nX-Evil" not in told and b"\r\nset-cookie" not in told.lower()
    told = raw(site, b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\nConnection: close\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 400"), told
    two = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\nConnection: close\r\n\r\n{}{}"
    assert raw(site, two).startswith(b"HTTP/1.1 400")
    head_of_both = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    both = head_of_both + b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"
    told = raw(site, both)
    assert told.startswith(b"HTTP/1.1 400") and told.count(b"HTTP/1.1") == 1, told
    assert raw(site, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + head).startswith((b"HTTP/1.1 4", b""))


def test_labels_cannot_hold_what_breaks_lines(site: Site) -> None:
    body = {"analysis": "run", "question": {"function": "work:square", "items": "items"}}
    for label in ("a\nb", 'a"b', "a\\b", "a\x00", "\ud800", "<script>"):
        text = json.dumps({**body, "label": label})
        told = site.ask("POST", "/v1/jobs", content=text.encode(), headers={"Content-Type": "application/json"})
        assert told.status_code == 422, label


@pytest.mark.slow
def test_slow_clients_are_let_go_and_hold_nobody_up(site: Site) -> None:
    """A hundred that send a byte and wait: others are served meanwhile, and the slow ones are closed."""
    where = urlsplit(site.url)
    slow = [socket.create_connection((where.hostname, where.port), timeout=60) for _ in range(100)]
    try:
        for i, link in enumerate(slow):
            token = site.tokens["ann"].encode()
            head = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\n"
            link.sendall(head if i % 2 else head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        for _ in range(5):
            assert site.ask("GET", "/v1/jobs").status_code == 200
        assert site.ask("POST", "/v1/explain", json={"model": "churn", "row": [1, 2, 3, 4]}).status_code == 200
        assert slow[0].recv(100).startswith(b"HTTP/1.1 408")  # a body that does not come
        assert slow[1].recv(100) == b""  # a head that does not come
    finally:
        for link in slow:
            link.close()


def test_who_goes_while_events_are_told_frees_the_place(site: Site) -> None:
    job = site.order("run", {"function": "work:square", "items": "items"}, queue="reports")
    where = urlsplit(site.url)
    ask = f"GET /v1/jobs/{job['id']}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.tokens['ann']}\r\n\r\n".encode()

    def follow() -> bool:
        with closing(socket.create_connection((where.hostname, where.port), timeout=30)) as link:
            link.sendall(ask)
            return link.recv(20).startswith(b"HTTP/1.1 200")

    for _ in range(30):  # more than a user may follow at once
        until(follow)
    site.ask("DELETE", f"/v1/jobs/{job['id']}")


def test_a_link_out_of_a_root_leads_nowhere(tmp_path) -> None:
    root, other = tmp_path / "root", tmp_path / "root-other"
    root.mkdir()
    other.mkdir()
    (other / "x.csv").write_text("a\n1\n")
    (root / "x.csv").symlink_to(other / "x.csv")
    (root / "loop").symlink_to(root / "loop")
    (root / "y.csv").write_text("a\n1\n")
    for name in ("x.csv", "../root-other/x.csv", "loop", "/etc/passwd", ".", ""):
        assert names.under((root,), name) is None, name
    assert names.under((root,), "y.csv") == (root / "y.csv").resolve()
    assert Caller("ann", frozenset({"read"})).may("submit") is False
