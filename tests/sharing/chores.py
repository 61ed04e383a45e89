"""Work for runs that share a host: functions of a module, so that their keys are the same in all processes."""

from __future__ import annotations

import time
from typing import Any


def nap(item: int) -> int:
    time.sleep(0.02)
    return item * item


def nested(item: int) -> list[Any]:
    """A task that opens a run itself."""
    import millrace as mr

    with mr.Run(engine="inline") as run:
        return list(run.map(abs, [item, -item]))


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def tripled(items: list[int], *, device: str) -> list[int]:
    assert device.startswith("cuda:")
    return [3 * item for item in items]
