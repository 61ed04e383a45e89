"""Double machine learning, partially linear: the outcome and the treatment, each less what LightGBM predicts of it from the
confounders, and the slope of the one on the other (Robinson 1988; Chernozhukov et al. 2018, equation 4.4, the partialling-out
score). Predictions are always for rows that the model did not see (cross-fitting).

Folds are fixed by the identity of a row (or cluster), and a resample is weights: the copies of a row are in one fold. Resampling
before the folds are drawn puts copies of a row on both sides and makes the models look better than they are. Feature bins are a
property of the confounders and are made once from all rows. Every simulation fits its models anew, a task of its own
(`simulate_one`); fast="multiplier" keeps the models and perturbs the orthogonal score, which is right in the limit only.

One effect for everybody is assumed: there is no att or atc. See also: `aipw`, for effects that differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from millrace.analyses.refute.kernels.propensity import Array, robust_error, weights_of
from millrace.analyses.refute.kernels.resample import (
    CHUNK,
    Counts,
    chunks,
    column,
    counts,
    normals,
    permuted,
)
from millrace.analyses.refute.study import BATCH, Fit, Resampling, Study, Target
from millrace.run.errors import NotSupported, WrongQuestion

SAMPLED = 50_000
"""Rows from which bins are made: enough for 63 of them, and a copy that is held while they are."""
READ = 16_384
"""Rows that are predicted, or read, at a time."""


@dataclass(frozen=True, slots=True)
class Learner:
    """LightGBM's settings, of both nuisances. Squared error for a binary treatment too: its mean is the probability. linear:
    least squares first, and trees for what it leaves: many weak linear causes are more than a few hundred trees can add up."""

    folds: int = 5
    fold_seed: int = 0
    trees: int = 100
    leaves: int = 31
    rate: float = 0.1
    least_rows: int = 20
    bins: int = 63
    linear: bool = False

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "l2",
            "num_leaves": self.leaves,
            "learning_rate": self.rate,
            "min_data_in_leaf": self.least_rows,
            "max_bin": self.bins,
            "bin_construct_sample_cnt": SAMPLED,
            "num_threads": 1,
            "deterministic": True,
            "force_col_wise": True,
            "seed": 1,
            "verbosity": -1,
        }


def folds_of(n: int, folds: int, seed: int, clusters: Array | None = None) -> Array:
    """uint8 (n,): the fold of each row, from a hash (splitmix64) of its number, or of its cluster's, and the seed."""
    if not 2 <= folds <= 255:
        raise WrongQuestion(f"dml needs between 2 and 255 folds, not {folds}.")
    identity = numpy.arange(n, dtype=numpy.uint64) if clusters is None else clusters.astype(numpy.uint64)
    golden = 0x9E3779B97F4A7C15
    start = numpy.uint64(((seed + 1) * golden * golden) & ((1 << 64) - 1))
    z = (identity + numpy.uint64(1)) * numpy.uint64(golden) + start  # arrays of uint64 wrap around
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> numpy.uint64(shift))) * numpy.uint64(factor)
    z ^= z >> numpy.uint64(31)
    fold = (((z >> numpy.uint64(32)) * numpy.uint64(folds)) >> numpy.uint64(32)).astype(numpy.uint8)
    if len(numpy.unique(fold)) < folds:
        raise WrongQuestion(
            f"dml cannot cut {n} rows (or their clusters) into {folds} folds: one is empty. Ask for fewer folds."
        )
    return fold


class _Rows:
    """Confounders and one more column, read a few rows at a time: never as a second matrix. A `lightgbm.Sequence` by
    registration, since LightGBM is imported where models are fitted only: plans need the arithmetic here, and not the
    80 MB and the second that it takes."""

    def __init__(self, confounders: Array, extra: Array) -> None:
        self._confounders, self._extra, self.batch_size = confounders, extra, READ

    def __getitem__(self, at: Any) -> Array:
        extra = self._extra[at]
        rows = numpy.asarray(self._confounders[at], numpy.float64)
        return numpy.concatenate(
            [rows, numpy.atleast_1d(extra)[..., None] if rows.ndim > 1 else numpy.array([extra])], axis=-1
        )

    def __len__(self) -> int:
        return len(self._extra)


class _Features:
    """Binned confounders (and perhaps one more column) of all rows, and the raw ones to predict from."""

    def __init__(self, confounders: Array, learner: Learner, extra: Array | None = None) -> None:
        import lightgbm

        lightgbm.Sequence.register(_Rows)
        self._confounders, self._extra = numpy.asarray(confounders), extra
        middle = self._confounders.mean(axis=0) if learner.linear else numpy.zeros(0)
        self.middle = middle if extra is None or not learner.linear else numpy.append(middle, extra.mean())
        data = self._confounders if extra is None else _Rows(self._confounders, extra)
        # With free_raw_data=False every subset would copy its raw rows; nothing here asks LightGBM for them.
        self.binned = lightgbm.Dataset(data, numpy.zeros(len(confounders)), params=learner.settings()).construct()

    def parts(self, rows: Array) -> Iterator[tuple[Array, Array]]:
        """(row numbers, raw features) of at most READ rows."""
        for begin in range(0, len(rows), READ):
            at = rows[begin : begin + READ]
            raw = self._confounders[at]
            yield at, raw if self._extra is None else numpy.column_stack([raw, self._extra[at]])


def crossfit(features: _Features, fold: Array, values: Array, weight: Array, learner: Learner) -> Array:
    """(n,) predictions of `values` from models that were fitted on the other folds' rows of positive weight."""
    import lightgbm

    slopes = _slopes(features, fold, values, weight, learner.folds) if learner.linear else None
    out = numpy.empty(len(values))
    for f in range(learner.folds):
        rows, left = numpy.flatnonzero((fold != f) & (weight > 0)), values
        line = numpy.zeros(len(values))
        if slopes is not None:
            for at, raw in features.parts(numpy.arange(len(values))):
                line[at] = slopes[f, 0] + (raw - features.middle) @ slopes[f, 1:]
            left = values - line
        data = features.binned.subset(rows.astype(numpy.int32)).construct()
        data.set_label(left[rows])
        data.set_weight(weight[rows])
        model = lightgbm.train(learner.settings(), data, num_boost_round=learner.trees)
        for at, raw in features.parts(numpy.flatnonzero(fold == f)):
            out[at] = line[at] + model.predict(raw, num_threads=1)
    return out


def _slopes(features: _Features, fold: Array, values: Array, weight: Array, folds: int) -> Array:
    """(folds, 1 + columns): least squares on the rows of the other folds, about `features.middle`, from Gram matrices."""
    columns = len(features.middle) + 2
    sums = numpy.zeros((folds, columns, columns))
    for at, raw in features.parts(numpy.arange(len(values))):
        rows = numpy.column_stack([numpy.ones(len(at)), raw - features.middle, values[at]])
        for f in range(folds):
            some = fold[at] == f
            sums[f] += (rows[some] * weight[at][some][:, None]).T @ rows[some]
    whole, out = sums.sum(axis=0), numpy.empty((folds, columns - 1))
    scale = numpy.sqrt(numpy.maximum(numpy.diag(whole)[:-1], 1e-300))
    for f in range(folds):
        others = whole - sums[f]
        gram = others[:-1, :-1] / numpy.outer(scale, scale)
        out[f] = numpy.linalg.lstsq(gram, others[:-1, -1] / scale, rcond=1e-10)[0] / scale
    return out


def estimate(
    missed_outcome: Array, missed_treatment: Array, weight: Array, clusters: Array | None, copies: Array | None = None
) -> tuple[float, float]:
    """(effect, standard error) from both residuals: weighted slope and the score's sandwich. WrongQuestion when nothing of the
    treatment is left."""
    own = weight if copies is None else weight * copies
    left = float(own @ missed_treatment**2)
    if not left > 1e-10 * float(own.sum()):
        raise WrongQuestion(
            "The confounders predict the treatment without error, so nothing of it is left to compare. Leave out the confounder "
            "that decides the treatment."
        )
    effect = float((own * missed_treatment) @ missed_outcome) / left
    score = weight * missed_treatment * (missed_outcome - effect * missed_treatment) / left
    return effect, robust_error(score, clusters, copies)


def _require(study: Study, target: Target) -> None:
    if target != "ate":
        raise NotSupported(
            f"dml (partially linear) has one effect for everybody, so target={target!r} means nothing for it. Use "
            "estimator='aipw' or 'ipw', or target='ate'."
        )
    if not float(numpy.ptp(study.treatment)) > 0:
        raise WrongQuestion("The treatment is the same in all rows: there is nothing to compare. Choose other rows.")


def fit(study: Study, target: Target = "ate", **options: Any) -> Fit:
    """The cross-fitted estimate; options: the fields of `Learner`. se: sandwich of the orthogonal score, by cluster."""
    _require(study, target)
    options.pop("fast", None)
    learner = Learner(**options)
    return _fitted(study, *_residuals(study, learner), learner)


def fit_prepared(study: Study, shared: Mapping[str, Any], **options: Any) -> Fit:
    """`fit` from the residuals of `prepare`."""
    options.pop("fast", None)
    return _fitted(study, shared["missed_outcome"], shared["missed_treatment"], Learner(**options))


def _fitted(study: Study, missed_outcome: Array, missed_treatment: Array, learner: Learner) -> Fit:
    weight = weights_of(study)
    effect, se = estimate(missed_outcome, missed_treatment, weight, study.clusters)
    details = {
        "folds": learner.folds,
        "outcome_explained": _explained(study.outcome, missed_outcome, weight),
        "treatment_explained": _explained(study.treatment, missed_treatment, weight),
    }
    return Fit(effect, se, float("nan"), study.rows - 1, "orthogonal score", details)


def _explained(values: Array, missed: Array, weight: Array) -> float:
    """Share of the variance that is predicted out of fold; below 0 where the mean predicts better."""
    middle = float(weight @ values) / float(weight.sum())
    return 1 - float(weight @ missed**2) / max(float(weight @ (values - middle) ** 2), 1e-300)


def _residuals(study: Study, learner: Learner) -> tuple[Array, Array]:
    fold = folds_of(study.rows, learner.folds, learner.fold_seed, study.clusters)
    features, weight = _Features(study.confounders, learner), weights_of(study)
    return (
        study.outcome - crossfit(features, fold, study.outcome, weight, learner),
        study.treatment - crossfit(features, fold, study.treatment, weight, learner),
    )


def refit(
    study: Study,
    *,
    counts: Array | None = None,
    treatment: Array | None = None,
    column: Array | None = None,
    target: Target = "ate",
    **options: Any,
) -> tuple[float, float]:
    """(effect, standard error) the plain way: each model's rows are copied out, with the study's bins."""
    import lightgbm

    _require(study, target)
    options.pop("fast", None)
    learner = Learner(**options)
    features = numpy.asarray(study.confounders) if column is None else numpy.column_stack([study.confounders, column])
    bins = lightgbm.Dataset(features, numpy.zeros(study.rows), params=learner.settings()).construct()
    t = study.treatment if treatment is None else treatment
    weight = weights_of(study)
    own = weight if counts is None else weight * counts
    fold = folds_of(study.rows, learner.folds, learner.fold_seed, study.clusters)
    missed = []
    for values in (study.outcome, t):
        left = numpy.empty(study.rows)
        for f in range(learner.folds):
            seen, unseen = (fold != f) & (own > 0), fold == f
            aim = values - _line(features, values, own, seen) if learner.linear else values
            data = lightgbm.Dataset(features[seen], aim[seen], weight=own[seen], reference=bins)
            model = lightgbm.train(learner.settings(), data, num_boost_round=learner.trees)
            left[unseen] = aim[unseen] - model.predict(features[unseen], num_threads=1)
        missed.append(left)
    return estimate(missed[0], missed[1], weight, study.clusters, counts)


def _line(features: Array, values: Array, weight: Array, seen: Array) -> Array:
    """(n,) predictions of least squares on the rows that are seen."""
    design, root = numpy.column_stack([numpy.ones(len(values)), features]), numpy.sqrt(weight[seen])
    return design @ numpy.linalg.lstsq(design[seen] * root[:, None], values[seen] * root, rcond=None)[0]


def prepare(study: Study, target: Target = "ate", **options: Any) -> dict[str, Any]:
    """Residuals of the full fit: (n,) each. What a placebo needs of the outcome, and all that fast="multiplier" needs."""
    _require(study, target)
    options.pop("fast", None)
    missed_outcome, missed_treatment = _residuals(study, Learner(**options))
    return {"missed_outcome": missed_outcome, "missed_treatment": missed_treatment}


def simulate_one(
    study: Study,
    shared: Mapping[str, Any],
    test: Resampling,
    i: int,
    seed: int,
    *,
    target: Target = "ate",
    fraction: float = 0.8,
    precision: str = "fast",
    fast: str | None = None,
    **options: Any,
) -> tuple[float, float]:
    """(effect, standard error) of simulation i with its own models; the same as row i of a batch of `simulate`.

    A placebo keeps the predictions of the outcome: they do not see the treatment, so a new fit would find the same.
    """
    _require(study, target)
    if fast is not None:
        first = i - i % BATCH
        found = simulate(study, shared, test, first, seed, target=target, fraction=fraction, fast=fast, **options)[
            i - first
        ]
        return float(found[0]), float(found[1])
    learner, weight = Learner(**options), weights_of(study)
    fold = folds_of(study.rows, learner.folds, learner.fold_seed, study.clusters)
    copies, t, extra, missed_outcome = None, study.treatment, None, None
    if test in ("bootstrap", "subset"):
        copies = counts(study.rows, test, seed, i, fraction=fraction, clusters=study.clusters)  # type: ignore[arg-type]
    elif test == "placebo":
        t = permuted(t, seed, i, strata=study.strata, clusters=study.clusters)
        missed_outcome = numpy.asarray(shared["missed_outcome"])
    elif test == "random_cause":
        extra = column(study.rows, seed, i)
    else:
        raise _no_test(test)
    own = weight if copies is None else weight * copies
    features = _Features(study.confounders, learner, extra)
    if missed_outcome is None:
        missed_outcome = study.outcome - crossfit(features, fold, study.outcome, own, learner)
    missed_treatment = t - crossfit(features, fold, t, own, learner)
    return estimate(missed_outcome, missed_treatment, weight, study.clusters, copies)


def _no_test(test: str) -> WrongQuestion:
    return WrongQuestion(f"dml has no simulation {test!r}; choose bootstrap, subset, placebo or random_cause.")


def simulate(
    study: Study,
    shared: Mapping[str, Any],
    test: Resampling,
    first: int,
    seed: int,
    *,
    target: Target = "ate",
    fraction: float = 0.8,
    precision: str = "fast",
    fast: str | None = None,
    **options: Any,
) -> Array:
    """float64 (BATCH, 2): effects and standard errors of simulations first .. first + BATCH - 1, with new models in each.

    fast="multiplier": the models of the full fit are kept. bootstrap and subset weight the orthogonal score (Chernozhukov et al.
    2018, section 3: the effect does not depend on the models to first order); a placebo's treatment is centred by its
    mean, or that of the groups inside which it is permuted, which is what a perfect model would predict; a random cause is taken
    out of both residuals by least squares. precision is not used: everything is float64.
    """
    _require(study, target)
    if fast is None:
        numbers = range(first, first + BATCH)
        return numpy.array([simulate_one(study, shared, test, i, seed, fraction=fraction, **options) for i in numbers])
    if fast != "multiplier":
        raise WrongQuestion(
            f"fast={fast!r} is not known; dml has fast='multiplier', or None for new models in every simulation."
        )
    if test in ("bootstrap", "subset"):
        return _perturbed(study, shared, test, first, seed, fraction)
    if test == "placebo":
        return _centred(study, shared, first, seed)
    if test == "random_cause":
        return _projected(study, shared, first, seed)
    raise _no_test(test)


def _perturbed(study: Study, shared: Mapping[str, Any], test: Any, first: int, seed: int, fraction: float) -> Array:
    weight, v, u = weights_of(study), numpy.asarray(shared["missed_treatment"]), numpy.asarray(shared["missed_outcome"])
    drawn = Counts(study.rows, test, seed, first, BATCH, fraction, study.clusters)
    # Around the full estimate, so that float32 products lose nothing: the sums are of what differs from it.
    effect = float((weight * v) @ u) / float(weight @ v**2)
    parts = numpy.stack([weight * v * (u - effect * v), weight * v * v], axis=1)
    scale = numpy.sqrt((parts**2).mean(axis=0))
    narrow = (parts / numpy.where(scale > 0, scale, 1.0)).astype(numpy.float32)
    sums = numpy.zeros((BATCH, 2))
    for k in range(drawn.chunks):
        sums += drawn.chunk(k).astype(numpy.float32) @ narrow[k * CHUNK : (k + 1) * CHUNK]
    sums *= scale
    out = numpy.full((BATCH, 2), numpy.nan)
    out[:, 0] = effect + sums[:, 0] / sums[:, 1]
    return out


def _centred(study: Study, shared: Mapping[str, Any], first: int, seed: int) -> Array:
    weight, u = weights_of(study), numpy.asarray(shared["missed_outcome"])
    groups = _permutation_groups(study)
    size = numpy.bincount(groups, weight)
    out = numpy.empty((BATCH, 2))
    for b in range(BATCH):
        t = permuted(study.treatment, seed, first + b, strata=study.strata, clusters=study.clusters)
        t -= (numpy.bincount(groups, weight * t) / size)[groups]
        out[b] = estimate(u, t, weight, study.clusters)
    return out


def _permutation_groups(study: Study) -> Array:
    """int (n,): rows of one group have the same expected placebo treatment; see `resample.permuted`."""
    return numpy.zeros(study.rows, numpy.int64) if study.strata is None else numpy.asarray(study.strata)


def _projected(study: Study, shared: Mapping[str, Any], first: int, seed: int) -> Array:
    """The slope of u on v given the cause c: from the weighted sums of products of (1, c), v and u."""
    n, weight = study.rows, weights_of(study)
    v, u = numpy.asarray(shared["missed_treatment"]), numpy.asarray(shared["missed_outcome"])
    columns = numpy.stack([weight * v, weight * u, weight], axis=1)
    sums, squares = numpy.zeros((BATCH, 3)), numpy.zeros(BATCH)
    for k in range(chunks(n)):
        at = slice(k * CHUNK, min((k + 1) * CHUNK, n))
        cause = numpy.empty((BATCH, at.stop - at.start))
        normals("random_cause", seed, first, k, cause)
        sums += cause @ columns[at]
        squares += numpy.einsum("bj,bj,j->b", cause, cause, weight[at])
    total = float(weight.sum())
    means = (float(weight @ v) / total, float(weight @ u) / total)
    with_v, with_u = sums[:, 0] - sums[:, 2] * means[0], sums[:, 1] - sums[:, 2] * means[1]
    spread = squares - sums[:, 2] ** 2 / total
    out = numpy.full((BATCH, 2), numpy.nan)
    out[:, 0] = (float((weight * v) @ u) - with_v * with_u / spread) / (float(weight @ v**2) - with_v**2 / spread)
    return out


def memory(n: int, p: int, **options: Any) -> tuple[int, int]:
    """(private peak of `simulate` or `simulate_one`, size of `prepare`'s result), bytes.

    LightGBM: binned confounders, of all rows and of four folds (a byte a value), scores and gradients; one part of raw rows.
    """
    if options.get("fast") is not None:
        return 48 * n + 3 * BATCH * CHUNK * 8 + (4 << 20), 16 * n
    known = {name: value for name, value in options.items() if name in Learner.__dataclass_fields__}
    learner = Learner(**known)
    histograms = learner.leaves * (p + 1) * (learner.bins + 1) * 16
    sample = min(n, SAMPLED) * (p + 1) * 16
    return 2 * n * (p + 1) + 140 * n + sample + READ * (p + 1) * 16 + histograms + (8 << 20), 16 * n
