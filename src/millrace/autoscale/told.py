"""What the scaler has decided last, over HTTP: for KEDA, which reads a number, for Prometheus, and for probes.

    GET /desired/heavy   {"tier": "heavy", "desired": 3}     404 for a tier that there is not, 503 while it is not known
    GET /metrics         millrace_desired_replicas{tier="heavy"} 3
    GET /healthz         200 while ticks come, 503 when the last one is long ago

What is not known has no line and no number: who scales by it holds.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from millrace.autoscale.loop import Scaler

LATE_TICKS = 3


def desired(scaler: Scaler) -> dict[str, int]:
    """Replicas by tier: what a driver that is to be obeyed by others says, else what is there and comes and does not leave."""
    told = getattr(scaler.driver, "desired", None)
    if told is not None:
        return dict(told)
    return {name: max(0, d.serving + d.start - d.drain) for name, d in scaler.last.items() if d.serving is not None}


def metrics(scaler: Scaler) -> str:
    """In Prometheus' text format."""
    lines = [
        "# HELP millrace_desired_replicas replicas that a tier should have",
        "# TYPE millrace_desired_replicas gauge",
    ]
    lines += [f'millrace_desired_replicas{{tier="{name}"}} {count}' for name, count in sorted(desired(scaler).items())]
    lines += ["# HELP millrace_scaler_alert whether somebody should look", "# TYPE millrace_scaler_alert gauge"]
    lines += [f'millrace_scaler_alert{{tier="{name}"}} {int(d.alert)}' for name, d in sorted(scaler.last.items())]
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def serving(scaler: Scaler, host: str, port: int) -> Iterator[int]:
    """Serve until the end of the `with`; the port that it is (0 asks for any free one)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._say(200, metrics(scaler), "text/plain; version=0.0.4")
            elif self.path == "/healthz":
                late = time.monotonic() - scaler.ticked_s > LATE_TICKS * scaler.interval_s
                self._say(503 if late else 200, json.dumps({"status": "late" if late else "ok"}))
            elif self.path.startswith("/desired/"):
                self._desired(self.path.removeprefix("/desired/"))
            else:
                self._say(404, json.dumps({"error": "there are /desired/TIER, /metrics and /healthz"}))

        def _desired(self, tier: str) -> None:
            if tier not in scaler.tiers.tiers:
                self._say(404, json.dumps({"error": f"there is no tier {tier!r}"}))
            elif (count := desired(scaler).get(tier)) is None:
                self._say(503, json.dumps({"error": "not known yet"}))
            else:
                self._say(200, json.dumps({"tier": tier, "desired": count}))

        def _say(self, status: int, text: str, kind: str = "application/json") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A line a probe would fill the log."""

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="told", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
