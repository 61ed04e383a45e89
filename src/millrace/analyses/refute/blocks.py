"""Is the effect the same in every part of the data: how rows are cut into blocks, each block's own estimate, Cochran's Q.

Rows are cut in their order, by a column of groups, or by a column with an order (time). Verdicts are in `rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.laws import chi2_above
from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

BLOCKS = 5
MOST_GROUPS = 20
LEAST_CLUSTERS = 12
"""In a block. With 6 a right estimate is called different between blocks in 18 % (CR3 and Welch; CR1: 31 %), with 12 in 5 %."""
MANY_CLUSTERS = 100
"""From here on CR1 and CR3 are the same for what is decided here."""
ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Cut:
    """codes: (n,) block of every row, from 0; names: what people call the blocks; how: in words; clusters: how many each block
    has, where there are some."""

    codes: Codes
    names: tuple[str, ...]
    how: str
    clusters: tuple[int, ...] | None = None


def cut(
    rows: int,
    *,
    blocks: int = BLOCKS,
    column: NDArray[Any] | None = None,
    kind: Literal["groups", "order"] = "groups",
    name: str = "",
    clusters: Codes | None = None,
) -> Cut:
    """Rows in order when there is no `column`. "groups": a block a value (over MOST_GROUPS values: `blocks` blocks of
    whole values of like size). "order": `blocks` ranges of like size, equal values together. Clusters stay whole: in an order
    they follow each other by the mean place of their rows, in fewer blocks where one would have less than LEAST_CLUSTERS;
    among groups a cluster belongs where its first row does."""
    if blocks < 2:
        raise WrongQuestion(f"The test of blocks needs at least 2 of them, not {blocks}.")
    if column is not None and len(column) != rows:
        raise WrongQuestion(f"The column of blocks has {len(column):,} values for {rows:,} rows.")
    ordered = column is None or kind == "order"
    if ordered:
        values = np.arange(rows) if column is None else np.unique(np.asarray(column), return_inverse=True)[1]
        names, how = None, "rows in their order" if column is None else f"ranges of `{name}`"
        if clusters is not None:
            values, how = _clusters_in_order(values, clusters), f"whole clusters, {how}"
            blocks = max(2, min(blocks, (int(clusters.max()) + 1) // LEAST_CLUSTERS))
        codes = _in_order(values, blocks)
    else:
        codes, names, how = _by_group(np.asarray(column), blocks, name)
        if clusters is not None:
            first = np.unique(clusters, return_index=True)[1]
            codes = codes[first[clusters]]
    kept, codes = np.unique(codes, return_inverse=True)
    if len(kept) < 2:
        raise WrongQuestion(f"By {how} there is only one block: nothing to compare.")
    names = [f"{k + 1} of {len(kept)}" for k in range(len(kept))] if names is None else [names[k] for k in kept]
    in_block = None if clusters is None else tuple(len(np.unique(clusters[codes == k])) for k in range(len(kept)))
    return Cut(codes.astype(np.int64), tuple(names), how, in_block)


def _clusters_in_order(values: NDArray[Any], clusters: Codes) -> Codes:
    """The place of every row's cluster, from 0: by the mean place of its rows (equal values share theirs)."""
    counts = np.bincount(values)
    middle = np.cumsum(counts) - (counts + 1) / 2
    mean = np.bincount(clusters, middle[values]) / np.bincount(clusters)
    place = np.argsort(np.argsort(mean, kind="stable"), kind="stable").astype(np.int64)
    found: Codes = place[clusters]
    return found


def _in_order(values: NDArray[Any], blocks: int) -> Codes:
    """Ranges of like many rows; rows of one value (from 0, without holes) stay together."""
    below = np.concatenate(([0], np.cumsum(np.bincount(values))))[:-1]
    return (below[values] * blocks // len(values)).astype(np.int64)


def _by_group(column: NDArray[Any], blocks: int, name: str) -> tuple[Codes, list[str], str]:
    values, codes, sizes = np.unique(column, return_inverse=True, return_counts=True)
    if len(values) <= MOST_GROUPS:
        return codes.astype(np.int64), [str(v) for v in values], f"values of `{name}`"
    # The largest first, each into the block that has least: near enough to equal, and always the same.
    into, filled = np.empty(len(values), dtype=np.int64), np.zeros(blocks)
    for g in np.argsort(-sizes, kind="stable"):
        into[g] = int(filled.argmin())
        filled[into[g]] += sizes[g]
    names = [f"{int((into == k).sum())} values of {name}" for k in range(blocks)]
    return into[codes], names, f"{blocks} sets of values of `{name}`"


def hindrance(cut: Cut, treatment: Array, columns: int) -> str:
    """Why the blocks cannot be compared, in words; "" when they can. A block needs a treatment that varies in it and more
    rows than the columns + 3 (confounders, constant, treatment, and one to see an error); with clusters LEAST_CLUSTERS."""
    for name, found in zip(cut.names, cut.clusters or (), strict=False):
        if found < LEAST_CLUSTERS:
            return (
                f"block {name} has {found} clusters, and errors of fewer than {LEAST_CLUSTERS} are too small to compare"
            )
    for code, name in enumerate(cut.names):
        inside = treatment[cut.codes == code]
        if len(inside) < columns + 4:
            return f"block {name} has {len(inside)} rows, too few for {columns} confounders"
        if np.all(inside == inside[0]):
            return f"in block {name} the treatment is the same in all rows"
    return ""


# -- a block's own estimate ----------------------------------------------------------------------------------------
def least_squares(
    treatment: Array,
    outcome: Array,
    confounders: NDArray[Any],
    *,
    weights: Array | None = None,
    clusters: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """Effect and its HC3 error (MacKinnon and White, 1985) of outcome ~ 1 + treatment + confounders; with clusters CR3,
    the same for clusters (Bell and McCaffrey, 2002; from MANY_CLUSTERS on CR1).

    Columns that do not vary inside the block, or that others make up, are left out by themselves. (NaN, NaN) where the
    treatment is not free of the confounders.
    """
    n = len(confounders)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    root = np.sqrt(w / w.mean())
    basis, center = _whitened(confounders, root)
    rank = basis.shape[1]
    t, y = root * treatment, root * outcome
    t_left, y_left = _off(t, confounders, center, root, basis), _off(y, confounders, center, root, basis)
    square = float(t_left @ t_left)
    if square <= 1e-12 * float(t @ t) or n <= rank + 2:
        return float("nan"), float("nan")
    effect = float(t_left @ y_left) / square
    residual = y_left - effect * t_left
    if clusters is not None:
        codes = np.unique(clusters, return_inverse=True)[1]
        scores = np.bincount(codes, t_left * residual)
        groups = len(scores)
        if groups < 2:
            return effect, float("nan")
        small = groups / (groups - 1) * (n - 1) / max(1, n - rank - 2)
        if groups < MANY_CLUSTERS:
            own = t_left / np.sqrt(square)
            for g in range(groups):
                at = codes == g
                z = (np.asarray(confounders[at], dtype=np.float64) - center) @ basis * root[at, None]
                q = np.column_stack([root[at] / np.linalg.norm(root), z, own[at]])
                scores[g] += _left_out(q, t_left[at], residual[at])
            small = (groups - 1) / groups
        return effect, float(np.sqrt(small * (scores @ scores))) / square
    leverage = t_left**2 / square + root**2 / (root @ root)
    for start in range(0, n, ROWS):
        block = slice(start, start + ROWS)
        z = (np.asarray(confounders[block], dtype=np.float64) - center) @ basis * root[block, None]
        leverage[block] += (z * z).sum(axis=1)
    # A row that is fitted exactly (leverage 1) has no residual and says nothing about the error.
    room = np.where(leverage < 1 - 1e-9, 1 - leverage, np.inf)
    return effect, float(np.sqrt((t_left * residual / room) @ (t_left * residual / room))) / square


def _left_out(q: Array, t: Array, residual: Array) -> float:
    """What t' (1 - q q')^-1 residual is above t' residual: residuals of a cluster as if it had not been in the fit.

    By Woodbury, t' q (1 - q' q)^-1 q' residual. Directions that only this cluster knows have no residual: left out."""
    values, vectors = np.linalg.eigh(q.T @ q)
    free = values < 1 - 1e-9
    left, right = vectors[:, free].T @ (q.T @ t), vectors[:, free].T @ (q.T @ residual)
    return float((left * right / (1 - values[free])).sum())


def residual(values: Array, confounders: NDArray[Any]) -> Array:
    """What the constant and the confounders leave of values, (n,); in bounded memory."""
    root = np.ones(len(values))
    basis, center = _whitened(confounders, root)
    return _off(np.asarray(values, dtype=np.float64), confounders, center, root, basis)


def _whitened(confounders: NDArray[Any], root: Array) -> tuple[Array, Array]:
    """(p, rank) B and the weighted means c such that root (x - c) B has orthonormal columns, all orthogonal to root."""
    n, p = confounders.shape
    sums, gram = np.zeros(p), np.zeros((p, p))
    for start in range(0, n, ROWS):
        block = slice(start, start + ROWS)
        sums += (root[block] ** 2) @ np.asarray(confounders[block], dtype=np.float64)
    center = sums / (root @ root)
    for start in range(0, n, ROWS):
        block = slice(start, start + ROWS)
        x = root[block, None] * (np.asarray(confounders[block], dtype=np.float64) - center)
        gram += x.T @ x
    scale = np.sqrt(np.diag(gram))
    moves = scale > 1e-9 * np.sqrt(n) * np.maximum(np.abs(center), 1e-300)
    scale = np.where(moves, scale, 1.0)
    values, vectors = np.linalg.eigh(np.where(np.outer(moves, moves), gram / np.outer(scale, scale), 0.0))
    kept = values > 1e-10 * max(1.0, float(values[-1]) if p else 1.0)
    return np.where(moves, 1 / scale, 0.0)[:, None] * vectors[:, kept] / np.sqrt(values[kept]), center


def _off(v: Array, confounders: NDArray[Any], center: Array, root: Array, basis: Array) -> Array:
    """What the constant and the confounders leave of v."""
    left = v - root * (root @ v) / (root @ root)
    for _ in range(2):  # once is not enough where the confounders are nearly collinear
        along = np.zeros(basis.shape[1])
        for start in range(0, len(v), ROWS):
            block = slice(start, start + ROWS)
            z = np.asarray(confounders[block], dtype=np.float64) - center
            along += (root[block] * left[block]) @ (z @ basis)
        for start in range(0, len(v), ROWS):
            block = slice(start, start + ROWS)
            left[block] -= root[block] * ((np.asarray(confounders[block], dtype=np.float64) - center) @ (basis @ along))
    return left


# -- all blocks together -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Blocks:
    """names, rows, effects, errors: (K,) each, NaN where a block has no estimate; how the rows were cut; clusters of each block,
    where there are some."""

    names: tuple[str, ...]
    rows: tuple[int, ...]
    effects: Array
    errors: Array
    how: str
    clusters: tuple[int, ...] | None = None


def gather(cut: Cut, estimates: Sequence[tuple[float, float]]) -> Blocks:
    """estimates: (effect, error) of every block, in the order of the cut's names."""
    if len(estimates) != len(cut.names):
        raise WrongQuestion(f"{len(estimates)} estimates for {len(cut.names)} blocks.")
    found = np.asarray(estimates, dtype=np.float64).reshape(-1, 2)
    rows = np.bincount(cut.codes, minlength=len(cut.names))
    return Blocks(cut.names, tuple(int(r) for r in rows), found[:, 0].copy(), found[:, 1].copy(), cut.how, cut.clusters)


@dataclass(frozen=True, slots=True)
class Cochran:
    """q: sum of ((effect - mean) / error)^2, chi-squared with df = K - 1 where all blocks have one effect. mean: weighted by
    1 / error^2. i2: share of the spread that is more than chance, max(0, (q - df) / q). With clusters the p-value is Welch's:
    errors that rest on few clusters are uncertain themselves."""

    q: float
    df: int
    p_value: float
    mean: float
    se: float
    i2: float


def cochran(effects: Array, errors: Array, clusters: Array | None = None) -> Cochran:
    """Cochran, Biometrics 10 (1954). effects, errors: (K,), finite, errors above 0; clusters: (K,), how many each error rests
    on (Welch, Biometrika 38, 1951, with clusters - 1 degrees of freedom each)."""
    effects, errors = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if len(effects) < 2 or not (np.all(np.isfinite(effects)) and np.all(np.isfinite(errors)) and np.all(errors > 0)):
        raise WrongQuestion("Cochran's Q needs at least 2 blocks, each with a finite effect and an error above 0.")
    weight = (errors.min() / errors) ** 2
    mean = float(weight @ effects / weight.sum())
    q = float((((effects - mean) / errors) ** 2).sum())
    df = len(effects) - 1
    se = float(errors.min() / np.sqrt(weight.sum()))
    p = chi2_above(q, df) if clusters is None else _welch(q, weight / weight.sum(), np.asarray(clusters) - 1)
    return Cochran(q, df, p, mean, se, max(0.0, (q - df) / q) if q > 0 else 0.0)


def _welch(q: float, share: Array, freedom: Array) -> float:
    """p of Q where block k has the share w_k of the weight and an error of freedom_k degrees of freedom."""
    from scipy import special

    k = len(share)
    uncertain = float(((1 - share) ** 2 / np.maximum(freedom, 1)).sum())
    f = q / (k - 1) / (1 + 2 * (k - 2) / (k * k - 1) * uncertain)
    return float(special.fdtrc(k - 1, (k * k - 1) / (3 * uncertain), f))
