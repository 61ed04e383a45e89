"""What a deadline leaves of a question of twin: nothing of a model or a measurement, the first twins of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from millrace.run.errors import AnalysisFailed


def whole(values: Iterable[Any], count: int, what: str) -> Iterator[Any]:
    """The values of `count` tasks; `AnalysisFailed` when a deadline ended them before. A half-learnt model is no model."""
    came = 0
    for value in values:
        came += 1
        yield value
    if came < count:
        raise AnalysisFailed(
            f"The deadline came after {came:,} of {count:,} tasks ({what}), and a part is not given in place of the whole. What "
            "is finished is kept where there is a store: ask the same again to go on, or give more time; with fit, the largest "
            "question that fits is taken."
        )
