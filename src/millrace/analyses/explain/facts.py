"""What the plan of explain needs to know, read from a loaded question.

Seconds a row are arithmetic on the question's shape, with constants measured on one core; they size blocks (see `plan`)
and predict, and never enter a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.plan import Facts
from millrace.analyses.explain.spec import Spec

if TYPE_CHECKING:
    from millrace.analyses.explain.kernels.structure import Structure
    from millrace.analyses.explain.kernels.trees import Layout
    from millrace.analyses.explain.question import Question

LINEAR_S = 1.5e-9
"""A value of a linear model: read, subtract, multiply, write."""
WALK_S, WALK_EDGE = 0.45e-9, 3.0
"""A quadrature point at a node of one row; a node costs this many points besides."""
TABLE_S = 2e-9
"""A node of one row in pattern tables: its condition, its share of pattern and look-ups."""
PAIR_S = 3e-9
"""A node on the path of a leaf that goes by pairs, for one row and 64 background rows."""
VALUE_S = 1.5e-9
PAIR_OF_LEAF_S = 2.5e-9
"""A pair of players on the path of a leaf of one row: its number looked up and added."""
BUILD_S, COUNT_S = 6e-9, 1e-9
"""A byte of table; a node of one background row."""
ROUNDS, MOST_ROUNDS = 8, 64
BACKWARD = 3.0
"""A gradient costs as much as so many calls."""
CALL_S = 2.5e-7
"""A row through an unknown model: what a small neural network takes; the true time is not known before."""


def asked_type(spec: Spec) -> Any:
    import numpy

    return numpy.dtype(spec.precision)


def _shape(spec: Spec, asked: Question) -> dict[str, Any]:
    rows, source = asked.rows.values, asked.streamed
    return {
        "driver_extra_bytes": 0 if asked.shown is None else asked.shown.values.nbytes,
        "group_rows": () if source is None else source.group_rows,
        "reading_bytes": 0 if source is None else source.page_bytes,
        "method": asked.method,
        "rows": asked.count,
        "features": len(asked.players.names),
        "columns": rows.shape[1],
        "kept": asked.outputs,
        "input_bytes": rows.dtype.itemsize,
        "value_bytes": asked_type(spec).itemsize,
        "background_rows": 0 if asked.background is None else len(asked.background),
    }


def rounds(spec: Spec, features: int) -> tuple[int | None, int]:
    """(evaluations of a round, most rounds) of the kernel method: one round unless a tolerance is to be met."""
    from millrace.analyses.explain.kernels import coalitions

    if spec.tolerance is None:
        return spec.max_evaluations, 1
    if spec.max_evaluations is None:
        return None, ROUNDS
    usual = coalitions.default_evaluations(features)
    return min(usual, spec.max_evaluations), max(1, min(MOST_ROUNDS, spec.max_evaluations // max(1, usual)))


def linear_facts(spec: Spec, asked: Question) -> Facts:
    assert asked.line is not None
    outputs = len(asked.line.intercepts)
    return Facts(
        "linear", outputs=outputs, row_s=LINEAR_S * asked.rows.values.shape[1] * outputs, **_shape(spec, asked)
    )


def kernel_facts(spec: Spec, asked: Question) -> Facts:
    """By arithmetic alone: the design, which may be large, is made after the plan."""
    from millrace.analyses.explain.kernels import coalitions

    shape = _shape(spec, asked)
    background, features = shape["background_rows"], shape["features"]
    each = rounds(spec, features)[0]
    evaluations, exact = coalitions.shape_of(features, each, asked.method)
    scratch = coalitions.scratch_bytes(
        features, background, asked.outputs, shape["input_bytes"], evaluations, shape["columns"]
    )
    design, making = coalitions.design_bytes(features, each, asked.method)
    return Facts(
        "kernel",
        outputs=asked.outputs,
        row_s=CALL_S * max(1, evaluations) * background,
        exact=exact,
        scratch_bytes=scratch,
        table_bytes=design,
        build_s=0.0,
        evaluations=evaluations,
        **(shape | {"driver_extra_bytes": making + shape["driver_extra_bytes"]}),
    )


def gradient_facts(spec: Spec, asked: Question) -> Facts:
    """Two rounds of points are what most rows take."""
    from millrace.analyses.explain.kernels.modules import BATCH, POINTS

    shape = _shape(spec, asked)
    evaluations = sum(POINTS[:2]) * shape["background_rows"] * asked.outputs
    return Facts(
        "gradient",
        outputs=asked.outputs,
        row_s=BACKWARD * CALL_S * evaluations,
        exact=False,
        scratch_bytes=asked.model.held_bytes + 6 * BATCH * shape["columns"] * 4,
        evaluations=evaluations,
        **(shape | {"driver_extra_bytes": asked.model.held_bytes + shape["driver_extra_bytes"]}),
    )


def tree_facts(spec: Spec, asked: Question, shape: Structure, cut: Layout) -> Facts:
    from millrace.analyses.explain.kernels import items, trees

    forest = asked.forest
    assert forest is not None
    said = _shape(spec, asked)
    background = said["background_rows"]
    leaves = shape.distinct[forest.left < 0]
    points = float(((leaves + 1) // 2).mean()) if len(leaves) else 1.0
    paired = float(shape.depth[cut.item_node[cut.item_kind == items.PAIRS]].sum())
    row_s = WALK_S * forest.n_nodes * (points + WALK_EDGE) if not background else TABLE_S * forest.n_nodes
    row_s += PAIR_S * paired * (1 + background / 64) + VALUE_S * said["features"] * forest.n_outputs
    scratch = trees.scratch_bytes(len(shape.used), forest.n_outputs, shape.most_depth, shape.most_distinct, background)
    pairs = 0
    if spec.interactions:
        from millrace.analyses.explain.kernels import interactions

        pairs = len(interactions.pairs_of(forest, shape))
        each = leaves.astype("float64")
        row_s += PAIR_OF_LEAF_S * float((each * (each - 1) / 2).sum()) * forest.width
        largest = int((forest.tree_start[1:] - forest.tree_start[:-1]).max(initial=0))
        scratch += interactions.scratch_bytes(shape, pairs, forest.n_outputs, largest, background)
    return Facts(
        "trees",
        outputs=forest.n_outputs,
        pairs=pairs,
        row_s=row_s,
        trees=forest.n_trees,
        nodes=forest.n_nodes,
        batches=cut.batches,
        table_bytes=int(cut.batch_bytes.max()) if cut.batches else 0,
        all_table_bytes=cut.table_bytes,
        scratch_bytes=scratch,
        build_s=BUILD_S * cut.table_bytes + COUNT_S * background * forest.n_nodes * bool(cut.batches),
        **said,
    )


def facts(spec: Spec) -> Facts:
    """The facts of a question that is not run: the model and the columns are read, the trees laid out."""
    from millrace.analyses.explain import question as questions
    from millrace.run.streams import rng

    asked = questions.read(spec, lambda text: None, lambda *index: rng(0, *index))
    if asked.line is not None:
        return linear_facts(spec, asked)
    if asked.forest is None:
        return gradient_facts(spec, asked) if asked.method == "gradient" else kernel_facts(spec, asked)
    from millrace.analyses.explain.kernels import structure, trees

    shape = structure.structure(asked.forest, asked.player_of, len(asked.players.names))
    known = 0 if asked.background is None else len(asked.background)
    cut = trees.layout(asked.forest, shape, asked.count, known, spec.precision)
    return tree_facts(spec, asked, shape, cut)
