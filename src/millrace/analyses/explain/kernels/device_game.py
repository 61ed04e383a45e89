"""What coalitions are worth, found on a device by torch: `coalitions.Game` of a model that can be asked there.

Rows are mixed with the background, asked and averaged on the device; masks go there and sums come back. Every call has a
fixed shape and holds one explained row alone, so a row's result does not depend on other rows. See `device_models`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.coalitions import Design
from millrace.analyses.explain.kernels.device_models import Answer
from millrace.run.errors import ModelTrouble

MOST_POINTS = 65_536
CALL_BYTES = 512 << 20
"""A call of the model has at most so many rows, and bytes on the device. By shape, never by what is free there."""


class DeviceGame:
    """answer: of `device_models`, laid out on `device`; row_bytes: what a row takes inside of it. background[b, columns],
    shares[b] as `coalitions` has them."""

    def __init__(
        self, answer: Answer, row_bytes: int, device: str, background: NDArray[Any], shares: NDArray[np.float64]
    ) -> None:
        columns = background.shape[1]
        self._answer, self._device = answer, device
        self._most = max(1, min(MOST_POINTS, CALL_BYTES // (row_bytes + 3 * 8 * columns)))
        self._background, self._shares = self._there(background), self._there(shares)
        self._design: Design | None = None
        self._masks: Any = None

    def base(self) -> NDArray[np.float64]:
        """(outputs,), v of nothing."""
        _, size = _cut(1, len(self._background), self._most)
        total: Any = 0.0
        for a in range(0, len(self._background), size):
            part, count = self._part(a, size)
            total = total + self._shares[a : a + size] @ self._answer(part)[:count]
        found = np.asarray(total.cpu().numpy())
        if not np.isfinite(found).all():
            raise ModelTrouble(
                f"The model gave values that are not finite for rows of the background: {found.tolist()} is their mean. Look at "
                "what the model does with such rows, or leave them out."
            )
        return found

    def worth(
        self, row: NDArray[Any], design: Design, column_of: NDArray[np.int64], base: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """See `coalitions.Game.worth`."""
        import torch

        count, outputs, columns = len(design.masks) + 1, len(base), len(row)
        if self._design is not design:
            everything = np.ones((1, design.features), bool)
            self._design, self._masks = design, self._there(np.concatenate([everything, design.masks]))
        place, mine = self._there(np.maximum(column_of, 0)), self._there(row)
        not_played = self._there(column_of < 0)
        sets, size = _cut(count, len(self._background), self._most)
        worth = torch.zeros(count, outputs, dtype=torch.float64, device=self._device)
        whole: Any = None
        for a in range(0, count, sets):
            real = min(sets, count - a)
            chosen = torch.arange(a, a + sets, device=self._device).clamp(max=count - 1)  # the last one repeats
            take = (self._masks[chosen][:, place] | not_played)[:, None, :] if design.features else None
            for b in range(0, len(self._background), size):
                part, known = self._part(b, size)
                mixed = mine.expand(sets, size, columns) if take is None else torch.where(take, mine, part)
                out = self._answer(mixed.reshape(-1, columns)).reshape(sets, size, outputs)
                if whole is None:
                    whole = out[0, 0].clone()
                worth[a : a + real] += torch.einsum("sbk,b->sk", out[:real, :known], self._shares[b : b + known])
        worth[0] = whole  # the row itself, not its rounded mean over as many copies as there is background
        found = np.asarray(worth.cpu().numpy())
        if not np.isfinite(found).all():
            raise ModelTrouble(
                "The model gave values that are not finite for a row of the data mixed with rows of the background. The row is "
                f"{row[:8].tolist()}{'...' * (columns > 8)}. Look at what the model does with such rows."
            )
        return found

    def _part(self, start: int, size: int) -> tuple[Any, int]:
        """(size rows of the background, how many of them are real): the last one repeats."""
        import torch

        part = self._background[start : start + size]
        if len(part) == size:
            return part, size
        return torch.cat([part, part[-1:].expand(size - len(part), -1)]), len(part)

    def _there(self, values: NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(np.array(values, order="C")).to(self._device)


def _cut(count: int, background: int, most: int) -> tuple[int, int]:
    """(coalitions, background rows) of every call; cut evenly, so that little of the last one is padding."""
    if background <= most:
        calls = -(-count // (most // background))
        return -(-count // calls), background
    return 1, -(-background // -(-background // most))
