"""Random numbers of the refutation tests: who is resampled, permuted or made up in simulation i.

Every number comes from a counter stream that is keyed by (seed, test, i, piece): splitmix64 (Steele, Lea and Flood
2014) started at a mixed key. So simulation i is the same in every batch, process and order, and counts can be made again
for 1,024 rows at a time instead of being kept for n x B. How many of the n draws fall into each piece of 1,024 rows is
drawn first (multinomial, or multivariate hypergeometric), which makes the pieces independent given their totals.

Knows rows, clusters and strata, not estimators. See also: `ols` and the other estimators, which use these numbers as
weights (rows are never copied).
"""

from __future__ import annotations

from typing import Any, Literal

import numba
import numpy

from millrace.run.errors import WrongQuestion

CHUNK = 1024
"""Rows of one piece. 1,024 = 2^10, so that one 64-bit number gives six rows of a whole piece."""

KEPT_BYTES = 64 << 20
"""`Counts` keeps its counts when they are at most this large: making them again costs a tenth to a third of a pass."""

Array = numpy.ndarray[Any, Any]
Weighing = Literal["bootstrap", "subset"]

_KINDS = {"bootstrap": 1, "subset": 2, "placebo": 3, "random_cause": 4, "regenerated": 5, "chain": 6}
_MASK = (1 << 64) - 1

_GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)
_MIX_A = numpy.uint64(0xBF58476D1CE4E5B9)
_MIX_B = numpy.uint64(0x94D049BB133111EB)
_U1, _U7, _U10, _U24 = numpy.uint64(1), numpy.uint64(7), numpy.uint64(10), numpy.uint64(24)
_U27, _U30, _U31, _U32 = numpy.uint64(27), numpy.uint64(30), numpy.uint64(31), numpy.uint64(32)
_LOW7, _LOW10, _LOW24, _LOW32 = (numpy.uint64((1 << bits) - 1) for bits in (7, 10, 24, 32))
_U11 = numpy.uint64(11)


@numba.njit(inline="always")
def _mix(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> _U30)) * _MIX_A
    z = (z ^ (z >> _U27)) * _MIX_B
    return z ^ (z >> _U31)


@numba.njit(inline="always")
def _start(seed, kind, i, piece):  # type: ignore[no-untyped-def]
    """Where the stream of (seed, kind, i, piece) begins; all uint64."""
    state = _mix(seed + _GOLDEN) + kind * _GOLDEN
    state = _mix(state) + i * _MIX_A
    return _mix(_mix(state) + piece * _MIX_B)


@numba.njit(inline="always")
def _below(z, bound):  # type: ignore[no-untyped-def]
    """Integer in 0..bound-1 from the upper half of z; the bias is at most bound / 2^32."""
    return ((z >> _U32) * bound) >> _U32


@numba.njit(cache=True)
def _draw(seed, kind, first, piece, totals, out):  # type: ignore[no-untyped-def]
    """out[b] = counts of totals[b] draws with replacement from its columns."""
    rows = numpy.uint64(out.shape[1])
    for b in range(out.shape[0]):
        state = _start(seed, kind, first + numpy.uint64(b), piece)
        row, total, done = out[b], totals[b], 0
        row[:] = 0
        if rows == CHUNK:
            while done + 6 <= total:
                state += _GOLDEN
                z = _mix(state)
                for _ in range(6):
                    row[z & _LOW10] += 1
                    z >>= _U10
                done += 6
        while done < total:
            state += _GOLDEN
            row[_below(_mix(state), rows)] += 1
            done += 1


@numba.njit(cache=True)
def _select(seed, kind, first, piece, totals, out):  # type: ignore[no-untyped-def]
    """out[b] = exactly totals[b] ones among its columns (selection sampling, Fan, Muller and Rezucha 1962)."""
    rows = out.shape[1]
    for b in range(out.shape[0]):
        state = _start(seed, kind, first + numpy.uint64(b), piece)
        row, left = out[b], numpy.int64(totals[b])
        for r in range(rows):
            state += _GOLDEN
            taken = numpy.int64(_below(_mix(state), numpy.uint64(rows - r))) < left
            row[r] = taken
            left -= taken


@numba.njit(cache=True)
def _shuffle(seed, kind, i, ends, values):  # type: ignore[no-untyped-def]
    """Fisher-Yates in place inside the consecutive groups of `values` that end at `ends`."""
    begin = 0
    for group in range(len(ends)):
        state = _start(seed, kind, i, numpy.uint64(group))
        for r in range(ends[group] - 1, begin, -1):
            state += _GOLDEN
            other = begin + numpy.int64(_below(_mix(state), numpy.uint64(r - begin + 1)))
            values[r], values[other] = values[other], values[r]
        begin = ends[group]


_EDGE = 3.442619855899
"""Marsaglia and Tsang (2000), 128 layers: where the tail begins; every layer has the area _AREA."""
_AREA = 9.91256303526217e-3


def _layers() -> tuple[Array, Array]:
    """Right edges of the 128 layers (129 of them, the last 0) and the density there."""
    edges = numpy.zeros(129)
    edges[0] = _AREA / numpy.exp(-0.5 * _EDGE**2)
    edges[1] = _EDGE
    for layer in range(2, 128):
        edges[layer] = numpy.sqrt(-2.0 * numpy.log(_AREA / edges[layer - 1] + numpy.exp(-0.5 * edges[layer - 1] ** 2)))
    return edges, numpy.exp(-0.5 * edges**2)


_EDGES, _HEIGHTS = _layers()
_TINY = 2.0**-53


@numba.njit(cache=True)
def _normal(seed, kind, first, piece, out):  # type: ignore[no-untyped-def]
    """out[b] = standard normal numbers by the ziggurat; layer, sign and place use different bits."""
    inner = numpy.empty(128)
    for layer in range(128):
        inner[layer] = _EDGES[layer + 1] / _EDGES[layer]
    for b in range(out.shape[0]):
        state = _start(seed, kind, first + numpy.uint64(b), piece)
        row = out[b]
        for r in range(row.shape[0]):
            if r & 1 == 0:
                state += _GOLDEN
                pair = _mix(state)
                z = pair & _LOW32
            else:
                z = pair >> _U32
            while True:
                layer = numpy.int64(z & _LOW7)
                sign = 1.0 - 2.0 * numpy.float64((z >> _U7) & _U1)
                share = (numpy.float64((z >> numpy.uint64(8)) & _LOW24) + 0.5) * 2.0**-24
                x = share * _EDGES[layer]
                if share < inner[layer]:
                    break
                state += _GOLDEN
                u = (numpy.float64(_mix(state) >> _U11) + 0.5) * _TINY
                if layer == 0:
                    found = False
                    while not found:  # the tail beyond _EDGE
                        state += _GOLDEN
                        v = (numpy.float64(_mix(state) >> _U11) + 0.5) * _TINY
                        x = -numpy.log(u) / _EDGE
                        found = -2.0 * numpy.log(v) > x * x
                        if not found:
                            state += _GOLDEN
                            u = (numpy.float64(_mix(state) >> _U11) + 0.5) * _TINY
                    x += _EDGE
                    break
                if _HEIGHTS[layer] + u * (_HEIGHTS[layer + 1] - _HEIGHTS[layer]) < numpy.exp(-0.5 * x * x):
                    break
                state += _GOLDEN
                z = _mix(state) & _LOW32
            row[r] = sign * x


def chunks(rows: int) -> int:
    """How many pieces of CHUNK rows there are; the last may be shorter."""
    return -(-rows // CHUNK)


def _word(number: int) -> numpy.uint64:
    return numpy.uint64(number & _MASK)


def _totals(units: int, test: Weighing, seed: int, first: int, count: int, fraction: float) -> Array:
    """(chunks, count): how many of the draws of each simulation fall into each piece of the units."""
    sizes = numpy.minimum(CHUNK, units - CHUNK * numpy.arange(chunks(units), dtype=numpy.int64))
    out = numpy.empty((count, len(sizes)), numpy.int64)
    for b in range(count):
        key = numpy.array([seed & _MASK, (_KINDS[test] << 56) + first + b], numpy.uint64)
        generator = numpy.random.Generator(numpy.random.Philox(key=key))
        if test == "bootstrap":
            out[b] = generator.multinomial(units, sizes / units)
        else:
            out[b] = generator.multivariate_hypergeometric(sizes, taken(units, fraction), method="marginals")
    return numpy.ascontiguousarray(out.T)


def taken(units: int, fraction: float) -> int:
    """How many rows (or clusters) a subset has."""
    return round(fraction * units)


class Counts:
    """How often each row is in simulations first .. first + count - 1, a piece of 1,024 rows at a time.

    n: rows. test: `bootstrap` (multinomial(n), or multinomial over the clusters, whole clusters) or `subset` (exactly
    round(fraction * n) ones, or whole clusters, round(fraction * G) of them). clusters: int (n,) codes from 0 without
    holes. kept_bytes: counts of at most this size are made once and kept, larger ones are made again by every `chunk`.
    """

    def __init__(
        self,
        n: int,
        test: Weighing,
        seed: int,
        first: int,
        count: int,
        fraction: float = 0.8,
        clusters: Array | None = None,
        kept_bytes: int = 0,
    ) -> None:
        if test not in ("bootstrap", "subset"):
            raise WrongQuestion(f"Rows are weighed in the tests bootstrap and subset, not in {test!r}.")
        self.n, self.count, self.chunks = n, count, chunks(n)
        self._test, self._seed, self._first, self._clusters = test, _word(seed), _word(first), clusters
        self._units = n if clusters is None else int(clusters.max()) + 1
        self._totals = _totals(self._units, test, seed, first, count, fraction)
        self._whole: Array | None = None
        if clusters is not None or count * n <= kept_bytes:
            self._whole = numpy.empty((chunks(self._units), count, CHUNK), numpy.uint8)
            for k in range(len(self._whole)):
                size = min(CHUNK, self._units - k * CHUNK)
                self._whole[k, :, :size] = self._made(k)
        self._by_cluster: Array | None = None
        if clusters is not None:
            by_unit = self._whole.transpose(1, 0, 2).reshape(count, -1)  # type: ignore[union-attr]
            self._by_cluster, self._whole = numpy.ascontiguousarray(by_unit[:, : self._units]), None

    def _made(self, k: int) -> Array:
        out = numpy.empty((self.count, min(CHUNK, self._units - k * CHUNK)), numpy.uint8)
        make = _draw if self._test == "bootstrap" else _select
        make(self._seed, _word(_KINDS[self._test]), self._first, _word(k), self._totals[k], out)
        return out

    def chunk(self, k: int) -> Array:
        """uint8 (count, rows of piece k), not to be written to; piece k is rows 1,024 k .. 1,024 (k + 1) - 1."""
        begin = k * CHUNK
        if self._by_cluster is not None:
            return self._by_cluster[:, self._clusters[begin : begin + CHUNK]]  # type: ignore[index]
        if self._whole is not None:
            return self._whole[k, :, : min(CHUNK, self.n - begin)]
        return self._made(k)

    def rows(self) -> Array:
        """uint8 (count, n): all of it, for tests and for small studies."""
        return numpy.concatenate([self.chunk(k) for k in range(self.chunks)], axis=1)


def counts(n: int, test: Weighing, seed: int, i: int, *, fraction: float = 0.8, clusters: Array | None = None) -> Array:
    """uint8 (n,): how often each row is in simulation i. See `Counts`."""
    return Counts(n, test, seed, i, 1, fraction, clusters).rows()[0]


class Shuffler:
    """Permutations of one treatment; what does not depend on i is worked out once.

    values: (n,), any dtype: the same places change whatever the dtype. strata, clusters: as in `permuted`.
    """

    def __init__(self, values: Array, strata: Array | None = None, clusters: Array | None = None) -> None:
        self._values = numpy.ascontiguousarray(values)
        self._order: Array | None = None
        self._members: Array | None = None
        self._starts: Array | None = None
        units, groups = self._values, strata
        if clusters is not None:
            size = int(clusters.max()) + 1
            of_cluster = numpy.empty(size, self._values.dtype)
            of_cluster[clusters] = self._values
            if numpy.array_equal(of_cluster[clusters], self._values):
                self._members, units = clusters, of_cluster
                groups = None if strata is None else _strata_of_clusters(strata, clusters, size)
            elif strata is None:
                groups = clusters
                self._starts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(clusters))])
        self._units = units
        self._ends = numpy.array([len(units)], numpy.int64)
        if groups is not None:
            self._order = numpy.argsort(groups, kind="stable")
            self._ends = numpy.cumsum(numpy.bincount(groups), dtype=numpy.int64)

    def write(self, out: Array, seed: int, i: int) -> None:
        """out (n,): the values, permuted as simulation i wants them."""
        units = self._units.astype(out.dtype) if self._order is None else self._units[self._order].astype(out.dtype)
        _shuffle(_word(seed), _word(_KINDS["placebo"]), _word(i), self._ends, units)
        if self._starts is not None:
            units = self._chained(units, seed, i)
        if self._order is not None:
            placed = numpy.empty_like(units)
            placed[self._order] = units
            units = placed
        out[:] = units if self._members is None else units[self._members]

    def _chained(self, units: Array, seed: int, i: int) -> Array:
        """The clusters' own values (shuffled inside each) one cluster after the other in random order, turned by a random
        number of rows, and dealt out to the clusters again: what belongs together stays together, elsewhere. Shuffled inside
        their clusters alone, they would keep the part of the treatment that differs between clusters, and its effect."""
        assert self._starts is not None
        key = numpy.array([seed & _MASK, (_KINDS["chain"] << 56) + i], numpy.uint64)
        generator = numpy.random.Generator(numpy.random.Philox(key=key))
        order = generator.permutation(len(self._starts) - 1)
        chain = numpy.concatenate([units[self._starts[g] : self._starts[g + 1]] for g in order])
        return numpy.roll(chain, int(generator.integers(len(chain))))


def _strata_of_clusters(strata: Array, clusters: Array, size: int) -> Array:
    of_cluster = numpy.empty(size, strata.dtype)
    of_cluster[clusters] = strata
    if not numpy.array_equal(of_cluster[clusters], strata):
        raise WrongQuestion(
            "The treatment is the same for all rows of a cluster, so a placebo moves it between whole clusters; but some "
            "clusters lie in more than one stratum. Give strata that contain whole clusters, or no strata."
        )
    return of_cluster


def permuted(
    treatment: Array, seed: int, i: int, *, strata: Array | None = None, clusters: Array | None = None
) -> Array:
    """float64 (n,): the placebo of simulation i, the treatment in another order.

    strata: int (n,) codes from 0; rows change places inside a stratum only. clusters: int (n,) codes from 0. When the
    treatment is constant inside clusters, the clusters' treatments are permuted over the clusters (so their number of
    rows may change, as in cluster randomisation); else see `Shuffler`: runs of rows of a cluster move to other clusters
    (with strata: rows change places inside strata). WrongQuestion when whole clusters are permuted and one lies in two.
    """
    out = numpy.empty(len(treatment))
    Shuffler(numpy.asarray(treatment, numpy.float64), strata, clusters).write(out, seed, i)
    return out


def normals(kind: Literal["random_cause", "regenerated"], seed: int, first: int, k: int, out: Array) -> None:
    """out (count, rows of piece k), float32 or float64: standard normal numbers of simulations first, first + 1, ...

    The numbers have at most 24 significant bits, so that both dtypes hold the same.
    """
    single = out if out.dtype == numpy.float32 else numpy.empty(out.shape, numpy.float32)
    _normal(_word(seed), _word(_KINDS[kind]), _word(first), _word(k), single)
    if single is not out:
        out[:] = single


def _normal_column(kind: Literal["random_cause", "regenerated"], n: int, seed: int, i: int) -> Array:
    out = numpy.empty((1, n))
    for k in range(chunks(n)):
        normals(kind, seed, i, k, out[:, k * CHUNK : (k + 1) * CHUNK])
    return out[0]


def column(n: int, seed: int, i: int) -> Array:
    """float64 (n,): standard normal, independent of everything: the random common cause of simulation i."""
    return _normal_column("random_cause", n, seed, i)


def regenerated(treatment: Array, seed: int, i: int) -> Array:
    """float64 (n,): a normal column with the mean and the standard deviation (n in the denominator) of the treatment."""
    drawn = _normal_column("regenerated", len(treatment), seed, i)
    return numpy.mean(treatment) + numpy.std(treatment) * drawn
