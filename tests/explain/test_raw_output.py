"""Raw output by leaf words has the bits of the plain walk, for every rule, size of tree and block of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from random_trees import ensembles_with_rows, random_ensemble, random_rows

from millrace.analyses.explain.kernels import trees
from millrace.analyses.explain.kernels.ensemble import Ensemble, predict
from millrace.analyses.explain.kernels.structure import structure


@settings(deadline=None, max_examples=300)
@given(ensembles_with_rows(n_rows=37, max_depth=7))
def test_it_is_the_walk_to_the_bit(case: tuple[Ensemble, NDArray[Any]]) -> None:
    model, rows = case
    assert trees.raw_output(model, structure(model), rows).tobytes() == predict(model, rows).tobytes()


@pytest.mark.parametrize("leaf_share", [0.0, 0.1])  # 64 leaves exactly, and fewer
@pytest.mark.parametrize("depth", [6, 7, 9])
@pytest.mark.parametrize("float32_inputs", [False, True])
def test_trees_at_and_beyond_a_word_of_leaves(leaf_share: float, depth: int, float32_inputs: bool) -> None:
    rng = np.random.default_rng(1)
    model = random_ensemble(
        rng, depth=depth, n_outputs=2, vector=depth == 7, leaf_share=leaf_share, float32_inputs=float32_inputs
    )
    rows = random_rows(rng, model, 2500, 0.1)
    whole = trees.raw_output(model, structure(model), rows)
    assert whole.tobytes() == predict(model, rows).tobytes()
    assert whole[700:1401].tobytes() == trees.raw_output(model, structure(model), rows[700:1401]).tobytes()


def test_a_chain_of_64_leaves() -> None:
    rng = np.random.default_rng(2)
    model = random_ensemble(rng, depth=63, chain=True, n_trees=4)
    assert int(np.diff(model.tree_start).max()) == 127
    rows = random_rows(rng, model, 300, 0.1)
    assert trees.raw_output(model, structure(model), rows).tobytes() == predict(model, rows).tobytes()
