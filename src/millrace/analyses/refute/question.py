"""From what the user gave to what is computed: confounders chosen, columns checked, one `Study` per estimate.

An estimate is one outcome under one contrast (a treatment of several labels is compared with its reference, label by
label). Everything that can be wrong with the question is found here, before the work, and every decision that was taken
for the user is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from millrace.analyses.refute import design, drawing, graph
from millrace.analyses.refute.design import Columns, confounders_of, number
from millrace.analyses.refute.spec import Spec
from millrace.analyses.refute.study import Study
from millrace.analyses.refute.words import counted
from millrace.run.errors import MissingExtra, NotSupported, WrongQuestion

Note = Callable[[str], None]
FEW_CLUSTERS = 30
MOST_LEVELS = 12
SMALL, LARGE = 1e-12, 1e15
"""Between which the range of treatment and outcome lies: their squares, summed over rows, are ordinary float32 numbers then."""
FAR = 1e5
"""A value so many times the middle half of the rows away is said."""
ROUNDING = 1e-11
"""Differences below this share of the values are rounding."""
OPTIONS = {
    "ols": ("errors",),
    "ols_interacted": ("errors",),
    "ipw": ("trim",),
    "aipw": ("trim",),
    "matching": ("metric",),
    "dml": ("folds", "fold_seed", "trees", "leaves", "rate", "least_rows", "bins", "linear", "fast"),
}
"""What each estimator can be told."""


@dataclass(frozen=True, slots=True)
class Case:
    """One estimate: `label` names it among several. controls: studies of negative controls by name. groups: for each
    confounder as given, which columns of the study stand for it. block: values of the column that cuts blocks, or None."""

    label: str
    outcome: str
    treatment: str
    study: Study
    names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]
    controls: Mapping[str, Study]
    block: Any
    block_kind: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The question as it will be computed. common_causes: as chosen; why: the decisions in words; table: what a user's own
    estimator is given (columns by name, labels restored), of each case."""

    cases: tuple[Case, ...]
    common_causes: tuple[str, ...]
    why: tuple[str, ...]
    tables: tuple[Mapping[str, Any], ...]


def read(spec: Spec, note: Note) -> Asked:
    """The question, or an error of `run.errors.WrongQuestion`."""
    columns = design.read(spec.data, spec.limit)
    causes, why = _common_causes(spec, columns)
    _check_roles(spec, columns, causes)
    cases, tables = [], []
    for label, wanted, treatment in _contrasts(spec, columns, note):
        for outcome in spec.outcome:
            name = " ".join(filter(None, [outcome if len(spec.outcome) > 1 else "", label]))
            case, table = _case(spec, columns, causes, outcome, name, wanted, treatment, note)
            cases.append(case)
            tables.append(table)
    return Asked(tuple(cases), causes, why, tuple(tables))


# -- which confounders ---------------------------------------------------------------------------------------------
def _common_causes(spec: Spec, columns: Columns) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if spec.graph is None:
        if spec.common_causes is None:
            free = [n for n in columns.names if n not in (spec.treatment, *spec.outcome, spec.weights, spec.clusters)]
            shown = ", ".join(free[:8]) + (" ..." if len(free) > 8 else "")
            raise WrongQuestion(
                f"Which columns cause both treatment and outcome? Give common_causes (of {shown}), or a graph that says so. "
                "Only causes belong there: what the treatment changes must not be adjusted for."
            )
        chosen = tuple(dict.fromkeys((*spec.common_causes, *spec.effect_modifiers)))
        return chosen, (
            f"Adjusted for the {counted(len(chosen), 'common cause')} given." if chosen else "Adjusted for nothing.",
        )
    drawn = drawing.read(spec.graph)
    for outcome in spec.outcome:
        if spec.common_causes is not None:
            graph.check(drawn, spec.treatment, outcome, (*spec.common_causes, *spec.effect_modifiers))
    if spec.common_causes is not None:
        return spec.common_causes, ("Adjusted for the common causes that were given; the graph allows them.",)
    if len(spec.outcome) > 1:
        raise WrongQuestion("A graph chooses the common causes of one outcome: ask for one at a time, or name them.")
    observed = [n for n in drawn.nodes if n in columns.names]
    sets = graph.adjustment_sets(drawn, spec.treatment, spec.outcome[0], observed=observed)
    if spec.adjustment >= len(sets):
        raise WrongQuestion(
            f"The graph has {counted(len(sets), 'minimal adjustment set')}, numbered from 0; {spec.adjustment} is none."
        )
    chosen = sets[spec.adjustment]
    graph.check(drawn, spec.treatment, spec.outcome[0], spec.effect_modifiers, complete=False)
    said = f"Adjusted for {', '.join(chosen) or 'nothing'}: minimal adjustment set {spec.adjustment} of {len(sets)} in the graph"
    return tuple(dict.fromkeys((*chosen, *spec.effect_modifiers))), (said,)


def _check_roles(spec: Spec, columns: Columns, causes: Sequence[str]) -> None:
    """Every column is there, and none has two roles that exclude each other."""
    roles: list[tuple[str, Sequence[str]]] = [
        ("treatment", (spec.treatment,)), ("outcome", spec.outcome), ("common cause", causes),
        ("weights", (spec.weights,) if spec.weights else ()), ("clusters", (spec.clusters,) if spec.clusters else ()),
        ("strata", (spec.strata,) if spec.strata else ()), ("blocks", (spec.blocks,) if spec.blocks else ()),
        ("negative outcome", spec.negative_outcomes), ("negative treatment", spec.negative_treatments),
    ]  # fmt: skip
    for role, names in roles:
        for name in names:
            columns.require(name, role)
    for name in spec.negative_outcomes:
        if name in causes:
            raise WrongQuestion(
                f"{name!r} is a common cause and a negative control: adjusted for, it shows no effect whatever is "
                "the case. Leave it out of one of the two."
            )
    alone = {spec.treatment: "the treatment", **dict.fromkeys(spec.outcome, "the outcome")}
    if spec.treatment in spec.outcome:
        raise WrongQuestion(f"{spec.treatment!r} is named as treatment and as outcome: an effect on itself is 1.")
    for role, names in roles[2:]:
        for name in names:
            if name in alone and not (role in ("strata", "blocks") and name == spec.treatment):
                raise WrongQuestion(
                    f"{name!r} is {alone[name]}, and cannot be among the {role} columns too: leave it out there."
                )


# -- which contrasts -----------------------------------------------------------------------------------------------
def _contrasts(spec: Spec, columns: Columns, note: Note) -> list[tuple[str, Any, Any]]:
    """(label, rows or None for all, treatment) of every contrast; the treatment 0/1 where it has two values."""
    import numpy

    name = spec.treatment
    values, labels = columns.numbers(name), columns.labels(name)
    known = values[numpy.isfinite(values)]
    levels = numpy.unique(known)
    if len(levels) < 2:
        raise WrongQuestion(f"The treatment {name!r} is the same in all rows: there is nothing to compare.")
    shown = [labels[int(v)] for v in levels] if labels is not None else [number(v) for v in levels]
    text = [str(s) for s in shown]
    order = sorted(range(len(levels)), key=lambda k: text[k]) if labels is not None else list(range(len(levels)))
    if spec.reference is not None and spec.reference not in text:
        raise WrongQuestion(
            f"The treatment {name!r} has no value {spec.reference!r}; it has {', '.join(text[:MOST_LEVELS])}."
        )
    if len(levels) > 2 and labels is None and spec.reference is None:
        return [("", None, values)]
    if len(levels) > MOST_LEVELS:
        raise WrongQuestion(
            f"The treatment {name!r} has {len(levels)} labels, and each would be an estimate of its own: {MOST_LEVELS} at most. "
            "Merge some."
        )
    base = text.index(spec.reference) if spec.reference is not None else order[0]
    if len(levels) == 2:
        other = 1 - base
        if labels is not None or list(levels) != [0.0, 1.0] or base != 0:
            note(f"The treatment {name!r} is 1 for {text[other]} and 0 for {text[base]}.")
        return [("", None, numpy.where(numpy.isfinite(values), (values == levels[other]).astype(float), numpy.nan))]
    note(
        f"The treatment {name!r} has {len(levels)} values: each is compared with {text[base]}, p-values are corrected (Holm)."
    )
    made = []
    for k in order:
        if k != base:
            rows = (values == levels[k]) | (values == levels[base])
            made.append((f"{text[k]} against {text[base]}", rows, (values == levels[k]).astype(float)))
    return made


# -- one estimate --------------------------------------------------------------------------------------------------
def _case(
    spec: Spec, columns: Columns, causes: tuple[str, ...], outcome: str, label: str, wanted: Any, treatment: Any, note: Note
) -> tuple[Case, Mapping[str, Any]]:  # fmt: skip
    import numpy

    y = columns.outcome(outcome)
    needed = [name for name in (spec.weights, spec.clusters, spec.strata, spec.blocks) if name]
    kept = numpy.isfinite(treatment) & numpy.isfinite(y) if wanted is None else wanted & numpy.isfinite(y)
    for name in needed:
        kept &= columns.known(name)
    if spec.missing == "complete":
        kept &= columns.complete(causes)
    at = numpy.flatnonzero(kept)
    of = len(kept) if wanted is None else int(wanted.sum())
    if len(at) < of:
        note(f"{of - len(at):,} of {of:,} rows have missing values and were left out ({len(at):,} complete cases).")
    if not len(at):
        raise WrongQuestion(_nothing_left(columns, (outcome, *needed, *causes), label or spec.treatment))
    t, y = treatment[at], y[at]
    whole = len(at) == len(kept)
    if spec.strata:  # what shuffling inside strata keeps has to be adjusted for
        causes = tuple(dict.fromkeys((*causes, spec.strata)))
    names, groups, matrix = confounders_of(
        columns, causes, None if whole else at, spec.missing == "indicator", note, spec.strata
    )
    weights = _weights(columns.numbers(spec.weights)[at], spec.weights) if spec.weights else None
    clusters = _codes(columns.numbers(spec.clusters)[at]) if spec.clusters else None
    strata = _codes(columns.numbers(spec.strata)[at]) if spec.strata else None
    binary = bool(numpy.isin(t, (0.0, 1.0)).all())
    study = Study(t, y, matrix, weights, clusters, strata, binary)
    if study.groups == 1:
        raise WrongQuestion(
            f"All rows are of one cluster of {spec.clusters!r}: there are no others to learn its spread from. Name another "
            "column, or leave clusters out."
        )
    if 0 < study.groups < FEW_CLUSTERS:
        wild = "" if spec.estimator == "ols" else " Least squares (estimator='ols') adds a wild cluster bootstrap."
        note(
            f"{study.groups} clusters are few: cluster-robust errors are too small below about {FEW_CLUSTERS}. "
            f"Read p-values and intervals with that in mind.{wild}"
        )
    _check(study, spec.treatment, outcome, names)
    _far(y, outcome, note)
    if spec.estimator == "ols" and spec.target != "ate":
        note(
            f"Least squares has one effect for everybody: target={spec.target!r} changes overlap's weights, not the estimate."
        )
    _check_estimator(spec, study)
    controls = _controls(spec, columns, study, at, note)
    block = None if spec.blocks is None else columns.shown(spec.blocks, at)
    kind = "order" if spec.blocks is not None and columns.labels(spec.blocks) is None else "groups"
    table = _table(spec, columns, causes, outcome, at, t) if spec.own else {}
    return Case(label, outcome, spec.treatment, study, names, groups, controls, block, kind), table


def _nothing_left(columns: Columns, names: Sequence[str], of: str) -> str:
    import numpy

    empty = [name for name in dict.fromkeys(names) if not numpy.isfinite(columns.numbers(name)).any()]
    why = (
        f"{', '.join(map(repr, empty))} is missing in all of them"
        if empty
        else "each has a missing value in one of its columns"
    )
    return f"No row is left for {of!r}: {why}. Leave it out, or use missing='indicator' for a common cause."


def _far(values: Any, outcome: str, note: Note) -> None:
    """Values that alone decide a mean are said."""
    import numpy

    low, middle, high = numpy.quantile(values, [0.25, 0.5, 0.75])
    away = numpy.abs(values - middle)
    if high > low and away.max() > FAR * (high - low):
        row = int(away.argmax())
        note(
            f"The outcome {outcome!r} has a value of {values[row]:.3g}, {away[row] / (high - low):.1g} times as far out as half "
            "of the rows: it alone decides every mean. Look whether it is right."
        )


def _weights(values: Any, name: str) -> Any:
    if (values < 0).any():
        raise WrongQuestion(
            f"The weights {name!r} are below 0 in {int((values < 0).sum()):,} rows: weights count people."
        )
    if not values.sum() > 0:
        raise WrongQuestion(f"The weights {name!r} are 0 in all rows.")
    return values / values.mean()


def _codes(values: Any) -> Any:
    import numpy

    return numpy.unique(values, return_inverse=True)[1].astype(numpy.int64).reshape(-1)


def _check(study: Study, treatment: str, outcome: str, names: Sequence[str]) -> None:
    import numpy

    n, p = study.rows, len(names)
    if n < 2 * p or n < p + 4:
        raise WrongQuestion(
            f"{n:,} complete rows are too few for {p} columns of confounders: at least {max(2 * p, p + 4):,} are needed. Give "
            "more rows, or fewer common causes."
        )
    for what, name, values in (("treatment", treatment, study.treatment), ("outcome", outcome, study.outcome)):
        spread, largest = float(numpy.ptp(values)), float(numpy.abs(values).max())
        if not spread > 0:
            raise WrongQuestion(f"The {what} {name!r} is the same in all {n:,} rows: there is nothing to compare.")
        if spread <= ROUNDING * largest:
            raise WrongQuestion(
                f"The {what} {name!r} differs between rows by {spread:.3g} at most, beside values of {largest:.3g}: numbers of "
                "16 digits cannot tell such differences from rounding. Subtract what all rows have in common."
            )
        if not SMALL <= spread <= LARGE:
            raise WrongQuestion(
                f"The {what} {name!r} goes up to {largest:.3g} and differs by {spread:.3g}: outside {SMALL:g} to {LARGE:g} "
                "simulations cannot be computed in single precision. Give it in another unit (the effect is then in that unit)."
            )


def _check_estimator(spec: Spec, study: Study) -> None:
    """What an estimator cannot do, before the work."""
    name = spec.estimator
    if spec.own:
        return
    for option in spec.options:
        if option not in OPTIONS[name]:
            raise WrongQuestion(f"The estimator {name!r} has no option {option!r}; it has {', '.join(OPTIONS[name])}.")
    if name == "dml" and find_spec("lightgbm") is None:
        raise MissingExtra("lightgbm", "lightgbm", "The estimator 'dml'")
    if name == "dml" and spec.options.get("fast") not in (None, "multiplier"):
        raise WrongQuestion(
            f"fast={spec.options['fast']!r} is not known; dml has fast='multiplier' (the models of the whole data are kept), "
            "or no `fast` for new models in every simulation."
        )
    if name in ("ipw", "aipw", "matching") and not study.binary:
        raise NotSupported(
            f"The estimator {name!r} needs a binary treatment, and {spec.treatment!r} has more than two values. Use 'ols', "
            "'ols_interacted' or 'dml', or give a reference value to compare with."
        )
    if name == "matching" and study.clusters is not None:
        raise NotSupported(
            "Matching with clusters is not in this release: its errors would be wrong. Use 'ols', 'ipw' or 'aipw'."
        )
    if name == "dml" and spec.target != "ate":
        raise NotSupported(
            "The estimator 'dml' is partially linear: one effect for all (target='ate'). Use 'aipw' for others."
        )
    if spec.placebo == "regenerate" and (study.binary or name not in ("ols", "ols_interacted")):
        raise NotSupported(
            "placebo='regenerate' draws a normal column in place of a continuous treatment, for 'ols' and 'ols_interacted'. "
            "Leave it out: the treatment is then shuffled."
        )
    if name == "ols" and spec.effect_modifiers:
        raise WrongQuestion(
            "The estimator 'ols' has one effect for everybody, so it knows no effect modifiers. Use 'ols_interacted' (the effect "
            "then differs by every confounder, and its mean over the target is the estimate), or leave them out."
        )


def _controls(spec: Spec, columns: Columns, study: Study, at: Any, note: Note) -> dict[str, Study]:
    """The question again, with an outcome that cannot be affected, or a treatment that cannot affect."""
    import numpy

    made = {}
    pairs = [("outcome", name) for name in spec.negative_outcomes]
    pairs += [("treatment", name) for name in spec.negative_treatments]
    for role, name in pairs:
        values = columns.outcome(name)[at]
        rows = numpy.flatnonzero(numpy.isfinite(values))
        if len(rows) < len(values):
            note(
                f"The negative control {name!r} is missing in {len(values) - len(rows):,} rows, which it is tested without."
            )
        control = replace(study, **{role: values}) if len(rows) == len(values) else _taken(study, rows, role, values)
        if role == "treatment":
            control = replace(control, binary=bool(numpy.isin(control.treatment, (0.0, 1.0)).all()))
        if not numpy.ptp(getattr(control, role)) > 0:
            raise WrongQuestion(f"The negative control {name!r} is the same in all rows: it cannot show anything.")
        made[name] = control
    return made


def _taken(study: Study, rows: Any, role: str, values: Any) -> Study:
    parts = {name: array[rows] for name, array in study.arrays().items() if name != "binary"}
    for name in ("clusters", "strata"):
        if name in parts:
            parts[name] = _codes(parts[name])
    return Study(binary=study.binary, **{**parts, role: values[rows]})


def _table(
    spec: Spec, columns: Columns, causes: Sequence[str], outcome: str, at: Any, treatment: Any
) -> dict[str, Any]:
    """What a user's own estimator is given: the columns of the question by their names."""
    extra = [n for n in (spec.weights, spec.clusters) if n]
    made: dict[str, Any] = {spec.treatment: treatment, outcome: columns.outcome(outcome)[at]}
    for name in (*causes, *extra):
        if name not in made:
            if columns.labels(name) is not None:
                raise NotSupported(
                    f"Your own estimator is given numbers, and {name!r} holds text or categories: make columns of 0 and 1 of it."
                )
            made[name] = columns.numbers(name)[at]
    return made
