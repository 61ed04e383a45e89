"""Questions that were asked of DoWhy already: what a `CausalEstimate` or a `CausalModel` knows, as fields of the spec.

DoWhy is not imported: its objects are recognised by the module of their class. What has no counterpart here is refused by
name, with what to do. Where DoWhy's own value can differ, the two are compared and the difference is said.

See also: `refitting`, DoWhy's and EconML's estimators as functions of a table; `graph`, which reads a model's graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millrace.analyses.refute.refitting import Contrast, function_of, is_estimator, is_of
from millrace.analyses.refute.spec import Spec
from millrace.run.errors import NotSupported, WrongQuestion

ROLES = ("weights", "clusters", "strata", "blocks", "common_causes", "effect_modifiers", "negative_outcomes",
         "negative_treatments")  # fmt: skip
ALIKE = 1e-6
"""Of a standard error: nearer estimates are the same."""
NEAREST = {
    "PropensityScoreStratificationEstimator": "'ipw' or 'aipw'",
    "DistanceMatchingEstimator": "'matching' with options={'metric': 'mahalanobis'}",
    "DoublyRobustEstimator": "'aipw'",
    "GeneralizedLinearModelEstimator": "'ols' (of a binary outcome: differences of probabilities)",
}
"""What comes nearest here to a method of DoWhy's without a counterpart; 'aipw' for others."""


@dataclass(slots=True)
class Taken:
    """question: fields of `spec.Spec`. notes: decisions in words. value: DoWhy's estimate on the question's scale, None where
    there is none to compare with; why: what makes the two differ where they do. contrast: of an estimator's own values."""

    question: dict[str, Any]
    notes: list[str]
    value: float | None = None
    why: str = "the rows or the columns differ"
    contrast: Contrast = (0.0, 1.0)


def is_estimate(thing: Any) -> bool:
    return is_of("dowhy", thing) and hasattr(thing, "target_estimand") and hasattr(thing, "value")


def is_model(thing: Any) -> bool:
    return is_of("dowhy", thing) and hasattr(thing, "identify_effect") and hasattr(thing, "_graph")


def question_of(estimate_or_model: Any) -> dict[str, Any]:
    """The fields of `spec.Spec` that a DoWhy estimate or model knows. Raises NotSupported for what has no counterpart here,
    WrongQuestion for an estimate without a value."""
    return taken({"data": estimate_or_model}).question


def taken(question: Mapping[str, Any]) -> Taken:
    """The question with what a DoWhy object in `data` knows, and with a DoWhy or EconML estimator made a function. What was
    given beside the object (anything but the default) wins over it. Any other question comes back as it is."""
    thing, given = question.get("data"), {n: v for n, v in question.items() if n != "data" and _is_given(n, v)}
    if is_estimate(thing):
        found = _of_estimate(thing, given)
    elif is_model(thing):
        found = _of_model(thing, given)
    else:
        found = Taken({"data": thing}, [])
    for name in ("treatment", "outcome"):
        if given.get(name) is not None and found.question.get(name, given[name]) != given[name]:
            raise WrongQuestion(
                f"The {name} is {given[name]!r}, and that of DoWhy's object is {found.question[name]!r}: leave it out, or ask "
                "with the data themselves."
            )
    options = {**found.question.get("options", {}), **given.get("options", {})}
    found.question = {**question, **found.question, **given}
    if options:
        found.question["options"] = options
    if is_estimator(found.question.get("estimator")):
        function, notes = function_of(found.question["estimator"], found.question, found.contrast)
        found.question["estimator"] = function
        found.notes += notes
    return found


def _is_given(name: str, value: Any) -> bool:
    """Not what the face says when nothing is said."""
    if value is None or (isinstance(value, tuple | list | Mapping) and not value):
        return False
    field = Spec.model_fields.get(name)
    simple = isinstance(value, str | int | float)
    return not (simple and field is not None and value == field.default)


def _columns(data: Any, needed: list[str], given: Mapping[str, Any]) -> Any:
    """The columns that are needed, and those named beside. (DoWhy leaves columns of its own in the data.)"""
    named = []
    for role in ROLES:
        value = given.get(role, ())
        named += [n.strip() for n in value.split(",")] if isinstance(value, str) else list(value)
    return data[[n for n in dict.fromkeys([*needed, *named]) if n in data.columns]]


def _one(names: Any, what: str) -> str:
    names = [names] if isinstance(names, str) else list(names or ())
    if len(names) != 1:
        raise NotSupported(
            f"DoWhy's object has {len(names)} {what} variables ({', '.join(map(str, names))}); the effect of one on one can be "
            "refuted. Ask once for each."
        )
    return str(names[0])


# -- a model -----------------------------------------------------------------------------------------------------------
def _of_model(model: Any, given: Mapping[str, Any]) -> Taken:
    treatment, outcome, drawn = (
        _one(model._treatment, "treatment"),
        _one(model._outcome, "outcome"),
        model._graph._graph,
    )
    notes = [f"The question is that of DoWhy's model: the effect of {treatment} on {outcome}, given its graph."]
    data = _columns(model._data, [treatment, outcome, *map(str, drawn.nodes)], given)
    found: dict[str, Any] = {"data": data, "treatment": treatment, "outcome": outcome, "graph": drawn}
    modifiers = [str(n) for n in getattr(model, "_effect_modifiers", None) or ()]
    if modifiers and (given.get("estimator") == "ols_interacted" or is_estimator(given.get("estimator"))):
        found["effect_modifiers"] = tuple(modifiers)
    elif modifiers:
        notes.append(
            f"DoWhy's model names effect modifiers ({', '.join(modifiers)}); here one mean effect is estimated. With "
            "estimator='ols_interacted' it is the mean of effects that differ by them."
        )
    return Taken(found, notes)


# -- an estimate -------------------------------------------------------------------------------------------------------
def _of_estimate(estimate: Any, given: Mapping[str, Any]) -> Taken:
    estimand, estimator = estimate.target_estimand, getattr(estimate, "estimator", None)
    if estimator is None or estimate.value is None:
        raise WrongQuestion(
            "DoWhy's estimate comes from no estimator: no way to identify the effect was found, or no path leads from the "
            "treatment to the outcome. There is nothing to refute."
        )
    _check_estimand(estimand)
    data = getattr(estimate, "_data", None)
    if data is None:
        raise WrongQuestion("DoWhy's estimate does not hold its data: ask with the CausalModel instead.")
    causes, modifiers = _in_order(data, estimand.get_adjustment_set()), _in_order(data, _modifiers(estimator))
    question: dict[str, Any] = {
        "treatment": _one(estimand.treatment_variable, "treatment"), "outcome": _one(estimand.outcome_variable, "outcome"),
        "common_causes": tuple(causes), "target": _target(estimator),
    }  # fmt: skip
    needed = [question["treatment"], question["outcome"], *causes, *modifiers]
    question["data"] = _columns(data, needed, given)
    found = Taken(question, [])
    how = _method(found, estimate, given.get("estimator"), causes, modifiers)
    kind = type(estimator).__name__
    found.notes.insert(
        0, f"The question is that of DoWhy's estimate ({kind}), adjusted for its {len(causes)} variables, {how}."
    )
    if any(
        name in given for name in ("estimator", "common_causes", "limit", "weights", "options", "target", "missing")
    ):
        found.value = None
    return found


def _modifiers(estimator: Any) -> list[str]:
    return getattr(estimator, "_effect_modifier_names", None) or []


def _in_order(data: Any, names: Any) -> list[str]:
    """In the order of the data's columns: DoWhy's own order is that of a set, and differs from process to process."""
    return [str(n) for n in data.columns if n in set(names)]


def _method(found: Taken, estimate: Any, asked: Any, causes: list[str], modifiers: list[str]) -> str:
    """Put estimator, options and the treatment's scale into the question; how it is estimated, in words."""
    question, estimator = found.question, estimate.estimator
    kind = type(estimator).__name__
    if is_estimator(asked) or (asked is None and kind == "Econml"):
        if asked is None:
            question["estimator"] = estimator
        _refitted(found, estimate, causes, modifiers)
        return f"with {type(asked or estimator.estimator).__name__} fitted anew in every simulation"
    if asked is not None:
        _scaled(found, estimate.control_value, estimate.treatment_value)
        if asked == "ols_interacted":
            question["effect_modifiers"] = tuple(modifiers)
        return f"by {asked if isinstance(asked, str) else 'your own function'}"
    if kind == "LinearRegressionEstimator":
        _linear(found, estimate, modifiers)
    elif kind in ("PropensityScoreWeightingEstimator", "PropensityScoreMatchingEstimator"):
        _by_propensity(found, estimate, modifiers)
    else:
        raise NotSupported(
            f"DoWhy's {kind} has no counterpart here. Give estimator=estimate.estimator, which is then fitted anew in every "
            f"simulation, or an estimator of millrace's by name: {NEAREST.get(kind, repr('aipw'))}."
        )
    return f"by {question['estimator']}"


def _check_estimand(estimand: Any) -> None:
    method = getattr(estimand, "identifier_method", None) or "backdoor"
    if not (method.startswith("backdoor") or method == "general_adjustment"):
        named = {"iv": "an instrument", "frontdoor": "a front door", "mediation": "mediation"}.get(method, method)
        raise NotSupported(
            f"DoWhy's estimate is identified by {named}; refute knows adjustment for common causes (the back door) only. "
            "Estimate by a method whose name begins with 'backdoor.'."
        )
    kind = getattr(getattr(estimand, "estimand_type", None), "value", "nonparametric-ate")
    if kind != "nonparametric-ate":
        raise NotSupported(f"DoWhy's estimand is {kind}; refute knows the total effect (nonparametric-ate) only.")


def _target(estimator: Any) -> str:
    asked = getattr(estimator, "_target_units", None)
    asked = "ate" if asked is None else asked
    if not (isinstance(asked, str) and asked in ("ate", "att", "atc")):
        raise NotSupported(
            "DoWhy's estimate is of units that a function or a table chooses; refute knows all (ate), the treated (att) and the "
            "untreated (atc). Choose the rows first, and estimate on them."
        )
    return asked


def _linear(found: Taken, estimate: Any, modifiers: list[str]) -> None:
    found.value = float(estimate.value)
    _scaled(found, estimate.control_value, estimate.treatment_value)
    found.question["estimator"] = "ols_interacted" if modifiers else "ols"
    found.question["effect_modifiers"] = tuple(modifiers)
    if modifiers:
        found.why = (
            f"DoWhy's model lets the effect differ by {', '.join(modifiers)} alone, with no term for what these do to the "
            "outcome in everybody unless they are common causes; here every confounder has both"
        )
        if found.question["target"] != "ate":
            found.why += ", and DoWhy's linear regression takes the mean over all rows whatever the target"


def _by_propensity(found: Taken, estimate: Any, modifiers: list[str]) -> None:
    estimator = estimate.estimator
    kind, model, column = type(estimator).__name__, estimator.propensity_score_model, estimator.propensity_score_column
    if model is None:
        raise NotSupported(
            f"DoWhy's {kind} fitted no propensity scores: the data had a column {column!r} already. (Every such estimate writes "
            "it into the data of its CausalModel, for the next one to find.) Scores that are held fixed make every refutation "
            "wrong. Make the CausalModel anew, from data without that column."
        )
    if type(model).__name__ != "LogisticRegression":
        raise NotSupported(
            f"DoWhy's {kind} has the propensity model {type(model).__name__}; here it is a logistic regression. Give "
            "estimator=estimate.estimator, which is then fitted anew in every simulation."
        )
    found.value = float(estimate.value)
    found.why = "DoWhy's logistic regression is penalised (scikit-learn's default), the one here is not"
    if kind == "PropensityScoreWeightingEstimator":
        low, high = float(estimator.min_ps_score), float(estimator.max_ps_score)
        if abs(low + high - 1) > 1e-9:
            raise NotSupported(
                f"DoWhy clips propensity scores to {low:g} .. {high:g}; here both bounds are equally far from 0 and 1. Give "
                "estimator=estimate.estimator, or estimate with such bounds."
            )
        found.question["estimator"], found.question["options"] = "ipw", {"trim": low}
    else:
        found.question["estimator"], found.question["options"] = "matching", {"metric": "propensity"}
        found.why += ", so that some rows find other partners"
    if modifiers:
        found.notes.append(
            f"The mean effect is refuted, and not DoWhy's conditional effects by {', '.join(modifiers)}."
        )


# -- the treatment's scale ---------------------------------------------------------------------------------------------
def _scaled(found: Taken, low: Any, high: Any) -> None:
    """The treatment such that its effect here is DoWhy's, of `high` against `low`; or DoWhy's value on the scale here."""
    table, name = found.question["data"], found.question["treatment"]
    levels = _levels(table[name])
    if levels:
        _two_values(found, levels, low, high)
        return
    if _is_text(table[name]):
        raise NotSupported(
            f"The treatment {name!r} has more than two labels. Ask with the CausalModel and reference={str(low)!r}: every "
            "label is then compared with it."
        )
    step = float(high) - float(low)
    if step == 0:
        raise WrongQuestion(f"DoWhy's estimate compares {name} = {low:g} with itself: there is nothing to refute.")
    if step != 1:
        found.question["data"] = table.assign(**{name: table[name] / step})
        found.notes.append(
            f"The effect is that of {name} from {low:g} to {high:g}, as DoWhy's: {name} is counted in such steps."
        )


def _two_values(found: Taken, levels: list[Any], low: Any, high: Any) -> None:
    """A treatment of two values is 1 for the one and 0 for the other here, whatever they are."""
    name = found.question["treatment"]
    text = _is_text(found.question["data"][name])
    if (low == levels[1] or high == levels[0]) if text else float(high) < float(low):
        levels = levels[::-1]
        found.question["reference"] = str(levels[0]) if text else f"{float(levels[0]):g}"
    if text or (low == levels[0] and high == levels[1]):
        return
    if found.value is not None and float(high) != float(low):
        found.value *= (float(levels[1]) - float(levels[0])) / (float(high) - float(low))
    found.notes.append(
        f"DoWhy's effect is that of {name} from {low:g} to {high:g}; here it is that of its two values, {float(levels[1]):g} "
        f"against {float(levels[0]):g}."
    )


def _levels(column: Any) -> list[Any]:
    """The values of a treatment that has two; [] of any other."""
    values = column.dropna().unique()
    return sorted(values.tolist()) if len(values) == 2 else []


def _is_text(column: Any) -> bool:
    return getattr(column.dtype, "kind", "O") not in "fiub"


def _refitted(found: Taken, estimate: Any, causes: list[str], modifiers: list[str]) -> None:
    """The table in numbers, for an estimator that is a function of it: categories as DoWhy's own encoder makes them."""
    question, estimator = found.question, estimate.estimator
    table, name = question["data"], question["treatment"]
    if _levels(table[name]):
        _two_values(found, _levels(table[name]), estimate.control_value, estimate.treatment_value)
    elif _is_text(table[name]):
        raise NotSupported(f"The treatment {name!r} has more than two labels: keep the rows of two of them.")
    else:
        found.contrast = float(estimate.control_value), float(estimate.treatment_value)
    coded, names = {}, []
    for role, its in (("observed_common_causes", causes), ("effect_modifiers", modifiers)):
        frame = estimator._encode(table[its], role) if its else table[[]]
        names.append(tuple(map(str, frame.columns)))
        coded |= {str(n): frame[n].to_numpy() for n in frame.columns}
    rest = [n for n in table.columns if n not in (*causes, *modifiers)]
    question["data"] = table[rest].assign(**coded)
    question["common_causes"], question["effect_modifiers"] = names


# -- is it the same estimate -------------------------------------------------------------------------------------------
def agreement(found: Taken) -> str | None:
    """Whether the estimate here is DoWhy's, in words; None where there is nothing to compare. Estimates once, in this
    process: what the run computes is not known before it."""
    if found.value is None:
        return None
    from pydantic import ValidationError

    from millrace.analyses.refute import batches
    from millrace.analyses.refute.question import read

    try:
        spec = Spec(**found.question)
    except ValidationError:  # said in full when the question is asked
        return None
    study = read(spec, lambda text: None).cases[0].study
    fit = batches.kernel(spec.estimator).fit(study, spec.target, **batches.options_of(spec.estimator, spec.options))
    away = abs(fit.effect - found.value)
    if away <= ALIKE * fit.se:
        return f"The estimate is DoWhy's own, {found.value:.5g}."
    return (
        f"DoWhy's estimate is {found.value:.5g}, the one here {fit.effect:.5g} ({away / fit.se:.2g} standard errors apart): "
        f"{found.why}."
    )
