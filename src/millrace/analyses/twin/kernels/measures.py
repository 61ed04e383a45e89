"""Measures of twins beside real rows: shape, trend, margins, a classifier between them, utility, distances.

All take float64 matrices (rows, columns), categories as codes, missing as NaN; `nominal` says which columns are categories.
Shape is 1 - Kolmogorov-Smirnov or total variation; trend 1 - |difference of correlations| / 2 or total variation of pairs
(as SDMetrics has them). Membership is DOMIAS' question (van Breugel et al. 2023) answered with nearest distances: is a row
nearer to the twins than to rows of the same kind that no model has seen?
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy
from numba import njit

TREES, LEAVES, RATE, FOLDS = 200, 31, 0.1, 5
LEARNER = {
    "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": 7,
}  # fmt: skip
BINS = 10
TRIPLES, MARGIN_BINS = 60, 6
NEAR, NEAR_AMONG = 3_000, 20_000


def shapes(real: Any, twins: Any, nominal: Any) -> Any:
    """float64 (columns,): 1 when a column's distribution is the same, missing values included."""
    found = []
    for j in range(real.shape[1]):
        a, b = real[:, j], twins[:, j]
        absent = abs(float(numpy.isnan(a).mean()) - float(numpy.isnan(b).mean()))
        a, b = a[~numpy.isnan(a)], b[~numpy.isnan(b)]
        if not len(a) or not len(b):
            found.append(1.0 - absent)
        elif nominal[j]:
            found.append(1.0 - max(_variation(_counts(a), _counts(b)), absent))
        else:
            both = numpy.sort(numpy.concatenate([a, b]))
            x = numpy.searchsorted(numpy.sort(a), both, "right") / len(a)
            y = numpy.searchsorted(numpy.sort(b), both, "right") / len(b)
            found.append(1.0 - max(float(numpy.abs(x - y).max()), absent))
    return numpy.array(found)


def _counts(codes: Any) -> Any:
    return numpy.bincount(codes.astype(numpy.int64))


def _variation(a: Any, b: Any) -> float:
    """Total variation of two arrays of counts."""
    size = max(a.size, b.size)
    p, q = (numpy.pad(v.ravel(), (0, size - v.size)) / max(1, v.sum()) for v in (a, b))
    return float(numpy.abs(p - q).sum() / 2)


def trends(real: Any, twins: Any, nominal: Any) -> Any:
    """float64 (columns, columns): 1 where the dependence of a pair is the same."""
    d = real.shape[1]
    found = numpy.ones((d, d))
    A, B = correlations(real), correlations(twins)
    cuts = [_cuts(real[:, j], nominal[j]) for j in range(d)]
    P, Q = (numpy.stack([_binned(m[:, j], cuts[j]) for j in range(d)], 1) for m in (real, twins))
    for a, b in itertools.combinations(range(d), 2):
        if not nominal[a] and not nominal[b]:
            found[a, b] = 1.0 - abs(A[a, b] - B[a, b]) / 2
        else:
            size = int(max(P[:, b].max(), Q[:, b].max())) + 1
            found[a, b] = 1.0 - _variation(*(numpy.bincount(m[:, a] * size + m[:, b]) for m in (P, Q)))
        found[b, a] = found[a, b]
    return found


def correlations(X: Any) -> Any:
    """Pearson, pairs of known values; 0 where a column does not vary."""
    absent = numpy.isnan(X)
    Z = X - numpy.where(absent.all(0), 0.0, numpy.nansum(X, 0) / numpy.maximum(1, (~absent).sum(0)))
    Z = numpy.where(absent, 0.0, Z)
    known = (~absent).astype(float)
    covariance = (Z.T @ Z) / numpy.maximum(1.0, known.T @ known)
    spread = numpy.sqrt(numpy.diag(covariance))
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.nan_to_num(covariance / numpy.outer(spread, spread))


def _cuts(values: Any, nominal: bool) -> Any:
    """Where a column of numbers is cut into BINS; None for categories."""
    if nominal:
        return None
    known = values[~numpy.isnan(values)]
    return numpy.unique(numpy.quantile(known, numpy.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else numpy.zeros(0)


def _binned(values: Any, cuts: Any) -> Any:
    """int64: 0 is missing."""
    absent = numpy.isnan(values)
    placed = numpy.nan_to_num(values) if cuts is None else numpy.searchsorted(cuts, values, "right")
    return numpy.where(absent, 0, placed.astype(numpy.int64) + 1)


def margins(real: Any, twins: Any, nominal: Any, seed: int, ways: int = 3) -> float:
    """Mean of 1 - total variation over random sets of `ways` columns, in at most MARGIN_BINS parts each."""
    d = real.shape[1]
    rng = numpy.random.default_rng(seed)
    sets = list(itertools.combinations(range(d), min(ways, d)))
    if len(sets) > TRIPLES:
        sets = [sets[i] for i in numpy.sort(rng.choice(len(sets), TRIPLES, replace=False))]
    P, Q = (numpy.zeros(m.shape, numpy.int64) for m in (real, twins))
    for j in range(d):
        if nominal[j]:
            common = numpy.argsort(-_counts(real[~numpy.isnan(real[:, j]), j]), kind="stable")[: MARGIN_BINS - 1]
            table = {int(c): k + 1 for k, c in enumerate(common)}
            for m, into in ((real, P), (twins, Q)):
                into[:, j] = [0 if v != v else table.get(int(v), MARGIN_BINS) for v in m[:, j].tolist()]
        else:
            cuts = _cuts(real[:, j], False)[1::2]
            P[:, j], Q[:, j] = _binned(real[:, j], cuts), _binned(twins[:, j], cuts)
    base = MARGIN_BINS + 2
    found = []
    for some in sets:
        a, b = (sum(m[:, j] * base**k for k, j in enumerate(some)) for m in (P, Q))
        found.append(1.0 - _variation(numpy.bincount(a), numpy.bincount(b)))
    return float(numpy.mean(found))


# -- a classifier between them ---------------------------------------------------------------------------------------
def fold(item: int, arrays: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One of FOLDS folds of the test: scores and labels of its rows, and what each column gave the classifier."""
    import lightgbm

    real, twins = arrays["real"], arrays["twins"]
    m = min(len(real), len(twins))
    rng = numpy.random.default_rng([seed, 11])
    X = numpy.vstack([real[:m], twins[:m]])
    y = numpy.repeat([0.0, 1.0], m)
    # folds that hold equal numbers of both
    at = numpy.concatenate([rng.permutation(m) % FOLDS, rng.permutation(m) % FOLDS])
    cats = numpy.flatnonzero(arrays["nominal"]).tolist()
    data = lightgbm.Dataset(
        X[at != item], y[at != item], categorical_feature=cats, params={"verbosity": -1}, free_raw_data=True
    )
    said = {**LEARNER, "objective": "binary", "learning_rate": RATE}
    fitted = lightgbm.train(said, data, num_boost_round=TREES)
    test = at == item
    return {
        "scores": fitted.predict(X[test], num_threads=1), "labels": y[test],
        "gains": fitted.feature_importance("gain").astype(numpy.float64),
    }  # fmt: skip


def auc(scores: Any, labels: Any) -> float:
    """Area under the curve by ranks, ties halved."""
    order = numpy.argsort(scores, kind="stable")
    ranked = numpy.empty(len(scores))
    ranked[order] = numpy.arange(1, len(scores) + 1)
    _, inverse, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    sums = numpy.bincount(inverse, weights=ranked)
    ranked = (sums / counts)[inverse]
    positive = labels == 1
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranked[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else 0.5


# -- utility ---------------------------------------------------------------------------------------------------------
def utility(train: Any, test: Any, target: int, nominal: Any) -> tuple[str, float]:
    """("R2" | "AUC" | "accuracy", value on the test rows) of LightGBM (300 trees, rate .05) trained on `train`."""
    import lightgbm

    keep = [j for j in range(train.shape[1]) if j != target]
    a, b = (m[~numpy.isnan(m[:, target])] for m in (train, test))
    cats = [k for k, j in enumerate(keep) if nominal[j]]
    said = {**LEARNER, "learning_rate": 0.05}
    levels = numpy.unique(numpy.concatenate([a[:, target], b[:, target]]))
    if not nominal[target] and len(levels) > 2:
        data = lightgbm.Dataset(a[:, keep], a[:, target], categorical_feature=cats, params={"verbosity": -1})
        fitted = lightgbm.train({**said, "objective": "regression"}, data, num_boost_round=300)
        rest = b[:, target] - fitted.predict(b[:, keep], num_threads=1)
        spread = float(((b[:, target] - b[:, target].mean()) ** 2).sum())
        return "R2", 1.0 - float((rest**2).sum()) / spread if spread else 0.0
    y, t = (numpy.searchsorted(levels, m[:, target]).astype(float) for m in (a, b))
    many = len(levels) > 2
    objective = {"objective": "multiclass", "num_class": len(levels)} if many else {"objective": "binary"}
    if len(numpy.unique(y)) < 2:
        return ("accuracy", float((t == y[0]).mean())) if many else ("AUC", 0.5)
    data = lightgbm.Dataset(a[:, keep], y, categorical_feature=cats, params={"verbosity": -1})
    fitted = lightgbm.train({**said, **objective}, data, num_boost_round=100 if many else 300)
    predicted = fitted.predict(b[:, keep], num_threads=1)
    return ("accuracy", float((predicted.argmax(1) == t).mean())) if many else ("AUC", auc(predicted, t))


# -- distances -------------------------------------------------------------------------------------------------------
def scaled(real: Any, nominal: Any, *others: Any) -> list[Any]:
    """float32 matrices in which columns weigh alike: numbers by their range between the 1st and 99th percentile; categories as
    they are (a difference counts 1); missing -0.5."""
    low, high = (numpy.nanpercentile(numpy.where(numpy.isnan(real).all(0), 0.0, real), q, axis=0) for q in (1, 99))
    wide = numpy.where(high > low, high - low, 1.0)
    made = []
    for m in (real, *others):
        z = numpy.where(nominal, m, (m - low) / wide)
        made.append(numpy.where(numpy.isnan(z), -0.5, z).astype(numpy.float32))
    return made


@njit(nogil=True, cache=True)
def nearest(A, B, nominal, skip_same):  # type: ignore[no-untyped-def]
    """float32 (rows of A,): distance to the nearest row of B, a sum over columns. skip_same: row i of B is not for row i of A."""
    found = numpy.empty(len(A), numpy.float32)
    for i in range(len(A)):
        best = numpy.float32(1e30)
        for k in range(len(B)):
            if skip_same and i == k:
                continue
            s = numpy.float32(0)
            for j in range(A.shape[1]):
                if nominal[j]:
                    s += numpy.float32(A[i, j] != B[k, j])
                else:
                    s += abs(A[i, j] - B[k, j])
                if s >= best:
                    break
            if s < best:
                best = s
        found[i] = best
    return found


def privacy(train: Any, held: Any, twins: Any, nominal: Any, seed: int) -> dict[str, Any]:
    """share_nearer: of twins nearer to training than to as many held-out rows (.5 is ideal). membership: AUC, .5 is ideal.
    membership_distance: AUC of the distance to twins alone. copies, copies_held: share of twins that equal a training row, a
    held-out row."""
    rng = numpy.random.default_rng([seed, 13])
    m = min(len(train), len(held), NEAR_AMONG)
    T, H, S = scaled(train, nominal, held, twins)
    # In random order: a part of the rows of a sorted table would be of one kind.
    t, h = (M[rng.choice(len(M), m, replace=False)] for M in (T, H))
    s = S[numpy.sort(rng.choice(len(S), min(NEAR, len(S)), replace=False))]
    to_train, to_held = nearest(s, t, nominal, False), nearest(s, h, nominal, False)
    share = float((to_train < to_held).mean() + (to_train == to_held).mean() / 2)
    k = min(NEAR // 2, m // 2)
    reference, outside, inside = h[: m // 2], h[m // 2 : m // 2 + k], t[:k]
    near = S[numpy.sort(rng.choice(len(S), min(NEAR_AMONG, len(S)), replace=False))]
    both = numpy.vstack([inside, outside])
    to_twins, to_reference = nearest(both, near, nominal, False), nearest(both, reference, nominal, False)
    member = numpy.repeat([1, 0], [len(inside), len(outside)])
    ratio = numpy.log(to_reference + 1e-6) - numpy.log(to_twins + 1e-6)
    return {
        "share_nearer": share, "membership": auc(ratio, member), "membership_distance": auc(-to_twins, member),
        "copies": float((to_train == 0).mean()), "copies_held": float((to_held == 0).mean()),
        "to_train": to_train.astype(numpy.float64), "to_held": to_held.astype(numpy.float64),
    }  # fmt: skip


# -- a picture of all columns ----------------------------------------------------------------------------------------
def plane(real: Any, twins: Any, nominal: Any, most: int = 600) -> dict[str, Any]:
    """The first two principal components of the real rows (categories as indicators of their common levels), and some rows of
    both in them."""

    def wide(m: Any, columns: list[Any]) -> Any:
        return numpy.stack([f(m) for f in columns], 1)

    columns: list[Any] = []
    for j in range(real.shape[1]):
        if nominal[j]:
            common = numpy.argsort(-_counts(real[~numpy.isnan(real[:, j]), j]), kind="stable")[:8]
            columns += [(lambda m, j=j, c=c: (m[:, j] == c).astype(float)) for c in common]
        else:
            v = numpy.sort(real[~numpy.isnan(real[:, j]), j])
            columns.append(
                lambda m, j=j, v=v: numpy.nan_to_num(numpy.searchsorted(v, m[:, j]) / max(1, len(v)), nan=0.5)
            )
    A, B = wide(real, columns), wide(twins, columns)
    middle, spread = A.mean(0), A.std(0)
    spread = numpy.where(spread > 1e-9, spread, 1.0)
    A, B = (A - middle) / spread, (B - middle) / spread
    values, vectors = numpy.linalg.eigh(A.T @ A / len(A))
    axes = vectors[:, ::-1][:, :2]
    axes = axes * numpy.where(axes[numpy.abs(axes).argmax(0), numpy.arange(axes.shape[1])] < 0, -1.0, 1.0)
    told = values[::-1][:2] / max(1e-12, values.sum())
    a, b = ((numpy.arange(min(most, len(m))) * len(m)) // min(most, len(m)) for m in (A, B))
    return {"real": A[a] @ axes, "twins": B[b] @ axes, "explained": told}
