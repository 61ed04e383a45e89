"""The tasks of refute: pure functions that workers have preloaded. A study arrives as one mapped copy per host.

A batch is `BATCH` simulations of one test by one of the estimators here; a user's own estimator, or one that fits models
anew each time, is one simulation a task.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

from millrace.analyses.refute import blocks as cutting
from millrace.analyses.refute.kernels import resample
from millrace.analyses.refute.study import Fit, Study
from millrace.run.errors import WrongQuestion

Arrays = Mapping[str, Any]
Options = Mapping[str, Any]
OF_THE_QUESTION = re.compile(r"^(WrongQuestion|NotSupported|Separation): ")
"""How the failure of a task begins that found the question at fault."""
HELD_BYTES = 32 << 20
"""A basis above this is written to a file as it is made."""


def kernel(estimator: str) -> ModuleType:
    """The module of an estimator by name. Named one by one, so that a task's key knows the code that it runs."""
    if estimator in ("ols", "ols_interacted"):
        from millrace.analyses.refute.kernels import ols

        return ols
    if estimator == "ipw":
        from millrace.analyses.refute.kernels import ipw

        return ipw
    if estimator == "aipw":
        from millrace.analyses.refute.kernels import aipw

        return aipw
    if estimator == "dml":
        from millrace.analyses.refute.kernels import dml

        return dml
    from millrace.analyses.refute.kernels import matching

    return matching


def options_of(estimator: str, given: Options) -> dict[str, Any]:
    """What the kernel takes: `ols_interacted` is `ols` with interactions."""
    return {**given, "interacted": True} if estimator == "ols_interacted" else dict(given)


def fit(_: Any, study: Arrays, estimator: str, target: str, options: Options) -> Arrays:
    """The estimate from all rows, as plain values."""
    found = kernel(estimator).fit(Study.of(study), target, **options_of(estimator, options))
    return plain_fit(found)


def fit_prepared(_: Any, study: Arrays, shared: Arrays, options: Options) -> Arrays:
    """`fit` of dml from what its simulations share: its models are fitted once."""
    from millrace.analyses.refute.kernels import dml

    return plain_fit(dml.fit_prepared(Study.of(study), shared, **options))


def pair_differences(_: Any, study: Arrays, metric: str) -> Any:
    """float64 (pairs,): outcome of the treated less that of the untreated row of each disjoint pair of near rows."""
    from millrace.analyses.refute.kernels import pairing

    asked = Study.of(study)
    treated, untreated = pairing.pairs(asked, metric)
    outcome = numpy.asarray(asked.outcome)
    return outcome[treated] - outcome[untreated]


def plain_fit(found: Fit) -> Arrays:
    return {
        "effect": float(found.effect), "se": float(found.se), "se_classic": float(found.se_classic), "df": int(found.df),
        "how": found.how, "details": {k: v for k, v in found.details.items() if isinstance(v, int | float | str | list | bool)},
    }  # fmt: skip


def prepare(_: Any, study: Arrays, estimator: str, target: str, options: Options) -> Arrays:
    """What all simulations share. A large basis is written to a file in the scratch folder as it is made."""
    asked, its = Study.of(study), options_of(estimator, options)
    n, p = asked.confounders.shape
    if estimator == "dml" or basis_bytes(n, p, estimator) <= HELD_BYTES:
        return kernel(estimator).prepare(asked, target, **its)  # type: ignore[no-any-return]
    with tempfile.NamedTemporaryFile(delete=False) as file:
        path = Path(file.name)
    try:
        return kernel(estimator).prepare(asked, target, scratch=str(path), **its)  # type: ignore[no-any-return]
    finally:
        path.unlink()  # the map keeps it until the store has its copy


def basis_bytes(n: int, p: int, estimator: str) -> int:
    """Of the float32 basis that simulations share (dml has none)."""
    return 4 * n * (2 + p * (2 if estimator == "ols_interacted" else 1))


def simulate(
    item: tuple[str, int], study: Arrays, shared: Arrays, estimator: str, target: str, seed: int, options: Options
) -> Arrays:
    """A batch: `item` is the test and its first simulation. `effects`: float64 (BATCH, 2), effects and standard errors."""
    test, first = item
    notes: list[str] = []
    its = options_of(estimator, options)
    if estimator in ("ols", "ols_interacted"):
        its["notes"] = notes
    found = kernel(estimator).simulate(Study.of(study), shared, test, first, seed, target=target, **its)
    return {"effects": found, "notes": notes}


def simulate_one(
    item: tuple[str, int], study: Arrays, shared: Arrays, estimator: str, target: str, seed: int, options: Options
) -> tuple[float, float]:
    """One simulation of an estimator that fits its models anew."""
    test, i = item
    its = options_of(estimator, options)
    return kernel(estimator).simulate_one(Study.of(study), shared, test, i, seed, target=target, **its)  # type: ignore[no-any-return]


# -- a user's own estimator ------------------------------------------------------------------------------------------
Own = Callable[[Any], Any]


def own_estimate(
    item: tuple[str, int], table: Arrays, study: Arrays, seed: int, fraction: float, treatment: str, own: Own
) -> tuple[float, float]:
    """The user's estimator on the table of simulation i of a test ("" is the table as it is); (effect, se or NaN)."""
    test, i = item
    return effect_of(own, changed(test, i, table, Study.of(study), seed, fraction, treatment))


def changed(
    test: str, i: int, table: Arrays, study: Study, seed: int, fraction: float, treatment: str
) -> dict[str, Any]:
    """The columns as the test changes them; rows are really drawn."""
    made = dict(table)
    if test in ("bootstrap", "subset"):
        drawn = resample.counts(study.rows, test, seed, i, fraction=fraction, clusters=study.clusters)  # type: ignore[arg-type]
        at = numpy.repeat(numpy.arange(study.rows), drawn)
        return {name: numpy.asarray(values)[at] for name, values in made.items()}
    if test == "placebo":
        made[treatment] = resample.permuted(study.treatment, seed, i, strata=study.strata, clusters=study.clusters)
    elif test == "random_cause":
        made["random_common_cause"] = resample.column(study.rows, seed, i)
    return made


def effect_of(own: Own, columns: Arrays) -> tuple[float, float]:
    """What a user's estimator says: effect, or (effect, standard error)."""
    try:
        import pandas
    except ImportError:
        table: Any = {name: numpy.asarray(values) for name, values in columns.items()}
    else:
        table = pandas.DataFrame({name: numpy.asarray(values) for name, values in columns.items()})
    said = own(table)
    try:
        parts = numpy.atleast_1d(numpy.asarray(said, dtype=numpy.float64)).ravel()
    except (TypeError, ValueError):
        parts = numpy.zeros(0)
    if len(parts) not in (1, 2):
        raise WrongQuestion(f"Your estimator gave {said!r}: it gives the effect, or the effect and its standard error.")
    return float(parts[0]), float(parts[1]) if len(parts) == 2 else float("nan")


def function_of(named: Any) -> Own:
    """`module:function`, or the callable itself."""
    if callable(named):
        return named  # type: ignore[no-any-return]
    module, _, name = str(named).partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise WrongQuestion(
            f"The estimator {named!r} cannot be loaded: {e}. It is module:function; is the module's folder the working "
            "directory or on PYTHONPATH?"
        ) from e
    if not callable(found):
        raise WrongQuestion(f"The estimator {named!r} is a {type(found).__name__}, not a function of a table.")
    return found  # type: ignore[no-any-return]


def few_clusters(_: Any, study: Arrays, seed: int) -> Arrays:
    """The wild cluster bootstrap of least squares, as plain values."""
    from millrace.analyses.refute.kernels import wild

    found = wild.wild(Study.of(study), seed=seed)
    return {"p": found.p, "low": found.low, "high": found.high, "simulations": found.simulations, "draws": found.draws}


# -- blocks ------------------------------------------------------------------------------------------------------------
def block(code: int, study: Arrays, codes: Any) -> tuple[float, float]:
    """Effect and HC3 (or cluster) error of one block, by least squares."""
    asked = Study.of(study)
    at: Any = numpy.flatnonzero(numpy.asarray(codes) == code)
    if len(at) and at[-1] - at[0] + 1 == len(at):  # mapped rows instead of a copy
        at = slice(int(at[0]), int(at[-1]) + 1)
    clusters = None if asked.clusters is None else numpy.unique(asked.clusters[at], return_inverse=True)[1]
    effect, error = cutting.least_squares(
        asked.treatment[at], asked.outcome[at], asked.confounders[at],
        weights=None if asked.weights is None else asked.weights[at], clusters=clusters,
    )  # fmt: skip
    return float(effect), float(error)


def balance(_: Any, study: Arrays, target: str, trim: float) -> Arrays:
    """Weights that make the treatment independent of the confounders, and propensity scores of a binary treatment (else
    empty): inverse propensity (clipped to trim .. 1 - trim), or, of a number, its density over that given the confounders
    (normal; Robins, Hernán and Brumback 2000), cut off at its 1 and 99 % points."""
    asked = Study.of(study)
    if asked.binary:
        from millrace.analyses.refute.kernels import propensity

        try:
            found = propensity.fit(asked).scores
        except propensity.Separation:  # no overlap is a finding, not a lack of one
            found = propensity.ridge_scores(asked)
        scores = numpy.clip(found, trim, 1 - trim)
        treated, others = {
            "ate": (1 / scores, 1 / (1 - scores)),
            "att": (numpy.ones_like(scores), scores / (1 - scores)),
            "atc": ((1 - scores) / scores, numpy.ones_like(scores)),
        }[target]
        weights = numpy.where(asked.treatment == 1, treated, others)
    else:
        left = numpy.asarray(asked.treatment) - asked.treatment.mean()
        conditional = cutting.residual(left, asked.confounders)
        sd0, sd1 = left.std(), max(conditional.std(), 1e-12)
        with numpy.errstate(over="ignore"):
            weights = sd1 / sd0 * numpy.exp((conditional / sd1) ** 2 / 2 - (left / sd0) ** 2 / 2)
        low, high = numpy.quantile(weights, [0.01, 0.99])
        weights, found = numpy.clip(weights, low, high), numpy.zeros(0)
    if asked.weights is not None:
        weights = weights * asked.weights
    return {"scores": found, "weights": weights}


def gram(_: Any, study: Arrays) -> Any:
    """Cross products of the centred confounders, treatment and outcome, weighted: (p + 2, p + 2)."""
    asked = Study.of(study)
    w = numpy.ones(asked.rows) if asked.weights is None else numpy.asarray(asked.weights)
    p = asked.confounders.shape[1]
    total, middle, out = float(w.sum()), numpy.zeros(p + 2), numpy.zeros((p + 2, p + 2))

    def parts() -> Any:
        for begin in range(0, asked.rows, 8192):
            at = slice(begin, begin + 8192)
            yield w[at], numpy.column_stack([asked.confounders[at], asked.treatment[at], asked.outcome[at]])

    for weight, rows in parts():
        middle += weight @ rows
    middle /= total
    for weight, rows in parts():
        rows -= middle
        out += (rows * weight[:, None]).T @ rows
    return out


def specification(columns: tuple[int, ...], study: Arrays, form: str = "") -> tuple[float, float]:
    """Effect and HC3 error given these confounders only, by least squares. form: "squares" are added, or "ranks" are taken in
    place of the values."""
    asked = Study.of(study)
    chosen = numpy.asarray(asked.confounders)[:, list(columns)]
    if form == "squares":
        away = chosen - chosen.mean(axis=0)
        chosen = numpy.hstack([chosen, away**2])
    elif form == "ranks":
        chosen = numpy.column_stack([_ranks(column) for column in chosen.T]) if chosen.shape[1] else chosen
    effect, error = cutting.least_squares(
        asked.treatment, asked.outcome, chosen, weights=asked.weights, clusters=asked.clusters
    )
    return float(effect), float(error)


def _ranks(values: Any) -> Any:
    """Shares of the rows below, ties in their middle."""
    ordered = numpy.sort(values)
    return (numpy.searchsorted(ordered, values) + numpy.searchsorted(ordered, values, "right")) / (2 * len(values))
