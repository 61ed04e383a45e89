"""OpenTelemetry traces: a request, the job that it asked for, the job's run and its tasks are one trace.

On when the extra `otel` is installed and OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) is set; off, and
nothing is imported, otherwise. What came before is handed on as W3C writes it: a request's `traceparent` header, the variable
TRACEPARENT of a process, the job's row. Tasks are told when their run has ended, from its ledger: nothing is measured for it.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.errors import Cancelled, Paused
from millrace.run.ledger import STATES, History, replay

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PARENT = "TRACEPARENT"
MOST_TASKS = 2_000
"""Tasks of a run that are told: the longest ones."""
FLUSH_MS = 3_000
"""What an end waits for a collector that is away."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Where spans go. The provider is millrace's own: one that another library has set up for the process is left alone."""

    provider: TracerProvider

    @contextmanager
    def span(self, name: str, parent: str = "", **attributes: Any) -> Iterator[Span]:
        """A span around what is done inside. `parent`: a traceparent. What is raised inside is told, and marks it as failed."""
        with self._tracer().start_as_current_span(name, _context(parent), attributes=attributes) as span:
            yield span

    def run(self, history: History, parent: str = "") -> None:
        """A run that has ended, and its tasks, by its ledger."""
        from opentelemetry import trace

        since = time.time_ns() - time.monotonic_ns()  # the ledger counts from the start of this machine
        head, end, columns = history.header, history.end, history.columns
        tracer, begun = self._tracer(), head["from_ns"] + since
        longest = sorted(range(history.attempts), key=lambda i: columns["started_ns"][i] - columns["ended_ns"][i])
        told = sorted(longest[:MOST_TASKS])
        about = {
            "millrace.run_id": head["run_id"], "millrace.analysis": head["analysis"], "millrace.engine": head["engine"],
            "millrace.tasks": history.attempts, "millrace.tasks_told": len(told),
        }  # fmt: skip
        whole = tracer.start_span(f"run {head['analysis']}", _context(parent), start_time=begun, attributes=about)
        inside = trace.set_span_in_context(whole)
        for i in told:
            state = STATES[columns["state"][i]]
            start = columns["started_ns"][i] or columns["queued_ns"][i]
            about = {"millrace.item": columns["item"][i], "millrace.state": state, "process.pid": columns["pid"][i]}
            one = tracer.start_span(
                history.names[columns["name"][i]], inside, start_time=start + since, attributes=about
            )
            if state not in ("done", "cached"):
                one.set_status(trace.StatusCode.ERROR, state)
            one.end(max(columns["ended_ns"][i], start) + since)
        if end and end["state"] != "done":
            whole.set_status(trace.StatusCode.ERROR, str(end["state"]))
        whole.end(end["to_ns"] + since if end else None)
        self.provider.force_flush(FLUSH_MS)

    def _tracer(self) -> Any:
        return self.provider.get_tracer("millrace")


def asked(environ: Any = os.environ) -> bool:
    """Whether the environment wants traces."""
    return any(environ.get(name) for name in ENDPOINTS) and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


@cache
def traces() -> Traces | None:
    """The traces of this process; None when nobody wants any, or the extra is not installed."""
    if not asked():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None
    given = Resource.create()  # of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    named = not str(given.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    provider = TracerProvider(
        resource=given if named else given.merge(Resource({SERVICE_NAME: "millrace"})), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=4 * MOST_TASKS))
    atexit.register(provider.shutdown)
    return Traces(provider)


def told_at_end(owned: ExitStack, ledger: Path) -> None:
    """Tell a run when the stack is closed, after its ledger was."""
    found = traces()
    if found is not None:
        parent = os.environ.get(PARENT, "")
        owned.callback(lambda: found.run(replay(ledger), parent))


@contextmanager
def job(number: int, analysis: str, attempt: int, parent: str) -> Iterator[None]:
    """Around an attempt of a job, in the process that carries it out; runs inside are parts of it."""
    found = traces()
    before, halted = os.environ.pop(PARENT, None), None
    try:
        if found is None:
            yield
            return
        about = {"millrace.job": number, "millrace.analysis": analysis, "millrace.attempt": attempt}
        with found.span(f"job {analysis}", parent, **about) as span:
            os.environ[PARENT] = traceparent(span)
            try:
                yield
            except (Paused, Cancelled) as e:  # no failure: another attempt goes on, or nobody wants it
                halted = e
                span.set_attribute("millrace.ending", type(e).__name__.lower())
        if halted is not None:
            raise halted
    finally:
        os.environ.pop(PARENT, None)
        if before is not None:
            os.environ[PARENT] = before
        if found is not None:
            found.provider.force_flush(FLUSH_MS)


def traceparent(span: Span) -> str:
    """The span as W3C's Trace Context writes it."""
    known = span.get_span_context()
    return f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"


def _context(parent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {})
