"""Disjoint pairs of one treated and one untreated row that are near each other, for Rosenbaum's bounds.

The matching estimate uses a row as often as it is the nearest; a signed rank test needs pairs that share no row. So pairs are
made anew, the nearest first (greedy matching without replacement), and no further apart than CALIPER standard deviations of the
score's logit (Austin 2011). See also: `matching`, `rosenbaum`.
"""

from __future__ import annotations

import heapq

import numba
import numpy

from millrace.analyses.refute.kernels import propensity as scores_
from millrace.analyses.refute.kernels.propensity import Array
from millrace.analyses.refute.study import Study

CALIPER = 0.2
CANDIDATES = 8
"""Nearest untreated rows of a treated one that are tried, in the Mahalanobis metric."""


def pairs(study: Study, metric: str = "propensity") -> tuple[Array, Array]:
    """(treated, untreated): row numbers (pairs,) of each. Raises `propensity.Separation`, as matching on the score does."""
    base = scores_.whitening(study)
    treated = numpy.asarray(study.treatment) > 0
    if metric == "mahalanobis":
        return _in_space(base.rows(study.confounders)[:, 1:], treated)
    logits = scores_.fit(study, base).logits
    order = numpy.argsort(logits, kind="stable")
    first, second = _on_line(logits[order], treated[order], CALIPER * float(logits.std()))
    first, second = order[first], order[second]
    swapped = treated[second]
    return numpy.where(swapped, second, first), numpy.where(swapped, first, second)


@numba.njit(cache=True)
def _on_line(places, treated, most):  # type: ignore[no-untyped-def]
    """Greedy pairs of rows in ascending order: the nearest two of different arms go first, and what stood on either side of them
    are neighbours then."""
    n = len(places)
    before, after = numpy.arange(n) - 1, numpy.arange(n) + 1
    free = numpy.ones(n, numpy.bool_)
    heap = [(0.0, 0, 0)]
    heap.pop()
    for i in range(n - 1):
        if treated[i] != treated[i + 1] and places[i + 1] - places[i] <= most:
            heap.append((places[i + 1] - places[i], i, i + 1))
    heapq.heapify(heap)
    first, second = numpy.empty(n // 2, numpy.int64), numpy.empty(n // 2, numpy.int64)
    found = 0
    while len(heap) > 0:
        _, i, j = heapq.heappop(heap)
        if not (free[i] and free[j]):
            continue
        free[i], free[j] = False, False
        first[found], second[found] = i, j
        found += 1
        low, high = before[i], after[j]
        if low >= 0:
            after[low] = high
        if high < n:
            before[high] = low
        if low >= 0 and high < n and treated[low] != treated[high] and places[high] - places[low] <= most:
            heapq.heappush(heap, (places[high] - places[low], low, high))
    return first[:found], second[:found]


def _in_space(space: Array, treated: Array) -> tuple[Array, Array]:
    """Each treated row's nearest untreated ones, the shortest distances first, each row once."""
    from scipy.spatial import cKDTree

    yes, no = numpy.flatnonzero(treated), numpy.flatnonzero(~treated)
    count = min(CANDIDATES, len(no))
    distance, near = cKDTree(space[no]).query(space[yes], k=count)
    distance, near = distance.reshape(len(yes), count), near.reshape(len(yes), count)
    taken_yes, taken_no = numpy.zeros(len(yes), bool), numpy.zeros(len(no), bool)
    chosen = []
    for flat in numpy.argsort(distance, axis=None, kind="stable"):
        i, j = int(flat) // count, int(near.flat[flat])
        if not (taken_yes[i] or taken_no[j]):
            taken_yes[i] = taken_no[j] = True
            chosen.append((yes[i], no[j]))
    made = numpy.array(chosen, numpy.int64).reshape(-1, 2)
    return made[:, 0], made[:, 1]
