"""What a treatment changes: on average, on groups, per row; learnt from rows where some were treated and others not.

Order of work: folds; in each, the outcome of the treated, that of the others and the chance of treatment are learnt from the
other folds (`nuisances`); doubly robust scores of all rows, whose mean is the average effect (`kernels.effects`); the effect per
row by the method asked for, again each row's from other folds, so that ranking by it can be judged (uplift); a projection of the
scores for groups, with its covariance; models of all rows for new ones. Each fit is a task of the run.

That there is no unseen common cause of treatment and outcome is assumed, as always; `refute` tries to break it.
See also: `effects_model`, what comes out; `simulate`, what an intervention would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.twin import features
from millrace.analyses.twin import outcome as outcomes
from millrace.analyses.twin.deadline import whole
from millrace.analyses.twin.effects_model import METHODS, EffectModel, Overlap, load
from millrace.analyses.twin.kernels import effects as kernel
from millrace.analyses.twin.kernels.learners import Growth
from millrace.run.errors import NotSupported, WrongQuestion
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import pyarrow

    from millrace.run.run import Run

__all__ = ["fit_effects", "load"]
Array = numpy.ndarray[Any, Any]

LIMITS = (0.05, 0.95)
"""Between which the chance of treatment is to lie."""
MOST_OUTSIDE = 0.05
"""Share of rows outside the limits that is kept, clipped and said; more is a lack of overlap."""
LEAST_INSIDE = 0.3
"""Share of the rows that a trimmed population must have."""
LEAST_ARM = 50
MOST_COLUMNS, ROWS_A_COLUMN = 60, 25
"""Columns of the projection, at most, and rows that each needs."""
FOLDS_OF_ROWS = 12
BINS = 40

LEARNT = Growth(trees=200, rate=0.06, leaves=None, least_rows=20, bins=127, l2=5.0, patience=20)
"""Of outcomes and chances of treatment. With patience: a tree too many in a small arm is what biases small samples."""
FINAL = Growth(trees=200, rate=0.05, leaves=15, least_rows=50, bins=127, l2=10.0, patience=25)
"""Of the effect per row, from scores that are mostly noise."""


def check(table: pyarrow.Table, treatment: str, outcome: str) -> None:
    """Raise what `fit_effects` would raise of the columns before any model is fitted."""
    features.require(table, [treatment, outcome])
    if treatment == outcome:
        raise WrongQuestion(f"{treatment!r} is both treatment and outcome.")
    t, arms = _treatment(table.column(treatment), treatment)
    y, _, _ = outcomes.target_of(table.column(outcome), outcome)
    used, _ = outcomes.usable(numpy.where(numpy.isnan(t), numpy.nan, y), outcome)
    _arms(t[used], arms, treatment)


def fit_effects(
    run: Run,
    table: pyarrow.Table,
    treatment: str,
    outcome: str,
    *,
    method: str = "dr",
    folds: int = 5,
    overlap: str = "error",
    columns: Sequence[str] | None = None,
) -> EffectModel:
    """Learn the effect of `treatment` (two values; the greater is being treated) on `outcome`, given `columns` (all others).

    method: dr (regression of doubly robust scores), t (difference of two outcome models), x (Künzel et al. 2019); averages are
    doubly robust in all. overlap: "error" refuses data where more than 5 % of rows were nearly always or never treated (a
    chance outside 0.05-0.95), "trim" leaves such rows out and names the population that is left.
    Raises `WrongQuestion` for what cannot be learnt.
    """
    if method not in METHODS:
        raise NotSupported(f"There is no method {method!r} of learning effects; there are {', '.join(METHODS)}.")
    if overlap not in ("error", "trim"):
        raise WrongQuestion(f"overlap={overlap!r}: say 'error' or 'trim'.")
    check(table, treatment, outcome)
    t, arms = _treatment(table.column(treatment), treatment)
    y, kind, labels = outcomes.target_of(table.column(outcome), outcome)
    used, notes = outcomes.usable(numpy.where(numpy.isnan(t), numpy.nan, y), outcome)
    if len(used) < table.num_rows:
        notes = [f"{table.num_rows - len(used):,} rows without {treatment} or {outcome} were left out of the effects."]
        table = table.take(used)
    y, t = y[used], t[used]
    encoding = features.learn(table, [n for n in (columns or table.column_names) if n not in (treatment, outcome)])
    x = features.encode(encoding, table)
    alike = (2 * t + (y if kind == "binary" else 0)).astype(int)
    fold = kernel.folds(alike, folds, run.rng(FOLDS_OF_ROWS))
    stage = _Stage(run, x, y, t, fold, encoding.categorical, kind, folds, method)
    run.progress("effects", 7 * folds + 4)
    propensity = stage.crossfit("propensity")
    inside, seen = _overlap(propensity, t, overlap, stage, encoding.names, treatment)
    if not inside.all():
        stage = stage.only(inside)
        propensity = propensity[inside]
    mu0, mu1 = stage.crossfit("untreated"), stage.crossfit("treated")
    psi = kernel.scores(stage.y, stage.t, mu0, mu1, propensity)
    made = _Effects(stage, mu0, mu1, propensity, psi)
    tau = made.crossfit()
    models = made.models()
    middle = float(tau.mean())
    design = kernel.make_design(stage.x, encoding.categorical, few_values=True)
    most = int(min(MOST_COLUMNS, max(3, len(psi) // ROWS_A_COLUMN)))
    design = kernel.narrowed(design, stage.x, psi, most)
    beta, covariance = kernel.project(psi, design, tau, middle, stage.x)
    if len(psi) < outcomes.FEW_ROWS:
        notes.append(
            f"Only {len(psi):,} rows have treatment and outcome, fewer than {outcomes.FEW_ROWS:,}: intervals of effects are "
            "as wide "
            "as so few rows make them, and what differs between groups is hardly seen."
        )
    ate, att = kernel.average(psi), kernel.on_treated(stage.y, stage.t, mu0, propensity)
    return EffectModel(
        treatment=treatment, outcome=outcome, kind=kind, arms=arms, labels=labels, method=method, encoding=encoding,
        models=models,
        projection={"design": design.plain(), "middle": middle, "beta": beta, "covariance": covariance},
        ate=ate, att=att, spread=float(numpy.sqrt(max(0.0, _signal(psi, tau)))), rows=len(psi), treated=int(stage.t.sum()),
        sds=(_sd(stage.y[stage.t == 0]), _sd(stage.y[stage.t == 1])),
        overlap=seen, uplift={n: numpy.asarray(v) for n, v in kernel.uplift(psi, tau).items()},
        fingerprint=content_key([psi, tau, propensity]), notes=(*notes, *seen.notes()), scores=psi, tau=tau, kept=used[inside],
    )  # fmt: skip


def _treatment(column: Any, name: str) -> tuple[Array, tuple[Any, ...]]:
    """(0 or 1, NaN where missing; the two values)."""
    try:
        t, kind, arms = outcomes.target_of(column, name)
    except NotSupported:
        kind, arms = "number", ()
    except WrongQuestion:
        raise WrongQuestion(
            f"The treatment {name!r} is the same in all rows: there is nothing to compare. Give rows of both kinds."
        ) from None
    if kind != "binary":
        raise NotSupported(
            f"The treatment {name!r} has more than two values: effects are learnt of a treatment that rows have or have not. "
            "Make a "
            "column of one value against another."
        )
    return t, arms


def _arms(t: Array, arms: tuple[Any, ...], name: str) -> None:
    for value, count in zip(arms, (int((t == 0).sum()), int((t == 1).sum())), strict=True):
        if count < LEAST_ARM:
            raise WrongQuestion(
                f"Only {count:,} rows with an outcome have {name} = {outcomes.said(value)}, and {LEAST_ARM} are the least from "
                "which effects can be learnt: give more of them."
            )


def _sd(values: Array) -> float:
    return float(values.std(ddof=1))


def _signal(psi: Array, tau: Array) -> float:
    """Variance of the effect between rows that the learnt one explains: its covariance with the scores."""
    return float(((psi - psi.mean()) * (tau - tau.mean())).mean())


def _overlap(
    propensity: Array, t: Array, wanted: str, stage: _Stage, names: Sequence[str], treatment: str
) -> tuple[Array, Overlap]:
    """(rows that stay, what was seen). `WrongQuestion` when treated and others cannot be compared."""
    low, high = LIMITS
    within = (propensity >= low) & (propensity <= high)
    outside = 1 - float(within.mean())
    edges = numpy.linspace(0, 1, BINS + 1)
    counted = [numpy.histogram(propensity[t == arm], edges)[0].astype(float) for arm in (0, 1)]
    histogram = numpy.stack([c / max(1.0, c.sum()) for c in counted])
    refused = outside > MOST_OUTSIDE and (wanted == "error" or within.mean() < LEAST_INSIDE)
    arms_left = min(int((t[within] == 0).sum()), int((t[within] == 1).sum()))
    if refused or (outside > MOST_OUTSIDE and arms_left < LEAST_ARM):
        deciding = [name for name, share in kernel.importance(stage.text("propensity"), names) if share > 0.1][:3]
        who = stage.deciding(names) or deciding
        advice = (
            "Leave out a column that decides the treatment and does not act on the outcome, give rows where it was not "
            "decided, or "
            "ask with overlap='trim' for the effect on the others."
            if wanted == "error"
            else "Trimming would leave too few: give rows where the treatment was not decided."
        )
        raise WrongQuestion(
            f"{outside:.1%} of the rows were nearly always or nearly never treated (a chance of {treatment} outside "
            f"{low}-{high}, "
            f"given {', '.join(map(repr, who)) or 'the other columns'}): for them there is nobody to compare with. {advice}"
        )
    trimmed = wanted == "trim" and outside > 0
    kept = within if trimmed else numpy.ones(len(t), bool)
    return kept, Overlap(LIMITS, outside, trimmed, len(t), int(kept.sum()), edges, histogram)


# -- stages of fits ----------------------------------------------------------------------------------------------------
class _Stage:
    """Rows that are in every worker's reach, and models of them by fold. Roles: propensity, untreated, treated."""

    def __init__(
        self,
        run: Run,
        x: Array,
        y: Array,
        t: Array,
        fold: Array,
        categorical: tuple[int, ...],
        kind: str,
        folds: int,
        method: str,
    ) -> None:
        self.run, self.x, self.y, self.t, self.fold = run, x, y, t, fold
        self.categorical, self.kind, self.folds, self.method = categorical, kind, folds, method
        self.shared = run.share(x), run.share(y), run.share(t), run.share(fold)
        self._texts: dict[str, str] = {}

    def only(self, rows: Array) -> _Stage:
        """The same of some rows; folds stay."""
        cut = [numpy.ascontiguousarray(a[rows]) for a in (self.x, self.y, self.t, self.fold)]
        return _Stage(self.run, *cut, self.categorical, self.kind, self.folds, self.method)

    def crossfit(self, role: str) -> Array:
        """(n,) predictions of each row by a model of the other folds."""
        tasks = (
            self.run.task(nuisance, f, role, self.kind, list(self.categorical), *self.shared, name=role)
            for f in range(self.folds)
        )
        out = numpy.empty(len(self.y))
        for f, made in enumerate(whole(self.run.values(tasks, True, role), self.folds, role)):
            out[self.fold == f] = made["unseen"]
            self._texts.setdefault(role, made["trees"])
        return out

    def text(self, role: str) -> str:
        return self._texts[role]

    def deciding(self, names: Sequence[str]) -> list[str]:
        """Columns that alone tell most rows' treatment: by how far the arms lie apart, in standard deviations."""
        apart = []
        for j, name in enumerate(names):
            if j in self.categorical:
                continue
            a, b = (self.x[self.t == arm, j] for arm in (0, 1))
            spread = float(numpy.sqrt((numpy.nanvar(a) + numpy.nanvar(b)) / 2))
            distance = abs(float(numpy.nanmean(a) - numpy.nanmean(b))) / max(spread, 1e-12)
            apart.append((distance, name))
        return [name for distance, name in sorted(apart, reverse=True)[:3] if distance > 1]


def nuisance(
    f: int, role: str, kind: str, categorical: list[int], x: Array, y: Array, t: Array, fold: Array
) -> dict[str, Any]:
    """The task of one nuisance in one fold: predictions of the fold's rows by a model of the others."""
    model = _nuisance(f, role, kind, categorical, x, y, t, fold)
    return {"unseen": kernel.predict(model, x[numpy.flatnonzero(numpy.asarray(fold) == f)]), "trees": model["trees"]}


def whole_nuisance(
    role: str, kind: str, categorical: list[int], x: Array, y: Array, t: Array, fold: Array
) -> dict[str, Any]:
    """The task of a model of all rows, for new ones."""
    return _nuisance(-1, role, kind, categorical, x, y, t, fold)


def _nuisance(
    f: int, role: str, kind: str, categorical: list[int], x: Array, y: Array, t: Array, fold: Array
) -> dict[str, Any]:
    others, t, y = numpy.asarray(fold) != f, numpy.asarray(t), numpy.asarray(y)
    if role == "propensity":
        return kernel.train(x, tuple(categorical), t, numpy.flatnonzero(others), "binary", LEARNT, 1)
    arm = 1 if role == "treated" else 0
    return kernel.train(x, tuple(categorical), y, numpy.flatnonzero(others & (t == arm)), kind, LEARNT, 2 + arm)  # type: ignore[arg-type]


class _Effects:
    """The effect per row by the method asked for."""

    def __init__(self, stage: _Stage, mu0: Array, mu1: Array, propensity: Array, psi: Array) -> None:
        self.stage, self.mu0, self.mu1, self.e, self.psi = stage, mu0, mu1, propensity, psi
        run = stage.run
        treated = stage.t == 1
        imputed = numpy.where(treated, stage.y - mu0, mu1 - stage.y)
        self.aims = {"dr": run.share(psi), "x": run.share(imputed)}

    def crossfit(self) -> Array:
        """(n,) the effect of each row by models that have not seen it."""
        if self.stage.method == "t":
            return self.mu1 - self.mu0
        found = {role: self._folds(role) for role in _ROLES[self.stage.method]}
        return combined(self.stage.method, found | {"propensity": self.e})

    def _folds(self, role: str) -> Array:
        s = self.stage
        tasks = (
            s.run.task(final, f, role, list(s.categorical), *self._shared(role), name="effect per row")
            for f in range(s.folds)
        )
        out = numpy.empty(len(s.y))
        for f, made in enumerate(whole(s.run.values(tasks, True, "effect per row"), s.folds, "effect per row")):
            out[s.fold == f] = made
        return out

    def _shared(self, role: str) -> tuple[Any, ...]:
        x, _, t, fold = self.stage.shared
        return x, self.aims["dr" if role == "effect" else "x"], t, fold

    def models(self) -> dict[str, Mapping[str, Any]]:
        """Models of all rows by role: what new rows are asked of."""
        s = self.stage
        nuisances = ["propensity", "untreated"] + (["treated"] if s.method == "t" else [])
        tasks = [
            s.run.task(whole_nuisance, role, s.kind, list(s.categorical), *s.shared, name="models of all rows")
            for role in nuisances
        ]
        ends = list(_ROLES[s.method])
        tasks += [
            s.run.task(whole_final, role, list(s.categorical), *self._shared(role), name="models of all rows")
            for role in ends
        ]
        made = whole(s.run.values(iter(tasks), True, "models of all rows"), len(tasks), "models of all rows")
        return dict(zip(nuisances + ends, made, strict=True))


_ROLES: Mapping[str, tuple[str, ...]] = {"dr": ("effect",), "t": (), "x": ("of_treated", "of_untreated")}


def combined(method: str, found: Mapping[str, Array]) -> Array:
    """The effect per row from predictions by role."""
    if method == "dr":
        return found["effect"]
    if method == "t":
        return found["treated"] - found["untreated"]
    return found["propensity"] * found["of_untreated"] + (1 - found["propensity"]) * found["of_treated"]


def final(f: int, role: str, categorical: list[int], x: Array, aim: Array, t: Array, fold: Array) -> Array:
    """The task of an effect model of one fold: predictions of the fold's rows."""
    model = _final(f, role, categorical, x, aim, t, fold)
    return kernel.predict(model, x[numpy.flatnonzero(numpy.asarray(fold) == f)])


def whole_final(role: str, categorical: list[int], x: Array, aim: Array, t: Array, fold: Array) -> dict[str, Any]:
    """The task of an effect model of all rows."""
    return _final(-1, role, categorical, x, aim, t, fold)


def _final(f: int, role: str, categorical: list[int], x: Array, aim: Array, t: Array, fold: Array) -> dict[str, Any]:
    some, t = numpy.asarray(fold) != f, numpy.asarray(t)
    if role != "effect":
        some = some & (t == (1 if role == "of_treated" else 0))
    return kernel.train(x, tuple(categorical), numpy.asarray(aim), numpy.flatnonzero(some), "number", FINAL, 5)
