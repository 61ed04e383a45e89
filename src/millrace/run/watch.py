"""What those who watch a run are told: how far it is, how many slots work, what memory all of it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.run.ports import Engine


@dataclass(frozen=True, slots=True)
class Progress:
    """What a face shows: tasks `finished` (of which `cached`, `failed`) of `total` when known, in this stage."""

    stage: str
    finished: int
    total: int | None
    cached: int
    failed: int
    elapsed_s: float
    private_bytes: int
    """What the driver has grown by, and all that its workers hold."""
    busy: int = 0
    slots: int = 0


def watched(engine: Engine | None, measure: Callable[..., int] | None) -> tuple[int, int, int]:
    """(busy slots, slots, private bytes of workers); nothing while there is no engine. measure: of the pid that it is told."""
    if engine is None:
        return 0, 0, 0
    busy, pids = engine.at_work()
    held = 0
    for pid in pids if measure is not None else ():
        with contextlib.suppress(ProcessLookupError):  # it ended between the two looks, and holds nothing now
            held += measure(pid)  # type: ignore[misc]
    return busy, engine.slots, held
