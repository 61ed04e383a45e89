"""`mr.twin`: fit, generate, assess; `load` and `sample` for a few twins at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.twin.fidelity import Fidelity
    from millrace.analyses.twin.generate import Twins
    from millrace.analyses.twin.model import TwinModel

Path = str | os.PathLike[str]
__all__ = ["assess", "fit", "generate", "load", "sample"]


def fit(
    data: Any,
    *,
    outcome: str | None = None,
    treatment: str | None = None,
    schema: Path | Mapping[str, Any] | None = None,
    privacy: str = "standard",
    min_leaf: int | None = None,
    drop: Sequence[str] = (),
    constraints: Sequence[str] | str = (),
    find: bool = True,
    joint: str = "auto",
    limit: int | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: Path | None = None,
    seed: int = 0,
    progress: Shown = None,
    out: Path | None = None,
    run: OpenRun | None = None,
) -> TwinModel:
    """Learn a population: the joint distribution of all columns of `data`, a table or a file.

    `schema`: a TOML file or a mapping that says what columns are (`kind`, `levels`, `low`, `high`) and what holds between
    them. `constraints`: texts such as "spent <= income"; what holds on all real rows is found besides, unless `find` is
    False. `privacy`: low, standard or high; `min_leaf` rows at least are what a twin's value is drawn among. `joint`: how the
    columns depend: "auto" decides by column on a held-out slice. The data are never changed.

    The model is saved in `out` (a folder), and `load` reads it. The rest is about the machine and never changes the answer:
    see `explain`. Raises the errors of `millrace.run.errors`, `WrongQuestion` and its kin before the long work.
    """
    question = {
        "data": data, "outcome": outcome, "treatment": treatment, "schema": schema, "privacy": privacy, "min_leaf": min_leaf,
        "drop": drop, "constraints": constraints, "find": find, "joint": joint, "limit": limit,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, show=shown(progress))
    return ask("twin fit", question, machine, run)  # type: ignore[no-any-return]


def generate(
    model: Any,
    n: int = 10_000,
    *,
    where: str | Mapping[str, Any] | None = None,
    attempts: int = 10_000,
    seed: int = 0,
    out: Path | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: Path | None = None,
    progress: Shown = None,
    run: OpenRun | None = None,
) -> Twins:
    """`n` twins of a model (what `fit` returned, or its folder), streamed to the Parquet file `out`.

    `where`: only such twins, drawn so and not filtered: "age >= 60 and region == 'west'", or a mapping from columns to a
    value, a list of values, or {"low": 60, "high": 70}. `attempts`: draws of one twin at most. Row i is the same for every n,
    engine and memory budget. Without `out` the file goes with the answer.
    """
    question = {"model": model, "n": n, "where": where, "attempts": attempts, "file": out}
    machine = compose.Machine(engine, cores, memory, store, seed, show=shown(progress))
    return ask("twin generate", question, machine, run)  # type: ignore[no-any-return]


def assess(
    model: Any,
    real: Any,
    *,
    holdout: Any = None,
    target: str | None = None,
    rows: int = 20_000,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: Path | None = None,
    seed: int = 0,
    progress: Shown = None,
    out: Path | None = None,
    run: OpenRun | None = None,
) -> Fidelity:
    """How like `real` (the rows that the model was fitted on) its twins are, and how far from single rows.

    `holdout`: rows of the same kind that it has not seen; without them privacy is unknown. `target`: a column that is predicted
    from the others, trained on twins and on real rows (the model's outcome when not given). `rows`: compared at most.
    """
    question = {"model": model, "real": real, "holdout": holdout, "target": target, "rows": rows}
    machine = compose.Machine(engine, cores, memory, store, seed, out, show=shown(progress))
    return ask("twin assess", question, machine, run)  # type: ignore[no-any-return]


def load(folder: Path) -> TwinModel:
    """The model in that folder, or the only one in a run's folder."""
    from millrace.analyses.twin.model import load as read

    return read(folder)


def sample(model: Any, n: int = 10, *, where: Any = None, seed: int = 0) -> Any:
    """A few twins as an Arrow table, here and now: the first rows of what `generate` makes."""
    from millrace.analyses.twin.generate import sample as draw
    from millrace.analyses.twin.model import read_model

    return draw(read_model(model), n, seed, where)
