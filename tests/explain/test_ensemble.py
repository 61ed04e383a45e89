"""The flat record of trees: preorder, round trip, digest, shares of the training weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from random_trees import ensembles, ensembles_with_rows
from tree_cases import (
    Rows,
    lightgbm_model,
)

from millrace.analyses.explain.kernels.ensemble import (
    Ensemble,
    branch_fractions,
)
from millrace.analyses.explain.kernels.lightgbm import read_lightgbm


@settings(deadline=None, max_examples=50)
@given(ensembles())
def test_arrays_round_trip_with_the_same_digest(model: Ensemble) -> None:
    again = Ensemble.from_arrays(model.arrays())
    assert again.digest == model.digest
    for name, item in model.arrays().items():
        if isinstance(item, np.ndarray):
            assert not item.flags.writeable
            assert item.flags.c_contiguous
            assert item.dtype == again.arrays()[name].dtype


def test_the_digest_moves_with_every_field() -> None:
    model = read_lightgbm(lightgbm_model(rounds=2, categories=True))
    digests = {model.digest}
    for name, item in model.arrays().items():
        if isinstance(item, np.ndarray):
            other = item.copy()
            other.ravel()[-1] += 1
            if name == "tree_start":  # its last number is the count of nodes: not free
                other = np.concatenate([item[:1], item[1:-1] + 2, item[-1:]])
            digests.add(replace(model, **{name: other}).digest)
    for change in (
        {"n_features": 7},
        {"float32_inputs": True},
        {"link": "log"},
        {"output_names": ("other",)},
    ):
        digests.add(replace(model, **change).digest)
    assert len(digests) == 1 + 13 + 4


@settings(deadline=None, max_examples=50)
@given(ensembles())
def test_nodes_stand_in_preorder(model: Ensemble) -> None:
    for tree in range(model.n_trees):
        start, stop = int(model.tree_start[tree]), int(model.tree_start[tree + 1])
        expected, stack = start, [start]
        while stack:
            node = stack.pop()
            assert node == expected
            expected += 1
            if model.left[node] >= 0:
                assert model.feature[node] >= 0
                stack += [int(model.right[node]), int(model.left[node])]
            else:
                assert model.feature[node] == model.right[node] == -1
        assert expected == stop


@settings(deadline=None, max_examples=50)
@given(ensembles_with_rows())
def test_branch_fractions_are_finite_and_siblings_share_the_whole(case: tuple[Ensemble, Rows]) -> None:
    model, _ = case
    fraction = branch_fractions(model)
    inner = np.flatnonzero(model.left >= 0)
    np.testing.assert_allclose(fraction[model.left[inner]] + fraction[model.right[inner]], 1.0, rtol=1e-12)
    assert (fraction[model.tree_start[:-1]] == 1).all()
    empty = inner[model.cover[inner] == 0]
    assert (fraction[model.left[empty]] == 0.5).all()


def test_a_memory_map_is_taken_as_it_is(tmp_path: Any) -> None:
    model = read_lightgbm(lightgbm_model(rounds=2))
    np.save(tmp_path / "threshold.npy", model.threshold)
    mapped = np.load(tmp_path / "threshold.npy", mmap_mode="r")
    again = Ensemble.from_arrays(model.arrays() | {"threshold": mapped})
    assert np.shares_memory(again.threshold, mapped)
    assert again.digest == model.digest
