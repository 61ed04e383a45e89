"""The Python face: one function an analysis, with the same names, defaults and order as its spec and its command."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.run.errors import MillraceError, WrongQuestion
from millrace.run.run import Progress
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.explain.answer import Explanation
    from millrace.analyses.refute.answer import Refutation

Shown = bool | Callable[[Progress], None] | None


def explain(
    model: Any,
    X: Any,
    *,
    background: Any = None,
    method: str = "auto",
    output: str = "auto",
    max_evaluations: int | None = None,
    precision: str = "float64",
    top: int = 12,
    limit: int | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
    run: OpenRun | None = None,
) -> Explanation:
    """SHAP values of `model` on the rows of `X`, exact where they can be.

    `model`: a fitted LightGBM, XGBoost or scikit-learn model, any function of a matrix, or a model file. `X`: (rows,
    features), an array, a pandas, polars or Arrow table, or a data file. `background`: rows that stand for "feature
    unknown" (interventional values); without them tree models use the training weights in their own nodes
    (path-dependent values). `method`: auto, tree_path_dependent, interventional, linear, kernel. `output`: auto, raw,
    probability or the name of a class. `max_evaluations`: coalitions a row of the kernel method.

    The rest is about the machine and never changes the answer: `engine` auto | inline | processes, `cores`, `memory`
    ("4GiB"), `store` (a folder where finished blocks are kept, so that an interrupted call goes on), `progress` (True,
    or a function that is told), `out` (a folder for tables, pictures and report), `run` (an open `Run` to share).

    Raises the errors of `millrace.run.errors`: `WrongQuestion` and its kin before any work, `DoesNotFit` with the
    smallest budget that would do, `NotAdditive` when values do not add up to the model's output.
    """
    question = {
        "model": model, "data": X, "background": background, "method": method, "output": output,
        "max_evaluations": max_evaluations, "precision": precision, "top": top, "limit": limit,
    }  # fmt: skip
    machine = compose.Machine(engine, cores, memory, store, seed, out, show=shown(progress))
    return _asked("explain", question, machine, run)  # type: ignore[no-any-return]


def refute(
    data: Any,
    treatment: str | None = None,
    outcome: str | Sequence[str] | None = None,
    *,
    common_causes: Sequence[str] | None = None,
    graph: Any = None,
    adjustment: int = 0,
    effect_modifiers: Sequence[str] = (),
    weights: str | None = None,
    clusters: str | None = None,
    strata: str | None = None,
    reference: str | None = None,
    tests: Sequence[str] | None = None,
    negative_outcomes: Sequence[str] = (),
    negative_treatments: Sequence[str] = (),
    blocks: str | None = None,
    estimator: Any = "ols",
    options: Mapping[str, Any] | None = None,
    target: str = "ate",
    simulations: int = 1000,
    until: float | None = None,
    fraction: float | None = None,
    placebo: str = "permute",
    thresholds: Mapping[str, Any] | None = None,
    gate: str = "default",
    missing: str = "complete",
    precision: str = "fast",
    limit: int | None = None,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
    run: OpenRun | None = None,
) -> Refutation:
    """Estimate the effect of `treatment` on `outcome` in `data`, and try to break the estimate in every honest way.

    `common_causes`: columns that cause both (adjusted for), or `graph`, in which they are found. `estimator`: ols,
    ols_interacted, ipw, aipw, dml, matching, or a function of a table that gives the effect (and its standard error).
    `tests`: by default a placebo, a random common cause, subsets, bootstrap, blocks, overlap and sensitivity to hidden
    confounding; `negative_outcomes` and `negative_treatments` name what cannot be affected, the one test of the data with
    power against hidden confounding. `simulations`: of each test that resamples. The answer's `gate` says proceed,
    review or block, and why in words.

    `data` may be a DoWhy `CausalEstimate` or `CausalModel`: then treatment, outcome and the rest of the question are its
    own, and only what it does not know is given. `estimator` may be an EconML or DoWhy estimator object, which is fitted
    anew in every simulation.

    The rest is about the machine and never changes the answer: see `explain`. Raises the errors of
    `millrace.run.errors`, `WrongQuestion` and its kin before any work.
    """
    from millrace.analyses.refute import dowhy

    question = {
        "data": data, "treatment": treatment, "outcome": outcome, "common_causes": common_causes, "graph": graph,
        "adjustment": adjustment, "effect_modifiers": effect_modifiers, "weights": weights, "clusters": clusters,
        "strata": strata, "reference": reference, "tests": tests, "negative_outcomes": negative_outcomes,
        "negative_treatments": negative_treatments, "blocks": blocks, "estimator": estimator, "options": options or {},
        "target": target, "simulations": simulations, "until": until, "fraction": fraction, "placebo": placebo,
        "thresholds": thresholds or {}, "gate": gate, "missing": missing, "precision": precision, "limit": limit,
    }  # fmt: skip
    taken = dowhy.taken(question)
    _check_named(taken.question)
    said = [*taken.notes, *filter(None, [dowhy.agreement(taken)])]

    def tell(opened: OpenRun) -> None:
        for note in said:
            opened.note(note)

    if run is not None:
        tell(run)
    machine = compose.Machine(engine, cores, memory, store, seed, out, show=shown(progress), opened=tell)
    return _asked("refute", taken.question, machine, run)  # type: ignore[no-any-return]


def _check_named(question: Mapping[str, Any]) -> None:
    for name in ("treatment", "outcome"):
        if question.get(name) is None:
            raise WrongQuestion(
                f"Which {name}? Name the column: mr.refute(data, treatment, outcome, ...). Both may be left out only with a "
                "DoWhy CausalEstimate or CausalModel in the place of the data."
            )


def _asked(analysis: str, question: dict[str, Any], machine: compose.Machine, run: OpenRun | None) -> Any:
    """Carry out; what the spec refuses is said in one paragraph, with the names of the arguments."""
    from pydantic import ValidationError

    try:
        return compose.carry_out(analysis, question, machine, run)
    except ValidationError as e:
        said = []
        for one in e.errors():
            own = one.get("ctx", {}).get("error")
            if isinstance(own, MillraceError):
                raise own from None
            name = "X" if one["loc"] == ("data",) else ".".join(map(str, one["loc"]))
            said.append(f"{name}={one['input']!r}: {own or one['msg']}")
        raise WrongQuestion(f"{analysis} cannot be asked so. {'; '.join(said)}.") from None


def Run(  # it opens a Run, and reads as one: `with mr.Run(cores=4) as run`
    *,
    engine: str = "auto",
    cores: int | None = None,
    memory: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Shown = None,
    out: str | os.PathLike[str] | None = None,
) -> OpenRun:
    """Open a run for functions of your own, or to share one pool among several analyses.

        with mr.Run(cores=4, store="results") as run:
            for y in run.map(f, xs): ...

    See `millrace.run.run.Run` for what it can do.
    """
    machine = compose.Machine(engine, cores, memory, store, seed, out, show=shown(progress))
    return compose.open_run("run", machine)


def shown(progress: Shown) -> Callable[[Progress], None] | None:
    """A function that shows progress: the one given, lines on stderr for True, nothing otherwise."""
    if progress is True:
        return compose.show_lines()
    return progress if callable(progress) else None
