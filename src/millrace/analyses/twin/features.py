"""Columns of a table as the matrix that learners are trained on, and the same again for other tables.

Numbers and truth values are floats, dates are days, text is a code of a label; what is missing is NaN. An encoding is learnt
once, from the data that a model is fitted to, and kept with the model: a label that it does not know is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    import pyarrow

Array = numpy.ndarray[Any, Any]

MOST_LABELS = 1_000
"""Labels of a text column that a model may learn from: beyond, it names rows rather than describing them."""
OTHER = "(other)"
"""The label of rare categories, pooled. Where a column has it, a label that is not known is one of them."""
SHOWN = 5
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Encoding:
    """names: columns in order; labels: of text columns, a code each in this order; left_out: columns that are no features, with
    the reason."""

    names: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def categorical(self) -> tuple[int, ...]:
        """Numbers of the columns that hold codes."""
        return tuple(j for j, name in enumerate(self.names) if name in self.labels)

    def as_dict(self) -> dict[str, Any]:
        labels = {name: list(of) for name, of in self.labels.items()}
        return {"names": list(self.names), "labels": labels, "left_out": dict(self.left_out)}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Encoding:
        """From `as_dict`."""
        labels = {name: tuple(of) for name, of in said["labels"].items()}
        return cls(tuple(said["names"]), labels, dict(said["left_out"]))


def as_table(given: Any, what: str = "data", limit: int | None = None) -> pyarrow.Table:
    """A file, a pandas, polars or Arrow table, or a mapping of columns, as an Arrow table. The caller's object stays as it is."""
    import pyarrow

    from millrace.analyses.twin.source import open_source

    if isinstance(given, Mapping):
        try:
            given = pyarrow.table(dict(given))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as e:
            raise WrongQuestion(f"The columns of the {what} are no table: {e}.") from e
    found = open_source(given, what, limit)
    return pyarrow.table({name: found.column(name) for name in found.names})


def require(table: pyarrow.Table, names: Sequence[str], what: str = "data") -> None:
    """`WrongQuestion` when one of these columns is not there."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise WrongQuestion(
            f"The {what} has no column {', '.join(map(repr, missing[:SHOWN]))}. Its columns are "
            f"{', '.join(map(repr, table.column_names[:20]))}: look for a typing error."
        )


def learn(table: pyarrow.Table, names: Sequence[str]) -> Encoding:
    """The encoding of these columns. A constant, and text with more than MOST_LABELS labels, are left out and named."""
    import pyarrow.compute as pc

    require(table, names)
    kept, labels, left_out = [], {}, {}
    for name in names:
        column = table.column(name)
        if _is_text(column.type):
            found = sorted(str(v) for v in pc.unique(_texts(column)).to_pylist() if v is not None)
            if len(found) > MOST_LABELS:
                left_out[name] = f"{len(found):,} labels, more than {MOST_LABELS:,}"
                continue
            if len(found) + (column.null_count > 0) < 2:
                left_out[name] = "the same in all rows"
                continue
            labels[name] = tuple(found)
        else:
            values = numbers(column, name)
            known = values[~numpy.isnan(values)]
            if not len(known) or (len(known) == len(values) and float(numpy.ptp(known)) == 0):
                left_out[name] = "the same in all rows"
                continue
        kept.append(name)
    if not kept:
        raise WrongQuestion("No column is left to learn from: all are the same in all rows, or have too many labels.")
    return Encoding(tuple(kept), labels, left_out)


def encode(encoding: Encoding, table: pyarrow.Table, what: str = "data") -> Array:
    """(rows, columns) float64. `WrongQuestion` for a column that is missing, a label that is new, a value that is infinite."""
    require(table, encoding.names, what)
    out = numpy.empty((table.num_rows, len(encoding.names)))
    for j, name in enumerate(encoding.names):
        column = table.column(name)
        out[:, j] = (
            codes(column, encoding.labels[name], name, what) if name in encoding.labels else numbers(column, name)
        )
    return out


def codes(column: Any, labels: Sequence[str], name: str, what: str = "data") -> Array:
    """(rows,) codes of the labels, NaN where missing."""
    import pyarrow
    import pyarrow.compute as pc

    texts = _texts(column)
    if OTHER in labels:
        texts = pooled(texts, labels)
    at = pc.index_in(texts, value_set=pyarrow.array(list(labels), pyarrow.large_string()))
    found = at.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
    unseen = numpy.isnan(found) & ~pc.is_null(texts).to_numpy(zero_copy_only=False)
    if unseen.any():
        odd = sorted(set(texts.filter(pyarrow.array(unseen)).to_pylist()))
        raise WrongQuestion(
            f"Column {name!r} of the {what} has {int(unseen.sum()):,} rows with labels that the model has not seen: "
            f"{', '.join(map(repr, odd[:SHOWN]))}. It knows {', '.join(map(repr, list(labels)[:20]))}: rename them, or fit the "
            "model to data that have them."
        )
    return numpy.asarray(found)


def pooled(column: Any, labels: Sequence[str]) -> Any:
    """The texts, and OTHER for those that are none of the labels: the rare ones, which twins do not have either."""
    import pyarrow
    import pyarrow.compute as pc

    texts = _texts(column)
    known = pc.is_in(texts, value_set=pyarrow.array(list(labels), pyarrow.large_string()))
    return pc.if_else(pc.or_(known, pc.is_null(texts)), texts, pyarrow.scalar(OTHER, pyarrow.large_string()))


def numbers(column: Any, name: str) -> Array:
    """(rows,) float64, NaN where missing; dates as days since 1970."""
    import pyarrow
    import pyarrow.compute as pc

    is_, kind = pyarrow.types, column.type
    if is_.is_temporal(kind) and not is_.is_date32(kind):
        column = column.cast(pyarrow.timestamp("ns")).cast(pyarrow.int64())
        values = numpy.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy(), numpy.float64) / DAY_NS
    elif is_.is_date32(kind):
        values = numpy.asarray(column.cast(pyarrow.int32()).cast(pyarrow.float64()).to_numpy(), numpy.float64)
    elif (
        is_.is_integer(kind)
        or is_.is_floating(kind)
        or is_.is_boolean(kind)
        or is_.is_null(kind)
        or is_.is_decimal(kind)
    ):
        values = numpy.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy(), numpy.float64)
    elif _is_text(kind):
        said = pc.unique(_texts(column)).to_pylist()[:SHOWN]
        raise WrongQuestion(f"Column {name!r} holds text ({', '.join(map(repr, said))}) where the model has numbers.")
    else:
        raise WrongQuestion(f"Column {name!r} holds {kind}: give numbers, truth values, dates or text.")
    infinite = int(numpy.isinf(values).sum())
    if infinite:
        first = numpy.flatnonzero(numpy.isinf(values))[:SHOWN].tolist()
        raise WrongQuestion(
            f"Column {name!r} has infinite values in {infinite:,} rows (from 0: {', '.join(map(str, first))}): make them "
            "missing, or leave these rows out."
        )
    return values


def is_text(column: Any) -> bool:
    return _is_text(column.type)


def _is_text(kind: Any) -> bool:
    import pyarrow

    is_ = pyarrow.types
    if is_.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind))


def _texts(column: Any) -> Any:
    """A text column as one chunk of large strings."""
    import pyarrow

    column = column.cast(pyarrow.large_string())
    return column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
