"""Estimator objects as functions of a table: recognised by their methods, copied, fitted anew, never torn apart by folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import millrace as mr
from millrace.analyses.refute import dowhy, refitting
from millrace.run.errors import NotSupported, WrongQuestion


class Residuals:
    """A partially linear estimator with EconML's methods, by least squares: its effect is the coefficient of the treatment."""

    def __init__(self, cv: Any = 2, random_state: int | None = None) -> None:
        self.cv, self.random_state = cv, random_state
        self.seen: list[Any] = []

    def fit(self, Y: Any, T: Any, *, X: Any = None, W: Any = None, groups: Any = None) -> Residuals:
        self.seen.append(groups)
        given = np.column_stack([p for p in (X, W) if p is not None])
        y = Y - LinearRegression().fit(given, Y).predict(given)
        t = T - LinearRegression().fit(given, T).predict(given)
        self.slope = float(t @ y / (t @ t))
        return self

    def effect(self, X: Any = None, *, T0: float = 0, T1: float = 1) -> Any:
        return np.full(1 if X is None else len(X), self.slope * (T1 - T0))


class Weighted(Residuals):
    def fit(self, Y: Any, T: Any, *, X: Any = None, W: Any = None, sample_weight: Any = None) -> Weighted:
        self.weights = sample_weight
        super().fit(Y, T, X=X, W=W)
        return self


class Counting(Residuals):
    """Its effect is the number of groups that it was told to keep together."""

    def effect(self, X: Any = None, *, T0: float = 0, T1: float = 1) -> Any:
        return 0.0 if self.seen[-1] is None else float(len(set(self.seen[-1])))


def world(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((n, 3))
    t = (w[:, 0] + rng.standard_normal(n) > 0).astype(int)
    return pd.DataFrame(w, columns=["a", "b", "c"]).assign(
        t=t, y=t + w @ [1.0, 0.5, 0.2] + rng.standard_normal(n), g=np.arange(n) // 5, v=rng.uniform(0.5, 2, n)
    )


TABLE = world()
QUESTION = {"treatment": "t", "outcome": "y", "common_causes": ("a", "b", "c")}


def asked(estimator: Any, **more: Any) -> Any:
    given = {"common_causes": ["a", "b", "c"], "simulations": 50, "engine": "inline", **more}
    return mr.refute(TABLE, "t", "y", estimator=estimator, **given)


def test_an_estimator_object_gives_what_it_gives_and_is_left_alone() -> None:
    theirs = Residuals(random_state=1)
    answer = asked(theirs)
    plain = asked("ols")
    assert answer.estimate.effect == pytest.approx(plain.estimate.effect, abs=1e-10)
    assert theirs.seen == []
    assert answer.estimator == "Residuals"
    for test, effects in answer.parts[0].effects.items():
        assert np.abs(effects[:50, 0] - plain.parts[0].effects[test][:50, 0]).max() < 2e-4 * plain.estimate.se


def test_effect_modifiers_are_x_and_the_rest_w() -> None:
    function, _ = refitting.function_of(Residuals(), QUESTION | {"effect_modifiers": ("c",), "target": "att"})
    effect, error = function(TABLE[["t", "y", "a", "b", "c"]])
    assert effect == pytest.approx(asked("ols").estimate.effect, abs=1e-10)
    assert np.isnan(error)


def test_an_estimator_without_a_seed_is_given_one_and_it_is_said() -> None:
    answer = asked(Residuals(), tests=["subset"])
    assert any("random_state=0" in note for note in answer.notes)
    assert not any("random_state" in note for note in asked(Residuals(random_state=1), tests=["subset"]).notes)


def test_copies_of_a_row_and_clusters_stay_in_one_fold() -> None:
    rows = TABLE.iloc[[0, 1, 1, 2, 2, 2, 3]]
    assert refitting._together(TABLE, None) is None
    codes = refitting._together(rows, None)
    assert codes[1] == codes[2] and codes[3] == codes[4] == codes[5]
    assert len(set(codes)) == 4
    function, _ = refitting.function_of(Counting(random_state=1), QUESTION)
    columns = ["t", "y", "a", "b", "c"]
    assert (function(TABLE[columns])[0], function(rows[columns])[0]) == (0.0, 4.0)
    by_cluster = refitting._together(TABLE, "g")
    assert len(set(by_cluster)) == 80


def test_folds_that_know_no_groups_are_named() -> None:
    from sklearn.model_selection import GroupKFold, KFold

    for cv, said in ((KFold(3), True), (GroupKFold(3), False), (3, False)):
        _, notes = refitting.function_of(Residuals(cv, 1), QUESTION)
        assert any("copies of a row" in note for note in notes) == said


def test_weights_reach_an_estimator_that_takes_them_and_are_refused_by_another() -> None:
    with pytest.raises(NotSupported, match=r"Residuals cannot be told sampling weights"):
        asked(Residuals(), weights="v")
    function, _ = refitting.function_of(Weighted(random_state=1), QUESTION | {"weights": "v"})
    effect, _ = function(TABLE[["t", "y", "a", "b", "c", "v"]])
    assert effect == pytest.approx(asked("ols").estimate.effect, abs=1e-10)


def test_only_estimators_are_taken_for_estimators() -> None:
    others = ("ols", "module:function", LinearRegression(), lambda table: 1.0, None, Residuals)
    assert not any(refitting.is_estimator(thing) for thing in others)
    assert refitting.is_estimator(Residuals())
    assert not any(dowhy.is_estimate(thing) or dowhy.is_model(thing) for thing in (*others, TABLE, Residuals()))


def test_any_other_question_comes_back_as_it_is() -> None:
    question = {"data": TABLE, "treatment": "t", "outcome": "y", "estimator": "ipw", "options": {"trim": 0.1}}
    found = dowhy.taken(question)
    assert found.question == question
    assert (found.notes, found.value, dowhy.agreement(found)) == ([], None, None)


def test_a_table_without_treatment_or_outcome_is_a_wrong_question() -> None:
    with pytest.raises(WrongQuestion, match="Which treatment"):
        mr.refute(TABLE)
    with pytest.raises(WrongQuestion, match="Which outcome"):
        mr.refute(TABLE, "t")
