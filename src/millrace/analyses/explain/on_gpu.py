"""The tasks of explain that have a body for a GPU. Kept apart from `blocks`, so that the keys of the processor's tasks know
nothing of how a device is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from millrace.analyses.explain import blocks, parts
from millrace.analyses.explain.kernels.device_game import DeviceGame
from millrace.analyses.explain.kernels.device_models import Form

Arrays = Mapping[str, Any]


def kernel_rows(
    block: blocks.Block, rows: Any, background: Arrays, player_of: Any, precision: str, tolerance: float,
    *designs: Arrays, form: Form, device: str,
) -> Arrays:  # fmt: skip
    """As `blocks.kernel_rows`; the model is asked on the device."""
    answer = form.on(device)

    def game_of(_: Any, known: Any, shares: Any) -> DeviceGame:
        return DeviceGame(answer, form.row_bytes, device, known, shares)

    return blocks.estimated(block, rows, background, player_of, precision, tolerance, designs, None, game_of)


def part_of_rows(
    reader: Any, item: Any, *shared: Any, source: Any, form: parts.Form, work: Callable[..., Arrays], device: str
) -> Arrays:
    """As `parts.part_of_rows`, of work that is done on the device."""
    return parts.part_of_rows(reader, item, *shared, source=source, form=form, work=partial(work, device=device))
