"""The API of a Kubernetes cluster over HTTP: one request, one answer, every refusal an error that says what to do.

No client library: five calls are used, and the library loads 700 modules. Knows nothing of tiers (see `kubernetes`).
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from millrace.run.errors import MillraceError

MERGE = "application/merge-patch+json"
TIMEOUT_S = 10.0


class ClusterAway(MillraceError):
    """The API cannot be reached, or does not answer as one; may pass."""


class ClusterRefused(MillraceError):
    """The API has refused; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """`token` is asked for each request; `authority`: the file of the cluster's certificate authority."""

    def __init__(self, url: str, token: Callable[[], str] | None = None, authority: Path | None = None) -> None:
        self._url, self._token = url.rstrip("/"), token
        self._context = None
        if url.startswith("https:"):
            self._context = ssl.create_default_context(cafile=None if authority is None else str(authority))

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self._ask("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, body)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("PUT", path, body)

    def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("PATCH", path, body, MERGE)

    def delete(self, path: str, body: Mapping[str, Any]) -> None:
        """What is gone already is gone."""
        try:
            self._ask("DELETE", path, body)
        except ClusterRefused as refused:
            if refused.status != 404:
                raise

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        request = urllib.request.Request(f"{self._url}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", kind)
        request.add_header("Accept", "application/json")
        try:
            if self._token is not None:
                request.add_header("Authorization", f"Bearer {self._token()}")
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._context) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            raise _refused(method, path, refused) from refused
        except (OSError, ValueError) as away:
            raise ClusterAway(
                f"The API of Kubernetes at {self._url} cannot be reached: {away}. Look whether the address is right and the "
                "cluster answers; nothing is changed until it does."
            ) from away
        if not isinstance(found, dict):
            raise ClusterAway(
                f"{self._url}{path} does not answer as Kubernetes does. Look whether the address is right."
            )
        return found


_HINTS = {
    401: "Its token is not valid: look whether the service account is there.",
    403: "The role of the service account does not allow it: see deploy/kubernetes/base/roles.yaml.",
    404: "Look for a typing error in the names under [scaler.kubernetes], and in the namespace.",
    409: "Somebody changed it in the meantime: the next tick looks again.",
}


def _refused(method: str, path: str, refused: urllib.error.HTTPError) -> ClusterRefused:
    try:
        said = json.loads(refused.read()).get("message", "")
    except (OSError, ValueError, AttributeError):
        said = refused.reason
    hint = _HINTS.get(refused.code, "")
    return ClusterRefused(f"Kubernetes refused {method} {path} ({refused.code}): {said}. {hint}".rstrip(), refused.code)
