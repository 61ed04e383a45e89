"""Whether a column is better drawn with the index of all earlier columns: by what a held-out slice tells apart.

Likelihood judges badly between methods. So a column is learnt both ways from most rows, drawn for held-out rows from their
true earlier columns, and a classifier (LightGBM) tries to tell the drawn values from the true ones; the way that it tells
less well is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from millrace.analyses.twin.columns import MISSING_RANK, Column
from millrace.analyses.twin.kernels import measures

LEARNT, HELD = 20_000, 4_000
LEAST_ROWS = 1_000
DOUBT, MANY = 0.01, 15
"""Closer than DOUBT, the index is taken with MANY earlier columns, which no plain tree can gather."""
SEED = 20_240_601
BINS = 63
"""Of the classifier: it need not see more of a few thousand rows."""
FEW = 3
"""With fewer earlier columns an index has nothing to gather."""


def prefers_index(
    place: int, frame: Mapping[str, Any], related: Mapping[str, Any], columns: Sequence[Column], asked: Mapping[str, Any],
    learn: Callable[..., dict[str, Any]],
) -> bool:  # fmt: skip
    n = frame["codes"].shape[1]
    if place < FEW or n < LEAST_ROWS:
        return False
    some = numpy.random.default_rng(SEED).permutation(n)[: LEARNT + HELD]
    held = numpy.sort(some[-min(HELD, len(some) // 4) :])
    learnt = numpy.sort(some[: len(some) - len(held)])
    small = _taken(frame, numpy.concatenate([learnt, held]))
    rows, at = numpy.arange(len(learnt)), numpy.arange(len(learnt), len(some))
    told = []
    for indexed in (False, True):
        part = learn(place, small, related, columns, asked, indexed, rows)
        told.append(_told_apart(part, place, small, related, columns, at))
    return told[1] < told[0] + (DOUBT if place >= MANY else 0.0)


def _taken(frame: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    codes, ranks = frame["codes"][:, rows], frame["ranks"][:, rows]
    return {**frame, "codes": codes, "ranks": ranks, "by_row": frame["by_row"][rows]}


def _told_apart(
    part: Mapping[str, Any], place: int, frame: Any, related: Any, columns: Sequence[Column], rows: Any
) -> float:
    """How well (AUC) drawn values of the column are told from true ones, given the true earlier columns."""
    import lightgbm

    from millrace.analyses.twin import joint

    order, rank_row = related["order"], frame["rank_row"]
    j, d, m = order[place], len(columns), len(rows)
    field = joint.Field.of(d, numpy.arange(m), numpy.zeros(m, numpy.int64))
    C, R = field.C, field.R
    C[:d] = frame["codes"][:, rows]
    for q, column in enumerate(columns):
        if column.ranked:
            R[q] = frame["ranks"][rank_row[q], rows]
    true = (R[j] if columns[j].ranked else C[j]).astype(numpy.float32)
    earlier = sorted(order[:place])
    given = numpy.stack([(R[q] if columns[q].ranked else C[q]).astype(numpy.float32) for q in earlier], 1)
    ready = joint.Ready(columns, related["scores"])
    joint.draw_place(part, ready, list(order[:place]), place, field, SEED)
    drawn = (R[j] if columns[j].ranked else C[j]).astype(numpy.float32)
    numpy.putmask(true, true == MISSING_RANK, -1)
    numpy.putmask(drawn, drawn == MISSING_RANK, -1)
    # True and drawn values of a row are in the same half: none is learnt from its own twin.
    half = numpy.tile(numpy.arange(m) % 2 == 0, 2)
    values = numpy.vstack([numpy.column_stack([given, v]) for v in (true, drawn)])
    y = numpy.repeat([1.0, 0.0], m)
    said = {
        "objective": "binary", "num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20, "verbosity": -1,
        "num_threads": 1, "seed": 1, "deterministic": True, "force_row_wise": True, "max_bin": BINS,
    }  # fmt: skip
    binned = lightgbm.Dataset(values, y, params=said, free_raw_data=False).construct()
    scores, labels = [], []
    for test in (half, ~half):
        fitted = lightgbm.train(said, binned.subset(numpy.flatnonzero(~test)), num_boost_round=60)
        scores.append(fitted.predict(values[test], num_threads=1))
        labels.append(y[test])
    return measures.auc(numpy.concatenate(scores), numpy.concatenate(labels))
