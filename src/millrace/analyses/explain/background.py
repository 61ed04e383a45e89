"""Rows that stand for 'feature unknown': the user's own with their weights, or some that represent the data.

Representatives are rows of the data, not averages (an average of two categories, or of two clusters, is nobody). They
are drawn far from each other (k-means++, Arthur and Vassilvitskii 2007), moved to the middle of the rows near them,
and weigh as many rows as are nearest to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import fsum
from typing import TYPE_CHECKING, Any

from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    import numpy

    from millrace.run.tables import Rows

SEEN_ROWS = 2048
"""Rows of the data that are looked at, spread over all of it: enough for weights of some hundred representatives."""
MOVES = 2


def given_weights(weights: Any, rows: int) -> numpy.ndarray[Any, Any]:
    """The user's weights of background rows, which then add up to 1; `WrongQuestion` when they cannot be weights."""
    import numpy

    if weights is None:
        return numpy.full(rows, 1.0 / rows)
    try:
        found = numpy.asarray(weights, numpy.float64).ravel()
    except (TypeError, ValueError) as e:
        raise WrongQuestion(
            f"background_weights are not numbers ({e}). Give one number for each background row."
        ) from e
    if len(found) != rows:
        raise WrongQuestion(
            f"There are {len(found)} background_weights for {rows} background rows: give one for each row."
        )
    if not (numpy.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise WrongQuestion(
            "background_weights must be finite, not negative, and not all zero: they say how much each background row counts."
        )
    return found / fsum(found.tolist())


@dataclass(frozen=True, slots=True)
class Everything:
    """The data as far as it is at hand. rows: all of it, or its first rows; count: how many rows there are in all; take:
    increasing row numbers -> these rows."""

    rows: Rows
    count: int
    take: Callable[[numpy.ndarray[Any, Any]], Rows]


def everything(rows: Rows) -> Everything:
    """Data in memory."""
    return Everything(rows, len(rows.values), lambda numbers: replace(rows, values=rows.values[numbers]))


def seen_rows(count: int, rng: numpy.random.Generator) -> numpy.ndarray[Any, Any]:
    """The numbers of the rows that representatives are looked for among, increasing."""
    import numpy

    return numpy.arange(count) if count <= SEEN_ROWS else numpy.sort(rng.choice(count, SEEN_ROWS, replace=False))


def representatives(
    rows: Rows, count: int, rng: numpy.random.Generator
) -> tuple[numpy.ndarray[Any, Any], numpy.ndarray[Any, Any]]:
    """(row numbers, increasing; weights that add up to 1) of at most `count` of these rows (see `seen_rows`)."""
    import numpy

    seen = numpy.arange(len(rows.values))
    places = _places(rows, seen)
    labels = numpy.zeros(places.shape[1], bool)
    labels[list(rows.categories)] = True
    chosen = [int(rng.integers(len(seen)))]
    nearest = _distances(places, places[chosen[0]], labels)
    owner = numpy.zeros(len(seen), numpy.int64)
    while len(chosen) < count and nearest.any():
        chosen.append(int(rng.choice(len(seen), p=nearest / nearest.sum())))
        away = _distances(places, places[chosen[-1]], labels)
        owner[away < nearest] = len(chosen) - 1
        nearest = numpy.minimum(nearest, away)
    for _ in range(MOVES):
        chosen = [_middle(places, numpy.flatnonzero(owner == k), labels) for k in range(len(chosen))]
        apart = numpy.stack([_distances(places, places[c], labels) for c in chosen])
        owner = apart.argmin(axis=0)
        chosen = [c for k, c in enumerate(chosen) if (owner == k).any()]
        owner = numpy.unique(owner, return_inverse=True)[1]
    order = numpy.argsort(chosen)
    weights = numpy.bincount(owner, minlength=len(chosen))[order] / len(seen)
    return seen[numpy.asarray(chosen)[order]], weights


def _places(rows: Rows, seen: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Columns in units of their own spread; what is missing or infinite lies in the middle. Codes stay codes."""
    import numpy

    places = rows.values[seen].astype(numpy.float64)
    places[~numpy.isfinite(places)] = numpy.nan
    for j in range(places.shape[1]):
        column = places[:, j]
        known = column[~numpy.isnan(column)]
        if j not in rows.categories and len(known):
            spread = float(known.std())
            column -= known.mean()
            if spread > 0:
                column /= spread
        column[numpy.isnan(column)] = -1.0 if j in rows.categories else 0.0
    return places


def _distances(
    places: numpy.ndarray[Any, Any], from_here: numpy.ndarray[Any, Any], labels: numpy.ndarray[Any, Any]
) -> numpy.ndarray[Any, Any]:
    """Squared; two labels are 1 apart. Rounded, so that the last bit of a sum, which processors differ in, chooses nothing."""
    import numpy

    away = (places - from_here) ** 2
    if labels.any():
        away[:, labels] = away[:, labels] > 0
    return numpy.round(away.sum(axis=1), 6)


def _middle(places: numpy.ndarray[Any, Any], mine: numpy.ndarray[Any, Any], labels: numpy.ndarray[Any, Any]) -> int:
    """Number of the row nearest to the mean (of labels: the first row's) of some rows."""
    import numpy

    centre = numpy.where(labels, places[mine[0]], places[mine].mean(axis=0))
    return int(mine[_distances(places[mine], centre, labels).argmin()])
