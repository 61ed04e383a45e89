"""Work for runs that share a host: functions of a module, so that their keys are the same in all processes. It imports
nothing of millrace, whose files would all be part of the keys."""

from __future__ import annotations

import time


def nap(item: int) -> int:
    time.sleep(0.02)
    return item * item


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def slowly_doubled(items: list[int]) -> list[int]:
    time.sleep(0.3)
    return doubled(items)


SLOW_S = 0.02


def slowly_tripled(items: list[int], *, device: str) -> list[int]:
    time.sleep(SLOW_S)
    return tripled(items, device=device)


def tripled(items: list[int], *, device: str) -> list[int]:
    assert device.startswith("cuda:")
    return [3 * item for item in items]
