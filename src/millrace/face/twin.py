"""`mr.twin`: fit, generate, simulate, assess, track; `explain`, `load` and `sample` for a few twins at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.errors import WrongQuestion
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.explain.answer import Explanation
    from millrace.analyses.twin.fidelity import Fidelity
    from millrace.analyses.twin.generate import Twins
    from millrace.analyses.twin.model import TwinModel
    from millrace.analyses.twin.simulate_answer import Simulation
    from millrace.analyses.twin.track import Tracking

Path = str | os.PathLike[str]
__all__ = ["assess", "explain", "fit", "generate", "load", "sample", "simulate", "track"]


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
    learner: Any = "lightgbm",
    folds: int = 5,
    coverage: float = 0.9,
    effect: str = "dr",
    overlap: str = "error",
    limit: int | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: Path | None = None,
    seed: int = 0,
    deadline: str | float | None = None,
    fit: bool = False,
    progress: Shown = None,
    out: Path | None = None,
    run: OpenRun | None = None,
) -> TwinModel:
    """Learn a population: the joint distribution of all columns of `data`, a table or a file.

    `schema`: a TOML file or a mapping that says what columns are (`kind`, `levels`, `low`, `high`) and what holds between
    them. `constraints`: texts such as "spent <= income"; what holds on all real rows is found besides, unless `find` is
    False. `privacy`: low, standard or high; `min_leaf` rows at least are what a twin's value is drawn among. `joint`: how the
    columns depend: "auto" decides by column on a held-out slice. The data are never changed.

    `outcome`: a column that is predicted from the others, with `coverage` intervals, in `folds` cross-validated, by `learner`
    (lightgbm, lightgbm_forest, xgboost, hist_gradient_boosting, random_forest, or an estimator object). `treatment`: a column
    of two values whose effect on the outcome is learnt for each row: `effect` dr, t or x. `overlap`: rows that were nearly
    always or never treated are an "error", or are left out ("trim") and named.

    The model is saved in `out` (a folder), and `load` reads it. The rest is about the machine and never changes the answer:
    see `explain`; but with `fit` the first rows, as many as fit the memory and the deadline. A model is whole or an error.
    Raises the errors of `millrace.run.errors`, `WrongQuestion` and its kin before the long work.
    """
    question = {
        "data": data, "outcome": outcome, "treatment": treatment, "schema": schema, "privacy": privacy, "min_leaf": min_leaf,
        "drop": drop, "constraints": constraints, "find": find, "joint": joint, "learner": learner, "folds": folds,
        "coverage": coverage, "effect": effect, "overlap": overlap, "limit": limit,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress))
    return ask("twin fit", question, machine, run, fit)  # type: ignore[no-any-return]


def generate(
    model: Any,
    n: int = 10_000,
    *,
    where: str | Mapping[str, Any] | None = None,
    attempts: int = 10_000,
    margins: Path | Mapping[str, Any] | None = None,
    seed: int = 0,
    out: Path | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: Path | None = None,
    deadline: str | float | None = None,
    fit: bool = False,
    progress: Shown = None,
    run: OpenRun | None = None,
) -> Twins:
    """`n` twins of a model (what `fit` returned, or its folder), streamed to the Parquet file `out`.

    `where`: only such twins, drawn so and not filtered: "age >= 60 and region == 'west'", or a mapping from columns to a
    value, a list of values, or {"low": 60, "high": 70}. `attempts`: draws of one twin at most. `margins`: known counts or
    shares of levels by column, to which twins are weighted (`twin_weight`). Row i is the same for every n, engine and memory
    budget. Without `out` the file goes with the answer. `deadline`: stop then, with the first twins; `fit`: as many as fit.
    """
    question = {"model": model, "n": n, "where": where, "attempts": attempts, "margins": margins, "file": out}
    machine = compose.Machine(engine, cores, memory, store, seed, deadline=deadline, show=shown(progress))
    return ask("twin generate", question, machine, run, fit)  # type: ignore[no-any-return]


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
    deadline: str | float | None = None,
    fit: bool = False,
    progress: Shown = None,
    out: Path | None = None,
    run: OpenRun | None = None,
) -> Fidelity:
    """How like `real` (the rows that the model was fitted on) its twins are, and how far from single rows.

    `holdout`: rows of the same kind that it has not seen; without them privacy is unknown. `target`: a column that is predicted
    from the others, trained on twins and on real rows (the model's outcome when not given). `rows`: compared at most.
    """
    question = {"model": model, "real": real, "holdout": holdout, "target": target, "rows": rows}
    machine = compose.Machine(engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress))
    return ask("twin assess", question, machine, run, fit)  # type: ignore[no-any-return]


def simulate(
    model_or_twins: Any,
    intervention: Any,
    *,
    model: Any = None,
    twins: Any = None,
    n: int = 100_000,
    where: str | Mapping[str, Any] | None = None,
    by: Sequence[str] = (),
    goal: str = "higher",
    value_per_unit: float | None = None,
    budget: float | None = None,
    population: int | None = None,
    smallest: float = 0.05,
    smallest_money: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
    attrition: float = 0.1,
    fidelity: float | None = None,
    least_fidelity: float = 0.7,
    record: Path | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: Path | None = None,
    seed: int = 0,
    deadline: str | float | None = None,
    fit: bool = False,
    progress: Shown = None,
    out: Path | None = None,
    run: OpenRun | None = None,
) -> Simulation:
    """What interventions would do to the twins of a model: effects with intervals, for whom, at what cost, and what to do.

    The first argument is a model, or twins that `generate` made (then `model` is theirs; with `twins` it is said the other way
    round); without twins `n` of them are drawn, `where` as in `generate`. `intervention`: a mapping, a TOML file, a folder of
    them, or a list of these; several are ranked, on the same twins and the same random numbers. Each says where its effect
    comes from: learned, assumed or structural. `by`: columns whose groups have effects of their own, corrected for their
    number. `goal`: whether more of the outcome is better. `value_per_unit`: money that one unit of it is worth; with `budget`,
    who should be treated first; `population`: real units that the twins stand for. `smallest`: effect of interest. `fidelity`:
    of the model's past results, which `track` knows.

    Intervals hold what the sample, the models and the effect leave unsure; more twins do not make them narrower.
    `.refute()` of the answer tries to break a learned effect, `.refute(rows)` where the model was loaded. The rest is about the
    machine: see `explain`.
    """
    from millrace.analyses.twin.simulate_answer import with_refuter
    from millrace.face.refute import refute

    if hasattr(model_or_twins, "path") and hasattr(model_or_twins, "acceptance"):
        if model is None:
            raise WrongQuestion(
                f"These are twins of {model_or_twins.model}, which do not know what interventions do: give their model as well, "
                "mr.twin.simulate(twins, intervention, model=model)."
            )
        twins = model_or_twins
    else:
        model = model_or_twins
    question = {
        "model": model, "intervention": intervention, "twins": twins, "n": n, "where": where, "by": by, "goal": goal,
        "value_per_unit": value_per_unit, "budget": budget, "population": population, "smallest": smallest,
        "smallest_money": smallest_money, "level": level, "power": power, "attrition": attrition, "fidelity": fidelity,
        "least_fidelity": least_fidelity, "record": record,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress))
    return with_refuter(ask("twin simulate", question, machine, run, fit), refute, model)


def track(
    simulation: Any,
    actual: float,
    *,
    actual_se: float = 0.0,
    intervention: str | None = None,
    group: str | None = None,
    near_zero: float = 0.01,
    record: Path | None = None,
    new: Any = None,
    training: Any = None,
    at: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    run: OpenRun | None = None,
) -> Tracking:
    """The real effect of an intervention beside the simulated one: error, grade, the model's fidelity, and advice.

    `simulation`: what `simulate` answered, or its folder. `actual`: the real effect on a unit that was offered it,
    `actual_se` its standard error. `intervention`, `group`: of which one. `record`: the file where results of the model are
    kept (beside the model when not given). `new`, `training`: rows by which it is seen whether the population has changed.
    `at`: when, now when not given.
    """
    question = {
        "simulation": simulation, "actual": actual, "actual_se": actual_se, "intervention": intervention, "group": group,
        "near_zero": near_zero, "record": record, "new": new, "training": training, "at": at,
    }  # fmt: skip
    machine = compose.Machine("auto", seed=seed, out=out)
    return ask("twin track", question, machine, run)  # type: ignore[no-any-return]


def explain(model: Any, data: Any, **more: Any) -> Explanation:
    """Why the outcome model predicts what it does: `mr.explain` of it on `data`, real rows or twins. more: as `mr.explain`'s."""
    from millrace.analyses.twin.features import as_table
    from millrace.analyses.twin.model import read_model
    from millrace.face.explain import explain as explain_model

    known = read_model(model)
    if known.outcome is None:
        raise WrongQuestion("The model has no outcome model that could be explained: fit it with outcome=.")
    rows = data.table if hasattr(data, "acceptance") else as_table(data)
    return explain_model(known.outcome.booster(), known.outcome.labelled(rows), **more)


def load(folder: Path) -> TwinModel:
    """The model in that folder, or the only one in a run's folder."""
    from millrace.analyses.twin.model import load as read

    return read(folder)


def sample(model: Any, n: int = 10, *, where: Any = None, seed: int = 0) -> Any:
    """A few twins as an Arrow table, here and now: the first rows of what `generate` makes."""
    from millrace.analyses.twin.generate import sample as draw
    from millrace.analyses.twin.model import read_model

    return draw(read_model(model), n, seed, where)
