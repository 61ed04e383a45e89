"""The tasks of refute that have a body for a GPU. Kept apart from `batches`: the keys of the processor's tasks know
nothing of torch, and these do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millrace.analyses.refute import batches
from millrace.analyses.refute.kernels import device_grams, ols
from millrace.analyses.refute.study import Study

Arrays = Mapping[str, Any]


def simulate(
    item: tuple[str, int], study: Arrays, shared: Arrays, estimator: str, target: str, seed: int,
    options: Mapping[str, Any], *, device: str,
) -> Arrays:  # fmt: skip
    """As `batches.simulate`, for the bootstrap and the subset of least squares: Gram matrices of any number of columns up to
    `placing.MOST_COLUMNS`, made on the device in float64."""
    test, first = item
    notes: list[str] = []
    its = batches.options_of(estimator, options) | {"notes": notes, "made": device_grams.DeviceGrams(device)}
    found = ols.simulate(Study.of(study), shared, test, first, seed, target=target, **its)  # type: ignore[arg-type]
    return {"effects": found, "notes": notes}
