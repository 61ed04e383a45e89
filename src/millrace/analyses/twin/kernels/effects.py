"""Numeric work of effects: a line and trees for what it leaves, scores of the doubly robust estimator, projections of them.

Scores are those of augmented inverse propensity weighting (Robins, Rotnitzky and Zhao 1994), whose mean is the effect and whose
regression on the features is the effect per row (the DR-learner, Kennedy 2023). The projection on a few columns with a
heteroscedasticity-consistent covariance (Semenova and Chernozhukov 2021) is what groups are estimated with: it does not shrink
towards the mean, as trees do, and its error is known. See `effects` for the order of work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from millrace.analyses.twin.kernels import learners
from millrace.analyses.twin.kernels.learners import Aim, Growth, Kind

Array = NDArray[Any]

PART = 16_384
"""Rows whose design is held at a time."""
MOST_LEVELS = 30
"""Labels of a column that the line knows one by one; trees know them all."""
FEW_VALUES = 12
"""A number with at most so many values is known to the projection value by value."""
CLIP = 0.01
NEWTON_ROUNDS = 25


# -- a design of columns -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Design:
    """What becomes of features: numbers standardised (missing: their mean, and a column that says so), codes and few values one
    column each but the first. middle, scale: (p,). levels: by column number, the values that have a column. marked: columns
    whose missing values have one. chosen: numbers of the columns that are kept, None for all."""

    middle: Array
    scale: Array
    levels: Mapping[int, Array]
    marked: tuple[int, ...]
    chosen: Array | None = None

    def columns(self, x: Array) -> Array:
        """(rows, columns of the design), without a constant."""
        made = []
        for j in range(x.shape[1]):
            missing = numpy.isnan(x[:, j])
            if j in self.levels:
                made += [(x[:, j] == level).astype(numpy.float64) for level in self.levels[j]]
            elif self.scale[j] > 0:
                made.append(numpy.where(missing, 0.0, (x[:, j] - self.middle[j]) / self.scale[j]))
            if j in self.marked:
                made.append(missing.astype(numpy.float64))
        out = numpy.stack(made, axis=1) if made else numpy.zeros((len(x), 0))
        return out if self.chosen is None else out[:, self.chosen]

    def plain(self) -> dict[str, Any]:
        """As storable values."""
        levels = [[j, numpy.asarray(v)] for j, v in self.levels.items()]
        chosen = None if self.chosen is None else numpy.asarray(self.chosen)
        return {
            "middle": self.middle,
            "scale": self.scale,
            "levels": levels,
            "marked": list(self.marked),
            "chosen": chosen,
        }


def design_from(said: Mapping[str, Any]) -> Design:
    """The inverse of `Design.plain`."""
    levels = {int(j): numpy.asarray(v) for j, v in said["levels"]}
    chosen = None if said["chosen"] is None else numpy.asarray(said["chosen"])
    return Design(numpy.asarray(said["middle"]), numpy.asarray(said["scale"]), levels, tuple(said["marked"]), chosen)


def make_design(x: Array, categorical: Sequence[int], few_values: bool = False) -> Design:
    """The design of features (n, p). few_values: numbers of few values have a column a value."""
    p = x.shape[1]
    middle, scale, levels, marked = numpy.zeros(p), numpy.zeros(p), {}, []
    for j in range(p):
        column = numpy.asarray(x[:, j])
        missing = numpy.isnan(column)
        known = column[~missing]
        if 0 < missing.sum() < len(column):
            marked.append(j)
        if j in categorical or (few_values and len(numpy.unique(known[:PART])) <= FEW_VALUES):
            found, counts = numpy.unique(known, return_counts=True)
            if j in categorical or len(found) <= FEW_VALUES:
                common = found[numpy.argsort(-counts, kind="stable")]
                levels[j] = numpy.sort(
                    common[1 : MOST_LEVELS + 1]
                )  # the most common one is what they are compared with
                continue
        if len(known):
            middle[j], scale[j] = float(known.mean()), float(known.std())
    return Design(middle, scale, levels, tuple(marked))


# -- a line ------------------------------------------------------------------------------------------------------------
def line(design: Design, x: Array, target: Array, rows: Array, kind: Kind) -> Array:
    """(1 + columns,) coefficients by ridge regression, or by penalised logistic regression for a binary target, in parts."""
    width = 1 + design.columns(numpy.asarray(x[:1])).shape[1]
    at_most, beta = (NEWTON_ROUNDS if kind == "binary" else 1), numpy.zeros(width)
    penalty = numpy.full(width, 1.0)
    penalty[0] = 0.0
    for _ in range(at_most):
        gram, right = numpy.zeros((width, width)), numpy.zeros(width)
        for begin in range(0, len(rows), PART):
            at = rows[begin : begin + PART]
            d = _with_one(design, x, at)
            if kind == "number":
                gram += d.T @ d
                right += d.T @ target[at]
            else:
                p = expit(d @ beta)
                gram += (d * (p * (1 - p))[:, None]).T @ d
                right += d.T @ (target[at] - p)
        if kind == "number":
            return numpy.linalg.lstsq(gram + numpy.diag(penalty), right, rcond=1e-12)[0]
        step = numpy.linalg.lstsq(gram + numpy.diag(penalty), right - penalty * beta, rcond=1e-12)[0]
        beta = beta + numpy.clip(step, -4, 4)
        if float(numpy.abs(step).max()) < 1e-8:
            break
    return beta


def on_line(design: Design, beta: Array, x: Array) -> Array:
    """(n,) values of the line; log odds for a binary target."""
    out = numpy.empty(len(x))
    for begin in range(0, len(x), PART):
        at = numpy.arange(begin, min(begin + PART, len(x)))
        out[at] = _with_one(design, x, at) @ beta
    return out


def _with_one(design: Design, x: Array, at: Array) -> Array:
    columns = design.columns(numpy.asarray(x[at]))
    return numpy.concatenate([numpy.ones((len(at), 1)), columns], axis=1)


# -- a line, and trees for what it leaves ------------------------------------------------------------------------------
def train(
    x: Array, categorical: tuple[int, ...], target: Array, rows: Array, kind: Kind, growth: Growth, seed: int
) -> dict:
    """The model as storable values: {"kind", "design", "line", "trees"}; read by `predict`."""
    design = make_design(numpy.asarray(x), categorical)
    beta = line(design, x, target, rows, kind)
    start = on_line(design, beta, x)
    if kind == "binary":
        text = learners.lightgbm_text(Aim(x, categorical, target, rows, "binary", seed, start), growth)
    else:
        text = learners.lightgbm_text(Aim(x, categorical, target - start, rows, "number", seed), growth)
    return {"kind": kind, "design": design.plain(), "line": beta, "trees": text}


def predict(model: Mapping[str, Any], x: Array) -> Array:
    """(n,) predictions, probabilities when binary."""
    design, beta = design_from(model["design"]), numpy.asarray(model["line"])
    trees = learners.read_raw_lightgbm(model["trees"])
    out = numpy.empty(len(x))
    for begin in range(0, len(x), learners.READ):
        part = numpy.asarray(x[begin : begin + learners.READ])
        out[begin : begin + learners.READ] = on_line(design, beta, part) + trees(part)
    return expit(out) if model["kind"] == "binary" else out


def expit(v: Array) -> Array:
    return 1 / (1 + numpy.exp(-numpy.clip(v, -500, 500)))


# -- scores ------------------------------------------------------------------------------------------------------------
def scores(y: Array, t: Array, mu0: Array, mu1: Array, e: Array) -> Array:
    """(n,) doubly robust scores, whose mean is the average effect. e is kept CLIP away from 0 and 1."""
    e = numpy.clip(e, CLIP, 1 - CLIP)
    return mu1 - mu0 + t * (y - mu1) / e - (1 - t) * (y - mu0) / (1 - e)


def average(psi: Array) -> tuple[float, float]:
    """(mean, its standard error)."""
    return float(psi.mean()), float(psi.std(ddof=1) / numpy.sqrt(len(psi)))


def on_treated(y: Array, t: Array, mu0: Array, e: Array) -> tuple[float, float]:
    """(effect on the treated, standard error) by the doubly robust score of Hahn (1998) and its influence function."""
    e = numpy.clip(e, CLIP, 1 - CLIP)
    part, share = t * (y - mu0) - (1 - t) * e / (1 - e) * (y - mu0), float(t.mean())
    effect = float(part.mean()) / share
    influence = (part - t * effect) / share
    return effect, float(influence.std(ddof=1) / numpy.sqrt(len(y)))


# -- projection --------------------------------------------------------------------------------------------------------
def basis(design: Design, tau: Array, middle: float, x: Array) -> Array:
    """(n, 2 + columns): one, the learnt effect about its mean, the columns of the design."""
    return numpy.concatenate(
        [numpy.ones((len(x), 1)), (tau - middle)[:, None], design.columns(numpy.asarray(x))], axis=1
    )


def project(psi: Array, design: Design, tau: Array, middle: float, x: Array) -> tuple[Array, Array]:
    """(coefficients (q,), covariance (q, q)) of the scores' least-squares projection; HC1. Its mean over all rows is the mean of
    the scores, so that the projection and the average effect agree."""
    width = basis(design, tau[:1], middle, x[:1]).shape[1]
    gram, right, n = numpy.zeros((width, width)), numpy.zeros(width), len(psi)
    for begin in range(0, n, PART):
        b = basis(design, tau[begin : begin + PART], middle, x[begin : begin + PART])
        gram += b.T @ b
        right += b.T @ psi[begin : begin + PART]
    gram += numpy.diag(numpy.r_[0.0, numpy.full(width - 1, 1e-6 * n)])
    inverse = numpy.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    beta, meat = inverse @ right, numpy.zeros((width, width))
    for begin in range(0, n, PART):
        b = basis(design, tau[begin : begin + PART], middle, x[begin : begin + PART])
        left = psi[begin : begin + PART] - b @ beta
        meat += (b * (left**2)[:, None]).T @ b
    covariance = inverse @ meat @ inverse * (n / max(1, n - width))
    return beta, (covariance + covariance.T) / 2


def narrowed(design: Design, x: Array, psi: Array, most: int) -> Design:
    """The design with its `most` columns that go most with the scores."""
    width = design.columns(numpy.asarray(x[:1])).shape[1]
    if width <= most:
        return design
    sums, squares, products = numpy.zeros(width), numpy.zeros(width), numpy.zeros(width)
    centred = psi - psi.mean()
    for begin in range(0, len(x), PART):
        d = design.columns(numpy.asarray(x[begin : begin + PART]))
        sums += d.sum(axis=0)
        squares += (d**2).sum(axis=0)
        products += centred[begin : begin + PART] @ d
    spread = numpy.sqrt(numpy.maximum(squares - sums**2 / len(x), 1e-300))
    best = numpy.argsort(-numpy.abs(products) / spread, kind="stable")[:most]
    return Design(design.middle, design.scale, design.levels, design.marked, numpy.sort(best))


# -- folds, uplift -----------------------------------------------------------------------------------------------------
def folds(groups: Array, count: int, rng: Any) -> Array:
    """uint8 (n,): the fold of each row, at random and evenly within each of `groups` (n,) of small whole numbers."""
    out = numpy.empty(len(groups), numpy.uint8)
    begin = 0
    for group in numpy.unique(groups):
        rows = rng.permutation(numpy.flatnonzero(groups == group))
        out[rows] = (numpy.arange(len(rows)) + begin) % count
        begin += len(rows)
    return out


def uplift(psi: Array, tau: Array, points: int = 101) -> dict[str, Array]:
    """What treating the first share of the rows by `tau` (learnt without them) gains over treating nobody, per row of all:
    {"share", "gain", "se"}, (points,) each, from scores that `tau` has not seen: it cannot flatter itself."""
    order = numpy.argsort(-tau, kind="stable")
    n, share = len(psi), numpy.linspace(0, 1, points)
    ordered = psi[order]
    sums = numpy.concatenate([[0.0], numpy.cumsum(ordered)])
    squares = numpy.concatenate([[0.0], numpy.cumsum(ordered**2)])
    k = numpy.round(share * n).astype(int)
    gain = sums[k] / n
    variance = numpy.maximum(squares[k] / n - gain**2, 0) / n
    return {"share": share, "gain": gain, "se": numpy.sqrt(variance)}


def importance(text: str, names: Sequence[str]) -> list[tuple[str, float]]:
    """Columns by the gain of a model's splits, shares, the first first."""
    import lightgbm

    gains = lightgbm.Booster(model_str=text).feature_importance("gain")
    whole = float(gains.sum()) or 1.0
    found = [(name, float(g) / whole) for name, g in zip(names, gains, strict=True)]
    return sorted(found, key=lambda one: -one[1])
