"""What a worker does of a simulation: a block of twins, who of them is eligible, and the effect on each.

Everything that grows with the twins and not with the question stays in the block, but for one number a twin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from millrace.analyses.twin import effects_model, features, outcome
from millrace.analyses.twin.intervention import Intervention
from millrace.analyses.twin.joint import Joint
from millrace.analyses.twin.tabling import table_of
from millrace.analyses.twin.where import clauses
from millrace.run.errors import WrongQuestion

Array = numpy.ndarray[Any, Any]
FEW_VALUES = 12
MOST_LEVELS = 50


class Held:
    """What a worker keeps warm: the models that it was last asked of."""

    def __init__(self) -> None:
        self.key = ""
        self.joint: Any = None
        self.effects: Any = None
        self.outcome: Any = None

    def of(self, key: str, plain: Mapping[str, Any], effects: Any, outcomes: Any) -> Held:
        if key != self.key:
            self.joint = Joint(plain)
            self.effects = effects_model.of_plain(effects) if effects else None
            self.outcome = outcome.of_plain(outcomes) if outcomes else None
            self.key = key
        return self


def held() -> Held:
    """The factory of that resource."""
    return Held()


def measure(
    warm: Held, item: tuple[int, int], plain: Mapping[str, Any], effects: Any, outcomes: Any, asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Twins of rows [item[0], item[1]), or of that row group of a file: what each intervention does to them.

    asked: model (digest), seed, where, attempts, twins (path or ""), interventions (mappings), groups (see `grouping`).
    """
    models = warm.of(asked["model"], plain, effects, outcomes)
    if asked["twins"]:
        from pyarrow import parquet

        with parquet.ParquetFile(asked["twins"]) as file:
            table = file.read_row_group(item[0])
    else:
        joint = models.joint
        condition = joint.condition(clauses(asked["where"] or None, joint.columns))
        table = table_of(
            joint, joint.draw(numpy.arange(*item), asked["seed"], condition, asked["attempts"]), asked["seed"]
        )
    known = _Known(models, table)
    return [
        of_one(known, Intervention(**one), asked["where"] if asked["twins"] else "", asked["groups"])
        for one in asked["interventions"]
    ]


class _Known:
    """A table, and what models say of it, asked once for all interventions."""

    def __init__(self, models: Held, table: Any) -> None:
        self.models, self.table = models, table
        self.get = getter(table)
        self._effects: Any = None
        self._before: dict[int, Array] = {}

    def effects(self) -> Any:
        if self._effects is None:
            self._effects = self.models.effects.predict(self.table)
        return self._effects

    def before(self, fold: int) -> Array:
        if fold not in self._before:
            m = self.models.outcome
            self._before[fold] = m.predict_matrix(m.matrix(self.table), fold)
        return self._before[fold]


def of_one(
    known: _Known, intervention: Intervention, where: str, groups: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """eligible: numbers of these rows in the block; effect: (eligible,) of taking it up at full intensity; codes: (groups,
    eligible); sums: by group name the sums that its error is made of; outcome: (count, sum, sum of squares) of the eligible."""
    columns, table = known.models.joint.columns, known.table
    rows = eligible(table, known.get, columns, intervention.eligible, where)
    codes = (
        numpy.stack([coded(known.get(g["name"]), g)[rows] for g in groups])
        if groups
        else numpy.zeros((0, len(rows)), int)
    )
    if intervention.effect.source == "learned":
        found = known.effects()
        effect, terms = found.tau[rows], found.basis[rows]
    elif intervention.effect.source == "structural":
        effect, terms = _structural(known, intervention, rows)
    else:
        effect = assumed(intervention, known.get)[rows]
        terms = numpy.zeros((len(rows), 0))
    sums = {"": terms.sum(axis=0)}
    for g, code in zip(groups, codes, strict=True):
        for level in range(len(g["labels"])):
            sums[f"{g['name']}={g['labels'][level]}"] = terms[code == level].sum(axis=0)
    return {"eligible": rows, "effect": effect, "codes": codes.astype(numpy.int16), "sums": sums,
            "outcome": _moments(known, rows), "rows": table.num_rows}  # fmt: skip


def eligible(table: Any, get: Callable[[str], Any], columns: Any, condition: Any, where: str) -> Array:
    """Numbers of the rows that satisfy both."""
    held = numpy.ones(table.num_rows, bool)
    for text, what in ((condition, "eligible"), (where or None, "where")):
        for clause in clauses(text, columns, what):
            held &= clause.holds(get)
    return numpy.flatnonzero(held)


def assumed(intervention: Intervention, get: Callable[[str], Any]) -> Array:
    """(n,) the stated effect of each row."""
    e = intervention.effect
    if e.by is None:
        return numpy.full(len(get(None)), e.middle)
    values = get(e.by)
    out = numpy.full(len(values), e.middle)
    for level, effect in e.levels.items():
        out[_is(values, level)] = effect
    return out


def _is(values: Array, level: Any) -> Array:
    """Which rows have that level, which TOML wrote as a text."""
    if values.dtype.kind != "f":
        return numpy.equal(values, str(level))
    try:
        return numpy.equal(values, float({"true": 1, "false": 0}.get(str(level).lower(), level)))
    except (TypeError, ValueError):
        raise WrongQuestion(f"The level {level!r} is compared with a column of numbers.") from None


def _structural(known: _Known, intervention: Intervention, rows: Array) -> tuple[Array, Array]:
    """(change of the predicted outcome of each row, the same by the models of the folds)."""
    m = known.models.outcome
    x = m.matrix(changed(known.table, intervention))
    folds = range(len(m.by_fold))
    changes = [m.predict_matrix(x, f) - known.before(f) for f in (-1, *folds)]
    return changes[0][rows], numpy.stack(changes[1:], axis=1)[rows]


def changed(table: Any, intervention: Intervention) -> Any:
    """The table with the intervention's columns as it makes them."""
    import pyarrow

    for name, value in intervention.set.items():
        kind = table.schema.field(name).type
        text = features.is_text(table.column(name))
        made = pyarrow.array([str(value)] * table.num_rows) if text else pyarrow.array([value] * table.num_rows).cast(
            pyarrow.float64() if isinstance(value, float) else kind
        )  # fmt: skip
        table = _put(table, name, made)
    for how in ("shift", "scale"):
        for name, by in getattr(intervention, how).items():
            values = features.numbers(table.column(name), name)
            table = _put(table, name, pyarrow.array(values + by if how == "shift" else values * by, from_pandas=True))
    return table


def _put(table: Any, name: str, column: Any) -> Any:
    return table.set_column(table.column_names.index(name), name, column)


def _moments(known: _Known, rows: Array) -> Array:
    """(count, sum, sum of squares) of the outcome, by which an experiment is sized; zeros where there is none."""
    m = known.models.effects or known.models.outcome
    if m is None or m.outcome not in known.table.column_names:
        return numpy.zeros(3)
    y = outcome.as_numbers(known.table.column(m.outcome), m.outcome, m.labels)[rows]
    y = y[~numpy.isnan(y)]
    return numpy.array([len(y), y.sum(), (y**2).sum()])


# -- columns as conditions and groups see them ---------------------------------------------------------------------------
def getter(table: Any) -> Callable[[Any], Any]:
    """`get(name)`: float64 with NaN for missing, or texts with None; of any column for None."""
    import pyarrow

    def get(name: Any) -> Any:
        column = table.column(name if name is not None else 0)
        if features.is_text(column):
            return column.cast(pyarrow.large_string()).to_numpy()
        if pyarrow.types.is_timestamp(column.type):
            return (
                column.cast(pyarrow.timestamp("us"))
                .cast(pyarrow.int64())
                .cast(pyarrow.float64(), safe=False)
                .to_numpy()
            )
        return features.numbers(column, str(name))

    return get


def grouping(name: str, values: Array, labels: Sequence[str]) -> dict[str, Any]:
    """How a column is cut into groups: {"name", "labels"} and "levels" or "edges". A number of many values is cut at its
    quartiles; `labels`: those that the model knows."""
    if values.dtype.kind != "f":
        levels = list(labels) or sorted({v for v in values if v is not None})
        if len(levels) > MOST_LEVELS:
            raise WrongQuestion(
                f"by={name!r} has {len(levels)} groups, more than {MOST_LEVELS}: group by a coarser column."
            )
        return {"name": name, "labels": [str(v) for v in levels], "levels": levels}
    known = values[~numpy.isnan(values)]
    found = numpy.unique(known)
    if len(found) <= FEW_VALUES:
        return {"name": name, "labels": [f"{v:g}" for v in found], "levels": found.tolist()}
    edges = numpy.unique(numpy.quantile(known, [0.25, 0.5, 0.75]))
    bounds = [f"{v:.4g}" for v in edges]
    said = [
        f"below {bounds[0]}",
        *(f"{a} to {b}" for a, b in itertools.pairwise(bounds)),
        f"{bounds[-1]} and more",
    ]
    return {"name": name, "labels": said, "edges": edges.tolist()}


def coded(values: Array, group: Mapping[str, Any]) -> Array:
    """(n,) which of the group's labels a row has; -1 for none of them."""
    if "edges" in group:
        return numpy.where(
            numpy.isnan(values), -1, numpy.searchsorted(numpy.asarray(group["edges"]), values, side="right")
        )
    out = numpy.full(len(values), -1)
    for place, level in enumerate(group["levels"]):
        out[numpy.equal(values, level)] = place
    return out
