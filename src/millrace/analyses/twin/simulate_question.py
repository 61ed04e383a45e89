"""What `twin simulate` asks, read and checked against the model on a few twins: what cannot be told is said before the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from millrace.analyses.twin import simulate_blocks
from millrace.analyses.twin.generate import Twins
from millrace.analyses.twin.intervention import Intervention, read_all
from millrace.analyses.twin.joint import Joint
from millrace.analyses.twin.model import TwinModel, read_model
from millrace.analyses.twin.simulate_spec import Simulate as Spec
from millrace.analyses.twin.tabling import table_of
from millrace.analyses.twin.where import clauses
from millrace.run.errors import WrongQuestion
from millrace.run.run import Run

PILOT = 4_096
ATTEMPTS = 10_000


@dataclass(frozen=True)
class Asked:
    """What was read and checked. share: of the population that `where` describes. groups: see `simulate_blocks.grouping`."""

    spec: Spec
    model: TwinModel
    interventions: tuple[Intervention, ...]
    twins: str
    where: str
    share: float
    groups: tuple[Mapping[str, Any], ...]


def read_question(spec: Spec, run: Run) -> Asked:
    model = read_model(spec.model)
    interventions = read_all(spec.intervention)
    joint = Joint(model.plain)
    for intervention in interventions:
        _check(intervention, model)
    parts = clauses(spec.where, joint.columns)
    where = " and ".join(f"({c.text})" if len(parts) > 1 else c.text for c in parts)
    twins = _twins(spec.twins, model)
    free = table_of(joint, joint.draw(numpy.arange(PILOT), run.seed), run.seed)
    get = simulate_blocks.getter(free)
    held = numpy.ones(PILOT, bool)
    for part in parts:
        held &= part.holds(get)
    sample = free
    if twins or parts:
        sample = _sample(twins, joint, parts, run)
        get = simulate_blocks.getter(sample)
    groups = []
    for name in dict.fromkeys(spec.by):
        if name not in model.names:
            raise WrongQuestion(
                f"by={name!r}: there is no such column. The model has {', '.join(map(repr, model.names))}."
            )
        groups.append(
            simulate_blocks.grouping(
                name, get(name), model.column(name).labels if not model.column(name).pooled else ()
            )
        )
    for intervention in interventions:
        _outside(intervention, model, sample, run)
    share = max(float(held.mean()), 1 / model.known["rows"])
    return Asked(spec, model, interventions, twins, where, share, tuple(groups))


def _twins(given: Any, model: TwinModel) -> str:
    """The path of the twins' file, "" when they are drawn."""
    if given is None:
        return ""
    path = given.path if isinstance(given, Twins) else Path(given)
    if isinstance(given, Twins) and given.model != model.name:
        raise WrongQuestion(
            f"The twins are of {given.model}, and the model is {model.name}: give the model that made them."
        )
    if path.is_dir():
        path = path / "twins.parquet"
    if not path.exists():
        raise WrongQuestion(f"There is no file {path} with twins: `millrace twin generate` makes one.")
    from pyarrow import parquet

    names = parquet.read_schema(path).names
    missing = [n for n in model.names if n not in names]
    if missing:
        raise WrongQuestion(
            f"The twins in {path} have no column {', '.join(map(repr, missing[:5]))}, which the model has."
        )
    return str(path.resolve())


def rows_of(path: str) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(path).num_rows)


def _sample(twins: str, joint: Joint, parts: Sequence[Any], run: Run) -> Any:
    """A few of the twins that are asked about."""
    if not twins:
        return table_of(joint, joint.draw(numpy.arange(PILOT), run.seed, joint.condition(parts), ATTEMPTS), run.seed)
    from pyarrow import parquet

    with parquet.ParquetFile(twins) as file:
        return file.read_row_group(0).slice(0, PILOT)


def _check(intervention: Intervention, model: TwinModel) -> None:
    """That the model can tell what the intervention does."""
    name, effect = intervention.name, intervention.effect
    clauses(intervention.eligible, model.columns, f"{name}: eligible")
    named = [*intervention.changed, *([effect.by] if effect.by else [])]
    missing = [c for c in named if c not in model.names]
    if missing:
        raise WrongQuestion(
            f"{name}: there is no column {missing[0]!r} that could change. The model has {', '.join(map(repr, model.names))}."
        )
    if effect.source == "learned" and model.effects is None:
        raise WrongQuestion(
            f"{name}: its effect is to be learned, and the model has learned none. Fit it with outcome= and treatment=, or "
            "give the "
            "intervention an assumed effect with its source."
        )
    if effect.source == "structural":
        if model.outcome is None:
            raise WrongQuestion(
                f"{name}: a structural effect goes through the outcome model, and there is none. Fit with outcome=."
            )
        known = [c for c in intervention.changed if c in model.outcome.encoding.names]
        if not known:
            raise WrongQuestion(
                f"{name}: none of the columns that it changes ({', '.join(intervention.changed)}) is known to the outcome model."
            )
    for column in (*intervention.shift, *intervention.scale):
        if not model.column(column).numeric:
            raise WrongQuestion(
                f"{name}: {column!r} is a {model.column(column).kind}, and only numbers can be shifted or scaled."
            )
    for column, value in intervention.set.items():
        labels = model.column(column).labels
        if labels and str(value) not in labels:
            raise WrongQuestion(
                f"{name}: {column!r} has no level {value!r}, so that nobody knows what it would do. It has "
                f"{', '.join(map(repr, labels[:12]))}."
            )
        if model.column(column).numeric and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise WrongQuestion(f"{name}: {column!r} is a number, and cannot be set to {value!r}.")


def _outside(intervention: Intervention, model: TwinModel, sample: Any, run: Run) -> None:
    """Say it when changed columns leave what the model has seen."""
    for name in (n for n in intervention.changed if model.column(n).numeric):
        get = simulate_blocks.getter(simulate_blocks.changed(sample, intervention))
        values, column = get(name), model.column(name)
        out = float(numpy.mean((values < column.low) | (values > column.high)))
        if out > 0.005:
            run.note(
                f"{intervention.name}: {out:.0%} of the twins get a {name} outside of {column.low:g} to {column.high:g}, "
                "which is all "
                "that the model has seen: trees tell nothing of what lies beyond."
            )
