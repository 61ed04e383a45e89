"""The outcome model: one column from the others, how well (on rows that it has not seen), and how surely.

`fit_outcome` trains one model a fold and one on all rows, each a task of the run. Intervals are conformal, from the residuals of
rows that their model had not seen (cross-conformal, Vovk 2015), by bins of the prediction, so that they are wide where the
outcome is: see `conformal`. A model is kept as files that execute nothing; an estimator object of the user's stays in memory.
See also: `effects`, what a treatment changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.twin import features, outcome_measures, plan
from millrace.analyses.twin.deadline import whole as finished
from millrace.analyses.twin.features import Encoding
from millrace.analyses.twin.kernels import effects as kernel
from millrace.analyses.twin.kernels import learners
from millrace.analyses.twin.kernels.learners import Aim, Growth, Kind
from millrace.analyses.twin.outcome_measures import Conformal
from millrace.run.errors import NotSupported, WrongQuestion
from millrace.run.keys import content_key
from millrace.run.units import format_figure

if TYPE_CHECKING:
    import pyarrow

    from millrace.run.run import Run

Array = numpy.ndarray[Any, Any]

FORMAT = 1
LEAST_ROWS, FEW_ROWS = 200, 1_000
LEAST_OF_EACH = 20
"""Rows of each of an outcome's two values."""
MOST_MISSING = 0.5
ENDINGS = {
    "lightgbm": "txt",
    "lightgbm_forest": "txt",
    "xgboost": "json",
    "hist_gradient_boosting": "skops",
    "random_forest": "skops",
}
FOLDS_OF_ROWS = 11
"""Where the random numbers of the folds begin, among those of the run."""


@dataclass(frozen=True)
class OutcomeModel:
    """kind: "number", or "binary" with `labels` (of 0, of 1). trained: the model of all rows, as its learner keeps it; by_fold:
    those of the folds, by which predictions are told to differ. scores: r2, rmse, mae of a number; log_loss, auc, brier of two
    values; on rows that the model had not seen. fingerprint: digest of its predictions. seen: (outcomes, predictions by models
    that had not seen them) of its rows; None in a model that was loaded."""

    outcome: str
    kind: Kind
    labels: tuple[Any, ...]
    encoding: Encoding
    learner: Any
    trained: Any
    by_fold: tuple[Any, ...]
    scores: Mapping[str, float]
    conformal: Conformal
    rows: int
    fingerprint: str
    notes: tuple[str, ...] = ()
    seen: tuple[Array, Array] | None = field(default=None, repr=False, compare=False)
    _read: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def digest(self) -> str:
        said = [FORMAT, self.outcome, self.kind, self.encoding.as_dict(), dict(self.scores), self.conformal.as_dict()]
        return content_key([*said, self.rows, self.fingerprint])

    @property
    def learner_name(self) -> str:
        return self.learner if isinstance(self.learner, str) else type(self.learner).__qualname__

    # -- asked ---------------------------------------------------------------------------------------------------------
    def matrix(self, table: pyarrow.Table) -> Array:
        """(rows, columns) of a table, as the learner knows them."""
        return features.encode(self.encoding, table, "table")

    def predict(self, table: pyarrow.Table) -> Array:
        """(rows,) predictions: a number, or the probability of `labels[1]`."""
        return self.predict_matrix(self.matrix(table))

    def predict_matrix(self, x: Array, fold: int = -1) -> Array:
        """The same of encoded rows; fold: by the model of all rows but that fold's."""
        if fold not in self._read:
            trained = self.trained if fold < 0 else self.by_fold[fold]
            self._read[fold] = learners.reader(self.learner, self.kind, trained)
        return learners.in_parts(self._read[fold], x)

    def intervals(self, table: pyarrow.Table) -> tuple[Array, Array]:
        """(low, high), (rows,) each: where the outcome of a row lies, with the stated coverage. A number's only."""
        if self.kind == "binary":
            raise NotSupported(
                f"{self.outcome!r} has two values: what can be told with {self.conformal.coverage:.0%} coverage is a set of "
                "them, "
                "see sets(table)."
            )
        return self.conformal.around(self.predict(table))

    def booster(self) -> Any:
        """The model of all rows as LightGBM's, its features by their names (spaces as underscores). LightGBM only."""
        if self.learner not in learners.OF_LIGHTGBM:
            raise NotSupported(
                f"The outcome model is a {self.learner_name}: only one of LightGBM is handed to explain. Fit with "
                f"learner={' or '.join(map(repr, learners.OF_LIGHTGBM))}."
            )
        import lightgbm

        head, _, tail = self.trained.partition("feature_names=")
        body = f"{head}feature_names={' '.join(self._plain_names())}\n{tail.partition(chr(10))[2]}"
        labels = [list(self.encoding.labels[self.encoding.names[j]]) for j in self.encoding.categorical]
        body = body.partition("pandas_categorical:")[0] + f"pandas_categorical:{json.dumps(labels or None)}\n"
        return lightgbm.Booster(model_str=body)

    def labelled(self, table: pyarrow.Table) -> pyarrow.Table:
        """Rows as `booster()` takes them: numbers, and text as categories whose codes are the model's."""
        import pyarrow

        x, columns = self.matrix(table), []
        for j, name in enumerate(self.encoding.names):
            if name in self.encoding.labels:
                codes = pyarrow.array(numpy.nan_to_num(x[:, j]).astype(numpy.int32), mask=numpy.isnan(x[:, j]))
                columns.append(pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(self.encoding.labels[name])))
            else:
                columns.append(pyarrow.array(x[:, j], from_pandas=True))
        return pyarrow.table(columns, names=list(self._plain_names()))

    def _plain_names(self) -> tuple[str, ...]:
        return tuple("_".join(name.split()) for name in self.encoding.names)

    def sets(self, table: pyarrow.Table) -> Array:
        """(rows, 2) bool: whether each label is among those that hold the outcome with the stated coverage."""
        if self.kind != "binary":
            raise NotSupported(f"{self.outcome!r} is a number: see intervals(table).")
        return self.conformal.labels_of(self.predict(table))

    # -- for people ----------------------------------------------------------------------------------------------------
    def describe(self) -> list[str]:
        """What is known of it, a sentence each."""
        s = self.scores
        if self.kind == "number":
            how = f"R2 {s['r2']:.3f}, RMSE {format_figure(s['rmse'])}, MAE {format_figure(s['mae'])}"
        else:
            how = f"AUC {s['auc']:.3f}, log-loss {s['log_loss']:.3f}"
        folds = len(self.by_fold)
        c = self.conformal
        held = "intervals" if self.kind == "number" else "sets"
        said = [
            f"The outcome {self.outcome} is predicted by {self.learner_name} from {len(self.encoding.names)} columns: {how} "
            f"on rows that it had not seen ({folds} folds, {self.rows:,} rows).",
            f"Its {c.coverage:.0%} {held} held {c.measured:.1%} of the rows whose residuals they were not made from.",
        ]
        return said

    # -- kept ----------------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write outcome.json and the models into the folder. An estimator object is refused by name."""
        if not isinstance(self.learner, str):
            raise NotSupported(
                f"The outcome model is a {type(self.learner).__module__}.{self.learner_name}, which has no form on disk that "
                "cannot "
                f"execute code: it works in this process. To keep a model, use one of the learners {', '.join(learners.NAMES)}."
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, trained in zip(self._files(), (self.trained, *self.by_fold), strict=True):
            (folder / name).write_bytes(trained.encode() if isinstance(trained, str) else bytes(trained))
        said = {**self._described(), "files": self._files()}
        (folder / "outcome.json").write_text(json.dumps(said, indent=1))

    @property
    def plain(self) -> dict[str, Any]:
        """All of it as storable values, which workers are given. A model with an estimator object has none."""
        if not isinstance(self.learner, str):
            raise NotSupported(
                f"The outcome model is a {self.learner_name}, which only this process has: simulate structural effects with "
                "one of "
                f"the learners {', '.join(learners.NAMES)}."
            )
        return {**self._described(), "trained": self.trained, "by_fold": list(self.by_fold)}

    def _described(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "outcome": self.outcome, "kind": self.kind, "labels": list(self.labels),
            "encoding": self.encoding.as_dict(), "learner": self.learner, "scores": dict(self.scores),
            "conformal": self.conformal.as_dict(), "rows": self.rows, "fingerprint": self.fingerprint, "notes": list(self.notes),
        }  # fmt: skip

    def _files(self) -> list[str]:
        end = ENDINGS[self.learner]
        return [f"model.{end}", *(f"fold-{f}.{end}" for f in range(len(self.by_fold)))]


def load(folder: str | Path) -> OutcomeModel:
    """The model that `save` wrote; `WrongQuestion` when it is of another format or not whole."""
    folder = Path(folder)
    try:
        said = json.loads((folder / "outcome.json").read_text())
        _known_format(said, folder)
        held = [(folder / name).read_bytes() for name in said["files"]]
    except (OSError, ValueError, KeyError) as e:
        if isinstance(e, WrongQuestion):
            raise
        raise WrongQuestion(f"{folder} is not a whole outcome model ({type(e).__name__}: {e}). Fit it again.") from e
    trained = [b.decode() if said["learner"] in learners.OF_LIGHTGBM else b for b in held]
    return of_plain({**said, "trained": trained[0], "by_fold": trained[1:]})


def of_plain(said: Mapping[str, Any]) -> OutcomeModel:
    """The inverse of `OutcomeModel.plain`."""
    return OutcomeModel(
        said["outcome"], said["kind"], tuple(said["labels"]), Encoding.of(said["encoding"]), said["learner"], said["trained"],
        tuple(said["by_fold"]), said["scores"], Conformal.of(said["conformal"]), said["rows"], said["fingerprint"],
        tuple(said["notes"]),
    )  # fmt: skip


def _known_format(said: Mapping[str, Any], folder: Path) -> None:
    if said.get("format") != FORMAT:
        raise WrongQuestion(
            f"{folder} is an outcome model of format {said.get('format')}, and this millrace reads {FORMAT}: fit it again, or "
            "read "
            "it with the millrace that wrote it."
        )


# -- fitting -----------------------------------------------------------------------------------------------------------
def fit_outcome(
    run: Run,
    table: pyarrow.Table,
    outcome: str,
    *,
    learner: Any = "lightgbm",
    folds: int = 5,
    coverage: float = 0.9,
    columns: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> OutcomeModel:
    """Learn `outcome` from `columns` (all others when not given). options: fields of `Growth`.

    Rows without the outcome are left out, and counted in a note. Raises `WrongQuestion` for what cannot be learnt: a column
    that is not there, an outcome that is constant or mostly missing, fewer than 200 rows.
    """
    growth = learners.growth_of(options or {})
    learners.check(learner)
    features.require(table, [outcome])
    target, kind, labels = target_of(table.column(outcome), outcome)
    used, notes = usable(target, outcome)
    enough_of_both(target, outcome, labels)
    few = len(used) < FEW_ROWS
    table = table if len(used) == table.num_rows else table.take(used)
    target = target[used]
    encoding = features.learn(table, [n for n in (columns or table.column_names) if n != outcome])
    x = features.encode(encoding, table)
    notes += plan.size_notes(learner, *x.shape, growth.trees, folds)
    groups = target.astype(int) if kind == "binary" else numpy.zeros(len(target), int)
    fold = kernel.folds(groups, folds, run.rng(FOLDS_OF_ROWS))
    run.progress("outcome model", folds + 1)
    shared = run.share(x), run.share(target), run.share(fold)
    plain = {name: getattr(growth, name) for name in Growth.__slots__}
    tasks = (
        run.task(train_fold, f, *shared, learner, list(encoding.categorical), kind, plain, name="outcome model")
        for f in (-1, *range(folds))
    )
    whole, *parts = finished(run.values(tasks, True, "outcome model"), folds + 1, "outcome model")
    unseen = numpy.empty(len(target))
    for f, part in enumerate(parts):
        unseen[fold == f] = part["unseen"]
    conformal = outcome_measures.conformal(target, unseen, fold, kind, coverage, wider=few)
    if few:
        notes.append(outcome_measures.few_rows(len(target), FEW_ROWS, conformal))
    return OutcomeModel(
        outcome, kind, labels, encoding, learner, whole["trained"], tuple(p["trained"] for p in parts),
        outcome_measures.scores(target, unseen, kind), conformal, len(target),
        content_key([unseen, whole["unseen"]]), tuple(notes), seen=(target, unseen),
    )  # fmt: skip


def train_fold(
    f: int,
    x: Array,
    target: Array,
    fold: Array,
    learner: Any,
    categorical: list[int],
    kind: Kind,
    growth: Mapping[str, Any],
) -> dict[str, Any]:
    """The task of one model: trained on all rows but those of fold f (-1: on all), and its predictions of the others: of fold
    f's rows, of the first rows when it has seen all."""
    fold = numpy.asarray(fold)
    rows = numpy.flatnonzero(fold != f)
    trained = learners.train(learner, Aim(x, tuple(categorical), numpy.asarray(target), rows, kind), Growth(**growth))
    asked = numpy.flatnonzero(fold == f) if f >= 0 else numpy.arange(min(len(fold), LEAST_ROWS))
    return {"trained": trained, "unseen": learners.in_parts(learners.reader(learner, kind, trained), x[asked])}


def target_of(column: Any, name: str) -> tuple[Array, Kind, tuple[Any, ...]]:
    """((rows,) float64 with NaN where missing, kind, labels of 0 and 1)."""
    import pyarrow
    import pyarrow.compute as pc

    if features.is_text(column):
        known = sorted(str(v) for v in pc.unique(column.cast(pyarrow.large_string())).to_pylist() if v is not None)
        if len(known) > 2:
            raise NotSupported(
                f"The outcome {name!r} has {len(known)} labels ({', '.join(map(repr, known[:5]))}, ...): an outcome is a "
                "number or has two values. Make a column of one label against the others."
            )
        _two(known, name)
        return features.codes(column, known, name), "binary", tuple(known)
    values = features.numbers(column, name)
    found = numpy.unique(values[~numpy.isnan(values)])
    _two(found, name)
    if len(found) > 2:
        return values, "number", ()
    boolean = pyarrow.types.is_boolean(column.type)
    labels = tuple(bool(v) for v in found) if boolean else tuple(float(v) for v in found)
    return numpy.where(numpy.isnan(values), numpy.nan, (values == found[1]).astype(float)), "binary", labels


def as_numbers(column: Any, name: str, labels: Sequence[Any]) -> Array:
    """(rows,) float64 of an outcome whose labels are known: 0 and 1 of two values, NaN where it is neither or missing."""
    if not labels:
        return features.numbers(column, name)
    if features.is_text(column):
        import pyarrow

        values = column.cast(pyarrow.large_string()).to_numpy()
        return numpy.where(
            numpy.equal(values, labels[1]), 1.0, numpy.where(numpy.equal(values, labels[0]), 0.0, numpy.nan)
        )
    values = features.numbers(column, name)
    return numpy.where(values == float(labels[1]), 1.0, numpy.where(values == float(labels[0]), 0.0, numpy.nan))


def _two(found: Sequence[Any] | Array, name: str) -> None:
    if len(found) < 2:
        only = f"the single value {said(found[0])}" if len(found) else "no value at all"
        raise WrongQuestion(f"The outcome {name!r} has {only}: there is nothing to learn. Name another column.")


def said(value: Any) -> str:
    """A value as people write it: 1 and not np.float64(1.0)."""
    return f"{value:g}" if isinstance(value, float) else repr(value)


def enough_of_both(target: Array, name: str, labels: Sequence[Any]) -> None:
    """`WrongQuestion` when one of two values is so rare that folds would be without it."""
    for value, label in enumerate(labels):
        count = int((target == value).sum())
        if count < LEAST_OF_EACH:
            raise WrongQuestion(
                f"Only {count:,} rows have {name} = {said(label)}, and {LEAST_OF_EACH} of either value are the least from "
                "which a model can be learnt and checked: give more of them, or name another column."
            )


def usable(target: Array, name: str) -> tuple[Array, list[str]]:
    """(numbers of the rows that have the outcome, notes). `WrongQuestion` when it is mostly missing, or rows are too few."""
    used = numpy.flatnonzero(~numpy.isnan(target))
    missing = len(target) - len(used)
    if missing > MOST_MISSING * len(target):
        raise WrongQuestion(
            f"The outcome {name!r} is missing in {missing:,} of {len(target):,} rows, more than half: give rows that have it."
        )
    if len(used) < LEAST_ROWS:
        raise WrongQuestion(
            f"There are {len(used):,} rows with the outcome {name!r}, and a model needs {LEAST_ROWS} (1,000 for intervals "
            "that are not widened): give more rows."
        )
    return used, [f"{missing:,} rows without {name} were left out of its model."] if missing else []
