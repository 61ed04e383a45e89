"""From what the user gave to what is computed: the model read, the rows in its columns, the method chosen.

Choosing looks at what the model can do, never at the name of its class. All that can be wrong with the question is
found here, before the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from millrace.analyses.explain.background import everything, seen_rows
from millrace.analyses.explain.columns import alike, in_model_columns, recode, streamed_source
from millrace.analyses.explain.models import open_model
from millrace.analyses.explain.players import Players, players
from millrace.analyses.explain.spec import SAMPLED, Spec
from millrace.run.errors import NotSupported, WrongQuestion
from millrace.run.tables import Rows, read_rows

if TYPE_CHECKING:
    import numpy

    from millrace.analyses.explain.background import Everything
    from millrace.analyses.explain.kernels.blackbox import Function
    from millrace.analyses.explain.kernels.ensemble import Ensemble
    from millrace.analyses.explain.kernels.linear import Linear
    from millrace.analyses.explain.parquet import Source

AUTO_BACKGROUND_ROWS = 100
KERNEL_PLAYERS = 2_000
"""More players go to the permutation method: the kernel method's system grows with their square."""
TREE_METHODS = ("tree_path_dependent", "interventional")
FUNCTIONAL = (*SAMPLED, "gradient")
"""Methods that take any model through its answers, or through their gradients."""


@dataclass(frozen=True, slots=True)
class Question:
    """One of `forest`, `line` and `function` is set. `background`: (rows, features), `weights` sum to 1; None for
    path-dependent values. `output`: number of the chosen output, -1 for all of them. `why`: the decisions, in words.
    `players`: whose values are asked for; `player_of`: the player of each of the rows' columns. `shown`: the data as the
    user gave it, where `rows` is what came out of a pipeline's first steps. streamed: the file whose first rows `rows` is, in
    the model's columns; `labels`: of the model's codes, by column, where the file has text there.
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
    players: Players
    player_of: numpy.ndarray[Any, Any]
    forest: Ensemble | None = None
    line: Linear | None = None
    function: Function | None = None
    shown: Rows | None = None
    streamed: Source | None = None
    labels: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        return len(self.output_names)

    @property
    def count(self) -> int:
        """Rows to explain."""
        return len(self.rows.values) if self.streamed is None else self.streamed.rows


def read(spec: Spec, note: Callable[[str], None], rng: Callable[..., numpy.random.Generator]) -> Question:
    """The question as it will be computed; every trouble with it is an error of `run.errors.WrongQuestion`."""
    model = open_model(spec.model, note)
    source = streamed_source(spec, model, note) if spec.stream else None
    if source is None:
        rows = in_model_columns(model, read_rows(spec.data, "data", spec.limit), "data", note)
        whole = everything(rows)
    else:
        whole = source.everything(lambda rows: in_model_columns(model, rows, "data", lambda text: None))
        rows = whole.rows
    background, weights, how = None, None, ()
    if _is_auto(spec.background):
        background, weights, how = _represented(spec, whole, rng)
    elif spec.background is not None:
        background = in_model_columns(model, read_rows(spec.background, "background"), "background", note)
        if background.names != rows.names or background.categories != rows.categories:
            rows, background = alike(rows, background)
        weights = _weights(spec, len(background.values))
    if spec.background_weights is not None and (background is None or how):
        raise WrongQuestion("background_weights are of the rows of a background: give the background's rows as well.")
    played = players(spec.groups, rows.names)
    question = _chosen(spec, model, replace(whole, rows=rows), background, weights, played, note, rng)
    if source is not None:
        question = replace(question, streamed=source, labels=question.rows.categories)
    if played.grouped:
        how = (*how, f"groups: {len(rows.names):,} columns play as {len(played.names):,} features")
    return replace(question, why=(*question.why, *how))


def _chosen(
    spec: Spec, model: Any, whole: Everything, background: Rows | None, weights: Any, played: Players,
    note: Callable[[str], None], rng: Callable[..., numpy.random.Generator],
) -> Question:  # fmt: skip
    """By the first method that the model and the output allow."""
    asked, rows = spec.method, whole.rows
    if spec.stream and isinstance(getattr(model, "steps", None), list):
        note("A pipeline whose rows are streamed is explained as a function of its input.")
    elif asked not in FUNCTIONAL:
        question = _pipeline(spec, model, rows, background, weights, played, note)
        if question is not None:
            return question
    if asked in ("auto", *TREE_METHODS):
        question = _trees(spec, model, rows, background, weights, played, note)
        if question is not None:
            return question
    if asked in ("auto", "linear"):
        question = _linear(spec, model, rows, background, weights, played)
        if question is not None:
            return question
    if asked in TREE_METHODS or asked == "linear":
        kind = "a tree model" if asked in TREE_METHODS else "a linear function of its columns"
        raise NotSupported(
            f"The method {asked!r} does not fit this model and output: {type(model).__qualname__} is not {kind} there. "
            "Leave method='auto', or use 'kernel'."
        )
    return _kernel(spec, model, whole, background, weights, played, rng)


def _represented(
    spec: Spec, whole: Everything, rng: Callable[..., numpy.random.Generator]
) -> tuple[Rows, numpy.ndarray[Any, Any], tuple[str, ...]]:
    from millrace.analyses.explain.background import representatives

    draws = rng(2)
    seen = whole.take(seen_rows(whole.count, draws))
    chosen, weights = representatives(seen, spec.background_rows, draws)
    how = (
        f"background auto: {len(chosen):,} rows of the data, drawn by the seed, each weighted by the share of rows "
        f"nearest to it ({weights.min():.2g} to {weights.max():.2g})"
    )
    return replace(seen, values=seen.values[chosen]), weights, (how,)


def _weights(spec: Spec, rows: int) -> Any:
    import os

    from millrace.analyses.explain.background import given_weights

    weights = spec.background_weights
    if isinstance(weights, str | os.PathLike):
        weights = read_rows(weights, "background_weights").values
    return given_weights(weights, rows)


def _is_auto(background: Any) -> bool:
    return isinstance(background, str) and background == "auto"


# -- methods -----------------------------------------------------------------------------------------------------
def _trees(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any, played: Players,
    note: Callable[[str], None],
) -> Question | None:  # fmt: skip
    from millrace.analyses.explain.kernels.ensemble import check_rows
    from millrace.analyses.explain.kernels.libraries import check_own_output, has_no_codes
    from millrace.analyses.explain.kernels.tree_models import read_trees

    try:
        forest = read_trees(model, rows.categories)
        if forest is not None and spec.stream and rows.categories and has_no_codes(model):
            raise NotSupported(
                "CatBoost is asked about the labels of the data, which a file that is streamed does not tell."
            )
    except NotSupported as e:
        if spec.method != "auto":
            raise
        note(f"{e} The kernel method is used instead: estimates with standard errors.")
        return None
    if forest is None:
        return None
    if spec.output == "log_loss" or (spec.output == "probability" and forest.link != "probability"):
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
    rows = recode(model, rows, "data")
    check_rows(forest, rows.values)
    if background is not None:
        background = recode(model, background, "background")
        check_rows(forest, background.values)
    check_own_output(model, forest, rows.values, rows.categories)
    output, names = _output(spec.output, forest.output_names)
    why = f"{method}: the model is {len(forest.tree_output):,} trees, whose values are exact"
    return Question(
        method, rows, None if background is None else background.values, weights, output, names,
        _unit(forest.link, names), (why,), model, played, played.of, forest=forest,
    )  # fmt: skip


def _all_labelled(spec: Spec, rows: Rows, background: Rows | None) -> None:
    """`NotSupported` where a model that knows labels alone cannot be asked about all of them."""
    import numpy

    if spec.stream:
        raise NotSupported(
            "CatBoost is asked about the labels of the data, which a file that is streamed does not tell."
        )
    for given in (rows, background):
        if given is not None and numpy.isnan(given.values[:, list(given.categories)]).any():
            raise NotSupported("Some labels are missing, and CatBoost takes none for that: fill them in with a word.")


def _linear(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any, played: Players
) -> Question | None:
    if spec.output in ("probability", "log_loss"):
        return None
    line = _line(model)
    if line is None:
        return None
    if line.coefficients.shape[1] != len(rows.names):
        raise WrongQuestion(f"The data has {len(rows.names)} columns and the model takes {line.coefficients.shape[1]}.")
    if rows.categories:
        return None  # only the model itself can turn labels into numbers
    _finite(rows, "data")
    why = ["linear: the model's output is a linear function of its columns, so the closed form is exact"]
    if background is None:
        if spec.stream:
            raise WrongQuestion(
                "The mean of streamed data is not known before it is read: give a background, or background='auto', for a "
                "linear model."
            )
        background, weights = rows, _equal(rows)
        why.append("no background was given: the mean of the data itself stands for 'feature unknown'")
    else:
        _finite(background, "background")
    output, names = _output(spec.output, line.output_names)
    return Question(
        "linear", rows, background.values, weights, output, names, line.unit, tuple(why), model, played, played.of,
        line=line,
    )  # fmt: skip


def _line(model: Any) -> Linear | None:
    """The linear function that the model is, or the mean of its members' when all are linear."""
    from millrace.analyses.explain.kernels import voting
    from millrace.analyses.explain.kernels.linear import read_linear

    voted = voting.members(model)
    if voted is None or hasattr(model, "predict_proba"):
        return read_linear(model)
    parts = [read_linear(member) for member in voted.members]
    known = [part for part in parts if part is not None]
    return voting.sum_of_lines(known, voted) if len(known) == len(parts) else None


def _answering(spec: Spec, model: Any, rows: Rows) -> Any:
    """The model, or its trees as a function where it was asked for probabilities and has none by itself."""
    from millrace.analyses.explain.kernels.tree_models import read_trees
    from millrace.analyses.explain.kernels.tree_probability import tree_probability

    if spec.output not in ("probability", "log_loss") or hasattr(model, "predict_proba") or rows.categories:
        return model
    forest = read_trees(model)
    return (None if forest is None else tree_probability(forest)) or model


def _kernel(
    spec: Spec, model: Any, whole: Everything, background: Rows | None, weights: Any, played: Players,
    rng: Callable[..., numpy.random.Generator],
) -> Question:  # fmt: skip
    from millrace.analyses.explain.kernels.blackbox import as_function, check_rows
    from millrace.analyses.explain.kernels.modules import check_gradient

    why, rows = [], whole.rows
    if spec.stream and rows.categories:
        said = ", ".join(repr(rows.names[j]) for j in rows.categories)
        raise NotSupported(
            f"The file has text or categories in {said}, which are streamed for tree models that remember their labels, and "
            "not for functions: write numbers to the file, or leave stream out."
        )
    if background is None:
        count = min(AUTO_BACKGROUND_ROWS, whole.count)
        chosen = rng(0).choice(whole.count, count, replace=False)
        chosen.sort()
        background = whole.take(chosen)
        weights = _equal(background)
        why.append(f"no background was given: {count} rows of the data, drawn by the seed, stand for 'feature unknown'")
    if spec.method == "gradient":
        check_gradient(model, rows.categories)
    names = rows.names if rows.named else None
    function = as_function(_answering(spec, model, rows), spec.output, names, rows.values[:64], rows.categories or None)
    check_rows(function, rows.values)
    check_rows(function, background.values, "background")
    method = (
        spec.method if spec.method in FUNCTIONAL else "kernel" if len(played.names) <= KERNEL_PLAYERS else "permutation"
    )
    why.insert(0, f"{method}: {function.why}")
    return Question(
        method, rows, background.values, weights, -1, function.output_names, function.unit, tuple(why), model,
        played, played.of, function=function,
    )  # fmt: skip


def _pipeline(
    spec: Spec, model: Any, rows: Rows, background: Rows | None, weights: Any, played: Players,
    note: Callable[[str], None],
) -> Question | None:  # fmt: skip
    """A pipeline's last step in the input's columns, where the steps before it map each column to columns of its own."""
    import numpy

    from millrace.analyses.explain.kernels.pipelines import open_pipeline

    given = None if background is None else background.values
    opened = open_pipeline(model, rows.names, rows.values, given, played.of, rows.categories)
    if opened is None:
        return None
    names = tuple(f"{played.names[j]}" for j in numpy.maximum(opened.player_of, 0))
    inner = replace(rows, values=opened.rows, names=names, categories={}, named=False)
    behind = None if opened.background is None else replace(inner, values=opened.background)
    question = None
    if spec.method in ("auto", *TREE_METHODS):
        question = _trees(spec, opened.last, inner, behind, weights, played, note)
        if question is not None and question.background is None and (opened.player_of < 0).any():
            note(
                "Columns come out of the pipeline's first steps that nothing changes: give a background for exact values."
            )
            return None
    if question is None and spec.method in ("auto", "linear"):
        question = _linear(spec, opened.last, inner, behind, weights, played)
    if question is None:
        return None
    why = (
        "the steps before the pipeline's last map each column to columns of its own: values are of the input's columns, each "
        "with all that comes out of it"
    )
    # Columns that never change move nothing, whoever they are counted to.
    owner = numpy.maximum(opened.player_of, 0)
    return replace(question, player_of=owner, why=(*question.why, why), model=model, shown=rows)


def _output(asked: str, names: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Number of the chosen output (-1: all) and the names of what is left."""
    if asked in ("auto", "raw", "probability", "log_loss"):
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
        "isolation": "mean path length (short is unusual)",
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
