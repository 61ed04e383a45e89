"""From what the user gave to what is computed: the model read, the rows in its columns, the method chosen.

Choosing looks at what the model can do, never at the name of its class. All that can be wrong with the question is
found here, before the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.models import open_model
from millrace.analyses.explain.spec import Spec
from millrace.run.errors import NotSupported, WrongQuestion
from millrace.run.tables import Rows, align, read_rows

if TYPE_CHECKING:
    import numpy

    from millrace.analyses.explain.kernels.blackbox import Function
    from millrace.analyses.explain.kernels.ensemble import Ensemble
    from millrace.analyses.explain.kernels.linear import Linear

AUTO_BACKGROUND_ROWS = 100
TREE_METHODS = ("tree_path_dependent", "interventional")


@dataclass(frozen=True, slots=True)
class Question:
    """One of `forest`, `line` and `function` is set. `background`: (rows, features), `weights` sum to 1; None for
    path-dependent values. `output`: number of the chosen output, -1 for all of them. `why`: the decisions, in words.
    `shown`: the data as the user gave it, where `rows` is what came out of a pipeline's first steps.
    """

    method: str
    rows: Rows
    background: numpy.ndarray[Any, Any] | None
    weights: numpy.ndarray[Any, Any] | None
    output: int
    output_names: tuple[str, ...]
    unit: str
    why: tuple[str, ...]
    model: Any
    forest: Ensemble | None = None
    line: Linear | None = None
    function: Function | None = None
    shown: Rows | None = None

    @property
    def outputs(self) -> int:
        return len(self.output_names)


def read(spec: Spec, note: Callable[[str], None], rng: Callable[..., numpy.random.Generator]) -> Question:
    """The question as it will be computed; every trouble with it is an error of `run.errors.WrongQuestion`."""
    model = open_model(spec.model, note)
    rows = _in_model_columns(model, read_rows(spec.data, "data", spec.limit), "data", note)
    background, weights, how = None, None, ()
    if _is_auto(spec.background):
        background, weights, how = _represented(spec, rows, rng)
    elif spec.background is not None:
        background = _in_model_columns(model, read_rows(spec.background, "background"), "background", note)
        if background.names != rows.names or background.categories != rows.categories:
            background = _like(background, rows)
        weights = _weights(spec, len(background.values))
    if spec.background_weights is not None and (background is None or how):
        raise WrongQuestion("background_weights are of the rows of a background: give the background's rows as well.")
    question = _chosen(spec, model, rows, background, weights, note, rng)
    return replace(question, why=(*question.why, *how))


def _chosen(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any, note: Callable[[str], None],
    rng: Callable[..., numpy.random.Generator],
) -> Question:  # fmt: skip
    """By the first method that the model and the output allow."""
    asked = spec.method
    if asked != "kernel" and not rows.categories:
        question = _pipeline(spec, model, rows, background, weights, note)
        if question is not None:
            return question
    if asked in ("auto", *TREE_METHODS):
        question = _trees(spec, model, rows, background, weights, note)
        if question is not None:
            return question
    if asked in ("auto", "linear"):
        question = _linear(spec, model, rows, background, weights)
        if question is not None:
            return question
    if asked in TREE_METHODS or asked == "linear":
        kind = "a tree model" if asked in TREE_METHODS else "a linear function of its columns"
        raise NotSupported(
            f"The method {asked!r} does not fit this model and output: {type(model).__qualname__} is not {kind} there. "
            "Leave method='auto', or use 'kernel'."
        )
    return _kernel(spec, model, rows, background, weights, rng)


def _represented(
    spec: Spec, rows: Rows, rng: Callable[..., numpy.random.Generator]
) -> tuple[Rows, numpy.ndarray[Any, Any], tuple[str, ...]]:
    from millrace.analyses.explain.background import representatives

    chosen, weights = representatives(rows, spec.background_rows, rng(2))
    how = (
        f"background auto: {len(chosen):,} rows of the data, drawn by the seed, each weighted by the share of rows "
        f"nearest to it ({weights.min():.2g} to {weights.max():.2g})"
    )
    return replace(rows, values=rows.values[chosen]), weights, (how,)


def _weights(spec: Spec, rows: int) -> Any:
    import os

    from millrace.analyses.explain.background import given_weights

    weights = spec.background_weights
    if isinstance(weights, str | os.PathLike):
        weights = read_rows(weights, "background_weights").values
    return given_weights(weights, rows)


def _is_auto(background: Any) -> bool:
    return isinstance(background, str) and background == "auto"


# -- columns -----------------------------------------------------------------------------------------------------
def _in_model_columns(model: Any, rows: Rows, what: str, note: Callable[[str], None]) -> Rows:
    """Rows in the model's columns, in its order."""
    from millrace.analyses.explain.kernels.libraries import column_names, n_columns

    names = column_names(model)
    if names is not None:
        plain = tuple(n.replace(" ", "_") for n in rows.names)
        if set(names) != set(rows.names) and set(names) == set(plain):
            rows = replace(rows, names=plain)  # LightGBM writes spaces in names as underscores
        rows, said = align(rows, names, what)
        if said is not None:
            note(said)
    else:
        count = n_columns(model)
        if count is not None and count != len(rows.names):
            raise WrongQuestion(
                f"The {what} has {len(rows.names)} columns and the model takes {count}: give the columns of its training."
            )
    return rows


def _recode(model: Any, rows: Rows, what: str) -> Rows:
    """Codes of the data's own labels become the model's codes; a label that the model does not know is missing."""
    import numpy

    from millrace.analyses.explain.kernels.libraries import category_labels

    if not rows.categories:
        return rows
    labels = category_labels(model, tuple(rows.categories))
    if labels is None:
        names = ", ".join(repr(rows.names[j]) for j in rows.categories)
        raise WrongQuestion(
            f"The {what} has text or categories in {names}, and the model was not fitted on categories that it remembers: "
            "give the numbers that it was fitted on."
        )
    values = rows.values.copy()
    for j, own in rows.categories.items():
        code_of = {label: code for code, label in enumerate(labels[j])}
        table = numpy.array([code_of.get(label, numpy.nan) for label in own] + [numpy.nan])
        codes = values[:, j]
        values[:, j] = table[numpy.where(numpy.isnan(codes), len(own), codes).astype(numpy.int64)]
    return replace(rows, values=values, categories={j: labels[j] for j in rows.categories})


def _like(background: Rows, rows: Rows) -> Rows:
    """The background in the data's columns and codes, so that a code means one label in both."""
    import numpy

    background, _ = align(background, rows.names, "background")
    values = background.values
    for j, own in background.categories.items():
        labels = rows.categories.get(j, ())
        values = values.copy()
        code_of = {label: code for code, label in enumerate(labels)}
        unknown = [label for label in own if label not in code_of]
        if unknown:
            raise WrongQuestion(
                f"The background has {unknown[0]!r} in column {rows.names[j]!r}, which the data does not have: give data and "
                "background as tables with the same categories."
            )
        codes = values[:, j]
        table = numpy.array([code_of[label] for label in own] + [numpy.nan])
        values[:, j] = table[numpy.where(numpy.isnan(codes), len(own), codes).astype(numpy.int64)]
    return replace(background, values=values, categories=rows.categories)


# -- methods -----------------------------------------------------------------------------------------------------
def _trees(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any, note: Callable[[str], None]
) -> Question | None:
    from millrace.analyses.explain.kernels.ensemble import check_rows
    from millrace.analyses.explain.kernels.libraries import check_own_output
    from millrace.analyses.explain.kernels.tree_models import read_trees

    try:
        forest = read_trees(model)
    except NotSupported as e:
        if spec.method != "auto":
            raise
        note(f"{e} The kernel method is used instead: estimates with standard errors.")
        return None
    if forest is None:
        return None
    if spec.output == "probability" and forest.link != "probability":
        return None  # not additive in tree leaves; the kernel method answers it
    method = spec.method
    if method == "auto":
        method = "tree_path_dependent" if background is None else "interventional"
    if method == "interventional" and background is None:
        raise WrongQuestion("The method 'interventional' needs a background: rows that stand for 'feature unknown'.")
    if method == "tree_path_dependent" and background is not None:
        raise WrongQuestion(
            "The method 'tree_path_dependent' takes no background (it uses the training weights in the trees): leave the "
            "background out, or use 'interventional'."
        )
    if forest.n_features != len(rows.names):
        raise WrongQuestion(f"The data has {len(rows.names)} columns and the model takes {forest.n_features}.")
    rows = _recode(model, rows, "data")
    check_rows(forest, rows.values)
    if background is not None:
        background = _recode(model, background, "background")
        check_rows(forest, background.values)
    check_own_output(model, forest, rows.values)
    output, names = _output(spec.output, forest.output_names)
    why = f"{method}: the model is {len(forest.tree_output):,} trees, whose values are exact"
    return Question(
        method, rows, None if background is None else background.values, weights, output, names,
        _unit(forest.link, names), (why,), model, forest=forest,
    )  # fmt: skip


def _linear(spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any) -> Question | None:
    from millrace.analyses.explain.kernels.linear import read_linear

    if spec.output == "probability":
        return None
    line = read_linear(model)
    if line is None:
        return None
    if line.coefficients.shape[1] != len(rows.names):
        raise WrongQuestion(f"The data has {len(rows.names)} columns and the model takes {line.coefficients.shape[1]}.")
    if rows.categories:
        return None  # only the model itself can turn labels into numbers
    _finite(rows, "data")
    why = ["linear: the model's output is a linear function of its columns, so the closed form is exact"]
    if background is None:
        background, weights = rows, _equal(rows)
        why.append("no background was given: the mean of the data itself stands for 'feature unknown'")
    else:
        _finite(background, "background")
    output, names = _output(spec.output, line.output_names)
    return Question("linear", rows, background.values, weights, output, names, line.unit, tuple(why), model, line=line)


def _kernel(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any,
    rng: Callable[..., numpy.random.Generator],
) -> Question:  # fmt: skip
    from millrace.analyses.explain.kernels.blackbox import as_function, check_rows

    why = []
    if background is None:
        count = min(AUTO_BACKGROUND_ROWS, len(rows.values))
        chosen = rng(0).choice(len(rows.values), count, replace=False)
        chosen.sort()
        background = replace(rows, values=rows.values[chosen])
        weights = _equal(background)
        why.append(f"no background was given: {count} rows of the data, drawn by the seed, stand for 'feature unknown'")
    names = rows.names if rows.named else None
    function = as_function(model, spec.output, names, rows.values[:64], rows.categories or None)
    check_rows(function, rows.values)
    check_rows(function, background.values, "background")
    why.insert(0, f"kernel: {function.why}")
    return Question(
        "kernel", rows, background.values, weights, -1, function.output_names, function.unit, tuple(why), model,
        function=function,
    )  # fmt: skip


def _pipeline(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any, note: Callable[[str], None]
) -> Question | None:
    """A pipeline's last step in the input's columns, where the steps before it map columns one to one."""
    from millrace.analyses.explain.kernels.pipelines import in_inputs, open_pipeline

    opened = open_pipeline(model, rows.names, rows.values, None if background is None else background.values)
    if opened is None:
        return None
    names = tuple(rows.names[j] for j in opened.source)
    inner = replace(rows, values=opened.rows, names=names)
    behind = None if opened.background is None else replace(rows, values=opened.background, names=names)
    question = None
    if spec.method in ("auto", *TREE_METHODS):
        question = _trees(spec, opened.last, inner, behind, weights, note)
    if question is None and spec.method in ("auto", "linear"):
        question = _linear(spec, opened.last, inner, behind, weights)
    if question is None:
        return None
    part = question.forest or question.line
    assert part is not None
    moved, values, known = in_inputs(opened, part, len(rows.names))
    if known is None and question.background is not None:
        known = values  # the mean of the data itself
    kept: dict[str, Any] = {"forest": moved} if question.forest else {"line": moved}
    why = "the steps before the pipeline's last map columns one to one: values are of the input's columns"
    return replace(
        question, rows=replace(rows, values=values), background=known, why=(*question.why, why), model=model, shown=rows,
        **kept,
    )  # fmt: skip


def _output(asked: str, names: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Number of the chosen output (-1: all) and the names of what is left."""
    if asked in ("auto", "raw", "probability"):
        return -1, names
    if asked not in names:
        raise WrongQuestion(f"The model has no output {asked!r}. Its outputs are {', '.join(map(repr, names))}.")
    return names.index(asked), (asked,)


def _unit(link: str, names: tuple[str, ...]) -> str:
    """What raw output is measured in, in words."""
    kind = link.partition(":")[0]
    of = f" of {names[0]}" if len(names) == 1 and names[0] != "output" else ""
    words = {
        "identity": "the unit of the model's output",
        "logit": f"log-odds{of}",
        "softmax": "log-odds (softmax margins)",
        "one_vs_all": "log-odds (one against all)",
        "log": "log of the expected value",
        "probability": f"probability{of}",
    }
    return words.get(kind, "the model's raw output")


def _equal(background: Rows) -> Any:
    import numpy

    return numpy.full(len(background.values), 1.0 / len(background.values))


def _finite(rows: Rows, what: str) -> None:
    import numpy

    bad = numpy.argwhere(~numpy.isfinite(rows.values))
    if len(bad):
        i, j = bad[0]
        raise WrongQuestion(
            f"The {what} has {len(bad):,} missing or infinite values (first: row {i}, column {rows.names[j]!r}), which the "
            "model cannot take: fill them in, or leave these rows out."
        )
