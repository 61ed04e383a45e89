"""`twin assess`: how like the real rows a model's twins are, how useful, and how far from single rows.

Every measure is a task: the classifier's folds, utility from twins and from real rows, distances, margins. What needs rows
that the model has not seen is unknown without `holdout`, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy

from millrace.analyses.twin import coverage, describing, source, views
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.deadline import whole
from millrace.analyses.twin.facts import assess_facts
from millrace.analyses.twin.fidelity import Fidelity
from millrace.analyses.twin.generate import Sampler
from millrace.analyses.twin.joint import Joint
from millrace.analyses.twin.kernels import measures
from millrace.analyses.twin.matrices import levels_of, matrix
from millrace.analyses.twin.model import TwinModel, read_model
from millrace.analyses.twin.plan import plan_assess
from millrace.analyses.twin.spec import Assess
from millrace.run.errors import WrongQuestion
from millrace.run.run import Run

TWINS_OF_DISTANCE = 20_000
LEAST_ROWS = 50


def assess(spec: Assess, run: Run) -> Fidelity:
    """All measures of the model's twins beside these real rows."""
    run.progress("reading")
    model = read_model(spec.model)
    real = source.open_source(spec.real, "real rows")
    held = None if spec.holdout is None else source.open_source(spec.holdout, "holdout")
    run.follow(plan_assess(assess_facts(spec, real), run.budget))
    columns = [c for c in model.columns if c.kind != "key"]
    for what, rows in (("real rows", real), ("holdout", held)):
        if rows is not None:
            _comparable(what, rows, columns)
    levels = levels_of(columns, [s for s in (real, held) if s is not None])
    train = matrix(real, columns, levels, spec.rows)
    test = train if held is None else matrix(held, columns, levels, spec.rows)
    made = twins_of(model, max(len(test), min(len(train), TWINS_OF_DISTANCE)), run.seed)
    twins = matrix(source.open_source(made, "twins"), columns, levels, 1 << 60)
    nominal = numpy.array([c.name in levels for c in columns])
    target = _target(spec, model, columns)
    found = _measured(
        run, model, columns, nominal, train, test, twins, held is not None, target, _violations(model, made)
    )
    return found if held is None or model.outcome is None else _covered(found, model, held, spec.rows, run)


def _covered(found: Fidelity, model: TwinModel, held: source.Source, most: int, run: Run) -> Fidelity:
    """With what the intervals of the outcome hold of the rows that it has not seen."""
    measured, note = coverage.of_intervals(model.outcome, held, most)
    if note:
        run.note(note)
    return replace(found, coverage=measured, notes=tuple(run.notes))


def _comparable(what: str, rows: source.Source, columns: Sequence[Column]) -> None:
    """`WrongQuestion` for rows that cannot be compared with the model's twins: a column is not there, or text for numbers."""
    missing = [c.name for c in columns if c.name not in rows.names]
    if missing:
        raise WrongQuestion(
            f"There is no column {missing[0]!r} in the {what}, which the model has. Its columns are "
            f"{', '.join(map(repr, rows.names[:20]))}."
        )
    texts = [c.name for c in columns if c.numeric and describing.is_text(rows.column(c.name))]
    if texts:
        raise WrongQuestion(f"Column {texts[0]!r} holds text in the {what}, where the model has numbers.")
    if rows.rows < LEAST_ROWS:
        raise WrongQuestion(
            f"There are {rows.rows} rows in the {what}, and {LEAST_ROWS} are the least that tell anything."
        )


def twins_of(model: TwinModel, n: int, seed: int) -> Any:
    """n twins, an Arrow table."""
    return Sampler(model).draw(n, seed, models=False)


def _target(spec: Assess, model: TwinModel, columns: Sequence[Column]) -> int | None:
    """Which column is predicted: the one named, the outcome, or none."""
    wanted = spec.target or model.known.get("outcome")
    if wanted is None:
        return None
    names = [c.name for c in columns]
    if wanted not in names:
        raise WrongQuestion(f"target={wanted!r} is no column of the model; it has {', '.join(map(repr, names))}.")
    return names.index(wanted)


def _violations(model: TwinModel, twins: Any) -> dict[str, int]:
    """How many twins break each constraint: of the finished table, as it is."""
    joint = Joint(model.plain)
    n = twins.num_rows
    V, C = numpy.full((len(joint.columns), n), numpy.nan), numpy.zeros((len(joint.columns) + 1, n), numpy.uint8)
    texts: dict[str, Any] = {}
    broken = {}
    for j, c in enumerate(joint.columns):
        data = twins.column(c.name)
        if c.kind == "category":
            places, levels = describing.texts_of(data)
            texts[c.name] = numpy.array([*levels, None], object)[places]
            if not c.pooled:
                C[j] = describing.encode(c, data)[0]
        elif c.kind not in ("key", "constant"):
            V[j] = describing.numbers_of(data, c.name)[0]
            if c.drawn and not c.ranked:
                C[j] = describing.encode_numbers(c, V[j])[0]
            if c.drawn:
                outside = int(((V[j] < c.low) | (V[j] > c.high)).sum())
                if outside:
                    broken[f"{c.low:g} <= {c.name} <= {c.high:g}"] = outside
        elif c.kind == "key":
            repeated = n - len(data.unique())
            if repeated:
                broken[f"{c.name} has one value a row"] = repeated
    for c, rows in joint.rules.broken(V, C, lambda name: texts[name] if name in texts else V[joint.at[name]]):
        broken[c["said"]] = int(rows.sum())
    return broken


def _measured(
    run: Run, model: TwinModel, columns: Sequence[Column], nominal: Any, train: Any, test: Any, twins: Any, unseen: bool,
    target: int | None, violations: Mapping[str, int],
) -> Fidelity:  # fmt: skip
    run.progress("a classifier between them", measures.FOLDS)
    m = min(len(test), len(twins))
    arrays = run.share({"real": test[:m], "twins": twins[:m], "nominal": nominal})
    told = run.map(measures.fold, range(measures.FOLDS), shared=(arrays, run.seed), name="classifier")
    folds = list(whole(told, measures.FOLDS, "the classifier"))
    scores, labels = (numpy.concatenate([f[n] for f in folds]) for n in ("scores", "labels"))
    gains = numpy.sum([f["gains"] for f in folds], 0)
    run.progress("measures")
    all_rows = run.share({"train": train, "test": test, "twins": twins, "nominal": nominal})
    wanted = ["compared", "plane", *(["privacy"] if unseen else []), *(["twins", "real"] if target is not None else [])]
    measuring = run.map(measure, wanted, shared=(all_rows, run.seed, -1 if target is None else target))
    found = dict(zip(wanted, whole(measuring, len(wanted), "measures"), strict=True))
    utility = None
    if target is not None:
        kind, value = found["twins"]
        utility = {"target": columns[target].name, "kind": kind, "twins": value, "real": found["real"][1]}
    compared = found["compared"]
    names = tuple(c.name for c in columns)
    if not unseen:
        run.note("Without a holdout, twins are compared with the rows they were learnt from, and privacy is unknown.")
    fidelity = Fidelity(
        model=model.name, columns=names, rows=len(test), unseen=unseen, shapes=compared["shapes"], trends=compared["trends"],
        c2st=measures.auc(scores, labels), gains=gains, margins=compared["margins"], margins_real=compared.get("margins_real"),
        utility=utility, violations=dict(violations), privacy=found.get("privacy"), pictures={}, notes=tuple(run.notes),
    )  # fmt: skip
    pictures = views.fidelity(fidelity, test[:m], twins[:m], nominal, columns, found["plane"], model.effects)
    return replace(fidelity, pictures=pictures)


def measure(name: str, arrays: Mapping[str, Any], seed: int, target: int) -> Any:
    """One of the measures, as plain values and arrays."""
    train, test, twins, nominal = (numpy.asarray(arrays[n]) for n in ("train", "test", "twins", "nominal"))
    m = min(len(test), len(twins))
    if name == "compared":
        found = {
            "shapes": measures.shapes(test, twins, nominal), "trends": measures.trends(test, twins, nominal),
            "margins": measures.margins(test[:m], twins[:m], nominal, seed),
        }  # fmt: skip
        k = min(len(train), m)
        if train is not test and not numpy.array_equal(train[:k], test[:k]):
            found["margins_real"] = measures.margins(test[:m], train[:k], nominal, seed)
        return found
    if name == "plane":
        return measures.plane(test, twins, nominal)
    if name == "privacy":
        return measures.privacy(train, test, twins, nominal, seed)
    return list(measures.utility(twins if name == "twins" else train, test, target, nominal))
