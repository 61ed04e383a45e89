"""Functions for runs: what they take is processor time, whatever else runs here."""

from __future__ import annotations

import time


def burn(item: int) -> int:
    """40 ms of processor time, give or take a tenth by item."""
    until = time.process_time() + 0.04 * (1 + 0.1 * (item % 3 - 1))
    count = 0
    while time.process_time() < until:
        count += 1
    return count > 0


def _deep(until: float) -> int:
    count = 0
    while time.process_time() < until:
        count += 1
    return count


def shallow(item: int) -> int:
    """Nearly all of it in `_deep`."""
    return _deep(time.process_time() + 0.15) and item


def simulate(item: int, seed: int = 3) -> int:
    return item + seed
