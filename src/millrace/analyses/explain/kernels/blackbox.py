"""Any model as a checked function of rows: `as_function`.

An object is taken by what it can do (`predict_proba`, `decision_function`, `predict`, a call), never by its
class's name. A model that was fitted on a table is called with one, so that it gets its names and never warns. Before
any work the function is tried on some rows: it must give finite numbers of one shape, the same twice, each row for
itself, and leave its input alone. Each trouble is an error that names the row.

What `output` means:

| output | of an object with | is |
|---|---|---|
| auto | predict_proba | the probability of every class |
|  | else decision_function | its scores |
|  | else predict or a call | what it returns |
| raw | decision_function, else predict or a call of what is no classifier | its scores; what it returns |
| probability | predict_proba | the probability of every class |
| log_loss | predict_proba | -log of the probability of every class: the loss, were it the true one |
|  | else predict, of a classifier | for every class, 1 where it is the label that was given, else 0 |
| the name of a class | predict_proba, else decision_function, else predict | that class alone |
| the name of an output | any | that output alone |

Labels have no values that add up; what a classifier of labels alone says of each class has. Does not load files, read trees
(`tree_models`) or linear models (`linear`), or estimate anything (`coalitions`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.run.errors import MillraceError, MissingExtra, ModelTrouble, WrongQuestion

AGREE = 1e-5
"""Two calls may differ by this share of the largest output: threads sum in any order, and models compute in float32."""

MOST_TRIED = 64
_FRAMES = ("pandas", "polars")
_NAMES_WARNING = "feature names"


@dataclass(frozen=True, slots=True)
class Function:
    """A model as rows -> outputs. Travels to workers by pickle when the model does.

    method: what is called ("" is the object itself). frame: "" (the array), "pandas" or "polars" (a table with
    `names`, in which `categories` turns codes back into labels); quiet: the array goes to a model that would rather
    have a table, because no table library is here. column: the chosen output, -1 for all; sign: -1 where the first of
    two classes is asked for and the model scores the second. labels: of the
    classes of a model that gives labels alone. unit: of the values, in words. why: what was chosen.
    """

    model: Any
    method: str
    output: str
    output_names: tuple[str, ...] = ()
    unit: str = ""
    why: str = ""
    column: int = -1
    sign: float = 1.0
    frame: str = ""
    quiet: bool = False
    names: tuple[str, ...] = ()
    categories: Mapping[int, tuple[Any, ...]] | None = None
    labels: tuple[Any, ...] = ()

    def call(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """rows[n, columns] -> finite (n, outputs); `ModelTrouble` when the model raises or gives anything else."""
        # A function that squeezes its answer gives another shape for a single row, so it never gets a single row.
        given = np.repeat(rows, 2, axis=0) if len(rows) == 1 else rows
        try:
            with warnings.catch_warnings():
                if self.quiet:  # the columns are in the model's order all the same
                    warnings.filterwarnings("ignore", message=f".*{_NAMES_WARNING}.*")
                out = self._raw(given)
        except (MillraceError, MemoryError):
            raise
        except Exception as error:
            raise ModelTrouble(
                f"{self._who()} raised {type(error).__name__} on {len(rows)} rows: {_first_line(error)}"
            ) from error
        out = self._shaped(out, len(given))[: len(rows)]
        bad = np.argwhere(~np.isfinite(out))
        if len(bad):
            i, k = bad[0].tolist()
            raise ModelTrouble(
                f"{self._who()} gave {out[i, k]} as output {k} of the row {_shown(rows[i])}. Predictions "
                "must be finite: look at what the model does with such a row (it may be a row of the data "
                "mixed with one of the background)."
            )
        return out

    def _raw(self, rows: NDArray[Any]) -> Any:
        ask = getattr(self.model, self.method) if self.method else self.model
        return ask(table_of(rows, self.frame, self.names, self.categories) if self.frame else rows)

    def _shaped(self, out: Any, count: int) -> NDArray[np.float64]:
        parts = [np.asarray(part) for part in out] if isinstance(out, list | tuple) else []
        if parts and all(part.ndim == 2 and len(part) == count for part in parts):
            out = np.concatenate(parts, axis=1)  # one matrix of probabilities for each target
        out = np.asarray(out)
        if self.labels and out.shape == (count,):
            out = np.stack([out == label for label in self.labels], axis=1)
        if out.dtype.kind not in "fiub":
            raise ModelTrouble(
                f"{self._who()} gave values of type {out.dtype}, such as {out.ravel()[:1].tolist()}: "
                "numbers are needed. For a classifier that gives labels, give its predict_proba, or a "
                "function of the label."
            )
        if out.ndim not in (1, 2) or len(out) != count or not out.size:
            raise ModelTrouble(
                f"{self._who()} gave an array of shape {out.shape} for {count} rows; ({count},) or "
                f"({count}, outputs) is needed: one prediction for each row."
            )
        out = out.reshape(count, -1).astype(np.float64, copy=False)
        if self.output == "log_loss":  # never infinite: scikit-learn's own bound
            out = -np.log(np.clip(out, np.finfo(np.float64).eps, 1.0))
        if self.column >= 0:
            out = self.sign * out[:, self.column : self.column + 1]
        return out

    def _who(self) -> str:
        return f"The model's {self.method}" if self.method else "The function"


def as_function(
    model: Any,
    output: str,
    feature_names: Sequence[str] | None,
    sample: NDArray[Any],
    categories: Mapping[int, tuple[Any, ...]] | None = None,
) -> Function:
    """The model's `output` as a function, chosen and tried on sample[n, columns].

    feature_names: the columns' own names, None when they have none. categories: labels by column number for columns
    that hold codes; the model then gets the labels, in a table. Raises `WrongQuestion` (columns, output),
    `ModelTrouble` (the model is not the function that an explanation needs).
    """
    sample = np.asarray(sample)
    if sample.ndim != 2 or not sample.size:
        raise WrongQuestion(
            f"There is nothing to explain in data of shape {sample.shape}: give at least one row and column."
        )
    names = tuple(str(name) for name in feature_names) if feature_names is not None else ()
    _check_columns(model, names, sample.shape[1])
    names = names or _fitted_names(model)  # columns without names are in the model's order, as in its own predict
    _check_infinite(sample, names, "data")
    sample = sample[:MOST_TRIED]
    method = _method(model, output)
    function = Function(model, method, output, names=names, categories=categories, labels=_labels(model, method))
    function, first = _given_its_form(function, sample)
    function = _named(function, first.shape[1])
    _check_behaviour(function, sample)
    return function


def check_rows(function: Function, rows: NDArray[Any], what: str = "data") -> None:
    """Whether a whole matrix can go to the function: no infinite value, and missing ones only where it takes them.

    Calls the function on the first few rows with a missing value. Raises `WrongQuestion`.
    """
    for a in range(0, len(rows), 8192):
        part = np.asarray(rows[a : a + 8192])
        _check_infinite(part, function.names, what, a)
        missing = np.flatnonzero(np.isnan(part).any(axis=1))[:4]
        if len(missing):
            try:
                function.call(part[missing])
            except ModelTrouble as error:
                i = int(missing[0])
                raise _takes_no_missing(function, part[i], a + i, what, error) from error
            return


# -- what to call --------------------------------------------------------------------------------------------------
def _method(model: Any, output: str) -> str:
    """Name of what answers this output; "" for the object itself."""
    probability, score, predict = (_can(model, name) for name in ("predict_proba", "decision_function", "predict"))
    classifier = getattr(model, "classes_", None) is not None
    if not (probability or score or predict or callable(model)):
        raise ModelTrouble(
            f"A {type(model).__qualname__} is no model: it has no predict_proba, decision_function or "
            "predict, and it cannot be called. Give a fitted model, or a function of rows."
        )
    if output in ("probability", "log_loss") and not probability:
        raise WrongQuestion(
            f"The model has no predict_proba, so there is no output {output!r}. Use output='raw', or fit "
            "the model so that it gives probabilities."
        )
    if output == "raw" and probability and not score:
        raise WrongQuestion(
            "The model gives probabilities and no raw score (it has no decision_function). Use "
            "output='probability', or give a function that computes the score."
        )
    if probability and output != "raw":
        return "predict_proba"
    if score:
        return "decision_function"
    if classifier and output == "raw":
        raise WrongQuestion(
            "The model gives labels only, which have no raw score. Leave output='auto', or name a class."
        )
    return "predict" if predict else ""


def _labels(model: Any, method: str) -> tuple[Any, ...]:
    """The classes of a model that is asked for labels, () of all others."""
    classes = getattr(model, "classes_", None)
    if method != "predict" or classes is None or isinstance(classes, list):
        return ()
    return tuple(np.asarray(classes).ravel())


def _can(model: Any, name: str) -> bool:
    return callable(getattr(model, name, None))


def _fitted_names(model: Any) -> tuple[str, ...]:
    """Columns of the table that the model was fitted on, () when it was no table; also of a method of a model."""
    names = getattr(getattr(model, "__self__", model), "feature_names_in_", None)
    return () if names is None else tuple(str(name) for name in names)


def _owner(function: Function) -> Any:
    """The object that knows classes and names: the model, or the one whose method was given as a function."""
    return function.model if function.method else getattr(function.model, "__self__", function.model)


def _named(function: Function, count: int) -> Function:
    """With the outputs' names, the one that was asked for, unit and reason. `count`: of the outputs that came."""
    method = function.method or getattr(function.model, "__name__", "")
    told = "labels" if function.labels else method
    names = _output_names(getattr(_owner(function), "classes_", None), told, count)
    column, sign = -1, 1.0
    if function.output not in ("auto", "raw", "probability", "log_loss"):
        column, sign = _column(function, names, method)
        names = (function.output,)
    unit = "the unit of the model's output"
    if function.output == "log_loss":
        names = tuple(f"loss if {name}" for name in names)
        return replace(function, output_names=names, unit="log loss", why="the logarithm of the model's predict_proba is "
                       "taken, through its answers")  # fmt: skip
    if function.labels:
        unit = "1 where the label is given"
    elif method == "predict_proba":
        unit = f"probability of {names[0]}" if len(names) == 1 else "probability"
    elif method == "decision_function":
        unit = f"score for {names[0]}" if len(names) == 1 and names[0] != "output" else "the model's raw score"
    called = f"the model's {function.method}" if function.method else "the function"
    table = f", called with a {function.frame} table," if function.frame in _FRAMES else ""
    why = f"{called}{table} is taken as it is, through its answers ({', '.join(names[:6])}{', ...' * (len(names) > 6)})"
    return replace(function, output_names=names, column=column, sign=sign, unit=unit, why=why)


def _output_names(classes: Any, method: str, count: int) -> tuple[str, ...]:
    if classes is not None and method in ("predict_proba", "decision_function", "labels"):
        if isinstance(classes, list):  # several targets, each with classes of its own
            names = tuple(f"target {t}: {name}" for t, own in enumerate(classes) for name in own)
        else:
            names = tuple(str(name) for name in np.asarray(classes).ravel())
        if len(names) == count:
            return names
        if len(names) == 2 and count == 1:
            return names[1:]
    return ("output",) if count == 1 else tuple(f"output {k}" for k in range(count))


def _column(function: Function, names: tuple[str, ...], method: str) -> tuple[int, float]:
    """(number, sign) of the output that was asked for by name."""
    if function.output in names:
        return names.index(function.output), 1.0
    classes = getattr(_owner(function), "classes_", None)
    if len(names) == 1 and method == "decision_function" and classes is not None and len(classes) == 2:
        if str(classes[0]) == function.output:
            return 0, -1.0  # one score for two classes: against the second is for the first
        names = tuple(str(name) for name in classes)
    raise WrongQuestion(
        f"The model has no output {function.output!r}. Its outputs are {', '.join(map(repr, names))}; or "
        "use 'auto', 'raw' or 'probability'."
    )


# -- in what form it takes rows ------------------------------------------------------------------------------------
def _given_its_form(function: Function, sample: NDArray[Any]) -> tuple[Function, NDArray[np.float64]]:
    """The function with the first form of rows that it takes without raising, and its first answer.

    A model fitted on a table gets a table. Else the array is tried first, which costs nothing to make, then a table
    when the columns have names.
    """
    tables = [name for name in _FRAMES if find_spec(name)]
    likes_tables = bool(_fitted_names(function.model))
    if function.categories and not tables:
        raise MissingExtra("pandas", "demo", "A model that takes text or categories")
    if function.categories or (likes_tables and tables):
        forms = tables
    else:
        function = replace(function, quiet=likes_tables)
        forms = ["", *tables] if function.names and not likes_tables else [""]
    for form in forms:
        tried = replace(function, frame=form)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if not _answers(tried, sample[:1]):
                continue
        wants_names = any(_NAMES_WARNING in str(warning.message) for warning in said)
        if form or len(forms) == 1 or not wants_names:  # else it is a model inside of a function, fitted on a table
            return tried, _first_answer(tried, sample)
    function = replace(function, frame=forms[0])
    return function, _first_answer(function, sample)


def table_of(
    rows: NDArray[Any], frame: str, names: tuple[str, ...], categories: Mapping[int, tuple[Any, ...]] | None
) -> Any:
    """A pandas or polars table of the rows; codes become labels, NaN a missing label."""
    labelled = {}
    for j, labels in (categories or {}).items():
        known = np.array([*labels, None], dtype=object)
        codes = rows[:, j]
        labelled[j] = known[np.where(np.isnan(codes), len(labels), codes).astype(np.int64)]
    if frame == "pandas":
        import pandas

        if not labelled:
            return pandas.DataFrame(rows, columns=list(names), copy=False)
        columns = {
            name: pandas.Series(labelled[j], dtype=object) if j in labelled else rows[:, j]
            for j, name in enumerate(names)
        }
        return pandas.DataFrame(columns)
    import polars

    return polars.DataFrame(
        {name: labelled[j].tolist() if j in labelled else rows[:, j] for j, name in enumerate(names)}
    )


# -- checks --------------------------------------------------------------------------------------------------------
def _check_columns(model: Any, names: tuple[str, ...], count: int) -> None:
    fitted = _fitted_names(model)
    if fitted and names and fitted != names:
        missing = [name for name in fitted if name not in names]
        extra = [name for name in names if name not in set(fitted)]
        said = (
            f"missing {missing}; not known to the model {extra}" if missing or extra else "the same, in another order"
        )
        raise WrongQuestion(
            f"The columns are not those that the model was fitted on: {said}. Give them as in training."
        )
    needed = getattr(getattr(model, "__self__", model), "n_features_in_", None)
    if isinstance(needed, int | np.integer) and needed != count:
        raise WrongQuestion(
            f"The data has {count} columns and the model takes {needed}: give the columns of its training."
        )


def _check_infinite(rows: NDArray[Any], names: tuple[str, ...], what: str, offset: int = 0) -> None:
    bad = np.argwhere(np.isinf(rows))
    if len(bad):
        i, j = bad[0].tolist()
        raise WrongQuestion(
            f"The {what} has an infinite value in row {offset + i}, column {_column_name(names, j)}. "
            "Replace infinite values, or leave these rows out: what a mixture of rows with infinity "
            "predicts means nothing."
        )


def _first_answer(function: Function, sample: NDArray[Any]) -> NDArray[np.float64]:
    """The answer to the whole sample; where it raises, the row that is to blame."""
    try:
        return function.call(sample.copy())
    except ModelTrouble as error:
        cause = error.__cause__
        if cause is None:  # it answered, with something else than finite numbers of the right shape
            raise
        failing = [i for i in range(len(sample)) if not _answers(function, sample[i : i + 1])]
        if not failing:
            raise
        missing = np.isnan(sample).any(axis=1)
        if missing.any() and missing[failing].all():
            raise _takes_no_missing(function, sample[failing[0]], failing[0], "data", error) from cause
        where = (
            "every row" if len(failing) == len(sample) else f"row {failing[0]} ({len(failing)} of {len(sample)} tried)"
        )
        raise ModelTrouble(
            f"{function._who()} raises on {where}: {type(cause).__name__}: {_first_line(cause)} The first "
            f"such row is {_shown(sample[failing[0]])}. Call the model with this row to see the whole "
            "trouble."
        ) from cause


def _answers(function: Function, row: NDArray[Any]) -> bool:
    try:
        function.call(row.copy())
    except ModelTrouble:
        return False
    return True


def _check_behaviour(function: Function, sample: NDArray[Any]) -> None:
    given = sample.copy()
    first = function.call(given)
    if not np.array_equal(given, sample, equal_nan=True):
        i, j = np.argwhere(~((given == sample) | (np.isnan(given) & np.isnan(sample))))[0].tolist()
        raise ModelTrouble(
            f"{function._who()} changes its input: column {_column_name(function.names, j)} of row {i} was "
            f"{sample[i, j]} before the call and {given[i, j]} after. Let it work on a copy (rows = "
            "rows.copy())."
        )
    allowed = AGREE * np.abs(first).max()
    again = function.call(sample.copy())
    apart = np.abs(again - first).max(axis=1)
    if apart.max() > allowed:
        i = int(apart.argmax())
        raise ModelTrouble(
            f"{function._who()} is random: two calls with the same rows gave {first[i].tolist()} and "
            f"{again[i].tolist()} for row {i}. Fix its seed, or switch the randomness off (dropout, "
            "sampling) before it is explained."
        )
    # Half of the rows, the last first: other neighbours, another place, another mean of the whole.
    some = np.arange(len(sample))[::-1][: (len(sample) + 1) // 2]
    apart = np.abs(function.call(sample[some]) - first[some]).max(axis=1)
    if apart.max() > allowed:
        raise ModelTrouble(
            f"{function._who()} lets rows influence each other: row {int(some[apart.argmax()])} gets another prediction "
            "in other company. An explanation needs each row's prediction to depend on this row alone."
        )


def _takes_no_missing(function: Function, row: NDArray[Any], i: int, what: str, error: Exception) -> WrongQuestion:
    column = _column_name(function.names, int(np.flatnonzero(np.isnan(row))[0]))
    return WrongQuestion(
        f"Row {i} of the {what} has a missing value in column {column}, and the model takes none "
        f"({_first_line(error)}). Fill missing values in as in training, or leave these rows out."
    )


def _column_name(names: tuple[str, ...], j: int) -> str:
    return repr(names[j]) if names else str(j)


def _shown(row: NDArray[Any]) -> str:
    return str([float(f"{value:.6g}") for value in row[:8]])[:-1] + (", ...]" if len(row) > 8 else "]")


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith((".", "?", "!")) else line + "."
