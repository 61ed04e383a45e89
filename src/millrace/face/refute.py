"""`mr.refute`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace import compose
from millrace.face.asking import Shown, ask, shown
from millrace.run.errors import WrongQuestion
from millrace.run.run import Run as OpenRun

if TYPE_CHECKING:
    from millrace.analyses.refute.answer import Refutation


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
    deadline: str | float | None = None,
    fit: bool = False,
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

    The rest is about the machine and never changes the answer: see `explain`; but with `fit` simulations, then rows, are as
    many as fit the memory and the deadline, and the answer says so. Raises the errors of
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
    machine = compose.Machine(
        engine, cores, memory, store, seed, out, deadline=deadline, show=shown(progress), opened=tell
    )
    return ask("refute", taken.question, machine, run, fit)  # type: ignore[no-any-return]


def _check_named(question: Mapping[str, Any]) -> None:
    for name in ("treatment", "outcome"):
        if question.get(name) is None:
            raise WrongQuestion(
                f"Which {name}? Name the column: mr.refute(data, treatment, outcome, ...). Both may be left out only with a "
                "DoWhy CausalEstimate or CausalModel in the place of the data."
            )
