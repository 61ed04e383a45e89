"""Kernel SHAP for any function: one shared design of coalitions, one solver for all rows and outputs.

The value of a coalition S for a row x is v(S) = the weighted mean of the function over background rows whose columns
in S were replaced by those of x; the answer is the Shapley value of this game. Two things happen here:

- `design` chooses coalitions once for all rows: in pairs (a set and its complement), all sets of size 1 and M - 1,
  and equally many of every other size (the leverage scores of Musco and Witter 2025 give each size the same share),
  balanced over features within a size. Up to 12 features it takes all of them: then the answer is exact.
- `explain_rows` evaluates them for a block of rows and applies the design's solver, one matrix product a row.

**The solver.** Pairs see only the odd part of the game, d(S) = v(S) - v(complement). Written in parity functions of
k features, d is a main effect (k = 1) and interactions of order 3, 5, ... Kernel SHAP's weighted least squares fits the
main effects and treats all else as noise. Interactions of real models are not noise: an interaction of three features
shows in every pair that splits them. So the solver is generalised least squares (kriging): main effects free, and
interactions of order k with prior variance proportional to ORDER_RATE^k / k!. It is linear in the evaluations and adds
up to the prediction just as well. Mean absolute error against `shap.KernelExplainer` with the same evaluations
(MLP, SVM, kNN, GP, forest, boosting): 0.2-0.3 times at 13 features, 0.5 at 30, 0.6 at 50, 0.5-0.7 at 200 and 500;
weighted least squares on the same design gave 0.93, 0.70 and 0.72, and 0.9-1.05 at 500. Its price is a small shrinkage
of interactions that the evaluations cannot tell from noise: in a single design less than the noise, and counted in the
coverage below; in designs of many parts (PART_PAIRS) it is what remains.

**Standard errors** leave out one pair at a time (the jackknife; a linear solver gives it in closed form), with the
share of each size that was not seen as the finite population correction. On the same models two standard errors held
93-98 % of the errors; the difference of two halves of the design, tried first, held 65-90 %, because it has a single
degree of freedom and half a design is much worse than half as good.

Does not know models (see `blackbox`), choose methods, or cut questions into blocks. See also `linear`, `oracle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import comb, factorial
from typing import Any, Protocol

import numpy as np
from numba import njit, types
from numpy.typing import NDArray
from scipy.linalg import cholesky, lapack

from millrace.run.errors import ModelTrouble, WrongQuestion

EXACT_FEATURES = 12
"""Up to here the default number of evaluations takes every coalition."""

BATCH_ROWS = 8192
BATCH_BYTES = 8 << 20
OUTPUT_BYTES = 4 << 20
"""A call of the model has at most so many rows, bytes of input, and bytes of output. By shape, never by a budget."""

PART_PAIRS = 2048
"""Pairs beyond the number of features that are solved together; more are cut into parts, and their solutions are
averaged (which lessens their noise, not their shrinkage). To make a part takes 13 pairs^2 bytes and time of pairs^3."""

ORDER_RATE = 2.0
NUGGET = 0.02
HIGHEST_ORDER = 13
"""The prior of interactions: flat optimum, see the module's docstring. The nugget (share of variance of a coalition
that nothing else tells of) goes to 0 as a part becomes complete, so that estimates end in the exact values."""

_SPARE_PAIRS = 8
_ROWS_AT_ONCE = 256

Function = Callable[[NDArray[Any]], NDArray[Any]]
"""rows[n, columns] -> [n, outputs] or [n]; a row's output must not depend on the other rows."""


@dataclass(frozen=True, slots=True)
class Design:
    """Coalitions and what turns their values into Shapley values.

    masks: (S, features), rows 2p and 2p + 1 are pair p, a set and its complement. solver: (features, S / 2) and
    full: (features,) give values = solver @ d + full * (prediction - base). The first `shared` pairs are known
    without sampling error; after these come the parts, cut at `part_starts`, each solved with the shared pairs.
    `left_out`: float32, for each part (its pairs, shared + its pairs), flat: turns residuals into what a pair's own
    residual is when it is left out; empty where parts are estimates of their own, which tell their spread. `asked`, `seed` and
    `scheme` (see `walks`) make narrower designs, `narrower` holds those made already.
    """

    features: int
    asked: int
    seed: NDArray[np.uint32]
    exact: bool
    masks: NDArray[np.bool_]
    solver: NDArray[np.float64]
    full: NDArray[np.float64]
    shared: int
    part_starts: NDArray[np.int64]
    left_out: NDArray[np.float32]
    scheme: str = "kernel"
    narrower: Mapping[int, Design] = field(default_factory=dict)

    def arrays(self) -> dict[str, Any]:
        """Plain values by name, narrower designs as mappings of the same form: what a store keeps."""
        names = (
            "features",
            "asked",
            "seed",
            "exact",
            "masks",
            "solver",
            "full",
            "shared",
            "part_starts",
            "left_out",
            "scheme",
        )
        narrower = {str(count): inner.arrays() for count, inner in self.narrower.items()}
        return {name: getattr(self, name) for name in names} | {"narrower": narrower}

    @classmethod
    def from_arrays(cls, mapping: Mapping[str, Any]) -> Design:
        """The inverse of `arrays`; arrays may be memory maps and are not read here."""
        plain = dict(mapping)
        inner = {int(count): cls.from_arrays(arrays) for count, arrays in plain.pop("narrower").items()}
        for name, kind in (("features", int), ("asked", int), ("exact", bool), ("shared", int), ("scheme", str)):
            plain[name] = kind(plain[name])
        return cls(**plain, narrower=inner)

    def at(self, count: int) -> Design:
        """The design for rows in which `count` players count; always the same one, made already or not."""
        if count == self.features:
            return self
        return self.narrower[count] if count in self.narrower else _made(count, self.asked, self.seed, self.scheme)


@dataclass(frozen=True, slots=True)
class Estimate:
    """values, standard_errors: (n, players, outputs); base: (outputs,); prediction: (n, outputs); exact: (n,) bool.

    base + values.sum(axis=1) equals prediction to rounding, in every row.
    """

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    base: NDArray[np.float64]
    prediction: NDArray[np.float64]
    exact: NDArray[np.bool_]


# -- the design ----------------------------------------------------------------------------------------------------
def default_evaluations(features: int) -> int:
    """Coalitions a row: all of them up to 12 features, 2 M + 2048 (shap's number) above."""
    return max(0, 2**features - 2) if features <= EXACT_FEATURES else 2 * features + 2048


def design(features: int, evaluations: int | None, rng: np.random.Generator, scheme: str = "kernel") -> Design:
    """Coalitions of `features` players, about `evaluations` of them (None: `default_evaluations`). scheme: kernel,
    permutation or sampling.

    Up to 12 features, 2 M + 2048 or more evaluations take every coalition. `WrongQuestion` when the number is too
    small to tell the features apart (2 M + 16 will do). Takes one draw of four integers from `rng`.
    """
    seed = rng.integers(0, 2**32, 4, dtype=np.uint32)
    return _made(features, default_evaluations(features) if evaluations is None else evaluations, seed, scheme)


def shape_of(features: int, evaluations: int | None, scheme: str = "kernel") -> tuple[int, bool]:
    """(coalitions of the design, whether they are all there are), without making it."""
    asked = default_evaluations(features) if evaluations is None else evaluations
    if _is_complete(features, asked) or scheme == "kernel":
        return 2 * _pairs(features, asked), _is_complete(features, asked)
    from millrace.analyses.explain.kernels import walks

    return 2 * walks.pairs_of(features, asked, scheme), False


def with_narrower(whole: Design, rows: NDArray[Any], background: NDArray[Any], players: Any = None) -> Design:
    """The same design, with the narrower ones that these rows need made once instead of in every block.

    A feature that has the same value in a row and in the whole background is not played for that row. Never changes
    a result.
    """
    player = _players(players, whole, rows)
    needed: set[int] = set()
    for a in range(0, len(rows), BATCH_ROWS):
        varies = _varying(rows[a : a + BATCH_ROWS], background, player, whole.features)
        needed.update(_levels(varies, whole.features).tolist())
    inner = {count: whole.at(count) for count in sorted(needed - {whole.features})}
    return replace(whole, narrower=inner)


def design_bytes(features: int, evaluations: int | None = None, scheme: str = "kernel") -> tuple[int, int]:
    """(bytes of a design's arrays, bytes at the peak of making it). For plans: takes no time."""
    asked = default_evaluations(features) if evaluations is None else evaluations
    if scheme != "kernel" and not _is_complete(features, asked):
        kept = 5 * features * shape_of(features, asked, scheme)[0]
        return kept, kept + kept // 2 + (1 << 19)
    pairs = _pairs(features, asked)
    masks_and_solver = 10 * pairs * features
    if _is_complete(features, asked):
        return masks_and_solver, 3 * masks_and_solver + (1 << 14)
    sampled = pairs - features
    part = features + -(-sampled // -(-sampled // PART_PAIRS))
    kept = masks_and_solver + 4 * sampled * part
    return kept, kept + part * (13 * part + 50 * features) + 3 * pairs * features + (1 << 19)


def _pairs(features: int, evaluations: int) -> int:
    return max(0, 2 ** (features - 1) - 1) if _is_complete(features, evaluations) else evaluations // 2


def _is_complete(features: int, evaluations: int) -> bool:
    if features <= EXACT_FEATURES:
        return evaluations >= min(2**features - 2, 2 * EXACT_FEATURES + 2048)
    return evaluations >= 2**features - 2


def _made(features: int, evaluations: int, seed: NDArray[np.uint32], scheme: str = "kernel") -> Design:
    if _is_complete(features, evaluations):
        return replace(_complete(features, evaluations, seed), scheme=scheme)
    if scheme != "kernel":
        from millrace.analyses.explain.kernels import walks

        pairs, solver, full, starts = walks.made(features, evaluations, seed, scheme)
        none, masks = np.zeros(0, np.float32), _with_complements(pairs)
        return Design(features, evaluations, seed, False, masks, solver, full, 0, starts, none, scheme)
    least = 2 * (features + _SPARE_PAIRS)
    if evaluations < least:
        raise WrongQuestion(
            f"{evaluations} evaluations a row cannot tell {features} features apart: give max_evaluations "
            f"of at least {min(least, 2**features - 2)}, or leave it out ({default_evaluations(features)})."
        )
    rng = np.random.default_rng([*seed.tolist(), features])
    counts = _allocation(features, evaluations // 2)
    strata = [(size, count, _sets(features, size, count, rng)) for size, count in counts]
    shared, parts = _parts(features, strata)
    pairs = np.concatenate([shared, *(masks for masks, _ in parts)])
    solver, full = np.zeros((features, len(pairs))), np.zeros(features)
    sizes = [(len(masks), len(shared) + len(masks)) for masks, _ in parts]
    left_out = np.empty(sum(own * whole for own, whole in sizes), np.float32)
    start, at = len(shared), 0
    for (masks, unseen), (own, whole) in zip(parts, sizes, strict=True):
        one, one_full, left = _kriging(np.concatenate([shared, masks]), unseen)
        solver[:, : len(shared)] += one[:, : len(shared)] / len(parts)
        solver[:, start : start + own] = one[:, len(shared) :] / len(parts)
        full += one_full / len(parts)
        left_out[at : at + own * whole] = left.ravel()
        start, at = start + own, at + own * whole
        del one, left  # the next part's system is about to be made
    starts = np.cumsum([len(shared), *(own for own, _ in sizes)])
    masks = _with_complements(pairs)
    return Design(features, evaluations, seed, False, masks, solver, full, len(shared), starts, left_out)


def _complete(features: int, evaluations: int, seed: NDArray[np.uint32]) -> Design:
    """All coalitions, and Shapley's own weights: no system to solve, nothing lost to its condition."""
    count = 2 ** (features - 1) - 1 if features else 0
    bits = np.arange(count, dtype=np.int64)[:, None] >> np.arange(max(0, features - 1))[None, :] & 1
    pairs = np.concatenate([np.ones((count, min(1, features)), bool), bits.astype(bool)], axis=1)
    joins = np.array([1 / (features * comb(features - 1, s - 1)) if s else 0.0 for s in range(features + 1)])
    stays = np.array([-1 / (features * comb(features - 1, s)) if s < features else 0.0 for s in range(features + 1)])
    size = pairs.sum(axis=1)
    solver = np.where(pairs, joins[size][:, None], stays[size][:, None]).T
    full = np.full(features, 1 / max(1, features))
    masks, none = _with_complements(pairs), np.zeros(0, np.float32)
    return Design(
        features,
        evaluations,
        seed,
        True,
        masks,
        np.ascontiguousarray(solver),
        full,
        count,
        np.array([count]),
        none,
    )


def _with_complements(pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.stack([pairs, ~pairs], axis=1).reshape(2 * len(pairs), pairs.shape[1])


def _allocation(features: int, pairs: int) -> list[tuple[int, int]]:
    """(size, pairs of it) for sizes 1 .. features // 2: all of size 1, the rest shared equally among the others.

    A size that has fewer sets than its share gives all, and the others share what is left; the middle size of an
    even number counts half, because its complements are of the same size.
    """
    there = {size: _available(features, size) for size in range(2, features // 2 + 1)}
    share = {size: 1 if 2 * size == features else 2 for size in there}
    complete: set[int] = set()
    while True:
        free = [size for size in there if size not in complete]
        left = pairs - features - sum(there[size] for size in complete)
        whole = sum(share[size] for size in free)
        new = {size for size in free if there[size] * whole <= left * share[size]}
        if not new:
            break
        complete |= new
    counts = [(1, features)]
    done = given = 0
    for size in there:
        if size in complete:
            counts.append((size, there[size]))
        else:  # cumulative rounding: spreads evenly when there are fewer pairs than sizes
            done += share[size]
            count = left * done // whole - given
            given += count
            counts.append((size, count))
    return [(size, count) for size, count in counts if count]


def _available(features: int, size: int) -> int:
    return comb(features, size) // (2 if 2 * size == features else 1)


def _sets(features: int, size: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """`count` different sets of one size; features take part equally often, but for the last few draws.

    A random order of the features is cut into disjoint sets. In the middle size a set stands for its complement too.
    """
    masks = np.zeros((count, features), bool)
    seen: set[bytes] = set()
    while len(seen) < count:
        order = rng.permutation(features)
        for start in range(0, features - size + 1, size):
            mask = np.zeros(features, bool)
            mask[order[start : start + size]] = True
            if 2 * size == features and not mask[0]:
                mask = ~mask
            packed = mask.tobytes()
            if packed not in seen and len(seen) < count:
                masks[len(seen)] = mask
                seen.add(packed)
    return masks


def _parts(
    features: int, strata: list[tuple[int, int, NDArray[np.bool_]]]
) -> tuple[NDArray[np.bool_], list[tuple[NDArray[np.bool_], NDArray[np.float64]]]]:
    """(pairs that are shared by all parts, [(a part's own pairs, share of their size that the part did not see)]).

    One part as long as it is small enough; then complete sizes are shared. Else only size 1 is, and the other pairs
    are dealt out in turn, so that each part has its share of every size.
    """
    number = -(-(sum(count for _, count, _ in strata) - features) // PART_PAIRS)
    known = [size == 1 or (number == 1 and count == _available(features, size)) for size, count, _ in strata]
    shared = np.concatenate([masks for ok, (_, _, masks) in zip(known, strata, strict=True) if ok])
    sampled = [(size, masks) for ok, (size, _, masks) in zip(known, strata, strict=True) if not ok]
    own = np.concatenate([masks for _, masks in sampled])
    size_of = np.repeat([size for size, _ in sampled], [len(masks) for _, masks in sampled])
    parts = []
    for part in range(number):
        mine = size_of[part::number]
        sizes, count = np.unique(mine, return_counts=True)
        unseen = {s: 1 - c / _available(features, s) for s, c in zip(sizes.tolist(), count.tolist(), strict=True)}
        parts.append((own[part::number], np.array([unseen[s] for s in mine.tolist()])))
    return shared, parts


def _kriging(
    pairs: NDArray[np.bool_], unseen: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """(solver[features, pairs], full[features], left_out[len(unseen), pairs]) of one part; its own pairs come last.

    With u = +1 in the set and -1 outside, d(u) = sum over odd sets T of g_T prod_{j in T} u_j, and the Shapley value of
    feature j is the sum over T with j of g_T / |T|. Universal kriging with g_T of |T| = 1 free, and of |T| = k
    independent with one variance per k, so that covariances depend on the Hamming distance alone (Krawtchouk
    polynomials). The whole set, where d = prediction - base is known, is one more pair without nugget: that makes the
    values add up.
    """
    m, features = pairs.shape
    signs = np.ones((m + 1, features))
    signs[:m][~pairs] = -1
    covariance_at, effect_at = _prior(features)
    inverse = np.empty((m + 1, m + 1))
    small = signs.astype(np.float32)
    for a in range(0, m + 1, _ROWS_AT_ONCE):
        distance = (features - small[a : a + _ROWS_AT_ONCE] @ small.T) / 2
        inverse[a : a + _ROWS_AT_ONCE] = covariance_at[np.rint(distance).astype(np.int32)]
    share = len(pairs) / (2 ** (features - 1) - 1) if features < 60 else 0.0
    inverse[np.diag_indices(m)] += max(NUGGET * (1 - share), 1e-6)
    inverse[m, m] += 1e-9
    _invert(inverse)
    weighted = inverse @ signs
    main = np.linalg.solve(signs.T @ weighted, weighted.T)
    for a in range(0, m + 1, _ROWS_AT_ONCE):  # from here on: inverse without its main effects, inverse @ signs = 0
        inverse[a : a + _ROWS_AT_ONCE] -= weighted[a : a + _ROWS_AT_ONCE] @ main
    outside = signs < 0
    others = np.count_nonzero(outside, axis=1)[:, None] - outside
    solver = main + (signs * effect_at[others]).T @ inverse
    solver[:, :m] -= solver[:, :m].mean(axis=0)  # zero but for rounding: values add up to the last bits
    solver[:, m] += (1 - solver[:, m].sum()) / features
    own = slice(m - len(unseen), m)
    inverse[own] *= (np.sqrt(unseen) / np.diagonal(inverse)[own])[:, None]
    return solver[:, :m], solver[:, m], inverse[own, :m].astype(np.float32)


def _prior(features: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariance of d at two sets by their distance (0 .. features), and of d with a feature's interaction part of its
    Shapley value, but for the feature's sign, by the minus signs among the other features."""
    orders = list(range(3, min(features, HIGHEST_ORDER) + 1, 2))
    shares = {k: ORDER_RATE**k / factorial(k) for k in orders}
    whole = sum(shares.values())
    all_of, others_of = _symmetric(features, max(orders)), _symmetric(features - 1, max(orders))
    covariance, effect = np.zeros(features + 1), np.zeros(features)
    for k in orders:
        scale = shares[k] / whole
        covariance += [scale * (row[k] / comb(features, k)) for row in all_of]
        effect += [scale * (row[k - 1] / comb(features, k)) / k for row in others_of]
    return covariance, effect


def _symmetric(count: int, highest: int) -> list[list[int]]:
    """Elementary symmetric polynomials 0 .. highest of `count` signs, h = 0 .. count of which are minus.

    The coefficients of (1 - t)^h (1 + t)^(count - h), in whole numbers: in floats the alternating sums lose all digits.
    """
    rows = [[comb(count, k) for k in range(highest + 1)]]
    for _ in range(count):
        before, now = rows[-1], [1]
        for k in range(1, highest + 1):  # times (1 - t), divided by (1 + t)
            now.append(before[k] - before[k - 1] - now[k - 1])
        rows.append(now)
    return rows


def _invert(matrix: NDArray[np.float64]) -> None:
    """Replace a symmetric positive definite matrix (C order) by its inverse, in its own memory."""
    upper = cholesky(matrix.T, lower=True, overwrite_a=True, check_finite=False)
    inverse, trouble = lapack.dpotri(upper, lower=1, overwrite_c=1)
    if trouble:
        raise np.linalg.LinAlgError(f"the covariance of the design is singular (dpotri: {trouble})")
    for a in range(0, len(matrix), _ROWS_AT_ONCE):  # Fortran's lower triangle is filled; mirror it block by block
        b = a + _ROWS_AT_ONCE
        inverse[:a, a:b] = inverse[a:b, :a].T
        block = inverse[a:b, a:b]
        block[...] = np.tril(block) + np.tril(block, -1).T
    if not np.shares_memory(inverse, matrix):
        matrix[...] = inverse


# -- the rows ------------------------------------------------------------------------------------------------------
def explain_rows(
    function: Function,
    rows: NDArray[Any],
    background: NDArray[Any],
    weights: NDArray[Any] | None,
    design: Design,
    players: NDArray[Any] | None = None,
    game_of: Callable[[Function, NDArray[Any], NDArray[np.float64]], Game] | None = None,
) -> Estimate:
    """Shapley values of rows[n, columns] against background[b, columns] with weights[b] (None: equal).

    `players`: for each column the number of the player that it belongs to (features explained together); None: each
    column is a player. A row's result depends on this row alone: its calls of the function have a fixed shape and hold
    no other row. A player whose columns equal the whole background's has no effect: it gets 0 and is not
    played, so rows with 12 or fewer others are exact (`shap` compares with a tolerance of 1e-8 there, which
    loses small-valued features; here equal means equal, NaN with NaN). game_of(function, background, shares): who asks the
    function; None: `Calls`.
    """
    kind = np.float32 if rows.dtype == background.dtype == np.float32 else np.float64
    rows, background = _frozen(rows, kind), _frozen(background, kind)
    if rows.ndim != 2 or background.ndim != 2 or rows.shape[1] != background.shape[1] or not len(background):
        raise WrongQuestion(f"Rows of shape {rows.shape} do not go with a background of shape {background.shape}.")
    player = _players(players, design, rows)
    background, shares = _shares(background, weights)
    game = (game_of or Calls)(function, background, shares)
    base = game.base()
    n, outputs = len(rows), len(base)
    shape = (n, design.features, outputs)
    values, errors, prediction = np.zeros(shape), np.zeros(shape), np.empty((n, outputs))
    exact = np.zeros(n, bool)
    varies = _varying(rows, background, player, design.features)
    levels = _levels(varies, design.features)
    for level in np.unique(levels).tolist():  # one narrower design in memory at a time
        inner = design.at(level)
        for i in np.flatnonzero(levels == level).tolist():
            played = _played(varies[i], level)
            worth = game.worth(rows[i], inner, _columns(played, player), base)
            prediction[i] = worth[0]
            values[i, played], errors[i, played] = _solve(inner, worth, base)
            exact[i] = inner.exact
            _silence(values[i], errors[i], varies[i], level)
    return Estimate(values, errors, base, prediction, exact)


class Game(Protocol):
    """v of one background: what coalitions are worth."""

    def base(self) -> NDArray[np.float64]:
        """(outputs,), v of nothing."""
        ...

    def worth(
        self, row: NDArray[Any], design: Design, column_of: NDArray[np.int64], base: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(1 + S, outputs), v of [everything, then the design's coalitions]. `column_of`: each column's place in the design's
        masks, -1 where the column is not played (row and background agree there, or it does not matter)."""
        ...


@dataclass(frozen=True, slots=True)
class Calls:
    """The game by calls of the function with rows that are mixed here."""

    function: Function
    background: NDArray[Any]
    shares: NDArray[np.float64]

    def base(self) -> NDArray[np.float64]:
        return _base(self.function, self.background, self.shares)

    def worth(
        self, row: NDArray[Any], design: Design, column_of: NDArray[np.int64], base: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _worth(self.function, row, self.background, self.shares, design, column_of, base)


def scratch_bytes(
    features: int,
    background: int,
    outputs: int,
    itemsize: int = 8,
    evaluations: int | None = None,
    columns: int = 0,
) -> int:
    """Bytes that `explain_rows` takes besides its arguments, its answer and what the model itself takes inside a call.

    At most 16 MiB for a model of a few outputs. `columns`: of the data, where they are not the features.
    """
    columns = columns or features
    pairs = _pairs(features, default_evaluations(features) if evaluations is None else evaluations)
    sets, stand_ins = layout(2 * pairs + 1, background, columns, outputs, itemsize)
    worth = (2 * pairs + 1) * outputs * 8
    call = sets * stand_ins * (columns * itemsize + outputs * 8) + sets * columns * itemsize
    rows = _base_rows(background, columns, itemsize)
    solve = pairs * outputs * 8
    if not _is_complete(features, 2 * pairs):
        part = min(pairs, features + PART_PAIRS)
        solve += pairs * outputs * 4 + part * (12 + min(features, _ROWS_AT_ONCE) * 8) + features * outputs * 16
    answer_and_shares = features * outputs * 16 + background * 16 + 32_768
    return max(worth + call, worth + solve, rows * (columns * itemsize + outputs * 8)) * 21 // 20 + answer_and_shares


def layout(sets: int, background: int, columns: int, outputs: int, itemsize: int) -> tuple[int, int]:
    """(coalitions, background rows) of every call of the model for one row: fixed by the shape of the question.

    Cut evenly, so that little of the last call is padding.
    """
    most = max(1, min(BATCH_ROWS, BATCH_BYTES // (columns * itemsize), OUTPUT_BYTES // (outputs * 8)))
    if background <= most:
        chosen = BATCH_BYTES // ((background + 1) * columns * itemsize)  # which columns a coalition takes: one more row
        calls = -(-sets // max(1, min(most // background, chosen)))
        return -(-sets // calls), background
    return 1, -(-background // -(-background // most))


def _solve(
    design: Design, worth: NDArray[np.float64], base: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(values, standard errors), both (features, outputs), from the worth of [everything, then `design.masks`]."""
    difference = worth[1::2] - worth[2::2]
    values = design.solver @ difference + design.full[:, None] * (worth[0] - base)
    variance = np.zeros_like(values)
    if design.exact:
        return values, variance
    if not len(design.left_out):
        from millrace.analyses.explain.kernels import walks

        whole = worth[0] - base
        return values, walks.spread(
            design.masks[::2], design.solver, design.part_starts, difference, whole, values, design.scheme
        )
    residual = np.empty(difference.shape[::-1], np.float32)
    _residuals(design.masks, values, difference, residual)
    start = 0
    for a, b in zip(design.part_starts[:-1].tolist(), design.part_starts[1:].tolist(), strict=True):
        size = (b - a, design.shared + b - a)
        left_out = design.left_out[start : start + size[0] * size[1]].reshape(size)
        for k, own in enumerate(residual):  # a product by a vector each: the matrix is read at the memory's speed
            change = left_out[:, : design.shared] @ own[: design.shared] + left_out[:, design.shared :] @ own[a:b]
            square = np.square(change, dtype=np.float64)
            for j in range(0, len(values), _ROWS_AT_ONCE):
                variance[j : j + _ROWS_AT_ONCE, k] += np.square(design.solver[j : j + _ROWS_AT_ONCE, a:b]) @ square
        start += size[0] * size[1]
    return values, np.sqrt(variance)


def _worth(
    function: Function,
    row: NDArray[Any],
    background: NDArray[Any],
    shares: NDArray[np.float64],
    design: Design,
    column_of: NDArray[np.int64],
    base: NDArray[np.float64],
) -> NDArray[np.float64]:
    """See `Game.worth`."""
    count, outputs = len(design.masks) + 1, len(base)
    worth = np.zeros((count, outputs))
    sets, stand_ins = layout(count, len(background), len(row), outputs, row.itemsize)
    buffer = np.empty((sets, stand_ins, len(row)), row.dtype)
    bits = np.dtype(f"i{row.itemsize}")
    take = np.empty((sets, len(row)), bits)
    for a in range(0, count, sets):
        real = min(sets, count - a)
        _choose(design.masks, column_of, a, take)
        for b in range(0, len(background), stand_ins):
            part = background[b : b + stand_ins]
            _fill(buffer.view(bits), row.view(bits), part.view(bits), take)
            out = _ask(function, buffer.reshape(-1, len(row)), outputs).reshape(sets, stand_ins, outputs)
            if a == 0 and b == 0:
                whole = out[0, 0].copy()
            _average(out[:real, : len(part)], shares[b : b + stand_ins], worth[a : a + real])
            del out  # or two calls' outputs would be in memory at once
    worth[0] = whole  # the row itself, not its rounded mean over as many copies as there is background
    return worth


def _base(function: Function, background: NDArray[Any], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The function's weighted mean over the background, in calls of one shape."""
    size = _base_rows(len(background), background.shape[1], background.itemsize)
    buffer = np.empty((size, background.shape[1]), background.dtype)
    base: NDArray[np.float64] | None = None
    for a in range(0, len(background), size):
        part = background[a : a + size]
        buffer[: len(part)] = part
        buffer[len(part) :] = part[-1]
        out = _ask(function, buffer, None if base is None else len(base))
        if base is None:
            base = np.zeros(out.shape[1])
        _average(out[None, : len(part)], shares[a : a + size], base[None, :])
    assert base is not None
    return base


def _base_rows(background: int, columns: int, itemsize: int) -> int:
    most = max(1, min(BATCH_ROWS, BATCH_BYTES // (columns * itemsize)))
    return -(-background // -(-background // most))


def _ask(function: Function, rows: NDArray[Any], outputs: int | None) -> NDArray[np.float64]:
    out = np.asarray(function(rows))
    if out.ndim == 1:
        out = out[:, None]
    if out.ndim != 2 or len(out) != len(rows) or (outputs is not None and out.shape[1] != outputs):
        raise ModelTrouble(
            f"The model gave an array of shape {out.shape} for {len(rows)} rows; (rows,) or (rows, outputs) "
            "is needed, with the same outputs in every call."
        )
    return _frozen(out, np.float64)


def _frozen(array: NDArray[Any], kind: Any) -> NDArray[Any]:
    """Read-only and in C order: one compiled version of each kernel for mapped and for own memory."""
    frozen = np.ascontiguousarray(array, dtype=kind).view()
    frozen.flags.writeable = False
    return frozen


def _shares(background: NDArray[Any], weights: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Background rows that weigh something, and their shares, which add up to 1."""
    if weights is None:
        return background, _frozen(np.full(len(background), 1 / len(background)), np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    sound = (
        weights.shape == (len(background),) and np.isfinite(weights).all() and (weights >= 0).all() and weights.any()
    )
    if not sound:
        raise WrongQuestion(
            f"Background weights must be {len(background)} numbers, none negative and not all 0: one for each row."
        )
    if not weights.all():
        background = _frozen(background[weights > 0], background.dtype)
        weights = weights[weights > 0]
    return background, _frozen(weights / weights.sum(), np.float64)


# -- players -------------------------------------------------------------------------------------------------------
def _players(players: Any, design: Design, rows: NDArray[Any]) -> NDArray[np.int64]:
    if players is None:
        players = np.arange(rows.shape[1])
    player = np.asarray(players, dtype=np.int64)
    if player.shape != (rows.shape[1],) or not np.array_equal(np.unique(player), np.arange(design.features)):
        raise WrongQuestion(
            f"{rows.shape[1]} columns do not make the {design.features} players of the design: each column "
            "needs the number of its player, and each player a column."
        )
    return player


def _varying(
    rows: NDArray[Any], background: NDArray[Any], player: NDArray[np.int64], features: int
) -> NDArray[np.bool_]:
    """(n, features): whether some column of the player differs from some background row. NaN equals NaN."""
    kind = np.float32 if rows.dtype == background.dtype == np.float32 else np.float64
    varies = np.zeros((len(rows), features), bool)
    _compare(_frozen(rows, kind), _frozen(background, kind), player, varies)
    return varies


def _levels(varies: NDArray[np.bool_], features: int) -> NDArray[np.int64]:
    """Players in the design of each row: those that vary up to 12, then steps of a quarter, filled up with others.

    Steps, because a design takes a fraction of a second to make and nearly every number of varying players occurs.
    """
    steps = list(range(EXACT_FEATURES + 1))
    while steps[-1] < features:
        steps.append(max(steps[-1] + 1, steps[-1] * 5 // 4))
    counts = np.count_nonzero(varies, axis=1)
    return np.minimum(np.array(steps)[np.searchsorted(steps, counts)], features)


def _played(varies: NDArray[np.bool_], level: int) -> NDArray[np.int64]:
    """Numbers of the players in the row's design: all that vary, and the first of the others to make up the level."""
    fill = np.flatnonzero(~varies)[: level - np.count_nonzero(varies)]
    return np.sort(np.concatenate([np.flatnonzero(varies), fill]))


def _columns(played: NDArray[np.int64], player: NDArray[np.int64]) -> NDArray[np.int64]:
    place = np.full(player.max(initial=-1) + 1, -1, np.int64)
    place[played] = np.arange(len(played))
    return place[player]


def _silence(values: NDArray[np.float64], errors: NDArray[np.float64], varies: NDArray[np.bool_], level: int) -> None:
    """Players that were only played to make up the level have no effect: what they got goes back to the others."""
    count = np.count_nonzero(varies)
    if level > count > 0:
        values[varies] += values[~varies].sum(axis=0) / count
    values[~varies] = 0
    errors[~varies] = 0


# -- loops ---------------------------------------------------------------------------------------------------------
def _read_only(kind: Any, dimensions: int, order: str = "C") -> Any:
    return types.Array(kind, dimensions, order, readonly=True)


_F8, _F4, _B1, _I8 = types.float64, types.float32, types.boolean, types.int64


_REAL = (_F4, _F8)


@njit(
    [types.void(_read_only(k, 2), _read_only(k, 2), _read_only(_I8, 1), types.Array(_B1, 2, "C")) for k in _REAL],
    cache=True,
)
def _compare(rows: Any, background: Any, player: Any, varies: Any) -> None:
    for j in range(rows.shape[1]):
        first = background[0, j]
        constant = True
        for b in range(background.shape[0]):
            z = background[b, j]
            if z != first and not (z != z and first != first):
                constant = False
                break
        for i in range(rows.shape[0]):
            z = rows[i, j]
            if not constant or (z != first and not (z != z and first != first)):
                varies[i, player[j]] = True


@njit(
    [
        types.void(types.Array(k, 3, "C"), _read_only(k, 1), _read_only(k, 2), types.Array(k, 2, "C"))
        for k in (types.int32, _I8)
    ],
    cache=True,
)
def _fill(buffer: Any, row: Any, background: Any, take: Any) -> None:
    """buffer[s, b] = row where take[s] is -1, background[b] where it is 0; what is over at the end repeats the last.

    On the bits of the numbers: twice as fast as choosing between floats, and NaN keeps its payload.
    """
    for s in range(buffer.shape[0]):
        for b in range(buffer.shape[1]):
            c = min(b, background.shape[0] - 1)
            for j in range(buffer.shape[2]):
                buffer[s, b, j] = (row[j] & take[s, j]) | (background[c, j] & ~take[s, j])


@njit(
    [types.void(_read_only(_B1, 2), _read_only(_I8, 1), _I8, types.Array(k, 2, "C")) for k in (types.int32, _I8)],
    cache=True,
)
def _choose(masks: Any, column_of: Any, start: int, take: Any) -> None:
    """take[s] of coalition start + s, where 0 is everything and s > 0 is masks[s - 1]; the last one repeats."""
    for s in range(take.shape[0]):
        at = min(start + s, masks.shape[0]) - 1
        for j in range(take.shape[1]):
            take[s, j] = -1 if at < 0 or column_of[j] < 0 or masks[at, column_of[j]] else 0


@njit(types.void(_read_only(_F8, 3, "A"), _read_only(_F8, 1), types.Array(_F8, 2, "C")), cache=True)
def _average(out: Any, shares: Any, worth: Any) -> None:
    """worth[s, k] += sum over b of shares[b] out[s, b, k], in the order of b."""
    for s in range(out.shape[0]):
        for k in range(out.shape[2]):
            total = 0.0
            for b in range(out.shape[1]):
                total += shares[b] * out[s, b, k]
            worth[s, k] += total


@njit(
    types.void(_read_only(_B1, 2), types.Array(_F8, 2, "C"), types.Array(_F8, 2, "C"), types.Array(_F4, 2, "C")),
    cache=True,
)
def _residuals(masks: Any, values: Any, difference: Any, residual: Any) -> None:
    """difference - sum of (value in the set, - value outside), rounded after the subtraction, not before."""
    for k in range(values.shape[1]):
        for p in range(difference.shape[0]):
            fitted = 0.0
            for j in range(values.shape[0]):
                fitted += values[j, k] if masks[2 * p, j] else -values[j, k]
            residual[k, p] = difference[p, k] - fitted
