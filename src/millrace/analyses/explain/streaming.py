"""explain for data larger than memory: the order of work when rows come from Parquet and values go to Parquet.

The question is read from the footer and the first rows, planned, and cut into blocks of row groups. Each block is a task
that reads its own rows and makes a whole Parquet part, which a store keeps; the driver lays parts into a folder that gets
its name when the last one is there. Nothing large passes through the driver but from the store's file to the part's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.answer import Explanation
from millrace.analyses.explain.importance import GROUPS, importance_of_sums, sample
from millrace.analyses.explain.parquet import Place, Reader, Source, digested
from millrace.analyses.explain.plan import Facts, stream_rows, tolerance
from millrace.analyses.explain.players import shown_data
from millrace.analyses.explain.streamed import FOLDER, Streamed
from millrace.run.errors import NotAdditive, Paused, WrongQuestion
from millrace.run.placement import Placed

if TYPE_CHECKING:
    from millrace.analyses.explain.question import Question
    from millrace.analyses.explain.spec import Spec
    from millrace.run.run import Run

DRAWN_ROWS = 2_000
"""Rows for pictures and directions, drawn from all."""
COPY_BYTES = 1 << 20

_UNFINISHED = (
    "The deadline came after {at:,} of {blocks:,} parts. An explanation of a part is not given in place of the whole; finished "
    "parts are kept where there is a store. Ask the same again to go on, or give more time."
)


def check_out(run: Run) -> None:
    """`WrongQuestion` when the run has no folder for the dataset."""
    if run.ledger.home is not None:
        raise WrongQuestion(
            "A streamed explanation is written while it is made: say where, with out=FOLDER (--out FOLDER)."
        )


def stream(
    spec: Spec, asked: Question, facts: Facts, work: Any, shared: tuple[Any, ...], model_digest: str, run: Run
) -> Streamed:
    """All blocks of the file into the folder of the run. work: a function of `blocks`, perhaps with its place, called with
    (block, rows, *shared)."""
    from millrace.analyses.explain import parts

    assert asked.streamed is not None
    before = os.stat(asked.streamed.path)
    run.progress("reading the data once, for its digest")
    source = digested(asked.streamed)
    places = source.blocks(stream_rows(facts))
    form = parts.Form(asked.players.names, asked.output_names, asked.labels, run.seed, facts.family)
    task: Any = partial(parts.part_of_rows, source=source, form=form, work=work)
    if isinstance(work, Placed):
        from millrace.analyses.explain import on_gpu

        task = work.holding(run, partial(on_gpu.part_of_rows, source=source, form=form, work=work.body))
    run.progress("explaining", len(places))
    found = run.map(
        task, _items(source, places, run), shared=shared, resources=(Reader,), keep=True, name="explain rows"
    )
    folder = run.ledger.path.parent
    made = folder / f"{FOLDER}.partial"
    try:
        whole = _gathered(spec, asked, facts, found, len(places), made, run)
        after = os.stat(source.path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise WrongQuestion(f"The data file {source.path} was changed while it was read: ask again.")
        _name(made, folder / FOLDER)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    drawn = _drawn(spec, replace(asked, streamed=source), whole, model_digest, run)
    gaps = whole["gaps"]
    return Streamed(
        rows=source.rows,
        folder=folder / FOLDER,
        parts=tuple(whole["names"]),
        part_digests=tuple(whole["digests"]),
        drawn=drawn,
        exact=whole["exact"],
        additivity_error=whole["gap"],
        additivity_p99=min(whole["gap"], parts.gap_quantile(gaps, 0.99)),
        data_digest=source.digest,
        notes=(*asked.why, *_stopped(spec, whole, source.rows), *run.notes),
    )


def _items(source: Source, places: list[Place], run: Run) -> list[tuple[int, Place, tuple[int, ...]]]:
    """The blocks with their numbers, and which of their rows are drawn."""
    import numpy

    drawn = sample(source.rows, DRAWN_ROWS, run.rng(3))
    items, first = [], 0
    for number, (group, start, stop) in enumerate(places):
        low, high = numpy.searchsorted(drawn, (first, first + stop - start)).tolist()
        items.append((number, (group, start, stop), tuple((drawn[low:high] - first).tolist())))
        first += stop - start
    return items


def _gathered(
    spec: Spec, asked: Question, facts: Facts, found: Iterator[Any], blocks: int, folder: Path, run: Run
) -> dict[str, Any]:
    """Parts into the folder, in the order of the rows; their sums, and the rows that were drawn."""
    import numpy

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shape = (GROUPS, facts.features, asked.outputs)
    whole: dict[str, Any] = {
        "names": [], "digests": [], "gap": 0.0, "gaps": 0, "exact": True, "sums": numpy.zeros(shape),
        "counts": numpy.zeros(GROUPS), "over": 0, "worst": 0.0, "expected": None,
        "values": [], "data": [], "predictions": [], "errors": [],
    }  # fmt: skip
    for number, ref in enumerate(found):
        part = run.value(ref) if hasattr(ref, "key") else ref
        allowed = tolerance(facts, part["largest"])
        if not part["gap"] <= allowed:
            raise NotAdditive(
                f"Values do not add up: in part {number} base + values differ from the model's output by {part['gap']:.3g}, "
                f"and {allowed:.3g} is allowed for the method {asked.method} in {spec.precision}. The run ends here, because "
                "the values may be wrong. Please report it with the model."
            )
        name = f"part-{number:06d}.parquet"
        with (folder / name).open("wb") as file:
            content = memoryview(part["part"])
            for start in range(0, len(content), COPY_BYTES):
                file.write(content[start : start + COPY_BYTES])
        whole["names"].append(name)
        whole["digests"].append(part["digest"])
        whole["gap"] = max(whole["gap"], part["gap"])
        whole["exact"] &= part["exact"]
        whole["expected"] = numpy.array(part["expected"])
        for key in ("gaps", "sums", "counts"):
            whole[key] = whole[key] + part[key]
        if "errors" in part:
            whole["over"] += int((part["worst"] > (spec.tolerance or 0.0)).sum())
            whole["worst"] = max(whole["worst"], float(part["worst"].max()))
        for key in ("values", "data", "predictions", "errors"):
            if key in part and len(part[key]):
                whole[key].append(numpy.array(part[key]))
    if len(whole["names"]) < blocks:
        raise Paused(_UNFINISHED.format(at=len(whole["names"]), blocks=blocks))
    return whole


def _name(made: Path, final: Path) -> None:
    """The folder gets its name in one step; an older one of that name goes."""
    old = final.with_name(f"{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(made, final)
    shutil.rmtree(old, ignore_errors=True)


def _drawn(spec: Spec, asked: Question, whole: dict[str, Any], model_digest: str, run: Run) -> Explanation:
    """The rows that were drawn as an explanation, whose importance is of all rows."""
    import numpy
    import pyarrow

    assert asked.streamed is not None
    values, given, predictions = (numpy.concatenate(whole[key]) for key in ("values", "data", "predictions"))
    errors = numpy.concatenate(whole["errors"]) if whole["errors"] else None
    data, labels = shown_data(replace(asked.rows, values=given), asked.players)
    tables = []
    for k, name in enumerate(asked.output_names):
        found = importance_of_sums(
            whole["sums"][:, :, k],
            whole["counts"],
            values[:, :, k],
            data,
            asked.players.names,
            run.rng(1, k),
            tuple(labels),
        )
        table = pyarrow.table(found)
        tables.append(table.append_column("output", pyarrow.array([name] * len(table))))
    one = asked.outputs == 1
    return Explanation(
        values=values[:, :, 0] if one else values,
        base_values=whole["expected"],
        predictions=predictions,
        feature_names=asked.players.names,
        output_names=asked.output_names,
        unit=asked.unit,
        method=asked.method,
        exact=whole["exact"],
        additivity_error=whole["gap"],
        additivity_p99=whole["gap"],
        data=data,
        data_digest=asked.streamed.digest,
        model_digest=model_digest,
        categories=labels,
        standard_errors=None if errors is None else errors[:, :, 0] if one else errors,
        background_rows=0 if asked.background is None else len(asked.background),
        top=spec.top,
        seed=run.seed,
        known_importance=pyarrow.concat_tables(tables),
        drawn_from=asked.streamed.rows,
    )


def _stopped(spec: Spec, whole: dict[str, Any], rows: int) -> tuple[str, ...]:
    """What became of the tolerance, in words."""
    if spec.tolerance is None:
        return ()
    if whole["exact"]:
        return ("the tolerance was not needed: the values are exact",)
    reached = (
        f"tolerance {spec.tolerance:g}: {rows - whole['over']:,} of {rows:,} rows have all standard errors below it"
    )
    more = f", the largest is {whole['worst']:.2g}: give more max_evaluations" if whole["over"] else ""
    return (reached + more,)
