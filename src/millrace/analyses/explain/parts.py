"""The tasks of a streamed explanation: a block of a file's rows in, a Parquet part and its sums out.

Each reads its own rows and hands on what one block can say of the whole: sums for importance, the largest gap of
additivity and how gaps are spread, and the rows that pictures are drawn from. The values are those of `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from millrace.analyses.explain.columns import coded
from millrace.analyses.explain.importance import GROUPS
from millrace.analyses.explain.parquet import Place, Reader, Source
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key
from millrace.run.streams import rng
from millrace.run.tables import Rows

LEAST, STEPS, BINS = -70, 16, 16 * 90
"""Gaps are counted by size: STEPS bins to a doubling, from 2^LEAST on; smaller ones in the first, larger in the last."""

Arrays = Mapping[str, Any]
Work = Callable[..., Arrays]


@dataclass(frozen=True, slots=True)
class Form:
    """What parts look like. labels: of the model's codes, by column. family: as in `Facts`: what rows may hold."""

    features: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: Mapping[int, tuple[Any, ...]]
    seed: int
    family: str


def part_of_rows(
    reader: Reader,
    item: tuple[int, Place, tuple[int, ...]],
    *shared: Any,
    source: Source,
    form: Form,
    work: Work,
) -> Arrays:
    """The part of one block. item: its number, its place in the file, and which of its rows are drawn for pictures."""
    number, place, drawn = item
    rows = reader.rows(source, place)
    if rows.categories:
        rows = coded(rows, form.labels)
    _check(rows, place, form)
    try:
        found = work((0, len(rows.values)), rows.values, *shared)
    except WrongQuestion as e:
        group, start, stop = place
        raise WrongQuestion(f"Among rows {start:,} to {stop - 1:,} of row group {group}: {e}") from e
    values, predictions = found["values"], found["predictions"]
    sums, counts = _sums(values, rng(form.seed, 4, number))
    chosen = numpy.asarray(drawn, numpy.int64)
    errors = found.get("errors")
    told = {
        "part": numpy.frombuffer(parquet_bytes(found, form), numpy.uint8),
        "digest": content_key((numpy.asarray(values), () if errors is None else numpy.asarray(errors))),
        "rows": len(values), "sums": sums, "counts": counts, "gap": float(found["gap"].max()),
        "gaps": gap_counts(found["gap"]), "largest": float(numpy.abs(predictions).max()), "expected": found["expected"],
        "values": values[chosen], "data": rows.values[chosen], "predictions": predictions[chosen],
        "exact": bool(found.get("exact", True)),
    }  # fmt: skip
    if errors is not None:
        told |= {"errors": errors[chosen], "worst": errors.max(axis=(1, 2))}
    return told


def _check(rows: Rows, place: Place, form: Form) -> None:
    """As for data in memory: nothing infinite for functions, nothing missing either for linear models."""
    if form.family == "trees":
        return
    bad = numpy.isinf(rows.values) if form.family == "kernel" else ~numpy.isfinite(rows.values)
    if bad.any():
        i, j = numpy.argwhere(bad)[0].tolist()
        group, start, _ = place
        raise WrongQuestion(
            f"The data has {rows.values[i, j]} in row {start + i:,} of row group {group}, column {rows.names[j]!r}, which "
            "the model cannot take: fill it in, or leave the row out."
        )


def _sums(values: Any, draws: numpy.random.Generator) -> tuple[Any, Any]:
    """Sums of |value| (groups, features, outputs) and numbers of rows over random groups."""
    labels = draws.integers(0, GROUPS, len(values))
    order = numpy.argsort(labels, kind="stable")
    present, first = numpy.unique(labels[order], return_index=True)
    sums = numpy.zeros((GROUPS, *values.shape[1:]))
    sums[present] = numpy.add.reduceat(numpy.abs(values, dtype=numpy.float64)[order], first, axis=0)
    return sums, numpy.bincount(labels, minlength=GROUPS).astype(numpy.float64)


def gap_counts(gaps: Any) -> Any:
    """How many gaps are of which size (see BINS)."""
    mantissa, power = numpy.frexp(numpy.maximum(gaps, 2.0**LEAST))
    at = (power - 1 - LEAST) * STEPS + ((mantissa - 0.5) * 2 * STEPS).astype(numpy.int64)
    return numpy.bincount(numpy.clip(at, 0, BINS - 1), minlength=BINS)


def gap_quantile(counts: Any, share: float) -> float:
    """A size that at least this share of the gaps does not exceed, at most one bin too large; 0 where all are zero."""
    at = int(numpy.searchsorted(numpy.cumsum(counts), math.ceil(share * counts.sum())))
    if at == 0:
        return 0.0
    power, step = divmod(at + 1, STEPS)
    return math.ldexp(1.0 + step / STEPS, LEAST + power)


def names_of(form: Form, standard_errors: bool) -> list[str]:
    """The columns of a part: values by feature (and output), base values, predictions, and standard errors of estimates."""
    many = len(form.outputs) > 1
    heads = [f"{f} [{o}]" if many else f for o in form.outputs for f in form.features]
    tails = [f"{t} [{o}]" if many else t for t in ("base value", "prediction") for o in form.outputs]
    errors = [f"standard error of {name}" for name in heads] if standard_errors else []
    return heads + tails + errors


def parquet_bytes(found: Arrays, form: Form) -> Any:
    """One Parquet file with all that was found of a block."""
    import pyarrow
    from pyarrow import parquet

    values, errors, rows = found["values"], found.get("errors"), len(found["values"])
    width = range(len(form.outputs))
    columns = [numpy.ascontiguousarray(values[:, j, k]) for k in width for j in range(len(form.features))]
    columns += [numpy.full(rows, base) for base in numpy.ravel(found["expected"])]
    columns += [numpy.ascontiguousarray(found["predictions"][:, k]) for k in width]
    if errors is not None:
        columns += [numpy.ascontiguousarray(errors[:, j, k]) for k in width for j in range(len(form.features))]
    table = pyarrow.Table.from_arrays([pyarrow.array(c) for c in columns], names=names_of(form, errors is not None))
    del columns
    sink = pyarrow.BufferOutputStream()
    constant = [name for name in table.column_names if name.startswith("base value")]
    # Values hardly repeat: dictionaries would be made in vain, and statistics of every column are nobody's.
    with parquet.ParquetWriter(
        sink, table.schema, compression="zstd", compression_level=1, use_dictionary=constant, write_statistics=False,
        use_byte_stream_split=[n for n in table.column_names if n not in constant],
    ) as writer:  # fmt: skip
        writer.write_table(table)
    return sink.getvalue()
