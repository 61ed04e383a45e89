"""By column, trees with an index of all earlier columns are taken where a held-out slice tells them less well."""

from __future__ import annotations

import numpy
import pyarrow
import pytest

import millrace as mr
from millrace.analyses.twin.generate import Sampler
from millrace.analyses.twin.kernels import measures


def wide(rows=2_500, columns=20):
    """Every column a noisy sum of six hidden numbers."""
    rng = numpy.random.default_rng(0)
    X = rng.normal(size=(rows, 6)) @ rng.normal(size=(6, columns)) + 0.7 * rng.normal(size=(rows, columns))
    return pyarrow.table({f"x{j}": X[:, j] for j in range(columns)})


@pytest.mark.slow
def test_a_factor_like_table_is_learnt_with_indices_and_told_less_well():
    table, told = wide(), {}
    for joint in ("plain", "auto"):
        model = mr.twin.fit(table, joint=joint, find=False, engine="inline")
        real, twins = (
            numpy.column_stack([t[n].to_numpy() for n in table.column_names])
            for t in (table, Sampler(model).draw(2_500, 1))
        )
        arrays = {"real": real, "twins": twins, "nominal": numpy.zeros(20, bool)}
        folds = [measures.fold(k, arrays, 0) for k in range(measures.FOLDS)]
        told[joint] = measures.auc(*(numpy.concatenate([f[n] for f in folds]) for n in ("scores", "labels")))
    assert len(model.known["indexed"]) > 5
    assert told["auto"] < told["plain"] - 0.03


def test_few_rows_or_columns_are_learnt_by_plain_trees(model):
    assert model.known["indexed"] == []
    small = mr.twin.fit(wide(400, 5), engine="inline")
    assert small.known["indexed"] == []
