"""Estimators of EconML and DoWhy as functions of a table: copied and fitted from scratch in every simulation.

Neither library is imported; their objects are recognised by the module of their class, others by having EconML's methods
(`fit(Y, T, X=, W=)` and `effect`). The functions are called by `batches.own_estimate`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from millrace.run.errors import NotSupported, WrongQuestion

Contrast = tuple[float, float]
"""Two values of the treatment: the effect is of the second against the first."""


def is_of(package: str, thing: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == package for kind in type(thing).__mro__)


def is_estimator(thing: Any) -> bool:
    """An estimator of EconML, or with its methods, or of DoWhy."""
    if isinstance(thing, str | type) or not hasattr(thing, "fit"):
        return False
    if is_of("dowhy", thing):
        return hasattr(thing, "estimate_effect")
    return hasattr(thing, "effect") and {"Y", "T"} <= set(_parameters_of_fit(thing))


def _parameters_of_fit(estimator: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(inspect.unwrap(type(estimator).fit)).parameters
    except (TypeError, ValueError):  # not written in Python
        return {}


def function_of(
    estimator: Any, question: Mapping[str, Any], contrast: Contrast = (0.0, 1.0)
) -> tuple[Callable[[Any], tuple[float, float]], list[str]]:
    """A function of a table that gives effect and standard error (NaN where there is no cheap exact one), and notes.

    question: fields of the spec: treatment, outcome (one), common causes, effect modifiers, weights, clusters, target.
    Raises NotSupported where the estimator cannot take the question's weights.
    """
    if is_of("dowhy", estimator) and type(estimator).__name__ == "Econml":
        estimator = estimator.estimator
    outcome, modifiers = question["outcome"], question.get("effect_modifiers") or ()
    if not isinstance(outcome, str) and len(outcome) != 1:
        raise WrongQuestion("An estimator object is told one outcome: ask for one at a time.")
    weights = question.get("weights")
    settings = {
        "treatment": question["treatment"], "outcome": outcome if isinstance(outcome, str) else outcome[0],
        "modifiers": tuple(modifiers), "weights": weights, "clusters": question.get("clusters"), "contrast": contrast,
        "target": question.get("target", "ate"),
    }  # fmt: skip
    name = type(estimator).__name__
    if weights and (is_of("dowhy", estimator) or "sample_weight" not in _parameters_of_fit(estimator)):
        raise NotSupported(f"{name} cannot be told sampling weights: leave weights out, or use 'ols', 'ipw' or 'aipw'.")
    notes = []
    if is_of("dowhy", estimator):
        causes = question.get("common_causes")
        apart = tuple(m for m in modifiers if causes is not None and m not in causes)
        function = partial(refit_dowhy, estimator=_emptied(estimator), apart=apart, **settings)
    else:
        estimator = _unfitted(estimator)
        if getattr(estimator, "random_state", 0) is None:
            estimator.random_state = 0
            notes.append(f"{name} was given random_state=0, so that the same answer comes out again.")
        if hasattr(estimator, "cv") and not _takes_groups(estimator):
            notes.append(
                f"The folds of {name} cannot keep the copies of a row together, so that its bootstrap tests models on rows that "
                "they were fitted to. Give cv as a number, and the copies stay in one fold."
            )
        function = partial(refit_econml, estimator=estimator, **settings)
    function.__name__ = name  # type: ignore[attr-defined]
    return function, notes


# -- EconML ------------------------------------------------------------------------------------------------------------
def refit_econml(
    table: Any, *, estimator: Any, treatment: str, outcome: str, modifiers: tuple[str, ...], weights: str | None,
    clusters: str | None, contrast: Contrast, target: str,
) -> tuple[float, float]:  # fmt: skip
    """Mean effect over the target's rows. Effect modifiers are X and all other columns W; an estimator without W (the
    meta-learners) has them all in X. se: EconML's exact one of a linear last stage, else NaN."""
    import numpy

    fresh, takes = copy.deepcopy(estimator), _parameters_of_fit(estimator)
    others = [n for n in table.columns if n not in (treatment, outcome, weights, clusters)]
    modified = [n for n in others if n in modifiers or "W" not in takes]
    controls = [n for n in others if n not in modified]
    x = table[modified].to_numpy() if modified else None
    given: dict[str, Any] = {"X": x, "W": table[controls].to_numpy() if controls else None}
    if weights is not None:
        given["sample_weight"] = table[weights].to_numpy()
    if _takes_groups(fresh):
        given["groups"] = _together(table, clusters)
    given = {n: v for n, v in given.items() if v is not None and n in takes}
    t = table[treatment].to_numpy()
    fresh.fit(table[outcome].to_numpy(), t, **given)
    low, high = contrast
    of = {"ate": numpy.ones(len(t), bool), "att": t == high, "atc": t == low}[target]
    chosen = x[of] if x is not None else None
    effect = float(numpy.mean(fresh.effect(chosen, T0=low, T1=high)))
    if not hasattr(fresh, "ate_inference") or not hasattr(fresh, "bias_part_of_coef"):
        return effect, float("nan")
    error = fresh.ate_inference(chosen, T0=low, T1=high).mean_pred_stderr
    return effect, float("nan") if error is None else float(numpy.ravel(error)[0])


def _unfitted(estimator: Any) -> Any:
    """A copy as its constructor makes it, where the object still has what the constructor was told (EconML's do): a fitted one
    is large, and has no identity by which finished simulations are found again. Else a copy as it is."""
    told = list(inspect.signature(type(estimator).__init__).parameters.values())[1:]
    there = {p.name: copy.deepcopy(getattr(estimator, p.name)) for p in told if hasattr(estimator, p.name)}
    plain = all(p.name in there or p.default in (None, "deprecated") for p in told)
    if not (plain and is_of("econml", estimator)):
        return copy.deepcopy(estimator)
    return type(estimator)(**there)


def _takes_groups(estimator: Any) -> bool:
    """EconML makes grouped folds of a number; a splitter that the user gave must know groups itself."""
    cv = getattr(estimator, "cv", None)
    return "groups" in _parameters_of_fit(estimator) and (
        cv is None or isinstance(cv, int) or "Group" in type(cv).__name__
    )


def _together(table: Any, clusters: str | None) -> Any:
    """What must not be torn apart by folds: clusters, or the copies that a bootstrap made of a row (they would be on both
    sides, and the models would seem better than they are). None when every row is there once."""
    import numpy
    import pandas

    same = table[clusters] if clusters is not None else pandas.util.hash_pandas_object(table, index=False)
    found, codes = numpy.unique(same.to_numpy(), return_inverse=True)
    return None if clusters is None and len(found) == len(table) else codes


# -- DoWhy -------------------------------------------------------------------------------------------------------------
def refit_dowhy(
    table: Any, *, estimator: Any, apart: tuple[str, ...], treatment: str, outcome: str, modifiers: tuple[str, ...],
    weights: None, clusters: str | None, contrast: Contrast, target: str,
) -> tuple[float, float]:  # fmt: skip
    """The value of DoWhy's estimator, fitted to this table; apart: modifiers that are no common causes. se: classical, of a
    linear regression without modifiers, else NaN."""
    fresh = copy.deepcopy(estimator)
    causes = [n for n in table.columns if n not in (treatment, outcome, clusters, *apart)]
    estimand = fresh._target_estimand
    estimand.treatment_variable, estimand.outcome_variable = [treatment], [outcome]
    estimand.backdoor_variables = {estimand.identifier_method: causes}
    fresh.fit(table, effect_modifier_names=list(modifiers))
    low, high = contrast
    found = fresh.estimate_effect(table, treatment_value=high, control_value=low, target_units=target)
    error = float("nan")
    if type(fresh).__name__ == "LinearRegressionEstimator" and not modifiers:
        error = abs(high - low) * float(fresh.model.bse.iloc[1])
    return float(found.value), error


def _emptied(estimator: Any) -> Any:
    """Without its last data and fits, and with an estimand of names only: little to send, and the same key every time."""
    from sklearn.base import clone

    small, estimand = copy.copy(estimator), copy.copy(estimator._target_estimand)
    estimand.identifier = estimand.estimands = None
    estimand.identifier_method = "backdoor"
    small._target_estimand = estimand
    small.need_conditional_estimates = False
    for name in ("_observed_common_causes", "_effect_modifiers", "_data", "model", "_bootstrap_estimates"):
        if hasattr(small, name):
            setattr(small, name, None)
    for name, its in vars(small).items():
        if hasattr(its, "get_params") and hasattr(its, "fit"):
            setattr(small, name, clone(its))
    fresh = copy.deepcopy(small)
    fresh.reset_encoders()
    return fresh
