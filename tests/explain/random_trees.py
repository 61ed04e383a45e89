"""Random ensembles and rows for them: what hypothesis (and loops over seeds) feed to parsers, kernels and oracles.

Sizes are drawn by hypothesis, so failures shrink to few and small trees; what is in the trees comes from a drawn
seed. The values sit where mistakes are: thresholds that rows hit exactly, the floats beside them, zero and its
neighbours, NaN, infinities, huge numbers, categories that are unknown or negative, features repeated on a path,
children without cover. Columns are categories or numbers as a whole, as in real models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.assemble import Nodes, assemble
from millrace.analyses.explain.kernels.ensemble import ZERO, Ensemble, category_columns

CATEGORIES = 9


def random_ensemble(
    rng: np.random.Generator,
    *,
    n_features: int = 5,
    n_trees: int = 3,
    depth: int = 4,
    n_outputs: int = 1,
    vector: bool = False,
    category_share: float = 0.3,
    float32_inputs: bool = False,
    zero_cover_share: float = 0.0,
    leaf_share: float = 0.15,
    chain: bool = False,
) -> Ensemble:
    """Trees of at most the given depth; `chain` makes each one a single long path (depth + 1 leaves).

    vector: leaves hold all outputs; else tree t adds to output t mod n_outputs. Few thresholds a column, so that
    paths meet the same feature again and again, impossible regions included.
    """
    is_category = rng.random(n_features) < category_share
    grid = rng.standard_normal((n_features, 6)).round(1)
    grid[:, 0] = 0.0
    if float32_inputs:
        grid = grid.astype(np.float32).astype(np.float64)
    width = n_outputs if vector else 1
    columns: dict[str, list[Any]] = {
        key: [] for key in ("feature", "threshold", "left", "right", "value", "cover", "mode")
    }
    starts: list[int] = []
    counts: list[int] = []
    members: list[int] = []
    roots = []

    def grow(left_depth: int, cover: float) -> int:
        node = len(starts)
        column = int(rng.integers(n_features))
        category = bool(is_category[column])
        columns["feature"].append(column)
        columns["threshold"].append(0.0 if category else float(rng.choice(grid[column])))
        columns["mode"].append(int(rng.integers(4, 6)) if category else int(rng.integers(0, 4)))
        columns["value"].append(rng.standard_normal(width))
        columns["cover"].append(cover)
        columns["left"].append(-1)
        columns["right"].append(-1)
        starts.append(len(members))
        counts.append(0)
        if left_depth == 0 or (not chain and left_depth < depth and rng.random() < leaf_share):
            return node
        if category:
            counts[-1] = int(rng.integers(1, CATEGORIES))
            members.extend((rng.random(counts[-1]) < 0.5).astype(int).tolist())
        to_left = cover * (0.0 if rng.random() < zero_cover_share else rng.random() * 0.9 + 0.05)
        sides = [to_left, cover - to_left]
        depths = [left_depth - 1, left_depth - 1]
        if rng.random() < 0.5:
            sides.reverse()
        if chain:
            depths[int(rng.integers(2))] = 0
        columns["left"][node] = grow(depths[0], sides[0])
        columns["right"][node] = grow(depths[1], sides[1])
        return node

    for _ in range(n_trees):
        roots.append(grow(depth, float(rng.integers(20, 2000))))
    arrays = {key: np.array(items) for key, items in columns.items()}
    arrays["value"] = arrays["value"].reshape(len(starts), width)
    return assemble(
        Nodes(
            **arrays,
            category_start=np.array(starts),
            category_count=np.array(counts),
            category_member=np.array(members, np.uint8),
        ),
        np.array(roots),
        np.zeros(n_trees) if vector else np.arange(n_trees) % n_outputs,
        rng.standard_normal(n_outputs).round(3),
        n_features=n_features,
        float32_inputs=float32_inputs,
        link="identity",
        output_names=tuple(f"output {k}" for k in range(n_outputs)),
    )


def random_rows(
    rng: np.random.Generator, ensemble: Ensemble, n: int, missing_share: float = 0.15
) -> NDArray[np.float64]:
    """rows[n, n_features] around the thresholds of the trees, on them, and far away."""
    rows = rng.standard_normal((n, ensemble.n_features)) * 2
    categories = category_columns(ensemble)
    far = np.array([np.inf, -np.inf, 1e300, -1e300, 3e38, 0.0, -0.0, 1e-36, -1e-36, ZERO, -ZERO, 1e-30])
    for column in range(ensemble.n_features):
        if column in categories:
            rows[:, column] = rng.integers(-2, CATEGORIES + 3, n)
            odd = np.array([np.inf, -np.inf, 1e300, 2.0**40])
            at = rng.random(n) < 0.05
            rows[at, column] = rng.choice(odd, at.sum())
            continue
        here = np.unique(ensemble.threshold[(ensemble.feature == column)])
        if here.size:
            at = rng.random(n) < 0.5
            exact = rng.choice(here, at.sum())
            rows[at, column] = np.nextafter(exact, rng.choice([-np.inf, 0.0, np.inf], at.sum()))
            rows[at & (rng.random(n) < 0.4), column] = rng.choice(here)
        at = rng.random(n) < 0.1
        rows[at, column] = rng.choice(far, at.sum())
    rows[rng.random(rows.shape) < missing_share] = np.nan
    return rows


@st.composite
def ensembles(
    draw: st.DrawFn,
    max_features: int = 6,
    max_trees: int = 4,
    max_depth: int = 5,
    max_outputs: int = 3,
    zero_covers: bool = True,
) -> Ensemble:
    """Small ensembles of every kind: scalar and vector leaves, all six modes, float32 inputs or not, empty covers."""
    n_outputs = draw(st.integers(1, max_outputs))
    return random_ensemble(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        n_features=draw(st.integers(1, max_features)),
        n_trees=draw(st.integers(0, max_trees)),
        depth=draw(st.integers(0, max_depth)),
        n_outputs=n_outputs,
        vector=draw(st.booleans()),
        category_share=draw(st.sampled_from([0.0, 0.3, 1.0])),
        float32_inputs=draw(st.booleans()),
        zero_cover_share=draw(st.sampled_from([0.0, 0.2])) if zero_covers else 0.0,
        chain=draw(st.booleans()),
    )


@st.composite
def ensembles_with_rows(draw: st.DrawFn, n_rows: int = 8, **sizes: Any) -> tuple[Ensemble, NDArray[np.float64]]:
    """An ensemble of `ensembles(**sizes)` and rows[n_rows, n_features] for it."""
    ensemble = draw(ensembles(**sizes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return ensemble, random_rows(rng, ensemble, n_rows)
