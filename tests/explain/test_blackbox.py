"""Any model becomes a checked function, by what it can do; what is no function of rows is refused with its row."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas
import polars
import pytest
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest, VotingClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from millrace.analyses.explain.kernels.blackbox import Function, as_function, check_rows
from millrace.analyses.explain.kernels.coalitions import design, explain_rows
from millrace.run.errors import ModelTrouble, WrongQuestion

ROWS = np.random.default_rng(0).normal(size=(60, 4))
TARGET = ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2]
TWO = np.where(TARGET > 0, "yes", "no")
THREE = np.digitize(TARGET, [-0.7, 0.7])
NAMES = ("age", "income", "height", "weight")
TABLE = pandas.DataFrame(ROWS, columns=list(NAMES))


def _fit(model: Any, rows: Any = ROWS, target: Any = TWO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopped early: convergence does not matter here
        return model.fit(rows, target)


def _network() -> MLPClassifier:
    return MLPClassifier(hidden_layer_sizes=(6,), max_iter=20, random_state=0)


# -- what is called ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "target", "ask", "names"),
    [
        (_network(), TWO, "predict_proba", ("no", "yes")),
        (_network(), THREE, "predict_proba", ("0", "1", "2")),
        (SVC(), TWO, "decision_function", ("yes",)),
        (SVC(), THREE, "decision_function", ("0", "1", "2")),
        (LinearSVC(max_iter=50), TWO, "decision_function", ("yes",)),
        (KNeighborsClassifier(), TWO, "predict_proba", ("no", "yes")),
        (GaussianProcessRegressor(), TARGET, "predict", ("output",)),
        (MLPRegressor(hidden_layer_sizes=(6,), max_iter=20), TARGET, "predict", ("output",)),
        (MLPRegressor(hidden_layer_sizes=(6,), max_iter=20), ROWS[:, :2], "predict", ("output 0", "output 1")),
        (IsolationForest(n_estimators=5, random_state=0), None, "decision_function", ("output",)),
        (make_pipeline(StandardScaler(), _network()), TWO, "predict_proba", ("no", "yes")),
    ],
    ids=lambda v: type(v).__name__ if hasattr(v, "fit") else None,
)
def test_auto_takes_what_the_object_can_do(model: Any, target: Any, ask: str, names: tuple[str, ...]) -> None:
    fitted = _fit(model, target=target)
    function = as_function(fitted, "auto", None, ROWS)
    assert function.method == ask
    assert function.output_names == names
    found = function.call(ROWS[:7])
    np.testing.assert_allclose(found, np.asarray(getattr(fitted, ask)(ROWS[:7])).reshape(7, -1))
    assert found.dtype == np.float64
    assert ask in function.why


def test_functions_and_bound_methods_are_taken_as_they_are() -> None:
    function = as_function(lambda rows: rows.sum(axis=1), "auto", None, ROWS)
    assert function.output_names == ("output",)
    np.testing.assert_allclose(function.call(ROWS)[:, 0], ROWS.sum(axis=1))
    bound = as_function(_fit(_network()).predict_proba, "auto", None, ROWS)
    assert bound.output_names == ("no", "yes")
    assert bound.unit == "probability"


@pytest.mark.parametrize("make", [list, np.float32, pandas.Series, pandas.DataFrame, lambda y: y[:, None], np.int64])
def test_answers_of_any_numeric_kind_are_taken(make: Any) -> None:
    function = as_function(lambda rows: make(np.round(rows[:, 0] * 8)), "auto", None, ROWS)
    np.testing.assert_allclose(function.call(ROWS[:5])[:, 0], np.round(ROWS[:5, 0] * 8))


def test_a_class_is_chosen_by_its_name() -> None:
    fitted = _fit(_network())
    function = as_function(fitted, "no", None, ROWS)
    assert function.output_names == ("no",)
    assert function.unit == "probability of no"
    assert np.array_equal(function.call(ROWS)[:, 0], fitted.predict_proba(ROWS)[:, 0])


def test_one_score_for_two_classes_is_turned_round_for_the_first() -> None:
    fitted = _fit(SVC())
    second, first = (as_function(fitted, name, None, ROWS).call(ROWS) for name in ("yes", "no"))
    assert np.array_equal(second[:, 0], fitted.decision_function(ROWS))
    assert np.array_equal(first, -second)


def test_an_output_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(WrongQuestion, match=r"'maybe'.*'no', 'yes'"):
        as_function(_fit(_network()), "maybe", None, ROWS)
    with pytest.raises(WrongQuestion, match=r"'no', 'yes'"):
        as_function(_fit(SVC()), "maybe", None, ROWS)
    with pytest.raises(WrongQuestion, match="'output'"):
        as_function(_fit(Ridge(), target=TARGET), "maybe", None, ROWS)
    assert as_function(lambda rows: rows, "output 2", None, ROWS).call(ROWS[:3]).shape == (3, 1)


def test_raw_and_probability_are_never_mixed_up() -> None:
    both = _fit(LogisticRegression())
    assert as_function(both, "raw", None, ROWS).method == "decision_function"
    assert as_function(both, "probability", None, ROWS).method == "predict_proba"
    assert as_function(_fit(Ridge(), target=TARGET), "raw", None, ROWS).method == "predict"
    with pytest.raises(WrongQuestion, match="no raw score"):
        as_function(_fit(_network()), "raw", None, ROWS)
    with pytest.raises(WrongQuestion, match="no predict_proba"):
        as_function(_fit(SVC()), "probability", None, ROWS)
    assert as_function(both, "log_loss", None, ROWS).method == "predict_proba"
    with pytest.raises(WrongQuestion, match="no output 'log_loss'"):
        as_function(_fit(SVC()), "log_loss", None, ROWS)


def test_several_targets_keep_their_names() -> None:
    targets = np.stack([TWO, np.where(ROWS[:, 3] > 0, "a", "b")], axis=1)
    fitted = _fit(MultiOutputClassifier(KNeighborsClassifier(3)), target=targets)
    function = as_function(fitted, "auto", None, ROWS)
    assert function.output_names == ("target 0: no", "target 0: yes", "target 1: a", "target 1: b")
    np.testing.assert_allclose(function.call(ROWS), np.hstack(fitted.predict_proba(ROWS)))


def test_of_labels_it_is_explained_which_one_is_given() -> None:
    voting = _fit(VotingClassifier([("a", _network()), ("b", KNeighborsClassifier())], voting="hard"))
    function = as_function(voting, "auto", None, ROWS)
    assert function.output_names == ("no", "yes") and function.unit == "1 where the label is given"
    np.testing.assert_array_equal(function.call(ROWS)[:, 1], voting.predict(ROWS) == "yes")
    np.testing.assert_array_equal(as_function(voting, "no", None, ROWS).call(ROWS)[:, 0], voting.predict(ROWS) == "no")
    with pytest.raises(WrongQuestion, match="labels only"):
        as_function(voting, "raw", None, ROWS)
    with pytest.raises(ModelTrouble, match="type"):
        as_function(voting.predict, "auto", None, ROWS)


def test_what_is_no_model_is_refused() -> None:
    for thing in (object(), 3, {"a": 1}, None):
        with pytest.raises(ModelTrouble, match="is no model"):
            as_function(thing, "auto", None, ROWS)
    with pytest.raises(ModelTrouble, match="not fitted"):
        as_function(_network(), "auto", None, ROWS)


def test_the_function_travels_by_pickle() -> None:
    function = as_function(_fit(_network()), "yes", None, ROWS)
    again = pickle.loads(pickle.dumps(function))
    assert isinstance(again, Function)
    assert np.array_equal(again.call(ROWS), function.call(ROWS))


# -- tables --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: m.predict_proba, lambda m: lambda rows: m.predict_proba(rows)])
def test_a_model_fitted_on_a_table_gets_a_table_and_does_not_warn(wrap: Any) -> None:
    fitted = _fit(_network(), rows=TABLE)
    function = as_function(wrap(fitted), "auto", NAMES, ROWS)  # a warning is an error in these tests
    assert function.frame == "pandas"
    assert np.array_equal(function.call(ROWS), fitted.predict_proba(TABLE))
    found = explain_rows(function.call, ROWS[:2], ROWS[2:8], None, design(4, None, np.random.default_rng(0)))
    assert found.exact.all()


def test_columns_without_names_are_taken_in_the_order_of_the_models_table() -> None:
    fitted = _fit(_network(), rows=TABLE)
    function = as_function(fitted, "auto", None, ROWS)
    assert np.array_equal(function.call(ROWS), fitted.predict_proba(TABLE))


def test_without_a_table_library_the_model_gets_the_array_and_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    from millrace.analyses.explain.kernels import blackbox

    monkeypatch.setattr(blackbox, "find_spec", lambda name: None)
    fitted = _fit(_network(), rows=TABLE)
    function = as_function(fitted, "auto", NAMES, ROWS)
    assert function.frame == ""
    assert np.array_equal(function.call(ROWS), fitted.predict_proba(TABLE))


def test_a_function_of_named_columns_gets_a_table() -> None:
    function = as_function(lambda t: t["age"] * t["income"], "auto", NAMES, ROWS)
    assert function.frame == "pandas"
    np.testing.assert_allclose(function.call(ROWS)[:, 0], ROWS[:, 0] * ROWS[:, 1])
    function = as_function(lambda t: t.select(polars.col("age") * 2).to_numpy(), "auto", NAMES, ROWS)
    assert function.frame == "polars"
    np.testing.assert_allclose(function.call(ROWS)[:, 0], ROWS[:, 0] * 2)
    assert as_function(lambda rows: np.asarray(rows)[:, 0], "auto", NAMES, ROWS).frame == ""


def test_text_columns_reach_a_pipeline_as_text() -> None:
    labels = ("blue", "green", "red")
    codes = np.random.default_rng(1).integers(0, 3, 60).astype(float)
    table = TABLE.assign(colour=np.array(labels, dtype=object)[codes.astype(int)])
    encoder = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    fitted = _fit(make_pipeline(encoder, _network()), rows=table)
    rows = np.column_stack([ROWS, codes])
    function = as_function(fitted, "yes", (*NAMES, "colour"), rows, {4: labels})
    np.testing.assert_allclose(function.call(rows)[:, 0], fitted.predict_proba(table)[:, 1])
    rows[0, 4] = np.nan
    seen = as_function(lambda t: t["colour"].isna() * 1.0, "auto", (*NAMES, "colour"), rows, {4: labels})
    assert seen.call(rows)[:2, 0].tolist() == [1.0, 0.0]


def test_columns_that_are_not_the_models_are_refused_by_name() -> None:
    fitted = _fit(_network(), rows=TABLE)
    with pytest.raises(WrongQuestion, match=r"missing \['weight'\].*\['size'\]"):
        as_function(fitted, "auto", ("age", "income", "height", "size"), ROWS)
    with pytest.raises(WrongQuestion, match="another order"):
        as_function(fitted, "auto", NAMES[::-1], ROWS)
    with pytest.raises(WrongQuestion, match="3 columns and the model takes 4"):
        as_function(_fit(_network()), "auto", None, ROWS[:, :3])


# -- bad functions -------------------------------------------------------------------------------------------------
class _Random:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows[:, 0] + 0.01 * self.rng.normal(size=len(rows))  # type: ignore[no-any-return]


def _spoils(rows: NDArray[Any]) -> NDArray[Any]:
    rows[:, 2] = 0.0
    return rows.sum(axis=1)


def _raises_on_one(rows: NDArray[Any]) -> NDArray[Any]:
    if (rows[:, 0] == ROWS[17, 0]).any():
        raise ZeroDivisionError("something is wrong with this one")
    return rows.sum(axis=1)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda rows: rows.sum(), r"shape \(\) for 60 rows"),
        (lambda rows: rows[:-1, 0], r"shape \(59,\) for 60 rows"),
        (lambda rows: np.zeros((len(rows), 2, 2)), r"shape \(60, 2, 2\)"),
        (lambda rows: np.zeros((len(rows), 0)), r"shape \(60, 0\)"),
        (lambda rows: np.array(["a"] * len(rows)), "numbers are needed"),
        (lambda rows: None, "numbers are needed"),
        (lambda rows: np.where(rows[:, 0] > 1, np.nan, 1.0), r"gave nan as output 0 of the row \["),
        (lambda rows: np.log(np.maximum(rows[:, :2], 0), where=rows[:, :2] > 0, out=np.full((len(rows), 2), -np.inf)), "-inf"),
        (_Random(), "is random"),
        (_spoils, r"changes its input: column 2 of row 0 was .* and 0.0 after"),
        (_raises_on_one, r"row 17 \(1 of 60 tried\).*ZeroDivisionError: something is wrong"),
        (lambda rows: rows["age"], "raises on every row"),
        (lambda rows: rows[:, 0] - rows[:, 0].mean(), "lets rows influence each other"),
        (lambda rows: np.arange(len(rows)), "lets rows influence each other"),
    ],
)  # fmt: skip
def test_what_is_no_function_of_rows_is_refused_and_says_why(function: Any, said: str) -> None:
    with pytest.raises(ModelTrouble, match=said):
        as_function(function, "auto", None, ROWS)


def test_an_answer_that_is_squeezed_for_one_row_does_no_harm() -> None:
    function = as_function(lambda rows: np.squeeze(np.stack([rows[:, 0], rows[:, 1]], axis=1)), "auto", None, ROWS[:1])
    assert function.call(ROWS[:1]).shape == (1, 2)


def test_a_failure_in_the_middle_of_the_work_is_a_trouble_of_the_model() -> None:
    def function(rows: NDArray[Any]) -> NDArray[Any]:
        if len(rows) > 100:
            raise OSError("the licence server is away")
        return rows[:, 0]

    checked = as_function(function, "auto", None, ROWS)
    with pytest.raises(ModelTrouble, match=r"OSError on 720 rows: the licence server") as caught:
        explain_rows(checked.call, ROWS[:2], ROWS[2:50], None, design(4, None, np.random.default_rng(0)))
    assert isinstance(caught.value.__cause__, OSError)


def test_running_out_of_memory_stays_what_it_is() -> None:
    def function(rows: NDArray[Any]) -> NDArray[Any]:
        raise MemoryError

    with pytest.raises(MemoryError):
        as_function(function, "auto", None, ROWS)


# -- bad rows ------------------------------------------------------------------------------------------------------
def test_infinite_values_are_refused_with_their_place() -> None:
    rows = ROWS.copy()
    rows[3, 1] = np.inf
    with pytest.raises(WrongQuestion, match="row 3, column 'income'"):
        as_function(lambda given: given[:, 0], "auto", NAMES, rows)
    function = as_function(lambda given: given[:, 0], "auto", None, ROWS)
    with pytest.raises(WrongQuestion, match="background has an infinite value in row 9003, column 1"):
        check_rows(function, np.concatenate([np.zeros((9000, 4)), rows]), "background")


def test_missing_values_are_refused_only_where_the_model_takes_none() -> None:
    rows = ROWS.copy()
    rows[5, 2] = np.nan
    fitted = _fit(_network())
    with pytest.raises(WrongQuestion, match="Row 5 of the data has a missing value in column 'height'"):
        as_function(fitted, "auto", NAMES, rows)
    as_function(lambda given: np.nansum(np.asarray(given), axis=1), "auto", NAMES, rows)
    function = as_function(fitted, "auto", None, ROWS)
    with pytest.raises(WrongQuestion, match="Row 9005 of the data has a missing value in column 2"):
        check_rows(function, np.concatenate([np.zeros((9000, 4)), rows]))
    check_rows(function, ROWS)


def test_no_rows_are_refused_and_one_row_is_enough() -> None:
    for shape in ((0, 4), (4, 0), (4,)):
        with pytest.raises(WrongQuestion, match="nothing to explain"):
            as_function(lambda given: given[:, 0], "auto", None, np.zeros(shape))
    fitted = _fit(SVC())
    assert as_function(fitted, "auto", None, ROWS[:1]).call(ROWS[:1]).shape == (1, 1)


def test_a_constant_model_is_a_model() -> None:
    function = as_function(lambda rows: np.full(len(rows), 4.0), "auto", None, ROWS)
    assert (function.call(ROWS) == 4.0).all()
