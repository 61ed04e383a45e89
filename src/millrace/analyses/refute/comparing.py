"""The question by other estimators, and under other choices of confounders and their forms.

Numbers only: what they say of the estimate is judged by `rules.estimators` and shown by `rules.specification`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy

from millrace.analyses.refute import batches
from millrace.analyses.refute import simulations as simulating
from millrace.analyses.refute.question import Case
from millrace.analyses.refute.spec import SIMULATED, Spec
from millrace.analyses.refute.study import BATCH, Fit
from millrace.run.errors import TaskFailed
from millrace.run.flow import describe
from millrace.run.run import Run
from millrace.run.task import Ref, Task

JOINT = 200
"""Resamples on which two estimators are compared."""
LEARNT = {"linear": True, "trees": 30, "leaves": 8, "rate": 0.05}
"""dml beside others: least squares first and few trees for what it leaves, so that it differs where the form is wrong, and not
because trees are slow to add up many weak linear causes."""


@dataclass(frozen=True, slots=True)
class Compared:
    """fits: of the other estimators. joint: (B, 2) for each, effects of the question's own and of the other on the same
    resampled rows. scale: what the sd of their difference is to be multiplied by."""

    fits: Mapping[str, Fit]
    joint: Mapping[str, Any]
    scale: float


def others(spec: Spec, binary: bool, note: Callable[[str], None]) -> list[str]:
    """Of least squares, the doubly robust and the double machine learning estimate, those that are not the question's own and
    have a meaning for it."""
    found = ["ols", *(["aipw"] if binary else [])]
    if spec.target != "ate":
        note("dml is not among the estimators compared: it has one effect for everybody (target='ate').")
    elif find_spec("lightgbm") is None:
        note("dml is not among the estimators compared: lightgbm is not installed (pip install lightgbm).")
    else:
        found.append("dml")
    return [name for name in found if name != spec.estimator]


Bodies = Callable[[str, Mapping[str, Any], list[str], Any], Mapping[str, Any]]
"""(estimator, options, tests, what simulations share) -> test -> the function of its tasks."""


def test_of(spec: Spec) -> str:
    """Bootstraps are compared; subsets where a bootstrap is not valid (matching)."""
    return "subset" if spec.estimator == "matching" else "bootstrap"


def compare(run: Run, spec: Spec, study: Ref, names: list[str], own: simulating.MakeTask, bodies: Bodies) -> Compared:
    """Resamples side by side (see `test_of`)."""
    count, test = min(JOINT, spec.simulations), test_of(spec)
    each = 1 if spec.one_by_one else BATCH
    ours = simulating.simulate(run, [test], count, own, each, None, forgive=spec.own)[test]
    fits, joint = {}, {}
    for name in names:
        told = _prepared(run, spec, study, name)
        if told is None:
            continue
        fits[name], shared = told
        known = {
            "precision": spec.precision,
            "fraction": spec.share,
            **({"fast": "multiplier"} if name == "dml" else {}),
        }
        tail, fn = (name, spec.target, run.seed, known), bodies(name, known, [test], shared)[test]

        def make(test: str, i: int, shared: Ref = shared, tail: Any = tail, fn: Any = fn) -> Task:
            return run.task(fn, (SIMULATED[test], i), study, shared, *tail, name="estimators")

        its = simulating.simulate(run, [test], count, make, BATCH, None, False)[test]
        pair = [simulating.whole(line, count)[:, 0] for line in (ours, its)]
        joint[name] = numpy.column_stack([p[: min(map(len, pair))] for p in pair])
    # Subsets of a finite sample vary by the part that they leave out.
    return Compared(fits, joint, float(numpy.sqrt(spec.share / (1 - spec.share))) if test == "subset" else 1.0)


def _prepared(run: Run, spec: Spec, study: Ref, name: str) -> tuple[Fit, Ref] | None:
    """The other estimate and what its simulations share; None, said, where it does not exist."""
    options = LEARNT if name == "dml" else {}
    common = (study, name, spec.target, options)
    shared = _value(run, run.task(batches.prepare, 0, *common, keep=True, name="prepare"), name)
    if shared is None:
        return None
    task = (
        run.task(batches.fit_prepared, 0, study, shared, options, name="estimate")
        if name == "dml"
        else run.task(batches.fit, 0, *common, name="estimate")
    )
    fit = _value(run, task, name)
    return None if fit is None else (Fit(**fit), shared)


def _value(run: Run, task: Task, name: str) -> Any:
    """None, said, where the estimator finds the question at fault; any other failure is raised."""
    (outcome,) = run.stream(iter([task]))
    failure = outcome.failure
    if failure is None:
        return outcome.value
    at_fault = batches.OF_THE_QUESTION.match(failure.message)
    if failure.kind != "raised" or not at_fault:
        raise TaskFailed(describe(failure, task.name, 0), failure, outcome.key)
    run.note(f"{name} is not among the estimators compared: {failure.message[at_fault.end() :]}")
    return None


def specifications(run: Run, study: Ref, case: Case) -> tuple[list[str], Any]:
    """(labels, float64 (m, 2) of effects and errors), by least squares: without any cause, without one and with one at a time,
    with squares, and with ranks in place of values."""
    every, groups = tuple(range(len(case.names))), case.groups
    chosen: dict[str, tuple[int, ...]] = {"without any cause": ()}
    chosen |= {f"without {name}": tuple(j for j in every if j not in its) for name, its in groups.items()}
    if len(groups) > 2:
        chosen |= {f"only {name}": tuple(its) for name, its in groups.items()}
    found = list(run.map(batches.specification, list(chosen.values()), shared=(study,), name="specification"))
    for form in ("squares", "ranks"):
        fn = partial(batches.specification, form=form)
        found += list(run.map(fn, [every], shared=(study,), name="specification"))
    return [*chosen, "with squares", "with ranks"], numpy.array(found)
