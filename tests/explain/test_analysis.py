"""explain as its users meet it: the laws of an analysis, peers' values, files, tables, columns, and bad input."""

import warnings

import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import millrace as mr
from millrace.analyses.explain.oracle import brute_interventional
from millrace.run.errors import ModelTrouble, NotSupported, WrongQuestion
from millrace.testing.analyses import LAWS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5000, 6))
X[RNG.random(X.shape) < 0.05] = np.nan
FULL = np.nan_to_num(X)
Y = FULL[:, 0] * FULL[:, 1] + FULL[:, 2] + 0.1 * RNG.standard_normal(len(X))


def light(**options):
    return lightgbm.LGBMRegressor(n_estimators=20, num_leaves=15, verbose=-1, n_jobs=1, **options)


MODEL = light().fit(X, Y)


def trees(**machine):
    return ask_with(MODEL, X, None, machine)


def ask_with(model, rows, background, machine):
    from millrace import compose

    question = {"model": model, "data": rows, "background": background}
    return compose.carry_out("explain", question, compose.Machine(**machine))


def tables(**machine):
    return ask_with(MODEL, X, X[:50], machine)


def smooth(rows):
    return np.sin(rows).sum(axis=1) + rows[:, 0] * rows[:, 1]


def estimated(**machine):
    wide = np.hstack([FULL, FULL[:, ::-1] + 1, FULL * 2])[:48]
    return ask_with(smooth, wide, wide[:40], machine)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("ask", [trees, tables, estimated], ids=["trees", "tables", "estimated"])
def test_law(law, ask, tmp_path):
    law(ask, tmp_path)


def test_values_are_those_of_the_libraries_themselves():
    own = MODEL.booster_.predict(X, pred_contrib=True)
    answer = mr.explain(MODEL, X)
    np.testing.assert_allclose(answer.values, own[:, :-1], atol=1e-12)
    np.testing.assert_allclose(answer.base_values, own[0, -1], atol=1e-12)
    extreme = xgboost.XGBRegressor(n_estimators=20, max_depth=4, n_jobs=1).fit(X, Y)
    own = extreme.get_booster().predict(xgboost.DMatrix(X), pred_contribs=True)
    np.testing.assert_allclose(mr.explain(extreme, X).values, own[:, :-1], atol=2e-5)
    assert answer.exact and answer.method == "tree_path_dependent" and answer.additivity_error < 1e-12


def test_every_family_equals_the_brute_force_oracle():
    background = FULL[100:110]
    models = {
        "interventional": light().fit(FULL, Y),
        "linear": Ridge().fit(FULL, Y),
        "kernel": make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, tol=1.0)).fit(
            FULL, Y
        ),
    }
    for method, model in models.items():
        answer = mr.explain(model, FULL[:3], background=background)
        assert answer.method == method and answer.exact
        for row, values in zip(FULL[:3], answer.values, strict=True):
            phi, _ = brute_interventional(model.predict, row, background)
            np.testing.assert_allclose(values, np.ravel(phi), atol=1e-9)


def test_classes_have_names_and_units():
    labels = np.array(["no", "yes"])[(Y > 0).astype(int)]
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(FULL, labels)
    answer = mr.explain(forest, FULL[:50])
    assert answer.output_names == ("no", "yes") and answer.values.shape == (50, 6, 2) and answer.unit == "probability"
    yes = mr.explain(forest, FULL[:50], output="yes")
    np.testing.assert_array_equal(yes.values, answer.of("yes"))
    boosted = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(FULL, labels)
    assert mr.explain(boosted, FULL[:50]).unit == "log-odds of yes"
    by_probability = mr.explain(boosted, FULL[:3], output="probability", background=FULL[:20])
    assert by_probability.method == "kernel" and by_probability.exact
    np.testing.assert_allclose(by_probability.predictions[:, -1], boosted.predict_proba(FULL[:3])[:, 1])
    raw = mr.explain(LogisticRegression().fit(FULL, labels), FULL[:9], output="raw")
    assert raw.method == "linear" and raw.unit == "log-odds of yes"


def test_tables_of_every_library_give_the_same_answer_and_columns_are_put_right():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = light().fit(frame, Y)
    answer = mr.explain(model, frame)
    assert mr.explain(model, pl.from_pandas(frame)).digest == answer.digest
    turned = mr.explain(model, frame[list("fedcba")])
    assert turned.digest == answer.digest and any("order" in n for n in turned.notes)


def test_categories_are_the_models_whatever_codes_the_data_uses():
    kinds = pd.Categorical(np.array(["u", "v", "w", "z"])[RNG.integers(0, 4, 600)])
    frame = pd.DataFrame({"a": FULL[:600, 0], "k": kinds})
    target = FULL[:600, 0] + np.isin(kinds, ["u", "z"]) * 2
    model = light(min_data_per_group=5, cat_smooth=1).fit(frame, target)
    whole = mr.explain(model, frame)
    part = frame[frame.k.isin(["w", "z"])].copy()
    part["k"] = part["k"].astype(str)  # other codes for the same labels
    np.testing.assert_array_equal(mr.explain(model, part).values, whole.values[frame.k.isin(["w", "z"]).to_numpy()])


def test_model_files_and_data_files(tmp_path):
    MODEL.booster_.save_model(tmp_path / "m.txt")
    np.save(tmp_path / "x.npy", X)
    from_files = mr.explain(tmp_path / "m.txt", tmp_path / "x.npy", out=tmp_path / "out")
    assert from_files.digest == mr.explain(MODEL, X).digest
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"result.json", "values.parquet", "importance.parquet", "ledger.jsonl", "report.html"} <= written
    wide = pd.read_parquet(tmp_path / "out" / "values.parquet")
    np.testing.assert_array_equal(wide.iloc[:, :6], from_files.values)
    np.testing.assert_allclose(wide.iloc[:, :7].sum(axis=1), wide["prediction"], atol=1e-12)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # matplotlib's, of shap's own calls
def test_shap_takes_it():
    import shap

    answer = mr.explain(MODEL, X[:100])
    given = answer.to_shap()
    assert isinstance(given, shap.Explanation) and given.values.shape == (100, 6)
    np.testing.assert_allclose(given.base_values + given.values.sum(axis=1), MODEL.predict(X[:100]), atol=1e-12)


def test_single_precision_adds_up_to_its_rounding():
    answer = mr.explain(MODEL, X, precision="float32")
    assert answer.values.dtype == np.float32 and 0 < answer.additivity_error < 1e-5


def test_limit_takes_the_first_rows_and_one_row_is_enough():
    assert len(mr.explain(MODEL, X, limit=10)) == 10
    assert mr.explain(MODEL, X[:1]).values.shape == (1, 6)


def test_an_open_run_is_shared():
    with mr.Run(engine="inline") as run:
        one = mr.explain(MODEL, X, run=run)
        two = mr.explain(MODEL, X, run=run)
        assert one.digest == two.digest and run.cached == run.computed


def test_the_plan_is_what_runs():
    plan = mr.plan.explain(MODEL, X, cores=2)
    answer = mr.explain(MODEL, X, cores=2, engine="inline")
    assert answer.report.plan["tasks"] == plan.tasks and answer.report.plan["block"] == plan.block
    assert plan.smallest_bytes <= plan.peak_bytes


@pytest.mark.parametrize(
    ("question", "error", "says"),
    [
        ({"method": "nonsense"}, ValueError, "nonsense"),
        ({"method": "gradient"}, NotSupported, "gradient"),
        ({"output": "log_loss"}, NotSupported, "log_loss"),
        ({"output": "maybe"}, WrongQuestion, "maybe"),
        ({"method": "interventional"}, WrongQuestion, "background"),
        ({"method": "tree_path_dependent", "background": X[:5]}, WrongQuestion, "no background"),
        ({"method": "linear"}, NotSupported, "linear"),
        ({"X": X[:, :5]}, WrongQuestion, "5 columns"),
        ({"X": X[:0]}, WrongQuestion, "0 rows"),
        ({"X": pd.DataFrame(X[:3], columns=list("abcdef")).assign(a="text")}, WrongQuestion, "'a'"),
        ({"model": "nowhere.txt"}, WrongQuestion, "nowhere.txt"),
        ({"model": object()}, ModelTrouble, "predict"),
        ({"model": lambda rows: rows[:, 0] + np.random.random(), "X": FULL[:5]}, ModelTrouble, "random"),
        ({"model": lambda rows: rows[0], "X": FULL[:5]}, ModelTrouble, "shape|rows"),
        ({"model": Ridge().fit(FULL, Y)}, WrongQuestion, "missing"),
    ],
)
def test_bad_input_is_one_clear_paragraph_before_the_work(question, error, says):
    question = dict(question)
    model, rows = question.pop("model", MODEL), question.pop("X", X[:50])
    with warnings.catch_warnings(), pytest.raises(error, match=says):
        warnings.simplefilter("ignore")
        mr.explain(model, rows, engine="inline", **question)


def test_a_deadline_gives_no_part_in_place_of_the_whole():
    from millrace.run.errors import Interrupted

    with pytest.raises(Interrupted, match="deadline"):
        trees(engine="inline", deadline=1e-9)


def test_spaces_in_names_are_lightgbms_underscores():
    frame = pd.DataFrame(X, columns=["the first", *"bcdef"])
    model = light().fit(frame.rename(columns={"the first": "the_first"}), Y)
    np.testing.assert_array_equal(mr.explain(model, frame).values, mr.explain(MODEL, X).values)
