"""explain: the order of work. Read the question, plan it, run its blocks, put the answer together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain import placing
from millrace.analyses.explain import question as questions
from millrace.analyses.explain.answer import Explanation
from millrace.analyses.explain.facts import gradient_facts, kernel_facts, linear_facts, rounds, tree_facts
from millrace.analyses.explain.plan import Facts, block_rows, plan, tolerance
from millrace.analyses.explain.players import shown_data
from millrace.analyses.explain.spec import Spec
from millrace.run.canonical import Unkeyable
from millrace.run.errors import NotAdditive, NotSupported, Paused
from millrace.run.keys import content_key

if TYPE_CHECKING:
    import numpy

    from millrace.analyses.explain.question import Question
    from millrace.analyses.explain.streamed import Streamed
    from millrace.run.run import Run

MAPPED_BYTES = 64 << 20
"""An answer larger than this is assembled in a memory-mapped file instead of in the driver's memory."""

ESTIMATED = ("kernel", "gradient")
LOADING = "loading kernels (compiled once on first use, then cached)"

_UNFINISHED = (
    "The deadline came after {at:,} of {rows:,} rows. An explanation of a part is not given in place of the "
    "whole; finished blocks are kept where there is a store. Ask the same again to go on, or give more time."
)


def explain(spec: Spec, run: Run) -> Explanation | Streamed:
    """SHAP values of `spec.model` on `spec.data`; in a Parquet dataset when they are streamed."""
    run.progress("reading")
    asked = questions.read(spec, run.note, run.rng)
    if spec.interactions and asked.function is not None:
        raise NotSupported(
            "interactions are exact for tree and linear models alone, and this model and output are explained as a function: "
            "leave interactions out, or explain a tree model's raw output."
        )
    if spec.stream:
        from millrace.analyses.explain.streaming import check_out

        check_out(run)
    if asked.forest is not None:
        facts, work, shared = _tree_blocks(spec, asked, run)
    elif asked.line is not None:
        facts, work, shared = _linear_blocks(spec, asked, run)
    elif asked.method == "gradient":
        facts, work, shared = _gradient_blocks(spec, asked, run)
    else:
        facts, work, shared = _kernel_blocks(spec, asked, run)
    if spec.stream:
        from millrace.analyses.explain.streaming import stream

        return stream(spec, asked, facts, work, shared, _model_digest(asked, run), run)
    run.progress("explaining", facts.blocks)
    blocks = run.map(work, _cut(facts), shared=(run.share(asked.rows.values), *shared), name="explain rows")
    answer = _gather(spec, asked, facts, blocks, run)
    return (
        _with_interactions(spec, asked, facts, answer, run)
        if spec.interactions and asked.forest is not None
        else answer
    )


Work = tuple[Facts, Any, tuple[Any, ...]]
"""Facts, the task's function (block, rows, *shared) -> what is found of the block, and what all blocks share."""


def _tree_blocks(spec: Spec, asked: Question, run: Run) -> Work:
    """Lay the forest out, build its tables (tasks of their own), then the blocks of rows."""
    forest = asked.forest
    assert forest is not None
    run.progress(LOADING)
    from millrace.analyses.explain import blocks
    from millrace.analyses.explain.kernels import trees
    from millrace.analyses.explain.kernels.structure import structure

    run.progress("laying out trees")
    shape = structure(forest, asked.player_of, len(asked.players.names))
    known = 0 if asked.background is None else len(asked.background)
    cut = trees.layout(forest, shape, asked.count, known, spec.precision)
    facts = tree_facts(spec, asked, shape, cut)
    run.follow(plan(facts, run.budget))
    trees.load_kernels(cut)
    expected = trees.base_values(forest, shape, asked.background, asked.weights)
    laid = run.share(blocks.pack(forest, shape, cut, expected))
    tables: tuple[Any, ...] = ()
    if cut.batches:
        run.progress("building tables", cut.batches)
        shared = (laid, _background(asked, run))
        tables = tuple(run.map(blocks.tree_tables, range(cut.batches), shared=shared, keep=True, name="build tables"))
    return facts, blocks.tree_rows, (laid, asked.output, spec.precision, *tables)


def _with_interactions(spec: Spec, asked: Question, facts: Facts, answer: Explanation, run: Run) -> Explanation:
    """The answer with its interaction values: a second pass over the same blocks of rows."""
    run.progress(LOADING)
    from millrace.analyses.explain import blocks
    from millrace.analyses.explain.kernels import interactions, trees
    from millrace.analyses.explain.kernels.structure import structure

    forest = asked.forest
    assert forest is not None
    shape = structure(forest, asked.player_of, len(asked.players.names))
    pairs = interactions.pairs_of(forest, shape)
    values = _room((facts.rows, len(pairs), asked.outputs), spec.precision, run)
    empty = trees.layout(forest, shape, facts.rows, 0, spec.precision)
    laid = run.share(blocks.pack(forest, shape, empty, answer.base_values))
    known = None if asked.background is None else _background(asked, run)
    shared = (run.share(asked.rows.values), laid, known, asked.output, spec.precision)
    run.progress("interactions", facts.blocks)
    at = 0
    for block in run.map(blocks.tree_interactions, _cut(facts), shared=shared, name="interactions"):
        values[at : at + len(block["pairs"])] = block["pairs"]
        at += len(block["pairs"])
    if at < facts.rows:
        raise Paused(_UNFINISHED.format(at=at, rows=facts.rows))
    values.flags.writeable = False
    return replace(answer, pairs=pairs, pair_values=values)


def _linear_blocks(spec: Spec, asked: Question, run: Run) -> Work:
    from millrace.analyses.explain import blocks

    line = asked.line
    assert line is not None
    assert asked.background is not None
    facts = linear_facts(spec, asked)
    run.follow(plan(facts, run.budget))
    mean = asked.weights @ asked.background
    whose = {"player_of": asked.player_of, "players": len(asked.players.names)}
    model = {**line.arrays(), **whose, "mean": mean, "expected": line.raw(mean[None, :])[0]}
    return facts, blocks.linear_rows, (run.share(model), asked.output, spec.precision)


def _kernel_blocks(spec: Spec, asked: Question, run: Run) -> Work:
    run.progress(LOADING)
    from millrace.analyses.explain import blocks
    from millrace.analyses.explain.kernels import coalitions

    assert asked.background is not None
    rows = asked.rows.values
    players = len(asked.players.names)
    each, most = rounds(spec, players)
    facts = kernel_facts(spec, asked)
    form = placing.follow(run, asked, facts)
    whole = coalitions.design(players, each, run.rng(1), asked.method)
    designs = [coalitions.with_narrower(whole, rows, asked.background, asked.player_of)]
    for number in range(1, 1 if whole.exact else most):
        more = coalitions.design(players, each, run.rng(1, number), asked.method)
        designs.append(coalitions.with_narrower(more, rows, asked.background, asked.player_of))
    laid = [run.share(design.arrays()) for design in designs]
    shared = (_background(asked, run), asked.player_of, spec.precision, float(spec.tolerance or 0.0), *laid)
    # The model goes along once per worker, with the function; its identity is its content.
    work = partial(blocks.kernel_rows, function=asked.function)
    return facts, work if form is None else placing.placed(run, asked, facts, form, work, shared), shared


def _gradient_blocks(spec: Spec, asked: Question, run: Run) -> Work:
    if spec.stream:
        raise NotSupported("The method 'gradient' is not streamed: explain parts of the file, or use another method.")
    from millrace.analyses.explain import blocks

    facts = gradient_facts(spec, asked)
    run.follow(plan(facts, run.budget))
    players, tolerance = len(asked.players.names), float(spec.tolerance or 0.0)
    shared = (_background(asked, run), asked.player_of, players, spec.precision, tolerance)
    return facts, partial(blocks.gradient_rows, function=asked.function), shared


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
    errors = _room(shape, spec.precision, run) if facts.family in ESTIMATED and not facts.exact else None
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
        raise Paused(_UNFINISHED.format(at=at, rows=facts.rows))
    _check_additivity(spec, asked, facts, gaps, predictions)
    for array in (values, predictions, errors):
        if array is not None:
            array.flags.writeable = False
    one, shown = asked.outputs == 1, asked.shown or asked.rows
    none = numpy.zeros((0, 2), numpy.int32) if spec.interactions else None
    data, labels = shown_data(shown, asked.players)
    return Explanation(
        values=values[:, :, 0] if one else values,
        base_values=numpy.array(expected),
        predictions=predictions,
        feature_names=asked.players.names,
        output_names=asked.output_names,
        unit=asked.unit,
        method=asked.method,
        exact=exact,
        additivity_error=float(gaps.max()),
        additivity_p99=float(numpy.quantile(gaps, 0.99)),
        data=data,
        data_digest=content_key(shown.values),
        model_digest=_model_digest(asked, run),
        categories=labels,
        standard_errors=None if errors is None else errors[:, :, 0] if one else errors,
        background_rows=0 if asked.background is None else len(asked.background),
        pairs=none,
        pair_values=None if none is None else numpy.zeros((facts.rows, 0, asked.outputs), spec.precision),
        top=spec.top,
        seed=run.seed,
        notes=(*asked.why, *_stopped(spec, errors), *run.notes),
    )


def _stopped(spec: Spec, errors: Any) -> tuple[str, ...]:
    """What became of the tolerance, in words."""
    if spec.tolerance is None:
        return ()
    if errors is None:
        return ("the tolerance was not needed: the values are exact",)
    most = errors.max(axis=(1, 2)) if errors.size else errors
    over = int((most > spec.tolerance).sum())
    reached = f"tolerance {spec.tolerance:g}: {len(errors) - over:,} of {len(errors):,} rows have all standard errors below it"
    return (reached + (f", the largest is {float(most.max()):.2g}: give more max_evaluations" if over else ""),)


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
