"""Rows at once: an explainer that is read once and kept.

    explainer = open_explainer(model)                     read, laid out, tables built
    answer = explainer.row({"age": 41, "income": 2.5})    exact for trees and linear models
    answers = explainer.rows([row, other, ...])           many in one call

The values of `rows` are those of `explain`, bit for bit and whatever rows are beside a row (of trees against a background to
rounding: their tables are cut by the number of rows). `row` is the shortest way for one: path-dependent values to rounding.
Threads may share one, and run side by side. Does not open pipelines (they are explained as functions of their input, and need
a background), keep explainers (see `explainers`), and serves nothing: see `formats` for what an answer looks like outside.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain import question as questions
from millrace.analyses.explain.players import shown_data
from millrace.analyses.explain.spec import Spec
from millrace.run.canonical import Unkeyable
from millrace.run.errors import ModelTrouble, NotAdditive, WrongQuestion
from millrace.run.keys import Keys
from millrace.run.streams import rng

if TYPE_CHECKING:
    import numpy

    from millrace.analyses.explain.question import Question

ROUNDING = 1e-9
"""base + values may differ from the output by this share of the largest of them."""


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """One row explained. values: (features, outputs); base_values, predictions: (outputs,); data: (features,);
    standard_errors as values, for estimates. additivity_error: largest abs(base + sum - prediction)."""

    values: numpy.ndarray[Any, Any]
    base_values: numpy.ndarray[Any, Any]
    predictions: numpy.ndarray[Any, Any]
    data: numpy.ndarray[Any, Any]
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    categories: Mapping[int, tuple[Any, ...]]
    unit: str
    method: str
    exact: bool
    additivity_error: float
    model_digest: str
    standard_errors: numpy.ndarray[Any, Any] | None = None


@dataclass(frozen=True, slots=True)
class Explainer:
    """A model that was read once. `of_row`: rows[1, columns] -> (values, predictions, base, errors or None) of all
    outputs; `of_rows`: the same of rows[n, columns], each with a first axis of n (but base), errors a list of n. size_bytes:
    what it keeps in memory, beside the model object itself."""

    asked: Question
    digest: str
    size_bytes: int
    of_row: Callable[[Any], tuple[Any, Any, Any, Any]]
    of_rows: Callable[[Any], tuple[Any, Any, Any, Sequence[Any]]]

    def row(self, row: Mapping[str, Any] | Sequence[Any]) -> RowAnswer:
        """Explain one row: values by column name, or all of them in the model's order. Raises `WrongQuestion`."""
        given = self._numbers(row)
        values, predictions, base, errors = self.of_row(given)
        return self._answers(given, [values], [predictions], base, [errors])[0]

    def rows(self, rows: Sequence[Mapping[str, Any] | Sequence[Any]]) -> list[RowAnswer]:
        """Explain many rows in one call, each given as for `row`. Raises `WrongQuestion` with the row's number."""
        return self.explained(self.numbers(rows))

    def numbers(self, rows: Sequence[Mapping[str, Any] | Sequence[Any]]) -> Any:
        """float64[rows, columns] in the model's order, labels as their codes. Raises `WrongQuestion` as `rows`."""
        import numpy

        out = numpy.empty((len(rows), len(self.asked.rows.names)))
        for i, row in enumerate(rows):
            try:
                out[i] = self._numbers(row)
            except WrongQuestion as e:
                if len(rows) == 1:
                    raise
                raise WrongQuestion(f"Row {i} of {len(rows)}, counted from 0: {e}") from None
        return out

    def explained(self, given: Any) -> list[RowAnswer]:
        """The answers of rows that are numbers already: see `numbers`."""
        values, predictions, base, errors = self.of_rows(given)
        return self._answers(given, values, predictions, base, errors)

    def _answers(self, given: Any, values: Any, predictions: Any, base: Any, errors: Sequence[Any]) -> list[RowAnswer]:
        from dataclasses import replace

        import numpy

        asked = self.asked
        data, labels = shown_data(replace(asked.shown or asked.rows, values=given), asked.players)
        one = slice(asked.output, asked.output + 1) if asked.output >= 0 and values[0].shape[-1] > 1 else slice(None)
        base, answers = base[one], []
        for own, predicted, known, shown in zip(values, predictions, errors, data, strict=True):
            own, predicted = own[:, one], predicted[one]
            gap = float(numpy.abs(base + own.sum(axis=0) - predicted).max())
            if not gap <= ROUNDING * max(1.0, float(numpy.abs(predicted).max())):
                raise NotAdditive(
                    f"Values of this row do not add up: base + values differ from the model's output by {gap:.3g}. Nothing is "
                    "returned, because the values may be wrong. Please report it with the model."
                )
            answers.append(RowAnswer(
                own, base, predicted, shown, asked.players.names, asked.output_names, labels, asked.unit,
                asked.method, known is None, gap, self.digest, known,
            ))  # fmt: skip
        return answers

    def _numbers(self, row: Mapping[str, Any] | Sequence[Any]) -> Any:
        import numpy

        names = self.asked.rows.names
        if isinstance(row, Mapping):
            if len(row) != len(names) or not all(map(row.__contains__, names)):
                missing, extra = [n for n in names if n not in row], [n for n in row if n not in names]
                said = [f"lacks {missing[:8]}"] * bool(missing) + [
                    f"has {extra[:8]}, which the model does not take"
                ] * bool(extra)
                raise WrongQuestion(
                    f"The row {' and '.join(said)}. Give every column of the model, None where a value is missing."
                )
            row = [row[name] for name in names]
        if len(row) != len(names):
            raise WrongQuestion(
                f"The row has {len(row)} values and the model takes {len(names)}: give one for each column."
            )
        plain = numpy.asarray(row)
        if plain.dtype.kind in "fiub":
            return plain.astype(numpy.float64)[None, :]
        out = numpy.empty((1, len(names)))
        for j, value in enumerate(row):
            out[0, j] = self._number(j, value)
        return out

    def _number(self, j: int, value: Any) -> float:
        if value is None:
            return float("nan")
        if isinstance(value, str):
            labels = self.asked.rows.categories.get(j)
            if labels is None or value not in labels:
                name = self.asked.rows.names[j]
                known = "takes numbers" if labels is None else f"knows {', '.join(map(repr, labels[:8]))}"
                raise WrongQuestion(f"The row has {value!r} in column {name!r}, which {known}.")
            return float(labels.index(value))
        try:
            return float(value)
        except (TypeError, ValueError):
            raise WrongQuestion(
                f"The row has a {type(value).__name__} in column {self.asked.rows.names[j]!r}: give a number, a label, or None."
            ) from None


def open_explainer(model: Any, *, background: Any = None, digest: str = "", seed: int = 0, **options: Any) -> Explainer:
    """Read a model (an object or file) for single rows. `options`: fields of explain's `Spec`, but for data.

    Tree models need no background (path-dependent values) or take one; all others need one: rows that stand for
    "feature unknown". Raises what `explain` raises.
    """
    notes: list[str] = []

    def draws(*index: int) -> Any:
        return rng(seed, *index)

    from millrace.analyses.explain.models import open_model

    opened = open_model(model, notes.append)
    data = background if background is not None else _blank(opened)
    spec = Spec(model=opened, data=data, background=background, **_method(opened, options))
    asked = questions.read(spec, notes.append, draws)
    digest = digest or digest_of(model)
    if asked.forest is not None:
        return _of_trees(asked, digest)
    if background is None:
        raise WrongQuestion(
            f"One row of a {type(opened).__name__} cannot be explained without a background: give rows that stand for 'feature "
            "unknown'."
        )
    if asked.line is not None:
        return _of_line(asked, digest)
    return _of_function(asked, spec, digest, draws)


def _blank(model: Any) -> Any:
    """One row of zeros in the model's columns: enough to read trees by."""
    import numpy
    import pyarrow

    from millrace.analyses.explain.kernels.libraries import column_names, n_columns

    names, count = column_names(model), n_columns(model)
    if names is not None:
        return pyarrow.table({name: [0.0] for name in names})
    if count is None:
        raise WrongQuestion("The model does not say how many columns it takes: give a background.")
    return numpy.zeros((1, count))


def _method(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(getattr(model, "steps", None), list):
        return {**options, "method": "kernel"}
    return dict(options)


def _of_trees(asked: Question, digest: str) -> Explainer:
    """Tables where there is a background; else one walk, with what does not change from row to row made before."""
    import numpy

    from millrace.analyses.explain.kernels import trees
    from millrace.analyses.explain.kernels.ensemble import row_reader
    from millrace.analyses.explain.kernels.structure import structure

    forest = asked.forest
    assert forest is not None
    shape = structure(forest, asked.player_of, len(asked.players.names))
    base = trees.base_values(forest, shape, asked.background, asked.weights)
    read = row_reader(forest)
    known = 0 if asked.background is None else len(asked.background)
    cut = trees.layout(forest, shape, 1000, known, numpy.float64)
    tables = [trees.build(forest, shape, cut, b, asked.background, asked.weights) for b in range(cut.batches)]
    explain_rows = trees.prepared(forest, shape, cut, tables)
    walk = _walk(forest, shape) if asked.background is None else None

    def of_row(row: Any) -> tuple[Any, Any, Any, None]:
        predicted = read(row)
        return explain_rows(row, numpy.float64)[0] if walk is None else walk(row), predicted, base, None

    def of_rows(rows: Any) -> tuple[Any, Any, Any, Sequence[None]]:
        return explain_rows(rows, numpy.float64), trees.raw_output(forest, shape, rows), base, [None] * len(rows)

    parts = [*forest.arrays().values(), *shape.arrays().values(), *(a for t in tables for a in t.values())]
    return Explainer(asked, digest, sum(a.nbytes for a in parts if isinstance(a, numpy.ndarray)), of_row, of_rows)


def _walk(forest: Any, shape: Any) -> Callable[[Any], Any]:
    """row[1, columns] -> values (players, outputs), path-dependent."""
    import numpy

    from millrace.analyses.explain.kernels import one_row

    most = int((forest.tree_start[1:] - forest.tree_start[:-1]).max(initial=0))
    given = (
        forest.feature, forest.left, forest.right, forest.value, forest.threshold, forest.mode, forest.category_start,
        forest.category_count, forest.category_member, forest.tree_start, forest.tree_output, shape.player, shape.previous,
        shape.fraction, shape.before, *one_row.rules(forest, shape), most,
    )  # fmt: skip

    def values_of(row: Any) -> Any:
        with numpy.errstate(over="ignore"):  # what float32 cannot hold is infinite, as the library has it
            seen = row[0].astype(numpy.float32).astype(numpy.float64) if forest.float32_inputs else row[0].copy()
        seen.flags.writeable = False
        sums = numpy.zeros((forest.n_outputs, len(shape.played)))
        one_row.walk_row(*given, seen, sums)
        values = numpy.zeros((shape.players, forest.n_outputs))
        values[shape.played] = sums.T
        return values

    return values_of


def _of_line(asked: Question, digest: str) -> Explainer:
    from millrace.analyses.explain.kernels.linear import explain_linear

    line = asked.line
    assert line is not None
    assert asked.background is not None
    mean = asked.weights @ asked.background
    base = line.raw(mean[None, :])[0]

    def of_rows(rows: Any) -> tuple[Any, Any, Any, Sequence[None]]:
        values = explain_linear(line, rows, mean, asked.player_of, len(asked.players.names))
        return values, line.raw(rows), base, [None] * len(rows)

    return Explainer(asked, digest, line.coefficients.nbytes + mean.nbytes, _first(of_rows), of_rows)


def _of_function(asked: Question, spec: Spec, digest: str, draws: Callable[..., Any]) -> Explainer:
    from millrace.analyses.explain.kernels import coalitions

    function = asked.function
    assert function is not None
    assert asked.background is not None
    design = coalitions.design(len(asked.players.names), spec.max_evaluations, draws(1), asked.method)

    def of_rows(rows: Any) -> tuple[Any, Any, Any, Sequence[Any]]:
        found = coalitions.explain_rows(function.call, rows, asked.background, asked.weights, design, asked.player_of)  # type: ignore[arg-type]
        errors = [None if e else own for e, own in zip(found.exact, found.standard_errors, strict=True)]
        return found.values, found.prediction, found.base, errors

    size = asked.background.nbytes + design.masks.nbytes + design.solver.nbytes + design.left_out.nbytes
    return Explainer(asked, digest, size, _first(of_rows), of_rows)


def _first(of_rows: Callable[[Any], tuple[Any, Any, Any, Sequence[Any]]]) -> Callable[[Any], tuple[Any, Any, Any, Any]]:
    def of_row(row: Any) -> tuple[Any, Any, Any, Any]:
        values, predictions, base, errors = of_rows(row)
        return values[0], predictions[0], base, errors[0]

    return of_row


def digest_of(model: Any) -> str:
    """By content: the bytes of a model file, or the object's own. Raises `ModelTrouble` for what has no content."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if not path.exists():
            raise WrongQuestion(f"There is no model file {path}. Look for a typing error, or give a full path.")
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
    try:
        return Keys(0).of(type(model), (model,))
    except Unkeyable as e:
        raise ModelTrouble(
            f"A {type(model).__name__} cannot be told from another by its content ({e}): give digest=, a word that names this "
            "version of the model, or a model file."
        ) from e
