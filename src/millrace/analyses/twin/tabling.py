"""Drawn rows as an Arrow table with the types that the real data have; and the task that makes a block of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy

from millrace.analyses.twin import raking
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.joint import Condition, Field, Joint
from millrace.analyses.twin.where import clauses

BASELINE, PROPENSITY, EFFECT, WEIGHT = "twin_baseline", "twin_propensity", "twin_effect", "twin_weight"


def arrow_type(text: str) -> Any:
    """The Arrow type that prints as this."""
    import pyarrow

    stamped = re.fullmatch(r"timestamp\[(\w+)(?:, tz=(.+))?\]", text)
    if stamped:
        return pyarrow.timestamp(stamped[1], tz=stamped[2])
    return pyarrow.type_for_alias(text)


def schema_of(columns: Any, more: tuple[str, ...] = ()) -> Any:
    """The types of twins' columns, and of those that models add."""
    import pyarrow

    return pyarrow.schema(
        [*((c.name, arrow_type(c.arrow)) for c in columns), *((name, pyarrow.float64()) for name in more)]
    )


def table_of(joint: Joint, field: Field, seed: int) -> Any:
    """An Arrow table of the rows of `field`."""
    import pyarrow

    arrays = [_array(joint, j, column, field, seed) for j, column in enumerate(joint.columns)]
    return pyarrow.Table.from_arrays(arrays, schema=schema_of(joint.columns))


def _array(joint: Joint, j: int, column: Column, field: Field, seed: int) -> Any:
    import pyarrow

    n, kind = len(field.rows), arrow_type(column.arrow)
    if column.kind == "constant":
        if column.labels:
            return pyarrow.array([column.labels[0]] * n, pyarrow.string()).cast(kind)
        return numbers(numpy.full(n, column.values[0]), kind)
    if column.kind == "key":
        if column.arrow == "string":
            return pyarrow.array([f"{column.name}-{row:09d}" for row in field.rows.tolist()], kind)
        return numbers(column.values[0] + 1.0 + field.rows, kind)
    if column.kind != "category":
        return numbers(field.V[j], kind)
    if column.pooled:
        return pyarrow.array(joint.texts(j, field, seed), kind)
    codes = pyarrow.array(field.C[j].astype(numpy.int16), mask=field.C[j] == column.codes)
    return (
        pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(column.labels, pyarrow.string()))
        .cast(pyarrow.string())
        .cast(kind)
    )


def numbers(values: Any, kind: Any) -> Any:
    """float64 with NaN for missing as an array of that type."""
    import pyarrow

    is_ = pyarrow.types
    absent = numpy.isnan(values)
    mask = absent if absent.any() else None
    if is_.is_floating(kind):
        return pyarrow.array(values.astype(kind.to_pandas_dtype()), mask=mask)
    filled = numpy.where(absent, 0.0, values) if mask is not None else values
    if is_.is_boolean(kind):
        return pyarrow.array(filled != 0, mask=mask)
    whole = filled.astype(numpy.int64)
    if is_.is_date32(kind):
        return pyarrow.array(whole.astype(numpy.int32), pyarrow.int32(), mask=mask).cast(kind)
    if is_.is_date64(kind):
        return pyarrow.array(whole.astype(numpy.int32), pyarrow.int32(), mask=mask).cast(pyarrow.date32()).cast(kind)
    if is_.is_timestamp(kind):
        micro = pyarrow.array(whole, pyarrow.int64(), mask=mask).cast(pyarrow.timestamp("us", tz=kind.tz))
        return micro.cast(kind, safe=False)
    return pyarrow.array(whole, pyarrow.int64(), mask=mask).cast(kind)


class Made:
    """What a worker keeps warm: the joint distribution and the models of what it was last asked."""

    def __init__(self) -> None:
        self.key = ""
        self.joint: Joint | None = None
        self.condition: Condition | None = None
        self.models: tuple[Any, Any] = (None, None)

    def of(self, plain: Mapping[str, Any], beside: Mapping[str, Any], key: str, text: str) -> tuple[Joint, Condition]:
        if self.key != f"{key} {text}" or self.joint is None or self.condition is None:
            self.joint = Joint(plain)
            self.condition = self.joint.condition(clauses(text or None, self.joint.columns))
            self.models = models_of(beside)
            self.key = f"{key} {text}"
        return self.joint, self.condition


def made() -> Made:
    """The factory of that resource."""
    return Made()


def models_of(beside: Mapping[str, Any]) -> tuple[Any, Any]:
    """(outcome model, effect model) of their plain values, None where there is none."""
    from millrace.analyses.twin import effects_model, outcome

    found = beside.get("outcome"), beside.get("effects")
    return (
        None if found[0] is None else outcome.of_plain(found[0]),
        None if found[1] is None else effects_model.of_plain(found[1]),
    )


def told_by(models: tuple[Any, Any]) -> tuple[str, ...]:
    """Columns that models add to twins: the outcome untreated (or as it is predicted), chance and effect of treatment."""
    outcome, effects = models
    if effects is not None:
        return (BASELINE, PROPENSITY, EFFECT)
    return () if outcome is None else (BASELINE,)


def with_models(table: Any, models: tuple[Any, Any]) -> Any:
    """The table with those columns."""
    import pyarrow

    outcome, effects = models
    if effects is not None:
        known = effects.predict(table)
        for name, values in ((BASELINE, known.baseline), (PROPENSITY, known.propensity), (EFFECT, known.tau)):
            table = table.append_column(name, pyarrow.array(numpy.asarray(values, numpy.float64)))
    elif outcome is not None:
        table = table.append_column(BASELINE, pyarrow.array(numpy.asarray(outcome.predict(table), numpy.float64)))
    return table


def block(
    warm: Made, item: tuple[int, int], plain: Mapping[str, Any], beside: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Twins of rows [item[0], item[1]): a table, and how many draws they took."""
    joint, condition = warm.of(plain, beside, asked["model"], asked["where"])
    field = joint.draw(numpy.arange(*item), asked["seed"], condition, asked["attempts"])
    table = with_models(table_of(joint, field, asked["seed"]), warm.models)
    if asked["factors"]:
        import pyarrow

        table = table.append_column(WEIGHT, pyarrow.array(raking.weights_of(asked["factors"], joint.columns, field.C)))
    return {"table": table, "draws": int(field.attempts.sum()) + len(field.rows)}
