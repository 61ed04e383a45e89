"""`twin track`: the real result beside the simulated one: how far off, how good that makes the model, and what to do."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from millrace.analyses.twin import track_record
from millrace.analyses.twin.simulate_answer import Simulation
from millrace.analyses.twin.simulate_spec import Track as Spec
from millrace.analyses.twin.track_record import Advice, Result, Score
from millrace.run.answer import Saved
from millrace.run.errors import WrongQuestion
from millrace.run.keys import content_key
from millrace.run.run import Run
from millrace.run.units import format_figure as figure

DRIFT_ROWS = 20_000
NEW = "millrace: new"
"""The column that a classifier tells new rows by."""


@dataclass(frozen=True)
class Tracking(Saved):
    """result: of this comparison. score: over the model's record, this one included. drift: C2ST of new rows, None when none
    were given. record: where it is kept, None for nowhere."""

    result: Result
    score: Score
    advice: Advice
    drift: float | None
    history: tuple[Result, ...]
    record: Path | None
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    out: Path | None = None
    saver: Callable[[Any, Path], Path] | None = field(default=None, repr=False)

    @property
    def grade(self) -> str:
        return self.result.grade

    @property
    def fidelity(self) -> float:
        return self.score.fidelity

    @property
    def digest(self) -> str:
        """Of the comparison and what follows, without the time of day."""
        told = [[getattr(r, n) for n in Result.__slots__ if n != "at"] for r in self.history]
        return content_key([told, self.drift, self.advice.due, list(self.advice.reasons)])

    @property
    def says_no(self) -> bool:
        """The model should be fitted anew."""
        return self.advice.due

    def findings(self) -> list[str]:
        r, s, a = self.result, self.score, self.advice
        of = f"{r.intervention}, {r.group}," if r.group else r.intervention
        how = "inside" if r.covered else "outside"
        results = "1 result" if s.records == 1 else f"{s.records} results"
        said = [
            f"{of} was simulated to change the outcome by {figure(r.predicted)} ({figure(r.low)} to {figure(r.high)}) and "
            "changed it by "
            f"{figure(r.actual)}: {r.grade}, off by {r.error:.1%}, {how} the interval.",
            f"Fidelity of the model is {s.fidelity:.2f} over {results}: mean error {s.mean_error:.1%}, intervals held "
            f"{s.coverage:.0%}.",
        ]
        if a.due:
            said.append(f"Fit the model anew: {'; '.join(a.reasons)}.")
        elif a.waiting:
            said.append(f"No advice to fit the model anew: {a.waiting}")
        else:
            few = track_record.LEAST_RECORDS - s.records
            said.append(
                "There is no reason to fit the model anew."
                if few <= 0
                else f"{few} more results, and there will be advice."
            )
        return said

    def summary(self) -> str:
        return "\n".join(self.findings())

    def as_dict(self) -> dict[str, Any]:
        r, s = self.result, self.score
        return {
            "result": {n: getattr(r, n) for n in Result.__slots__}, "score": {n: getattr(s, n) for n in Score.__slots__},
            "advice": {"due": self.advice.due, "reasons": list(self.advice.reasons), "waiting": self.advice.waiting},
            "drift": self.drift, "record": None if self.record is None else str(self.record),
        }  # fmt: skip

    def write_tables(self, folder: Path) -> list[Path]:
        """history.parquet: a row a result."""
        import pyarrow
        from pyarrow import parquet

        rows = [{n: getattr(r, n) for n in Result.__slots__} for r in self.history]
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "history.parquet")
        return [folder / "history.parquet"]

    def charts(self) -> dict[str, dict[str, Any]]:
        from millrace.analyses.twin import simulate_views

        return {"history": simulate_views.history(self)}


def track(spec: Spec, run: Run) -> Tracking:
    """Compare, record, score, advise."""
    told = _simulated(spec)
    at = track_record.stamp(spec.at, datetime.datetime.now(datetime.UTC))
    result = track_record.compare(
        at, told["intervention"], told["group"], told["effect"], spec.actual, spec.actual_se, spec.near_zero
    )
    place = Path(spec.record) if spec.record is not None else told["record"]
    past = track_record.read(place) if place is not None else ()
    if place is None:
        run.note("The simulated model is in memory alone: this result is kept nowhere. Give record=FILE to keep it.")
    drift = _drift(spec, run)
    advised = track_record.advice([*past, result], drift, at)
    result = replace(result, advised=advised.due)
    if place is not None:
        track_record.append(place, result)
    history = (*past, result)
    return Tracking(result, track_record.score(history), advised, drift, history, place, tuple(run.notes))


def _simulated(spec: Spec) -> dict[str, Any]:
    """intervention, group, (effect, low, high) and where the model's record lies, of a simulation or of the folder of one."""
    given = spec.simulation
    if isinstance(given, Simulation):
        said: Mapping[str, Any] = given.as_dict()
    else:
        path = Path(given) / "result.json" if Path(given).is_dir() else Path(given)
        try:
            said = json.loads(path.read_text())
        except (OSError, ValueError) as e:
            raise WrongQuestion(f"There is no simulation in {given} ({e}): give what `twin simulate` wrote.") from e
        said = said.get("answer", said)
    if "scenarios" not in said:
        raise WrongQuestion(f"{given} holds no simulation: give the folder that `twin simulate` wrote.")
    scenarios = {s["name"]: s for s in said["scenarios"]}
    if spec.intervention is None and len(scenarios) > 1:
        raise WrongQuestion(
            f"Several interventions were simulated: say which, intervention= one of {', '.join(map(repr, scenarios))}."
        )
    name = spec.intervention or next(iter(scenarios))
    if name not in scenarios:
        raise WrongQuestion(f"No intervention {name!r} was simulated; there are {', '.join(map(repr, scenarios))}.")
    of = scenarios[name]["ate"]
    if spec.group:
        groups = {g["name"]: g for g in scenarios[name]["groups"]}
        if spec.group not in groups:
            raise WrongQuestion(
                f"There is no group {spec.group!r} of {name}; there are {', '.join(map(repr, groups)) or 'none'}."
            )
        g = groups[spec.group]
        of = {"effect": g["effect"], "low": g["plain_low"], "high": g["plain_high"]}
    record = said["question"]["record"]
    return {
        "intervention": name, "group": spec.group or "", "effect": (of["effect"], of["low"], of["high"]),
        "record": None if record is None else Path(record),
    }  # fmt: skip


def _drift(spec: Spec, run: Run) -> float | None:
    """How well new rows can be told from those of the training (C2ST): AUC over folds, 0.5 when they cannot."""
    import numpy
    import pyarrow

    from millrace.analyses.twin import features, outcome

    if spec.new is None:
        return None
    old, new = features.as_table(spec.training, "training"), features.as_table(spec.new, "new")
    features.require(new, old.column_names, "new rows")
    many = min(old.num_rows, new.num_rows, DRIFT_ROWS)
    if 2 * many < outcome.LEAST_ROWS:
        raise WrongQuestion(
            f"Drift cannot be seen in {new.num_rows:,} new rows beside {old.num_rows:,} of the training: "
            f"{outcome.LEAST_ROWS // 2} of each are the least."
        )
    parts = []
    for i, table in enumerate((old, new.select(old.column_names))):
        chosen = numpy.sort(run.rng(31, i).permutation(table.num_rows)[:many])
        parts.append(table.take(chosen))
    try:
        both = pyarrow.concat_tables(parts, promote_options="permissive")
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as e:
        raise WrongQuestion(f"The new rows have columns of other types than the training: {e}.") from e
    both = both.append_column(NEW, pyarrow.array(numpy.repeat([0, 1], many)))
    told = outcome.fit_outcome(run, both, NEW, options={"trees": 200, "leaves": 31, "rate": 0.1})
    return float(told.scores["auc"])
