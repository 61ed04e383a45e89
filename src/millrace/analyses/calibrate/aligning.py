"""Simulated outputs in the order of the observations: joined on columns, exactly or as of the last output before.

Runs where the simulation ran (with `simulating`), so that kilobytes travel. Knows no losses and imports numpy only; tables of
other libraries are read through Arrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


class WrongOutputs(ValueError):
    """The simulator's outputs are not what a target needs; the message names both."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """What a target takes of the outputs. keys: by column of `on`, the observed values (n,). column, of: simulated columns
    (column None: the target's name, else the only one; of None: not needed). rows: n."""

    name: str
    output: str
    column: str | None
    on: tuple[str, ...]
    asof: bool
    keys: Mapping[str, Any]
    rows: int
    of: str | None = None

    def take(self, outputs: Any) -> Any:
        """float64 (1, n), or (2, n) with the simulated `of` below."""
        columns = self._columns(outputs)
        at = self._places(columns)
        wanted = [self.column or self._own(columns)] + ([self.of] if self.of else [])
        return np.stack([self._numbers(columns, name)[at] for name in wanted])

    def _columns(self, outputs: Any) -> dict[str, Any]:
        if not isinstance(outputs, Mapping):
            kind = f"{type(outputs).__module__}.{type(outputs).__qualname__}"
            raise WrongOutputs(f"the outputs are a {kind}: give a mapping of names to tables or arrays")
        if self.output not in outputs:
            raise WrongOutputs(
                f"the target {self.name!r} needs the output {self.output!r}, and there are {_names(outputs)}"
            )
        columns = columns_of(outputs[self.output], self.output)
        for name in self.on:
            if name not in columns:
                raise WrongOutputs(
                    f"the target {self.name!r} is joined on the column {name!r} of {self.output!r}, which has "
                    f"{_names(columns)}"
                )
        return columns

    def _own(self, columns: Mapping[str, Any]) -> str:
        others = [name for name in columns if name not in self.on]
        if self.name in others:
            return self.name
        if len(others) == 1:
            return others[0]
        raise WrongOutputs(
            f"the target {self.name!r} needs a column of {self.output!r}, which has {_names(columns)}: name it as the "
            "target's `column`"
        )

    def _numbers(self, columns: Mapping[str, Any], name: str) -> Any:
        if name not in columns:
            raise WrongOutputs(
                f"the target {self.name!r} needs the column {name!r} of {self.output!r}, which has {_names(columns)}"
            )
        values = columns[name]
        if values.dtype.kind not in "fiub":
            raise WrongOutputs(f"the column {name!r} of {self.output!r} holds {values.dtype}, not numbers")
        return values.astype(np.float64)

    def _places(self, columns: Mapping[str, Any]) -> Any:
        """Rows of the outputs in the order of the observations."""
        if not self.on:
            lengths = {len(values) for values in columns.values()}
            if lengths != {self.rows}:
                raise WrongOutputs(
                    f"the output {self.output!r} has {sorted(lengths)[-1]} values and the target {self.name!r} "
                    f"{self.rows}: without columns to join on (`on`) they must be as many"
                )
            return slice(None)
        simulated = [_comparable(columns[name]) for name in self.on]
        observed = [_comparable(np.asarray(self.keys[name])) for name in self.on]
        for name, ours, theirs in zip(self.on, observed, simulated, strict=True):
            if (ours.dtype.kind in "US") != (theirs.dtype.kind in "US"):
                raise WrongOutputs(
                    f"the column {name!r} is {ours.dtype} where observed and {theirs.dtype} where simulated: they do not join"
                )
        return self._asof(simulated, observed) if self.asof else self._exact(simulated, observed)

    def _exact(self, simulated: list[Any], observed: list[Any]) -> Any:
        known: dict[Any, int] = {}
        for row, key in enumerate(zip(*(s.tolist() for s in simulated), strict=True)):
            if key in known:
                raise WrongOutputs(
                    f"{self.output!r} has two rows for {self._said(key)}, on which {self.name!r} is joined"
                )
            known[key] = row
        places = np.empty(self.rows, np.intp)
        for i, key in enumerate(zip(*(o.tolist() for o in observed), strict=True)):
            row = known.get(key)
            if row is None:
                raise WrongOutputs(f"{self.output!r} has no row for {self._said(key)}, which {self.name!r} observed")
            places[i] = row
        return places

    def _asof(self, simulated: list[Any], observed: list[Any]) -> Any:
        groups: dict[Any, list[int]] = {}
        *exact, along = [s.tolist() for s in simulated]
        for row, key in enumerate(zip(*exact, strict=True) if exact else [()] * len(along)):
            groups.setdefault(key, []).append(row)
        sorted_of: dict[Any, tuple[Any, Any]] = {}
        places = np.empty(self.rows, np.intp)
        for i, (*key, value) in enumerate(zip(*(o.tolist() for o in observed), strict=True)):
            group = tuple(key)
            if group not in sorted_of:
                rows = np.asarray(groups.get(group, []), np.intp)
                values = np.asarray([along[r] for r in rows])
                order = np.argsort(values, kind="stable")
                sorted_of[group] = values[order], rows[order]
            values, rows = sorted_of[group]
            place = int(np.searchsorted(values, value, side="right")) - 1 if len(rows) else -1
            if place < 0:
                raise WrongOutputs(
                    f"{self.output!r} has no row at or before {self._said((*key, value))}, which {self.name!r} observed"
                )
            places[i] = rows[place]
        return places

    def _said(self, key: tuple[Any, ...]) -> str:
        return ", ".join(f"{name}={value}" for name, value in zip(self.on, key, strict=True))


def columns_of(value: Any, name: str) -> dict[str, Any]:
    """A table or an array as arrays of one dimension by column; a single array has the column `name`."""
    if isinstance(value, Mapping):
        columns = {str(k): np.asarray(v) for k, v in value.items()}
    elif isinstance(value, np.ndarray) and value.dtype.names:
        columns = {field: np.asarray(value[field]) for field in value.dtype.names}
    elif hasattr(value, "__arrow_c_stream__"):
        columns = _from_arrow(value)
    elif hasattr(value, "columns") and hasattr(value, "to_numpy"):  # a data frame of an older pandas
        columns = {str(c): np.asarray(value[c]) for c in value.columns}
    else:
        columns = {name: np.asarray(value)}
    for column, values in columns.items():
        if values.ndim == 0:
            columns[column] = values.reshape(1)
        elif values.ndim > 1:
            raise WrongOutputs(f"{name!r} has an array of {values.ndim} dimensions where one is needed: {column!r}")
    return columns


def _from_arrow(value: Any) -> dict[str, Any]:
    import pyarrow

    table = pyarrow.table(value)
    found = {}
    for name in table.column_names:
        column = table.column(name)
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        values = column.to_numpy()
        found[str(name)] = values.astype(str) if values.dtype.kind == "O" else values
    return found


def _comparable(values: Any) -> Any:
    """Numbers as float64 (5 and 5.0 join), dates as days and fractions, text as text."""
    if values.dtype.kind in "iufb":
        return values.astype(np.float64)
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return values.astype(str)


def _names(named: Mapping[str, Any], most: int = 12) -> str:
    names = [repr(str(n)) for n in named]
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "none"
