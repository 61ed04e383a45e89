"""A task that opens a run itself."""

from __future__ import annotations

from typing import Any


def nested(item: int) -> list[Any]:
    import millrace as mr

    with mr.Run(engine="inline") as run:
        return list(run.map(abs, [item, -item]))
