"""`twin fit`: the joint distribution of all columns, learnt a column at a time; then outcome and effects where they are named.

The order of work: every column described and coded (a task each), constraints found and checked, dependence and the order of
drawing, one task a column for its trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from millrace.analyses.twin import constraints as constraining
from millrace.analyses.twin import describing, matrices, parts, source, views
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.deadline import whole
from millrace.analyses.twin.facts import fit_facts
from millrace.analyses.twin.generate import Sampler
from millrace.analyses.twin.kernels import measures
from millrace.analyses.twin.model import Generator, TwinModel
from millrace.analyses.twin.plan import plan_fit
from millrace.analyses.twin.spec import Fit
from millrace.run.errors import TaskFailed, WrongQuestion
from millrace.run.keys import content_key
from millrace.run.run import Run

LEAST_ROWS = 50
LOOKED_AT = 5_000


@dataclass(frozen=True)
class Learnt:
    """columns: all of them, in the data's order. codes: uint8 (columns, rows); ranks: uint16 (ranked columns, rows); rank_row:
    place in it by column, -1 without. tables: Refs of the raw columns, in the same order. samples: some values by name."""

    columns: tuple[Column, ...]
    codes: Any
    ranks: Any
    rank_row: tuple[int, ...]
    tables: tuple[Any, ...]
    samples: Mapping[str, Any]


def fit(spec: Fit, run: Run) -> TwinModel:
    """The model of these rows. `WrongQuestion` for data that no model can be of, with the column and the rows."""
    run.progress("reading the data")
    schema = source.read_schema(spec.schema)
    data = source.open_source(spec.data, limit=spec.limit)
    names = _names(spec, schema, data)
    run.follow(plan_fit(fit_facts(spec, data, len(names)), run.budget))
    if spec.outcome is not None:
        _check_outcome(spec, data, run)
    learnt = _described(spec, schema, data, names, run)
    _say_columns(learnt.columns, run)
    constraints = _constraints(spec, schema, learnt, run)
    columns = tuple(_as_sum(c, constraints) for c in learnt.columns)
    outcome, effects = _models(
        spec, columns, data, run
    )  # first: a treatment without overlap is said before the long work
    generator = _generator(spec, columns, learnt, constraints, run)
    known = {
        "rows": data.rows, "privacy": spec.privacy, "min_leaf": spec.leaf, "outcome": spec.outcome, "treatment": spec.treatment,
        "schema": schema.name, "data": content_key([t.key for t in learnt.tables]),
        "indexed": [columns[p["column"]].name for p in generator.parts if p["indexed"]],
    }  # fmt: skip
    model = TwinModel(columns, generator, tuple(constraints), known, outcome, effects, notes=tuple(run.notes))
    return replace(model, pictures=_pictures(model, data, run))


def _pictures(model: TwinModel, data: source.Source, run: Run) -> dict[str, Any]:
    """Real rows beside a few twins: what a first look shows. `assess` measures."""
    run.progress("pictures")
    columns = [c for c in model.columns if c.kind != "key"]
    twins = source.open_source(Sampler(model).draw(min(LOOKED_AT, data.rows), run.seed, models=False))
    levels = matrices.levels_of(columns, [data])
    real, made = (matrices.matrix(rows, columns, levels, LOOKED_AT) for rows in (data, twins))
    nominal = numpy.array([c.name in levels for c in columns])
    look = views.Look(measures.shapes(real, made, nominal), measures.trends(real, made, nominal))
    shown = views.both(look, real, made, nominal, columns)
    if model.outcome is None:
        return shown
    from millrace.analyses.twin import outcome_views

    return shown | outcome_views.charts(model.outcome)


# -- outcome and effects ---------------------------------------------------------------------------------------------
def _check_outcome(spec: Fit, data: source.Source, run: Run) -> None:
    """What no outcome model or effect can be of is told before the long work."""
    import pyarrow

    from millrace.analyses.twin import effects, outcome
    from millrace.analyses.twin.kernels import learners

    learners.check(spec.learner)
    named = [n for n in (spec.treatment, spec.outcome) if n is not None]
    table = pyarrow.table({n: data.column(n) for n in named})
    target, _, labels = outcome.target_of(table.column(spec.outcome), spec.outcome)
    outcome.usable(target, spec.outcome)
    outcome.enough_of_both(target, spec.outcome, labels)
    if spec.treatment is not None:
        effects.check(table, spec.treatment, spec.outcome)


def _models(spec: Fit, columns: Sequence[Column], data: source.Source, run: Run) -> tuple[Any, Any]:
    """(outcome model, effect model), each None where nothing is named."""
    if spec.outcome is None:
        return None, None
    import pyarrow

    from millrace.analyses.twin import effects, outcome

    used = [c for c in columns if c.kind not in ("key", "constant")]
    named = (spec.outcome, spec.treatment)
    table = pyarrow.table({c.name: data.column(c.name) if c.name in named else _as_in_twins(c, data) for c in used})
    learnt = None  # first: a treatment without overlap is told before the outcome is learnt
    if spec.treatment is not None:
        learnt = effects.fit_effects(
            run, table, spec.treatment, spec.outcome, method=spec.effect, folds=spec.folds, overlap=spec.overlap
        )
        learnt = replace(learnt, learnt_from=(spec.data, spec.limit))  # a reference, and not a copy, for `refute`
    made = outcome.fit_outcome(run, table, spec.outcome, learner=spec.learner, folds=spec.folds, coverage=spec.coverage)
    for note in (*made.notes, *_no_features(made), *(learnt.notes if learnt is not None else ())):
        run.note(note)
    return made, learnt


def _no_features(made: Any) -> Iterator[str]:
    """Columns that no model learns from, and why; constants are told already."""
    for name, why in made.encoding.left_out.items():
        if "labels" in why:
            yield f"Column {name!r} is in the twins, and neither outcome nor effects are learnt from it: it has {why}."


def _as_in_twins(column: Column, data: source.Source) -> Any:
    """The column as twins have it: what the schema calls a category is text, rare categories are one."""
    values = data.column(column.name)
    if column.kind != "category":
        return values
    import pyarrow

    from millrace.analyses.twin import features

    texts = values if describing.is_text(values) else values.cast(pyarrow.string())
    if not column.known.get("pooled"):
        return texts
    return features.pooled(texts, [*column.labels, *(label for label, _ in column.pooled)])


def _names(spec: Fit, schema: source.Schema, data: source.Source) -> tuple[str, ...]:
    """Columns that are learnt."""
    left_out = {*spec.drop, *schema.dropped}
    for what, given in (
        ("drop", spec.drop), ("outcome", (spec.outcome,)), ("treatment", (spec.treatment,)),
        ("the schema", tuple(schema.columns)),
    ):  # fmt: skip
        missing = [n for n in given if n is not None and n not in data.names]
        dropped = [n for n in given if n in left_out]
        if dropped and what in ("outcome", "treatment"):
            raise WrongQuestion(
                f"{dropped[0]!r} is named as {what}, and left out by drop or the schema: it can only be one."
            )
        if missing:
            raise WrongQuestion(
                f"The data have no column {missing[0]!r}, which {what} names. They have {', '.join(map(repr, data.names[:20]))}."
            )
    names = tuple(n for n in data.names if n not in left_out)
    if not names:
        raise WrongQuestion("Every column is left out: there is nothing to learn.")
    if data.rows < LEAST_ROWS:
        raise WrongQuestion(f"The data have {data.rows} rows; a joint distribution needs {LEAST_ROWS} at least.")
    if data.rows < 4 * spec.leaf:
        raise WrongQuestion(
            f"The data have {data.rows} rows, and a twin's value is drawn among {spec.leaf} at least: that leaves hardly any "
            "dependence. Give more rows, or a smaller min_leaf."
        )
    return names


def _described(spec: Fit, schema: source.Schema, data: source.Source, names: Sequence[str], run: Run) -> Learnt:
    import pyarrow

    run.progress("columns", len(names))
    declared = {n: dict(schema.columns.get(n, {})) for n in names}
    tables: list[Any] = []

    def shared() -> Any:
        for name in names:
            column = data.column(name)
            source.check_schema(schema, name, column)
            tables.append(run.share(pyarrow.table({name: column})))
            yield tables[-1]

    columns, samples, codes, ranks = [], {}, None, []
    each = run.map(parts.describe, shared(), shared=(declared, spec.privacy), keep=True, name="column")
    rank_row = []
    for j, found in enumerate(whole(_told(each), len(names), "columns")):
        made = run.value(found)
        column = parts.column_of(made["column"])
        columns.append(column)
        if codes is None:
            codes = numpy.zeros((len(names), data.rows), numpy.uint8)
        if "codes" in made:
            codes[j] = made["codes"]
        rank_row.append(len(ranks) if "ranks" in made else -1)
        if "ranks" in made:
            ranks.append(made["ranks"])
        if "sample" in made:
            samples[column.name] = numpy.array(made["sample"])
    held = numpy.stack(ranks) if ranks else numpy.zeros((0, data.rows), numpy.uint16)
    return Learnt(tuple(columns), codes, held, tuple(rank_row), tuple(tables), samples)


def _told(values: Iterator[Any]) -> Iterator[Any]:
    """The values; what a task found wrong with the question is told as it was said there."""
    try:
        yield from values
    except TaskFailed as e:
        kind, _, said = e.failure.message.partition(": ")
        if kind == WrongQuestion.__name__:
            raise WrongQuestion(said) from None
        raise


def _say_columns(columns: Sequence[Column], run: Run) -> None:
    for c in columns:
        if c.kind == "constant":
            run.note(f"Column {c.name!r} is constant: every twin has the same value.")
        if c.kind == "key":
            run.note(f"Column {c.name!r} has a value of its own in every row: twins get new ones, not the real ones.")
        if c.known.get("numbers"):
            run.note(
                f"Column {c.name!r} holds text among numbers ({c.known['numbers']:,} rows are numbers): it is a category. Mend "
                "or empty the text, if it is meant to be a number."
            )
        if c.known.get("pooled"):
            run.note(
                f"Column {c.name!r}: {c.known['pooled']} rare categories ({c.known['pooled_rows']:,} rows) are one, "
                f"{describing.OTHER!r}, so that no twin has what few rows have."
            )
        if c.pooled:
            run.note(
                f"Column {c.name!r} has {c.known['distinct']:,} categories: the rarer {len(c.pooled):,} depend on others as one."
            )
    if not any(c.drawn for c in columns):
        raise WrongQuestion("Every column is constant or a key: there is nothing to learn.")


# -- constraints -----------------------------------------------------------------------------------------------------
def _constraints(spec: Fit, schema: source.Schema, learnt: Learnt, run: Run) -> list[dict[str, Any]]:
    run.progress("constraints")
    place = {c.name: j for j, c in enumerate(learnt.columns)}
    kept: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in kept:
            if len(kept) >= 4:
                kept.pop(next(iter(kept)))
            kept[name] = describing.numbers_of(run.value(learnt.tables[place[name]]).column(0), name)[0]
        return kept[name]

    said = constraining.declared([*schema.constraints, *spec.constraints], learnt.columns)
    for c in said:
        if c["kind"] in ("order", "sum"):
            about = (c["low"], c["high"]) if c["kind"] == "order" else (c["column"], *(n for n, _ in c["of"]))

            def shown(i: int, about: Sequence[str] = about) -> str:
                return f"row {i}: " + ", ".join(f"{n} = {get(n)[i]:g}" for n in about)

            constraining.refuse_broken(c, constraining.holds_on(c, get), shown)
        else:
            _check_rule(c, learnt, run, get)
    numbers = {c.name: learnt.samples[c.name] for c in learnt.columns if c.numeric and c.name in learnt.samples}
    told = {c["said"] for c in said}
    if spec.find:
        sums = {c["column"] for c in said if c["kind"] == "sum"}
        for c in constraining.candidate_sums({n: v for n, v in numbers.items() if n not in sums}):
            if not constraining.holds_on(c, get).any():
                said.append(c)
        derived = {c["column"] for c in said if c["kind"] == "sum"}
        free = {n: v for n, v in numbers.items() if n not in derived or derived}
        for low, high in constraining.candidate_orders(free, learnt.codes.shape[1]):
            c = constraining.order_of(low, high)
            if c["said"] not in told and not constraining.holds_on(c, get).any():
                said.append(c)
        said += constraining.candidate_pairs(learnt.codes, learnt.columns, learnt.codes.shape[1])
    ranges = [c for c in learnt.columns if c.name in {s["column"] for s in said if s["kind"] == "sum"}]
    said += [_range(c.name, c.low, c.high) for c in ranges]
    for c in learnt.columns:
        declared = schema.columns.get(c.name, {})
        if c.numeric and c not in ranges and ("low" in declared or "high" in declared):
            ends = (declared.get("low", -numpy.inf), declared.get("high", numpy.inf))
            column = run.value(learnt.tables[place[c.name]]).column(0)
            said.append(_range(c.name, *(source.bound(end, column) for end in ends)))
    return said


def _range(name: str, low: float, high: float) -> dict[str, Any]:
    said = f"{low:g} <= {name} <= {high:g}"
    if numpy.isinf(high) or numpy.isinf(low):
        said = f"{name} >= {low:g}" if numpy.isinf(high) else f"{name} <= {high:g}"
    return {"kind": "range", "column": name, "low": low, "high": high, "said": said}


def _check_rule(c: Mapping[str, Any], learnt: Learnt, run: Run, get: Any) -> None:
    """A declared rule on all real rows."""
    from millrace.analyses.twin import where

    def values(name: str) -> Any:
        column = next(q for q in learnt.columns if q.name == name)
        if column.kind == "category":
            places, texts = describing.texts_of(run.value(learnt.tables[learnt.columns.index(column)]).column(0))
            return numpy.array([*texts, None], object)[places]
        return get(name)

    for clause in where.clauses(c["said"], learnt.columns, "constraint"):
        held, absent = clause.holds(values), numpy.zeros(learnt.codes.shape[1], bool)
        for name in clause.names:
            v = values(name)
            absent |= numpy.equal(v, None) if v.dtype == object else numpy.isnan(v)
        constraining.refuse_broken(
            c,
            ~held & ~absent,
            lambda i: f"row {i}: " + ", ".join(f"{n} = {values(n)[i]}" for n in clause.names),  # noqa: B023
        )


def _as_sum(column: Column, constraints: Sequence[Mapping[str, Any]]) -> Column:
    follows = any(c["kind"] == "sum" and c["column"] == column.name for c in constraints)
    return replace(column, kind="sum", known={**column.known, "of": column.kind}) if follows else column


# -- the joint distribution ------------------------------------------------------------------------------------------
def _generator(
    spec: Fit, columns: Sequence[Column], learnt: Learnt, constraints: Sequence[Mapping[str, Any]], run: Run
) -> Generator:
    frame = run.share({
        "columns": [parts.plain_column(c) for c in columns], "codes": learnt.codes,
        "by_row": numpy.ascontiguousarray(learnt.codes.T), "ranks": learnt.ranks, "rank_row": list(learnt.rank_row),
    })  # fmt: skip
    run.progress("dependence of columns")
    at = {c.name: j for j, c in enumerate(columns) if c.drawn}
    last = [at[n] for n in (spec.treatment, spec.outcome) if n in at]
    asking = run.map(parts.relations, [0], shared=(frame, last), name="dependence")
    (related,) = whole(asking, 1, "dependence of columns")
    order = [int(j) for j in related["order"]]
    run.progress("trees", len(order))
    asked = {"joint": spec.joint, "min_leaf": spec.leaf}
    given = run.share({**related, "order": order})
    # The last places have the most earlier columns: they take longest, and begin first.
    places = list(range(len(order)))[::-1]
    growing = run.map(parts.part, places, shared=(frame, given, asked), keep=True, name="trees")
    found = list(whole(growing, len(places), "trees of columns"))[::-1]
    made = [run.value(f) for f in found]
    generator = Generator(tuple(order), tuple(made), tuple(related["tables"]))
    if spec.joint != "auto":
        return generator
    run.progress("a judge of finished rows", 1)
    plain = run.share(TwinModel(columns, generator, tuple(constraints), {}).plain)
    judging = run.map(parts.judge, [0], shared=(frame, plain, run.seed), keep=True, name="judge")
    (found,) = whole(judging, 1, "the judge")
    return replace(generator, judge=run.value(found))
