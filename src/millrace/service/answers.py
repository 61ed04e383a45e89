"""JSON as the service sends it: numbers that JSON does not have (NaN, infinities) are null, NumPy's are plain ones."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import JSONResponse


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


encode = msgspec.json.Encoder(enc_hook=_plain).encode


class Plain(JSONResponse):
    """A JSON response, encoded by msgspec: several times faster than the standard library, and NaN is null."""

    def render(self, content: Any) -> bytes:
        return encode(content)
