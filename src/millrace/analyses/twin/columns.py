"""A column as a model knows it: its kind, its codes and values, and what Arrow type its twins have.

Every column becomes at most 256 codes, by which trees split; a number with many values has ranks in its sorted values
besides (16 bits), in which twins are drawn. Making one from data is `describing`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

Kind = Literal["category", "boolean", "integer", "number", "date", "key", "constant", "sum"]
CODES = 250
"""Codes of a column at most, missing not counted."""
MISSING_RANK = 65_535
NUMERIC = ("integer", "number", "date")
DRAWN = ("category", "boolean", *NUMERIC)
"""Kinds that the joint distribution has; the others follow from the row's number, or from other columns."""

_NONE: NDArray[numpy.float64] = numpy.zeros(0)


@dataclass(frozen=True)
class Column:
    """kind: "key" is one value a row, "sum" follows from other columns. arrow: Arrow type of its twins, as text. codes: how
    many, without the one for missing, which comes after them. ranked: it has ranks. values: float64, of each code; of each
    rank (sorted) when ranked. labels: of each code of a category. edges: float64 (codes,), the largest value of each code,
    when ranked. spike: bool, by rank, whether so many rows have the value that it stays as it is;
    common: whether so many that twins may have it exactly. first: the first rank of the same value. pooled: labels of
    the last code's members with their shares, when it stands for many. scale: values are multiples of its inverse (100: two
    decimals; 0: any). known: labels and numbers by name that describe the
    column to people (rows, missing, distinct).
    """

    name: str
    kind: Kind
    arrow: str
    codes: int = 0
    missing: bool = False
    ranked: bool = False
    values: NDArray[numpy.float64] = field(default_factory=lambda: _NONE)
    labels: tuple[str, ...] = ()
    edges: NDArray[numpy.float64] = field(default_factory=lambda: _NONE)
    spike: NDArray[numpy.bool_] = field(default_factory=lambda: numpy.zeros(0, numpy.bool_))
    common: NDArray[numpy.bool_] = field(default_factory=lambda: numpy.zeros(0, numpy.bool_))
    first: NDArray[numpy.uint16] = field(default_factory=lambda: numpy.zeros(0, numpy.uint16))
    pooled: tuple[tuple[str, float], ...] = ()
    scale: float = 0.0
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def all_codes(self) -> int:
        return self.codes + self.missing

    @property
    def drawn(self) -> bool:
        return self.kind in DRAWN

    @property
    def nominal(self) -> bool:
        """Its codes have no order."""
        return self.kind == "category"

    @property
    def numeric(self) -> bool:
        return self.kind in NUMERIC

    @property
    def low(self) -> float:
        return float(self.values[0]) if self.values.size else float("nan")

    @property
    def high(self) -> float:
        return float(self.values[-1]) if self.values.size else float("nan")

    def values_text(self, most: int = 6) -> str:
        """The values it may have, for people: some labels, or a range."""
        if self.labels:
            rest = len(self.labels) - most
            return ", ".join(self.labels[:most]) + (f" and {rest:,} more" if rest > 0 else "")
        if not self.values.size or self.kind == "key":
            return ""
        ends = [self._value_text(v) for v in dict.fromkeys((self.low, self.high))]
        return " to ".join(ends)

    def _value_text(self, value: float) -> str:
        if self.kind == "boolean":
            return "true" if value else "false"
        if self.kind == "date" and value == value:  # days, or microseconds of a time
            return str(numpy.datetime64(int(value), "D" if self.arrow.startswith("date") else "us"))
        return f"{value:,.0f}" if value == round(value, 0) or abs(value) >= 1_000 else f"{value:.4g}"

    def described(self) -> dict[str, Any]:
        """In words and plain values."""
        said: dict[str, Any] = {"name": self.name, "kind": self.kind, "type": self.arrow, "missing": self.missing}
        if self.labels:
            said["levels"] = list(self.labels[:20])
        elif self.values.size:
            said |= {"low": self.low, "high": self.high}
        return {**said, **self.known}
