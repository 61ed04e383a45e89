"""DoWhy's and EconML's own objects, handed over: the same estimate, the same distributions, or a refusal that says what to do.

Runs in a virtual environment of its own (see the Makefile): DoWhy holds SciPy back.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import millrace as mr
from millrace.run.errors import NotSupported, WrongQuestion

pytestmark = [pytest.mark.dowhy, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # DoWhy warns of much

NUMBERS = ["a", "b", "c"]
CAUSES = [*NUMBERS, "kind"]
NOTEBOOK = Path(__file__).parents[2] / "examples" / "refute_dowhy" / "refute_dowhy.ipynb"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def world(n: int = 900, seed: int = 0) -> pd.DataFrame:
    """A binary treatment with effect 1, four causes (one a category), a modifier that shares a cause with the treatment."""
    rng = np.random.default_rng(seed)
    w, kind = rng.standard_normal((n, 3)), rng.choice(["u", "v", "w"], n)
    t = (rng.random(n) < 1 / (1 + np.exp(-w @ [0.6, -0.4, 0.2] - 0.5 * (kind == "v")))).astype(int)
    m = w[:, 0] + rng.standard_normal(n) + 2
    dose = w @ [0.5, 0.5, 0.0] + rng.standard_normal(n)
    y = t + 0.5 * t * (m - 2) + 0.2 * dose + w @ [1.0, 0.5, 0.3] + (kind == "w") + m + rng.standard_normal(n)
    table = pd.DataFrame(w, columns=NUMBERS).assign(
        kind=kind, m=m, dose=dose, t=t, yes=t.astype(bool), two=3 * t + 1, y=y
    )
    return table.assign(
        drug=np.where(t, "drug", "none"), other=np.where(kind == "v", t, 1 - t), z=rng.standard_normal(n)
    )


TABLE = world()


def model(treatment: str = "t", table: pd.DataFrame = TABLE, **more: Any) -> Any:
    from dowhy import CausalModel

    given = more or {"common_causes": CAUSES}
    return CausalModel(table.copy(), treatment, "y", **given)


def estimate(method: str = "linear_regression", of: Any = None, **more: Any) -> Any:
    its = model() if of is None else of
    found = its.identify_effect(proceed_when_unidentifiable=True)
    return its.estimate_effect(
        found, method_name=method if "." in method.split("econml")[0] else f"backdoor.{method}", **more
    )


def unpenalised() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)


def refuted(thing: Any, **more: Any) -> Any:
    return mr.refute(thing, **{"simulations": 50, "engine": "inline", "tests": ["subset"], **more})


# -- the same estimate -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("treatment", "values"),
    [
        ("t", {}), ("yes", {}), ("two", {"treatment_value": 4, "control_value": 1}),
        ("two", {"treatment_value": 1, "control_value": 4}), ("dose", {}), ("dose", {"treatment_value": 5, "control_value": 2}),
        ("drug", {"treatment_value": "drug", "control_value": "none"}),
        ("drug", {"treatment_value": "none", "control_value": "drug"}),
    ],
)  # fmt: skip
def test_a_linear_regression_is_the_same_to_the_last_digits(treatment: str, values: dict[str, Any]) -> None:
    theirs = estimate(of=model(treatment), **values)
    ours = refuted(theirs)
    assert ours.estimate.effect == pytest.approx(theirs.value, rel=1e-9, abs=1e-12)
    assert ours.common_causes == tuple(CAUSES)
    assert any("DoWhy's own" in note for note in ours.notes)


def test_a_treatment_of_two_values_is_compared_on_its_own_scale() -> None:
    theirs = estimate(of=model("two"))  # DoWhy: from 0 to 1; the values are 1 and 4
    ours = refuted(theirs)
    assert ours.estimate.effect == pytest.approx(3 * theirs.value, rel=1e-9)
    assert any("DoWhy's own" in note for note in ours.notes)
    assert any("from 0 to 1" in note for note in ours.notes)


def test_the_answer_is_that_of_the_same_question_put_plainly() -> None:
    plain = refuted(TABLE, treatment="t", outcome="y", common_causes=CAUSES, estimator="ipw", options={"trim": 0.05})
    handed = refuted(estimate("propensity_score_weighting"))
    assert handed.digest == plain.digest


@pytest.mark.parametrize("target", ["ate", "att", "atc"])
def test_weighting_differs_by_the_penalty_alone(target: str) -> None:
    theirs = estimate(
        "propensity_score_weighting", target_units=target, method_params={"propensity_score_model": unpenalised()}
    )
    ours = refuted(theirs)
    assert ours.estimate.effect == pytest.approx(theirs.value, rel=1e-6)
    penalised = refuted(estimate("propensity_score_weighting", target_units=target))
    assert any("penalised" in note and "standard errors apart" in note for note in penalised.notes)


@pytest.mark.parametrize("target", ["ate", "att"])
def test_matching_differs_by_partners_alone(target: str) -> None:
    theirs = estimate(
        "propensity_score_matching", target_units=target, method_params={"propensity_score_model": unpenalised()}
    )
    ours = refuted(theirs, tests=["overlap"])
    assert abs(ours.estimate.effect - theirs.value) < 0.5 * ours.estimate.se
    assert ours.estimator == "matching"


def test_effect_modifiers_are_in_the_model_themselves_and_the_difference_is_said() -> None:
    of = model(common_causes=CAUSES, effect_modifiers=["m"])
    theirs = estimate(of=of)
    ours = refuted(theirs)
    assert ours.estimator == "ols_interacted"
    assert "m" in ours.common_causes
    truth = 1 + 0.5 * float(TABLE["m"].mean() - 2)
    assert abs(ours.estimate.effect - truth) < 3 * ours.estimate.se
    assert any("no term for what these do" in note for note in ours.notes)
    asked = refuted(of, estimator="ols_interacted")
    assert asked.estimate.effect == pytest.approx(ours.estimate.effect, rel=1e-9)
    assert any("effect modifiers (m)" in note for note in refuted(of).notes)


def test_what_is_given_beside_the_object_wins() -> None:
    theirs = estimate("propensity_score_weighting")
    assert refuted(theirs, estimator="aipw").estimator == "aipw"
    assert refuted(theirs, options={"trim": 0.2}).estimate.effect != refuted(theirs).estimate.effect
    assert refuted(theirs, common_causes=["a"]).common_causes == ("a",)
    assert refuted(theirs, negative_outcomes=["z"], tests=["negative_control"]).tests[0].status == "passed"
    with pytest.raises(WrongQuestion, match="leave it out"):
        mr.refute(theirs, "dose")


def test_a_model_is_asked_by_its_graph() -> None:
    import networkx as nx

    edges = [(c, v) for c in CAUSES for v in ("t", "y")] + [("t", "y"), ("z", "t"), ("m", "y"), ("hidden", "m")]
    ours = refuted(model(graph=nx.DiGraph(edges)), simulations=20)
    assert set(ours.common_causes) == set(CAUSES)
    assert ours.estimate.effect == pytest.approx(estimate().value, rel=1e-9)
    hidden = nx.DiGraph([*edges, ("u", "t"), ("u", "y")])
    with pytest.raises(NotSupported, match=r"t ← u → y.*instrument"):
        refuted(model(graph=hidden))


def test_the_plan_of_an_estimate_is_the_plan_of_its_question() -> None:
    question = {"simulations": 200, "cores": 1}
    plain = mr.plan.refute(TABLE, "t", "y", common_causes=CAUSES, **question)
    assert mr.plan.refute(estimate(), **question).tasks == plain.tasks


# -- refused by name -------------------------------------------------------------------------------------------------
def refusals() -> dict[str, Any]:
    from sklearn.tree import DecisionTreeClassifier

    of = model()
    estimate("propensity_score_weighting", of=of)
    return {
        "StratificationEstimator has no counterpart.*estimator=estimate.estimator": estimate("propensity_score_stratification"),
        "'propensity_score' already": estimate("propensity_score_matching", of=of),
        "DecisionTreeClassifier": estimate(
            "propensity_score_weighting", method_params={"propensity_score_model": DecisionTreeClassifier(max_depth=2)}
        ),
        "clips propensity scores to 0.05 .. 0.9": estimate("propensity_score_weighting", method_params={"max_ps_score": 0.9}),
        "an instrument": estimate(
            "iv.instrumental_variable", of=model(common_causes=CAUSES, instruments=["z"]),
        ),
        "a function or a table chooses": estimate(target_units=lambda rows: rows["a"] > 0),
        "2 treatment variables": estimate(of=model(["t", "dose"]), treatment_value=[1, 1], control_value=[0, 0]),
    }  # fmt: skip


@pytest.mark.parametrize("said", range(7))
def test_what_has_no_counterpart_is_refused_by_name(said: int) -> None:
    message, theirs = list(refusals().items())[said]
    with pytest.raises(NotSupported, match=message):
        refuted(theirs)


def test_an_estimate_without_a_value_is_a_wrong_question() -> None:
    import networkx as nx

    nothing = estimate(of=model(graph=nx.DiGraph([("a", "t"), ("a", "y")])))
    with pytest.raises(WrongQuestion, match="nothing to refute"):
        refuted(nothing)


# -- estimators as functions -----------------------------------------------------------------------------------------
def test_dowhys_own_estimator_is_fitted_anew() -> None:
    theirs = estimate("propensity_score_stratification")
    ours = refuted(theirs, estimator=theirs.estimator)
    assert ours.estimate.effect == pytest.approx(theirs.value, rel=1e-9)
    line = estimate()
    own, kernel = refuted(line, estimator=line.estimator), refuted(line)
    assert own.estimate.effect == pytest.approx(line.value, rel=1e-9)
    assert own.estimate.se == pytest.approx(float(line.get_standard_error()[0]), rel=1e-6)
    apart = own.parts[0].effects["subset"][:50, 0] - kernel.parts[0].effects["subset"][:50, 0]
    assert np.abs(apart).max() < 2e-4 * kernel.estimate.se


def econml(kind: str) -> Any:
    from econml.dml import CausalForestDML, LinearDML
    from econml.dr import LinearDRLearner
    from econml.metalearners import TLearner
    from sklearn.linear_model import LinearRegression, LogisticRegression

    line, share = LinearRegression(), LogisticRegression()
    made = {"model_y": line, "model_t": share, "discrete_treatment": True, "random_state": 1}
    return {
        "dml.LinearDML": (LinearDML, made), "dml.CausalForestDML": (CausalForestDML, {**made, "n_estimators": 8}),
        "dr.LinearDRLearner": (
            LinearDRLearner, {"model_propensity": share, "model_regression": line, "random_state": 1},
        ),
        "metalearners.TLearner": (TLearner, {"models": line}),
    }[kind]  # fmt: skip


FORESTLESS = ("dml.LinearDML", "dr.LinearDRLearner", "metalearners.TLearner")


@pytest.mark.parametrize(
    ("kind", "modifiers"),
    [*((kind, []) for kind in FORESTLESS), *((kind, ["m"]) for kind in (*FORESTLESS, "dml.CausalForestDML"))],
)
def test_econml_by_way_of_dowhy_is_the_same_estimate(kind: str, modifiers: list[str]) -> None:
    of = model(common_causes=NUMBERS, effect_modifiers=modifiers)  # DoWhy cannot give categories to meta-learners
    params = {"init_params": econml(kind)[1], "fit_params": {}}
    theirs = estimate(f"econml.{kind}", of=of, method_params=params)
    ours = refuted(theirs, simulations=20)
    assert ours.estimate.effect == pytest.approx(float(theirs.value), rel=1e-9)
    if kind == "dml.LinearDML":
        x = TABLE[modifiers].to_numpy() if modifiers else None
        exact = theirs.estimator.estimator.ate_inference(x).mean_pred_stderr
        assert ours.estimate.se == pytest.approx(float(np.ravel(exact)[0]), rel=1e-6)
    assert not any("without the store" in note for note in ours.notes)


def test_econml_gives_the_same_answer_on_every_engine_and_from_the_store(tmp_path: Path) -> None:
    kind, params = econml("dml.LinearDML")
    ask = functools.partial(
        mr.refute, TABLE, "t", "y", common_causes=NUMBERS, tests=["placebo"], simulations=50, store=tmp_path
    )
    first = ask(estimator=kind(**params), engine="processes", cores=2)
    fitted = kind(**params).fit(TABLE["y"], TABLE["t"], W=TABLE[NUMBERS])
    again = ask(estimator=fitted, engine="inline")
    assert first.digest == again.digest
    assert [(its["done"], its["cached"]) for its in again.report.as_dict()["tasks"] if its["name"] == "placebo"] == [
        (0, 50)
    ]


# -- the same distributions ------------------------------------------------------------------------------------------
PARTS = {
    "placebo": ("placebo_treatment_refuter", "refute_placebo_treatment", {"placebo_type": "permute"}),
    "subset": ("data_subset_refuter", "refute_data_subset", {"subset_fraction": 0.8}),
    "bootstrap": ("bootstrap_refuter", "refute_bootstrap", {"noise": 0.0}),
    "random_common_cause": ("random_common_cause", "refute_random_common_cause", {}),
}


def theirs_of(test: str, its: Any, table: pd.DataFrame, simulations: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The effects that DoWhy's own refuter simulates; it tells only their mean, so its test of them is listened to. The table is
    one that DoWhy has written nothing into."""
    from dowhy.causal_refuters.placebo_treatment_refuter import PlaceboType

    module, function, options = PARTS[test]
    refuter = importlib.import_module(f"dowhy.causal_refuters.{module}")
    judge, heard = refuter.test_significance, []

    def listen(of: Any, effects: Any, *more: Any) -> Any:
        heard.append(np.asarray(effects))
        return judge(of, effects, *more)

    monkeypatch.setattr(refuter, "test_significance", listen)
    options = {k: PlaceboType(v) if k == "placebo_type" else v for k, v in options.items()}
    named = {"treatment_names": ["t"]} if test == "placebo" else {}
    np.random.seed(0)
    getattr(refuter, function)(
        data=table, target_estimand=its.target_estimand, estimate=its, num_simulations=simulations, **named, **options
    )
    return heard[0]


@pytest.mark.parametrize(
    ("method", "test"),
    [("linear_regression", t) for t in PARTS] + [("propensity_score_weighting", t) for t in PARTS]
    + [("propensity_score_matching", t) for t in ("placebo", "subset")],
)  # fmt: skip
def test_refuted_effects_have_dowhys_distribution(method: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and standard deviation, within four Monte-Carlo errors; the same noise (none), scores fitted anew, no penalty."""
    table = world(500)[["t", "y", *NUMBERS]]
    its = estimate(
        method, of=model(table=table, common_causes=NUMBERS),
        **({} if method == "linear_regression" else {"method_params": {"propensity_score_model": unpenalised()}}),
    )  # fmt: skip
    many, few = 1000, 250
    ours = refuted(its, tests=[test], simulations=many, fraction=0.8).parts[0].effects[test][:, 0]
    theirs = theirs_of(test, its, table, few, monkeypatch)
    sd = [float(np.std(e, ddof=1)) for e in (ours, theirs)]
    assert abs(ours.mean() - theirs.mean()) < 4 * np.hypot(sd[0] / np.sqrt(many), sd[1] / np.sqrt(few))
    # Kurtosis 3 gives 1 / sqrt(2 B); a change of the estimate by one column has 5 to 6.
    heavy = float(np.mean((ours - ours.mean()) ** 4) / ours.var() ** 2)
    assert abs(np.log(sd[0] / sd[1])) < 4 * np.sqrt((heavy - 1) / 4) * np.hypot(1 / np.sqrt(many), 1 / np.sqrt(few))


# -- the example -----------------------------------------------------------------------------------------------------
def test_the_example_runs_from_top_to_bottom() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
