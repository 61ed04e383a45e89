"""Traces: a request, its job, the run and its tasks are one; a collector receives them; off when nobody asked for them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Site, run, started, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millrace import compose, tracing
from millrace.run.errors import Paused

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def held() -> tuple[tracing.Traces, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return tracing.Traces(provider), exporter


def odd(item: int) -> int:
    if item == 3:
        raise ValueError("three")
    return item


def test_a_run_and_its_tasks_are_spans_by_its_ledger(tmp_path: Path) -> None:
    machine = compose.Machine("inline", 1, out=tmp_path)
    with compose.open_run(machine=machine) as one:
        assert list(one.map(odd, range(3))) == [0, 1, 2]
    traces, exporter = held()
    traces.run(tracing.replay(tmp_path / "ledger.jsonl"), PARENT)
    *tasks, whole = exporter.get_finished_spans()
    assert (
        whole.name == "run run"
        and whole.attributes["millrace.tasks"] == 3
        and whole.parent.span_id == 0xB7AD6B7169203331
    )
    assert [task.attributes["millrace.item"] for task in tasks] == [0, 1, 2] and {task.name for task in tasks} == {
        "odd"
    }
    assert all(task.parent.span_id == whole.context.span_id for task in tasks)
    assert all(whole.start_time <= task.start_time <= task.end_time <= whole.end_time for task in tasks)
    assert whole.status.is_ok or whole.status.is_unset


def test_what_failed_is_marked_and_the_longest_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(Exception, match="three"),
        compose.open_run(machine=compose.Machine("inline", 1, out=tmp_path)) as one,
    ):
        list(one.map(odd, range(5)))
    monkeypatch.setattr(tracing, "MOST_TASKS", 2)
    traces, exporter = held()
    traces.run(tracing.replay(tmp_path / "ledger.jsonl"))
    *tasks, whole = exporter.get_finished_spans()
    assert len(tasks) == 2 and whole.attributes["millrace.tasks"] > 2 == whole.attributes["millrace.tasks_told"]
    assert not whole.status.is_ok and whole.status.description == "failed"


def test_a_slice_that_is_over_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    traces, exporter = held()
    monkeypatch.setattr(tracing, "traces", lambda: traces)
    monkeypatch.setenv(tracing.PARENT, "of somebody else")
    with pytest.raises(Paused), tracing.job(7, "explain", 2, PARENT):
        assert tracing.os.environ[tracing.PARENT].startswith("00-0af7651916cd43dd8448eb211c80319c-")
        raise Paused("later")
    with pytest.raises(ValueError, match="wrong"), tracing.job(8, "explain", 1, ""):
        raise ValueError("wrong")
    paused, failed = exporter.get_finished_spans()
    assert (
        paused.attributes["millrace.ending"] == "paused"
        and paused.status.is_unset
        and paused.parent.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    )
    assert not failed.status.is_ok and failed.parent is None
    assert tracing.os.environ[tracing.PARENT] == "of somebody else"


def test_nobody_asked_and_nothing_is_imported(tmp_path: Path) -> None:
    assert not tracing.asked({}) and tracing.asked({tracing.ENDPOINTS[1]: "http://h"})
    assert not tracing.asked({tracing.ENDPOINTS[1]: "http://h", "OTEL_SDK_DISABLED": "true"})
    code = (
        "import sys, millrace as mr; list(mr.Run(engine='inline').map(abs, [1])); print('opentelemetry' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "False\n"


class Collector(ThreadingHTTPServer):
    """Takes spans as a collector does, OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        outer = self

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in said.resource_spans:
                    outer.services |= {
                        a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
                    }
                    outer.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Take)

    def find(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield server
    server.shutdown()
    server.server_close()


def test_a_request_its_job_its_run_and_its_tasks_are_one_trace(
    collector: Collector, furnished: Path, tmp_path: Path
) -> None:
    place = ("--jobs", str(tmp_path / "jobs"))
    assert run(furnished, "register", "data", "items", "items.jsonl", *place).returncode == 0
    with started(furnished, "up", *place) as url:
        site = Site(furnished, url, {"ann": "none"})
        body = {"analysis": "run", "question": {"function": "work:square", "items": "items"}}
        told = httpx.post(f"{url}/v1/jobs", json=body, headers={"traceparent": PARENT}, timeout=60)
        assert told.status_code == 201, told.text
        until(lambda: site.job(told.json()["id"], "ann")["ended_at"])
        site.client.close()
        until(lambda: collector.find("POST /v1/jobs") and len(collector.find("square")) == 8)
    (request,), (job,), (whole,) = (collector.find(name) for name in ("POST /v1/jobs", "job run", "run run"))
    assert {span.trace_id.hex() for span in (request, job, whole, *collector.find("square"))} == {PARENT[3:35]}
    assert request.parent_span_id.hex() == PARENT[36:52]
    assert (job.parent_span_id, whole.parent_span_id) == (request.span_id, job.span_id)
    assert {span.parent_span_id for span in collector.find("square")} == {whole.span_id}
    assert collector.services == {"millrace"}
