"""From a column of data to what a model knows of it, and from values to codes and ranks.

Kinds are learnt: whole numbers stay whole, truth values and dates stay what they are, text becomes categories. What cannot
be learnt is refused with the reason: text that is nearly all distinct, infinite values, types without an order or a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from millrace.analyses.twin.columns import CODES, MISSING_RANK, Column
from millrace.analyses.twin.features import OTHER
from millrace.run.errors import WrongQuestion

RANKS = MISSING_RANK - 1
EXACT = 2**53
"""Whole numbers up to which a float tells each from the next."""
RARE = {"low": 1, "standard": 5, "high": 20}
"""Fewer rows than this, and a category is pooled with others of its kind under one name."""
MOST_LEVELS = 20_000
"""Levels of text that are pooled; more have nothing that twins could learn."""
DISTINCT = 0.5
"""Share of distinct texts from which on twins would be copies."""
COMMON = {"low": 2, "standard": 5, "high": 20}
"""A number that so many rows have is common, and may be a twin's as it is."""
SPIKE_SHARE = 0.02
"""A value with more than this share of a number's rows stays as it is in a leaf, and does not move along a plane."""
BESIDE, STANDS_OUT = 4, 4.0
"""... when it has so many times the rows of the values on both sides of it."""
TIES = 20_240_602
LEAST_KEY, KEY_SPAN = 50, 1.5
MOST_DECIMALS = 4
ROWS_A_VALUE, FEW_NUMBERS, HEAPED = 20, 32, 0.5
"""A number with decimals has a code for each of its values, and not ranks, when so many rows share one on average, and they are
few, or this share of the rows has values that stand out: such values are names, and do not move along a plane."""
EPOCH_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def numbers_of(column: Any, name: str) -> tuple[NDArray[numpy.float64], str, str]:
    """(float64 values with NaN for missing, kind, Arrow type) of a column that is no text. Dates are days, times microseconds."""
    import pyarrow

    is_, kind = pyarrow.types, column.type
    if is_.is_boolean(kind):
        return _floats(column.cast(pyarrow.int8())), "boolean", "bool"
    if is_.is_date(kind):
        return _floats(column.cast(pyarrow.date32()).cast(pyarrow.int32())), "date", str(kind)
    if is_.is_timestamp(kind):
        micro = pyarrow.timestamp("us", tz=kind.tz)
        return _floats(column.cast(micro, safe=False).cast(pyarrow.int64())), "date", str(kind)
    if is_.is_integer(kind):
        values = _floats(column)
        if len(values) and numpy.nanmax(numpy.abs(values), initial=0.0) > EXACT:
            raise WrongQuestion(
                f"Column {name!r} has whole numbers beyond {EXACT:,}, which cannot be reckoned with exactly: they name rows more "
                f'than they count. Make text of them, leave them out (drop={name!r}), or say kind = "key" in the schema.'
            )
        return values, "integer", str(kind)
    if is_.is_floating(kind) or is_.is_decimal(kind):
        values = _floats(column)
        known = values[~numpy.isnan(values)]
        if numpy.isinf(known).any():
            at = numpy.flatnonzero(numpy.isinf(values))[:10].tolist()
            raise WrongQuestion(
                f"Column {name!r} has infinite values (rows {at}, from 0): make them missing, or leave them out."
            )
        whole = bool(len(known)) and bool((known == numpy.round(known)).all()) and float(numpy.abs(known).max()) < 2**53
        return values, "integer" if whole else "number", "double" if is_.is_decimal(kind) else str(kind)
    if is_.is_null(kind):
        return numpy.full(len(column), numpy.nan), "number", "double"
    raise WrongQuestion(
        f"Column {name!r} holds {kind}, which twins cannot be made of. Leave it out (drop={name!r}), or make numbers, text, "
        "truth values or dates of it."
    )


def _floats(column: Any) -> NDArray[numpy.float64]:
    import pyarrow

    return numpy.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False), numpy.float64)


def is_text(column: Any) -> bool:
    import pyarrow

    is_, kind = pyarrow.types, column.type
    if is_.is_dictionary(kind):
        kind = kind.value_type
    return bool(is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind))


def texts_of(column: Any) -> tuple[NDArray[numpy.int64], list[str]]:
    """(index of each row's text, -1 for missing; the texts) of a column of text or categories."""
    import pyarrow

    if hasattr(column, "num_chunks"):
        column = column.unify_dictionaries() if pyarrow.types.is_dictionary(column.type) else column
        column = column.combine_chunks()
        if hasattr(column, "num_chunks"):
            column = column.chunk(0) if column.num_chunks else pyarrow.array([], column.type)
    if not pyarrow.types.is_dictionary(column.type):
        column = column.cast(pyarrow.large_string()).dictionary_encode()
    places = numpy.asarray(
        column.indices.cast(pyarrow.int64()).fill_null(-1).to_numpy(zero_copy_only=False), numpy.int64
    )
    return places, [str(v) for v in column.dictionary.to_pylist()]


def describe(name: str, column: Any, declared: Mapping[str, Any], privacy: str) -> Column:
    """What a model knows of a column of data (Arrow). declared: `kind`, `pool` of a schema."""
    wanted = declared.get("kind")
    if wanted == "key":
        return _key(name, column)
    if is_text(column) or wanted == "category":
        return _category(name, column, declared, privacy)
    values, kind, arrow = numbers_of(column, name)
    if kind == "integer" and wanted is None and _is_key(values):
        return _key(name, column)
    if wanted in ("integer", "number", "boolean") and wanted != kind:
        if wanted == "integer" and kind == "number":
            raise WrongQuestion(
                f"The schema says that {name!r} is whole numbers, and the data have {_first_odd(values)}."
            )
        kind = wanted
    return number(name, values, kind, arrow, privacy)


def _first_odd(values: NDArray[numpy.float64]) -> str:
    at = numpy.flatnonzero(values != numpy.round(values))[:10]
    return ", ".join(f"{values[i]:g} in row {i}" for i in at if values[i] == values[i])


def _is_key(values: NDArray[numpy.float64]) -> bool:
    """Whole numbers that are all distinct and hardly leave one out: they count rows, and tell nothing else."""
    n = len(values)
    if n < LEAST_KEY or numpy.isnan(values).any() or values.max() - values.min() >= KEY_SPAN * n:
        return False
    return len(numpy.unique(values)) == n


def _key(name: str, column: Any) -> Column:
    arrow = "string" if is_text(column) else str(column.type)
    top = 0.0
    if arrow != "string" and float(numpy.nanmax(numpy.abs(_floats(column)), initial=0.0)) <= EXACT / 2:
        values, _, arrow = numbers_of(column, name)
        top = float(numpy.nanmax(values)) if len(values) else 0.0
    return Column(name, "key", arrow, values=numpy.array([top]), known={"distinct": len(column)})


def _category(name: str, column: Any, declared: Mapping[str, Any], privacy: str) -> Column:
    import pyarrow

    arrow = "string"
    if not is_text(column):
        arrow, column = str(column.type), column.cast(pyarrow.string())
    places, texts = texts_of(column)
    n, missing = len(places), bool((places < 0).any())
    counts = numpy.bincount(places[places >= 0], minlength=len(texts))
    present = int((counts > 0).sum())
    numbers = _rows_of_numbers(texts, counts)
    if (n and present > DISTINCT * n) or present > MOST_LEVELS:
        raise WrongQuestion(
            f"Column {name!r} has {present:,} different texts in {n:,} rows: twins of it would be copies, or noise. "
            + (
                f"In {numbers:,} rows it is a number: mend or empty the others, if it is meant to be one. "
                if numbers
                else ""
            )
            + f"Leave it out "
            f'(drop={name!r}), or say in the schema that it is a key (kind = "key": twins get keys of their own).'
        )
    declared_levels = declared.get("levels")
    order = sorted((i for i in range(len(texts)) if counts[i]), key=lambda i: (-counts[i], texts[i]))
    if present <= 1 and not missing:
        return Column(
            name, "constant", arrow, labels=tuple(texts[i] for i in order) or ("",), known={"distinct": present}
        )
    rare = RARE[privacy]
    kept = [i for i in order if counts[i] >= rare]
    few = [i for i in order if counts[i] < rare]
    if sum(counts[i] for i in few) < rare and len(kept) > 1 and few:
        few.insert(0, kept.pop())  # a pool that is itself rare would tell of them
    pooled: tuple[tuple[str, float], ...] = ()
    if len(kept) + bool(few) > CODES:
        rest = kept[CODES - 1 - bool(few) :]
        kept = kept[: CODES - 1 - bool(few)]
        total = float(sum(counts[i] for i in rest))
        pooled = tuple((texts[i], float(counts[i]) / total) for i in rest)
    labels = [texts[i] for i in kept] + [OTHER] * bool(few) + ["(many)"] * bool(pooled)
    known: dict[str, Any] = {"distinct": present}
    if numbers:
        known["numbers"] = numbers
    if few:
        known["pooled"] = len(few)
        known["pooled_rows"] = int(sum(counts[i] for i in few))
    if declared_levels is not None:
        known["declared"] = list(declared_levels)
    arrow = "string" if few or pooled else arrow
    return Column(name, "category", arrow, len(labels), missing, labels=tuple(labels), pooled=pooled, known=known)


def _rows_of_numbers(texts: list[str], counts: NDArray[Any]) -> int:
    """Rows whose text reads as a number, where most do and some do not; else 0: then it is text, or was called a category."""
    reads = numpy.array([_reads_as_number(text) for text in texts], bool)
    rows = int(counts[reads].sum()) if len(texts) else 0
    return rows if 2 * rows > counts.sum() > rows else 0


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def number(name: str, values: NDArray[numpy.float64], kind: str, arrow: str, privacy: str) -> Column:
    """A column of numbers: codes of its values when they are few, else codes of stretches and ranks."""
    known = numpy.sort(values[~numpy.isnan(values)])
    missing = len(known) < len(values)
    if not len(known):
        return Column(
            name, "constant", arrow, values=numpy.array([numpy.nan]), missing=True, known={"distinct": 0, "of": kind}
        )
    levels, counts = numpy.unique(known, return_counts=True)
    said = {"distinct": len(levels)}
    if len(levels) == 1 and not missing:
        return Column(name, "constant", arrow, values=levels, known={**said, "of": kind})
    few = len(levels) <= FEW_NUMBERS or (len(levels) <= CODES and _heaped(levels, counts, kind))
    if few and (kind in ("boolean", "integer", "date") or len(levels) * ROWS_A_VALUE <= len(known)):
        rare = RARE["high"] if privacy == "high" and kind != "boolean" else 1
        common = counts >= rare
        if common.sum() >= 2:
            levels = levels[common]
        return Column(name, kind, arrow, len(levels), missing, values=levels, known=said)  # type: ignore[arg-type]
    return _ranked(name, known, kind, arrow, missing, said, privacy)


def _ranked(
    name: str, known: NDArray[Any], kind: str, arrow: str, missing: bool, said: dict[str, Any], privacy: str
) -> Column:
    """Ranks in (at most 65,534 of) the sorted values; codes are stretches of about as many rows each."""
    n = len(known)
    held = known if n <= RANKS else known[numpy.round(numpy.linspace(0, n - 1, RANKS)).astype(numpy.int64)]
    edges = numpy.unique(held[numpy.round(numpy.linspace(0, len(held) - 1, CODES + 1)).astype(numpy.int64)[1:]])
    _, at, counts = numpy.unique(held, return_inverse=True, return_counts=True)
    first = numpy.searchsorted(held, held, "left")
    many = numpy.searchsorted(held, held, "right") - first
    common = many * (n / len(held)) >= COMMON[privacy]
    spike = (many > SPIKE_SHARE * len(held)) & common & _lonely(counts)[at]
    return Column(
        name, kind, arrow, len(edges), missing, True, held, edges=edges, spike=spike, common=common,  # type: ignore[arg-type]
        first=first.astype(numpy.uint16), scale=_scale(known, kind), known=said,
    )  # fmt: skip


def _heaped(levels: NDArray[Any], counts: NDArray[Any], kind: str) -> bool:
    """Its values are names more than sizes: no numbers with decimals, or most rows have values that stand out."""
    return kind in ("boolean", "integer", "date") or bool(counts[_lonely(counts)].sum() > HEAPED * counts.sum())


def _lonely(counts: NDArray[Any]) -> NDArray[numpy.bool_]:
    """By value: it has many times the rows of those beside it. Values of a coarse grid all have many, and none stands out."""
    beside = [numpy.pad(counts, BESIDE, mode="edge")[k : k + len(counts)] for k in range(2 * BESIDE + 1) if k != BESIDE]
    return numpy.asarray(counts > STANDS_OUT * numpy.median(beside, 0), numpy.bool_)


def _scale(known: NDArray[Any], kind: str) -> float:
    """Of what all values are multiples: 1 for whole numbers, 100 for two decimals; 0 with more than MOST_DECIMALS."""
    if kind != "number":
        return 1.0
    size = float(numpy.abs(known).max())
    for digits in range(1, MOST_DECIMALS + 1):
        scale = 10.0**digits
        if size * scale > 2**50:
            break
        if numpy.array_equal(numpy.round(known, digits), known):
            return scale
    return 0.0


# -- values as codes -------------------------------------------------------------------------------------------------
def encode(column: Column, data: Any) -> tuple[NDArray[numpy.uint8], NDArray[numpy.uint16] | None]:
    """(codes, ranks of a ranked column) of a column of data (Arrow). A category that is not known is an error that names it."""
    if column.kind == "category":
        return _encode_texts(column, data), None
    values = data if isinstance(data, numpy.ndarray) else numbers_of(data, column.name)[0]
    return encode_numbers(column, values)


def encode_numbers(
    column: Column, values: NDArray[numpy.float64]
) -> tuple[NDArray[numpy.uint8], NDArray[numpy.uint16] | None]:
    absent = numpy.isnan(values)
    if column.ranked:
        ranks = _ranks(column, values)
        codes = codes_of_ranks(column)[ranks]
        ranks[absent] = MISSING_RANK
        codes[absent] = column.codes
        return codes, ranks
    at = numpy.clip(numpy.searchsorted(column.values, values, "left"), 0, column.codes - 1)
    before = numpy.maximum(at - 1, 0)
    nearer = numpy.abs(values - column.values[before]) < numpy.abs(column.values[at] - values)
    codes = numpy.where(nearer, before, at).astype(numpy.uint8)
    codes[absent] = column.codes
    return codes, None


def _ranks(column: Column, values: NDArray[numpy.float64]) -> NDArray[numpy.uint16]:
    """Ranks; those of equal values are spread over the ranks of that value, so that lines do not see steps."""
    last = len(column.values) - 1
    ranks = numpy.minimum(numpy.searchsorted(column.values, values, "left"), last)
    after = numpy.searchsorted(column.values, column.values, "right")
    many = after - numpy.arange(last + 1)  # ranks of the same value, from each on
    alike = numpy.where(column.values[ranks] == values, many[ranks], 1)
    spread = (numpy.random.default_rng(TIES).random(len(values)) * alike).astype(numpy.int64)
    moved = numpy.minimum(ranks + spread, last)
    return numpy.where(column.spike[ranks], ranks, moved).astype(numpy.uint16)


def codes_of_ranks(column: Column) -> NDArray[numpy.uint8]:
    """uint8 (ranks,): the code of each rank."""
    return numpy.minimum(numpy.searchsorted(column.edges, column.values, "left"), column.codes - 1).astype(numpy.uint8)


def _encode_texts(column: Column, data: Any) -> NDArray[numpy.uint8]:
    import pyarrow

    places, texts = texts_of(data if is_text(data) else data.cast(pyarrow.string()))
    at = {label: k for k, label in enumerate(column.labels)}
    many = {label for label, _ in column.pooled}
    other = at.get(OTHER, -1)
    table = numpy.array([at.get(t, column.codes - 1 if t in many else other) for t in texts] or [0], numpy.int64)
    codes = numpy.where(places < 0, column.codes, table[places])
    if (codes < 0).any():
        unknown = sorted({texts[places[i]] for i in numpy.flatnonzero(codes < 0)[:1000]})
        raise WrongQuestion(
            f"Column {column.name!r} has a category that the model has not seen: {', '.join(map(repr, unknown[:5]))}. It knows "
            f"{', '.join(map(repr, column.labels[:8]))}{' ...' if len(column.labels) > 8 else ''}."
        )
    if (places < 0).any() and not column.missing:
        raise WrongQuestion(
            f"Column {column.name!r} lacks values in {int((places < 0).sum())} rows, and had none missing in training."
        )
    return codes.astype(numpy.uint8)
