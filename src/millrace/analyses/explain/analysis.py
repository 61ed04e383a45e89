"""explain: the order of work. Read the question, plan it, run its blocks, put the answer together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain import question as questions
from millrace.analyses.explain.answer import Explanation
from millrace.analyses.explain.facts import kernel_facts, linear_facts, tree_facts
from millrace.analyses.explain.plan import Facts, block_rows, plan, tolerance
from millrace.analyses.explain.spec import Spec
from millrace.run.canonical import Unkeyable
from millrace.run.errors import NotAdditive, Paused
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import numpy

    from millrace.analyses.explain.question import Question
    from millrace.run.run import Run

MAPPED_BYTES = 64 << 20
"""An answer larger than this is assembled in a memory-mapped file instead of in the driver's memory."""


def explain(spec: Spec, run: Run) -> Explanation:
    """SHAP values of `spec.model` on `spec.data`."""
    run.progress("reading")
    asked = questions.read(spec, run.note, run.rng)
    if asked.forest is not None:
        facts, blocks = _tree_blocks(spec, asked, run)
    elif asked.line is not None:
        facts, blocks = _linear_blocks(spec, asked, run)
    else:
        facts, blocks = _kernel_blocks(spec, asked, run)
    return _gather(spec, asked, facts, blocks, run)


def _tree_blocks(spec: Spec, asked: Question, run: Run) -> tuple[Facts, Any]:
    """Lay the forest out, build its tables (tasks of their own), then the blocks of rows."""
    forest = asked.forest
    assert forest is not None
    run.progress("loading kernels (compiled once on first use, then cached)")
    from millrace.analyses.explain import blocks
    from millrace.analyses.explain.kernels import trees
    from millrace.analyses.explain.kernels.structure import structure

    run.progress("laying out trees")
    shape = structure(forest)
    known = 0 if asked.background is None else len(asked.background)
    cut = trees.layout(forest, shape, len(asked.rows.values), known, spec.precision)
    facts = tree_facts(spec, asked, shape, cut)
    run.follow(plan(facts, run.budget))
    expected = trees.base_values(forest, shape, asked.background, asked.weights)
    laid = run.share(blocks.pack(forest, shape, cut, expected))
    tables: tuple[Any, ...] = ()
    if cut.batches:
        run.progress("building tables", cut.batches)
        shared = (laid, _background(asked, run))
        tables = tuple(run.map(blocks.tree_tables, range(cut.batches), shared=shared, keep=True, name="build tables"))
    run.progress("explaining", facts.blocks)
    shared = (run.share(asked.rows.values), laid, asked.output, spec.precision, *tables)
    return facts, run.map(blocks.tree_rows, _cut(facts), shared=shared, name="explain rows")


def _linear_blocks(spec: Spec, asked: Question, run: Run) -> tuple[Facts, Any]:
    from millrace.analyses.explain import blocks

    line = asked.line
    assert line is not None
    assert asked.background is not None
    facts = linear_facts(spec, asked)
    run.follow(plan(facts, run.budget))
    mean = asked.weights @ asked.background
    model = {**line.arrays(), "mean": mean, "expected": line.raw(mean[None, :])[0]}
    run.progress("explaining", facts.blocks)
    shared = (run.share(asked.rows.values), run.share(model), asked.output, spec.precision)
    return facts, run.map(blocks.linear_rows, _cut(facts), shared=shared, name="explain rows")


def _kernel_blocks(spec: Spec, asked: Question, run: Run) -> tuple[Facts, Any]:
    from millrace.analyses.explain import blocks
    from millrace.analyses.explain.kernels import coalitions

    assert asked.background is not None
    rows = asked.rows.values
    whole = coalitions.design(rows.shape[1], spec.max_evaluations, run.rng(1))
    design = coalitions.with_narrower(whole, rows, asked.background)
    facts = kernel_facts(spec, asked, len(whole.masks), whole.exact)
    run.follow(plan(facts, run.budget))
    run.progress("explaining", facts.blocks)
    shared = (run.share(rows), _background(asked, run), run.share(design.arrays()), spec.precision)
    # The model goes along once per worker, with the function; its identity is its content.
    task = partial(blocks.kernel_rows, function=asked.function)
    return facts, run.map(task, _cut(facts), shared=shared, name="explain rows")


def _background(asked: Question, run: Run) -> Any:
    return run.share({"rows": asked.background, "weights": asked.weights})


def _cut(facts: Facts) -> list[tuple[int, int]]:
    size = block_rows(facts)
    return [(a, min(a + size, facts.rows)) for a in range(0, facts.rows, size)]


# -- the answer ----------------------------------------------------------------------------------------------------
def _gather(spec: Spec, asked: Question, facts: Facts, blocks: Any, run: Run) -> Explanation:
    """Blocks in row order into one array each; additivity over all of them."""
    import numpy

    shape = (facts.rows, facts.features, asked.outputs)
    values = _room(shape, spec.precision, run)
    errors = _room(shape, spec.precision, run) if facts.family == "kernel" and not facts.exact else None
    exact = True
    predictions = numpy.empty((facts.rows, asked.outputs))
    gaps = numpy.empty(facts.rows)
    expected = None
    at = 0
    for block in blocks:
        end = at + len(block["gap"])
        values[at:end] = block["values"]
        predictions[at:end] = block["predictions"]
        gaps[at:end] = block["gap"]
        expected = block["expected"]
        if errors is not None:
            errors[at:end] = block["errors"]
            exact = exact and block["exact"]
        at = end
    if at < facts.rows:
        raise Paused(
            f"The deadline came after {at:,} of {facts.rows:,} rows. An explanation of a part is not given in place of the "
            "whole; finished blocks are kept where there is a store. Ask the same again to go on, or give more time."
        )
    _check_additivity(spec, asked, facts, gaps, predictions)
    for array in (values, predictions, errors):
        if array is not None:
            array.flags.writeable = False
    one, shown = asked.outputs == 1, asked.shown or asked.rows
    return Explanation(
        values=values[:, :, 0] if one else values,
        base_values=numpy.array(expected),
        predictions=predictions,
        feature_names=asked.rows.names,
        output_names=asked.output_names,
        unit=asked.unit,
        method=asked.method,
        exact=exact,
        additivity_error=float(gaps.max()),
        additivity_p99=float(numpy.quantile(gaps, 0.99)),
        data=shown.values,
        data_digest=content_key(shown.values),
        model_digest=_model_digest(asked, run),
        categories=dict(asked.rows.categories),
        standard_errors=None if errors is None else errors[:, :, 0] if one else errors,
        background_rows=0 if asked.background is None else len(asked.background),
        top=spec.top,
        seed=run.seed,
        notes=(*asked.why, *run.notes),
    )


def _room(shape: tuple[int, ...], dtype: str, run: Run) -> numpy.ndarray[Any, Any]:
    """An array to fill: in memory when small, else in a file that is mapped (and goes when the last user goes)."""
    import tempfile

    import numpy

    size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    if size <= MAPPED_BYTES:
        return numpy.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=run.ledger.path.parent) as file:
        file.truncate(size)
        return numpy.memmap(file, dtype, "r+", shape=shape)


def _check_additivity(spec: Spec, asked: Question, facts: Facts, gaps: Any, predictions: Any) -> None:
    import numpy

    worst = int(gaps.argmax())
    allowed = tolerance(facts, float(numpy.abs(predictions).max()))
    if not gaps[worst] <= allowed:
        raise NotAdditive(
            f"Values do not add up: in row {worst} base + values differ from the model's output by {gaps[worst]:.3g}, and "
            f"{allowed:.3g} is allowed for the method {asked.method} in {spec.precision}. Nothing is returned, because the "
            "values may be wrong. Please report it with the model."
        )


def _model_digest(asked: Question, run: Run) -> str:
    if asked.forest is not None:
        return asked.forest.digest
    try:
        return run.keys.of(type(asked.model), (asked.model,))
    except Unkeyable:
        return ""
