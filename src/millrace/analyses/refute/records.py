"""One record per test in the shape that teams keep in their tables: eight fields, plain values.

Nothing is lost: what has no field of its own is in `details`. None is "no such figure".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from millrace.analyses.refute.verdicts import TestResult

FIELDS = (
    "test_name",
    "status",
    "original_effect",
    "refuted_effect",
    "p_value",
    "delta_percent",
    "details",
    "execution_time_ms",
)
IN_DETAILS = (
    "statistic",
    "threshold",
    "simulations",
    "failed_simulations",
    "direction",
    "false_alarm",
    "sentence",
    "reason",
)


def record(result: TestResult, effect: float, time_s: float | None = None) -> dict[str, Any]:
    """effect: the estimate that was tested; time_s: what the test took, None when nobody measured."""
    details = {name: getattr(result, name) for name in IN_DETAILS} | dict(result.details)
    return {
        "test_name": result.name,
        "status": result.status,
        "original_effect": _plain(effect),
        "refuted_effect": _plain(result.refuted_effect),
        "p_value": _plain(result.p_value),
        "delta_percent": _plain(result.delta_percent),
        "details": _plain(details),
        "execution_time_ms": None if time_s is None else 1000 * time_s,
    }


def records(
    results: Sequence[TestResult], effect: float, times_s: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """times_s: by the test's name."""
    return [record(r, effect, (times_s or {}).get(r.name)) for r in results]


def _plain(value: Any) -> Any:
    """As JSON takes it; a figure that is not finite is None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    return value if value is None or isinstance(value, str) else str(value)
