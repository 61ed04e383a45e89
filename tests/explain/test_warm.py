"""Single rows: the values of `explain`, one load for many first calls, bounded bytes, formats from the numbers alone."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest
from sklearn.linear_model import Ridge

import millrace as mr
from millrace.analyses.explain import explainers, warm
from millrace.analyses.explain.formats import FORMATS, formatted
from millrace.run.errors import ModelTrouble, WrongQuestion

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 5))
Y = X[:, 0] * X[:, 1] + X[:, 2]
TABLE = pandas.DataFrame(X, columns=list("abcde"))
MODEL = lightgbm.LGBMRegressor(n_estimators=10, num_leaves=7, verbose=-1, n_jobs=1).fit(TABLE, Y)


def smooth(rows: np.ndarray) -> np.ndarray:
    return np.sin(rows).sum(axis=1) + rows[:, 0] * rows[:, 1]


@pytest.mark.parametrize(
    ("model", "background"),
    [(MODEL, None), (MODEL, TABLE[:20]), (Ridge().fit(TABLE, Y), TABLE[:20]), (smooth, X[:20])],
    ids=["trees", "trees and background", "line", "function"],
)
def test_a_row_has_the_values_that_it_has_among_many(model: Any, background: Any) -> None:
    rows = TABLE if background is None or isinstance(background, pandas.DataFrame) else X
    whole = mr.explain(model, rows[:30], background=background)
    explainer = mr.explainer(model, background=background, digest="this one")
    many = explainer.rows(X[:30].tolist())
    for i in (0, 7):
        found = explainer.row(list(X[i]))
        np.testing.assert_allclose(found.values[:, 0], whole.values[i], atol=1e-12)
        np.testing.assert_allclose(found.base_values, whole.base_values, atol=1e-12)
        np.testing.assert_allclose(found.predictions, whole.predictions[i], atol=1e-12)
    exact = np.testing.assert_array_equal if model is not MODEL or background is None else np.testing.assert_allclose
    exact(np.stack([one.values[:, 0] for one in many]), whole.values)
    exact(np.stack([one.predictions for one in many]), whole.predictions)
    for i in (0, 7, 29):  # whatever rows are beside it
        for beside in (X[i : i + 1], X[i:30], X[: i + 1]):
            (alone,) = [one for one in explainer.rows(beside.tolist()) if (one.data == X[i]).all()]
            np.testing.assert_array_equal(alone.values, many[i].values)
            assert alone.additivity_error == many[i].additivity_error
    assert found.method == whole.method and found.unit == whole.unit and found.model_digest == "this one"


def test_names_are_matched_and_what_is_missing_is_an_error() -> None:
    explainer = mr.explainer(MODEL)
    named = explainer.row({name: X[3, j] for j, name in reversed(list(enumerate("abcde")))})
    np.testing.assert_array_equal(named.values, explainer.row(X[3]).values)
    assert np.isnan(explainer.row([None, *X[3, 1:]]).data[0])
    for row, says in (({"a": 1.0}, "lacks"), ([1.0, 2.0], "2 values"), (["x", 1, 1, 1, 1], "takes numbers")):
        with pytest.raises(WrongQuestion, match=says):
            explainer.row(row)
        with pytest.raises(WrongQuestion, match=f"^Row 1 of 2.*{says}"):
            explainer.rows([X[0], row])
    with pytest.raises(WrongQuestion, match="background"):
        mr.explainer(Ridge().fit(X, Y))


def test_many_first_calls_load_once() -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def slowly(*args: Any, **options: Any) -> warm.Explainer:
        begun.release()
        assert go.wait(60)
        return warm.open_explainer(*args, **options)

    held, found = explainers.Explainers(1 << 30, slowly), []
    threads = [threading.Thread(target=lambda: found.append(held.get(MODEL, digest="m"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert begun.acquire(timeout=60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert held.loads == 1 and len(found) == 12 and len({id(e) for e in found}) == 1
    assert held.get(MODEL, digest="m") is found[0] and held.hits >= 1
    assert held.get(MODEL, digest="m", output="raw") is not found[0]


def test_a_load_that_fails_is_everybodys_error_and_is_forgotten(tmp_path: Path) -> None:
    held = explainers.Explainers(1 << 30)
    with pytest.raises(WrongQuestion, match="no model file"):
        held.get(tmp_path / "m.txt")
    (tmp_path / "m.txt").write_text("nonsense")
    with pytest.raises(ModelTrouble):
        held.get(tmp_path / "m.txt")
    MODEL.booster_.save_model(tmp_path / "m.txt")
    assert held.get(tmp_path / "m.txt").digest == warm.digest_of(tmp_path / "m.txt")


def test_the_cache_holds_bytes_not_entries() -> None:
    size = warm.open_explainer(MODEL, digest="a").size_bytes
    held = explainers.Explainers(2 * size + size // 2)
    first = held.get(MODEL, digest="a")
    held.get(MODEL, digest="b")
    assert held.get(MODEL, digest="a") is first
    held.get(MODEL, digest="c")  # b was used longest ago
    assert held.size_bytes == 2 * size and held.evicted == 1
    assert held.get(MODEL, digest="a") is first
    assert explainers.Explainers(1).get(MODEL, digest="a").size_bytes == size  # used, and not kept


def test_formats_say_only_what_is_in_the_numbers() -> None:
    answer = mr.explainer(MODEL).row(X[0])
    for form in FORMATS:
        json.dumps(formatted(answer, form, 2))
    whole, part = formatted(answer, "full")["outputs"][0], formatted(answer, "top_k", 2)["outputs"][0]
    assert len(whole["features"]) == 5 and len(part["features"]) == 2
    assert part["sum_of_values"] == whole["sum_of_values"]
    shown = sum(f["value"] for f in part["features"]) + part["others"]
    assert shown == pytest.approx(whole["prediction"] - whole["base_value"], abs=1e-12)
    said = formatted(answer, "narrative", 2)["sentences"]
    strongest = max(whole["features"], key=lambda f: abs(f["value"]))
    assert said[1].startswith(f"{strongest['feature']} = ")
    assert ("raises" in said[1]) == (strongest["value"] > 0)
    assert len(said) == 4 and "other 3 features" in said[3]
    with pytest.raises(ValueError, match="no format"):
        formatted(answer, "long")
