"""/healthz on loopback, and nothing else: whether the job table can be read, and which workers were seen."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from millrace.jobs.database import DatabaseAway
from millrace.jobs.table import JobTable


def health_server(table: JobTable, port: int) -> ThreadingHTTPServer:
    """A server on 127.0.0.1:`port` (0: any free one); the caller runs and closes it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/healthz":
                self._say(404, {"error": "there is /healthz"})
                return
            try:
                self._say(200, {"status": "ok", "workers": dict(Counter(w.tier for w in table.workers()))})
            except DatabaseAway as e:
                self._say(503, {"status": "away", "error": str(e)})

        def _say(self, status: int, said: dict[str, Any]) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return None  # a line a probe would fill the terminal

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
